"""Starts, stops and kills the engine beneath PerSQL: workerd, serving `worker.js` on loopback."""

import json
import os
import platform
import select
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

HERE = Path(__file__).resolve().parent
_PLATFORMS = {
    ("linux", "x86_64"): "linux-64",
    ("linux", "aarch64"): "linux-arm64",
    ("darwin", "x86_64"): "darwin-64",
    ("darwin", "arm64"): "darwin-arm64",
}


def find_engine() -> Path | str:
    """Return the engine's program, or a sentence that says what is missing."""
    machine = platform.machine().lower()
    name = _PLATFORMS.get((sys.platform, {"amd64": "x86_64"}.get(machine, machine)))
    if name is None:
        return f"the engine has no program for {sys.platform} on {machine}"
    program = HERE / "node_modules" / "@cloudflare" / f"workerd-{name}" / "bin" / "workerd"
    if not program.is_file():
        return "the engine isn't installed: run `npm install` in tests/engine (needs node and npm)"
    return program


class Engine:
    """One engine process and its data folder; the databases survive `kill` and `restart`."""

    def __init__(self, folder: Path | None = None, *, idempotency: bool = True) -> None:
        """Prepare an engine without starting it.

        Args:
            folder: Where its data lies; None makes a folder that `close` removes.
            idempotency: Whether it answers a repeated `Idempotency-Key` from memory.
        """
        self._own = tempfile.TemporaryDirectory(prefix="engine-") if folder is None else None
        self.folder = Path(self._own.name) if self._own else Path(str(folder))
        self.idempotency = idempotency
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def base_url(self) -> str:
        """The address for `RestClient(base_url=...)`; the same after a restart."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The running process's id."""
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    def token(self, namespace: str = "acme", role: str = "admin") -> str:
        """Return a token that the engine takes.

        Args:
            namespace: The namespace it is for.
            role: `admin`, `readwrite` (no DDL) or `readonly`.
        """
        return f"psql_test_{role}_{namespace}_s3cr3t"

    def start(self, timeout: float = 20.0) -> "Engine":
        """Start it and wait until it listens, on the port that it had before."""
        if self.running:
            return self
        program = find_engine()
        if isinstance(program, str):
            raise RuntimeError(program)  # noqa: TRY004 - the sentence says what is missing
        data = self.folder / "data"
        data.mkdir(parents=True, exist_ok=True)
        reading, writing = os.pipe()
        try:
            with (self.folder / "engine.log").open("ab") as log:
                self._process = subprocess.Popen(
                    [
                        str(program),
                        "serve",
                        str(HERE / "config.capnp"),
                        f"--socket-addr=http=127.0.0.1:{self.port}",
                        f"--directory-path=data={data}",
                        f"--control-fd={writing}",
                    ],
                    env={**os.environ, "ENGINE_IDEMPOTENCY": "on" if self.idempotency else "off"},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=(writing,),
                )
            os.close(writing)
            writing = -1
            self.port = self._listening(reading, timeout)
        except BaseException:
            self.kill()
            raise
        finally:
            os.close(reading)
            if writing >= 0:
                os.close(writing)
        return self

    def _listening(self, control: int, timeout: float) -> int:
        """Wait for the process to report its port."""
        deadline = time.monotonic() + timeout
        text = b""
        while (left := deadline - time.monotonic()) > 0:
            if not select.select([control], [], [], left)[0]:
                break
            chunk = os.read(control, 4096)
            if not chunk:
                break
            text += chunk
            *lines, _ = text.split(b"\n")
            for line in lines:
                message: dict[str, Any] = json.loads(line)
                if message.get("event") == "listen" and message.get("socket") == "http":
                    return int(message["port"])
        log = (self.folder / "engine.log").read_text(errors="replace")[-2000:]
        raise RuntimeError(f"the engine did not start within {timeout:g} s:\n{log}")

    def stop(self) -> None:
        """End the process in good order; its data stays."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(1.0)
            except subprocess.TimeoutExpired:
                self.kill()
            self._process = None

    def kill(self) -> None:
        """End the process with SIGKILL, in the middle of whatever it does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10.0)
            self._process = None

    def restart(self) -> "Engine":
        """Kill the process if it lives, and start it on the same port and data."""
        self.kill()
        return self.start()

    def close(self) -> None:
        """End the process, and remove the data folder if it was made here."""
        self.stop()
        if self._own is not None:
            self._own.cleanup()

    def __enter__(self) -> "Engine":
        """Start."""
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close."""
        self.close()
