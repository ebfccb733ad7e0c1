"""What the library asks of a database, as checks for those who write one of their own.

Each check is a function that is given ``connect``, which returns a handle on one database, empty
at first. Where it is called several times it may return new handles on the same data, or the same
handle where there can be only one. A check returns nothing, and raises `AssertionError` where the
database isn't as it has to be. With pytest::

    from strands_persql.testing import conformance

    @pytest.mark.parametrize("check", conformance.CHECKS, ids=lambda check: check.__name__)
    def test_my_database_can_hold_sessions(check, tmp_path):
        check(lambda: MyDatabase(tmp_path / "sessions"))
"""

import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, TypeAlias

from strands_persql.databases import Database, Result, Statement, Value

Connect: TypeAlias = Callable[[], Database]
"""Returns a handle on the database that is checked."""

Check: TypeAlias = Callable[[Connect], None]
"""One thing that a database has to hold."""

MOST_STATEMENTS: Final = 100
"""The most statements that the library sends in a batch."""

MOST_PARAMETERS: Final = 100
"""The most parameters that the library binds to a statement."""

MOST_SQL: Final = 100_000
"""The most bytes of SQL text that the library sends in a statement."""

_ROW_BYTES = 1_900_000  # of text, and that is below the hosted database's limit for a row
_PATIENCE = 60.0  # seconds until threads that don't end are a failure

_CREATE = "CREATE TABLE t (a TEXT, n INTEGER)"
_INSERT = "INSERT INTO t (a) VALUES (?)"


# -- queries ---------------------------------------------------------------------------------------


def rows_come_by_the_names_of_their_columns(connect: Connect) -> None:
    """A result's ``data`` is a list of rows in order, each a dict by column name."""
    sql = "SELECT 'x' AS one, 'y' AS \"two words\" UNION ALL SELECT 'z', NULL"
    rows = _rows(connect().query(sql))
    _same(rows, [{"one": "x", "two words": "y"}, {"one": "z", "two words": None}], sql)


def no_rows_are_an_empty_list(connect: Connect) -> None:
    """A query that finds nothing, and a statement that returns nothing, have no rows."""
    database = connect()
    _same(_rows(database.query("SELECT 1 AS one WHERE 0")), [], "a query that finds nothing")
    _same(_rows(database.query(_CREATE)), [], "CREATE TABLE")
    _same(_rows(database.query(_INSERT, ["x"])), [], "an INSERT without RETURNING")


def text_and_null_are_bound_as_they_are(connect: Connect) -> None:
    """Parameters never become SQL, and come back as they were."""
    texts = ["", "'; DROP TABLE t; --", "naïve 日本 🎉", "a\nb", '{"a": 1}', None]
    database = connect()
    for text in texts:
        _same(_rows(database.query("SELECT ? AS a", [text])), [{"a": text}], "a parameter")


def whole_numbers_can_be_bound(connect: Connect) -> None:
    """A bound number that SQL casts to an integer is that integer, up to 2**53."""
    for number in (0, -1, 2**53 - 1):
        (row,) = _rows(connect().query("SELECT CAST(? AS INTEGER) AS n", [number]))
        _same((row["n"], type(row["n"])), (number, int), "CAST(? AS INTEGER)")


def a_query_is_committed(connect: Connect) -> None:
    """What a query has written is there for another handle when the query returns."""
    database = connect()
    database.query(_CREATE)
    database.query(_INSERT, ["x"])
    _same(_values(connect()), ["x"], "another handle's rows")


def an_error_says_what_sqlite_says(connect: Connect) -> None:
    """An error's text has SQLite's own, by which its cause is known."""
    database = connect()
    database.query(_CREATE)
    for sql, text in (
        ("SELECT * FROM missing", "no such table: missing"),
        ("SELECT missing FROM t", "no such column: missing"),
    ):
        error = _error(partial(database.query, sql))
        assert error is not None, f"{sql}: no error was raised"
        assert text in str(error), f"{sql}: {text!r} isn't in the error {error!r}"


# -- batches ---------------------------------------------------------------------------------------


def a_batch_has_a_result_a_statement(connect: Connect) -> None:
    """Results come in the order of the statements, and later ones see earlier ones' rows."""
    results = _run(
        connect(),
        (_CREATE,),
        (_INSERT, "x"),
        ("SELECT a FROM t",),
        ("UPDATE t SET a = ? WHERE a = ?", "y", "x"),
        ("SELECT changes() AS n",),
        ("DELETE FROM t",),
        ("SELECT a FROM t",),
    )
    _same(results, [[], [], [{"a": "x"}], [], [{"n": 1}], [], []], "a batch's rows")


def a_transaction_stays_when_it_ends_well(connect: Connect) -> None:
    """What a batch has written is there for another handle when the batch returns."""
    _run(connect(), (_CREATE,), (_INSERT, "x"), (_INSERT, "y"))
    _same(_values(connect()), ["x", "y"], "another handle's rows")


def a_transaction_that_fails_leaves_nothing(connect: Connect) -> None:
    """When a statement of a transaction fails the batch raises, and none of it stays."""
    database = connect()
    database.query(_CREATE)
    fails = ("INSERT INTO missing VALUES (1)",)
    for statements in (
        [(_INSERT, "x"), fails],
        [fails, (_INSERT, "x")],
        [(_INSERT, "x"), fails, (_INSERT, "y")],
        [(_INSERT, "x"), ("CREATE TABLE u (a)",), fails],
    ):
        error = _error(partial(_run, database, *statements))
        assert error is not None, f"no error was raised by {statements}"
    _same(_values(database), [], "the rows after transactions that failed")
    _run(database, ("CREATE TABLE u (a)",), (_INSERT, "z"))
    _same(_values(database), ["z"], "the rows after a transaction that went well")


# -- SQL -------------------------------------------------------------------------------------------


def writes_return_rows(connect: Connect) -> None:
    """INSERT, UPDATE and DELETE return what their RETURNING names."""
    results = _run(
        connect(),
        (_CREATE,),
        (f"{_INSERT} RETURNING a", "x"),
        ("UPDATE t SET a = ? RETURNING a", "y"),
        ("UPDATE t SET a = 'z' WHERE a = 'x' RETURNING a",),
        ("DELETE FROM t RETURNING a",),
    )
    _same(results, [[], [{"a": "x"}], [{"a": "y"}], [], [{"a": "y"}]], "RETURNING")


def json_is_read_and_changed(connect: Connect) -> None:
    """SQLite's functions for JSON are there."""
    sql = (
        "SELECT json_extract(d, '$.a.b') AS found, json_set(d, '$.c', 'z') AS changed,"
        " (SELECT group_concat(key) FROM json_each(d)) AS keys FROM (SELECT ? AS d)"
    )
    (row,) = _rows(connect().query(sql, ['{"a":{"b":"x"},"c":"y"}']))
    expected = {"found": "x", "changed": '{"a":{"b":"x"},"c":"z"}', "keys": "a,c"}
    _same(dict(row), expected, sql)


def tables_may_be_made_and_described(connect: Connect) -> None:
    """Tables without a rowid can be made, looked at and given columns in one batch."""
    results = _run(
        connect(),
        ("CREATE TABLE IF NOT EXISTS k (a TEXT, b TEXT, PRIMARY KEY (a, b)) WITHOUT ROWID",),
        ("ALTER TABLE k ADD COLUMN c TEXT NOT NULL DEFAULT 'd'",),
        ("INSERT INTO k (a, b) VALUES (?, ?)", "x", "y"),
        ("SELECT name FROM pragma_table_info(?) WHERE pk > 0", "k"),
        ("SELECT c FROM k",),
    )
    _same(results[3:], [[{"name": "a"}, {"name": "b"}], [{"c": "d"}]], "the table that was made")


# -- limits ----------------------------------------------------------------------------------------


def a_batch_may_be_long(connect: Connect) -> None:
    """A batch may have 100 statements with 100 parameters each."""
    sql = f"SELECT max({', '.join('?' * MOST_PARAMETERS)}) AS a"
    values = [f"{number:03}" for number in range(MOST_PARAMETERS)]
    results = _run(connect(), *[(sql, *values)] * MOST_STATEMENTS)
    _same(results, [[{"a": values[-1]}]] * MOST_STATEMENTS, "the longest batch")


def a_statement_may_be_long(connect: Connect) -> None:
    """A statement may have 100 KB of text."""
    sql = "SELECT 'x' AS a /* */"
    sql = sql.replace("*/", "-" * (MOST_SQL - len(sql)) + "*/")
    _same(_rows(connect().query(sql)), [{"a": "x"}], "a statement of 100 KB")


def a_row_may_be_large(connect: Connect) -> None:
    """A row may have almost 2 MB, or what the database says with ``max_row_bytes``."""
    database = connect()
    limit = getattr(database, "max_row_bytes", None)
    assert limit is None or limit > 0, f"max_row_bytes={limit!r} | must be None or bytes"
    size = _ROW_BYTES if limit is None else min(limit, _ROW_BYTES)
    _run(database, (_CREATE,), (_INSERT, "x" * size))
    (row,) = _rows(database.query("SELECT length(a) AS size, a FROM t"))
    _same((row["size"], len(row["a"])), (size, size), "the size of a large row")


# -- several at once -------------------------------------------------------------------------------


def a_handle_serves_several_threads(connect: Connect) -> None:
    """Threads that use one handle at once lose no row, and their transactions don't mix."""
    database = connect()
    database.query(_CREATE)

    def write(name: str) -> None:
        for _ in range(10):
            _run(database, *[(_INSERT, name)] * 3)

    _at_once([partial(write, name) for name in "abcd"])
    rows = _values(database)
    _same(sorted(rows), sorted("abcd" * 30), "the rows of four threads")
    blocks = [set(rows[index : index + 3]) for index in range(0, len(rows), 3)]
    assert all(len(block) == 1 for block in blocks), "transactions of two threads are mixed"


def of_racing_updates_one_is_applied(connect: Connect) -> None:
    """Of handles that update a row of a version at once one does, and the others find nothing."""
    rounds, racers = 5, [connect() for _ in range(4)]
    _run(racers[0], (_CREATE,), ("INSERT INTO t (a, n) VALUES ('x', 0)",))
    update = "UPDATE t SET n = n + 1 WHERE n = CAST(? AS INTEGER) RETURNING n"
    for number in range(rounds):
        answers = _at_once([partial(_run, racer, (update, number)) for racer in racers])
        won = [row for (rows,) in answers for row in rows]
        _same(won, [{"n": number + 1}], "what racing updates returned")


CHECKS: Final[tuple[Check, ...]] = (
    rows_come_by_the_names_of_their_columns,
    no_rows_are_an_empty_list,
    text_and_null_are_bound_as_they_are,
    whole_numbers_can_be_bound,
    a_query_is_committed,
    an_error_says_what_sqlite_says,
    a_batch_has_a_result_a_statement,
    a_transaction_stays_when_it_ends_well,
    a_transaction_that_fails_leaves_nothing,
    writes_return_rows,
    json_is_read_and_changed,
    tables_may_be_made_and_described,
    a_batch_may_be_long,
    a_statement_may_be_long,
    a_row_may_be_large,
    a_handle_serves_several_threads,
    of_racing_updates_one_is_applied,
)
"""All checks."""


# -- what the checks say often ---------------------------------------------------------------------


def _run(database: Database, *statements: tuple[Value, ...]) -> list[list[Any]]:
    """Run statements, each SQL text and its parameters, as the library does: in a transaction."""
    batch: list[Statement] = [{"sql": str(sql), "params": params} for sql, *params in statements]
    results = database.batch(batch, transaction=True)
    _same(len(results), len(batch), "the number of a batch's results")
    return [_rows(result) for result in results]


def _rows(result: Result) -> list[dict[str, Any]]:
    return [dict(row) for row in result["data"]]


def _values(database: Database) -> list[str]:
    return [row["a"] for row in _rows(database.query("SELECT a FROM t ORDER BY rowid"))]


def _same(found: object, expected: object, what: str) -> None:
    assert found == expected, f"{what}: {found!r:.500} was found, {expected!r:.500} was expected"


def _error(call: Callable[[], object]) -> Exception | None:
    try:
        call()
    except Exception as error:  # noqa: BLE001 - a database may raise what it likes
        return error
    return None


def _at_once(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """Call all in threads that begin together, and return what they returned."""
    barrier = threading.Barrier(len(calls), timeout=_PATIENCE)
    answers: list[Any] = []
    errors: list[Exception] = []

    def run(call: Callable[[], Any]) -> None:
        try:
            barrier.wait()
            answers.append(call())
        except Exception as error:  # noqa: BLE001 - shown below
            errors.append(error)

    threads = [threading.Thread(target=run, args=(call,), daemon=True) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(_PATIENCE)
    _same(errors, [], "the errors of threads")
    assert len(answers) == len(calls), f"threads didn't end within {_PATIENCE:g} seconds"
    return answers
