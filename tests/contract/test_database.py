"""What the library asks of a database: queries, and batches that stand or fall together."""

import threading

import pytest

from tests.contract.backends import Backend

INSERT = "INSERT INTO t (a) VALUES (?)"


def values(backend: Backend) -> list[object]:
    """Give what the table has."""
    return [row["a"] for row in backend.raw("SELECT a FROM t ORDER BY rowid")]


def test_rows_come_back_by_the_names_of_their_columns(backend: Backend) -> None:
    """A result's ``data`` is a list of rows by column name, in order."""
    sql = "SELECT 1 AS one, 'x' AS \"two words\" UNION ALL SELECT 2, NULL"
    expected = [{"one": 1, "two words": "x"}, {"one": 2, "two words": None}]
    assert [dict(row) for row in backend.plain.query(sql)["data"]] == expected
    assert list(backend.plain.query("SELECT 1 WHERE 0")["data"]) == []


def test_text_and_null_are_bound_as_they_are(backend: Backend) -> None:
    """Parameters never become SQL, and come back as they were."""
    texts = ["", "'; DROP TABLE t; --", "naïve 日本 🎉", "a\nb", '{"a": 1}', None]
    found = [backend.raw("SELECT ? AS a", text)[0]["a"] for text in texts]
    assert found == texts


def test_a_batch_gives_a_result_for_each_statement(backend: Backend) -> None:
    """Results come in the order of the statements, and later ones see earlier ones' rows."""
    backend.raw("CREATE TABLE t (a)")
    results = backend.plain.batch(
        [
            {"sql": INSERT, "params": ["x"]},
            {"sql": "SELECT a FROM t"},
            {"sql": INSERT + " RETURNING a", "params": ["y"]},
            {"sql": "SELECT changes() AS n", "params": []},
        ],
        transaction=True,
    )
    data = [[dict(row) for row in result["data"]] for result in results]
    assert data == [[], [{"a": "x"}], [{"a": "y"}], [{"n": 1}]]


def test_a_transaction_that_fails_leaves_nothing(backend: Backend) -> None:
    """When a statement of a transaction fails the batch raises, and none of it stays."""
    backend.raw("CREATE TABLE t (a)")
    with pytest.raises(Exception, match="no such table"):
        backend.plain.batch(
            [{"sql": INSERT, "params": ["x"]}, {"sql": "INSERT INTO missing VALUES (1)"}],
            transaction=True,
        )
    assert values(backend) == []
    backend.plain.batch([{"sql": INSERT, "params": ["y"]}], transaction=True)
    assert values(backend) == ["y"]


def test_a_failed_statement_says_what_sqlite_says(backend: Backend) -> None:
    """An error's text names the table that is missing, by which its cause is known."""
    with pytest.raises(Exception, match="no such table: missing"):
        backend.plain.query("SELECT * FROM missing")


def test_two_handles_see_each_others_rows(backend: Backend) -> None:
    """What one handle has written is there for another at once."""
    backend.raw("CREATE TABLE t (a)")
    backend.raw(INSERT, "x")
    assert [dict(r) for r in backend.reopen().query("SELECT a FROM t")["data"]] == [{"a": "x"}]


def test_a_handle_serves_several_threads(backend: Backend) -> None:
    """Threads that use one handle at once lose no row, and transactions don't mix."""
    backend.raw("CREATE TABLE t (a)")

    def write(name: str) -> None:
        for _ in range(10):
            backend.plain.batch([{"sql": INSERT, "params": [name]}] * 3, transaction=True)

    threads = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = values(backend)
    assert len(found) == 120
    assert all(len(set(found[index : index + 3])) == 1 for index in range(0, 120, 3))
