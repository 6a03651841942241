//! Messages whose outer form, key, context or time is wrong: both suites.

use sealpost_wire::context::MessageContext;
use sealpost_wire::id::Digest;
use sealpost_wire::limits::SEALED_BYTES_MAX;
use sealpost_wire::message::Suite;
use sealpost_wire::padding;
use sealpost_wire::prekey::PrekeyKind;

use crate::forge::{self, Item, array, bytes, int, map, tag, text};
use crate::positive::notification;
use crate::sealed::{Case, phone_key, suite_name};
use crate::world::{self, Device, Dice, NOW};

pub(crate) const TYP: &str = "sealpost-message-v1+cose";

pub(crate) fn cases() -> Vec<Case> {
    [Suite::Hybrid, Suite::Classical].into_iter().flat_map(|suite| Good::new(suite).cases()).collect()
}

/// A sealed message in its parts.
pub(crate) struct Good {
    pub(crate) suite: Suite,
    pub(crate) phone: Device,
    pub(crate) context: MessageContext,
    pub(crate) signed: Vec<u8>,
    pub(crate) algorithm: Item,
    pub(crate) prekey: [u8; 16],
    pub(crate) ek: Vec<u8>,
    pub(crate) ciphertext: Vec<u8>,
}

impl Good {
    pub(crate) fn new(suite: Suite) -> Self {
        let phone = world::phone();
        let context = phone.context("good");
        let certificate =
            world::signed_certificate("st-mary", sealpost_wire::certificate::Purpose::Send, "lab");
        let signed = notification("good").sign(&context, &world::key("lab"), &certificate).unwrap().to_vec();
        let prekey = *phone.private(suite, PrekeyKind::Signed).id().as_bytes();
        let algorithm = int(suite.algorithm());
        let mut good =
            Self { suite, phone, context, signed, algorithm, prekey, ek: Vec::new(), ciphertext: Vec::new() };
        let padded = padding::pad(&good.signed).unwrap();
        (good.ek, good.ciphertext) = good.encrypt(&padded);
        good
    }

    /// The box of `padded`, well-formed outside.
    pub(crate) fn boxed(&self, padded: &[u8]) -> Vec<u8> {
        let (ek, ciphertext) = self.encrypt(padded);
        self.message(&self.protected().encode(), map([(-4, bytes(ek))]), bytes(ciphertext))
    }

    fn encrypt(&self, padded: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let public = self.phone.private(self.suite, PrekeyKind::Signed).public_key();
        self.encrypt_to(&public, padded)
    }

    fn encrypt_to(&self, public: &[u8], padded: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let mut dice = Dice::new(&format!("{:?} {}", self.suite, Digest::of(padded)));
        forge::encrypt(self.suite, public, &self.associated_data(), padded, &mut dice)
    }

    fn associated_data(&self) -> Vec<u8> {
        let context = array([
            text("sealpost/1"),
            text(self.context.tenant.as_str()),
            bytes(self.context.transport_id.as_bytes()),
            bytes(self.context.device.as_bytes()),
            bytes(self.context.identity.as_bytes()),
            Item::Uint(self.context.expires_at.0),
        ]);
        array([text("Encrypt0"), bytes(self.protected().encode()), bytes(context.encode())]).encode()
    }

    pub(crate) fn protected(&self) -> Item {
        map([(1, self.algorithm.clone()), (4, bytes(self.prekey)), (16, text(TYP))])
    }

    pub(crate) fn message(&self, protected: &[u8], unprotected: Item, ciphertext: Item) -> Vec<u8> {
        tag(16, array([bytes(protected), unprotected, ciphertext])).encode()
    }

    pub(crate) fn unprotected(&self) -> Item {
        map([(-4, bytes(&self.ek))])
    }

    pub(crate) fn with_protected(&self, protected: &Item) -> Vec<u8> {
        self.message(&protected.encode(), self.unprotected(), bytes(&self.ciphertext))
    }

    pub(crate) fn with_unprotected(&self, unprotected: Item) -> Vec<u8> {
        self.message(&self.protected().encode(), unprotected, bytes(&self.ciphertext))
    }

    pub(crate) fn with_ciphertext(&self, ciphertext: Item) -> Vec<u8> {
        self.message(&self.protected().encode(), self.unprotected(), ciphertext)
    }

    fn sealed(&self) -> Vec<u8> {
        self.with_ciphertext(bytes(&self.ciphertext))
    }

    pub(crate) fn case(&self, name: &str, what: &'static str, sealed: Vec<u8>, code: &'static str) -> Case {
        Case {
            name: format!("{}/{name}", suite_name(self.suite)),
            what,
            sealed,
            context: self.context.clone(),
            key: phone_key(self.suite),
            trust: "st-mary",
            now: NOW,
            outcome: Err(code),
        }
    }

    fn cases(&self) -> Vec<Case> {
        let mut cases = self.flipped();
        cases.extend(self.context_cases());
        cases.extend(self.key_cases());
        cases.extend(self.size_cases());
        cases.extend(self.encoding_cases());
        cases.extend(self.header_cases());
        cases
    }

    fn flipped(&self) -> Vec<Case> {
        let sealed = self.sealed();
        let at = |part: &[u8]| sealed.windows(part.len()).position(|window| window == part).unwrap();
        let algorithm = self.algorithm.encode();
        let ek = at(&self.ek);
        let ciphertext = at(&self.ciphertext);
        let last = sealed.len() - 1;
        [
            ("tag", "a bit of the CBOR tag is flipped", 0, "wrong_type"),
            (
                "algorithm",
                "a bit of alg is flipped",
                at(&algorithm) + algorithm.len() - 1,
                "unknown_algorithm",
            ),
            ("prekey id", "a bit of the prekey id is flipped", at(&self.prekey), "prekey_mismatch"),
            ("typ", "a bit of typ is flipped", at(TYP.as_bytes()) + 9, "wrong_typ"),
            ("label of ek", "a bit of the label -4 is flipped", ek - 4, "wrong_field"),
            ("first byte of ek", "a bit of the encapsulated key is flipped", ek, "undecryptable"),
            (
                "X25519 part of ek",
                "a bit of its X25519 part is flipped",
                ek + self.ek.len() - 32,
                "undecryptable",
            ),
            ("ciphertext", "a bit of the ciphertext is flipped", ciphertext, "undecryptable"),
            ("last byte of the ciphertext", "a bit before the tag is flipped", last - 16, "undecryptable"),
            ("authentication tag", "a bit of the Poly1305 tag is flipped", last, "undecryptable"),
        ]
        .into_iter()
        .map(|(name, what, mut at, code)| {
            // The head of ek has two or three bytes; its label stands before.
            if name == "label of ek" {
                at = ek - if self.ek.len() > 255 { 4 } else { 3 };
            }
            let mut sealed = sealed.clone();
            sealed[at] ^= 1;
            self.case(&format!("flipped bit: {name}"), what, sealed, code)
        })
        .chain([{
            let mut sealed = sealed.clone();
            sealed[ek + self.ek.len() - 1] ^= 0x80;
            let what = "the top bit of the X25519 part is flipped, which X25519 itself does not look at";
            self.case("flipped bit: top bit of ek", what, sealed, "undecryptable")
        }])
        .collect()
    }

    fn context_cases(&self) -> Vec<Case> {
        let changed = |name: &str, what: &'static str, change: &dyn Fn(&mut Case)| {
            let mut case = self.case(name, what, self.sealed(), "undecryptable");
            change(&mut case);
            case
        };
        let code = |case: &mut Case, code| case.outcome = Err(code);
        vec![
            changed("flipped bit: transport id", "opened as another message", &|case| {
                case.context.transport_id.0[0] ^= 1;
            }),
            changed("flipped bit: device id", "opened as another device", &|case| {
                case.context.device.0[0] ^= 1;
            }),
            changed("flipped bit: identity", "opened with another identity key's digest", &|case| {
                case.context.identity.0[31] ^= 1;
            }),
            changed("stretched expiry", "opened with an expiry one second later", &|case| {
                case.context.expires_at.0 += 1;
            }),
            changed("shortened expiry", "opened with an expiry one second earlier", &|case| {
                case.context.expires_at.0 -= 1;
            }),
            changed("another tenant", "opened by a device of another tenant", &|case| {
                case.context.tenant = "st-john".parse().unwrap();
                case.trust = "st-john";
            }),
            changed(
                "a tenant that is not trusted",
                "the context names another tenant than the trust",
                &|case| {
                    case.context.tenant = "st-john".parse().unwrap();
                    code(case, "wrong_tenant");
                },
            ),
            changed("expired", "opened 301 s after the expiry", &|case| {
                case.now = case.context.expires_at.plus(301);
                code(case, "expired");
            }),
        ]
    }

    fn key_cases(&self) -> Vec<Case> {
        let tablet = world::tablet();
        let theirs = tablet.private(self.suite, PrekeyKind::Signed);
        let padded = padding::pad(&self.signed).unwrap();
        // For the tablet's key, under the phone's context.
        let (ek, ciphertext) = self.encrypt_to(&theirs.public_key(), &padded);
        let named = |prekey: &[u8; 16]| {
            let protected = map([(1, self.algorithm.clone()), (4, bytes(prekey)), (16, text(TYP))]);
            self.message(&protected.encode(), map([(-4, bytes(&ek))]), bytes(&ciphertext))
        };
        let (other, other_name) = match self.suite {
            Suite::Hybrid => (Suite::Classical, "phone classical"),
            Suite::Classical => (Suite::Hybrid, "phone hybrid"),
        };
        let mut cases = vec![
            self.case(
                "another device's prekey",
                "sealed to the tablet's prekey, handed to the phone",
                named(theirs.id().as_bytes()),
                "prekey_mismatch",
            ),
            self.case(
                "another device's box renamed",
                "sealed to the tablet's prekey, and the header names the phone's",
                named(&self.prekey),
                "undecryptable",
            ),
        ];
        let mut case = self.case(
            "the device's other prekey",
            "opened with the one-time prekey; it is sealed to the signed one",
            self.sealed(),
            "prekey_mismatch",
        );
        case.key = match self.suite {
            Suite::Hybrid => "phone hybrid one-time",
            Suite::Classical => "phone classical one-time",
        };
        cases.push(case);
        let mut case = self.case(
            "a key of the other suite",
            "opened with the device's prekey of the other suite",
            self.sealed(),
            "suite_mismatch",
        );
        case.key = other_name;
        cases.push(case);
        cases.push(self.case(
            "the other suite's algorithm",
            "alg is the other suite's; the encapsulated key is not",
            self.with_protected(&map([
                (1, int(other.algorithm())),
                (4, bytes(self.prekey)),
                (16, text(TYP)),
            ])),
            "wrong_value",
        ));
        let mut zero = self.ek.clone();
        let from = zero.len() - 32;
        zero[from..].fill(0);
        cases.push(self.case(
            "a zero share",
            "the X25519 part of the encapsulated key is zero",
            self.with_unprotected(map([(-4, bytes(zero))])),
            "undecryptable",
        ));
        if self.suite == Suite::Hybrid {
            cases.extend(self.small_order_cases(&padded));
        }
        cases
    }

    /// These decrypt for an opener that does not look at the share.
    fn small_order_cases(&self, padded: &[u8]) -> Vec<Case> {
        let one = {
            let mut share = [0; 32];
            share[0] = 1;
            share
        };
        let order_eight = [
            0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a,
            0xda, 0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00,
        ];
        let mut prime = [0xff; 32];
        prime[0] = 0xed;
        let shares = [
            ("a share of order 2", [0; 32]),
            ("a share of order 4", one),
            ("a share of order 8", order_eight),
            ("a share of order 2, not reduced, with the top bit set", prime),
        ];
        let seed = *self.phone.private(self.suite, PrekeyKind::Signed).expose_seed();
        shares
            .into_iter()
            .map(|(name, share)| {
                let ml_kem = &self.ek[..self.ek.len() - 32];
                let (ek, ciphertext) =
                    forge::encrypt_to_zero_share(seed, ml_kem, share, &self.associated_data(), padded);
                let sealed =
                    self.message(&self.protected().encode(), map([(-4, bytes(ek))]), bytes(ciphertext));
                let what = "the X25519 part gives zeros with every key, and the rest was made to fit";
                self.case(name, what, sealed, "undecryptable")
            })
            .collect()
    }

    fn size_cases(&self) -> Vec<Case> {
        let sealed = self.sealed();
        let ek = sealed.windows(self.ek.len()).position(|window| window == self.ek).unwrap();
        let cut = |name: &str, length: usize| {
            self.case(
                &format!("truncated: {name}"),
                "the bytes end early",
                sealed[..length].to_vec(),
                "truncated",
            )
        };
        let mut longer = sealed.clone();
        longer.push(0);
        let lying = |delta: i64, name: &str, what: &'static str, code: &'static str| {
            let at = sealed.len() - self.ciphertext.len() - 2;
            let mut sealed = sealed.clone();
            let length = u16::try_from(self.ciphertext.len() as i64 + delta).unwrap();
            sealed[at..at + 2].copy_from_slice(&length.to_be_bytes());
            self.case(name, what, sealed, code)
        };
        vec![
            cut("nothing", 0),
            cut("in the tag's item", 1),
            cut("in the protected header", 12),
            cut("in the encapsulated key", ek + self.ek.len() / 2),
            cut("before the ciphertext", ek + self.ek.len()),
            cut("in the ciphertext", sealed.len() - 500),
            cut("the last byte", sealed.len() - 1),
            self.case("trailing byte", "a zero byte follows", longer, "trailing_bytes"),
            lying(1, "length prefix too large", "the ciphertext's length says one byte more", "truncated"),
            lying(
                -1,
                "length prefix too small",
                "the ciphertext's length says one byte less",
                "trailing_bytes",
            ),
            self.case(
                "oversized",
                "one byte more than a sealed message may have; nothing else is looked at",
                vec![0; SEALED_BYTES_MAX + 1],
                "too_large",
            ),
            self.case(
                "ciphertext without room for a tag",
                "15 bytes of ciphertext",
                self.with_ciphertext(bytes(&self.ciphertext[..15])),
                "wrong_value",
            ),
            self.case(
                "encapsulated key one byte short",
                "the last byte of the encapsulated key is missing",
                self.with_unprotected(map([(-4, bytes(&self.ek[..self.ek.len() - 1]))])),
                "wrong_value",
            ),
        ]
    }
}
