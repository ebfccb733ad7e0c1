"""An HTTP proxy on loopback that makes the faults of a network, by script and countable."""

import contextlib
import http.client
import json
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

_IDLE = 60.0  # seconds after which a connection on which nothing comes is closed
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "te", "upgrade"}


@dataclass
class Request:
    """One request as the proxy saw it, and what the proxy did to it."""

    number: int
    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    fault: str | None = None
    status: int | None = None
    """The status that went to the client, or None where none did."""
    bytes_up: int = 0
    bytes_down: int = 0
    answers: list[tuple[int, bytes]] = field(default_factory=list)
    """What the engine answered, once for each time that the request was sent to it."""

    @property
    def idempotency_key(self) -> str | None:
        """The key that the client sent, stripped on the way or not."""
        return self.headers.get("idempotency-key")

    @property
    def statements(self) -> list[dict[str, Any]]:
        """The statements of a query or batch."""
        if not self.body:
            return []
        body = json.loads(self.body)
        found: list[dict[str, Any]] = body.get("statements", [body])
        return found


Fault = str | None
Script = Callable[[Request], Fault] | Iterable[Fault]


class FaultProxy:
    """A kept-alive HTTP/1.1 proxy between a client and the engine, with a fault for any request.

    `script` is called with each `Request`, or gives one fault a request until it ends. Faults:

    ====================  ==========================================================================
    None                  passes
    `latency:S`           waits S seconds, then passes (even if the client has gone: a straggler)
    `latency_after:S`     passes to the engine, answers S seconds later
    `status:N`            N is answered, the engine sees nothing; `429:S` adds Retry-After: S
    `500_before`          500 is answered, the engine sees nothing
    `500_after`           the engine applies it, 500 is answered
    `redirect:URL`        307 to that address
    `cut_answer`          applied, half of the answer's body is sent, then the connection is closed
    `close_before`        the connection is closed, the engine sees nothing
    `close_after`         applied, the connection is closed without an answer
    `reset_after`         applied, the connection is reset (RST)
    `not_json`            applied, 200 with a body that isn't JSON
    `not_json_before`     200 with a body that isn't JSON, the engine sees nothing
    `duplicate`           sent to the engine twice in order, the second answer goes back
    `duplicate_first`     the same, the first answer goes back
    `delay_duplicate:N`   passes; a copy is sent again just before the Nth later request passes
    ====================  ==========================================================================
    """

    def __init__(
        self,
        upstream: str,
        script: Script | None = None,
        *,
        latency: float = 0.0,
        strip_idempotency_key: bool = False,
    ) -> None:
        """Prepare a proxy without starting it.

        Args:
            upstream: The engine's base URL.
            script: The faults; can be set anew at any time with `script`.
            latency: Seconds that every request waits before it is passed on.
            strip_idempotency_key: Whether the engine never sees an `Idempotency-Key`.
        """
        address = urlsplit(upstream)
        self._host, self._port = address.hostname or "", address.port or 80
        self.latency = latency
        self.strip_idempotency_key = strip_idempotency_key
        self._lock = threading.Lock()
        self._script: Callable[[Request], Fault] = _pass
        self.script = script
        self._listener: socket.socket | None = None
        self._open: set[socket.socket] = set()
        self._threads: set[threading.Thread] = set()
        self._ended = threading.Event()
        self._numbers = 0
        self._stragglers: list[tuple[int, Request]] = []
        self.reset()

    # -- the script and the counts ---------------------------------------------------------------

    @property
    def script(self) -> Script | None:
        """The faults to come."""
        return self._script

    @script.setter
    def script(self, script: Script | None) -> None:
        if script is None:
            self._script = _pass
        elif callable(script):
            self._script = script
        else:
            faults: Iterator[Fault] = iter(script)
            self._script = lambda _: next(faults, None)

    def reset(self) -> None:
        """Forget requests, counts and pending copies; open connections stay and aren't counted."""
        with self._lock:
            self.requests: list[Request] = []
            self.connections = 0
            self._stragglers = []

    @property
    def count(self) -> int:
        """How many requests the client made since `reset`."""
        return len(self.requests)

    @property
    def bytes_up(self) -> int:
        """Bytes of all requests, heads included."""
        return sum(request.bytes_up for request in self.requests)

    @property
    def bytes_down(self) -> int:
        """Bytes of all answers, heads included."""
        return sum(request.bytes_down for request in self.requests)

    # -- life ------------------------------------------------------------------------------------

    @property
    def base_url(self) -> str:
        """The address for `RestClient(base_url=...)`."""
        if self._listener is None:
            raise RuntimeError("the proxy isn't started")
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def start(self) -> "FaultProxy":
        """Listen, on a free port."""
        self._ended.clear()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self._listener.settimeout(1.0)
        self._spawn(self._accept, self._listener)
        return self

    def stop(self) -> None:
        """Close every connection and wait for the threads."""
        self._ended.set()
        if self._listener is not None:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
        with self._lock:
            connections, threads = list(self._open), list(self._threads)
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(5.0)

    def drop_connections(self) -> None:
        """Close all client connections, as an idle timeout of the service would."""
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> "FaultProxy":
        """Start."""
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop."""
        self.stop()

    # -- serving ---------------------------------------------------------------------------------

    def _spawn(self, target: Callable[..., None], *args: Any) -> None:
        def run() -> None:
            try:
                target(*args)
            finally:
                with self._lock:
                    self._threads.discard(thread)

        thread = threading.Thread(target=run, name="fault-proxy", daemon=True)
        with self._lock:
            self._threads.add(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while not self._ended.is_set():
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            connection.settimeout(_IDLE)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._open.add(connection)
                self.connections += 1
            self._spawn(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        upstream = _Upstream(self._host, self._port)
        try:
            with connection.makefile("rb") as reader:
                while not self._ended.is_set():
                    request = self._read(reader)
                    if request is None or not self._handle(request, connection, upstream):
                        return
        except (OSError, http.client.HTTPException, ValueError):
            return  # the client or the engine has gone: the connection is closed below
        finally:
            upstream.close()
            with self._lock:
                self._open.discard(connection)
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def _read(self, reader: Any) -> Request | None:
        line: bytes = reader.readline(65536)
        if not line.strip():
            return None
        method, path, _ = line.decode("latin-1").split(" ", 2)
        headers: dict[str, str] = {}
        size = len(line)
        while (line := reader.readline(65536)) not in (b"\r\n", b""):
            size += len(line)
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.strip().lower()] = value.strip()
        length = int(headers.get("content-length", "0"))
        body: bytes = reader.read(length)
        if len(body) < length:
            return None
        with self._lock:
            self._numbers += 1
            request = Request(self._numbers, method, path, headers, body)
            request.bytes_up = size + 2 + length
            self.requests.append(request)
            request.fault = self._script(request)
        return request

    def _handle(self, request: Request, client: socket.socket, upstream: "_Upstream") -> bool:
        """Do the request's fault; return whether the connection goes on."""
        fault, _, argument = (request.fault or "").partition(":")
        if fault not in _FAULTS:
            raise AssertionError(f"no such fault: {request.fault}")
        self._wait(self.latency + (float(argument) if fault == "latency" else 0.0))
        self._send_stragglers(request.number)

        if fault in ("status", "429", "500_before", "redirect", "not_json_before"):
            status, headers, body = _own_answer(fault, argument)
            return self._answer(request, client, status, headers, body)
        if fault == "close_before":
            return False

        answer = self._forward(request, upstream)
        if fault in ("duplicate", "duplicate_first"):
            second = self._forward(request, upstream)
            answer = second if fault == "duplicate" else answer
        elif fault == "delay_duplicate":
            with self._lock:
                self._stragglers.append((request.number + int(argument), request))
        elif fault == "latency_after":
            self._wait(float(argument))

        if fault == "close_after":
            return False
        if fault == "reset_after":
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
            return False
        if fault in ("500_after", "not_json"):
            answer = _own_answer(fault, argument)
        return self._answer(request, client, *answer, cut=fault == "cut_answer")

    def _forward(
        self, request: Request, upstream: "_Upstream"
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        drop = {"host", *_HOP_BY_HOP}
        if self.strip_idempotency_key:
            drop.add("idempotency-key")
        headers = {name: value for name, value in request.headers.items() if name not in drop}
        answer = upstream.send(request.method, request.path, headers, request.body)
        request.answers.append((answer[0], answer[2]))
        return answer

    def _send_stragglers(self, number: int) -> None:
        with self._lock:
            due = [request for at, request in self._stragglers if at <= number]
            self._stragglers = [pair for pair in self._stragglers if pair[0] > number]
        for request in due:
            upstream = _Upstream(self._host, self._port)
            try:
                self._forward(request, upstream)
            finally:
                upstream.close()

    def _answer(
        self,
        request: Request,
        client: socket.socket,
        status: int,
        headers: list[tuple[str, str]],
        body: bytes,
        *,
        cut: bool = False,
    ) -> bool:
        lines = [f"HTTP/1.1 {status} {http.client.responses.get(status, 'Status')}"]
        lines += [f"{name}: {value}" for name, value in headers]
        lines += [f"content-length: {len(body)}", "", ""]
        data = "\r\n".join(lines).encode("latin-1") + (body[: len(body) // 2] if cut else body)
        request.status = status
        request.bytes_down = len(data)
        client.sendall(data)
        return not cut

    def _wait(self, seconds: float) -> None:
        if seconds > 0:
            self._ended.wait(seconds)


def _pass(request: Request) -> Fault:  # noqa: ARG001 - a script's signature
    return None


_FAULTS = {
    "",
    "latency",
    "latency_after",
    "status",
    "429",
    "500_before",
    "500_after",
    "redirect",
    "cut_answer",
    "close_before",
    "close_after",
    "reset_after",
    "not_json",
    "not_json_before",
    "duplicate",
    "duplicate_first",
    "delay_duplicate",
}


def _own_answer(fault: str, argument: str) -> tuple[int, list[tuple[str, str]], bytes]:
    """Make an answer that the engine never gave."""
    headers = [("content-type", "application/json")]
    if fault in ("not_json", "not_json_before"):
        return 200, [("content-type", "text/html")], b"<html>a proxy's maintenance page</html>"
    if fault == "redirect":
        return 307, [("location", argument)], b""
    if fault == "429":
        headers += [("retry-after", argument)] if argument else []
        return 429, headers, b'{"success":false,"error":"Too many requests"}'
    status = 500 if fault.startswith("500") else int(argument)
    body = {"success": False, "error": http.client.responses.get(status, "Status")}
    return status, headers, json.dumps(body).encode()


class _Upstream:
    """One kept connection to the engine, made again when the engine has closed it."""

    def __init__(self, host: str, port: int) -> None:
        self._connection = http.client.HTTPConnection(host, port, timeout=_IDLE)

    def send(
        self, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        """Send a request and read its whole answer."""
        sock = self._connection.sock
        if sock is not None and select.select([sock], [], [], 0)[0]:
            self._connection.close()  # readable while idle: the engine has closed it
        if self._connection.sock is None:
            self._connect()
        self._connection.request(method, path, body=body or None, headers=headers)
        response = self._connection.getresponse()
        content = response.read()
        kept = [(n, v) for n, v in response.getheaders() if n.lower() not in _HOP_BY_HOP]
        return response.status, kept, content

    def _connect(self) -> None:
        self._connection.connect()
        self._connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close(self) -> None:
        """Close it."""
        self._connection.close()


def until(condition: Callable[[], bool], timeout: float = 5.0) -> bool:
    """Wait until a condition holds, and return whether it does."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True
