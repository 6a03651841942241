//! Messages whose bytes are no sealed message: encodings and headers.

use crate::forge::{Item, Pairs, array, bytes, int, map, tag, text};
use crate::negative::{Good, TYP};
use crate::sealed::Case;

impl Good {
    pub(crate) fn encoding_cases(&self) -> Vec<Case> {
        let bad = |name: &str, what: &'static str, sealed: Vec<u8>, code: &'static str| {
            self.case(name, what, sealed, code)
        };
        let protected = self.protected().encode();
        let raw = |heads: [&[u8]; 2]| {
            let mut sealed = heads.concat();
            for item in [bytes(&protected), self.unprotected(), bytes(&self.ciphertext)] {
                sealed.extend(item.encode());
            }
            sealed
        };
        let mut indefinite = raw([&[0xd0], &[0x9f]]);
        indefinite.push(0xff);
        let mut long_string = vec![0x5a];
        long_string.extend(u32::try_from(self.ciphertext.len()).unwrap().to_be_bytes());
        long_string.extend(&self.ciphertext);
        let mut bomb = vec![0x99, 0xff, 0xff];
        bomb.resize(0x1_0002, 0);
        let pairs = |pairs: Pairs| Item::Map(pairs);
        let kid = || (int(4), bytes(self.prekey));
        let alg = || (int(1), self.algorithm.clone());
        let typ = || (int(16), text(TYP));
        let long_label = (Item::Raw(vec![0x18, 0x04]), bytes(self.prekey));
        vec![
            bad("long head: tag", "the tag in two bytes", raw([&[0xd8, 0x10], &[0x83]]), "not_deterministic"),
            bad(
                "long head: array",
                "the array's length in two bytes",
                raw([&[0xd0], &[0x98, 3]]),
                "not_deterministic",
            ),
            bad(
                "long head: ciphertext",
                "the ciphertext's length in five bytes",
                self.with_ciphertext(Item::Raw(long_string)),
                "not_deterministic",
            ),
            bad("indefinite array", "an array of indefinite length", indefinite, "not_deterministic"),
            bad(
                "header out of order",
                "typ stands before the prekey id in the protected header",
                self.with_protected(&pairs(vec![alg(), typ(), kid()])),
                "not_deterministic",
            ),
            bad(
                "header twice",
                "alg stands twice in the protected header",
                self.with_protected(&pairs(vec![alg(), alg(), kid(), typ()])),
                "not_deterministic",
            ),
            bad(
                "long head: label",
                "a label of the protected header in two bytes",
                self.with_protected(&pairs(vec![alg(), long_label, typ()])),
                "not_deterministic",
            ),
            bad("deep arrays", "1000 arrays in each other", vec![0x81; 1000], "too_deep"),
            bad("deep tags", "1000 tags in each other", vec![0xd0; 1000], "too_deep"),
            bad(
                "deep header",
                "seven arrays in each other under a label of the unprotected header",
                self.with_unprotected(map([(-4, Item::Raw(vec![0x81, 0x81, 0x81, 0x81, 0x81, 0x81, 0x80]))])),
                "too_deep",
            ),
            bad("many items", "65535 items", bomb, "too_many_items"),
            bad(
                "a huge array that is not there",
                "an array of 2^32 - 1 items, and none follows",
                vec![0x9a, 0xff, 0xff, 0xff, 0xff],
                "truncated",
            ),
            bad(
                "a huge string that is not there",
                "a byte string of 2^64 - 1 bytes, and none follows",
                vec![0x5b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
                "truncated",
            ),
            bad(
                "detached ciphertext",
                "null in the ciphertext's place",
                self.with_ciphertext(Item::Raw(vec![0xf6])),
                "wrong_type",
            ),
            bad(
                "ciphertext as text",
                "a text in the ciphertext's place",
                self.with_ciphertext(text(&"x".repeat(1040))),
                "wrong_type",
            ),
            bad("bytes that are not CBOR", "0x1c, a reserved length", vec![0x1c], "wrong_type"),
        ]
    }

    pub(crate) fn header_cases(&self) -> Vec<Case> {
        let bad = |name: &str, what: &'static str, sealed: Vec<u8>, code: &'static str| {
            self.case(name, what, sealed, code)
        };
        let protected = self.protected().encode();
        let parts = || vec![bytes(&protected), self.unprotected(), bytes(&self.ciphertext)];
        let mut four = parts();
        four.push(Item::Array(Vec::new()));
        let alg = |alg: i64| map([(1, int(alg)), (4, bytes(self.prekey)), (16, text(TYP))]);
        vec![
            bad("no tag", "the array without tag 16", Item::Array(parts()).encode(), "wrong_type"),
            bad("another tag", "tag 96, COSE_Encrypt", tag(96, Item::Array(parts())).encode(), "wrong_type"),
            bad(
                "four parts",
                "an empty list of recipients follows",
                tag(16, Item::Array(four)).encode(),
                "wrong_field",
            ),
            bad(
                "an unprotected header more",
                "the prekey id stands in the unprotected header too",
                self.with_unprotected(Item::Map(vec![
                    (int(4), bytes(self.prekey)),
                    (int(-4), bytes(&self.ek)),
                ])),
                "wrong_field",
            ),
            bad(
                "no encapsulated key",
                "the unprotected header is empty",
                self.with_unprotected(map([])),
                "wrong_field",
            ),
            bad(
                "no typ",
                "the protected header has no typ",
                self.with_protected(&map([(1, self.algorithm.clone()), (4, bytes(self.prekey))])),
                "wrong_field",
            ),
            bad(
                "a protected header more",
                "crit (2) stands in the protected header",
                self.with_protected(&map([
                    (1, self.algorithm.clone()),
                    (2, array([int(16)])),
                    (4, bytes(self.prekey)),
                    (16, text(TYP)),
                ])),
                "wrong_field",
            ),
            bad(
                "a prekey id of 15 bytes",
                "the prekey id is a byte short",
                self.with_protected(&map([
                    (1, self.algorithm.clone()),
                    (4, bytes(&self.prekey[..15])),
                    (16, text(TYP)),
                ])),
                "wrong_value",
            ),
            bad(
                "another typ",
                "typ is a receipt's",
                self.with_protected(&map([
                    (1, self.algorithm.clone()),
                    (4, bytes(self.prekey)),
                    (16, text("sealpost-receipt-v1+cose")),
                ])),
                "wrong_typ",
            ),
            bad(
                "an unknown algorithm",
                "alg is HPKE-0 (35)",
                self.with_protected(&alg(35)),
                "unknown_algorithm",
            ),
            bad(
                "a cipher for alg",
                "alg is ChaCha20/Poly1305 (24)",
                self.with_protected(&alg(24)),
                "unknown_algorithm",
            ),
            bad(
                "an empty protected header",
                "the protected header is a byte string of no bytes",
                self.message(&[], self.unprotected(), bytes(&self.ciphertext)),
                "truncated",
            ),
        ]
    }
}
