"""Servers on loopback that answer as no service should."""

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable
from types import TracebackType

from typing_extensions import Self

# Of nobody's machine, good for localhost and 127.0.0.1 until 2120, and trusted by none.
CERTIFICATE = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgY0ceo5R0ltCb301i
EaMIaYDAslWuPqGu1ac/nRuoCGyhRANCAARRwKxz4Mdl4qmABMaq7K7kPDAHvo38
3yg5VGDqG3n23O2wR0o4favMISKJgbe8Goytd/+fIZmDxzkzloH28lP3
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBrjCCAVWgAwIBAgIBATAKBggqhkjOPQQDAjAUMRIwEAYDVQQDDAlsb2NhbGhv
c3QwIBcNMjAwMTAxMDAwMDAwWhgPMjEyMDAxMDEwMDAwMDBaMBQxEjAQBgNVBAMM
CWxvY2FsaG9zdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABFHArHPgx2XiqYAE
xqrsruQ8MAe+jfzfKDlUYOobefbc7bBHSjh9q8whIomBt7wajK13/58hmYPHOTOW
gfbyU/ejgZUwgZIwGgYDVR0RBBMwEYIJbG9jYWxob3N0hwR/AAABMA8GA1UdEwEB
/wQFMAMBAf8wDgYDVR0PAQH/BAQDAgKEMB0GA1UdDgQWBBQ5/rR5/uCahiSz9cpH
jm48atkp2zAfBgNVHSMEGDAWgBQ5/rR5/uCahiSz9cpHjm48atkp2zATBgNVHSUE
DDAKBggrBgEFBQcDATAKBggqhkjOPQQDAgNHADBEAiApAnPqv+ymZHaeKN4gYu/e
FDE8Pd/JBkbtUjA+BM9PZQIgAWkE3uP6algaRBXjbfz68dLqDUPnOTD4vcUo3aXt
uSo=
-----END CERTIFICATE-----
"""

Serve = Callable[[socket.socket, bytes], None]


class RawServer:
    """A server that hands each request's connection to a function, and closes it after that.

    Args:
        serve: Called with the connection and the request, in a thread for each connection.
        tls: What makes the connection one of TLS, or None.
        host: The loopback address to listen on.

    Attributes:
        requests: The requests so far, head and body.
    """

    def __init__(
        self, serve: Serve, tls: ssl.SSLContext | None = None, *, host: str = "127.0.0.1"
    ) -> None:
        self.requests: list[bytes] = []
        self._serve = serve
        self._tls = tls
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._host = f"[{host}]" if ":" in host else host
        self._listener = socket.create_server((host, 0), family=family, backlog=256)
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    @property
    def base_url(self) -> str:
        """The address for `RestClient(base_url=...)`."""
        scheme = "http" if self._tls is None else "https"
        return f"{scheme}://{self._host}:{self._listener.getsockname()[1]}"

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(connection)
            self._threads.append(threading.Thread(target=self._handle, args=(connection,)))
            self._threads[-1].start()

    def _handle(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
            with connection:
                request = _read(connection)
                self.requests.append(request)
                self._serve(connection, request)

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5.0)


def _read(connection: socket.socket) -> bytes:
    request = b""
    while b"\r\n\r\n" not in request and (part := connection.recv(65536)):
        request += part
    head, _, body = request.partition(b"\r\n\r\n")
    length = head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]
    while len(body) < int(length or 0) and (part := connection.recv(65536)):
        body += part
    return head + b"\r\n\r\n" + body


def answering(body: bytes, *headers: str, status: int = 200, last: bool = True) -> Serve:
    """Make an answer of a body and headers, the last one on its connection or not."""
    lines = [f"HTTP/1.1 {status} Status", f"content-length: {len(body)}", *headers]
    lines += ["connection: close"] if last else []
    whole = "\r\n".join([*lines, "", ""]).encode("latin-1") + body
    return lambda connection, _: connection.sendall(whole)


def sending(whole: bytes) -> Serve:
    """Make an answer of these very bytes."""
    return lambda connection, _: connection.sendall(whole)


def silent(connection: socket.socket, _: bytes) -> None:
    """Answer nothing, until the client has gone."""
    connection.recv(1)


def dripping(first: bytes, drop: bytes = b"x", *, every: float = 0.05) -> Serve:
    """Make an answer that begins, and then goes on by a little every so many seconds, for ever."""

    def serve(connection: socket.socket, _: bytes) -> None:
        connection.sendall(first)
        while True:
            time.sleep(every)
            connection.sendall(drop)

    return serve
