"""The hosted database: its HTTP client, over real HTTP to the engine and through every fault."""

import io
import json
import logging
import multiprocessing
import pickle
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from typing import Any

import pytest
import urllib3
from urllib3 import exceptions

from strands_persql.databases.rest import RestClient, RestDatabase, RestError
from tests.engine.engine import Engine
from tests.engine.proxy import FaultProxy

TOKEN = "psql_live_s0_n0t/a+real.one="  # noqa: S105
ROW = {"columns": ["a"], "rows": [[1]], "rowsRead": 1, "rowsWritten": 0}
Connect = Callable[..., RestDatabase]

needs_fork = pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="needs fork"
)
fork_warning = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@pytest.fixture
def rest(engine: Engine, fault_proxy: FaultProxy, database_name: str) -> Iterator[RestDatabase]:
    """A database of its own on the engine, through the proxy."""
    with RestClient(engine.token(), base_url=fault_proxy.base_url, timeout=2.0) as client:
        yield client.database(database_name)


@pytest.fixture
def table(rest: RestDatabase, fault_proxy: FaultProxy) -> RestDatabase:
    """The same, with a table `t` of one column, and the proxy's counts at 0 again."""
    rest.query("CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT NOT NULL DEFAULT '')")
    fault_proxy.reset()
    return rest


class Answering(urllib3.PoolManager):
    """Pools that give a fixed answer, or raise, and connect to nothing."""

    def __init__(self, answer: Any, status: int, headers: dict[str, str] | None) -> None:
        super().__init__()
        self.answer, self.status, self.sent = answer, status, headers

    def urlopen(self, *_: Any, **__: Any) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        whole = isinstance(self.answer, bytes)
        body = self.answer if whole else json.dumps(self.answer).encode()
        return urllib3.HTTPResponse(
            io.BytesIO(body), headers=self.sent, status=self.status, preload_content=False
        )


@pytest.fixture
def answering() -> Connect:
    """Make a database whose service gives a fixed answer, without an engine."""

    def connect(answer: Any, status: int = 200, headers: dict[str, str] | None = None) -> Any:
        return RestClient(TOKEN, http=Answering(answer, status, headers)).database("acme/db")

    return connect


NOT_TO_BE_ASKED = exceptions.ProtocolError("not to be asked")
POOL = urllib3.HTTPConnectionPool("api.persql.com")


def failure(call: Callable[..., Any], *args: Any, **kwargs: Any) -> RestError:
    """Return the error that a call raises."""
    with pytest.raises(RestError) as caught:
        call(*args, **kwargs)
    return caught.value


def values(database: RestDatabase) -> list[int]:
    """Return what is in the table `t`."""
    return [row["a"] for row in database.query("SELECT a FROM t ORDER BY a")["data"]]


# -- answers ---------------------------------------------------------------------------------------


def test_rows_are_dicts_with_counts_and_cost(rest: RestDatabase) -> None:
    """A query returns dict rows by column name, its columns, rows read and written, and meta."""
    result = rest.query("SELECT ? AS name, ? AS number, ? AS missing", ["é\x00", 1.5, None])
    assert result["data"] == [{"name": "é\x00", "number": 1.5, "missing": None}]
    assert result["columns"] == ["name", "number", "missing"]
    assert (result["rows_read"], result["rows_written"]) == (0, 0)
    assert result["meta"]["costUsd"] == pytest.approx(0.5e-6)


def test_batch_returns_one_result_a_statement(table: RestDatabase) -> None:
    """A batch returns its results in order, with the batch's meta at the first."""
    first, second = table.batch(
        [{"sql": "INSERT INTO t (a) VALUES (?)", "params": (1,)}, {"sql": "SELECT a FROM t"}],
        transaction=True,
    )
    assert first["rows_written"] == 1
    assert second["data"] == [{"a": 1}]
    assert first["meta"]["statementCount"] == 2
    assert second["meta"] == {}


@pytest.mark.guarantee(number=9)
def test_transaction_is_all_or_nothing(table: RestDatabase) -> None:
    """A transactional batch with a failing statement leaves nothing, and says so."""
    error = failure(
        table.batch,
        [{"sql": "INSERT INTO t (a) VALUES (1)"}, {"sql": "INSERT INTO t (a) VALUES (1)"}],
        transaction=True,
    )
    assert (error.kind, error.may_have_applied) == ("unique_violation", False)
    assert values(table) == []


def test_without_transaction_earlier_statements_stand(table: RestDatabase) -> None:
    """A failing batch without a transaction admits that part of it may have been applied."""
    error = failure(
        table.batch,
        [{"sql": "INSERT INTO t (a) VALUES (1)"}, {"sql": "INSERT INTO t (a) VALUES (1)"}],
    )
    assert error.may_have_applied
    assert values(table) == [1]


@pytest.mark.parametrize(
    "body",
    [
        {"data": [ROW], "meta": {"costUsd": 1}},
        {"data": [{**ROW, "meta": {"costUsd": 1}}]},
        {"data": {"results": [ROW], "meta": {"costUsd": 1}}},
        {"results": [ROW], "meta": {"costUsd": 1}},
        {"data": [{"data": [{"a": 1}], "rows_read": 1, "rows_written": 0}], "meta": {"costUsd": 1}},
        {"data": [{"columns": ["a"], "rows": [{"a": 1}], "meta": {"rowsRead": 1, "costUsd": 1}}]},
    ],
)
def test_batch_answers_of_every_plausible_shape_are_read(
    answering: Connect, body: dict[str, Any]
) -> None:
    """Wherever rows and meta stand in the answer, which isn't documented, the result is one."""
    (result,) = answering({"success": True, **body}).batch([{"sql": "SELECT 1 AS a"}])
    assert (result["data"], result["columns"], result["rows_read"]) == ([{"a": 1}], ["a"], 1)
    assert result["meta"]["costUsd"] == 1


@pytest.mark.parametrize(
    "body", [{"data": ROW, "meta": {"x": 1}}, {"data": {**ROW, "meta": {"x": 1}}}]
)
def test_query_meta_is_found_where_it_stands(answering: Connect, body: dict[str, Any]) -> None:
    """A query's meta is found beside the result and within it."""
    result = answering({"success": True, **body}).query("SELECT 1 AS a")
    assert (result["data"], result["meta"]) == ([{"a": 1}], {"x": 1})


def test_an_empty_batch_asks_nobody(answering: Connect) -> None:
    """A batch of no statements returns no results and sends nothing."""
    assert answering(NOT_TO_BE_ASKED).batch([]) == []


# -- what is refused before it is sent -------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 2**53 + 1])
def test_numbers_that_would_not_survive_are_refused(answering: Connect, value: float) -> None:
    """NaN, infinities and integers that JavaScript rounds are refused before anything is sent."""
    with pytest.raises(ValueError, match="a parameter is"):
        answering(NOT_TO_BE_ASKED).query("SELECT ?", [value])


@pytest.mark.parametrize("value", [b"x", [1], {"a": 1}, {1}, object()])
def test_values_that_json_would_change_are_refused(answering: Connect, value: Any) -> None:
    """Bytes and containers are refused by type, for they would not come back as they are."""
    with pytest.raises(TypeError, match=f"of type {type(value).__name__}"):
        answering(NOT_TO_BE_ASKED).query("SELECT ?", [value])


def test_truth_is_a_number(rest: RestDatabase) -> None:
    """True and False arrive as 1 and 0, as in sqlite3, and the largest exact integers unchanged."""
    params = [True, False, 2**53, -(2**53)]
    row = rest.query("SELECT ? AS a, ? AS b, ? AS c, ? AS d", params)["data"][0]
    assert list(row.values()) == [1, 0, 2**53, -(2**53)]


def test_more_than_100_statements_are_refused(answering: Connect) -> None:
    """A batch beyond the service's limit is refused before anything is sent."""
    with pytest.raises(ValueError, match="at most 100"):
        answering(NOT_TO_BE_ASKED).batch([{"sql": "SELECT 1"}] * 101)


def test_more_than_100_parameters_are_refused(answering: Connect) -> None:
    """A statement beyond the engine's limit is refused before anything is sent."""
    with pytest.raises(ValueError, match="at most 100 parameters, not 101"):
        answering(NOT_TO_BE_ASKED).query("SELECT 1", [1] * 101)


@pytest.mark.parametrize(("sql", "params"), [("SELECT '\ud800'", []), ("SELECT ?", ["\udfff"])])
def test_text_that_utf_8_cannot_hold_is_refused(
    answering: Connect, sql: str, params: list[Any]
) -> None:
    """A lone surrogate is refused in words, before anything is sent."""
    with pytest.raises(ValueError, match="has a lone surrogate") as caught:
        answering(NOT_TO_BE_ASKED).query(sql, params)
    assert caught.value.__context__ is None


@pytest.mark.parametrize("sql", [None, b"SELECT 1", 1])
def test_what_is_no_statement_is_refused(answering: Connect, sql: Any) -> None:
    """A statement that isn't a string is refused before anything is sent."""
    with pytest.raises(TypeError, match="must be a string"):
        answering(NOT_TO_BE_ASKED).query(sql)


@pytest.mark.parametrize(
    "options",
    [
        {"timeout": 0},
        {"timeout": -1},
        {"timeout": None},
        {"timeout": float("nan")},
        {"timeout": float("inf")},
        {"timeout": "10"},
        {"max_connections": 0},
        {"max_connections": 1.5},
        {"max_connections": True},
        {"max_answer_bytes": 0},
        {"max_answer_bytes": None},
    ],
)
def test_numbers_out_of_their_range_are_refused(options: dict[str, Any]) -> None:
    """Each number of a client is checked when it is made, and named by its option."""
    with pytest.raises(ValueError, match=f"^{next(iter(options))} must be"):
        RestClient(TOKEN, **options)


@pytest.mark.parametrize("key", ["", "k" * 201, "a b", "a\r\nX: y", "ü"])
def test_bad_idempotency_keys_are_refused(answering: Connect, key: str) -> None:
    """A key that is no header value, or too long, is refused before anything is sent."""
    with pytest.raises(ValueError, match="idempotency key"):
        answering(NOT_TO_BE_ASKED).query("SELECT 1", idempotency_key=key)


@pytest.mark.parametrize(
    "token", ["", "psql live", "psql_secret\n", "psql_secret\x00", "sécret", None]
)
def test_a_token_that_cannot_be_one_is_refused_without_being_shown(token: Any) -> None:
    """An unusable token is refused with words that don't contain it."""
    with pytest.raises(ValueError, match="the token must be") as caught:
        RestClient(token)
    assert not token or token.strip() not in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        None,
        b"acme/db",
        "acme",
        "acme/",
        "/db",
        "",
        "a b/c",
        "acme/d?x=1",
        "acme/d#",
        "../db",
        "acme/..",
        "acme/a/b",
        "acme/db.",
        "acme/db.-x",
        "acme/db.x/../y",
        "ac%2Fme/db",
        "acme/db\n",
        f"acme/db.{'x' * 65}",
    ],
)
def test_names_that_are_no_database_are_refused(name: Any) -> None:
    """Only 'namespace/database' and its branches pass, so that no name changes the path."""
    with RestClient(TOKEN) as client, pytest.raises(ValueError, match="is not a database"):
        client.database(name)


def test_branches_are_one_part_of_the_path(
    engine: Engine, fault_proxy: FaultProxy, database_name: str
) -> None:
    """A branch whose name has a slash is quoted, and is another database than its parent."""
    with RestClient(engine.token(), base_url=fault_proxy.base_url) as client:
        client.database(f"{database_name}.feature/x").query("CREATE TABLE t (a)")
        error = failure(client.database(database_name).query, "SELECT * FROM t")
    assert error.kind == "unknown_table"
    assert fault_proxy.requests[0].path == f"/v1/db/{database_name}.feature%2Fx/query"


@pytest.mark.parametrize(
    "url",
    [
        None,
        b"https://api.persql.com",
        "https://api.persql.com/../x",
        "https://api.persql.com:99999",
        "https://api.persql.com\\@evil.example",
        "https://api.persql.com\n",
        "http://localhost.evil.example",
        "http://api.persql.com",
        "http://127.0.0.1.evil.example",
        "http://10.0.0.1",
        "http://[::2]",
        "ftp://api.persql.com",
        "api.persql.com",
        "",
        "https://",
        "https://user:pw@api.persql.com",
        "https://api.persql.com?x=1",
        "https://api.persql.com#x",
    ],
)
def test_addresses_that_would_expose_the_token_are_refused(url: Any) -> None:
    """Plain http is for loopback only, and what isn't a plain address is refused."""
    with pytest.raises(ValueError, match="base_url must") as caught:
        RestClient(TOKEN, base_url=url)
    assert "pw" not in str(caught.value)


@pytest.mark.parametrize("host", ["127.0.0.1:8787", "localhost:1", "[::1]:8787", "127.9.9.9"])
def test_http_is_taken_for_loopback(host: str) -> None:
    """A service on this machine may be reached by http."""
    with RestClient(TOKEN, base_url=f"http://{host}/prefix/") as client:
        assert repr(client.database("a/b")) == f"<RestDatabase a/b at {host}>"


def test_a_proxy_of_the_environment_never_sees_a_loopback_request(
    monkeypatch: pytest.MonkeyPatch, engine: Engine, database_name: str
) -> None:
    """HTTP_PROXY doesn't apply to http on loopback, for the proxy would read the token."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    with RestClient(engine.token(), base_url=engine.base_url) as client:
        assert client.database(database_name).query("SELECT 1 AS a")["data"] == [{"a": 1}]


# -- failures --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sql", "kind"),
    [
        ("INSERT INTO t (a) VALUES (7)", "unique_violation"),
        ("INSERT INTO t (b) VALUES (NULL)", "not_null_violation"),
        ("INSERT INTO c (p) VALUES (99)", "fk_violation"),
        ("INSERT INTO c (n) VALUES (-1)", "check_violation"),
        ("SELECT * FROM missing", "unknown_table"),
        ("SELECT missing FROM t", "unknown_column"),
        ("INSERT INTO t (missing) VALUES (1)", "unknown_column"),
        ("SELEC 1", "syntax_error"),
        ("INSERT INTO t (a) VALUES ('x')", "type_mismatch"),
        ("PRAGMA user_version", "unknown"),
    ],
)
def test_sql_errors_have_the_services_kind(table: RestDatabase, sql: str, kind: str) -> None:
    """Each kind of SQL error of the engine is told apart, and surely changed nothing."""
    table.query("CREATE TABLE c (p INTEGER REFERENCES t (a), n INTEGER CHECK (n > 0))")
    table.query("INSERT INTO t (a) VALUES (7)")
    error = failure(table.query, sql, [1] * sql.count("?"))
    assert (error.kind, error.status, error.may_have_applied) == (kind, 400, False)


@pytest.mark.parametrize("kind", ["database_locked", "readonly", "unique_violation"])
@pytest.mark.parametrize("status", [200, 400, 409, 500])
def test_the_services_kind_counts_whatever_the_status(
    answering: Connect, kind: str, status: int
) -> None:
    """The status of a SQL error isn't documented, so its kind alone decides what it is."""
    body = {"success": False, "error": "no", "errorDetail": {"kind": kind, "message": "no"}}
    error = failure(answering(body, status).query, "SELECT 1")
    assert (error.kind, error.status, error.may_have_applied) == (kind, status, False)


@pytest.mark.parametrize(
    ("holder", "sql", "expected"),
    [
        (("other", "admin"), "SELECT 1", (403, None, False)),
        (("acme", "owner"), "SELECT 1", (401, None, False)),
        (("acme", "readwrite"), "CREATE TABLE x (a)", (403, "readonly", False)),
        (("acme", "readonly"), "INSERT INTO t DEFAULT VALUES", (403, "readonly", False)),
    ],
)
def test_tokens_without_the_right_are_told_so(
    engine: Engine, table: RestDatabase, holder: tuple[str, str], sql: str, expected: Any
) -> None:
    """A wrong token, namespace or role is an error with its status, and nothing was applied."""
    with RestClient(engine.token(*holder), base_url=engine.base_url) as client:
        error = failure(client.database(table.name).query, sql)
    assert (error.status, error.kind, error.may_have_applied) == expected


def test_approval_is_named_with_its_address(answering: Connect) -> None:
    """A statement that an approval rule holds back says so, with where to approve it."""
    body = {
        "success": False,
        "error": "Approval required",
        "approvalToken": "appr_x",
        "approvalUrl": "https://persql.com/a/1",
        "hits": [{"matchedTable": "t"}],
    }
    error = failure(answering(body, 403).query, "DELETE FROM t")
    assert (error.kind, error.detail["approvalUrl"]) == ("approval_required", body["approvalUrl"])
    assert "appr_x" not in str(error)


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("429:3", (429, None, False)),
        ("status:402", (402, None, False)),
        ("status:408", (408, None, False)),
        ("500_before", (500, None, True)),
        ("500_after", (500, None, True)),
        ("status:503", (503, None, True)),
        ("cut_answer", (None, "connection_lost", True)),
        ("close_before", (None, "connection_lost", True)),
        ("close_after", (None, "connection_lost", True)),
        ("reset_after", (None, "connection_lost", True)),
        ("not_json", (200, "bad_answer", True)),
        ("not_json_before", (200, "bad_answer", True)),
        ("redirect:https://evil.example/", (307, "redirect", False)),
        ("latency_after:1", (None, "timeout", True)),
    ],
)
def test_every_fault_of_the_wire_is_told_apart(
    engine: Engine, table: RestDatabase, fault_proxy: FaultProxy, fault: str, expected: Any
) -> None:
    """Each fault is one error that never denies a write that may stand, and the next call works."""
    fault_proxy.script = [fault]
    with RestClient(engine.token(), base_url=fault_proxy.base_url, timeout=0.5) as client:
        database = client.database(table.name)
        error = failure(database.query, "INSERT INTO t (a) VALUES (1)")
        assert (error.status, error.kind, error.may_have_applied) == expected
        assert values(database) == [] or error.may_have_applied


def test_a_refused_connection_was_never_sent() -> None:
    """Where nobody listens the error says that nothing was sent."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with RestClient(TOKEN, base_url=f"http://127.0.0.1:{port}") as client:
        error = failure(client.database("acme/db").query, "SELECT 1")
    assert (error.kind, error.status, error.may_have_applied) == ("connect", None, False)
    assert f"acme/db at 127.0.0.1:{port}" in str(error)


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"null",
        b"\xff\xfe",
        b"",
        b"[" * 100_000,
        b'{"success":1}',
        b'{"data":{"columns":[],"rows":[]}}',
    ],
)
def test_answers_that_are_not_the_services_are_bad_answers(answering: Connect, body: bytes) -> None:
    """What isn't PerSQL's JSON is an error of its own, whose write may have been applied."""
    error = failure(answering(body).query, "SELECT 1")
    assert (error.kind, error.status, error.may_have_applied) == ("bad_answer", 200, True)


@pytest.mark.parametrize(
    "body",
    [
        b'{"success":true}',
        b'{"success":true,"data":[]}',
        b'{"success":true,"data":{"columns":["a"],"rows":"abc"}}',
        b'{"success":true,"data":{"columns":["a"],"rows":{"a":1}}}',
        b'{"success":true,"data":{"columns":[{}],"rows":[[1]]}}',
        b'{"success":true,"data":{"columns":["a"],"rows":[{"a":1},[1]]}}',
        b'{"success":true,"data":{"columns":["a"]}}',
        b'{"success":true,"data":{"columns":["a","b"],"rows":[[1]]}}',
        b'{"success":true,"data":{"rows":[[1]]}}',
        b'{"success":true,"data":{"columns":["a"],"rows":[1]}}',
    ],
)
def test_answers_without_the_results_are_of_a_wrong_shape(answering: Connect, body: bytes) -> None:
    """PerSQL's JSON without the result in it says what is wrong; its write may stand."""
    error = failure(answering(body).query, "SELECT 1")
    assert (error.kind, error.status, error.may_have_applied) == ("wrong_shape", 200, True)
    assert "result" in str(error)


@pytest.mark.parametrize("data", [[], [ROW, ROW], [1], {"results": []}, None])
def test_a_batch_answer_of_another_length_is_wrong(answering: Connect, data: Any) -> None:
    """A batch's answer must have one result a statement, or nobody knows which is which."""
    error = failure(answering({"success": True, "data": data}).batch, [{"sql": "SELECT 1"}])
    assert (error.kind, error.may_have_applied) == ("wrong_shape", True)


@pytest.mark.parametrize(
    ("header", "low", "high"),
    [
        ("2", 2, 2),
        ("0.5", 0.5, 0.5),
        ("-1", 0, 0),
        ("1e300", 86_400, 86_400),
        # Made when the tests are collected, which may be long before this one runs.
        (format_datetime(datetime.now(timezone.utc) + timedelta(hours=9), usegmt=True), 1, 32_400),
        (format_datetime(datetime.now(timezone.utc) - timedelta(hours=1), usegmt=True), 0, 0),
    ],
)
def test_retry_after_is_seconds_or_a_date(
    answering: Connect, header: str, low: float, high: float
) -> None:
    """A Retry-After of either form becomes seconds from now."""
    error = failure(answering(b"slow down", 429, {"Retry-After": header}).query, "SELECT 1")
    assert error.retry_after is not None
    assert low <= error.retry_after <= high


@pytest.mark.parametrize(
    "header",
    ["soon", "nan", "inf", "", "Fri, 31 Dec 99999 23:59:59 GMT", "9" * 5000, "Mon, 99 Foo 1 :: ?"],
)
def test_an_unreadable_retry_after_is_none(answering: Connect, header: str) -> None:
    """A Retry-After that says nothing is as if there were none."""
    assert failure(answering({}, 429, {"Retry-After": header}).query, "").retry_after is None


def test_errors_survive_pickling(answering: Connect) -> None:
    """An error crosses a process boundary with everything it knows."""
    body = {"success": False, "error": "no", "errorDetail": {"kind": "fk_violation", "table": "t"}}
    error = failure(answering(body, 400, {"Retry-After": "1"}).query, "SELECT 1")
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert (str(copy), copy.__dict__) == (str(error), error.__dict__)


# -- the token -------------------------------------------------------------------------------------

ECHO = {
    "success": False,
    "error": f"token {TOKEN} is bad\r\nfor you",
    "errorDetail": {"kind": "unknown", "message": TOKEN, "near": [f"x{TOKEN}x"]},
}


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (ECHO, 401),
        (ECHO, 500),
        ({**ECHO, "approvalUrl": f"https://x/{TOKEN}"}, 403),
        ({"success": True, "data": TOKEN}, 200),
        (TOKEN.encode(), 502),
        (TOKEN.encode(), 200),
        (b"", 307),
        (exceptions.NewConnectionError(POOL, f"no way with {TOKEN}"), 0),  # type: ignore[arg-type]
        (exceptions.ProtocolError("lost", OSError(5, f"lost {TOKEN}")), 0),
        (exceptions.ReadTimeoutError(POOL, TOKEN, TOKEN), 0),
    ],
)
def test_no_failure_shows_the_token(
    answering: Connect, caplog: pytest.LogCaptureFixture, answer: Any, status: int
) -> None:
    """Even where the service echoes it, the token is in no error, cause, traceback, repr or log."""
    caplog.set_level(logging.DEBUG)
    database = answering(answer, status, {"Location": f"https://evil.example/{TOKEN}"})
    error = failure(database.query, "SELECT 1")
    shown = "".join(traceback.format_exception(error)) + repr(error) + repr(error.__dict__)
    assert TOKEN not in shown + repr(database) + caplog.text
    assert error.__cause__ is None
    assert error.__context__ is None
    assert b"psql_" not in pickle.dumps(error)


@pytest.mark.parametrize(
    "fault", [None, "429:1", "cut_answer", "close_after", "redirect:http://x/"]
)
def test_no_wire_log_shows_the_token(
    table: RestDatabase, fault_proxy: FaultProxy, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    """With every logger at its most talkative, a call through real HTTP doesn't log the token."""
    caplog.set_level(logging.DEBUG)
    fault_proxy.script = [fault]
    try:
        table.query("SELECT 1")
    except RestError as error:
        logging.getLogger(__name__).exception("it failed", exc_info=error)
    assert caplog.records
    assert "psql_test" not in caplog.text


def test_nothing_made_of_a_client_shows_or_pickles_the_token() -> None:
    """Neither the client nor its database shows its token, and neither can be pickled."""
    with RestClient(TOKEN) as client:
        database = client.database("acme/db")
        assert repr(client) == "<RestClient api.persql.com>"
        assert repr(database) == "<RestDatabase acme/db at api.persql.com>"
        for each in (client, database):
            assert TOKEN not in repr(each.__dict__)
            with pytest.raises(TypeError, match="can't be pickled"):
                pickle.dumps(each)


def test_a_redirect_never_carries_the_token_on(
    engine: Engine, table: RestDatabase, fault_proxy: FaultProxy
) -> None:
    """A redirect, even to the same service, is refused for good and followed by no request."""
    with FaultProxy(engine.base_url) as elsewhere:
        fault_proxy.script = [f"redirect:{elsewhere.base_url}/v1/db/{table.name}/query"]
        error = failure(table.query, "SELECT 1")
        assert (error.status, error.kind, error.may_have_applied) == (307, "redirect", False)
        assert (fault_proxy.count, elsewhere.connections) == (1, 0)


# -- connections -----------------------------------------------------------------------------------


def test_one_connection_serves_a_whole_conversation(
    rest: RestDatabase, fault_proxy: FaultProxy
) -> None:
    """Fifty requests, refused ones among them, take one TCP connection."""
    for number in range(50):
        if number % 10 == 9:
            failure(rest.query, "SELECT * FROM missing")
        else:
            rest.batch([{"sql": "SELECT 1"}, {"sql": "SELECT 2"}])
    assert (fault_proxy.count, fault_proxy.connections) == (50, 1)


def test_databases_of_one_client_share_its_connection(
    engine: Engine, fault_proxy: FaultProxy, database_name: str
) -> None:
    """Any number of databases of one client go over one connection."""
    with RestClient(engine.token(), base_url=fault_proxy.base_url) as client:
        for number in range(5):
            client.database(f"{database_name}-{number}").query("SELECT 1")
    assert fault_proxy.connections == 1


def test_a_connection_closed_while_idle_is_replaced_unseen(
    table: RestDatabase, fault_proxy: FaultProxy
) -> None:
    """A connection that the service closed between two calls costs a new one, and no error."""
    assert values(table) == []
    fault_proxy.drop_connections()
    time.sleep(0.05)
    assert values(table) == []
    assert fault_proxy.connections == 1


def test_a_restarted_engine_is_found_again(engine: Engine, table: RestDatabase) -> None:
    """After the engine was killed and started again the same database goes on with its data."""
    table.query("INSERT INTO t (a) VALUES (1)")
    engine.restart()
    assert values(table) == [1]


def test_many_threads_share_a_client(table: RestDatabase, fault_proxy: FaultProxy) -> None:
    """Threads at once get their own answers, over no more connections than there are threads."""
    fault_proxy.latency = 0.005
    with ThreadPoolExecutor(8) as pool:
        sums = pool.map(lambda n: table.query("SELECT ? + 1 AS a", [n])["data"][0]["a"], range(80))
        assert list(sums) == list(range(1, 81))
    assert fault_proxy.connections <= 8


def test_the_most_connections_are_kept_to(
    engine: Engine, table: RestDatabase, fault_proxy: FaultProxy
) -> None:
    """Requests beyond max_connections wait for one that comes free."""
    fault_proxy.latency = 0.05
    limited = RestClient(engine.token(), base_url=fault_proxy.base_url, max_connections=2)
    with limited as client, ThreadPoolExecutor(6) as pool:
        list(pool.map(client.database(table.name).query, ["SELECT 1"] * 6))
    assert fault_proxy.connections == 2


def test_a_request_that_found_no_free_connection_was_never_sent(answering: Connect) -> None:
    """Waiting in vain for a connection is an error that says nothing was sent, and what helps."""
    error = failure(answering(exceptions.EmptyPoolError(POOL, "empty")).query, "SELECT 1")
    assert (error.kind, error.may_have_applied) == ("connect", False)
    assert "max_connections" in str(error)


def _query_in_child(database: RestDatabase, results: Any) -> None:
    results.put(database.query("SELECT count(*) AS n FROM t")["data"])


@needs_fork
@fork_warning
def test_a_fork_uses_its_own_connection(table: RestDatabase, fault_proxy: FaultProxy) -> None:
    """Parent and child go on after a fork, each over its own socket."""
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    assert values(table) == []
    child = context.Process(target=_query_in_child, args=(table, results))
    child.start()
    assert results.get(timeout=10) == [{"n": 0}]
    child.join(10)
    assert values(table) == []
    assert (child.exitcode, fault_proxy.connections) == (0, 1)


def test_a_closed_client_says_so(engine: Engine, database_name: str) -> None:
    """After close every call is an error that nothing was sent; closing twice is fine."""
    with RestClient(engine.token(), base_url=engine.base_url) as client:
        database = client.database(database_name)
        database.query("SELECT 1")
    client.close()
    error = failure(database.query, "SELECT 1")
    assert (error.kind, error.may_have_applied) == ("closed", False)


def test_a_supplied_pool_stays_open(engine: Engine, database_name: str) -> None:
    """A urllib3 pool of the user's is used with our headers, and is the user's to close."""
    with urllib3.PoolManager(headers={"x-theirs": "1"}) as http:
        with RestClient(engine.token(), base_url=engine.base_url, http=http) as client:
            client.database(database_name).query("SELECT 1")
        assert http.headers == {"x-theirs": "1"}
        assert http.request("GET", f"{engine.base_url}/v1/db/{database_name}/tables").status == 401


@needs_fork
@fork_warning
def test_a_supplied_pool_is_not_used_in_a_fork(engine: Engine, database_name: str) -> None:
    """In a fork a client on a pool of the user's says so, instead of sharing its sockets."""
    with urllib3.PoolManager() as http:
        client = RestClient(engine.token(), base_url=engine.base_url, http=http)
        database = client.database(database_name)
        database.query("SELECT 1")
        context = multiprocessing.get_context("fork")
        results = context.Queue()
        child = context.Process(target=_fail_in_child, args=(database, results))
        child.start()
        kind, text = results.get(timeout=10)
        child.join(10)
    assert kind == "connect"
    assert "make a RestClient in each process" in text


def _fail_in_child(database: RestDatabase, results: Any) -> None:
    try:
        database.query("SELECT 1")
    except RestError as error:
        results.put((error.kind, str(error)))


def test_what_is_no_pool_is_refused() -> None:
    """A client of another kind for ``http`` is refused when the client is made."""
    with pytest.raises(TypeError, match=r"urllib3\.PoolManager"):
        RestClient(TOKEN, http=object())  # type: ignore[arg-type]


# -- idempotency -----------------------------------------------------------------------------------


def test_an_idempotency_key_goes_out_as_given(table: RestDatabase, fault_proxy: FaultProxy) -> None:
    """A key is sent with its request only, and the service answers its repetition from memory."""
    for _ in range(2):
        table.batch([{"sql": "INSERT INTO t (a) VALUES (1)"}], idempotency_key="k-1")
    table.query("SELECT 1", idempotency_key="k-2")
    table.query("SELECT 1")
    assert [r.idempotency_key for r in fault_proxy.requests] == ["k-1", "k-1", "k-2", None]
    assert values(table) == [1]


# -- the test engine and its proxy -----------------------------------------------------------------


def test_a_duplicated_request_runs_twice(table: RestDatabase, fault_proxy: FaultProxy) -> None:
    """The proxy's duplicate reaches the engine twice, and the client gets the chosen answer."""
    fault_proxy.script = ["duplicate", "duplicate_first"]
    sql = "INSERT INTO t (b) VALUES ('x') RETURNING a"
    assert table.query(sql)["data"] == [{"a": 2}]
    assert table.query(sql)["data"] == [{"a": 3}]
    assert values(table) == [1, 2, 3, 4]


def test_a_straggler_arrives_after_later_requests(
    table: RestDatabase, fault_proxy: FaultProxy
) -> None:
    """A delayed copy reaches the engine again just before the chosen later request."""
    fault_proxy.script = ["delay_duplicate:2"]
    table.query("INSERT INTO t (b) VALUES ('x')")
    assert values(table) == [1]
    assert values(table) == [1, 2]


def test_a_stripped_key_is_seen_by_the_proxy_only(
    table: RestDatabase, fault_proxy: FaultProxy
) -> None:
    """With the key stripped the engine runs a repetition again."""
    fault_proxy.strip_idempotency_key = True
    for _ in range(2):
        table.query("INSERT INTO t (b) VALUES ('x')", idempotency_key="k")
    assert values(table) == [1, 2]
    assert fault_proxy.requests[0].idempotency_key == "k"


def test_requests_are_recorded_with_their_bytes(
    table: RestDatabase, fault_proxy: FaultProxy
) -> None:
    """The proxy knows each request's path, statements and size, for tests that count."""
    table.query("SELECT ? AS a", ["x" * 1000])
    (request,) = fault_proxy.requests
    assert request.path == f"/v1/db/{table.name}/query"
    assert request.statements == [{"sql": "SELECT ? AS a", "params": ["x" * 1000]}]
    assert 1000 < fault_proxy.bytes_up < 1500
    assert 1000 < fault_proxy.bytes_down < 1500


def test_the_engine_serves_the_documented_rest(engine: Engine, table: RestDatabase) -> None:
    """Tables are listed with their rows, and a batch over 100 statements is refused."""
    table.query("INSERT INTO t (a) VALUES (1)")
    url = f"{engine.base_url}/v1/db/{table.name}"
    headers = {"Authorization": f"Bearer {engine.token()}"}
    tables = urllib3.request("GET", f"{url}/tables", headers=headers).json()
    assert tables == {"success": True, "data": [{"name": "t", "rowCount": 1}]}
    body = {"statements": [{"sql": "SELECT 1"}] * 101}
    refused = urllib3.request("POST", f"{url}/batch", headers=headers, json=body)
    assert refused.status == 400


def test_threads_that_close_and_ask_at_once_get_an_answer_or_an_error(
    engine: Engine, database_name: str
) -> None:
    """Closing a client under its users' feet ends their calls with our own error at worst."""
    client = RestClient(engine.token(), base_url=engine.base_url)
    database = client.database(database_name)
    others: list[BaseException] = []

    def ask() -> None:
        try:
            while True:
                database.query("SELECT 1")
        except RestError:
            return
        except BaseException as error:  # noqa: BLE001 - whatever else comes is the failure
            others.append(error)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.1)
    client.close()
    for thread in threads:
        thread.join(10)
    assert others == []
