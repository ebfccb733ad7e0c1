"""What the errors of each handle mean: the one place that sorts them."""

import re
import sqlite3
import ssl
from dataclasses import dataclass
from enum import Enum
from typing import Any

from strands_persql.errors import (
    AccessDeniedError,
    DatabaseError,
    DatabaseOpenError,
    OutcomeUnknownError,
    UnavailableError,
)

MAX_WAIT_S = 86_400.0
"""The longest wait that a service may ask for, in seconds."""

REFUSALS = ("this session has expired", "this session is of another owner")
"""What our own statements say where they refuse a request, as a JSON path that isn't one."""

_SERVER_ERROR = 500


class Cause(Enum):
    """Why a request failed, as far as it matters for what to do."""

    TRANSIENT = "transient"
    ACCESS = "access"
    SCHEMA = "schema"
    STATEMENT = "statement"
    ADDRESS = "address"
    REFUSED = "refused"


@dataclass(frozen=True)
class Failure:
    """A failed request, sorted.

    Attributes:
        cause: What kind of failure it is.
        may_have_applied: Whether a write may have been applied all the same.
        retry_after: Seconds that the service asks to wait, or None.
        status: The HTTP status, or None.
        kind: The service's word for it, or None.
    """

    cause: Cause
    may_have_applied: bool = False
    retry_after: float | None = None
    status: int | None = None
    kind: str | None = None


# -- the tables ------------------------------------------------------------------------------------

_BY_STATUS = {
    400: Cause.STATEMENT,
    401: Cause.ACCESS,
    402: Cause.ACCESS,
    403: Cause.ACCESS,
    404: Cause.ADDRESS,
    408: Cause.TRANSIENT,
    429: Cause.TRANSIENT,
}
_REFUSED_UNREAD = frozenset({401, 402, 403, 408, 429})
# What the service names (`errorDetail.kind`): a statement was run, and failed.
_BY_SERVICE_KIND = {
    "database_locked": Cause.TRANSIENT,
    "unknown_table": Cause.SCHEMA,
    "unknown_column": Cause.SCHEMA,
    "readonly": Cause.ACCESS,
    "unique_violation": Cause.STATEMENT,
    "not_null_violation": Cause.STATEMENT,
    "fk_violation": Cause.STATEMENT,
    "check_violation": Cause.STATEMENT,
    "syntax_error": Cause.STATEMENT,
    "type_mismatch": Cause.STATEMENT,
    "too_many_params": Cause.STATEMENT,
}
# What our own handles name, where the request or its answer was lost or of no use.
_BY_OWN_KIND = {
    "connect": Cause.TRANSIENT,
    "timeout": Cause.TRANSIENT,
    "connection_lost": Cause.TRANSIENT,
    "bad_answer": Cause.TRANSIENT,
    "wrong_shape": Cause.STATEMENT,
    "answer_too_large": Cause.STATEMENT,
    "approval_required": Cause.ACCESS,
    "token": Cause.ACCESS,
    "certificate": Cause.ADDRESS,
    "closed": Cause.ADDRESS,
    "redirect": Cause.ADDRESS,
}
_ANSWERS = frozenset(
    {"timeout", "connection_lost", "bad_answer", "wrong_shape", "answer_too_large"}
)
# What SQLite says of a statement, for handles that pass on no more than its text.
_BY_SQL_TEXT = (
    (re.compile(r"no such table|no such column|has no column named"), Cause.SCHEMA),
    (re.compile(r"readonly database|not authorized"), Cause.ACCESS),
    (re.compile(rf"JSON path.*'({'|'.join(REFUSALS)})"), Cause.REFUSED),
    (re.compile(r"constraint failed|syntax error|too many SQL variables"), Cause.STATEMENT),
)
# What it, and others, say of the database itself.
_BY_TEXT = (
    (re.compile(r"(?i)database (table |schema )?is locked|SQLITE_BUSY"), Cause.TRANSIENT),
    (re.compile(r"(?i)closed database|is closed|unable to open database"), Cause.ADDRESS),
    (re.compile(r"image is malformed|malformed database schema|not a database"), Cause.ADDRESS),
    (re.compile(r"(?i)certificate.verify.failed"), Cause.ADDRESS),
    (re.compile(r"disk is full|was stopped after|^interrupted$"), Cause.STATEMENT),
)
_NEVER_SENT = re.compile(
    r"\b(ConnectError|ConnectTimeout(Error)?|PoolTimeout|ConnectionRefusedError|gaierror"
    r"|NewConnectionError|NameResolutionError|EmptyPoolError)\b"
)
_LOST = re.compile(
    r"timeout|timedout|connection|protocolerror|network|readerror|writeerror", re.IGNORECASE
)
_BY_CLASS: tuple[tuple[type[BaseException], Cause], ...] = (
    (DatabaseOpenError, Cause.ADDRESS),
    (AccessDeniedError, Cause.ACCESS),
    (UnavailableError, Cause.TRANSIENT),
    (OutcomeUnknownError, Cause.TRANSIENT),
    (DatabaseError, Cause.STATEMENT),
    (ssl.SSLCertVerificationError, Cause.ADDRESS),
)


# -- sorting ---------------------------------------------------------------------------------------


def classify(error: BaseException) -> Failure:
    """Sort a database's exception, whichever handle raised it.

    Our own handles say what they know (``status``, ``kind``, ``retry_after``,
    ``may_have_applied``). Those of the SDK are asked for the same names and, where they have
    none, known by their class's name and SQLite's text.

    1. What the service names (``errorDetail.kind``) decides first, for statuses of SQL errors
       aren't documented.
    2. Then a status of 5xx, transient, and it may have been applied; and one that refuses a
       request unread. Their text isn't looked at, but for SQLite's own sentences beside a 500,
       which may be the status of a SQL error.
    3. Then what our own handles name, SQLite's text, and the other statuses.
    4. Then lost connections and timeouts: transient, and applied or not unless never sent.
    5. All else is final.
    """
    told = _Told(error)
    cause, may_have_applied = _sorted(told)
    said = getattr(error, "may_have_applied", None)
    return Failure(
        cause,
        may_have_applied=said if isinstance(said, bool) else may_have_applied,
        retry_after=told.retry_after,
        status=told.status,
        kind=told.kind,
    )


class _Told:
    """What an error says of itself, where it says it in a way that can be read."""

    def __init__(self, error: BaseException) -> None:
        detail = getattr(error, "detail", None) or getattr(error, "error_detail", None)
        kind = getattr(error, "kind", None)
        if not kind and isinstance(detail, dict):
            kind = detail.get("kind")
        status = _number(error, "status", "status_code")
        retry_after = _number(error, "retry_after")
        self.error = error
        self.kind = kind if isinstance(kind, str) else None
        self.status = None if status is None else int(status)
        self.retry_after = None if retry_after is None else min(retry_after, MAX_WAIT_S)
        self.names = " ".join(each.__name__ for each in type(error).__mro__)
        self.text = str(error)
        if self.status is None and "RateLimit" in self.names:
            self.status = 429


def _sorted(told: _Told) -> tuple[Cause, bool]:
    """Return the cause, and whether a write may have been applied."""
    for sort in (_by_service_kind, _by_clear_status, _by_own_kind, _by_text, _by_status, _by_class):
        found = sort(told)
        if found is not None:
            return found
    return Cause.STATEMENT, False


def _by_service_kind(told: _Told) -> tuple[Cause, bool] | None:
    cause = _BY_SERVICE_KIND.get(told.kind or "")
    return None if cause is None else (cause, False)


def _by_clear_status(told: _Told) -> tuple[Cause, bool] | None:
    """Sort by a status that leaves no question, whatever the text beside it says."""
    if told.status is None:
        return None
    if told.status >= _SERVER_ERROR:
        cause = _matching(_BY_SQL_TEXT, told.text) if told.status == _SERVER_ERROR else None
        return (Cause.TRANSIENT, True) if cause is None else (cause, False)
    return (_BY_STATUS[told.status], False) if told.status in _REFUSED_UNREAD else None


def _by_own_kind(told: _Told) -> tuple[Cause, bool] | None:
    cause = _BY_OWN_KIND.get(told.kind or "")
    return None if cause is None else (cause, told.kind in _ANSWERS)


def _by_text(told: _Told) -> tuple[Cause, bool] | None:
    cause = _matching(_BY_SQL_TEXT, told.text) or _matching(_BY_TEXT, told.text)
    return None if cause is None else (cause, False)


def _by_status(told: _Told) -> tuple[Cause, bool] | None:
    cause = _BY_STATUS.get(told.status or 0)
    return None if cause is None else (cause, False)


def _by_class(told: _Told) -> tuple[Cause, bool] | None:
    error = told.error
    for cls, cause in _BY_CLASS:
        if isinstance(error, cls):
            return cause, isinstance(error, OutcomeUnknownError)
    if isinstance(error, sqlite3.OperationalError):
        return Cause.STATEMENT, True  # such as an I/O error in the middle of a commit
    if isinstance(error, OSError) or _LOST.search(told.names):
        return Cause.TRANSIENT, not _NEVER_SENT.search(told.names)
    return None


def _matching(table: tuple[tuple[re.Pattern[str], Cause], ...], text: str) -> Cause | None:
    return next((cause for pattern, cause in table if pattern.search(text)), None)


def _number(error: BaseException, *names: str) -> float | None:
    for name in names:
        value: Any = getattr(error, name, None)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return value if 0 <= value < float("inf") else None
    return None
