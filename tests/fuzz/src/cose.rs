//! COSE_Sign1 (RFC 9052 section 4.2) around any payload, well formed or not: the product signs only what it
//! could read back. Written from the page on the format, not from the product's own writer.

use minicbor::data::Tag;
use sealpost_wire::key::{ALG_ED25519, SigningKey};

const TAG_SIGN1: u64 = 18;
const LABEL_CERTIFICATE: i64 = -65537;

/// `payload` as a structure of type `typ`, signed by `key`.
pub(crate) fn sign1(
    key: &SigningKey,
    typ: &str,
    certificate: Option<&[u8]>,
    payload: &[u8],
    external_aad: &[u8],
) -> Vec<u8> {
    let protected = write(|to| {
        to.map(3 + u64::from(certificate.is_some()))?.u8(1)?.i64(ALG_ED25519)?;
        to.u8(4)?.bytes(key.verifying_key().key_id().as_bytes())?.u8(16)?.str(typ)?;
        if let Some(certificate) = certificate {
            to.i64(LABEL_CERTIFICATE)?.bytes(certificate)?;
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
