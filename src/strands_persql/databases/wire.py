"""PerSQL's JSON: statements as they go out, and what an answer says, results or a refusal."""

import json
from collections.abc import Sequence
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from itertools import islice
from math import isfinite
from types import NoneType
from typing import Any, NamedTuple

from strands_persql.databases.failures import MAX_WAIT_S
from strands_persql.databases.protocol import Statement, Value
from strands_persql.databases.rest_error import OWN_KINDS, RestError
from strands_persql.databases.results import are_names, count_in, named_rows
from strands_persql.databases.secret import Token
from strands_persql.errors import BadAnswerError
from strands_persql.runtime.text import one_line

MAX_STATEMENTS = 100
"""The most statements that the service takes in one batch."""

MAX_PARAMETERS = 100
"""The most parameters that the engine takes in one statement."""

# JSON numbers pass through the service's JavaScript, which holds integers exactly up to here.
_MAX_INTEGER = 2**53
_MAX_DETAILS = 20
_MAX_DETAIL = 1_000
_PLAIN_TYPES = {str, NoneType}
_REFUSED_UNREAD = frozenset({401, 402, 403, 404, 405, 408, 413, 429})


# -- statements ------------------------------------------------------------------------------------


def encode_query(sql: str, params: Sequence[Value]) -> bytes:
    """Return the body of a request for one statement, its values checked."""
    return _encode(_statement(sql, params))


def encode_batch(statements: Sequence[Statement], transaction: bool) -> bytes:
    """Return the body of a request for up to 100 statements, their values checked."""
    if len(statements) > MAX_STATEMENTS:
        raise ValueError(f"{len(statements)} statements: a batch takes at most {MAX_STATEMENTS}")
    wire = [_statement(each["sql"], each.get("params", ())) for each in statements]
    return _encode({"statements": wire, "transaction": bool(transaction)})


def _statement(sql: str, params: Sequence[Any]) -> dict[str, Any]:
    if not isinstance(sql, str):
        raise TypeError(f"a statement is of type {type(sql).__name__}: it must be a string")
    if len(params) > MAX_PARAMETERS:
        raise ValueError(
            f"a statement takes at most {MAX_PARAMETERS} parameters, not {len(params)}:"
            " make several statements of it"
        )
    types = set(map(type, params))
    if not types <= _PLAIN_TYPES:
        for value in params:
            _check_value(value)
        if bool in types:
            # The engine would take JSON's true for the text 'true', where sqlite3 takes it for 1.
            params = [int(value) if isinstance(value, bool) else value for value in params]
    return {"sql": sql, "params": params if isinstance(params, list) else list(params)}


def _check_value(value: Any) -> None:
    if not isinstance(value, (str, int, float, NoneType)):
        name = type(value).__name__
        raise TypeError(f"a parameter is of type {name}: use a string, number or None")
    if isinstance(value, float) and not isfinite(value):
        raise ValueError("a parameter is NaN or infinite, which JSON can't hold")
    if isinstance(value, int) and abs(value) > _MAX_INTEGER:
        raise ValueError("a parameter is an integer beyond 2**53, which would be rounded")


def _encode(body: dict[str, Any]) -> bytes:
    text = json.dumps(body, separators=(",", ":"), ensure_ascii=False)
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        found = f"{text[error.start]!a}"
    # Outside of the except block, for that error holds the whole text.
    raise ValueError(f"a statement or parameter has a lone surrogate ({found}): it isn't text")


# -- answers ---------------------------------------------------------------------------------------


class HttpAnswer(NamedTuple):
    """What came back over HTTP, whole.

    Attributes:
        status: The HTTP status.
        retry_after: The header of that name, or None.
        body: The body, decompressed.
    """

    status: int
    retry_after: str | None
    body: bytes | bytearray

    @property
    def succeeded(self) -> bool:
        """Whether the status is one of success."""
        return 200 <= self.status < 300  # noqa: PLR2004 - as HTTP defines it

    @property
    def refused(self) -> bool:
        """Whether the status says that the request itself was at fault."""
        return 400 <= self.status < 500  # noqa: PLR2004 - as HTTP defines it


class Reader:
    """Reads answers of one database.

    Args:
        where: The database and its host, for errors.
        token: What no error may show.
    """

    def __init__(self, where: str, token: Token) -> None:
        """Initialize for one database."""
        self._where = where
        self._token = token

    def query(self, answer: HttpAnswer) -> list[dict[str, Any]] | RestError:
        """Return the one result of a query in a list, or the error that the answer is."""
        body = _decoded(answer)
        if not _is_success(answer, body):
            return self._refusal(answer, body, atomic=True)
        return self._results(answer, [body.get("data")], body.get("meta"))

    def batch(
        self, answer: HttpAnswer, count: int, *, atomic: bool
    ) -> list[dict[str, Any]] | RestError:
        """Return the results of a batch, or the error that the answer is.

        Args:
            answer: What came back.
            count: How many statements were sent.
            atomic: Whether all of them are applied or none.
        """
        body = _decoded(answer)
        if not _is_success(answer, body):
            return self._refusal(answer, body, atomic=atomic)
        found, meta = body.get("data", body.get("results")), body.get("meta")
        if isinstance(found, dict):
            meta = found.get("meta", meta)
            found = found.get("results", found.get("data"))
        if not isinstance(found, list) or len(found) != count:
            return self._wrong_shape(answer, f"has no list of {count} results in it")
        return self._results(answer, found, meta)

    def _results(
        self, answer: HttpAnswer, found: list[Any], meta: Any
    ) -> list[dict[str, Any]] | RestError:
        try:
            results = [_result(each) for each in found]
        except BadAnswerError as error:
            return self._wrong_shape(answer, f"is wrong: {error}")
        if isinstance(meta, dict) and not results[0]["meta"]:
            results[0] = _with_meta(results[0], meta)
        return results

    def _wrong_shape(self, answer: HttpAnswer, what: str) -> RestError:
        return RestError(
            f"the answer of {self._where} {what}: is its base_url PerSQL's?",
            status=answer.status,
            kind="wrong_shape",
            may_have_applied=True,
        )

    def _refusal(self, answer: HttpAnswer, body: Any, *, atomic: bool) -> RestError:
        """Return the error for an answer that isn't a success."""
        if 300 <= answer.status < 400:  # noqa: PLR2004 - as HTTP defines it
            return RestError(
                f"{self._where} answered with a redirect ({answer.status}), which is not followed, "
                "for it would carry the token elsewhere: set base_url to the service's own address",
                status=answer.status,
                kind="redirect",
            )
        if not isinstance(body, dict) or (answer.succeeded and body.get("success") is not False):
            return self._foreign(answer)
        return self._told(answer, body, atomic=atomic)

    def _foreign(self, answer: HttpAnswer) -> RestError:
        """Return the error for an answer that PerSQL didn't write."""
        said = f"{self._where} answered with status {answer.status}"
        return RestError(
            said if answer.refused else f"{said} and a body that isn't PerSQL's JSON",
            status=answer.status,
            kind="bad_answer" if answer.succeeded else None,
            retry_after=seconds_of(answer.retry_after),
            may_have_applied=not answer.refused,
        )

    def _told(self, answer: HttpAnswer, body: dict[str, Any], *, atomic: bool) -> RestError:
        """Return the error for a refusal in the service's own words."""
        detail = self._detail(body)
        kind = _service_kind(detail)
        error = body.get("error")
        text = self._clean(error) if isinstance(error, str) else "no reason given"
        if isinstance(body.get("approvalUrl"), str):
            kind = "approval_required"
            text += "; an approval rule holds it back until it is approved"
        return RestError(
            f"{self._where} answered with status {answer.status}: {text}",
            status=answer.status,
            kind=kind,
            retry_after=seconds_of(answer.retry_after),
            may_have_applied=_may_have_applied(answer, kind, atomic=atomic),
            detail=detail,
        )

    def _clean(self, text: str) -> str:
        return one_line(self._token.removed_from(text))

    def _detail(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return the service's detail of a failure: small, and without the token."""
        told = body.get("errorDetail")
        detail = dict(islice(told.items(), _MAX_DETAILS)) if isinstance(told, dict) else {}
        detail |= {name: body[name] for name in ("approvalUrl", "hits") if name in body}
        cleaned: dict[str, Any] = {}
        for name, value in detail.items():
            text = _small_json({name: value})
            if text is not None:
                cleaned |= json.loads(self._token.removed_from(text))
        return cleaned


def _decoded(answer: HttpAnswer) -> Any:
    try:
        return json.loads(str(answer.body, "utf-8"))
    except (ValueError, RecursionError):
        return None


def _is_success(answer: HttpAnswer, body: Any) -> bool:
    return answer.succeeded and isinstance(body, dict) and body.get("success") is True


def _result(answer: Any) -> dict[str, Any]:
    """Return one statement's result in the documented shape of the SDK.

    Raises:
        BadAnswerError: If it isn't one.
    """
    if not isinstance(answer, dict):
        raise BadAnswerError("it has a result that isn't an object")
    rows = answer.get("rows")
    if rows is None:
        rows = answer.get("data")
    if rows is None:
        raise BadAnswerError("it has a result without rows")
    columns = answer.get("columns")
    data = named_rows(columns, rows)
    if not are_names(columns):
        columns = list(data[0]) if data else []
    own = answer.get("meta")
    meta = own if isinstance(own, dict) else {}
    return _with_meta({**answer, "data": data, "columns": columns}, meta)


def _with_meta(result: dict[str, Any], meta: dict[str, Any]) -> dict[str, Any]:
    """Return a result with its counts, which may be next to it or in its meta."""
    return {
        "data": result["data"],
        "columns": result["columns"],
        "rows_read": count_in(result, meta, "rowsRead", "rows_read"),
        "rows_written": count_in(result, meta, "rowsWritten", "rows_written"),
        "meta": meta,
    }


def _service_kind(detail: dict[str, Any]) -> str | None:
    kind = detail.get("kind")
    if not isinstance(kind, str) or kind in OWN_KINDS or not kind.isidentifier():
        return None
    return kind


def _may_have_applied(answer: HttpAnswer, kind: str | None, *, atomic: bool) -> bool:
    """Return whether a refusal in the service's words leaves open that something was written."""
    if answer.status in _REFUSED_UNREAD:
        return False  # refused before any statement ran
    if answer.refused or kind not in (None, "unknown"):
        return not atomic  # a statement failed, and without a transaction earlier ones stand
    return answer.status >= 500 or not atomic  # noqa: PLR2004 - as HTTP defines it


def _small_json(value: Any) -> str | None:
    """Return a value as JSON, or None where that is long or can't be."""
    try:
        text = json.dumps(value)
    except (RecursionError, ValueError):
        return None
    return text if len(text) <= _MAX_DETAIL else None


def seconds_of(header: str | None) -> float | None:
    """Return a Retry-After in seconds, up to a day; it may be a number or a date, or nonsense."""
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        seconds = _seconds_until(header)
    return min(max(0.0, seconds), MAX_WAIT_S) if isfinite(seconds) else None


def _seconds_until(date: str) -> float:
    try:
        then = parsedate_to_datetime(date)
        if then.tzinfo is None:
            then = then.replace(tzinfo=timezone.utc)
        return (then - datetime.now(timezone.utc)).total_seconds()
    except (ArithmeticError, LookupError, TypeError, ValueError):
        return float("nan")
