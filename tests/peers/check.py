"""Checks the emulators of APNs and FCM with clients that were written by others.

What the product's own clients take for an answer of Apple or Google must be one. `tests/run` installs the
clients and calls `check.py EMULATORS NODE PEERS`: the emulators' program, Node.js, and the folder that has the
client for it with its packages.
"""

import os
import pathlib
import subprocess
import sys
import tempfile

from emulators import Emulators

HERE = pathlib.Path(__file__).parent


def main() -> int:
    program, node, peers = (pathlib.Path(argument) for argument in sys.argv[1:])
    runs = [
        # The clients leave sockets to the garbage collector; the warnings would hide what matters.
        [sys.executable, "-W", "ignore", "-m", "unittest", "discover", "--start-directory", HERE],
        [node, "--test", "--test-reporter=spec", peers / "node_apn.test.mjs"],
    ]
    with tempfile.TemporaryDirectory() as folder, Emulators(program, pathlib.Path(folder)):
        environment = os.environ | {"SEALPOST_EMULATORS": folder}
        return max(subprocess.run(run, env=environment, timeout=300).returncode for run in runs)


if __name__ == "__main__":
    sys.exit(main())
