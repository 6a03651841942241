//! Ed25519 as it is verified here, against Wycheproof and against the keys that a strict verifier refuses.

use data_encoding::HEXLOWER;
use sealpost_wire::error::FormatError;
use sealpost_wire::key::{SigningKey, VerifyingKey};
use serde_json::Value;

#[test]
fn wycheproof() {
    let file: Value =
        serde_json::from_str(include_str!("../../../tests/vectors/wycheproof/ed25519.json")).unwrap();
    let (mut valid, mut invalid, mut other_length) = (0, 0, 0);
    for group in file["testGroups"].as_array().unwrap() {
        let key: [u8; 32] = hex(&group["publicKey"]["pk"]).try_into().unwrap();
        let key = VerifyingKey::from_bytes(&key).unwrap();
        for test in group["tests"].as_array().unwrap() {
            // A signature of another length cannot even be asked about.
            let verified = match <[u8; 64]>::try_from(hex(&test["sig"])) {
                Ok(signature) => key.verify(&hex(&test["msg"]), &signature).is_ok(),
                Err(_) => {
                    other_length += 1;
                    false
                }
            };
            assert_eq!(verified, test["result"] == "valid", "test {}", test["tcId"]);
            *(if verified { &mut valid } else { &mut invalid }) += 1;
        }
    }
    assert_eq!(valid + invalid, file["numberOfTests"].as_u64().unwrap());
    assert!(valid > 80 && invalid - other_length > 40, "{valid} {invalid} {other_length}");
}

#[test]
fn keys_that_are_refused() {
    // The eight points of small order, and every encoding that is not reduced (y from p to 2^255 - 1, both
    // signs).
    let mut bad: Vec<[u8; 32]> = [
        "0100000000000000000000000000000000000000000000000000000000000000",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0000000000000000000000000000000000000000000000000000000000000080",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
        // x = 0 with the sign set.
        "0100000000000000000000000000000000000000000000000000000000000080",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    ]
    .into_iter()
    .map(|text| HEXLOWER.decode(text.as_bytes()).unwrap().try_into().unwrap())
    .collect();
    for lowest in 0xed..=0xff {
        for highest in [0x7f, 0xff] {
            let mut bytes = [0xff; 32];
            (bytes[0], bytes[31]) = (lowest, highest);
            bad.push(bytes);
        }
    }
    for bytes in bad {
        let answer = VerifyingKey::from_bytes(&bytes);
        assert_eq!(answer, Err(FormatError::WrongValue("public key")), "{}", HEXLOWER.encode(&bytes));
    }
    // Just below p, and ordinary keys, are taken as they are.
    for name in 0..32 {
        let key = SigningKey::from_seed(&[name; 32]).verifying_key();
        assert_eq!(VerifyingKey::from_bytes(key.as_bytes()), Ok(key));
    }
}

#[test]
fn every_key_of_small_order_would_verify_anything_loosely() {
    // Why keys of small order are refused: under the neutral element, S = 0 and R = the neutral element
    // satisfy the equation for every message.
    let mut neutral = [0; 32];
    neutral[0] = 1;
    let mut signature = [0; 64];
    signature[..32].copy_from_slice(&neutral);
    let loose = ed25519_dalek::VerifyingKey::from_bytes(&neutral).unwrap();
    let forged = ed25519_dalek::Signature::from_bytes(&signature);
    assert!(ed25519_dalek::Verifier::verify(&loose, b"anything", &forged).is_ok());
    assert!(VerifyingKey::from_bytes(&neutral).is_err());
}

fn hex(value: &Value) -> Vec<u8> {
    HEXLOWER.decode(value.as_str().unwrap().as_bytes()).unwrap()
}
