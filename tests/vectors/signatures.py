"""Keys, signed structures, certificates and what a tenant has revoked: FORMAT.md sections 2 to 4."""

import hashlib
from dataclasses import dataclass, field

import cbor2
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from deterministic import (
    Fields, Fault, choice, decode, fixed, integer, listed, name, require, string, tagged, text, uint,
)  # fmt: skip

ED25519, ESP256 = -19, -9
P = 2**255 - 19
D = -121665 * pow(121666, -1, P) % P
ORDER = 2**252 + 27742317777372353535851937790883648493
SMALL_ORDER = {
    bytes.fromhex(point)
    for point in (
        "0100000000000000000000000000000000000000000000000000000000000000",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0000000000000000000000000000000000000000000000000000000000000080",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    )
}
PURPOSES = {1: "send", 2: "request", 3: "enrol", 4: "revoke"}
ROLES = {1: "sender", 2: "enroller", 3: "revoker"}
SKEW = 300


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def ed25519_key(item) -> bytes:
    """A public key: the one encoding of a point that is not of small order."""
    key = string(item, 32)
    y, sign = int.from_bytes(key, "little") % 2**255, key[31] >> 7
    require(y < P and key not in SMALL_ORDER, "wrong_value")
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    require(pow(square, (P - 1) // 2, P) in (0, 1) and not (square == 0 and sign), "wrong_value")
    return key


@dataclass(frozen=True)
class Key:
    algorithm: int
    data: bytes

    @staticmethod
    def read(item) -> "Key":
        algorithm, key = fixed(item, 2)
        algorithm = integer(algorithm)
        if algorithm == ED25519:
            return Key(ED25519, ed25519_key(key))
        require(algorithm == ESP256, "unknown_algorithm")
        point = string(key, 33)
        try:
            ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
        except ValueError:
            raise Fault("wrong_value") from None
        return Key(ESP256, point)

    @property
    def id(self) -> bytes:
        return sha256(self.data)[:16]

    def verify(self, message: bytes, signature: bytes) -> None:
        try:
            if self.algorithm == ED25519:
                require(signature[:32] not in SMALL_ORDER, "bad_signature")
                require(int.from_bytes(signature[32:], "little") < ORDER, "bad_signature")
                Ed25519PublicKey.from_public_bytes(self.data).verify(signature, message)
            else:
                r, s = (int.from_bytes(half, "big") for half in (signature[:32], signature[32:]))
                key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), self.data)
                key.verify(utils.encode_dss_signature(r, s), message, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            raise Fault("bad_signature") from None


@dataclass
class Signed:
    """A COSE_Sign1, read and not yet believed."""

    protected: bytes
    payload: bytes
    signature: bytes
    key_id: bytes
    typ: str
    certificate: bytes | None
    admission: bytes | None

    @staticmethod
    def read(data: bytes, most: int, typ) -> "Signed":
        protected, unprotected, payload, signature = fixed(tagged(decode(data, most), 18), 4)
        protected = string(protected)
        Fields(unprotected).end()
        payload, signature = string(payload), string(signature, 64)
        fields = Fields(decode(protected, most))
        require(integer(fields.take(1)) == ED25519, "unknown_algorithm")
        key_id = string(fields.take(4), 16)
        found = text(fields.take(16), 64)
        certificate = string(fields.take(-65537)) if fields.has(-65537) else None
        admission = string(fields.take(-65538)) if fields.has(-65538) else None
        fields.end()
        require(certificate is None or admission is None, "wrong_field")
        require(found in (typ if isinstance(typ, tuple) else (typ,)), "wrong_typ")
        return Signed(protected, payload, signature, key_id, found, certificate, admission)

    def by_known_key(self) -> "Signed":
        require(self.certificate is None and self.admission is None, "wrong_field")
        return self

    def with_certificate(self) -> "Signed":
        require(self.certificate is not None, "wrong_field")
        return self

    def with_admission(self) -> "Signed":
        require(self.admission is not None, "wrong_field")
        return self

    def verify(self, key: Key, external_aad: bytes = b"") -> None:
        require(self.key_id == key.id, "bad_signature")
        signed = ["Signature1", self.protected, external_aad, self.payload]
        key.verify(cbor2.dumps(signed, canonical=True), self.signature)


@dataclass
class Certificate:
    tenant: str
    purpose: str
    subject: str
    id: bytes
    key: Key
    not_before: int
    not_after: int
    roles: list

    @staticmethod
    def read(data: bytes):
        signed = Signed.read(data, 400, "sealpost-certificate-v1+cose").by_known_key()
        fields = Fields(decode(signed.payload, 400))
        tenant = name(fields.take(1))
        purpose = PURPOSES[choice(fields.take(2), PURPOSES)]
        subject = name(fields.take(3))
        certificate_id = string(fields.take(4), 16)
        key = Key.read(fields.take(5))
        not_before, not_after = uint(fields.take(6)), uint(fields.take(7))
        roles, before = [], 0
        if fields.has(8):
            for role in listed(fields.take(8), 3):
                require(uint(role) in ROLES and role > before, "wrong_value")
                roles.append(ROLES[role])
                before = role
        fields.end()
        require(not_before <= not_after, "wrong_value")
        require((purpose == "request") == bool(roles), "wrong_value")
        require(purpose == "request" or key.algorithm == ED25519, "unknown_algorithm")
        read = Certificate(tenant, purpose, subject, certificate_id, key, not_before, not_after, roles)
        return signed, read

    def check_time(self, time: int) -> None:
        require(time >= self.not_before, "certificate_not_yet_valid")
        require(time <= self.not_after, "certificate_expired")


@dataclass
class Status:
    sequence: int
    issued: int
    revoked_keys: dict
    revoked_devices: list


@dataclass
class Trust:
    """What a party believes of a tenant."""

    tenant: str
    roots: list
    status: Status | None = field(default=None)

    def certificate(self, data: bytes, purpose: str, time: int | None) -> Certificate:
        signed, certificate = Certificate.read(data)
        root = next((root for root in self.roots if root.id == signed.key_id), None)
        require(root is not None, "unknown_root")
        signed.verify(root)
        require(certificate.tenant == self.tenant, "wrong_tenant")
        require(certificate.purpose == purpose, "wrong_purpose")
        reason = self.status and self.status.revoked_keys.get(certificate.key.id)
        # 0 is retired, 1 compromised: what a retired enrol key signed stays.
        require(reason is None or (reason == 0 and purpose == "enrol"), "key_revoked")
        if time is not None:
            certificate.check_time(time)
        return certificate

    def certified(self, signed: Signed, purpose: str, time: int) -> Certificate:
        certificate = self.certificate(signed.with_certificate().certificate, purpose, time)
        signed.verify(certificate.key)
        return certificate

    def accept_status(self, data: bytes, now: int) -> bool:
        """Takes in a status; whether it changed anything."""
        signed = Signed.read(data, 65536, "sealpost-status-v1+cose").with_certificate()
        fields = Fields(decode(signed.payload, 65536))
        tenant, sequence, issued = name(fields.take(1)), uint(fields.take(2)), uint(fields.take(3))
        keys = []
        for entry in listed(fields.take(4), 1000):
            key_id, reason = fixed(entry, 2)
            keys.append((string(key_id, 16), choice(reason, (0, 1))))
        devices = [string(device, 16) for device in listed(fields.take(5), 1000)]
        fields.end()
        ids = [key_id for key_id, _ in keys]
        require(ascending(ids) and ascending(devices), "wrong_value")
        self.certified(signed, "revoke", issued)
        require(tenant == self.tenant, "wrong_tenant")
        require(issued <= now + SKEW, "certificate_not_yet_valid")
        new, seen = Status(sequence, issued, dict(keys), devices), self.status
        if seen:
            require(sequence >= seen.sequence and issued >= seen.issued, "rollback")
            same = (new.revoked_keys, devices) == (seen.revoked_keys, seen.revoked_devices)
            require(sequence > seen.sequence or same, "rollback")
        self.status = new
        return new != seen


def ascending(ids: list) -> bool:
    return all(a < b for a, b in zip(ids, ids[1:]))
