"""The embedded database: a SQLite file, or one in memory, behind the same two methods."""

import contextlib
import functools
import os
import re
import sqlite3
import sys
import threading
import time
import weakref
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import ClassVar

from typing_extensions import Self

from strands_persql.databases.protocol import Result, Statement, Value
from strands_persql.errors import DatabaseOpenError

MAX_STATEMENTS = 100
"""The most statements of one batch, as with the hosted database."""

MAX_PARAMETERS = 100
"""The most parameters of one statement, as with the hosted database."""

_MEMORY = ":memory:"
_COMMENTS = re.compile(r"\s*(?:--[^\n]*(?:\n|$)|/\*.*?(?:\*/|$))\s*", re.DOTALL)
_FIRST_WORD = re.compile(r"\s*(\w+)")
_READS = frozenset({"EXPLAIN", "PRAGMA", "SELECT", "VALUES"})
_TRANSACTIONS = frozenset({"BEGIN", "COMMIT", "END", "RELEASE", "ROLLBACK", "SAVEPOINT"})

_databases: "weakref.WeakSet[LocalDatabase]" = weakref.WeakSet()
_registry_lock = threading.Lock()
_creation_lock = threading.Lock()


class LocalDatabase:
    """A SQLite database in a file or in memory, for any number of threads and processes.

    What a call wrote is on the disk when it returns: files use a write-ahead log that is synced at
    each commit. A file that isn't there is created, readable and writable by its owner only.

    After a fork a file goes on to work on both sides; a database in memory stays with the process
    that made it.

    Args:
        path: The database's file, or ``":memory:"`` for one that ends with this object. It is
            always taken as a path, never as a URI.
        busy_timeout: How long, in seconds, to wait for another process that is writing.

    Raises:
        DatabaseOpenError: The file can't be opened or created, or is no database.
        sqlite3.OperationalError: Another process kept it locked for longer than `busy_timeout`.
    """

    max_row_bytes: ClassVar[int | None] = None
    """The most bytes that a row may hold: no limit of its own."""

    _connection: sqlite3.Connection | None = None

    def __init__(
        self, path: str | os.PathLike[str] = _MEMORY, *, busy_timeout: float = 5.0
    ) -> None:
        if not 0 <= busy_timeout < float("inf"):
            raise ValueError(f"busy_timeout is seconds, 0 or more, not {busy_timeout!r}")
        self._path = os.fspath(path)
        self._file = None if self._path == _MEMORY else self._absolute(self._path)
        self._busy_timeout = busy_timeout
        self._lock = threading.Lock()
        self._closed = False
        self._forked_from: int | None = None
        with _registry_lock:
            _databases.add(self)
        with self._lock:
            self._connection = self._connect()

    @property
    def path(self) -> str:
        """The file as it was given, or ``":memory:"``."""
        return self._path

    def query(self, sql: str, params: Sequence[Value] = (), /) -> Result:
        """Run one statement, committed by itself.

        Args:
            sql: One SQL statement with ``?`` for each parameter.
            params: The parameters, at most 100.

        Returns:
            ``data`` (the rows, each a dict by column name), ``columns``, ``rows_read`` (None: not
            known here) and ``rows_written``.

        Raises:
            ValueError: Too many parameters, or a statement such as BEGIN.
            sqlite3.Error: SQLite refused the statement.
        """
        statement: Statement = {"sql": sql, "params": params}
        _check(statement)
        with self._lock:
            return _run(self._open_connection(), statement)

    def batch(
        self, statements: Sequence[Statement], /, *, transaction: bool = False
    ) -> list[Result]:
        """Run up to 100 statements, in one transaction where asked.

        Args:
            statements: What to run, in order.
            transaction: Whether all of them stand or fall together. Otherwise each is committed
                by itself, and those before one that fails stay.

        Returns:
            One result a statement, as `query` gives it.

        Raises:
            ValueError: Too many statements or parameters, or a statement such as BEGIN.
            sqlite3.Error: SQLite refused a statement.
        """
        if len(statements) > MAX_STATEMENTS:
            raise ValueError(
                f"a batch holds at most {MAX_STATEMENTS} statements, not {len(statements)}:"
                " make several batches of it"
            )
        for statement in statements:
            _check(statement)
        if not statements:
            return []
        with self._lock:
            connection = self._open_connection()
            if not transaction:
                return [_run(connection, statement) for statement in statements]
            return self._run_transaction(connection, statements)

    def close(self) -> None:
        """Close the file, or drop the database in memory; closing again does nothing."""
        with self._lock:
            self._closed = True
            self._disconnect()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self._disconnect()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._path!r})"

    @staticmethod
    def _absolute(path: str) -> str:
        # An absolute path survives a change of folder, and is no URI even to a SQLite that is
        # built to look for one.
        if not path or "\0" in path:
            raise DatabaseOpenError(
                f"cannot open the database {path!r}: that is no path;"
                f' give the name of a file, or "{_MEMORY}"'
            )
        return str(Path(path).absolute())

    def _open_connection(self) -> sqlite3.Connection:
        """The connection, made anew after a fork. The caller holds the lock."""
        if self._closed:
            raise sqlite3.ProgrammingError(f"{self!r} is closed: make a new one to go on")
        if self._forked_from is not None:
            raise DatabaseOpenError(
                f"{self!r} is in the memory of process {self._forked_from}, which this process was"
                " forked from: share a file between processes, or make a database in each"
            )
        if self._connection is None:
            self._connection = self._connect()
        return self._connection

    def _connect(self) -> sqlite3.Connection:
        try:
            if self._file is not None:
                _create(self._file)
            connection = sqlite3.connect(
                self._file or _MEMORY,
                timeout=self._busy_timeout,
                isolation_level=None,
                check_same_thread=False,
            )
            try:
                if self._file is not None:
                    self._configure(connection)
            except BaseException:
                connection.close()
                raise
        except (OSError, sqlite3.Error) as error:
            if _is_locked(error):
                raise
            raise DatabaseOpenError(self._explain(error)) from error
        return connection

    def _configure(self, connection: sqlite3.Connection) -> None:
        # Of several that turn a new file's log on at once, SQLite refuses all but one, without the
        # wait that it grants other statements.
        deadline = time.monotonic() + self._busy_timeout
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL").fetchall()
                break
            except sqlite3.OperationalError as error:
                if not _is_locked(error) or time.monotonic() >= deadline:
                    raise
            time.sleep(0.005)
        connection.execute("PRAGMA synchronous = FULL")

    def _explain(self, error: Exception) -> str:
        path = Path(self._file or _MEMORY)
        if path.is_dir():
            reason = "it is a folder; give the name of a file"
        elif not path.parent.is_dir():
            reason = f"there is no folder {str(path.parent)!r}; create it first"
        elif "not a database" in str(error):
            reason = "the file is there, but is no SQLite database; give another path"
        else:
            detail = error.strerror if isinstance(error, OSError) else error
            reason = (
                f"{detail}; the file and its folder must be readable and writable for this user"
            )
        return f"cannot open the database {self._path!r}: {reason}"

    def _run_transaction(
        self, connection: sqlite3.Connection, statements: Sequence[Statement]
    ) -> list[Result]:
        writes = not all(_is_read(statement["sql"]) for statement in statements)
        try:
            # Asking for the write lock first lets writers wait for each other; one that reads and
            # then turns into a writer would be refused at once when another has come between.
            connection.execute("BEGIN IMMEDIATE" if writes else "BEGIN")
            results = [_run(connection, statement) for statement in statements]
            connection.execute("COMMIT")
        except BaseException:
            self._roll_back(connection)
            raise
        return results

    def _roll_back(self, connection: sqlite3.Connection) -> None:
        if not connection.in_transaction:
            return
        try:
            connection.execute("ROLLBACK")
        except sqlite3.Error:
            # Closing takes back what is left open, so that no later call commits it.
            if self._file is not None:
                self._disconnect()

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _before_fork(self) -> None:
        # SQLite keeps its books on locks by process and a child inherits them, but not the locks:
        # a child beside an inherited connection would write into a log that others take for
        # abandoned and delete. So no file is open at the moment of the fork.
        self._lock.acquire()
        if self._file is not None:
            with contextlib.suppress(sqlite3.Error):
                self._disconnect()

    def _after_fork_in_child(self, parent: int) -> None:
        self._lock = threading.Lock()
        if self._file is None and self._connection is not None:
            self._forked_from = parent
            self._disconnect()

    def _after_fork_in_parent(self) -> None:
        self._lock.release()


def _run(connection: sqlite3.Connection, statement: Statement) -> Result:
    changes = connection.total_changes
    cursor = connection.execute(statement["sql"], tuple(statement.get("params", ())))
    try:
        rows = cursor.fetchall()
        columns = [column[0] for column in cursor.description or ()]
    finally:
        cursor.close()
    return {
        "data": [dict(zip(columns, row, strict=True)) for row in rows],
        "columns": columns,
        "rows_read": None,
        "rows_written": connection.total_changes - changes,
    }


def _check(statement: Statement) -> None:
    count = len(statement.get("params", ()))
    if count > MAX_PARAMETERS:
        raise ValueError(
            f"a statement takes at most {MAX_PARAMETERS} parameters, not {count}:"
            " make several statements of it"
        )
    if _first_word(statement["sql"]) in _TRANSACTIONS:
        raise ValueError(
            f"{statement['sql']!r} is not for a statement to say:"
            " a transaction is made by batch(…, transaction=True)"
        )


@functools.lru_cache(maxsize=256)
def _first_word(sql: str) -> str:
    start = 0
    while comment := _COMMENTS.match(sql, start):
        start = comment.end()
    word = _FIRST_WORD.match(sql, start)
    return word[1].upper() if word else ""


def _is_read(sql: str) -> bool:
    # Anything else, WITH included, may write; to take a read for a write costs only a short wait.
    return _first_word(sql) in _READS


def _is_locked(error: Exception) -> bool:
    return isinstance(error, sqlite3.OperationalError) and "locked" in str(error)


def _create(file: str) -> None:
    # SQLite would create it for everyone to read, and gives the log's files the same mode. Only a
    # new file is opened here, by one at a time: to close any handle of a file drops the locks that
    # other connections of this process hold on it.
    with _creation_lock, contextlib.suppress(FileExistsError):
        os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))


_forking: list[LocalDatabase] = []
_parent = 0


def _before_fork() -> None:
    global _parent  # noqa: PLW0603 - the hooks of os.register_at_fork take no arguments
    _registry_lock.acquire()
    _parent = os.getpid()
    _forking.extend(_databases)
    for database in _forking:
        database._before_fork()  # noqa: SLF001 - this module's own


def _after_fork_in_parent() -> None:
    for database in _forking:
        database._after_fork_in_parent()  # noqa: SLF001 - this module's own
    _forking.clear()
    _registry_lock.release()


def _after_fork_in_child() -> None:
    for database in _forking:
        database._after_fork_in_child(_parent)  # noqa: SLF001 - this module's own
    _forking.clear()
    _registry_lock.release()


if sys.platform != "win32":
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )
