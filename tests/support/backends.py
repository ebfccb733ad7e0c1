"""The databases that tests run on, of every kind, and access to them behind the library's back."""

import importlib
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from strands import Agent

from strands_persql import (
    Database,
    LocalDatabase,
    PerSQLSessionManager,
    PerSQLSessionRepository,
    RestClient,
    Result,
    RetryPolicy,
    Statement,
    Value,
)
from strands_persql.testing import CountingDatabase, Reply, ScriptedModel
from tests.engine.engine import Engine

FAST = RetryPolicy(budget=2.0, first_wait=0.001, max_wait=0.01, conflict_attempts=20)
NEVER = RetryPolicy.never()

# The persql SDK itself is one more, wherever it is installed.
KINDS = ("memory", "file", "sdk", "http", *(["persql"] if find_spec("persql") else []))


@dataclass(frozen=True)
class Address:
    """Where a file or a hosted database is; other processes can be told it.

    Attributes:
        where: The file's path, or the address of the service.
        name: The hosted database's name, or empty for a file.
        token: What the service takes.
    """

    where: str
    name: str = ""
    token: str = field(default="", repr=False)

    @contextmanager
    def open(self, **options: Any) -> Iterator[Database]:
        """Open a handle with connections of its own."""
        if self.name:
            with RestClient(self.token, base_url=self.where, **options) as client:
                yield client.database(self.name)
        else:
            with LocalDatabase(self.where, **options) as local:
                yield local


class Backend:
    """One database, and what makes repositories, managers and agents on it.

    Attributes:
        plain: The database.
        database: The same, counting its round trips.
        reopen: Gives another handle on the same data, or the same where there can be only one.
        address: Where it is, if others can open it too.
    """

    def __init__(
        self,
        database: Database,
        reopen: Callable[[], Database] | None = None,
        address: Address | None = None,
    ) -> None:
        self.plain = database
        self.database = CountingDatabase(database)
        self.reopen: Callable[[], Database] = reopen or (lambda: database)
        self._address = address
        self._opened = ExitStack()

    @property
    def address(self) -> Address:
        """Where it is; only files and hosted databases have an address."""
        assert self._address is not None
        return self._address

    def connect(self, **options: Any) -> Database:
        """Open a handle with connections of its own, as another process would."""
        return self._opened.enter_context(self.address.open(**options))

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
        options.setdefault("model", ScriptedModel(list(replies)))
        return Agent(
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
            for table in ("sessions", "agents", "messages", "multi_agents", "contents")
        }

    def close(self) -> None:
        """Close what `connect` has opened."""
        self._opened.close()


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
def opened(
    kind: str,
    folder: Path | None = None,
    *,
    engine: Engine | None = None,
    name: str = "",
    role: str = "admin",
) -> Iterator[Backend]:
    """Open a database that is empty at first.

    Args:
        kind: One of `KINDS`.
        folder: Where a ``file`` or the file of an ``sdk`` handle is made.
        engine: What serves an ``http`` database.
        name: The ``http`` database's name.
        role: What its token may do: ``admin``, ``readwrite`` or ``readonly``.
    """
    with ExitStack() as stack:
        if kind == "memory":
            backend = Backend(stack.enter_context(LocalDatabase()))
        elif kind == "persql":
            sdk = importlib.import_module("persql")
            backend = Backend(sdk.PerSQL(local=":memory:").database("acme/contract"))
        elif kind == "sdk":
            assert folder is not None
            path = str(folder / "sdk.db")
            reopen = _opener(stack, lambda: SdkHandle(path))
            backend = Backend(reopen(), reopen)
        elif kind == "file":
            assert folder is not None
            address = Address(str(folder / "sessions.db"))
            reopen = _opener(stack, lambda: LocalDatabase(address.where))
            backend = Backend(reopen(), reopen, address)
        else:
            assert engine is not None
            address = Address(engine.base_url, name, engine.token(role=role))
            client = stack.enter_context(RestClient(address.token, base_url=address.where))
            backend = Backend(client.database(name), lambda: client.database(name), address)
        stack.callback(backend.close)
        yield backend


def _opener(
    stack: ExitStack, make: Callable[[], LocalDatabase | SdkHandle]
) -> Callable[[], Database]:
    def reopen() -> Database:
        handle = make()
        stack.callback(handle.close)
        return handle

    return reopen
