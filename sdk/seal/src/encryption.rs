//! HPKE (RFC 9180) in base mode with an empty `info`, single shot. The library's types stay in this file.

use hpke::aead::ChaCha20Poly1305;
use hpke::inout::InOutBuf;
use hpke::kdf::HkdfSha256;
use hpke::kem::{X25519HkdfSha256, XWing};
use hpke::{Deserializable as _, Kem, OpModeS, Serializable as _};
use rand_core::CryptoRng;
use sealpost_wire::message::Suite;

use crate::error::SealError;

/// Encrypts `buffer` in place and appends the tag. Returns the encapsulated key.
pub(crate) fn encrypt<R: CryptoRng + ?Sized>(
    suite: Suite,
    public_key: &[u8],
    associated_data: &[u8],
    buffer: &mut Vec<u8>,
    rng: &mut R,
) -> Result<Vec<u8>, SealError> {
    match suite {
        Suite::Hybrid => encrypt_with::<XWing, R>(public_key, associated_data, buffer, rng),
        Suite::Classical => encrypt_with::<X25519HkdfSha256, R>(public_key, associated_data, buffer, rng),
    }
}

fn encrypt_with<K: Kem, R: CryptoRng + ?Sized>(
    public_key: &[u8],
    associated_data: &[u8],
    buffer: &mut Vec<u8>,
    mut rng: &mut R,
) -> Result<Vec<u8>, SealError> {
    let public_key = K::PublicKey::from_bytes(public_key).map_err(|_| SealError::InvalidPrekey)?;
    // Encapsulation fails for X25519 keys of small order; encryption fails past 256 GiB only.
    let (encapsulated_key, tag) =
        hpke::single_shot_seal_inout_detached_with_rng::<ChaCha20Poly1305, HkdfSha256, K>(
            &OpModeS::Base,
            &public_key,
            b"",
            InOutBuf::from(buffer.as_mut_slice()),
            associated_data,
            &mut rng,
        )
        .map_err(|_| SealError::InvalidPrekey)?;
    buffer.extend_from_slice(&tag.to_bytes());
    Ok(encapsulated_key.to_bytes().to_vec())
}
