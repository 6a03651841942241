//! The worked example of FORMAT.md is the vector that it names, byte for byte.

use data_encoding::HEXLOWER;
use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable as _, Kem, OpModeR};
use sealpost_wire::clock::UnixTime;
use sealpost_wire::context::MessageContext;
use sealpost_wire::message::SealedMessage;
use sealpost_wire::padding;
use serde_json::Value;

const PAGE: &str = include_str!("../../wire/FORMAT.md");

#[test]
fn the_example_is_the_vector() {
    let file: Value = serde_json::from_str(include_str!("../../../tests/vectors/sealed.json")).unwrap();
    let (_, rest) = PAGE.split_once("### An example").unwrap();
    let (example, _) = rest.split_once("\n## ").unwrap();
    let name = example.split('`').nth(1).unwrap();
    let case = file["open"].as_array().unwrap().iter().find(|case| case["name"] == name).unwrap();
    let key = &file["keys"][case["key"].as_str().unwrap()];
    assert!(example.contains(key["seed"].as_str().unwrap()));

    let text = |name: &str| case["context"][name].as_str().unwrap();
    let context = MessageContext {
        tenant: text("tenant").parse().unwrap(),
        transport_id: text("transport_id").parse().unwrap(),
        device: text("device").parse().unwrap(),
        identity: text("identity").parse().unwrap(),
        expires_at: UnixTime(case["context"]["expires_at"].as_u64().unwrap()),
    };
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

    // The three blocks, without their comments, in the order of the page.
    let blocks: Vec<&str> =
        example.split("```text\n").skip(1).map(|rest| rest.split_once("```").unwrap().0).collect();
    let signed = padding::unpad(&padded).unwrap();
    assert_eq!(blocks.len(), 3);
    for (block, bytes) in blocks.into_iter().zip([&sealed[..], &context.to_bytes(), signed]) {
        covers(block, &HEXLOWER.encode(bytes));
    }
    assert!(example.contains(&format!("`{}` ({})", HEXLOWER.encode(&padded[..4]), signed.len())));
    assert!(example.contains(&format!("{} zeros", padded.len() - 4 - signed.len())));
    assert!(example.contains(&format!("{} bytes, sealed", sealed.len())));
}

/// Checks that the hexadecimal words of `block` are `hex`, `…` standing for any digits.
fn covers(block: &str, hex: &str) {
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
    let mut left = hex;
    for (index, part) in written.split('…').enumerate() {
        let at = left.find(part).unwrap_or_else(|| panic!("{part} is not in the vector"));
        assert!(index > 0 || at == 0);
        left = &left[at + part.len()..];
    }
    assert!(left.is_empty(), "the vector goes on: {left}");
}

fn hex(value: &Value) -> Vec<u8> {
    HEXLOWER.decode(value.as_str().unwrap().as_bytes()).unwrap()
}
