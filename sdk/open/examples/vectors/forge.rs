//! Writes CBOR, COSE and HPKE as told, also wrongly. It shares no code with the crates under test but HPKE
//! itself.

use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::kem::{X25519HkdfSha256, XWing};
use hpke::{Deserializable as _, Kem, OpModeS, Serializable as _};
use rand_core::CryptoRng;
use sealpost_wire::key::SigningKey;
use sealpost_wire::message::Suite;

/// A CBOR item.
#[derive(Clone, Debug)]
pub(crate) enum Item {
    Uint(u64),
    /// -1 - n.
    Negative(u64),
    Bytes(Vec<u8>),
    Text(String),
    Array(Vec<Item>),
    Map(Vec<(Item, Item)>),
    Tag(u64, Box<Item>),
    /// Bytes that stand for themselves.
    Raw(Vec<u8>),
}

/// The pairs of a map.
pub(crate) type Pairs = Vec<(Item, Item)>;

impl Item {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.write(&mut bytes);
        bytes
    }

    fn write(&self, to: &mut Vec<u8>) {
        match self {
            Self::Uint(value) => head(to, 0, *value),
            Self::Negative(value) => head(to, 1, *value),
            Self::Bytes(bytes) => {
                head(to, 2, bytes.len() as u64);
                to.extend(bytes);
            }
            Self::Text(text) => {
                head(to, 3, text.len() as u64);
                to.extend(text.as_bytes());
            }
            Self::Array(items) => {
                head(to, 4, items.len() as u64);
                items.iter().for_each(|item| item.write(to));
            }
            Self::Map(pairs) => {
                head(to, 5, pairs.len() as u64);
                for (key, value) in pairs {
                    key.write(to);
                    value.write(to);
                }
            }
            Self::Tag(tag, item) => {
                head(to, 6, *tag);
                item.write(to);
            }
            Self::Raw(bytes) => to.extend(bytes),
        }
    }
}

fn head(to: &mut Vec<u8>, major: u8, value: u64) {
    let be = value.to_be_bytes();
    let (info, bytes): (u8, &[u8]) = match value {
        0..=23 => (be[7], &[]),
        24..=0xff => (24, &be[7..]),
        0x100..=0xffff => (25, &be[6..]),
        0x1_0000..=0xffff_ffff => (26, &be[4..]),
        _ => (27, &be),
    };
    to.push(major << 5 | info);
    to.extend(bytes);
}

pub(crate) fn int(value: i64) -> Item {
    u64::try_from(value).map_or_else(|_| Item::Negative(!value as u64), Item::Uint)
}

pub(crate) fn bytes(value: impl AsRef<[u8]>) -> Item {
    Item::Bytes(value.as_ref().to_vec())
}

pub(crate) fn text(value: &str) -> Item {
    Item::Text(value.to_owned())
}

pub(crate) fn array<const N: usize>(items: [Item; N]) -> Item {
    Item::Array(items.into())
}

/// A map with integer keys.
pub(crate) fn map<const N: usize>(pairs: [(i64, Item); N]) -> Item {
    Item::Map(pairs.into_iter().map(|(key, value)| (int(key), value)).collect())
}

pub(crate) fn tag(number: u64, item: Item) -> Item {
    Item::Tag(number, Box::new(item))
}

/// What a COSE_Sign1 is made of.
#[derive(Clone, Debug)]
pub(crate) struct Sign1 {
    pub(crate) protected: Vec<(Item, Item)>,
    pub(crate) unprotected: Item,
    pub(crate) payload: Vec<u8>,
    pub(crate) external_aad: Vec<u8>,
}

impl Sign1 {
    pub(crate) fn new(key: &SigningKey, typ: &str, certificate: Option<&[u8]>, payload: &Item) -> Self {
        let kid = key.verifying_key().key_id();
        let mut protected = vec![(int(1), int(-19)), (int(4), bytes(kid.as_bytes())), (int(16), text(typ))];
        protected.extend(certificate.map(|certificate| (int(-65537), bytes(certificate))));
        Self { protected, unprotected: map([]), payload: payload.encode(), external_aad: Vec::new() }
    }

    pub(crate) fn sign(&self, key: &SigningKey) -> Vec<u8> {
        self.sign_by(|message| key.sign(message))
    }

    /// Signs as `make` does.
    pub(crate) fn sign_by(&self, make: impl Fn(&[u8]) -> [u8; 64]) -> Vec<u8> {
        let protected = Item::Map(self.protected.clone()).encode();
        let signed =
            array([text("Signature1"), bytes(&protected), bytes(&self.external_aad), bytes(&self.payload)]);
        let signature = make(&signed.encode());
        let parts = [bytes(protected), self.unprotected.clone(), bytes(&self.payload), bytes(signature)];
        tag(18, array(parts)).encode()
    }
}

/// The same point R and another S: S + L, which a lax verifier takes (RFC 8032 section 8.4).
pub(crate) fn malleate(signature: [u8; 64]) -> [u8; 64] {
    const ORDER: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let mut sum = signature;
    let mut carry = 0;
    for (digit, order) in sum[32..].iter_mut().zip(ORDER) {
        let total = u16::from(*digit) + u16::from(order) + carry;
        *digit = (total & 0xff) as u8;
        carry = total >> 8;
    }
    sum
}

/// A signature whose R is the neutral element: with S = k a the equation holds, and a lax verifier takes it.
pub(crate) fn sign_with_neutral_r(seed: &[u8; 32], message: &[u8]) -> [u8; 64] {
    use curve25519_dalek::scalar::{Scalar, clamp_integer};
    use sha2::{Digest as _, Sha512};

    let secret: [u8; 32] = Sha512::digest(seed)[..32].try_into().unwrap();
    let secret = Scalar::from_bytes_mod_order(clamp_integer(secret));
    let mut signature = [0; 64];
    signature[0] = 1;
    let hash = Sha512::new()
        .chain_update(&signature[..32])
        .chain_update(SigningKey::from_seed(seed).verifying_key().as_bytes())
        .chain_update(message);
    let challenge = Scalar::from_bytes_mod_order_wide(&hash.finalize().into());
    signature[32..].copy_from_slice((challenge * secret).as_bytes());
    signature
}

/// The encapsulated key and the ciphertext of `plaintext`.
pub(crate) fn encrypt(
    suite: Suite,
    public: &[u8],
    associated_data: &[u8],
    plaintext: &[u8],
    rng: &mut impl CryptoRng,
) -> (Vec<u8>, Vec<u8>) {
    fn with<K: Kem>(
        public: &[u8],
        aad: &[u8],
        plaintext: &[u8],
        rng: &mut impl CryptoRng,
    ) -> (Vec<u8>, Vec<u8>) {
        let public = K::PublicKey::from_bytes(public).unwrap();
        let (ek, ciphertext) = hpke::single_shot_seal_with_rng::<ChaCha20Poly1305, HkdfSha256, K>(
            &OpModeS::Base,
            &public,
            b"",
            plaintext,
            aad,
            rng,
        )
        .unwrap();
        (ek.to_bytes().to_vec(), ciphertext)
    }
    match suite {
        Suite::Hybrid => with::<XWing>(public, associated_data, plaintext, rng),
        Suite::Classical => with::<X25519HkdfSha256>(public, associated_data, plaintext, rng),
    }
}

/// A hybrid box whose X25519 share is of small order, and which decrypts for an opener that does not look.
pub(crate) fn encrypt_to_zero_share(
    seed: [u8; 32],
    ml_kem_ciphertext: &[u8],
    share: [u8; 32],
    associated_data: &[u8],
    plaintext: &[u8],
) -> (Vec<u8>, Vec<u8>) {
    use hpke_rs::hpke_types::{AeadAlgorithm, KdfAlgorithm, KemAlgorithm};
    use hpke_rs::{Hpke, Mode};
    use hpke_rs_libcrux::HpkeLibcrux;
    use x_wing::kem::Decapsulate as _;

    let mut ek = ml_kem_ciphertext.to_vec();
    ek.extend(share);
    let ciphertext: &x_wing::Ciphertext = ek.as_slice().try_into().unwrap();
    let shared = x_wing::DecapsulationKey::from(seed).decapsulate(ciphertext);
    let hpke = Hpke::<HpkeLibcrux>::new(
        Mode::Base,
        KemAlgorithm::XWingDraft06,
        KdfAlgorithm::HkdfSha256,
        AeadAlgorithm::ChaCha20Poly1305,
    );
    let mut context = hpke.key_schedule(&shared, b"", b"", b"").unwrap();
    let ciphertext = context.seal(associated_data, plaintext).unwrap();
    (ek, ciphertext)
}
