"""What each handle's errors mean, by status, name, text and class."""

import sqlite3
import ssl
from typing import Any

import pytest
from urllib3 import exceptions

from strands_persql import (
    AccessDeniedError,
    DatabaseOpenError,
    LocalDatabase,
    OutcomeUnknownError,
    RestError,
    StatementError,
    UnavailableError,
)
from strands_persql.databases.failures import Cause, Failure, classify
from strands_persql.databases.results import rows_of
from strands_persql.errors import BadAnswerError


class SdkError(Exception):
    """What an SDK might raise."""

    def __init__(self, message: str = "x", **attributes: Any) -> None:
        super().__init__(message)
        self.__dict__.update(attributes)


@pytest.mark.parametrize("status", [500, 502, 503, 504, 520, 599])
@pytest.mark.parametrize(
    "text",
    ["the pool is closed", "database is locked", "not a database", "certificate verify failed", ""],
)
def test_a_server_error_is_transient_whatever_it_says(status: int, text: str) -> None:
    """A status of 5xx decides, and leaves open whether a write was applied."""
    failure = classify(SdkError(text, status=status))
    assert (failure.cause, failure.may_have_applied) == (Cause.TRANSIENT, True)
    rest = classify(RestError(text, status=status, may_have_applied=True))
    assert rest == Failure(Cause.TRANSIENT, may_have_applied=True, status=status)


@pytest.mark.parametrize("status", [401, 402, 403, 429, 408])
def test_a_refusal_is_one_whatever_it_says(status: int) -> None:
    """A status that refuses a request unread decides, and nothing was applied."""
    failure = classify(SdkError("no such table: it is closed", status=status))
    cause = Cause.TRANSIENT if status in (408, 429) else Cause.ACCESS
    assert (failure.cause, failure.may_have_applied) == (cause, False)


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("no such table: strands_agents", Cause.SCHEMA),
        ("UNIQUE constraint failed: t.a: SQLITE_CONSTRAINT", Cause.STATEMENT),
        ("attempt to write a readonly database", Cause.ACCESS),
        ("internal error", Cause.TRANSIENT),
    ],
)
def test_a_sql_error_may_come_as_500(text: str, cause: Cause) -> None:
    """The status of SQL errors isn't documented, so SQLite's own sentence counts beside a 500."""
    assert classify(SdkError(text, status=500)).cause is cause
    assert classify(SdkError(text, status=503)).cause is Cause.TRANSIENT


@pytest.mark.parametrize("status", [None, 200, 400, 409, 500, 503])
def test_what_the_service_names_counts_whatever_the_status(status: int | None) -> None:
    """A kind that the service gives says that a statement was run, and failed."""
    for kind, cause in (
        ("unknown_table", Cause.SCHEMA),
        ("database_locked", Cause.TRANSIENT),
        ("readonly", Cause.ACCESS),
        ("unique_violation", Cause.STATEMENT),
    ):
        failure = classify(SdkError(status=status, detail={"kind": kind}))
        assert (failure.cause, failure.may_have_applied) == (cause, False)


@pytest.mark.parametrize(
    ("kind", "cause", "applied"),
    [
        ("connect", Cause.TRANSIENT, False),
        ("timeout", Cause.TRANSIENT, True),
        ("connection_lost", Cause.TRANSIENT, True),
        ("bad_answer", Cause.TRANSIENT, True),
        ("wrong_shape", Cause.STATEMENT, True),
        ("answer_too_large", Cause.STATEMENT, True),
        ("certificate", Cause.ADDRESS, False),
        ("closed", Cause.ADDRESS, False),
        ("redirect", Cause.ADDRESS, False),
        ("approval_required", Cause.ACCESS, False),
    ],
)
def test_our_own_kinds_are_sorted(kind: str, cause: Cause, applied: bool) -> None:
    """Each kind that `RestError` gives by itself has its cause."""
    failure = classify(SdkError(kind=kind))
    assert (failure.cause, failure.may_have_applied) == (cause, applied)


@pytest.mark.parametrize(
    "error",
    [
        ssl.SSLCertVerificationError(1, "[SSL: CERTIFICATE_VERIFY_FAILED] self-signed"),
        SdkError("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: unable to get"),
        exceptions.SSLError("certificate verify failed"),
    ],
)
def test_a_bad_certificate_is_final(error: Exception) -> None:
    """Trying again makes no certificate better, whichever class the error is of."""
    assert classify(error) == Failure(Cause.ADDRESS)


@pytest.mark.parametrize(
    ("error", "cause", "applied"),
    [
        (DatabaseOpenError("x", kind="file_replaced"), Cause.ADDRESS, False),
        (AccessDeniedError("x"), Cause.ACCESS, False),
        (UnavailableError("x"), Cause.TRANSIENT, False),
        (OutcomeUnknownError("x"), Cause.TRANSIENT, True),
        (StatementError("x"), Cause.STATEMENT, False),
        (BadAnswerError("x"), Cause.STATEMENT, True),
        (sqlite3.DatabaseError("database disk image is malformed"), Cause.ADDRESS, False),
        (sqlite3.DatabaseError("file is not a database"), Cause.ADDRESS, False),
        (sqlite3.OperationalError("unable to open database file"), Cause.ADDRESS, False),
        (sqlite3.OperationalError("database or disk is full"), Cause.STATEMENT, False),
        (sqlite3.OperationalError("interrupted"), Cause.STATEMENT, False),
        (sqlite3.OperationalError("database schema is locked: main"), Cause.TRANSIENT, False),
        (sqlite3.ProgrammingError("Cannot operate on a closed database."), Cause.ADDRESS, False),
        (ConnectionResetError("the connection was interrupted"), Cause.TRANSIENT, True),
        (exceptions.ReadTimeoutError(None, "", "x"), Cause.TRANSIENT, True),  # type: ignore[arg-type]
        (exceptions.NewConnectionError(None, "x"), Cause.TRANSIENT, False),  # type: ignore[arg-type]
        (exceptions.ProtocolError("x"), Cause.TRANSIENT, True),
    ],
    ids=lambda one: repr(one)[:40],
)
def test_errors_of_each_handle_are_sorted(error: Exception, cause: Cause, applied: bool) -> None:
    """SQLite's, urllib3's and our own errors have their cause."""
    failure = classify(error)
    assert (failure.cause, failure.may_have_applied) == (cause, applied)


def test_errors_of_the_embedded_database_are_sorted() -> None:
    """What `LocalDatabase` really raises is sorted as it should be."""
    with LocalDatabase(statement_timeout=0.05) as database:
        endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT * FROM n"
        for sql, cause in (
            (f"SELECT sum(i) FROM ({endless})", Cause.STATEMENT),
            ("SELECT * FROM missing", Cause.SCHEMA),
            ("SELEC 1", Cause.STATEMENT),
        ):
            with pytest.raises(sqlite3.OperationalError) as caught:
                database.query(sql)
            failure = classify(caught.value)
            assert (failure.cause, failure.may_have_applied) == (cause, False)
    with pytest.raises(sqlite3.ProgrammingError) as closed:
        database.query("SELECT 1")
    assert classify(closed.value) == Failure(Cause.ADDRESS)


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), -1, "soon", [], True, 10**400])
def test_odd_attributes_of_an_error_say_nothing(odd: Any) -> None:
    """A status or wait that can't be one is as if it weren't there."""
    failure = classify(SdkError("x", status=odd, retry_after=odd, kind=[odd], detail={"kind": odd}))
    expected = 86_400.0 if odd == 10**400 else None
    assert (failure.retry_after, failure.kind) == (expected, None)


def test_a_wait_of_more_than_a_day_is_a_day() -> None:
    """No handle makes the library wait beyond what can be slept."""
    assert classify(SdkError(status=429, retry_after=1e300)).retry_after == 86_400.0


@pytest.mark.parametrize(
    "result", [5, "abc", b"abc", {"data": 5}, {"data": [1]}, {"rows": [[1]]}, {"data": {"rows": 3}}]
)
def test_a_result_of_a_wrong_shape_says_what_is_wrong(result: Any) -> None:
    """What isn't a result raises our error, which says so and admits that it was applied."""
    with pytest.raises(BadAnswerError, match=r"^a result has rows ") as caught:
        rows_of(result)
    assert (caught.value.kind, caught.value.may_have_applied) == ("wrong_shape", True)


@pytest.mark.parametrize("result", [{"data": []}, {"rows_written": 1}, {"data": None}, [], {}])
def test_a_result_without_rows_has_none(result: Any) -> None:
    """A statement that returned nothing has no rows, however its result says that."""
    assert rows_of(result) == []
