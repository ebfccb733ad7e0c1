"""Servers that are slow, endless, swollen or somebody else's: each is an error of ours, soon."""

import gzip
import json
import socket
import ssl
import subprocess
import sys
import threading
import time
import traceback
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import urllib3

from strands_persql import PerSQLSessionManager, RestClient, RestDatabase, RestError
from tests.support.servers import (
    CERTIFICATE,
    RawServer,
    Serve,
    answering,
    dripping,
    sending,
    silent,
)

TOKEN = "psql_live_s0_n0t/a+real.one="  # noqa: S105 - nobody's
GOOD = b'{"success":true,"data":{"columns":["a"],"rows":[[1]],"rowsRead":1,"rowsWritten":0}}'
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
MB = 1024 * 1024
needs_threads_seen = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="needs /proc"
)


def has_ipv6() -> bool:
    """Whether this machine has an IPv6 loopback address."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


def connect(server: RawServer, **options: Any) -> RestDatabase:
    """Make a client with a short timeout, and give its database."""
    options = {"timeout": 0.4, "base_url": server.base_url, **options}
    return RestClient(TOKEN, **options).database("acme/db")


def failure(database: RestDatabase) -> RestError:
    """Ask, and give the error."""
    with pytest.raises(RestError) as caught:
        database.query("SELECT 1")
    return caught.value


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for localhost that nobody trusts, with its key."""
    path = tmp_path / "localhost.pem"
    path.write_text(CERTIFICATE)
    return path


@pytest.fixture
def tls(certificate: Path) -> ssl.SSLContext:
    """What a server with that certificate needs."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


# -- one deadline ----------------------------------------------------------------------------------

SLOW: dict[str, Callable[[], Serve]] = {
    "nothing": lambda: silent,
    "status": lambda: dripping(b"HTTP/1.1 200 O"),
    "headers": lambda: dripping(HEAD + b"x-slow: "),
    "interim": lambda: dripping(b"", b"HTTP/1.1 100 Continue\r\n\r\n", every=0.01),
    "body": lambda: dripping(HEAD + b"content-length: 100000\r\n\r\n"),
    "endless body": lambda: dripping(HEAD + b"connection: close\r\n\r\n"),
    "chunks": lambda: dripping(HEAD + b"transfer-encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    "gzip": lambda: dripping(HEAD + b"content-encoding: gzip\r\ncontent-length: 9999\r\n\r\n"),
}


@pytest.mark.parametrize("slow", SLOW)
def test_a_server_that_drips_is_given_up_after_the_timeout(slow: str) -> None:
    """Whatever part of its answer comes a byte at a time, a request ends when its time does."""
    with RawServer(SLOW[slow]()) as server:
        database, begun = connect(server), time.monotonic()
        error = failure(database)
        took = time.monotonic() - begun
    assert (error.kind, error.may_have_applied) == ("timeout", True)
    assert "did not answer within 0.4 s" in str(error)
    assert 0.3 < took < 1.5


def test_a_server_that_drips_over_tls_is_given_up_too(
    tls: ssl.SSLContext, certificate: Path
) -> None:
    """The deadline holds over TLS, where bytes come in records."""
    with (
        RawServer(dripping(HEAD + b"content-length: 100000\r\n\r\n"), tls) as server,
        urllib3.PoolManager(ca_certs=str(certificate)) as http,
    ):
        database, begun = connect(server, http=http), time.monotonic()
        error = failure(database)
        took = time.monotonic() - begun
    assert error.kind == "timeout"
    assert took < 1.5


def test_a_handshake_that_never_ends_was_no_request() -> None:
    """A server that accepts and says nothing of TLS is given up, and nothing was sent."""
    with RawServer(silent) as server:
        base_url = server.base_url.replace("http:", "https:")
        database, begun = connect(server, base_url=base_url), time.monotonic()
        error = failure(database)
        took = time.monotonic() - begun
    assert (error.kind, error.may_have_applied) == ("connect", False)
    assert took < 1.5


def test_a_server_that_reads_slowly_is_given_up() -> None:
    """A request that the server doesn't take in ends when its time does."""

    ended = threading.Event()

    class Deaf(RawServer):
        def _handle(self, connection: Any) -> None:
            ended.wait(5)

    with Deaf(silent) as server:
        database, begun = connect(server), time.monotonic()
        with pytest.raises(RestError) as caught:
            database.query("SELECT ?", ["x" * 30 * MB])
        took = time.monotonic() - begun
        ended.set()
    assert (caught.value.kind, caught.value.may_have_applied) == ("timeout", True)
    assert took < 1.9


def test_waiting_for_a_connection_counts() -> None:
    """A request that waits for a free connection has no more time than others."""
    with RawServer(silent) as server, ThreadPoolExecutor(2) as pool:
        database = connect(server, max_connections=1, timeout=0.5)
        begun = time.monotonic()
        kinds = sorted(str(one.kind) for one in pool.map(lambda _: failure(database), range(2)))
        took = time.monotonic() - begun
    assert took < 1.2
    assert kinds in (["connect", "timeout"], ["timeout", "timeout"])


def test_a_request_that_waits_when_its_client_is_closed_was_not_sent() -> None:
    """Who waits for a connection of a client that is closed meanwhile hears just that."""
    with RawServer(silent) as server, ThreadPoolExecutor(2) as pool:
        client = RestClient(TOKEN, base_url=server.base_url, timeout=0.5, max_connections=1)
        database = client.database("acme/db")
        asked = [pool.submit(failure, database) for _ in range(2)]
        time.sleep(0.2)
        client.close()
        errors = sorted((each.result() for each in asked), key=lambda error: str(error.kind))
    assert [error.kind for error in errors] == ["closed", "timeout"]
    assert not errors[0].may_have_applied


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6 loopback")
def test_a_service_on_ipv6_is_reached() -> None:
    """An address in brackets is asked as any other, below the path of its base URL."""
    with RawServer(answering(GOOD), host="::1") as server:
        base_url = server.base_url + "/below/"
        assert connect(server, base_url=base_url, timeout=5).query("SELECT 1")["data"] == [{"a": 1}]
    assert server.requests[0].startswith(
        b"POST /below/v1/db/acme/db/query HTTP/1.1\r\nHost: [::1]:"
    )


def test_a_whole_answer_in_time_is_taken() -> None:
    """A server that answers in parts, but in time, is heard."""

    def serve(connection: Any, _: bytes) -> None:
        for part in (HEAD, b"content-length: %d\r\n\r\n" % len(GOOD), GOOD[:20], GOOD[20:]):
            connection.sendall(part)
            time.sleep(0.05)

    with RawServer(serve) as server:
        assert connect(server, timeout=5).query("SELECT 1")["data"] == [{"a": 1}]


def test_dripping_servers_stop_neither_others_nor_the_end_of_the_process() -> None:
    """32 of them leave another database's requests as they were, and the process its end."""
    with RawServer(dripping(HEAD)) as slow, RawServer(answering(GOOD)) as fast:
        code = f"""
import threading, time
from strands_persql import RestClient, RestError
def ask(url):
    try: RestClient("t", base_url=url, timeout=1).database("a/b").query("SELECT 1")
    except RestError: pass
threads = [threading.Thread(target=ask, args=({slow.base_url!r},)) for _ in range(32)]
for each in threads: each.start()
begun = time.monotonic()
for _ in range(20): ask({fast.base_url!r})
print(time.monotonic() - begun < 1)
"""
        begun = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
        )
    assert done.stdout == "True\n"
    assert time.monotonic() - begun < 20


# -- one bound for an answer's size ----------------------------------------------------------------


def bomb(size: int) -> bytes:
    """Compress so many bytes of nothing, twice as small as the last million."""
    compress = zlib.compressobj(9, wbits=31)
    parts = [compress.compress(b" " * MB) for _ in range(size // MB)]
    return b"".join([*parts, compress.flush()])


def peak_of(code: str) -> float:
    """Run code in a process of its own, and give by how many MB it grew at the most."""
    program = f"""
import resource
from strands_persql import RestClient, RestError
from strands_persql.databases import connections
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
{code}
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    return float(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems count memory in other units")
@pytest.mark.parametrize("status", [200, 500])
def test_a_swollen_answer_costs_no_memory(status: int) -> None:
    """Half a megabyte that becomes 500 costs less than 100, and is an error of its own kind."""
    body = bomb(500 * MB)
    assert len(body) < MB
    with RawServer(answering(body, "content-encoding: gzip", status=status)) as server:
        grown = peak_of(f"""
try: RestClient("t", base_url={server.base_url!r}).database("a/b").query("SELECT 1")
except RestError as error: assert error.kind == {"answer_too_large" if status == 200 else None!r}
else: raise AssertionError
""")
    assert grown < 100


@pytest.mark.parametrize(
    "serve",
    [
        answering(b" " * 3000),
        answering(gzip.compress(b" " * 3000), "content-encoding: gzip"),
        sending(HEAD + b"\r\n" + b" " * 3000),
        sending(HEAD + b"transfer-encoding: chunked\r\n\r\n3e8\r\n%s\r\n0\r\n\r\n" % (b" " * 1000)),
        sending(HEAD + b"content-length: 99999999999999999\r\n\r\n"),
    ],
)
def test_an_answer_of_too_many_bytes_is_refused(serve: Serve) -> None:
    """However its length is told or hidden, an answer beyond the bound is refused as such."""
    with RawServer(serve) as server:
        error = failure(connect(server, max_answer_bytes=500, timeout=5))
    assert (error.kind, error.may_have_applied) == ("answer_too_large", True)
    assert "raise max_answer_bytes" in str(error)


def test_an_answer_at_the_bound_is_taken() -> None:
    """An answer of exactly as many bytes as allowed is taken, compressed or not."""
    body = gzip.compress(GOOD)
    for serve in (answering(GOOD), answering(body, "content-encoding: gzip")):
        with RawServer(serve) as server:
            database = connect(server, max_answer_bytes=len(GOOD), timeout=5)
            assert database.query("SELECT 1")["data"] == [{"a": 1}]


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (gzip.compress(GOOD)[:-9], "gzip"),
        (b"not gzip", "gzip"),
        (gzip.compress(GOOD) + b"junk", "gzip"),
        (GOOD, "br"),
        (gzip.compress(GOOD), "gzip, gzip"),
        (zlib.compress(GOOD), "deflate"),
    ],
)
def test_a_broken_encoding_is_a_bad_answer(body: bytes, encoding: str) -> None:
    """What can't be decompressed, or wasn't asked for, is an error and never an accident."""
    with RawServer(answering(body, f"content-encoding: {encoding}")) as server:
        error = failure(connect(server, timeout=5))
    assert (error.kind, error.may_have_applied) == ("bad_answer", True)


def test_gzip_of_several_parts_is_read() -> None:
    """Members that follow each other are one answer, as gzip has it."""
    body = gzip.compress(GOOD[:30]) + gzip.compress(GOOD[30:])
    with RawServer(answering(body, "content-encoding: gzip")) as server:
        assert connect(server, timeout=5).query("SELECT 1")["data"] == [{"a": 1}]


def test_only_gzip_is_asked_for() -> None:
    """The request asks for the one encoding that is read in bounded pieces."""
    with RawServer(answering(GOOD)) as server:
        connect(server, timeout=5).query("SELECT 1")
    assert b"accept-encoding: gzip\r\n" in server.requests[0].lower()


@pytest.mark.parametrize(
    "body",
    [
        json.dumps(
            {"success": False, "error": "x" * 800_000, "errorDetail": {"near": "y" * 99_999}}
        ),
        json.dumps({"success": False, "errorDetail": {str(n): n for n in range(50_000)}}),
        json.dumps({"success": True, "data": {"columns": ["a"], "rows": "x" * 800_000}}),
        "x" * 800_000,
    ],
)
def test_errors_keep_no_large_bodies(body: str) -> None:
    """An error that is kept keeps neither the answer nor the request, nor does its traceback."""
    with RawServer(answering(body.encode(), status=400)) as server:
        database = connect(server, timeout=5)
        with pytest.raises(RestError) as caught:
            database.batch([{"sql": "SELECT ?", "params": ["z" * 500_000]} for _ in range(3)])
    error = caught.value
    assert len(str(error)) < 1_000
    assert len(repr(error.detail)) < 30_000
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    ours = [frame for frame in frames if "strands_persql" in frame.f_code.co_filename]
    assert ours
    held = [value for frame in ours for value in frame.f_locals.values()]
    assert not [value for value in held if isinstance(value, (bytes, bytearray, str, dict))]


# -- garbage ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "whole",
    [
        b"",
        b"\r\n",
        b"garbage\r\n\r\n",
        b"HTTP/9.9 abc\r\n\r\n",
        b"HTTP/1.1 99999 x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 500 + b"\r\n",
        b"HTTP/1.1 200 OK\r\na: " + b"b" * 100_000 + b"\r\n\r\n",
        HEAD + b"content-length: -1\r\n\r\n" + GOOD,
        HEAD + b"content-length: nan\r\n\r\n",
        HEAD + b"content-length: 999\r\n\r\n" + GOOD,
        HEAD + b"transfer-encoding: chunked\r\n\r\nxyz\r\n",
        HEAD + b"transfer-encoding: chunked\r\n\r\nffffffffff\r\nabc",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
def test_what_is_no_http_is_an_error_of_ours(whole: bytes) -> None:
    """Whatever bytes come back, the call ends with `RestError`, soon."""
    with RawServer(sending(whole)) as server:
        error = failure(connect(server, timeout=5)) if whole[:12] != HEAD[:12] else None
        if error is None:
            try:
                assert connect(server, timeout=5).query("SELECT 1")["data"] == [{"a": 1}]
            except RestError as caught:
                error = caught
    assert error is None or error.may_have_applied


def test_a_connection_goes_on_after_a_refusal() -> None:
    """After an error with a whole body its connection serves the next request."""
    answers = [b'{"success":false,"error":"no"}', GOOD]

    def serve(connection: Any, _: bytes) -> None:
        for status, body in zip((400, 200), answers, strict=True):
            answering(body, status=status, last=False)(connection, b"")
            connection.recv(65536)

    with RawServer(serve) as server:
        database = connect(server, timeout=5)
        assert failure(database).status == 400
        assert database.query("SELECT 1")["data"] == [{"a": 1}]
        assert len(server.requests) == 1


def test_connections_are_given_back_after_every_end() -> None:
    """A pool of one connection goes on after bombs, garbage, refusals and lost answers."""
    ends: list[Serve] = [
        answering(b" " * 3000),
        answering(b"x", "content-encoding: gzip"),
        sending(b"garbage\r\n\r\n"),
        answering(b"no", status=500),
        answering(b" " * 2_000_000, status=500),
        dripping(HEAD),
    ]
    turns = iter([*ends, answering(GOOD)])

    def serve(connection: Any, request: bytes) -> None:
        next(turns)(connection, request)

    with RawServer(serve) as server:
        database = connect(server, max_connections=1, max_answer_bytes=1000, timeout=1)
        assert [failure(database).kind for _ in ends] == [
            "answer_too_large",
            "bad_answer",
            "connection_lost",
            None,
            None,
            "timeout",
        ]
        assert database.query("SELECT 1")["data"] == [{"a": 1}]


def test_cookies_are_not_kept() -> None:
    """What a service sets as a cookie is never sent back, by this client or another's pool."""
    with RawServer(answering(GOOD, "set-cookie: id=s3cret")) as server:
        database = connect(server, timeout=5)
        for _ in range(2):
            database.query("SELECT 1")
    assert len(server.requests) == 2
    assert not [request for request in server.requests if b"cookie" in request.lower()]


# -- certificates and proxies ----------------------------------------------------------------------


def test_a_certificate_that_is_not_trusted_is_final(tls: ssl.SSLContext) -> None:
    """A server that can't show who it is gets no request, and trying again is no use."""
    with RawServer(answering(GOOD), tls) as server:
        error = failure(connect(server, timeout=5))
    assert (error.kind, error.status, error.may_have_applied) == ("certificate", None, False)
    assert "isn't trusted" in str(error)
    assert server.requests == []


@pytest.mark.parametrize(
    "wanted", [{"assert_hostname": "other.example"}, {"assert_fingerprint": "00" * 32}]
)
def test_a_certificate_of_somebody_else_is_final(
    tls: ssl.SSLContext, certificate: Path, wanted: dict[str, Any]
) -> None:
    """A trusted certificate of another host, or another than the one wanted, is none."""
    with (
        RawServer(answering(GOOD), tls) as server,
        urllib3.PoolManager(ca_certs=str(certificate), **wanted) as http,
    ):
        error = failure(connect(server, http=http, timeout=5))
    assert (error.kind, error.may_have_applied) == ("certificate", False)


def test_certificates_of_the_environment_are_trusted(
    tls: ssl.SSLContext, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SSL_CERT_FILE names the certificates to trust, as for other programs."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with RawServer(answering(GOOD), tls) as server:
        assert connect(server, timeout=5).query("SELECT 1")["data"] == [{"a": 1}]


def test_certificates_of_the_users_own_are_trusted(tls: ssl.SSLContext, certificate: Path) -> None:
    """A pool of the user's with its own certificates is used as it is."""
    with (
        RawServer(answering(GOOD), tls) as server,
        urllib3.PoolManager(ca_certs=str(certificate)) as http,
    ):
        assert connect(server, http=http, timeout=5).query("SELECT 1")["data"] == [{"a": 1}]


@pytest.fixture
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment without proxies."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    return monkeypatch


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "all_proxy"])
def test_a_proxy_of_the_environment_opens_a_tunnel(
    no_proxies: pytest.MonkeyPatch, variable: str
) -> None:
    """Another machine is asked through the proxy, which is told the host and never the token."""
    with RawServer(answering(b"", status=407)) as proxy:
        address = proxy.base_url.replace("http://", "http://user:pa55word@")
        no_proxies.setenv(variable, address)
        with RestClient(TOKEN, base_url="https://persql.example", timeout=5) as client:
            error = failure(client.database("acme/db"))
    (request,) = proxy.requests
    assert request.startswith(b"CONNECT persql.example:443 ")
    assert b"proxy-authorization: basic" in request.lower()
    assert TOKEN.encode() not in request
    assert (error.kind, error.may_have_applied) == ("connect", False)
    assert "pa55word" not in str(error)


def test_a_host_without_a_proxy_is_asked_itself(no_proxies: pytest.MonkeyPatch) -> None:
    """NO_PROXY names hosts that are asked straight."""
    with RawServer(answering(b"", status=407)) as proxy:
        no_proxies.setenv("HTTPS_PROXY", proxy.base_url)
        no_proxies.setenv("NO_PROXY", "persql.invalid")
        with RestClient(TOKEN, base_url="https://persql.invalid", timeout=5) as client:
            error = failure(client.database("acme/db"))
    assert error.kind == "connect"
    assert proxy.requests == []


def test_a_proxy_of_a_kind_that_is_not_known_is_named(no_proxies: pytest.MonkeyPatch) -> None:
    """A proxy that can't be used is an error that says what is missing, and nothing is sent."""
    no_proxies.setenv("HTTPS_PROXY", "gopher://127.0.0.1:1")
    with RestClient(TOKEN, base_url="https://persql.invalid") as client:
        error = failure(client.database("acme/db"))
    assert error.kind == "connect"
    assert "'gopher'" in str(error)


# -- the token -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"base_url": "http://api.persql.com"},
        {"base_url": None},
        {"timeout": 0},
        {"max_connections": 0},
        {"http": object()},
    ],
)
def test_no_frame_of_a_failed_construction_holds_the_token(options: dict[str, Any]) -> None:
    """What reports a failed constructor's variables shows no token, and can show the client."""
    with pytest.raises((TypeError, ValueError)) as caught:
        RestClient(TOKEN, **options)
    told = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    ours = [frame for frame in told.stack if "strands_persql" in frame.filename]
    assert ours
    shown = "".join(f"{frame.locals}" for frame in ours)
    assert TOKEN not in shown
    assert "<RestClient not made>" in shown


@pytest.mark.parametrize(
    "options", [{"base_url": "http://api.persql.com"}, {"database": "a database"}, {"commit": "no"}]
)
def test_no_frame_of_a_manager_that_could_not_be_made_holds_the_token(
    options: dict[str, Any],
) -> None:
    """What reports the variables where ``from_token`` failed shows no token, and fails nowhere."""
    arguments = {"session_id": "s", "token": TOKEN, "database": "acme/db", **options}
    with pytest.raises(ValueError, match=r"base_url|database|commit") as caught:
        PerSQLSessionManager.from_token(**arguments)
    told = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    ours = [frame for frame in told.stack if "strands_persql" in frame.filename]
    assert ours
    assert TOKEN not in "".join(f"{frame.locals}" for frame in ours)


def test_no_frame_of_a_bad_token_holds_it() -> None:
    """A token that can't be one is in no variable of the frames that refuse it."""
    with pytest.raises(ValueError, match="the token must be") as caught:
        RestClient("psql s3cret")
    told = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    ours = [frame for frame in told.stack if "strands_persql" in frame.filename]
    assert ours
    assert "s3cret" not in "".join(f"{frame.locals}" for frame in ours)


def test_a_token_given_as_a_name_is_not_shown() -> None:
    """Who mixes up the token and the name reads an error without the token."""
    with (
        RestClient(TOKEN) as client,
        pytest.raises(ValueError, match="is not a database") as caught,
    ):
        client.database(TOKEN)
    assert TOKEN not in str(caught.value)


def test_service_texts_forge_no_lines() -> None:
    """What a service says is on one line in an error, its control characters escaped."""
    body = {"success": False, "error": "no\r\nERROR \x1b[31mforged\u202e \u2028 \x00"}
    with RawServer(answering(json.dumps(body).encode(), status=400)) as server:
        error = failure(connect(server, timeout=5))
    assert str(error).isprintable()
    assert "\\x1b[31mforged" in str(error)


def test_importing_the_package_loads_no_client() -> None:
    """Until a client is made, nothing of it is imported."""
    code = """
import sys
class Guard:
    def find_spec(self, name, path=None, target=None):
        if name == "strands_persql.databases.connections":
            raise AssertionError(name)
sys.meta_path.insert(0, Guard())
import strands_persql
strands_persql.RestClient
strands_persql.LocalDatabase().close()
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
