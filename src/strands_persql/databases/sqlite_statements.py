"""Single statements on SQLite: checked, run, stopped where they run away, and read."""

import functools
import re
import sqlite3
import time
from typing import Any

from strands_persql.databases.protocol import Result, Statement

MAX_STATEMENTS = 100
"""The most statements of one batch, as with the hosted database."""

MAX_PARAMETERS = 100
"""The most parameters of one statement, as with the hosted database."""

_COMMENTS = re.compile(r"\s*(?:--[^\n]*(?:\n|$)|/\*.*?(?:\*/|$))\s*", re.DOTALL)
_FIRST_WORD = re.compile(r"\s*(\w+)")
_READS = frozenset({"EXPLAIN", "PRAGMA", "SELECT", "VALUES"})
_TRANSACTIONS = frozenset({"BEGIN", "COMMIT", "END", "RELEASE", "ROLLBACK", "SAVEPOINT"})
# How many steps of SQLite's machine lie between two looks at the clock: some tenths of a
# millisecond, beside which a look costs nothing.
_STEPS = 10_000


def check(statement: Statement) -> None:
    """Refuse a statement that no database would take, before anything runs.

    Raises:
        ValueError: If it has too many parameters, or opens or ends a transaction.
    """
    count = len(statement.get("params", ()))
    if count > MAX_PARAMETERS:
        raise ValueError(
            f"a statement takes at most {MAX_PARAMETERS} parameters, not {count}:"
            " make several statements of it"
        )
    if _first_word(statement["sql"]) in _TRANSACTIONS:
        raise ValueError(
            f"{statement['sql']!r} can't be run as a statement:"
            " use batch(…, transaction=True) for a transaction"
        )


def is_read(sql: str) -> bool:
    """Whether a statement surely writes nothing.

    Anything else, WITH included, may write; to take a read for a write costs only a short wait.
    """
    return _first_word(sql) in _READS


@functools.lru_cache(maxsize=256)
def _first_word(sql: str) -> str:
    start = 0
    while comment := _COMMENTS.match(sql, start):
        start = comment.end()
    word = _FIRST_WORD.match(sql, start)
    return word[1].upper() if word else ""


class Runner:
    """Runs statements on connections, each for a limited time.

    Args:
        seconds: The longest that a statement may run.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._ends = float("inf")

    def attach(self, connection: sqlite3.Connection) -> None:
        """Have a connection ask whether its statement has run for too long."""
        connection.set_progress_handler(self._is_late, _STEPS)

    def _is_late(self) -> bool:
        return time.monotonic() > self._ends

    def run(self, connection: sqlite3.Connection, statement: Statement) -> Result:
        """Run one statement and read all its rows.

        Raises:
            sqlite3.Error: SQLite refused it, or it ran for too long.
            ValueError: A parameter that SQLite can't hold.
        """
        changes = connection.total_changes
        self._ends = time.monotonic() + self._seconds
        try:
            columns, rows = _fetched(connection, statement)
        except sqlite3.OperationalError as error:
            if str(error) == "interrupted":
                raise sqlite3.OperationalError(
                    f"a statement was stopped after {self._seconds:g} s; if it may take that long,"
                    " raise LocalDatabase(statement_timeout=...)"
                ) from None
            raise
        finally:
            self._ends = float("inf")
        return {
            "data": [dict(zip(columns, row, strict=True)) for row in rows],
            "columns": columns,
            "rows_read": None,
            "rows_written": connection.total_changes - changes,
        }


def _fetched(
    connection: sqlite3.Connection, statement: Statement
) -> tuple[list[str], list[tuple[object, ...]]]:
    sql, parameters = statement["sql"], tuple(statement.get("params", ()))
    try:
        if is_read(sql):
            try:
                connection.text_factory = str
                return _executed(connection, sql, parameters)
            except sqlite3.OperationalError as error:
                if not str(error).startswith("Could not decode to UTF-8"):
                    raise
        # Slower, and only where something may be there that isn't text, or can't be read twice.
        connection.text_factory = text_or_bytes
        return _executed(connection, sql, parameters)
    except (OverflowError, UnicodeError) as error:
        raise in_words(error) from None


def _executed(
    connection: sqlite3.Connection, sql: str, parameters: tuple[Any, ...]
) -> tuple[list[str], list[tuple[object, ...]]]:
    cursor = connection.execute(sql, parameters)
    try:
        rows = cursor.fetchall()
        return [column[0] for column in cursor.description or ()], rows
    finally:
        cursor.close()


def in_words(error: OverflowError | UnicodeError) -> Exception:
    """Return what an accident of Python's means: a bad value, or a damaged file.

    Names in a damaged file may not be text, and neither may the messages that quote them.
    """
    if isinstance(error, UnicodeDecodeError):
        return sqlite3.DatabaseError("database disk image is malformed: a name in it isn't UTF-8")
    if isinstance(error, OverflowError):
        return ValueError("a parameter is an integer of more than 64 bits")
    return ValueError("a statement or parameter has a lone surrogate: it isn't text")


def text_or_bytes(stored: bytes) -> str | bytes:
    """Return stored text; as bytes where it isn't UTF-8, so that it spoils its own row only."""
    try:
        return stored.decode()
    except UnicodeDecodeError:
        return stored
