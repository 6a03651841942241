"""Opens sealed messages: FORMAT.md section 8."""

import re

import cbor2

import hpke
from deterministic import (
    Fields, Map, choice, decode, fixed, integer, listed, require, string, tagged, text, uint,
)  # fmt: skip
from signatures import ED25519, SKEW, Key, Signed, Trust
from structures import admitted

SEALED_MAX, SIGNED_MAX = 262144, 229376
MONTH = 30 * 86400
NOTIFICATION = "sealpost-notification-v1+cose"
MLS = "sealpost-mls-v1+cose"
RESERVED = ("sealpost-reply-v1+cose", "sealpost-recall-v1+cose")


def open_message(sealed: bytes, context: dict, key: dict, trust: Trust, now: int) -> dict:
    """The message in `sealed`: the steps of FORMAT.md section 8, in their order."""
    require(context["tenant"] == trust.tenant, "wrong_tenant")
    _, suite, prekey_id, _, _ = read_sealed(sealed)
    require(suite == key["suite"], "suite_mismatch")
    require(prekey_id == key["prekey_id"], "prekey_mismatch")
    require(now <= context["expires_at"] + SKEW, "expired")
    signed = decrypt(sealed, context, key)

    message = Signed.read(signed, SIGNED_MAX, (NOTIFICATION, MLS, *RESERVED))
    certificate = None
    if message.typ == MLS:
        owner, _ = admitted(message.with_admission().admission, trust)
        author, key = f"device:{owner.device.hex()}", Key(ED25519, owner.identity_key)
    else:
        certificate = trust.certificate(message.with_certificate().certificate, "send", None)
        author, key = certificate.subject, certificate.key
    message.verify(key, context_bytes(context))
    require(message.typ in (NOTIFICATION, MLS), "frame_unsupported")
    transport_id, device, frame = (read_mls if message.typ == MLS else read_notification)(message.payload)
    require(transport_id == context["transport_id"] and device == context["device"], "id_mismatch")
    require(frame["created"] <= now + SKEW, "created_in_future")
    require(context["expires_at"] <= frame["created"] + MONTH, "lifetime_too_long")
    if certificate:
        certificate.check_time(frame["created"])
    return {"author": author, **frame}


def decrypt(sealed: bytes, context: dict, key: dict) -> bytes:
    """The signed message in `sealed`."""
    protected, suite, _, encapsulated, ciphertext = read_sealed(sealed)
    aad = cbor2.dumps(["Encrypt0", protected, context_bytes(context)], canonical=True)
    return unpad(hpke.open_single(suite, key["seed"], encapsulated, aad, ciphertext))


def read_sealed(sealed: bytes):
    protected, unprotected, ciphertext = fixed(tagged(decode(sealed, SEALED_MAX), 16), 3)
    protected = string(protected)
    fields = Fields(unprotected)
    encapsulated = string(fields.take(-4))
    fields.end()
    ciphertext = string(ciphertext)
    fields = Fields(decode(protected, SEALED_MAX))
    suite = integer(fields.take(1))
    require(suite in hpke.KEM_ID, "unknown_algorithm")
    prekey_id = string(fields.take(4), 16)
    require(text(fields.take(16), 64) == "sealpost-message-v1+cose", "wrong_typ")
    fields.end()
    require(len(encapsulated) == hpke.ENCAPSULATED_BYTES[suite], "wrong_value")
    require(len(ciphertext) >= 16, "wrong_value")
    return protected, suite, prekey_id, encapsulated, ciphertext


def context_bytes(context: dict) -> bytes:
    parts = [context[part] for part in ("tenant", "transport_id", "device", "identity", "expires_at")]
    return cbor2.dumps(["sealpost/1", *parts], canonical=True)


def padded_size(length: int) -> int:
    total = 4 + length
    exponent = total.bit_length() - 1
    significant = exponent.bit_length()
    step = 1 << max(exponent - significant, 0)
    return max(1024, -(-total // step) * step)


def unpad(padded: bytes) -> bytes:
    require(len(padded) >= 4, "padding_length")
    length = int.from_bytes(padded[:4], "big")
    require(length <= len(padded) - 4, "padding_length")
    require(len(padded) == padded_size(length), "padding_size")
    require(not any(padded[4 + length :]), "padding_not_zero")
    return padded[4 : 4 + length]


def read_notification(payload: bytes):
    fields = Fields(decode(payload, SIGNED_MAX))
    transport_id, device = string(fields.take(1), 16), string(fields.take(2), 16)
    notification = {
        "id": string(fields.take(3), 16).hex(),
        "revision": uint(fields.take(4)),
        "created": uint(fields.take(5)),
        "priority": choice(fields.take(6), (1, 2, 3)),
        "category": text(fields.take(7), 64),
        "sensitivity": {1: "normal", 2: "private", 3: "restricted"}[choice(fields.take(8), (1, 2, 3))],
        "texts": by_language(fields.take(9), read_words),
        "parts": some(fields, 10, 16, read_part),
        "replies": some(fields, 11, 8, read_reply),
        "attachments": some(fields, 12, 16, read_attachment),
        "head": read_head(fields.take(13)) if fields.has(13) else None,
    }
    fields.end()
    return transport_id, device, notification


def read_mls(payload: bytes):
    fields = Fields(decode(payload, SIGNED_MAX))
    transport_id, device = string(fields.take(1), 16), string(fields.take(2), 16)
    created, kind = uint(fields.take(3)), choice(fields.take(4), (0, 1, 2, 3))
    group, body = string(fields.take(5), 32), string(fields.take(6))
    sets = some(fields, 7, 64, read_set)
    fields.end()
    if kind == 3:
        read_group_info(body)
    else:
        require((kind == 2) == (body == b""), "wrong_value")
    frame = {"created": created, "kind": kind, "group": group.hex(), "body": body.hex(), "sets": sets}
    return transport_id, device, frame


def read_set(item) -> str:
    require(len(string(item)) <= 32768, "too_large")
    return item.hex()


def read_group_info(body: bytes) -> None:
    fields = Fields(decode(body, SIGNED_MAX))
    group_info, _capability = string(fields.take(1)), string(fields.take(2), 32)
    fields.end()
    require(bool(group_info), "wrong_value")


def by_language(item, read) -> dict:
    require(isinstance(item, Map), "wrong_type")
    require(len(item.pairs) <= 16, "wrong_value")
    found = {}
    for language, value in item.pairs:
        require(re.fullmatch("[A-Za-z0-9-]+", text(language, 35)) is not None, "wrong_value")
        found[language] = read(value)
    require(bool(found), "wrong_value")
    return found


def some(fields: Fields, key: int, most: int, read) -> list:
    if not fields.has(key):
        return []
    items = listed(fields.take(key), most)
    require(bool(items), "wrong_value")
    return [read(item) for item in items]


def read_words(item) -> dict:
    fields = Fields(item)
    words = {"title": text(fields.take(1), 256), "body": text(fields.take(2), 16384)}
    fields.end()
    return words


def read_part(item) -> list:
    fields = Fields(item)
    media_type, data = text(fields.take(1), 255), string(fields.take(2))
    fields.end()
    require(len(data) <= 196608, "wrong_value")
    return [media_type, data.hex()]


def read_reply(item) -> dict:
    fields = Fields(item)
    code = text(fields.take(1), 64)
    labels = by_language(fields.take(2), lambda label: text(label, 256))
    fields.end()
    return {"code": code, "labels": labels}


def read_attachment(item) -> dict:
    fields = Fields(item)
    attachment = {
        "id": string(fields.take(1), 16).hex(),
        "size": uint(fields.take(2)),
        "digest": string(fields.take(3), 32).hex(),
        "key": string(fields.take(4), 32).hex(),
    }
    fields.end()
    return attachment


def read_head(item) -> dict:
    fields = Fields(item)
    head = {"epoch": uint(fields.take(1)), "root": string(fields.take(2), 32).hex()}
    fields.end()
    return head


def case_inputs(file: dict, case: dict):
    sealed = case["sealed"]
    sealed = bytes.fromhex(sealed) if isinstance(sealed, str) else bytes.fromhex(sealed["byte"]) * sealed["times"]
    context = {part: value if part in ("tenant", "expires_at") else bytes.fromhex(value)
               for part, value in case["context"].items()}  # fmt: skip
    key = file["keys"][case["key"]]
    key = {
        "suite": hpke.HYBRID if key["suite"] == "hybrid" else hpke.CLASSICAL,
        "seed": bytes.fromhex(key["seed"]),
        "prekey_id": bytes.fromhex(key["prekey_id"]),
    }
    return sealed, context, key
