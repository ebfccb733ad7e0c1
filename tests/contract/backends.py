"""The databases that the contract is held to, and access behind the library's back."""

import importlib
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from strands import Agent

from strands_persql import (
    Database,
    LocalDatabase,
    PerSQLSessionManager,
    PerSQLSessionRepository,
    RestClient,
    RetryPolicy,
)
from strands_persql.databases.protocol import Result, Statement, Value
from strands_persql.testing import CountingDatabase, Reply, ScriptedModel
from tests.engine.engine import Engine

FAST = RetryPolicy(budget=2.0, first_wait=0.001, max_wait=0.01, conflict_attempts=20)
NEVER = RetryPolicy.never()


class Backend:
    """One database, and what makes repositories, managers and agents on it.

    Attributes:
        database: The database, counting its round trips.
        reopen: Gives another handle on the same data, or the same where there can be only one.
    """

    def __init__(self, database: Database, reopen: Callable[[], Database] | None = None) -> None:
        self.plain = database
        self.database = CountingDatabase(database)
        self.reopen: Callable[[], Database] = reopen or (lambda: database)

    def repository(
        self, database: Database | None = None, **options: Any
    ) -> PerSQLSessionRepository:
        """Make a repository with a cache of its own, as another process would have."""
        options.setdefault("retry", FAST)
        return PerSQLSessionRepository(database or self.database, **options)

    def manager(
        self,
        session_id: str = "s",
        *,
        repository: PerSQLSessionRepository | None = None,
        commit: Any = "message",
        **options: Any,
    ) -> PerSQLSessionManager:
        """Open a session, as another process would, unless a repository is given."""
        if repository is None:
            repository = self.repository(**options)
        return PerSQLSessionManager(session_id, repository=repository, commit=commit)

    def agent(
        self,
        replies: Sequence[Reply] = (),
        *,
        manager: PerSQLSessionManager | None = None,
        agent_id: str = "a",
        **options: Any,
    ) -> Agent:
        """Make an agent that answers from a script, in a session of its own manager."""
        return Agent(
            model=ScriptedModel(list(replies)),
            session_manager=manager if manager is not None else self.manager(),
            agent_id=agent_id,
            callback_handler=None,
            **options,
        )

    def raw(self, sql: str, *params: Value) -> list[dict[str, Any]]:
        """Run SQL behind the library's back."""
        return [dict(row) for row in self.plain.query(sql, params)["data"]]

    def dump(self) -> dict[str, list[dict[str, Any]]]:
        """Give every row of every table."""
        return {
            table: self.raw(f"SELECT * FROM strands_{table} ORDER BY 1, 2, 3")
            for table in ("sessions", "agents", "messages", "multi_agents")
        }


class SdkError(Exception):
    """All that a handle of the SDK is sure to say of a failure: SQLite's text."""


class SdkHandle:
    """A handle of the SDK's documented shape: positional arguments, and ``data`` alone."""

    def __init__(self, path: str) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._lock = threading.Lock()

    def query(self, sql: str, params: Sequence[Value] = (), /) -> Result:
        with self._lock:
            return self._run(sql, params)

    def batch(
        self, statements: Sequence[Statement], /, *, transaction: bool = False
    ) -> list[Result]:
        with self._lock:
            if not transaction:
                return [self._run(each["sql"], each.get("params", ())) for each in statements]
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                results = [self._run(each["sql"], each.get("params", ())) for each in statements]
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")
            return results

    def close(self) -> None:
        self._connection.close()

    def _run(self, sql: str, params: Sequence[Value]) -> Result:
        try:
            cursor = self._connection.execute(sql, list(params))
            names = [column[0] for column in cursor.description or ()]
            return {"data": [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]}
        except sqlite3.Error as error:
            raise SdkError(f"Query failed: {error}") from None


@contextmanager
def memory() -> Iterator[Backend]:
    """A database in memory, which has one handle only."""
    with LocalDatabase() as database:
        yield Backend(database)


@contextmanager
def file(folder: Path) -> Iterator[Backend]:
    """A database in a file."""
    opened = [LocalDatabase(folder / "sessions.db")]

    def reopen() -> LocalDatabase:
        opened.append(LocalDatabase(folder / "sessions.db"))
        return opened[-1]

    try:
        yield Backend(opened[0], reopen)
    finally:
        for database in opened:
            database.close()


@contextmanager
def sdk(folder: Path) -> Iterator[Backend]:
    """What a handle of the SDK looks like."""
    opened = [SdkHandle(str(folder / "sdk.db"))]

    def reopen() -> SdkHandle:
        opened.append(SdkHandle(str(folder / "sdk.db")))
        return opened[-1]

    try:
        yield Backend(opened[0], reopen)
    finally:
        for handle in opened:
            handle.close()


@contextmanager
def persql() -> Iterator[Backend]:
    """A handle of the persql SDK, in its local mode."""
    sdk = importlib.import_module("persql")
    yield Backend(sdk.PerSQL(local=":memory:").database("acme/contract"))


@contextmanager
def http(engine: Engine, name: str) -> Iterator[Backend]:
    """The hosted database's HTTP API on its real engine."""
    with RestClient(engine.token(), base_url=engine.base_url) as client:
        yield Backend(client.database(name), lambda: client.database(name))
