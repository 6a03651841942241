//! What is linked computes what the standards and Wycheproof say: HPKE (RFC 9180 and draft-ietf-hpke-pq),
//! X-Wing (draft-connolly-cfrg-xwing-kem), ML-KEM-768 (FIPS 203), X25519 (RFC 7748), ChaCha20-Poly1305 (RFC
//! 8439).

use std::convert::Infallible;

use chacha20poly1305::aead::{AeadInOut as _, KeyInit as _};
use data_encoding::HEXLOWER;
use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::kem::{X25519HkdfSha256, XWing};
use hpke::rand_core::{TryCryptoRng, TryRng};
use hpke::{
    Deserializable as _, Kem, OpModeR, OpModeS, Serializable as _, setup_receiver, setup_sender_with_rng,
};
use ml_kem::{MlKem768, kem::Decapsulate as _, kem::KeyExport as _};
use serde_json::Value;

#[test]
fn hpke_in_both_suites() {
    let file: Value = serde_json::from_str(include_str!("../../../tests/vectors/hpke.json")).unwrap();
    let vectors = file.as_array().unwrap();
    let suites: Vec<_> = vectors.iter().map(|vector| vector["kem_id"].as_u64().unwrap()).collect();
    assert_eq!(suites, [0x20, 0x647a]);
    hpke_vector::<X25519HkdfSha256>(&vectors[0]);
    hpke_vector::<XWing>(&vectors[1]);
}

/// Key derivation, encapsulation with the vector's randomness, decapsulation, key schedule (by what it
/// encrypts and exports).
fn hpke_vector<K: Kem>(vector: &Value) {
    let field = |name: &str| hex(&vector[name]);
    let info = field("info");
    let (derived, public) = K::derive_keypair(&field("ikmR"));
    let private = K::PrivateKey::from_bytes(&field("skRm")).unwrap();
    // Read first: X25519 keys are written clamped (RFC 9180 section 7.1.2), and the vector's is not.
    assert_eq!(derived.to_bytes(), private.to_bytes());
    assert_eq!(public.to_bytes().to_vec(), field("pkRm"));
    assert_eq!(K::sk_to_pk(&private).to_bytes(), public.to_bytes());

    let (encapsulated, mut sender) = setup_sender_with_rng::<ChaCha20Poly1305, HkdfSha256, K>(
        &OpModeS::Base,
        &public,
        &info,
        &mut Given(field("ikmE")),
    )
    .unwrap();
    assert_eq!(encapsulated.to_bytes().to_vec(), field("enc"));
    let encapsulated = K::EncappedKey::from_bytes(&field("enc")).unwrap();
    let mut receiver =
        setup_receiver::<ChaCha20Poly1305, HkdfSha256, K>(&OpModeR::Base, &private, &encapsulated, &info)
            .unwrap();
    for encryption in vector["encryptions"].as_array().unwrap() {
        let [aad, pt, ct] = ["aad", "pt", "ct"].map(|name| hex(&encryption[name]));
        assert_eq!(sender.seal(&pt, &aad).unwrap(), ct);
        assert_eq!(receiver.open(&ct, &aad).unwrap(), pt);
    }
    for export in vector["exports"].as_array().unwrap() {
        let mut exported = vec![0; usize::try_from(export["L"].as_u64().unwrap()).unwrap()];
        receiver.export(&hex(&export["exporter_context"]), &mut exported).unwrap();
        assert_eq!(exported, hex(&export["exported_value"]));
    }
}

#[test]
fn x_wing() {
    use x_wing::kem::{Decapsulate as _, KeyExport as _};
    use x_wing::{DecapsulationKey, Decapsulator as _};

    let file: Value = serde_json::from_str(include_str!("../../../tests/vectors/x-wing.json")).unwrap();
    let vectors = file.as_array().unwrap();
    assert_eq!(vectors.len(), 3);
    for vector in vectors {
        let field = |name: &str| hex(&vector[name]);
        let seed: [u8; 32] = field("sk").try_into().unwrap();
        let private = DecapsulationKey::from(seed);
        let public = private.encapsulation_key();
        assert_eq!(public.to_bytes().to_vec(), field("pk"));
        let randomness: [u8; 64] = field("eseed").try_into().unwrap();
        let (ciphertext, shared) = public.encapsulate_deterministic(&randomness.into());
        assert_eq!((ciphertext.to_vec(), shared.to_vec()), (field("ct"), field("ss")));
        assert_eq!(private.decapsulate(&ciphertext).to_vec(), field("ss"));
        // The same through the type that opens messages, and through ours.
        let hpke = <XWing as Kem>::PrivateKey::from_bytes(&seed).unwrap();
        assert_eq!(XWing::sk_to_pk(&hpke).to_bytes().to_vec(), field("pk"));
        let id = sealpost_wire::prekey::prekey_id(&field("pk"));
        let prekey = sealpost_open::PrekeyPrivate::restore(sealpost_wire::message::Suite::Hybrid, id, seed);
        assert_eq!(prekey.public_key(), field("pk"));
    }
}

#[test]
fn ml_kem_768_of_wycheproof() {
    let mut counts = [0, 0];
    for (_, test) in wycheproof(include_str!("../../../tests/vectors/wycheproof/mlkem_768.json")) {
        let (seed, ciphertext) = (hex(&test["seed"]), hex(&test["c"]));
        let decapsulated = <[u8; 64]>::try_from(seed).ok().and_then(|seed| {
            let private = ml_kem::DecapsulationKey::<MlKem768>::from_seed(seed.into());
            let public = private.encapsulation_key().to_bytes();
            if let Some(expected) = test["ek"].as_str().filter(|ek| !ek.is_empty()) {
                assert_eq!(HEXLOWER.encode(&public), expected, "test {}", test["tcId"]);
                assert!(ml_kem::EncapsulationKey::<MlKem768>::new(&public).is_ok());
            }
            let ciphertext = ciphertext.as_slice().try_into().ok()?;
            Some(private.decapsulate(ciphertext).to_vec())
        });
        let valid = test["result"] == "valid";
        counts[usize::from(valid)] += 1;
        // A ciphertext that was changed decapsulates to another secret (FIPS 203 section 6.3): that is valid.
        assert_eq!(decapsulated, valid.then(|| hex(&test["K"])), "test {}", test["tcId"]);
    }
    assert!(counts[0] > 10 && counts[1] > 150, "{counts:?}");
}

#[test]
fn x25519_of_wycheproof() {
    let mut zeros = 0;
    for (_, test) in wycheproof(include_str!("../../../tests/vectors/wycheproof/x25519.json")) {
        let [private, public, shared] =
            ["private", "public", "shared"].map(|name| <[u8; 32]>::try_from(hex(&test[name])).unwrap());
        let secret = x25519_dalek::StaticSecret::from(private);
        let computed = secret.diffie_hellman(&x25519_dalek::PublicKey::from(public));
        // All of them, the "acceptable" ones too (points of the twist, of small order, not reduced): RFC 7748
        // section 5 has X25519 compute on any 32 bytes.
        assert_eq!(computed.as_bytes(), &shared, "test {}", test["tcId"]);
        // HPKE refuses what is of small order, and so a sealed message with such a share does not open.
        assert_eq!(computed.was_contributory(), shared != [0; 32]);
        zeros += u32::from(shared == [0; 32]);
        let encapsulated = <X25519HkdfSha256 as Kem>::EncappedKey::from_bytes(&public).unwrap();
        let key = <X25519HkdfSha256 as Kem>::PrivateKey::from_bytes(&private).unwrap();
        let receiver = setup_receiver::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
            &OpModeR::Base,
            &key,
            &encapsulated,
            b"",
        );
        assert_eq!(receiver.is_ok(), shared != [0; 32], "test {}", test["tcId"]);
    }
    assert!(zeros > 20, "{zeros}");
}

#[test]
fn chacha20_poly1305_of_wycheproof() {
    let mut counts = [0, 0];
    for (_, test) in wycheproof(include_str!("../../../tests/vectors/wycheproof/chacha20_poly1305.json")) {
        let [key, iv, aad, msg, ct, tag] =
            ["key", "iv", "aad", "msg", "ct", "tag"].map(|name| hex(&test[name]));
        let cipher = chacha20poly1305::ChaCha20Poly1305::new_from_slice(&key).unwrap();
        let opened = <[u8; 12]>::try_from(iv).ok().and_then(|nonce| {
            let mut buffer = ct.clone();
            let tag: [u8; 16] = tag.clone().try_into().unwrap();
            cipher
                .decrypt_inout_detached(&nonce.into(), &aad, buffer.as_mut_slice().into(), &tag.into())
                .ok()
                .map(|()| (nonce, buffer))
        });
        let valid = test["result"] == "valid";
        counts[usize::from(valid)] += 1;
        assert_eq!(opened.is_some(), valid, "test {}", test["tcId"]);
        if let Some((nonce, opened)) = opened {
            assert_eq!(opened, msg);
            let mut buffer = msg.clone();
            let made =
                cipher.encrypt_inout_detached(&nonce.into(), &aad, buffer.as_mut_slice().into()).unwrap();
            assert_eq!((buffer, made.to_vec()), (ct, tag), "test {}", test["tcId"]);
        }
    }
    assert!(counts[0] > 60 && counts[1] > 200, "{counts:?}");
}

/// The tests of a Wycheproof file, each with its group.
fn wycheproof(text: &str) -> Vec<(Value, Value)> {
    let file: Value = serde_json::from_str(text).unwrap();
    let groups = file["testGroups"].as_array().unwrap();
    let tests: Vec<_> = groups
        .iter()
        .flat_map(|group| group["tests"].as_array().unwrap().iter().map(|test| (group.clone(), test.clone())))
        .collect();
    assert_eq!(tests.len() as u64, file["numberOfTests"].as_u64().unwrap());
    tests
}

fn hex(value: &Value) -> Vec<u8> {
    HEXLOWER.decode(value.as_str().unwrap().as_bytes()).unwrap()
}

/// Randomness that a vector gives, once.
struct Given(Vec<u8>);

impl TryRng for Given {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        panic!("keys are drawn as bytes")
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        panic!("keys are drawn as bytes")
    }

    fn try_fill_bytes(&mut self, to: &mut [u8]) -> Result<(), Infallible> {
        to.copy_from_slice(&self.0.drain(..to.len()).collect::<Vec<_>>());
        Ok(())
    }
}

impl TryCryptoRng for Given {}
