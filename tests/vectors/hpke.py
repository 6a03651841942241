"""HPKE in base mode (RFC 9180), opening only, in the two suites of FORMAT.md section 8."""

import hashlib
import hmac

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from deterministic import Fault, require

HYBRID, CLASSICAL = -65537, 42
PUBLIC_BYTES = {HYBRID: 1216, CLASSICAL: 32}
ENCAPSULATED_BYTES = {HYBRID: 1120, CLASSICAL: 32}
KEM_ID = {HYBRID: 0x647A, CLASSICAL: 0x0020}

P = 2**255 - 19
SMALL_ORDER = {
    0, 1, P - 1, P, P + 1,
    int.from_bytes(bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"), "little"),
    int.from_bytes(bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"), "little"),
}  # fmt: skip


def open_single(suite: int, seed: bytes, encapsulated: bytes, aad: bytes, ciphertext: bytes) -> bytes:
    share = int.from_bytes(encapsulated[-32:], "little") & (2**255 - 1)
    require(share not in SMALL_ORDER, "undecryptable")
    try:
        secret = (decapsulate_hybrid if suite == HYBRID else decapsulate_classical)(seed, encapsulated)
        key, nonce = key_schedule(KEM_ID[suite], secret, b"")
        return ChaCha20Poly1305(key).decrypt(nonce, ciphertext, aad)
    except (InvalidTag, ValueError):
        raise Fault("undecryptable") from None


def public_key(suite: int, seed: bytes) -> bytes:
    if suite == CLASSICAL:
        return X25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
    ml_kem, x25519 = expand(seed)
    return ml_kem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw()


def expand(seed: bytes):
    expanded = hashlib.shake_256(seed).digest(96)
    return (
        MLKEM768PrivateKey.from_seed_bytes(expanded[:64]),
        X25519PrivateKey.from_private_bytes(expanded[64:]),
    )


def decapsulate_hybrid(seed: bytes, encapsulated: bytes) -> bytes:
    ml_kem, x25519 = expand(seed)
    ml_kem_part, x25519_part = encapsulated[:-32], encapsulated[-32:]
    first = ml_kem.decapsulate(ml_kem_part)
    second = x25519.exchange(X25519PublicKey.from_public_bytes(x25519_part))
    own = x25519.public_key().public_bytes_raw()
    return hashlib.sha3_256(first + second + x25519_part + own + bytes.fromhex("5c2e2f2f5e5c")).digest()


def decapsulate_classical(seed: bytes, encapsulated: bytes) -> bytes:
    private = X25519PrivateKey.from_private_bytes(seed)
    shared = private.exchange(X25519PublicKey.from_public_bytes(encapsulated))
    context = encapsulated + private.public_key().public_bytes_raw()
    suite_id = b"KEM" + KEM_ID[CLASSICAL].to_bytes(2, "big")
    pseudorandom = labeled_extract(suite_id, b"", b"eae_prk", shared)
    return labeled_expand(suite_id, pseudorandom, b"shared_secret", context, 32)


def key_schedule(kem_id: int, shared_secret: bytes, info: bytes):
    suite_id = b"HPKE" + kem_id.to_bytes(2, "big") + b"\x00\x01" + b"\x00\x03"
    context = b"\x00"
    context += labeled_extract(suite_id, b"", b"psk_id_hash", b"")
    context += labeled_extract(suite_id, b"", b"info_hash", info)
    secret = labeled_extract(suite_id, shared_secret, b"secret", b"")
    return (
        labeled_expand(suite_id, secret, b"key", context, 32),
        labeled_expand(suite_id, secret, b"base_nonce", context, 12),
    )


def labeled_extract(suite_id: bytes, salt: bytes, label: bytes, ikm: bytes) -> bytes:
    return extract(salt, b"HPKE-v1" + suite_id + label + ikm)


def labeled_expand(suite_id: bytes, key: bytes, label: bytes, info: bytes, length: int) -> bytes:
    return expand_key(key, length.to_bytes(2, "big") + b"HPKE-v1" + suite_id + label + info, length)


def extract(salt: bytes, ikm: bytes) -> bytes:
    """HKDF-Extract (RFC 5869) with SHA-256."""
    return hmac.digest(salt or bytes(32), ikm, "sha256")


def expand_key(key: bytes, info: bytes, length: int) -> bytes:
    """HKDF-Expand (RFC 5869) with SHA-256."""
    output, block, counter = b"", b"", 1
    while len(output) < length:
        block = hmac.digest(key, block + info + bytes([counter]), "sha256")
        output, counter = output + block, counter + 1
    return output[:length]
