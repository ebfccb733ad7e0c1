"""The embedded database: a SQLite file, or one in memory, behind the same two methods."""

import contextlib
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Collection, Mapping, Sequence
from types import TracebackType
from typing import ClassVar, Literal

from typing_extensions import Self

from strands_persql.databases.checks import LOOK, refuse_intruders
from strands_persql.databases.files import MEMORY, DatabaseFile, text_of_path
from strands_persql.databases.open_files import tell_of_forks
from strands_persql.databases.protocol import Result, Statement, Value
from strands_persql.databases.sqlite_statements import (
    MAX_STATEMENTS,
    Runner,
    check,
    in_words,
    is_read,
    text_or_bytes,
)
from strands_persql.errors import DatabaseOpenError


class LocalDatabase:
    """A SQLite database in a file or in memory, for any number of threads and processes.

    What a call wrote is on the disk when it returns: files use a write-ahead log that is synced at
    each commit. A file that isn't there is created, readable and writable by its owner only. One
    that is removed or replaced while it is in use is an error from then on.

    After a fork a file keeps working on both sides; a database in memory stays with the process
    that made it.

    Args:
        path: The database's file, or ``":memory:"`` for one that ends with this object. It is
            always taken as a path, never as a URI.
        busy_timeout: How long, in seconds, to wait for another process that is writing.
        statement_timeout: How long, in seconds, a statement may run before it is stopped.
        synchronous: ``"full"`` syncs the log at each commit. ``"normal"`` leaves that to
            checkpoints: after a power cut or a crash of the system the last commits may be
            missing; the file stays sound, and the end of a process alone loses nothing.

    Raises:
        DatabaseOpenError: The file can't be opened or created, or isn't a database.
        ValueError: An option is out of its range, or the path is neither text nor a `Path`.
        sqlite3.OperationalError: Another process kept it locked for longer than `busy_timeout`.
    """

    max_row_bytes: ClassVar[int | None] = None
    """The most bytes that a row may hold: no limit of its own."""

    _connection: sqlite3.Connection | None = None
    _path = "not opened"

    def __init__(
        self,
        path: str | os.PathLike[str] = MEMORY,
        *,
        busy_timeout: float = 5.0,
        statement_timeout: float = 30.0,
        synchronous: Literal["full", "normal"] = "full",
    ) -> None:
        if not 0 <= busy_timeout < float("inf"):
            raise ValueError(f"busy_timeout is seconds, 0 or more, not {busy_timeout!r}")
        if not 0 < statement_timeout < float("inf"):
            raise ValueError(f"statement_timeout is seconds, above 0, not {statement_timeout!r}")
        if synchronous not in ("full", "normal"):
            raise ValueError(f"synchronous is 'full' or 'normal', not {synchronous!r}")
        self._path = text_of_path(path)
        self._file = None if self._path == MEMORY else DatabaseFile(self._path)
        self._busy_timeout = busy_timeout
        self._synchronous = synchronous
        self._runner = Runner(statement_timeout)
        self._lock = threading.Lock()
        self._closed = False
        self._forked_from: int | None = None
        tell_of_forks(self)
        with self._lock:
            self._use(self._connect())

    @property
    def path(self) -> str:
        """The file as it was given, or ``":memory:"``."""
        return self._path

    @property
    def telemetry_attributes(self) -> Mapping[str, str | int]:
        """What tells the database apart in OpenTelemetry's spans and metrics."""
        return {"db.system.name": "sqlite", "db.namespace": self._path}

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
        return self.batch([{"sql": sql, "params": params}])[0]

    def batch(
        self, statements: Sequence[Statement], /, *, transaction: bool = False
    ) -> list[Result]:
        """Run up to 100 statements, in one transaction where asked.

        Args:
            statements: What to run, in order.
            transaction: Whether to apply all of them or none. Otherwise each is committed
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
            check(statement)
        if not statements:
            return []
        writes = not all(is_read(statement["sql"]) for statement in statements)
        with self._lock:
            connection = self._open_connection()
            if self._file is not None:
                self._file.check()
            if transaction:
                results = self._run_transaction(connection, statements, writes)
            else:
                results = [self._runner.run(connection, statement) for statement in statements]
            # Once more, so that nothing is acknowledged that went into a file of no name.
            if self._file is not None and writes:
                self._file.check_all()
        return results

    def check_tables(
        self,
        tables: Collection[str],
        indexes: Collection[str] = (),
        triggers: Collection[str] = (),
    ) -> None:
        """See that tables are tables: a file may come from somebody who means harm.

        Args:
            tables: The tables' names; some may not be there.
            indexes: The names of full-text indexes, which are virtual tables.
            triggers: The SQL of triggers that belong to the tables.

        Raises:
            DatabaseOpenError: A view, a trigger or a virtual table is in the place of one.
            sqlite3.Error: SQLite could not tell.
        """
        with self._lock:
            found = self._runner.run(self._open_connection(), LOOK)["data"]
        refuse_intruders(found, tables, indexes=indexes, triggers=triggers)

    def checkpoint(self, *, wait: float | None = None) -> bool:
        """Empty the write-ahead log, and with it what was deleted or replaced there.

        SQLite overwrites deleted and replaced values (``secure_delete`` is on), but the log keeps
        their last state until a checkpoint. This costs as much as one commit, or three where the
        disk is slow to sync. The database may still hold copies of rows that it has moved between
        its pages at some time; `purge` removes those too.

        Args:
            wait: How long, in seconds, to wait for others that are reading or writing; None for
                `busy_timeout`.

        Returns:
            Whether the log is empty. False if others were reading or writing for longer: call it
            again later.

        Raises:
            DatabaseOpenError: The file was removed or replaced.
            sqlite3.Error: SQLite could not do it.
        """
        return self._maintain("PRAGMA wal_checkpoint(TRUNCATE)", wait=wait)

    def purge(self) -> bool:
        """Let nothing that was ever deleted or replaced be left in the database's files.

        Rewrites the whole database (``VACUUM``) and empties the log: its cost grows with the
        database, and for a moment it takes twice the room. Writers wait, readers don't.

        Returns:
            Whether it was done, as for `checkpoint`.

        Raises:
            DatabaseOpenError: The file was removed or replaced.
            sqlite3.Error: SQLite could not do it, for want of room for example.
        """
        return self._maintain("VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)")

    def _maintain(self, *statements: str, wait: float | None = None) -> bool:
        with self._lock:
            connection = self._open_connection()
            if self._file is None:
                return True
            self._file.check()
            try:
                _wait_for_others(connection, self._busy_timeout if wait is None else wait)
                for sql in statements:
                    row = connection.execute(sql).fetchone()
            except sqlite3.OperationalError as error:
                if not _is_locked(error):
                    raise
                return False
            finally:
                _wait_for_others(connection, self._busy_timeout)
            self._file.check_all()
        return not row[0]

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

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._path!r})"

    def _open_connection(self) -> sqlite3.Connection:
        """The connection, opened again after a fork. The caller holds the lock."""
        if self._closed:
            raise sqlite3.ProgrammingError(f"{self!r} is closed: make a new one to go on")
        if self._forked_from is not None:
            raise DatabaseOpenError(
                f"{self!r} is in the memory of process {self._forked_from}, which this process was"
                " forked from: share a file between processes, or make a database in each"
            )
        return self._connection or self._use(self._connect())

    def _use(self, connection: sqlite3.Connection) -> sqlite3.Connection:
        self._connection = connection
        # Not `__del__`, which a collector of cycles may call after it has warned of the connection.
        self._closing = weakref.finalize(self, connection.close)
        return connection

    def _connect(self) -> sqlite3.Connection:
        if self._file is None:
            return self._opened(MEMORY)
        try:
            self._file.prepare()
            connection = self._opened(self._file.path)
            try:
                self._keep_log(connection)
                self._file.note()
            except BaseException:
                connection.close()
                raise
        except UnicodeDecodeError as error:
            raise DatabaseOpenError(self._file.explain(in_words(error))) from None
        except (OSError, sqlite3.Error) as error:
            if _is_locked(error):
                raise
            raise DatabaseOpenError(self._file.explain(error)) from error
        return connection

    def _opened(self, name: str) -> sqlite3.Connection:
        connection = sqlite3.connect(
            name,
            timeout=self._busy_timeout,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            connection.text_factory = text_or_bytes
            # What a foreign file's schema calls must be harmless, and damage is to be noticed.
            connection.execute("PRAGMA trusted_schema = OFF")
            connection.execute("PRAGMA cell_size_check = ON")
            connection.execute("PRAGMA secure_delete = ON").fetchall()
            self._runner.attach(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _keep_log(self, connection: sqlite3.Connection) -> None:
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
        connection.execute(f"PRAGMA synchronous = {self._synchronous}")
        connection.execute("SELECT 1 FROM sqlite_master").fetchone()  # opens the log

    def _run_transaction(
        self, connection: sqlite3.Connection, statements: Sequence[Statement], writes: bool
    ) -> list[Result]:
        try:
            # Asking for the write lock first lets writers wait for each other; one that reads and
            # then turns into a writer would be refused at once when another has come between.
            connection.execute("BEGIN IMMEDIATE" if writes else "BEGIN")
            results = [self._runner.run(connection, statement) for statement in statements]
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
            self._closing.detach()
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


def _is_locked(error: Exception) -> bool:
    return isinstance(error, sqlite3.OperationalError) and "locked" in str(error)


def _wait_for_others(connection: sqlite3.Connection, seconds: float) -> None:
    connection.execute(f"PRAGMA busy_timeout = {round(seconds * 1000)}").fetchall()
