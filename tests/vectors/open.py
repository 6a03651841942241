"""Opens the sealed messages of the test vectors and verifies every other structure, from FORMAT.md alone.

Written without the Rust crates, to show that the page suffices: `python tests/vectors/open.py` with the packages of
`tests/requirements.txt`.
"""

import json
import pathlib
import sys

import hpke
import schema
import structures
from deterministic import Fault, require
from messages import case_inputs, open_message
from signatures import ED25519, SKEW, Key, Trust, sha256

VECTORS = pathlib.Path(__file__).parent


class Vectors:
    """Runs a file and counts what it answers wrongly."""

    def __init__(self):
        self.right, self.wrong = 0, []

    def check(self, name: str, run, code, expected) -> None:
        try:
            answer = (None, run())
        except Fault as fault:
            answer = (fault.code, None)
        if answer == (code, expected):
            self.right += 1
        else:
            self.wrong.append(f"{name}: {answer}, not {(code, expected)}")


def trust_of(given: dict, now: int) -> Trust:
    trust = Trust(given["tenant"], [Key(ED25519, bytes.fromhex(root)) for root in given["roots"]])
    if given["status"]:
        trust.accept_status(bytes.fromhex(given["status"]), now)
    return trust


def run_sealed(vectors: Vectors) -> None:
    file = json.loads((VECTORS / "sealed.json").read_text())
    for key in file["keys"].values():
        suite = hpke.HYBRID if key["suite"] == "hybrid" else hpke.CLASSICAL
        public = hpke.public_key(suite, bytes.fromhex(key["seed"]))
        assert public.hex() == key["public"] and sha256(public)[:16].hex() == key["prekey_id"]
    cases = {case["name"]: case for case in file["open"]}

    def run(case: dict, now: int) -> dict:
        trust = trust_of(file["trusts"][case["trust"]], case["now"])
        return open_message(*case_inputs(file, case), trust, now)

    for name, case in cases.items():
        vectors.check(name, lambda case=case: run(case, case["now"]), case["code"], case["message"])

    for sequence in file["replay"]:
        latest, seen = 0, {}
        for step in sequence["steps"]:
            case = cases[step["open"]]
            latest = max(latest, step["now"])

            def once(case=case, latest=latest, seen=seen):
                message, context = run(case, latest), case["context"]
                same = (context["tenant"], message["author"], context["transport_id"])
                require(seen.get(same, -1) < latest, "replayed")
                seen[same] = context["expires_at"] + SKEW

            vectors.check(f"{sequence['name']}: {step}", once, step["code"], None)

    for case in file["look_up"]:
        vectors.check(case["name"], lambda case=case: structures.choose_prekey(case), case["code"], case["prekey_id"])


def run_structures(vectors: Vectors) -> None:
    file = json.loads((VECTORS / "structures.json").read_text())
    for case in file["structures"]:
        given = case["given"]
        trust = trust_of(file["trusts"][given["trust"]], 1_800_000_000) if "trust" in given else None
        run = getattr(structures, case["kind"])
        vectors.check(case["name"], lambda: run(given, trust), case["code"], case["read"])


def main() -> int:
    vectors = Vectors()
    run_sealed(vectors)
    run_structures(vectors)
    for wrong in vectors.wrong:
        print(wrong, file=sys.stderr)
    misfits = schema.check()
    for misfit in misfits:
        print(misfit, file=sys.stderr)
    print(f"{vectors.right} vectors answered rightly, {len(vectors.wrong)} wrongly")
    print(f"{len(misfits)} good structures that do not fit sealpost.cddl")
    return 1 if vectors.wrong or misfits else 0


if __name__ == "__main__":
    sys.exit(main())
