//! The worked examples of FORMAT.md are the vectors that they name, byte for byte.

use data_encoding::HEXLOWER;
use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable as _, Kem, OpModeR};
use sealpost_wire::clock::UnixTime;
use sealpost_wire::context::MessageContext;
use sealpost_wire::id::Digest;
use sealpost_wire::member::MemberCredential;
use sealpost_wire::message::SealedMessage;
use sealpost_wire::padding;
use serde_json::Value;

const PAGE: &str = include_str!("../../wire/FORMAT.md");

#[test]
fn the_example_of_a_notification_is_the_vector() {
    let example = section("### An example of a notification");
    let opened = Opened::new(example);
    assert!(example.contains(opened.key["seed"].as_str().unwrap()));
    let blocks = blocks(example);
    assert_eq!(blocks.len(), 3);
    for (block, bytes) in
        blocks.into_iter().zip([&opened.sealed, &opened.context.to_bytes(), opened.signed()])
    {
        covers(block, &HEXLOWER.encode(bytes));
    }
    opened.check_padding(example);
    assert!(example.contains(&format!("{} bytes, sealed", opened.sealed.len())));
}

#[test]
fn the_example_of_an_mls_frame_is_the_vector() {
    let example = section("### An example of an MLS frame");
    let opened = Opened::new(example);
    let blocks = blocks(example);
    assert_eq!(blocks.len(), 1);
    covers(blocks[0], &HEXLOWER.encode(opened.signed()));
    opened.check_padding(example);
}

#[test]
fn the_example_of_a_member_is_the_vector() {
    let (_, example) = section("## 6. Device sets, admissions, members").split_once("The vector").unwrap();
    let case = structure(example);
    let credential = hex(&case["given"]["bytes"]);
    assert!(example.contains(&format!("{} bytes:", credential.len())));
    let statement = MemberCredential::read(&credential).unwrap().statement.unwrap();
    let blocks = blocks(example);
    assert_eq!(blocks.len(), 2);
    covers(blocks[0], &HEXLOWER.encode(&credential));
    // The payload is the item before the signature, which is the last.
    let payload = digits(blocks[1]);
    let signed = HEXLOWER.encode(&statement[..statement.len() - 66]);
    assert!(signed.ends_with(&payload), "{payload}");
    let head = HEXLOWER.encode(&[0x58, u8::try_from(payload.len() / 2).unwrap()]);
    assert!(signed.ends_with(&format!("{head}{payload}")), "all of the payload");
}

#[test]
fn the_example_of_a_claim_is_the_vector() {
    let (_, example) = section("## 13. The digest of a submission").split_once("The vector").unwrap();
    let case = structure(example);
    let digest = case["read"]["digest"].as_str().unwrap();
    assert!(example.contains(digest));
    let blocks = blocks(example);
    assert_eq!(blocks.len(), 1);
    let written = HEXLOWER.decode(digits(blocks[0]).as_bytes()).unwrap();
    assert_eq!(Digest::of(&written).to_string(), digest);
}

/// The sealed message whose name stands first in an example.
struct Opened {
    key: Value,
    sealed: Vec<u8>,
    context: MessageContext,
    padded: Vec<u8>,
}

impl Opened {
    fn new(example: &str) -> Self {
        let file: Value = serde_json::from_str(include_str!("../../../tests/vectors/sealed.json")).unwrap();
        let case = named(&file["open"], example);
        let text = |name: &str| case["context"][name].as_str().unwrap();
        let context = MessageContext {
            tenant: text("tenant").parse().unwrap(),
            transport_id: text("transport_id").parse().unwrap(),
            device: text("device").parse().unwrap(),
            identity: text("identity").parse().unwrap(),
            expires_at: UnixTime(case["context"]["expires_at"].as_u64().unwrap()),
        };
        let key = file["keys"][case["key"].as_str().unwrap()].clone();
        let sealed = hex(&case["sealed"]);
        let message = SealedMessage::read(&sealed).unwrap();
        let padded = hpke::single_shot_open::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
            &OpModeR::Base,
            &<X25519HkdfSha256 as Kem>::PrivateKey::from_bytes(&hex(&key["seed"])).unwrap(),
            &<X25519HkdfSha256 as Kem>::EncappedKey::from_bytes(message.encapsulated_key).unwrap(),
            b"",
            message.ciphertext,
            &message.associated_data(&context),
        )
        .unwrap();
        Self { key, sealed, context, padded }
    }

    fn signed(&self) -> &[u8] {
        padding::unpad(&self.padded).unwrap()
    }

    fn check_padding(&self, example: &str) {
        let length = self.signed().len();
        assert!(example.contains(&format!("`{}` ({length})", HEXLOWER.encode(&self.padded[..4]))));
        assert!(example.contains(&format!("{} zeros", self.padded.len() - 4 - length)));
    }
}

/// The page from `heading` to the next one.
fn section(heading: &str) -> &'static str {
    let (_, rest) = PAGE.split_once(&format!("{heading}\n")).unwrap();
    let ends = ["\n## ", "\n### "].into_iter().filter_map(|next| rest.find(next));
    ends.min().map_or(rest, |end| &rest[..end])
}

/// What stands in the blocks of an example, in the order of the page.
fn blocks(example: &str) -> Vec<&str> {
    example.split("```text\n").skip(1).map(|rest| rest.split_once("```").unwrap().0).collect()
}

/// The structure whose name stands first in an example.
fn structure(example: &str) -> Value {
    let file: Value = serde_json::from_str(include_str!("../../../tests/vectors/structures.json")).unwrap();
    named(&file["structures"], example)
}

fn named(cases: &Value, example: &str) -> Value {
    let name = example.split('`').nth(1).unwrap();
    cases.as_array().unwrap().iter().find(|case| case["name"] == name).unwrap().clone()
}

/// The hexadecimal words of `block`, with `…` where it leaves digits out.
fn digits(block: &str) -> String {
    let mut written = String::new();
    for line in block.lines() {
        for word in line.split_whitespace() {
            // Two spaces begin a comment; a comment is never hexadecimal and of even length alone.
            let digits = word.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
            if !(digits || word == "…") {
                break;
            }
            written.push_str(word);
        }
    }
    written
}

/// Checks that the hexadecimal words of `block` are `hex`, `…` standing for any digits.
fn covers(block: &str, hex: &str) {
    let mut left = hex;
    for (index, part) in digits(block).split('…').enumerate() {
        let at = left.find(part).unwrap_or_else(|| panic!("{part} is not in the vector"));
        assert!(index > 0 || at == 0);
        left = &left[at + part.len()..];
    }
    assert!(left.is_empty(), "the vector goes on: {left}");
}

fn hex(value: &Value) -> Vec<u8> {
    HEXLOWER.decode(value.as_str().unwrap().as_bytes()).unwrap()
}
