"""The emulators of APNs and FCM as a process, and their control port."""

import base64
import json
import pathlib
import subprocess
import urllib.request


class Emulators:
    """Runs `sealpost-emulators` in a folder, as a context manager."""

    def __init__(self, program: pathlib.Path, folder: pathlib.Path):
        self._program = program
        self._folder = folder

    def __enter__(self) -> "Emulators":
        command = [self._program, "--dir", self._folder, "--json"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._program} did not start: it ended with {self._process.wait()}")
        return self

    def __exit__(self, *_) -> None:
        self._process.terminate()
        self._process.wait(timeout=20)
        self._process.stdout.close()


class Control:
    """Steers emulators that run in a folder, and reads what they recorded."""

    def __init__(self, folder: pathlib.Path):
        self.manifest = json.loads((folder / "emulators.json").read_text())

    def choose(self, **outcome) -> None:
        """Chooses what happens to the next request of a provider (or to `count` of them)."""
        self._ask("POST", "/outcomes", {"count": 1} | outcome)

    def kill(self, provider: str, token: str, timestamp_ms: int) -> None:
        self._ask("POST", "/dead", {"provider": provider, "token": token, "timestamp_ms": timestamp_ms})

    def goaway(self, provider: str) -> int:
        """Ends the open connections; how many there were."""
        return self._ask("POST", "/goaway", {"provider": provider, "at_once": {}})["connections"]

    def counts(self, provider: str) -> dict:
        return self._ask("GET", "/counts")[provider]

    def pushes(self, token: str) -> list[dict]:
        """The recorded requests for a device token, with their bodies read as JSON."""
        pushes = self._ask("GET", f"/pushes?token={token}")["pushes"]
        return [push | {"body": json.loads(base64.b64decode(push["body"]))} for push in pushes]

    def _ask(self, method: str, path: str, body: dict | None = None) -> dict:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.manifest["control_url"] + path, data, method=method)
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.load(answer)
