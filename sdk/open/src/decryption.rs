//! HPKE (RFC 9180) in base mode with an empty `info`, single shot. The library's types stay in this file.

use hpke::aead::{AeadTag, ChaCha20Poly1305};
use hpke::inout::InOutBuf;
use hpke::kdf::HkdfSha256;
use hpke::kem::{X25519HkdfSha256, XWing};
use hpke::{Deserializable as _, HpkeError, Kem, OpModeR, Serializable as _};
use sealpost_wire::message::{SealedMessage, Suite};
use zeroize::Zeroizing;

use crate::error::OpenError;

/// Bytes of an X25519 public key, which an X-Wing ciphertext ends with.
const X25519_BYTES: usize = 32;

/// The public half of `seed`.
pub(crate) fn public_key(suite: Suite, seed: &[u8; 32]) -> Vec<u8> {
    match suite {
        Suite::Hybrid => public_key_with::<XWing>(seed),
        Suite::Classical => public_key_with::<X25519HkdfSha256>(seed),
    }
}

/// Decrypts `sealed`: the padded message, wiped when dropped.
pub(crate) fn decrypt(
    sealed: &SealedMessage<'_>,
    seed: &[u8; 32],
    associated_data: &[u8],
) -> Result<Zeroizing<Vec<u8>>, OpenError> {
    let (_, ephemeral) =
        sealed.encapsulated_key.split_last_chunk::<X25519_BYTES>().ok_or(OpenError::Undecryptable)?;
    if is_small_order(ephemeral) {
        return Err(OpenError::Undecryptable);
    }
    let decrypted = match sealed.suite {
        Suite::Hybrid => decrypt_with::<XWing>(sealed, seed, associated_data),
        Suite::Classical => decrypt_with::<X25519HkdfSha256>(sealed, seed, associated_data),
    };
    // One error for all: which step failed is nobody's business.
    decrypted.map_err(|_| OpenError::Undecryptable)
}

fn public_key_with<K: Kem>(seed: &[u8; 32]) -> Vec<u8> {
    // A private key of either suite has 32 bytes, any of them.
    let key = K::PrivateKey::from_bytes(seed);
    debug_assert!(key.is_ok(), "32 bytes are a private key");
    key.map(|key| K::sk_to_pk(&key).to_bytes().to_vec()).unwrap_or_default()
}

fn decrypt_with<K: Kem>(
    sealed: &SealedMessage<'_>,
    seed: &[u8; 32],
    associated_data: &[u8],
) -> Result<Zeroizing<Vec<u8>>, HpkeError> {
    let key = K::PrivateKey::from_bytes(seed)?;
    let encapsulated_key = K::EncappedKey::from_bytes(sealed.encapsulated_key)?;
    let length = sealed.ciphertext.len().saturating_sub(AeadTag::<ChaCha20Poly1305>::size());
    let (ciphertext, tag) = sealed.ciphertext.split_at_checked(length).ok_or(HpkeError::OpenError)?;
    let tag = AeadTag::from_bytes(tag)?;
    let mut buffer = Zeroizing::new(ciphertext.to_vec());
    hpke::single_shot_open_inout_detached::<ChaCha20Poly1305, HkdfSha256, K>(
        &OpModeR::Base,
        &key,
        &encapsulated_key,
        b"",
        InOutBuf::from(buffer.as_mut_slice()),
        associated_data,
        &tag,
    )?;
    Ok(buffer)
}

/// Whether X25519 with this public key gives zeros whatever the private key: the u coordinates of order 1, 2,
/// 4 and 8 on Curve25519 and its twist, and their forms that are not reduced (RFC 7748 section 6.1 lets an
/// implementation refuse them). HPKE demands the check for X25519 (RFC 9180 section 7.1.4); drafts of X-Wing
/// left it open, so it is made here for both suites, and every implementation refuses the same messages.
fn is_small_order(public_key: &[u8; X25519_BYTES]) -> bool {
    let mut reduced = *public_key;
    if let Some(highest) = reduced.last_mut() {
        // X25519 does not look at the top bit.
        *highest &= 0x7f;
    }
    SMALL_ORDER.contains(&reduced)
}

#[rustfmt::skip]
const SMALL_ORDER: [[u8; X25519_BYTES]; 7] = [
    // 0, of order 2 (and 1).
    [0; X25519_BYTES],
    // 1, of order 4.
    [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    // The two of order 8.
    [
        0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a,
        0xda, 0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00,
    ],
    [
        0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef, 0x5b,
        0x04, 0x44, 0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f, 0x11, 0x57,
    ],
    // p - 1, p and p + 1, for p = 2^255 - 19.
    prime_plus(0xec), prime_plus(0xed), prime_plus(0xee),
];

/// 2^255 - 256 and `lowest`.
const fn prime_plus(lowest: u8) -> [u8; X25519_BYTES] {
    let mut bytes = [0xff; X25519_BYTES];
    let [first, .., last] = &mut bytes;
    *first = lowest;
    *last = 0x7f;
    bytes
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;
    use serde_json::Value;

    use super::*;

    #[test]
    fn small_order_is_what_wycheproof_says_gives_zeros() {
        let text = include_str!("../../../tests/vectors/wycheproof/x25519.json");
        let file: Value = serde_json::from_str(text).unwrap();
        let mut zeros = 0;
        for test in file["testGroups"][0]["tests"].as_array().unwrap() {
            let field = |name: &str| HEXLOWER.decode(test[name].as_str().unwrap().as_bytes()).unwrap();
            let public: [u8; X25519_BYTES] = field("public").try_into().unwrap();
            let gives_zeros = field("shared") == [0; X25519_BYTES];
            assert_eq!(is_small_order(&public), gives_zeros, "test {}", test["tcId"]);
            zeros += u32::from(gives_zeros);
        }
        assert!(zeros > 20, "{zeros}");
    }
}
