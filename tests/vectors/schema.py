"""Checks that sealpost.cddl is CDDL and that the contents of every good structure of the vectors fit it.

The validator (pycddl 0.6.4) knows less than RFC 8610: a `.cbor` control in an array it takes for one on every element, so
signed structures are taken apart here; a choice in a list and a pattern for a key it does not match, so they are loosened.
"""

import json
import pathlib
import sys

import pycddl

from deterministic import decode
from messages import MLS, NOTIFICATION, SEALED_MAX, SIGNED_MAX, case_inputs, context_bytes, decrypt
from signatures import Signed

VECTORS = pathlib.Path(__file__).parent

CDDL = pathlib.Path(__file__).parents[2] / "sdk/wire/sealpost.cddl"
CONTENTS = {
    "certificate": "certificate-content",
    "status": "status-content",
    "wipe": "wipe-content",
    "admission": "admission-content",
    "mailbox": "mailbox-content",
    "device_set": "device-set-content",
    "record": "record-content",
    "prekey_batch": "prekey-batch-content",
}


LOOSER = {
    "bstr .cbor record": "bstr",
    "bstr .cbor admission": "bstr",
    "bstr .cbor mailbox": "bstr",
    "bstr .cbor device-set": "bstr",
    "1*4 suite": "1*4 int",
    "language =>": "tstr =>",
}


def schema(rule: str) -> pycddl.Schema:
    text = CDDL.read_text()
    for strict, loose in LOOSER.items():
        assert strict in text, strict
        text = text.replace(strict, loose)
    return pycddl.Schema(f"start = {rule}\n{text}")


def fits(rule: pycddl.Schema, data: bytes) -> bool:
    try:
        rule.validate_cbor(data)
    except pycddl.ValidationError:
        return False
    return True


def check() -> list:
    """What does not fit and should, or fits and should not."""
    wrong = []
    file = json.loads((VECTORS / "structures.json").read_text())
    schemas = {kind: schema(rule) for kind, rule in CONTENTS.items()}
    for case in file["structures"]:
        if case["kind"] in CONTENTS and case["code"] is None:
            signed = tuple_of(bytes.fromhex(case["given"]["bytes"]))
            fitting = [kind for kind, rule in schemas.items() if fits(rule, signed)]
            if fitting != [case["kind"]]:
                wrong.append(f"{case['name']} fits {fitting}")
    plain = {"prekey_leaf": schema("prekey-leaf"), "member": schema("member-credential")}
    for case in file["structures"]:
        if case["kind"] in plain and case["code"] is None:
            if not fits(plain[case["kind"]], bytes.fromhex(case["given"]["bytes"])):
                wrong.append(f"{case['name']} does not fit")

    file = json.loads((VECTORS / "sealed.json").read_text())
    frames, context = {NOTIFICATION: schema("notification"), MLS: schema("mls-frame")}, schema("context")
    group_info = schema("group-info-body")
    for case in file["open"]:
        if case["code"] is not None:
            continue
        sealed, bound, key = case_inputs(file, case)
        if not fits(context, context_bytes(bound)):
            wrong.append(f"{case['name']}: the context does not fit")
        signed = Signed.read(decrypt(sealed, bound, key), SIGNED_MAX, tuple(frames))
        if not fits(frames[signed.typ], signed.payload):
            wrong.append(f"{case['name']}: the frame does not fit")
        if case["message"].get("kind") == 3 and not fits(group_info, bytes.fromhex(case["message"]["body"])):
            wrong.append(f"{case['name']}: the body does not fit")
    return wrong


def tuple_of(data: bytes) -> bytes:
    """The payload of a signed structure."""
    return decode(data, SEALED_MAX).item[2]


if __name__ == "__main__":
    faults = check()
    print("\n".join(faults) or "every good structure fits sealpost.cddl")
    sys.exit(1 if faults else 0)
