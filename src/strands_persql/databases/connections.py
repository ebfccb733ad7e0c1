"""The connections of one `RestClient`: bounded in number, time and bytes, over urllib3.

Imported when a client is made, so that programs that keep sessions in a file load no HTTP client.
"""

import os
import ssl
import zlib
from collections.abc import Iterator
from http.client import HTTPException
from importlib.util import find_spec
from typing import Any, NoReturn
from urllib.request import getproxies, proxy_bypass

import urllib3
from urllib3.exceptions import (
    ClosedPoolError,
    ConnectTimeoutError,
    DecodeError,
    EmptyPoolError,
    HTTPError,
    NewConnectionError,
    ProxyError,
    ReadTimeoutError,
)

from strands_persql.databases.address import Address
from strands_persql.databases.deadlines import Exchange, watch
from strands_persql.databases.rest_error import RestError
from strands_persql.databases.secret import Secret, Token
from strands_persql.databases.wire import HttpAnswer
from strands_persql.runtime.text import one_line

_CHUNK = 65_536
_MAX_ERROR_BYTES = 1_000_000
_FIRST_ERROR_STATUS = 300
_GZIP = 16 + zlib.MAX_WBITS
_HEADERS = {
    "Accept": "application/json",
    "Accept-Encoding": "gzip",
    "Content-Type": "application/json",
    "User-Agent": "strands-persql",
}
_NEVER_SENT = (ClosedPoolError, ConnectTimeoutError, NewConnectionError, ProxyError)


class Connections:
    """What one `RestClient` shares with its databases.

    Args:
        token: The token, hidden and checked, or what returns it.
        address: Where the service is.
        timeout: Seconds for a whole request.
        max_connections: The most connections at a time.
        max_answer_bytes: The most bytes of an answer, decompressed.
        http: The user's own pools, or None.

    Attributes:
        address: As given.
        token: As given.
    """

    def __init__(
        self,
        token: Token,
        address: Address,
        *,
        timeout: float,
        max_connections: int,
        max_answer_bytes: int,
        http: urllib3.PoolManager | None,
    ) -> None:
        """Initialize without connecting."""
        self.address = address
        self.token = token
        self._timeout = timeout
        self._max_connections = max_connections
        self._max_answer_bytes = max_answer_bytes
        self._supplied = http
        self._pid = os.getpid()
        # By process: a fork must not use its parent's sockets, nor close them.
        self._pools: dict[int, urllib3.HTTPConnectionPool] = {}
        self._closed = False

    def __str__(self) -> str:
        """Show the host, never the token."""
        return f"{self.address}{' closed' if self._closed else ''}"

    __repr__ = __str__

    def __reduce__(self) -> NoReturn:
        """Refuse, for a pickle would carry the token."""
        raise TypeError("a RestClient can't be pickled: make one in each process")

    def close(self) -> None:
        """Close this process's connections, unless they are the user's; those in use end first."""
        self._closed = True
        pool = self._pools.get(os.getpid())
        if pool is not None:
            pool.close()

    def post(
        self, path: str, content: bytes, key: str | None, where: str
    ) -> HttpAnswer | RestError:
        """Send one request and read its answer.

        An error is returned and not raised, so that no frame of its traceback holds the request
        or what has come of an answer.

        Args:
            path: The path below the base URL.
            content: The body, JSON.
            key: An idempotency key, or None.
            where: The database and its host, for errors.
        """
        if self._closed:
            return RestError(f"the client for {where} is closed: make a new one", kind="closed")
        exchange = Exchange(self._timeout)
        try:
            with exchange:
                return self._read(self._send(path, content, key, exchange))
        except (HTTPError, HTTPException, OSError) as error:
            return self._failure(error, exchange, where)
        except _NotAskedError as error:
            kind = "token" if isinstance(error, _NoTokenError) else "connect"
            return RestError(f"{where} was not asked: {error}", kind=kind)
        except _TooLargeError:
            return RestError(
                f"the answer of {where} has more than {self._max_answer_bytes:,} bytes: ask for "
                "less at a time, or raise max_answer_bytes",
                kind="answer_too_large",
                may_have_applied=True,
            )

    def _send(
        self, path: str, content: bytes, key: str | None, exchange: Exchange
    ) -> urllib3.BaseHTTPResponse:
        headers = {**_HEADERS, "Authorization": Secret(f"Bearer {self._current_token()}")}
        if key is not None:
            headers["Idempotency-Key"] = key
        options: dict[str, Any] = {
            "body": content,
            "headers": headers,
            "retries": False,
            "redirect": False,
            "timeout": urllib3.Timeout(connect=exchange.left(), read=exchange.left()),
            "pool_timeout": exchange.left(),
            "preload_content": False,
            "decode_content": False,
        }
        path = self.address.path + path
        if self._supplied is None:
            return self._pool().urlopen("POST", path, **options)
        if os.getpid() != self._pid:
            raise _NotAskedError(
                "the urllib3 pool given to RestClient belongs to the process that this one is a "
                "fork of; make a RestClient in each process"
            )
        url = self.address.origin + path
        # Asked for each time: a manager of the user's may drop its pools and make new ones.
        watch(self._supplied.connection_from_url(url))
        return self._supplied.urlopen("POST", url, **options)

    def _current_token(self) -> Secret:
        try:
            return self.token.current()
        except ValueError:
            raise _NoTokenError("the function for the token returned what can't be one") from None
        except Exception as error:
            # The class alone: the text of a failure to get a token may have a part of it.
            why = f"the function for the token raised {type(error).__name__}"
            raise _NotAskedError(why) from error

    def _pool(self) -> urllib3.HTTPConnectionPool:
        """Return this process's pool for the service's host."""
        pid = os.getpid()
        pool = self._pools.get(pid)
        if pool is None:
            address = self.address
            options = {"maxsize": self._max_connections, "block": True}
            manager = _manager(address, options)
            made = manager.connection_from_host(
                address.host.strip("[]"), address.port, address.scheme
            )
            watch(made)
            pool = self._pools.setdefault(pid, made)
        return pool

    def _read(self, response: urllib3.BaseHTTPResponse) -> HttpAnswer:
        """Read a whole answer, of no more bytes than allowed."""
        failed = response.status >= _FIRST_ERROR_STATUS
        limit = _MAX_ERROR_BYTES if failed else self._max_answer_bytes
        try:
            body = _body(response, limit)
        except BaseException as error:
            response.close()
            if not failed or not isinstance(error, (_TooLargeError, DecodeError)):
                raise
            body = bytearray()  # what an error says at such length is nobody's to read
        finally:
            response.release_conn()
        return HttpAnswer(response.status, response.headers.get("Retry-After"), body)

    def _failure(self, error: Exception, exchange: Exchange, where: str) -> RestError:
        """Return the error for a request that got no answer."""
        root = _root(error)
        why = one_line(self.token.removed_from(_reason(root)))
        if self._closed and isinstance(error, (ClosedPoolError, EmptyPoolError)):
            return RestError(f"the client for {where} was closed meanwhile", kind="closed")
        if isinstance(error, EmptyPoolError):
            return RestError(
                f"{where} was not asked: all {self._max_connections} connections stayed in use "
                f"for {self._timeout:g} s; raise max_connections",
                kind="connect",
            )
        if _is_about_a_certificate(root):
            return RestError(
                f"{where} was not asked, for its certificate isn't trusted: {why}. Check base_url, "
                "or give the certificates to trust in SSL_CERT_FILE or by http=",
                kind="certificate",
            )
        if isinstance(error, _NEVER_SENT) or (exchange.watched and not exchange.sent):
            return RestError(f"no connection to {where}: {why}", kind="connect")
        return _lost(error, root, why, where, self._timeout)


def _lost(error: Exception, root: BaseException, why: str, where: str, timeout: float) -> RestError:
    """Return the error for a request that was sent, and whose answer is lost or unreadable."""
    if isinstance(error, ReadTimeoutError) or isinstance(root, TimeoutError):
        text, kind = f"{where} did not answer within {timeout:g} s", "timeout"
    elif isinstance(error, DecodeError):
        text, kind = f"{where} answered with a broken encoding: {why}", "bad_answer"
    else:
        text, kind = f"the connection to {where} was lost before the answer: {why}", None
    return RestError(text, kind=kind or "connection_lost", may_have_applied=True)


def check_pools(http: Any) -> None:
    """Refuse pools of the user's that aren't urllib3's.

    Raises:
        TypeError: If they aren't.
    """
    if http is not None and not isinstance(http, urllib3.PoolManager):
        raise TypeError(
            f"http must be a urllib3.PoolManager, or a ProxyManager, not {type(http).__name__}"
        )


class _NotAskedError(Exception):
    """Nothing was sent, for the reason that the text says."""


class _NoTokenError(_NotAskedError):
    """Nothing was sent, for there is no token to send."""


class _TooLargeError(Exception):
    """An answer has more bytes than allowed."""


def _manager(address: Address, options: dict[str, Any]) -> urllib3.PoolManager:
    """Return pools for an address, through the proxy that the environment names for it."""
    if address.scheme == "https":
        options["ssl_context"] = _trusting()
    # What goes to this machine goes to no proxy, which would read it where it is in clear.
    proxy = None if address.loopback else _proxy_for(address)
    if proxy is None:
        return urllib3.PoolManager(**options)
    url = urllib3.util.parse_url(proxy)
    if url.scheme in ("http", "https"):
        headers = urllib3.make_headers(proxy_basic_auth=url.auth) if url.auth else None
        bare = url._replace(auth=None).url
        return urllib3.ProxyManager(bare, proxy_headers=headers, **options)
    if url.scheme in _SOCKS and find_spec("socks") is not None:
        from urllib3.contrib.socks import SOCKSProxyManager  # noqa: PLC0415 - needs PySocks

        return SOCKSProxyManager(proxy, **options)
    raise _NotAskedError(
        f"the environment names a proxy of the kind {url.scheme!r}; use http or https, or install "
        "PySocks for one of SOCKS"
    )


_SOCKS = frozenset({"socks4", "socks4a", "socks5", "socks5h"})


def _proxy_for(address: Address) -> str | None:
    """Return the URL of the environment's proxy for an address, or None."""
    if proxy_bypass(str(address)):
        return None
    proxies = getproxies()
    proxy = proxies.get(address.scheme) or proxies.get("all")
    return proxy if not proxy or "://" in proxy else f"http://{proxy}"


def _trusting() -> ssl.SSLContext:
    """Return a context that trusts what this machine trusts, made once, for that takes long."""
    context = urllib3.util.create_urllib3_context()
    context.load_default_certs()
    if not context.get_ca_certs() and not any(ssl.get_default_verify_paths()[:2]):
        # A Python that knows no certificates of its system, as some installers leave it.
        try:
            import certifi  # noqa: PLC0415 - there with many other packages, and not needed
        except ImportError:
            return context
        context.load_verify_locations(certifi.where())
    return context


def _body(response: urllib3.BaseHTTPResponse, limit: int) -> bytearray:
    """Read a body, decompressed, of at most so many bytes."""
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    pieces = _chunks(response)
    if encoding in ("gzip", "x-gzip"):
        pieces = _decompressed(pieces)
    elif encoding not in ("", "identity"):
        raise DecodeError(f"{encoding!r}, which wasn't asked for")
    elif (response.length_remaining or 0) > limit:
        raise _TooLargeError
    body = bytearray()
    for piece in pieces:
        body += piece
        if len(body) > limit:
            raise _TooLargeError
    return body


def _chunks(response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    while chunk := response.read(_CHUNK, decode_content=False):
        yield chunk


def _decompressed(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Decompress gzip in pieces that stay small, whatever the compressed bytes swell to."""
    inflate = zlib.decompressobj(_GZIP)
    try:
        for chunk in chunks:
            data = chunk
            while data:
                if inflate.eof:  # a further member of the same file
                    inflate = zlib.decompressobj(_GZIP)
                yield inflate.decompress(data, _CHUNK)
                data = inflate.unconsumed_tail or inflate.unused_data
        yield inflate.flush()
    except zlib.error as error:
        raise DecodeError(str(error)) from None
    if not inflate.eof:
        raise DecodeError("compressed data that ends too early")


def _root(error: BaseException) -> BaseException:
    """Return the innermost of the errors that urllib3 has wrapped in each other."""
    for _ in range(10):
        inner = [each for each in error.args if isinstance(each, BaseException)]
        inner += [each for each in (error.__cause__,) if each is not None]
        if not inner:
            break
        error = inner[-1]
    return error


def _reason(root: BaseException) -> str:
    text = root.strerror if isinstance(root, OSError) else None
    return text or str(root) or type(root).__name__


def _is_about_a_certificate(root: BaseException) -> bool:
    return isinstance(root, (ssl.SSLCertVerificationError, urllib3.exceptions.SSLError)) or (
        type(root).__name__ == "CertificateError"
    )
