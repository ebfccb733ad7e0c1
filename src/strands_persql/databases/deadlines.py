"""One deadline for a whole request: connecting, sending, and each byte of the answer.

A socket's timeout starts again with every byte, so that a server which sends one now and then would
hold a request forever. Connections made here give their socket only the time that is left.
"""

import http.client
import io
import socket
import threading
import time
from collections.abc import Iterator
from functools import lru_cache
from types import TracebackType
from typing import Any, cast

from typing_extensions import Buffer, Self
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool

KEEPALIVE_S = 90.0
"""How long an idle connection is taken to be alive; what lies between drops them in silence."""


class Exchange:
    """One request and its answer, in the thread that waits for it.

    Args:
        seconds: The most that it may take.

    Attributes:
        sent: Whether any of the request may have reached the server.
        watched: Whether its connection keeps to the deadline, and to `sent`.
    """

    def __init__(self, seconds: float) -> None:
        """Begin now."""
        self.sent = False
        self.watched = False
        self._ends = time.monotonic() + seconds

    def left(self) -> float:
        """Return the seconds that are left.

        Raises:
            TimeoutError: If none are.
        """
        left = self._ends - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        return left

    def __enter__(self) -> Self:
        """Let this thread's connections keep to it."""
        _current.exchange = self
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Let them go."""
        _current.exchange = None


class _Current(threading.local):
    exchange: Exchange | None = None


_current = _Current()


def watch(pool: HTTPConnectionPool) -> None:
    """Have a pool's new connections keep to the deadline of each `Exchange`.

    Requests outside of one go on as ever.
    """
    made: Any = pool.ConnectionCls
    if not issubclass(made, _Watched):
        pool.ConnectionCls = _watched(made)


@lru_cache(maxsize=32)
def _watched(made: type[HTTPConnection]) -> Any:
    return type(f"Watched{made.__name__}", (_Watched, made), {})


class _UntilDeadline:
    """Socket options that can be set only in time; they are set before each attempt to connect.

    So that a host with several addresses isn't given the whole time for each of them.
    """

    def __init__(self, exchange: Exchange, options: Any) -> None:
        self._exchange = exchange
        self._options = options or ()

    def __iter__(self) -> Iterator[Any]:
        self._exchange.left()
        return iter(self._options)


class _Reader(io.RawIOBase):
    """A socket's incoming bytes, each of them waited for until the deadline only."""

    def __init__(self, sock: socket.socket, raw: io.RawIOBase) -> None:
        super().__init__()
        self._sock = sock
        self._raw = raw

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer, /) -> int | None:
        exchange = _current.exchange
        if exchange is not None:
            self._sock.settimeout(exchange.left())
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        raw = self.fp.detach()
        self.fp = io.BufferedReader(_Reader(sock, raw))


class _Watched(HTTPConnection):
    response_class = _Response
    _used = 0.0

    @property
    def is_connected(self) -> bool:
        """Whether it is open and was used lately."""
        return time.monotonic() - self._used < KEEPALIVE_S and super().is_connected

    def _new_conn(self) -> socket.socket:
        exchange = _current.exchange
        if exchange is None:
            return super()._new_conn()
        options = self.socket_options
        self.socket_options = cast("Any", _UntilDeadline(exchange, options))
        self.timeout = exchange.left()
        try:
            sock = super()._new_conn()
        finally:
            self.socket_options = options
        sock.settimeout(exchange.left())  # for the TLS handshake
        return sock

    def connect(self) -> None:
        """Connect, through a proxy where there is one."""
        exchange = _current.exchange
        if exchange is not None:
            exchange.watched = True
        try:
            super().connect()
        finally:
            if exchange is not None:
                exchange.sent = False  # so far only what opens a proxy's tunnel

    def send(self, data: Any) -> None:
        """Send a part of a request."""
        exchange = _current.exchange
        if exchange is None or not isinstance(data, (bytes, bytearray)):
            super().send(data)
            return
        exchange.watched = True
        if self.sock is None:
            self.connect()
        exchange.sent = True
        view = memoryview(data)
        while view:
            self.sock.settimeout(exchange.left())
            view = view[self.sock.send(view) :]

    def getresponse(self) -> Any:
        """Return the response, its head read."""
        response = super().getresponse()
        self._used = time.monotonic()
        return response
