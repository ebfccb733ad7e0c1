"""A service that takes its time: PerSQL's HTTP interface over SQLite, in a process of its own.

It answers each request so many seconds later, as a network would, and any number of them at once,
so that what is measured is the client and not a proxy in the same process.
"""

import argparse
import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from strands_persql import LocalDatabase

_SUCCESS = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s"
_FAILURE = b"HTTP/1.1 400 Bad Request\r\ncontent-length: %d\r\n\r\n%s"


@contextlib.contextmanager
def waiting_service(seconds: float) -> Iterator[str]:
    """Start the service, and give its address."""
    command = [sys.executable, "-m", "tests.benchmarks.waiting", "--seconds", str(seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()


class _Service(asyncio.Protocol):
    databases: dict[str, LocalDatabase] = {}  # noqa: RUF012 - shared by all connections
    seconds = 0.0

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._read = b""

    def data_received(self, data: bytes) -> None:
        self._read += data
        while (end := self._read.find(b"\r\n\r\n")) >= 0:
            head, start = self._read[:end].lower(), end + 4
            length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
            if len(self._read) < start + length:
                return
            body, self._read = self._read[start : start + length], self._read[start + length :]
            answer = self._answer(head.split(b" ")[1].decode().rpartition("/")[0], json.loads(body))
            asyncio.get_running_loop().call_later(self.seconds, self._transport.write, answer)

    def _answer(self, path: str, body: dict[str, Any]) -> bytes:
        database = self.databases.setdefault(path, LocalDatabase())
        try:
            found = database.batch(body.get("statements", [body]), transaction=True)
        except Exception as error:  # noqa: BLE001 - the client hears of it
            said = json.dumps({"success": False, "error": str(error)}).encode()
            return _FAILURE % (len(said), said)
        results = [
            {"columns": one["columns"], "rows": [list(row.values()) for row in one["data"]]}
            for one in found
        ]
        data = results if "statements" in body else results[0]
        said = json.dumps({"success": True, "data": data}).encode()
        return _SUCCESS % (len(said), said)


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Service, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)  # noqa: T201 - who started it reads it
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=0.1)
    _Service.seconds = parser.parse_args().seconds
    asyncio.run(_serve())
