"""Databases around databases: they count, lose, repeat, delay and watch round trips."""

import contextlib
import inspect
import itertools
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, TypeAlias, get_args

from strands_persql.databases.protocol import Database, Result, Statement, Value

Before: TypeAlias = Callable[[Sequence[Statement]], object]
"""What `InterceptingDatabase` calls with the statements that are about to be sent."""

After: TypeAlias = Callable[[Sequence[Statement], Sequence[Result]], Sequence[Result] | None]
"""What `InterceptingDatabase` calls with the statements and their results."""

_Send: TypeAlias = Callable[[], Sequence[Result]]


class _WrappedDatabase:
    """A database around another one; what it does with a round trip is up to `_pass_on`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._takes_key = {
            name: _takes_key(getattr(database, name, None)) for name in ("query", "batch")
        }

    @property
    def max_row_bytes(self) -> int | None:
        """The wrapped database's limit on a row, in bytes, or None; not there if it tells none."""
        limit: int | None = self._database.max_row_bytes  # type: ignore[attr-defined]
        return limit

    @property
    def telemetry_attributes(self) -> Mapping[str, str | int]:
        """What tells the wrapped database apart in traces; not there if it tells nothing."""
        told: Mapping[str, str | int] = self._database.telemetry_attributes  # type: ignore[attr-defined]
        return told

    @property
    def check_tables(self) -> Callable[..., None]:
        """What checks the wrapped database's tables; not there if it has none."""
        check: Callable[..., None] = self._database.check_tables  # type: ignore[attr-defined]
        return check

    @property
    def checkpoint(self) -> Callable[..., bool]:
        """What empties the wrapped database's log; not there if it has none."""
        empty: Callable[..., bool] = self._database.checkpoint  # type: ignore[attr-defined]
        return empty

    def query(
        self, sql: str, params: Sequence[Value] = (), /, *, idempotency_key: str | None = None
    ) -> Result:
        """Run one statement on the wrapped database.

        Args:
            sql: The statement.
            params: Its parameters.
            idempotency_key: Handed on to a database that takes it.

        Returns:
            The wrapped database's result.
        """
        params = tuple(params)
        options = self._options("query", idempotency_key)
        (result,) = self._pass_on(
            [{"sql": sql, "params": params}],
            lambda: [self._database.query(sql, params, **options)],
        )
        return result

    def batch(
        self,
        statements: Sequence[Statement],
        /,
        *,
        transaction: bool = False,
        idempotency_key: str | None = None,
    ) -> Sequence[Result]:
        """Run statements on the wrapped database.

        Args:
            statements: The statements.
            transaction: Whether all of them are applied or none.
            idempotency_key: Handed on to a database that takes it.

        Returns:
            The wrapped database's results.
        """
        copies: list[Statement] = [
            {"sql": each["sql"], "params": tuple(each.get("params", ()))} for each in statements
        ]
        options = self._options("batch", idempotency_key)
        return self._pass_on(
            copies,
            lambda: self._database.batch(copies, transaction=transaction, **options),
        )

    def close(self) -> None:
        """Close the wrapped database, if it can be closed."""
        close = getattr(self._database, "close", None)
        if close is not None:
            close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._database!r})"

    def _options(self, method: str, idempotency_key: str | None) -> dict[str, Any]:
        if idempotency_key is None or not self._takes_key[method]:
            return {}
        return {"idempotency_key": idempotency_key}

    def _pass_on(self, statements: list[Statement], send: _Send) -> Sequence[Result]:
        raise NotImplementedError


def _takes_key(method: Any) -> bool:
    try:
        parameters = inspect.signature(method).parameters
    except (TypeError, ValueError):
        return False
    takes_any = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
    return takes_any or "idempotency_key" in parameters


class CountingDatabase(_WrappedDatabase):
    """A database that counts what it is asked, and may take its time.

    Args:
        database: What it goes around.
        latency: How long, in seconds, each round trip takes beyond the database's own time.

    Attributes:
        round_trips: How many calls there were, those that failed included.
        log: The statements of each call, in the order of the calls.
        latency: As given; may be changed at any time.
    """

    def __init__(self, database: Database, *, latency: float = 0.0) -> None:
        super().__init__(database)
        self.latency = latency
        self.round_trips = 0
        self.log: list[list[Statement]] = []

    def reset(self) -> None:
        """Forget what has been counted."""
        with self._lock:
            self.round_trips = 0
            self.log = []

    def _pass_on(self, statements: list[Statement], send: _Send) -> Sequence[Result]:
        with self._lock:
            self.round_trips += 1
            self.log.append(statements)
        if self.latency:
            time.sleep(self.latency)
        return send()


class InterceptingDatabase(_WrappedDatabase):
    """A database that calls functions of yours before and after each round trip.

    With them a test looks at what is sent and answered, lets another writer come in between, makes
    a round trip wait, or makes it fail as no `Fault` does.

    Args:
        database: What it goes around.
        before: Called with the statements. What it raises is raised, and nothing is sent.
        after: Called with the statements and their results, which have been applied then. What
            it raises is raised in place of the answer, and what it returns, unless it is None,
            is the answer.

    Attributes:
        before: As given, or None; may be changed at any time.
        after: As given, or None; may be changed at any time.
    """

    def __init__(
        self, database: Database, *, before: Before | None = None, after: After | None = None
    ) -> None:
        super().__init__(database)
        self.before = before
        self.after = after

    def _pass_on(self, statements: list[Statement], send: _Send) -> Sequence[Result]:
        if self.before is not None:
            self.before(statements)
        answer = send()
        changed = None if self.after is None else self.after(statements, answer)
        return answer if changed is None else changed


Fault: TypeAlias = Literal[
    "lost_request", "lost_answer", "duplicate", "delayed_duplicate", "locked"
]
"""What can go wrong with a round trip; see `FaultyDatabase`."""


class FaultyDatabase(_WrappedDatabase):
    """A database whose round trips go wrong, each in the way that it is told.

    - ``"lost_request"``: nothing runs; raises `ConnectionRefusedError`.
    - ``"lost_answer"``: it runs, its answer is lost; raises `ConnectionResetError`.
    - ``"duplicate"``: it runs twice, and the second answer is given.
    - ``"delayed_duplicate"``: it runs, and a copy of it arrives `duplicate_after` calls later.
    - ``"locked"``: nothing runs; raises the `sqlite3.OperationalError` of a locked database.

    Args:
        database: What it goes around.
        faults: The fault of each call in turn, None for a call that goes well; calls after the
            last go well. Or a function that gets the call's number, from 0, and gives its fault.
        duplicate_after: How many calls later a delayed duplicate arrives: 1 is just before the
            next one.

    Attributes:
        injected: The number of each call that went wrong, and its fault.
    """

    def __init__(
        self,
        database: Database,
        faults: Iterable[Fault | None] | Callable[[int], Fault | None],
        *,
        duplicate_after: int = 1,
    ) -> None:
        super().__init__(database)
        if isinstance(faults, str):
            raise TypeError(f"faults is a list or a function: give [{faults!r}] for the first call")
        if duplicate_after < 1:
            raise ValueError(f"duplicate_after is 1 or more calls, not {duplicate_after}")
        self.injected: list[tuple[int, Fault]] = []
        self._faults = faults if callable(faults) else iter(faults)
        self._duplicate_after = duplicate_after
        self._calls = itertools.count()
        self._late: list[tuple[int, Callable[[], object]]] = []

    def deliver_late(self) -> None:
        """Let the delayed duplicates arrive that are still under way."""
        with self._lock:
            late, self._late = self._late, []
        _deliver(late)

    def _pass_on(self, statements: list[Statement], send: _Send) -> Sequence[Result]:
        with self._lock:
            call = next(self._calls)
            fault = self._next_fault(call)
            due = [each for each in self._late if each[0] <= call]
            self._late = [each for each in self._late if each[0] > call]
            if fault == "delayed_duplicate":
                self._late.append((call + self._duplicate_after, send))
        _deliver(due)
        if fault == "lost_request":
            raise ConnectionRefusedError("the request was lost on its way to the database")
        if fault == "locked":
            raise sqlite3.OperationalError("database is locked")
        answer = send()
        if fault == "lost_answer":
            raise ConnectionResetError("the database's answer was lost on its way back")
        return send() if fault == "duplicate" else answer

    def _next_fault(self, call: int) -> Fault | None:
        fault = self._faults(call) if callable(self._faults) else next(self._faults, None)
        if fault is None:
            return None
        if fault not in get_args(Fault):
            raise ValueError(
                f"{fault!r} is not a fault; the faults are {', '.join(get_args(Fault))}"
            )
        self.injected.append((call, fault))
        return fault


def _deliver(late: list[tuple[int, Callable[[], object]]]) -> None:
    for _, send in late:
        # Nobody waits for this answer: whether it succeeds or fails, nobody hears of it.
        with contextlib.suppress(Exception):
            send()
