//! COSE_Sign1 (RFC 9052 section 4.2) around any payload, well formed or not: the product signs only what it
//! could read back. Written from the page on the format, not from the product's own writer.

use minicbor::data::Tag;
use sealpost_wire::key::{ALG_ED25519, SigningKey};

const TAG_SIGN1: u64 = 18;
const LABEL_CERTIFICATE: i64 = -65537;
const LABEL_ADMISSION: i64 = -65538;

/// `payload` as a structure of type `typ`, signed by `key`.
pub(crate) fn sign1(
    key: &SigningKey,
    typ: &str,
    certificate: Option<&[u8]>,
    payload: &[u8],
    external_aad: &[u8],
) -> Vec<u8> {
    let signer = certificate.map(|certificate| (LABEL_CERTIFICATE, certificate));
    signed_by(key, typ, signer, payload, external_aad)
}

/// The same, signed by the identity key of the device that `admission` admits.
pub(crate) fn sign1_admitted(
    identity: &SigningKey,
    typ: &str,
    admission: &[u8],
    payload: &[u8],
    external_aad: &[u8],
) -> Vec<u8> {
    signed_by(identity, typ, Some((LABEL_ADMISSION, admission)), payload, external_aad)
}

fn signed_by(
    key: &SigningKey,
    typ: &str,
    signer: Option<(i64, &[u8])>,
    payload: &[u8],
    external_aad: &[u8],
) -> Vec<u8> {
    let protected = write(|to| {
        to.map(3 + u64::from(signer.is_some()))?.u8(1)?.i64(ALG_ED25519)?;
        to.u8(4)?.bytes(key.verifying_key().key_id().as_bytes())?.u8(16)?.str(typ)?;
        if let Some((label, signer)) = signer {
            to.i64(label)?.bytes(signer)?;
        }
        Ok(())
    });
    let to_be_signed = write(|to| {
        to.array(4)?.str("Signature1")?.bytes(&protected)?.bytes(external_aad)?.bytes(payload)?;
        Ok(())
    });
    let signature = key.sign(&to_be_signed);
    write(|to| {
        to.tag(Tag::new(TAG_SIGN1))?.array(4)?.bytes(&protected)?.map(0)?.bytes(payload)?;
        to.bytes(&signature)?;
        Ok(())
    })
}

/// The payload of a structure.
pub(crate) fn payload(signed: &[u8]) -> Vec<u8> {
    let mut reader = minicbor::Decoder::new(signed);
    let mut read = || {
        reader.tag()?;
        reader.array()?;
        reader.skip()?;
        reader.skip()?;
        reader.bytes()
    };
    read().expect("a structure that the product has signed").to_vec()
}

type Written = Result<(), minicbor::encode::Error<std::convert::Infallible>>;

/// What `write` writes.
pub(crate) fn write(write: impl FnOnce(&mut minicbor::Encoder<&mut Vec<u8>>) -> Written) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(&mut minicbor::Encoder::new(&mut bytes)).expect("memory takes everything");
    bytes
}
