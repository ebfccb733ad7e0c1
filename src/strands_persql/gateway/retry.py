"""Which failures are tried again, how long and how often; the one place that sorts them."""

import random
import re
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

import tenacity

_T = TypeVar("_T")


@dataclass(frozen=True)
class RetryPolicy:
    """How often and how long a failed request, or a lost race, is tried again.

    The wait before the n-th new try is random between 0 and ``first_wait * 2**(n - 1)`` seconds,
    at most ``max_wait``, and never shorter than the service's ``Retry-After``.

    Attributes:
        budget: Seconds in all, from the first try on; a wait that would end later isn't begun.
            0 for never trying again.
        first_wait: Upper bound of the first wait, in seconds.
        max_wait: Upper bound of every wait, in seconds.
        conflict_attempts: How often a write that lost a race to another writer is merged and
            tried again before `ConflictError` is raised.
        sleep: What waits; replaced in tests.
    """

    budget: float = 30.0
    first_wait: float = 0.1
    max_wait: float = 5.0
    conflict_attempts: int = 1000
    sleep: Callable[[float], None] = time.sleep

    @classmethod
    def never(cls) -> "RetryPolicy":
        """Never try a failed request again; lost races are still merged."""
        return cls(budget=0.0)

    def call(self, attempt: Callable[[], _T], before_retry: Callable[[], None]) -> _T:
        """Call until it succeeds, fails for good, or the budget ends.

        Args:
            attempt: What to call.
            before_retry: Called before each further try.

        Returns:
            What ``attempt`` returned.

        Raises:
            Exception: What the last try raised.
        """
        began = time.monotonic()

        def wait(state: tenacity.RetryCallState) -> float:
            assert state.outcome is not None
            error = state.outcome.exception()
            assert error is not None
            backoff = tenacity.wait_random_exponential(self.first_wait, self.max_wait)
            return max(backoff(state), classify(error).retry_after or 0.0)

        def retrying() -> tenacity.Retrying:
            return tenacity.Retrying(
                sleep=self.sleep,
                stop=tenacity.stop_before_delay(self._left_since(began)),
                wait=wait,
                retry=tenacity.retry_if_exception(_is_transient),
                before_sleep=lambda _: before_retry(),
                reraise=True,
            )

        return _after_first(attempt, _is_transient, retrying)

    def _left_since(self, began: float) -> float:
        return max(0.0, self.budget - (time.monotonic() - began))

    def race(self, attempt: Callable[[], _T]) -> _T:
        """Call again at once, then ever more patiently, while races are lost.

        Args:
            attempt: What to call; it raises `LostRaceError` to be called again.

        Returns:
            What ``attempt`` returned.

        Raises:
            LostRaceError: If every attempt was lost, or the budget ends.
        """
        took, began = 0.0, time.monotonic()

        def timed() -> _T:
            nonlocal took
            started = time.monotonic()
            try:
                return attempt()
            finally:
                took = time.monotonic() - started

        def wait(state: tenacity.RetryCallState) -> float:
            # Up to a few attempts' time apart, so that the losers don't meet again; over a
            # network the round trips' own spread does most of that.
            return random.uniform(0, min(2 * took * min(state.attempt_number, 8), _RACE_WAIT))  # noqa: S311

        def retrying() -> tenacity.Retrying:
            stop: tenacity.stop.stop_base = tenacity.stop_after_attempt(self.conflict_attempts)
            if self.budget:
                stop |= tenacity.stop_after_delay(self._left_since(began))
            return tenacity.Retrying(
                sleep=self.sleep,
                stop=stop,
                wait=wait,
                retry=tenacity.retry_if_exception(_is_lost_race),
                reraise=True,
            )

        return _after_first(timed, _is_lost_race, retrying)


def _is_transient(error: BaseException) -> bool:
    return classify(error).cause is Cause.TRANSIENT


def _is_lost_race(error: BaseException) -> bool:
    return isinstance(error, LostRaceError)


def _after_first(
    attempt: Callable[[], _T],
    is_worth_it: Callable[[BaseException], bool],
    retrying: Callable[[], tenacity.Retrying],
) -> _T:
    """Leave it to tenacity once the first attempt has failed, which few do."""
    try:
        return attempt()
    except Exception as error:
        if not is_worth_it(error):
            raise
        first: Exception | None = error

    def again() -> _T:
        nonlocal first
        failed, first = first, None
        if failed is not None:
            raise failed
        return attempt()

    return retrying()(again)


_RACE_WAIT = 0.03  # seconds at the most between two attempts


class LostRaceError(Exception):
    """Another writer came first; what it left has been adopted, and a new attempt may win.

    Attributes:
        conflict: What to raise if no attempt is left.
    """

    def __init__(self, conflict: Exception) -> None:
        """Initialize with the error of the last resort."""
        super().__init__(str(conflict))
        self.conflict = conflict


class Cause(Enum):
    """Why a request failed, as far as it matters for what to do."""

    TRANSIENT = "transient"
    ACCESS = "access"
    SCHEMA = "schema"
    STATEMENT = "statement"
    ADDRESS = "address"


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


_BY_STATUS = {
    400: Cause.STATEMENT,
    401: Cause.ACCESS,
    402: Cause.ACCESS,
    403: Cause.ACCESS,
    404: Cause.ADDRESS,
    408: Cause.TRANSIENT,
    429: Cause.TRANSIENT,
}
_BY_KIND = {
    "database_locked": Cause.TRANSIENT,
    "connect": Cause.TRANSIENT,
    "timeout": Cause.TRANSIENT,
    "connection_lost": Cause.TRANSIENT,
    "bad_answer": Cause.TRANSIENT,
    "unknown_table": Cause.SCHEMA,
    "unknown_column": Cause.SCHEMA,
    "readonly": Cause.ACCESS,
    "closed": Cause.ADDRESS,
    "redirect": Cause.ADDRESS,
    "unique_violation": Cause.STATEMENT,
    "not_null_violation": Cause.STATEMENT,
    "fk_violation": Cause.STATEMENT,
    "check_violation": Cause.STATEMENT,
    "syntax_error": Cause.STATEMENT,
    "type_mismatch": Cause.STATEMENT,
    "too_many_params": Cause.STATEMENT,
}
# What SQLite says, for handles that pass on no more than its text.
_BY_TEXT = tuple(
    (re.compile(text, re.IGNORECASE), cause)
    for text, cause in (
        (r"no such table|no such column|has no column named", Cause.SCHEMA),
        (r"database (table )?is locked|SQLITE_BUSY", Cause.TRANSIENT),
        (r"closed database|is closed", Cause.ADDRESS),
        (r"readonly database|not authorized", Cause.ACCESS),
        (r"constraint failed|syntax error|too many SQL variables|disk is full", Cause.STATEMENT),
    )
)
_SERVER_ERROR = 500
_NEVER_SENT = {"ConnectError", "ConnectTimeout", "PoolTimeout", "ConnectionRefusedError"}
_LOST = re.compile(
    r"timeout|timedout|connection|protocolerror|network|readerror|writeerror", re.IGNORECASE
)


def classify(error: BaseException) -> Failure:
    """Sort a database's exception, whichever handle raised it.

    Our own handles say what they know (``status``, ``kind``, ``retry_after``,
    ``may_have_applied``). Those of the SDK are asked for the same names and, where they have
    none, known by their class's name and SQLite's text.

    1. What the service names (``errorDetail.kind``) decides first, for statuses of SQL errors
       aren't documented.
    2. Then SQLite's own text, then the HTTP status; 5xx is transient and may have been applied.
    3. Then lost connections and timeouts: transient, and applied or not unless never sent.
    4. All else is final.
    """
    status = _number(error, "status", "status_code")
    detail = getattr(error, "detail", None) or getattr(error, "error_detail", None)
    kind = getattr(error, "kind", None) or (
        detail.get("kind") if isinstance(detail, dict) else None
    )
    kind = kind if isinstance(kind, str) else None
    retry_after = _number(error, "retry_after")
    names = " ".join(cls.__name__ for cls in type(error).__mro__)

    cause = _BY_KIND.get(kind or "")
    if cause is None:
        cause = next((cause for text, cause in _BY_TEXT if text.search(str(error))), None)
    sql_error = cause is not None and kind not in ("timeout", "connection_lost", "bad_answer")
    if cause is None and status is not None:
        cause = Cause.TRANSIENT if status >= _SERVER_ERROR else _BY_STATUS.get(int(status))
    if cause is None and "RateLimit" in names:
        cause = Cause.TRANSIENT
        status = status or 429
    if cause is None and isinstance(error, sqlite3.OperationalError):
        return Failure(Cause.STATEMENT, may_have_applied=True, kind=kind)
    if cause is None and (isinstance(error, OSError) or _LOST.search(names)):
        never_sent = bool(_NEVER_SENT & set(names.split()))
        return Failure(Cause.TRANSIENT, may_have_applied=not never_sent, retry_after=retry_after)
    cause = cause or Cause.STATEMENT

    said = getattr(error, "may_have_applied", None)
    guessed = (
        cause is Cause.TRANSIENT and not sql_error and (status is None or status >= _SERVER_ERROR)
    )
    return Failure(
        cause,
        may_have_applied=said if isinstance(said, bool) else guessed,
        retry_after=retry_after,
        status=None if status is None else int(status),
        kind=kind,
    )


def _number(error: BaseException, *names: str) -> float | None:
    for name in names:
        value = getattr(error, name, None)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
    return None
