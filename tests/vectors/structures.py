"""Every structure but the sealed message: FORMAT.md sections 3 to 7 and 9 to 13. Each function takes what a vector gives."""

import base64
import hashlib
import hmac
import json
import re

import cbor2

import hpke
from deterministic import (
    Fault, Fields, choice, decode, fixed, integer, listed, name, require, string, tagged, text, uint,
)  # fmt: skip
from signatures import ED25519, ESP256, Key, Signed, Trust, ascending, ed25519_key, sha256

SUITES = {hpke.HYBRID: "hybrid", hpke.CLASSICAL: "classical"}
KINDS = {0: "signed", 1: "one-time"}


def certificate(given: dict, trust: Trust) -> dict:
    read = trust.certificate(bytes.fromhex(given["bytes"]), given["purpose"], given["time"])
    return {
        "tenant": read.tenant,
        "purpose": read.purpose,
        "subject": read.subject,
        "id": read.id.hex(),
        "key": key_read(read.key),
        "key_id": read.key.id.hex(),
        "not_before": read.not_before,
        "not_after": read.not_after,
        "roles": read.roles,
    }


def key_read(key: Key) -> dict:
    return {"alg": key.algorithm, "key": key.data.hex()}


def status(given: dict, trust: Trust) -> dict:
    changed = trust.accept_status(bytes.fromhex(given["bytes"]), given["now"])
    reasons = ("retired", "compromised")
    return {
        "sequence": trust.status.sequence,
        "issued": trust.status.issued,
        "revoked_keys": [[key.hex(), reasons[reason]] for key, reason in trust.status.revoked_keys.items()],
        "revoked_devices": [device.hex() for device in trust.status.revoked_devices],
        "changed": changed,
    }


def wipe(given: dict, trust: Trust) -> dict:
    signed = Signed.read(bytes.fromhex(given["bytes"]), 1024, "sealpost-wipe-v1+cose")
    fields = Fields(decode(signed.payload, 1024))
    order, tenant = string(fields.take(1), 16), name(fields.take(2))
    device, identity = string(fields.take(3), 16), string(fields.take(4), 32)
    issued = uint(fields.take(5))
    fields.end()
    trust.certified(signed, "revoke", issued)
    require(tenant == trust.tenant, "wrong_tenant")
    require((device.hex(), identity.hex()) == (given["device"], given["identity"]), "wrong_device")
    return {"id": order.hex(), "issued": issued}


class Record:
    """A device record; its signature by the identity key in it is verified."""

    def __init__(self, data: bytes):
        signed = Signed.read(data, 1024, "sealpost-record-v1+cose").by_known_key()
        fields = Fields(decode(signed.payload, 1024))
        self.tenant, self.ticket = name(fields.take(1)), string(fields.take(2), 16)
        self.device, self.identity_key = string(fields.take(3), 16), ed25519_key(fields.take(4))
        self.request_key = Key.read(fields.take(5))
        self.suites = []
        for suite in listed(fields.take(6), 4):
            require(integer(suite) in SUITES, "unknown_algorithm")
            require(suite not in self.suites, "wrong_value")
            self.suites.append(suite)
        self.relay, self.created = text(fields.take(7), 256), uint(fields.take(8))
        fields.end()
        require(bool(self.suites), "wrong_value")
        signed.verify(Key(ED25519, self.identity_key))


def record(given: dict, _trust) -> dict:
    read = Record(bytes.fromhex(given["bytes"]))
    return {
        "tenant": read.tenant,
        "ticket": read.ticket.hex(),
        "device": read.device.hex(),
        "identity_key": read.identity_key.hex(),
        "request_key": key_read(read.request_key),
        "suites": [SUITES[suite] for suite in read.suites],
        "relay": read.relay,
        "created": read.created,
    }


def derive(secret: bytes, info: bytes, length: int) -> bytes:
    return hpke.expand_key(hpke.extract(b"", secret), info, length)


def ticket(given: dict, _trust) -> dict:
    secret = bytes.fromhex(given["secret"])
    claim = derive(secret, b"sealpost/1 ticket claim", 32)
    return {
        "ticket": derive(secret, b"sealpost/1 ticket id", 16).hex(),
        "claim_token": claim.hex(),
        "claim_digest": sha256(claim).hex(),
    }


def enrolment(given: dict, _trust) -> dict:
    data = bytes.fromhex(given["bytes"])
    protected, unprotected, payload, tag = fixed(tagged(decode(data, 1200), 17), 4)
    protected = string(protected)
    Fields(unprotected).end()
    payload, tag = string(payload), string(tag, 32)
    fields = Fields(decode(protected, 1200))
    require(integer(fields.take(1)) == 5, "unknown_algorithm")
    require(text(fields.take(16), 64) == "sealpost-enrolment-v1+cose", "wrong_typ")
    fields.end()
    read = Record(payload)
    binding = derive(bytes.fromhex(given["ticket_secret"]), b"sealpost/1 ticket binding", 32)
    expected = hmac.digest(binding, cbor2.dumps(["MAC0", protected, b"", payload], canonical=True), "sha256")
    require(hmac.compare_digest(tag, expected), "bad_mac")
    number = hmac.digest(binding, b"sealpost/1 enrolment code" + sha256(data), "sha256")[:8]
    return {
        "device": read.device.hex(),
        "record_digest": sha256(payload).hex(),
        "code": f"{int.from_bytes(number, 'big') % 10**8:08}",
    }


def admitted(data: bytes, trust: Trust) -> tuple[Record, int]:
    """The record of a device that the tenant has admitted, and when."""
    signed = Signed.read(data, 2048, "sealpost-admission-v1+cose")
    fields = Fields(decode(signed.payload, 2048))
    tenant, record_bytes, issued = name(fields.take(1)), string(fields.take(2)), uint(fields.take(3))
    fields.end()
    require(len(record_bytes) <= 1024, "too_large")
    trust.certified(signed, "enrol", issued)
    read = Record(record_bytes)
    require(tenant == trust.tenant and read.tenant == tenant, "wrong_tenant")
    require(not trust.status or read.device not in trust.status.revoked_devices, "device_revoked")
    return read, issued


def admission(given: dict, trust: Trust) -> dict:
    read, issued = admitted(bytes.fromhex(given["bytes"]), trust)
    return {"device": read.device.hex(), "issued": issued, "identity_key": read.identity_key.hex()}


def mailbox_of(data: bytes, trust: Trust, owner: Record) -> tuple[str, int]:
    """The sender that says that the device is its mailbox, and when it said so."""
    signed = Signed.read(data, 1024, "sealpost-mailbox-v1+cose").with_certificate()
    fields = Fields(decode(signed.payload, 1024))
    tenant, device = name(fields.take(1)), string(fields.take(2), 16)
    identity, issued = string(fields.take(3), 32), uint(fields.take(4))
    fields.end()
    sender = trust.certified(signed, "send", issued).subject
    require(tenant == trust.tenant, "wrong_tenant")
    require((device, identity) == (owner.device, sha256(owner.identity_key)), "wrong_device")
    return sender, issued


def mailbox(given: dict, trust: Trust) -> dict:
    owner = Record(bytes.fromhex(given["record"]))
    sender, issued = mailbox_of(bytes.fromhex(given["bytes"]), trust, owner)
    return {"sender": sender, "device": owner.device.hex(), "issued": issued}


def member(given: dict, trust: Trust) -> dict:
    fields = Fields(decode(bytes.fromhex(given["bytes"]), 3136))
    admission_bytes, statement = string(fields.take(1)), None
    require(len(admission_bytes) <= 2048, "too_large")
    if fields.has(2):
        statement = string(fields.take(2))
        require(len(statement) <= 1024, "too_large")
    fields.end()
    read, _ = admitted(admission_bytes, trust)
    sender = None if statement is None else mailbox_of(statement, trust, read)[0]
    return {"device": read.device.hex(), "identity_key": read.identity_key.hex(), "sender": sender}


class DeviceSet:
    def __init__(self, data: bytes):
        self.digest = sha256(data)
        self.signed = Signed.read(data, 32768, "sealpost-device-set-v1+cose")
        fields = Fields(decode(self.signed.payload, 32768))
        self.tenant, self.recipient = name(fields.take(1)), string(fields.take(2), 16)
        self.version, self.previous = uint(fields.take(3)), string(fields.take(4))
        require(len(self.previous) in (0, 32), "wrong_value")
        self.records = [(string(data), Record(data)) for data in listed(fields.take(5), 16)]
        self.revoked = [string(device, 16) for device in listed(fields.take(6), 64)]
        self.issued = uint(fields.take(7))
        fields.end()
        self.devices = [read.device for _, read in self.records]
        require(self.version > 0 and (self.version == 1) == (not self.previous), "wrong_value")
        require(ascending(self.devices), "wrong_value")
        require(ascending(self.revoked) and not set(self.devices) & set(self.revoked), "wrong_value")

    def verify(self, trust: Trust, previous: "DeviceSet | None"):
        tenants = {self.tenant, *(read.tenant for _, read in self.records)}
        require(tenants == {trust.tenant}, "wrong_tenant")
        try:
            return trust.certified(self.signed, "enrol", self.issued)
        except Fault as fault:
            known = {data for data, _ in previous.records} if previous else set()
            removes = previous is not None and all(data in known for data, _ in self.records)
            if fault.code != "wrong_purpose" or not removes:
                raise
            return trust.certified(self.signed, "revoke", self.issued)

    def follows(self, previous: "DeviceSet | None") -> bool:
        if previous is None:
            return self.version == 1
        return (
            (self.tenant, self.recipient) == (previous.tenant, previous.recipient)
            and self.version == previous.version + 1
            and self.previous == previous.digest
            and set(previous.revoked) <= set(self.revoked)
        )


def device_set(given: dict, trust: Trust) -> dict:
    previous = DeviceSet(bytes.fromhex(given["previous"])) if given["previous"] else None
    read = DeviceSet(bytes.fromhex(given["bytes"]))
    signer = read.verify(trust, previous)
    return {
        "recipient": read.recipient.hex(),
        "version": read.version,
        "digest": read.digest.hex(),
        "devices": [device.hex() for device in read.devices],
        "revoked": [device.hex() for device in read.revoked],
        "issued": read.issued,
        "signer": signer.subject,
        "follows": read.follows(previous),
    }


class Leaf:
    def __init__(self, data: bytes):
        fields = Fields(decode(data, 1400))
        self.device, self.id = string(fields.take(1), 16), string(fields.take(2), 16)
        self.suite = integer(fields.take(3))
        require(self.suite in SUITES, "unknown_algorithm")
        self.kind, self.key = KINDS[choice(fields.take(4), KINDS)], string(fields.take(5))
        self.seal_until, self.open_until = uint(fields.take(6)), uint(fields.take(7))
        fields.end()
        require(len(self.key) == hpke.PUBLIC_BYTES[self.suite], "wrong_value")
        require(self.seal_until <= self.open_until, "wrong_value")
        require(self.id == sha256(self.key)[:16], "prekey_mismatch")


def prekey_leaf(given: dict, _trust) -> dict:
    leaf = Leaf(bytes.fromhex(given["bytes"]))
    return {
        "device": leaf.device.hex(),
        "prekey_id": leaf.id.hex(),
        "suite": SUITES[leaf.suite],
        "kind": leaf.kind,
        "key": leaf.key.hex(),
        "seal_until": leaf.seal_until,
        "open_until": leaf.open_until,
    }


class Batch:
    def __init__(self, data: bytes, owner: Record):
        signed = Signed.read(data, 512, "sealpost-prekeys-v1+cose").by_known_key()
        fields = Fields(decode(signed.payload, 512))
        tenant, device = name(fields.take(1)), string(fields.take(2), 16)
        self.root, self.size, self.created = string(fields.take(3), 32), uint(fields.take(4)), uint(fields.take(5))
        fields.end()
        signed.verify(Key(ED25519, owner.identity_key))
        require(tenant == owner.tenant, "wrong_tenant")
        require(device == owner.device, "wrong_device")
        require(1 <= self.size <= 128, "wrong_value")


def prekey_batch(given: dict, _trust) -> dict:
    owner = Record(bytes.fromhex(given["record"]))
    leaves = [bytes.fromhex(leaf) for leaf in given["leaves"]]
    batch = Batch(bytes.fromhex(given["bytes"]), owner)
    require((len(leaves), tree_root(leaves)) == (batch.size, batch.root), "prekey_mismatch")
    for leaf in leaves:
        require(Leaf(leaf).device == owner.device, "wrong_device")
    return {"root": batch.root.hex(), "size": batch.size, "created": batch.created}


def split(count: int) -> int:
    return 1 << (count - 1).bit_length() - 1


def tree_root(leaves: list) -> bytes:
    if not leaves:
        return sha256(b"")
    if len(leaves) == 1:
        return sha256(b"\x00" + leaves[0])
    middle = split(len(leaves))
    return sha256(b"\x01" + tree_root(leaves[:middle]) + tree_root(leaves[middle:]))


def tree_path(leaves: list, index: int) -> list:
    if len(leaves) == 1:
        return []
    middle = split(len(leaves))
    if index < middle:
        return [*tree_path(leaves[:middle], index), tree_root(leaves[middle:])]
    return [*tree_path(leaves[middle:], index - middle), tree_root(leaves[:middle])]


def in_tree(leaf: bytes, index: int, size: int, path: list, root: bytes) -> bool:
    if index >= size:
        return False
    position, last, digest = index, size - 1, sha256(b"\x00" + leaf)
    for sibling in path:
        if last == 0:
            return False
        if position % 2 or position == last:
            digest = sha256(b"\x01" + sibling + digest)
            while position % 2 == 0 and position:
                position, last = position >> 1, last >> 1
        else:
            digest = sha256(b"\x01" + digest + sibling)
        position, last = position >> 1, last >> 1
    return last == 0 and digest == root


def tree(given: dict, _trust) -> dict:
    leaves = [bytes.fromhex(leaf) for leaf in given["leaves"]]
    root, paths = tree_root(leaves), [tree_path(leaves, index) for index in range(len(leaves))]
    assert all(in_tree(leaf, at, len(leaves), paths[at], root) for at, leaf in enumerate(leaves))
    return {"root": root.hex(), "paths": [[digest.hex() for digest in path] for path in paths]}


def verify_prekey(proven: dict, owner: Record, now: int) -> Leaf:
    leaf_bytes = unbase64url(proven["leaf"])
    batch = Batch(unbase64url(proven["batch"]), owner)
    leaf = Leaf(leaf_bytes)
    require(leaf.device == owner.device, "wrong_device")
    path = [bytes.fromhex(digest) for digest in proven["path"]]
    included = in_tree(leaf_bytes, proven["index"], batch.size, path, batch.root)
    require(included and leaf.suite in owner.suites, "prekey_mismatch")
    require(now <= leaf.seal_until, "prekey_expired")
    return leaf


def prekey(given: dict, _trust) -> dict:
    owner = Record(bytes.fromhex(given["record"]))
    return {"prekey_id": verify_prekey(given["proven"], owner, given["now"]).id.hex()}


def choose_prekey(case: dict) -> str:
    """The prekey that a sender takes: FORMAT.md section 7."""
    owner = Record(bytes.fromhex(case["record"]))

    def offered(suite: int):
        for offer in case["look_up"]:
            there = offer.get("signed") or offer.get("one_time")
            if suite in owner.suites and bytes.fromhex(offer["device"]) == owner.device and there:
                if offer["suite"] == SUITES[suite]:
                    return suite, offer
        return None

    found = offered(hpke.HYBRID)
    if not found:
        wanted = hpke.HYBRID in owner.suites and case["suites"] == "require-hybrid"
        require(not wanted, "downgrade")
        found = offered(hpke.CLASSICAL)
        require(found is not None, "no_prekey")
    suite, offer = found
    required = case["one_time"] == "required"

    def verified(proven: dict, kind: str) -> str:
        leaf = verify_prekey(proven, owner, case["now"])
        require((leaf.suite, leaf.kind) == (suite, kind), "prekey_mismatch")
        require(case["expires_at"] <= leaf.open_until, "expires_after_prekey")
        return leaf.id.hex()

    if offer.get("one_time"):
        try:
            return verified(offer["one_time"], "one-time")
        except Fault as fault:
            stale = fault.code in ("prekey_expired", "expires_after_prekey")
            if not stale or required or not offer.get("signed"):
                raise
    require(not required, "no_one_time_prekey")
    return verified(offer["signed"], "signed")


def receipt(given: dict, _trust) -> dict:
    types = ("sealpost-receipt-v1+cose", "sealpost-unopenable-v1+cose")
    signed = Signed.read(bytes.fromhex(given["bytes"]), 512, types).by_known_key()
    unopenable = signed.typ == types[1]
    parts = fixed(decode(signed.payload, 512), 7 if unopenable else 8)
    label = "sealpost-unopenable/1" if unopenable else "sealpost-receipt/1"
    require(text(parts[0], 64) == label, "wrong_value")
    tenant, transport_id = name(parts[1]), string(parts[2], 16)
    device, sealed = string(parts[3], 16), string(parts[4], 32)
    state, kind, reason = "unopenable", None, None
    if unopenable:
        reason = text(parts[5], 64)
        require(all(letter in "abcdefghijklmnopqrstuvwxyz_" for letter in reason), "wrong_value")
    else:
        states = {3: "fetched", 4: "opened", 5: "confirmed", 6: "declined"}
        number, kind_number = uint(parts[5]), uint(parts[6])
        require(number in states and kind_number in ((2,) if number == 3 else KINDS), "wrong_value")
        state, kind = states[number], KINDS.get(kind_number)
    time = uint(parts[-1])
    signed.verify(Key(ED25519, bytes.fromhex(given["identity_key"])))
    require(tenant == given["tenant"], "wrong_tenant")
    require(device.hex() == given["device"], "wrong_device")
    return {
        "transport_id": transport_id.hex(),
        "sealed": sealed.hex(),
        "state": state,
        "kind": kind,
        "reason": reason,
        "time": time,
    }


COMPONENTS = '("@method" "@authority" "@path" "@query" "content-digest")'


def request(given: dict, _trust) -> dict:
    headers = [given[header] for header in ("content_digest", "signature_input", "signature")]
    require(all(len(header.encode()) <= 1024 for header in headers), "malformed_signature")
    digest = re.fullmatch(r"sha-256=:([A-Za-z0-9+/=]*):", headers[0])
    require(digest is not None, "malformed_signature")
    require(base64.b64decode(digest[1]) == sha256(given["body"].encode()), "wrong_digest")
    parameters = re.fullmatch(
        "sealpost=(" + re.escape(COMPONENTS) + r';created=(\d{1,15});nonce="([^"\\]{1,64})"'
        r';alg="([^"\\]*)";keyid="([^"\\/]*)/([0-9a-f]{32})";tag="sealpost-device")',
        headers[1],
    )
    require(parameters is not None, "malformed_signature")
    base_parameters, created, _nonce, algorithm, tenant, device = parameters.groups()
    signature = re.fullmatch(r"sealpost=:([A-Za-z0-9+/=]*):", headers[2])
    require(signature is not None and len(base64.b64decode(signature[1])) == 64, "malformed_signature")
    base = "\n".join(
        (
            f'"@method": {given["method"]}',
            f'"@authority": {given["authority"]}',
            f'"@path": {given["path"]}',
            f'"@query": ?{given["query"] or ""}',
            f'"content-digest": {headers[0]}',
            f'"@signature-params": {base_parameters}',
        )
    )
    key = Key(given["key"]["alg"], bytes.fromhex(given["key"]["key"]))
    require(algorithm == {ED25519: "ed25519", ESP256: "ecdsa-p256-sha256"}[key.algorithm], "bad_signature")
    key.verify(base.encode(), base64.b64decode(signature[1]))
    require(abs(given["now"] - int(created)) <= 60, "clock_skew")
    return {"tenant": tenant, "device": device, "created": int(created)}


def unbase64url(text_: str) -> bytes:
    return base64.urlsafe_b64decode(text_ + "=" * (-len(text_) % 4))


def assertion(given: dict, trust: Trust) -> dict:
    header, claims, signature = given["jwt"].split(".")
    signed = f"{header}.{claims}".encode()
    header, claims = json.loads(unbase64url(header)), json.loads(unbase64url(claims))
    read = trust.certificate(unbase64url(claims["sealpost_certificate"]), "request", given["now"])
    read.key.verify(signed, unbase64url(signature))
    assert header["kid"] == read.key.id.hex() and header["typ"] == "JWT"
    assert header["alg"] == {ED25519: "EdDSA", ESP256: "ES256"}[read.key.algorithm]
    assert claims["iss"] == claims["sub"] == f"{read.tenant}/{read.subject}"
    assert claims["aud"] == given["audience"] and claims["iat"] <= given["now"] < claims["exp"]
    assert claims["exp"] - claims["iat"] <= 300 and claims["jti"]
    return {"client": claims["iss"], "roles": read.roles, "exp": claims["exp"]}


def slot_claim(claim: dict) -> list:
    shown = sha256(unbase64url(claim["capability"])) if "capability" in claim else b""
    return [bytes.fromhex(claim["slot"]), claim["sequence"], shown, bytes.fromhex(claim["next"])]


def submission(given: dict, _trust) -> dict:
    body = given["submission"]
    priority = {"critical": 1, "normal": 2, "bulk": 3}[body["priority"]]
    boxes = sorted([bytes.fromhex(box["device"]), sha256(unbase64url(box["sealed"]))] for box in body["boxes"])
    claims = [slot_claim(body["slot"])] if "slot" in body else []
    encoded = cbor2.dumps(["sealpost-submission/1", body["expires_at"], priority, boxes, *claims], canonical=True)
    return {"digest": hashlib.sha256(encoded).hexdigest()}
