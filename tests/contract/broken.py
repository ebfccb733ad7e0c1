"""Stores that are wrong, each in one way; the contract must reject every one of them."""

import functools
import inspect
import itertools
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import pytest
from strands.types.session import Session, SessionAgent, SessionMessage

from strands_persql import Database, LocalDatabase, PerSQLSessionRepository, SessionCache
from strands_persql.databases.protocol import Result, Statement, Value
from strands_persql.errors import AlreadyExistsError
from tests.contract import (
    test_agents,
    test_bad_input,
    test_conflicts,
    test_database,
    test_faults,
    test_freshness,
    test_manager,
    test_messages,
    test_multi_agents,
    test_sessions,
    test_turns,
)
from tests.contract.backends import FAST, Backend

MODULES = (
    test_database,
    test_sessions,
    test_agents,
    test_messages,
    test_multi_agents,
    test_conflicts,
    test_freshness,
    test_turns,
    test_manager,
    test_faults,
    test_bad_input,
)
NOTHING = "SELECT 1 WHERE 0"


def checks() -> Iterator[tuple[str, Callable[[Backend], None]]]:
    """Give every test of the contract that needs a backend alone, with its parameters bound."""
    for module in MODULES:
        for name, test in inspect.getmembers(module, inspect.isfunction):
            parametrized = [_cases(mark) for mark in getattr(test, "pytestmark", ()) if mark.args]
            for cases in itertools.product(*parametrized):
                bound = {name: value for case in cases for name, value in case.items()}
                wanted = set(inspect.signature(test).parameters)
                if name.startswith("test_") and wanted == {"backend", *bound}:
                    yield f"{name}{list(bound.values()) or ''}", functools.partial(test, **bound)


def _cases(mark: Any) -> list[dict[str, Any]]:
    names = mark.args[0]
    if isinstance(names, str):
        return [{names: value} for value in mark.args[1]]
    return [dict(zip(names, values, strict=True)) for values in mark.args[1]]


def failures(make: Callable[[Database], Backend], known: Sequence[str] = ()) -> Iterator[str]:
    """Give the names of the contract's tests that a store fails."""
    for name, check in checks():
        if name in known:
            continue
        with LocalDatabase() as database:
            try:
                check(make(database))
            except pytest.skip.Exception:
                continue
            except (Exception, pytest.fail.Exception):  # noqa: BLE001 - a failure, however it shows
                yield name


class Rewriting:
    """A database that makes something else of the statements that it is given."""

    swaps: ClassVar[dict[str, str]] = {}

    def __init__(self, database: LocalDatabase) -> None:
        self.inner = database

    def query(self, sql: str, params: Sequence[Value] = (), /) -> Result:
        return self.inner.query(sql, params)

    def batch(
        self, statements: Sequence[Statement], /, *, transaction: bool = False
    ) -> Sequence[Result]:
        sent, kept = [], []
        for statement in statements:
            made = self.rewrite(statement["sql"], list(statement.get("params", ())))
            sent += [{"sql": sql, "params": params} for sql, params in made]
            kept.append(len(sent) - 1)
        results = self.run(sent, transaction)
        return [results[index] for index in kept]

    def run(self, statements: Any, transaction: bool) -> Sequence[Result]:
        return self.inner.batch(statements, transaction=transaction)

    def rewrite(self, sql: str, params: list[Value]) -> list[tuple[str, list[Value]]]:
        """Give what runs in a statement's place; the last one's result is the statement's."""
        for old, new in self.swaps.items():
            sql = sql.replace(old, new)
        return [(sql, params)]


class LostUpdate(Rewriting):
    """The last writer's update stands, whatever it had seen."""

    swaps: ClassVar[dict[str, str]] = {"AND version = ?": "AND ? IS NOT NULL"}


class SecondAgentResets(Rewriting):
    """Creating an agent that is there makes it anew."""

    def rewrite(self, sql: str, params: list[Value]) -> list[tuple[str, list[Value]]]:
        if not sql.startswith("INSERT INTO strands_agents"):
            return [(sql, params)]
        delete = "DELETE FROM strands_agents WHERE session_id = ? AND agent_id = ?"
        return [(delete, params[:2]), (sql, params)]


class AppendOverwrites(Rewriting):
    """A message whose id is taken replaces the one that has it."""

    def rewrite(self, sql: str, params: list[Value]) -> list[tuple[str, list[Value]]]:
        if not sql.startswith("INSERT INTO strands_messages") or "CASE WHEN EXISTS" not in sql:
            return [(sql, params)]
        delete = (
            "DELETE FROM strands_messages WHERE session_id = ? AND agent_id = ? AND message_id = ?"
        )
        return [(delete, [params[0], params[1], params[8]]), (sql, params)]


class NotAtomic(Rewriting):
    """A batch that fails half-way leaves what ran before."""

    def run(self, statements: Any, transaction: bool) -> Sequence[Result]:
        return self.inner.batch(statements, transaction=False)


class Swallowing(Rewriting):
    """A failed batch is answered as if nothing had been found."""

    def run(self, statements: Any, transaction: bool) -> Sequence[Result]:
        try:
            return self.inner.batch(statements, transaction=transaction)
        except sqlite3.Error as error:
            if "no such table: strands" in str(error):
                raise
            return [{"data": []} for _ in statements]


class Dropping(Rewriting):
    """Every fifth batch that writes is answered, and not kept."""

    count = 0

    def run(self, statements: Any, transaction: bool) -> Sequence[Result]:
        if any(one["sql"].startswith(("INSERT", "UPDATE")) for one in statements):
            self.count += 1
            if self.count % 5 == 0:
                with LocalDatabase() as copy:
                    self.inner._connection.backup(copy._connection)  # type: ignore[union-attr, arg-type]
                    return copy.batch(statements, transaction=True)
        return self.inner.batch(statements, transaction=transaction)


class DeletesByPrefix(Rewriting):
    """Deleting a session deletes those whose ids begin like its own."""

    def rewrite(self, sql: str, params: list[Value]) -> list[tuple[str, list[Value]]]:
        if sql.startswith("DELETE"):
            sql = sql.replace("session_id = ?", "session_id LIKE ? || '%'")
        return [(sql, params)]


class DeletesHalf(Rewriting):
    """Deleting a session leaves its messages."""

    def rewrite(self, sql: str, params: list[Value]) -> list[tuple[str, list[Value]]]:
        return (
            [(NOTHING, [])] if sql.startswith("DELETE FROM strands_messages") else [(sql, params)]
        )


class Backwards(Rewriting):
    """Messages come in the wrong order."""

    swaps: ClassVar[dict[str, str]] = {
        "ORDER BY message_id LIMIT": "ORDER BY message_id DESC LIMIT",
        "ORDER BY m.agent_id, m.message_id": "ORDER BY m.agent_id, m.message_id DESC",
    }


class AsText(Rewriting):
    """Messages are ordered by their ids as text."""

    swaps: ClassVar[dict[str, str]] = {
        "ORDER BY message_id LIMIT": "ORDER BY CAST(message_id AS TEXT) LIMIT",
        "ORDER BY m.agent_id, m.message_id": "ORDER BY m.agent_id, CAST(m.message_id AS TEXT)",
    }


class Doubling(Rewriting):
    """A message that is sent twice is stored twice."""

    def rewrite(self, sql: str, params: list[Value]) -> list[tuple[str, list[Value]]]:
        if sql.startswith("INSERT INTO strands_messages"):
            head, separator, tail = sql.rpartition("AND write_id = ?")
            sql = f"{head}AND ? IS NULL{tail}" if separator else sql
        return [(sql, params)]


class Interleaving(Rewriting):
    """A turn is never moved behind another writer's."""

    def rewrite(self, sql: str, params: list[Value]) -> list[tuple[str, list[Value]]]:
        return [(NOTHING, [])] if "SET message_id =" in sql else [(sql, params)]


class Unmarked(Rewriting):
    """Changes of old messages leave no mark that an open could see."""

    def rewrite(self, sql: str, params: list[Value]) -> list[tuple[str, list[Value]]]:
        return [(NOTHING, [])] if "SET epoch = epoch + 1" in sql else [(sql, params)]


class TwoVersions(Rewriting):
    """A write counts as two."""

    swaps: ClassVar[dict[str, str]] = {"version = version + 1": "version = version + 2"}


class NewBirthday(Rewriting):
    """An update makes a row's creation the update's."""

    swaps: ClassVar[dict[str, str]] = {
        "coalesce(json_extract(data, '$.created_at'), created_at)": "datetime('now')"
    }


class CaseFolding(Rewriting):
    """Ids that differ by case are taken for one."""

    swaps: ClassVar[dict[str, str]] = {
        " session_id = ?": " lower(session_id) = lower(?)",
        " agent_id = ?": " lower(agent_id) = lower(?)",
    }


class ForgetsWrites(Rewriting):
    """Rows remember no more than the latest write that has been applied to them."""

    swaps: ClassVar[dict[str, str]] = {"replace(writes, ?, '')": "replace('', ?, '')"}


class Unparented(Rewriting):
    """Agents are stored under sessions that aren't there."""

    swaps: ClassVar[dict[str, str]] = {
        "EXISTS (SELECT 1 FROM strands_sessions WHERE session_id = ?) AND": "? IS NOT NULL AND"
    }


class StaleForever(PerSQLSessionRepository):
    """What was once read is never asked for again."""

    def __init__(self, database: Database, **options: Any) -> None:
        super().__init__(database, **{**options, "max_staleness": 1e9})


class _DeafCache(SessionCache):
    def written(self, session_id: str, change: Any) -> None:
        """Take no notice of a write."""


class DeafCache(PerSQLSessionRepository):
    """Its own writes don't reach the cache."""

    def __init__(self, database: Database, **options: Any) -> None:
        super().__init__(database, **{"cache": _DeafCache(), **options})


class Aliasing(PerSQLSessionRepository):
    """Who reads an agent or a message gets the object that the cache has."""

    def __init__(self, database: Database, **options: Any) -> None:
        super().__init__(database, **options)
        self._decoded: dict[Any, Any] = {}

    def _read_message(self, session_id: str, agent_id: str, row: Any) -> SessionMessage:
        key = (session_id, agent_id, row)
        if key not in self._decoded:
            self._decoded[key] = super()._read_message(session_id, agent_id, row)
        message: SessionMessage = self._decoded[key]
        return message


class RemembersNothing(PerSQLSessionRepository):
    """That a session wasn't there is remembered."""

    def __init__(self, database: Database, **options: Any) -> None:
        super().__init__(database, **options)
        self._missing: set[str] = set()

    def read_session(self, session_id: str, **kwargs: Any) -> Session | None:
        if session_id in self._missing:
            return None
        found = super().read_session(session_id)
        if found is None:
            self._missing.add(session_id)
        return found


class CreatesQuietly(PerSQLSessionRepository):
    """A second creation of a session is taken for a success."""

    def create_session(self, session: Session, **kwargs: Any) -> Session:
        try:
            return super().create_session(session)
        except AlreadyExistsError:
            return session


class Unpaged(PerSQLSessionRepository):
    """A page's limit is overlooked."""

    def list_messages(
        self,
        session_id: str,
        agent_id: str,
        limit: int | None = None,
        offset: int = 0,
        **kwargs: Any,
    ) -> list[SessionMessage]:
        return super().list_messages(session_id, agent_id, None, offset)


class ReadsFirst(PerSQLSessionRepository):
    """An update reads what is there and writes over it."""

    def update_agent(self, session_id: str, session_agent: SessionAgent, **kwargs: Any) -> None:
        self.cache.clear()
        found = self.read_agent(session_id, session_agent.agent_id)
        session_agent.__dict__.pop("_persql_seen", None)
        if found is not None:
            session_agent.created_at = found.created_at
        super().update_agent(session_id, session_agent)


class Unredacting(PerSQLSessionRepository):
    """The later update of a message stands, also over a redaction."""

    def update_message(
        self, session_id: str, agent_id: str, session_message: SessionMessage, **kwargs: Any
    ) -> None:
        session_message.__dict__.pop("_persql_seen", None)
        self.cache.clear()
        super().update_message(session_id, agent_id, session_message)


BROKEN: tuple[type[Rewriting] | type[PerSQLSessionRepository], ...] = (
    LostUpdate,
    SecondAgentResets,
    AppendOverwrites,
    NotAtomic,
    Swallowing,
    Dropping,
    DeletesByPrefix,
    DeletesHalf,
    Backwards,
    AsText,
    Doubling,
    Interleaving,
    Unmarked,
    TwoVersions,
    NewBirthday,
    CaseFolding,
    ForgetsWrites,
    Unparented,
    StaleForever,
    DeafCache,
    Aliasing,
    RemembersNothing,
    CreatesQuietly,
    Unpaged,
    ReadsFirst,
    Unredacting,
)


def backend_of(store: type[Rewriting] | type[PerSQLSessionRepository]) -> Callable[[Any], Backend]:
    """Give what makes a backend whose database or repository is the broken one."""
    if issubclass(store, Rewriting):
        return lambda database: Backend(store(database))
    repository_class = store

    class Broken(Backend):
        def repository(
            self, database: Database | None = None, **options: Any
        ) -> PerSQLSessionRepository:
            options.setdefault("retry", FAST)
            return repository_class(database or self.database, **options)

    return Broken
