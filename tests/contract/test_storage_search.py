"""Full-text search over values, kept beside them."""

import time

import pytest

from strands_persql import LocalDatabase
from strands_persql.errors import SchemaError
from strands_persql.testing import CountingDatabase, FaultyDatabase
from tests.engine.engine import Engine
from tests.storages import (
    LATEST,
    FullTextSearch,
    PerSQLStorage,
    StorageConflictError,
    StorageError,
    run,
    snapshot,
    storage_of,
    text_of,
)
from tests.support.backends import FAST, Backend


def searchable(backend: Backend, **options: object) -> PerSQLStorage:
    """Make a storage with an index."""
    return storage_of(backend, search_strategy=FullTextSearch(**options))  # type: ignore[arg-type]


def found(storage: PerSQLStorage, query: str) -> list[str]:
    """Return the keys that a search finds."""
    return [hit.key for hit in run(storage.search(query))]


def test_values_are_found_by_beginnings_of_words(backend: Backend) -> None:
    """All words of a query, or beginnings of words, must be there; case and accents don't count."""
    storage = searchable(backend)
    run(storage.write("notes/theme.md", "Enable dark mode in the Café's settings.".encode()))
    run(storage.write("notes/deploy.md", b"Deploy to production; dark launches."))

    assert found(storage, "DARK mode") == ["notes/theme.md"]
    assert found(storage, "cafe setting") == ["notes/theme.md"]
    assert sorted(found(storage, "dark")) == ["notes/deploy.md", "notes/theme.md"]
    assert found(storage, "dark absent") == []
    assert found(storage, "the is of") == []
    assert found(storage, 'mode" OR content : *') == []


def test_the_best_comes_first_with_a_snippet(backend: Backend) -> None:
    """Results are ranked by BM25, scored between 0 and 1, and quote what was found, briefly."""
    storage = searchable(backend)
    for number in range(12):
        run(storage.write(f"other/{number}", text_of(2_000, number).encode()))
    run(storage.write("a", (text_of(3_000) + " falcon " + text_of(3_000, 1)).encode()))
    run(storage.write("b", b"falcon falcon, the falcon"))

    hits = run(storage.search("falcon"))

    assert [hit.key for hit in hits] == ["b", "a"]
    assert 1 > hits[0].score > hits[1].score > 0
    assert all("falcon" in hit.snippet and len(hit.snippet) <= 400 for hit in hits)  # type: ignore[attr-defined]


def test_a_search_finds_no_more_than_its_limit(backend: Backend) -> None:
    """The best ones of many are found, as many as the strategy says."""
    storage = searchable(backend, limit=3)
    for number in range(6):
        run(storage.write(str(number), b"falcon"))

    assert len(found(storage, "falcon")) == 3


def test_a_namespace_finds_its_own(backend: Backend) -> None:
    """Within a namespace only its values are found, by their keys there."""
    storage = searchable(backend)
    run(storage.write("memory/a/x.md", b"falcon"))
    run(storage.write("memory/ab/x.md", b"falcon"))

    assert found(storage.namespace("memory/a"), "falcon") == ["x.md"]
    assert sorted(found(storage.namespace("memory"), "falcon")) == ["a/x.md", "ab/x.md"]


def test_what_is_replaced_or_deleted_is_not_found(backend: Backend) -> None:
    """Text that is gone from the values is gone from the index, in the same transaction."""
    storage = searchable(backend)
    for key in ("a/1", "a/2", "a/3", "b"):
        run(storage.write(key, b"falcon"))
    run(storage.write("a/1", b"sparrow"))
    run(storage.delete("a/2"))
    assert sorted(found(storage, "falcon")) == ["a/3", "b"]
    assert found(storage, "sparrow") == ["a/1"]

    run(storage.delete_prefix("a/"))

    assert found(storage, "falcon sparrow") == found(storage, "sparrow") == []
    assert len(backend.raw("SELECT rowid FROM strands_search")) == 1


def test_a_save_with_its_index_is_one_round_trip(backend: Backend) -> None:
    """The index is written with the value."""
    storage = searchable(backend)
    storage.setup()
    backend.database.reset()
    run(storage.write("k", b"falcon"))
    run(storage.write("k", b"sparrow"))

    assert backend.database.round_trips == 2


def test_a_refused_save_is_not_indexed(backend: Backend) -> None:
    """What wasn't written isn't found, and a doubled request indexes nothing twice."""
    searchable(backend).setup()
    doubled = FaultyDatabase(backend.plain, lambda _: "duplicate")
    first = PerSQLStorage(doubled, retry=FAST, search_strategy=FullTextSearch())
    second = searchable(backend)
    run(first.write("k", b"falcon"))
    run(second.read("k"))
    run(first.write("k", b"falcon again"))

    with pytest.raises(StorageConflictError):
        run(second.write("k", b"sparrow"))
    assert found(second, "sparrow") == []
    assert found(second, "falcon") == ["k"]
    assert len(backend.raw("SELECT rowid FROM strands_search")) == 1


def test_what_others_changed_without_an_index_is_not_found_as_it_was(backend: Backend) -> None:
    """A value that was changed or deleted by a storage without an index isn't found stale."""
    storage, plain = searchable(backend), storage_of(backend)
    for key in ("a", "b", "c"):
        run(storage.write(key, b"falcon"))
    run(plain.write("a", b"sparrow"))
    run(plain.delete("b"))

    assert found(storage, "falcon") == ["c"]

    strategy = FullTextSearch()
    run(strategy.index(storage, "a", run(storage.read("a")) or b""))
    assert found(storage, "sparrow") == ["a"]


def test_snapshots_and_bytes_are_not_indexed(backend: Backend) -> None:
    """Snapshots, hidden files and bytes that are no text stay out, unless asked for."""
    storage = searchable(backend)
    run(storage.write(LATEST, snapshot([1])))
    run(storage.write("a/.hidden", b"falcon"))
    run(storage.write("bytes", b"falcon"))
    run(storage.write("bytes", b"falcon\xff"))
    assert backend.raw("SELECT rowid FROM strands_search") == []

    chosen = searchable(backend, includes=lambda key: key.startswith("a/"))
    run(chosen.write("a/.hidden", b"falcon!"))
    assert found(chosen, "falcon") == ["a/.hidden"]


def test_the_index_is_made_when_it_is_missed(backend: Backend) -> None:
    """The first search, write or deletion makes the index, and goes on."""
    run(storage_of(backend).write("k", b"falcon"))

    assert found(searchable(backend), "falcon") == []
    backend.raw("DROP TABLE strands_search")
    run(searchable(backend).delete("k"))
    backend.raw("DROP TABLE strands_search")
    run(searchable(backend).write("k", b"falcon"))
    assert found(searchable(backend), "falcon") == ["k"]


def test_who_may_not_make_the_index_gets_its_sql(engine: Engine, database_name: str) -> None:
    """A token without the right to create tables is told what somebody else has to run."""
    from strands_persql import RestClient  # noqa: PLC0415

    with (
        RestClient(engine.token(role="admin"), base_url=engine.base_url) as admin,
        RestClient(engine.token(role="readwrite"), base_url=engine.base_url) as client,
    ):
        PerSQLStorage(admin.database(database_name)).setup()
        storage = PerSQLStorage(client.database(database_name), search_strategy=FullTextSearch())

        with pytest.raises(SchemaError) as raised:
            run(storage.write("k", b"falcon"))
        assert isinstance(raised.value, StorageError)
        for sql in raised.value.sql.split(";\n"):
            admin.database(database_name).query(sql.rstrip(";"))
        run(storage.write("k", b"falcon"))
        assert found(storage, "falcon") == ["k"]


def test_a_search_among_many_values_is_quick() -> None:
    """Finding one of 20,000 values asks for a few rows, and takes milliseconds."""
    with LocalDatabase() as local:
        storage = PerSQLStorage(CountingDatabase(local), search_strategy=FullTextSearch())
        storage.setup()
        rows = "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 19999)"
        local.query(
            f"INSERT INTO strands_search (scope, ref, mark, content) {rows}"
            " SELECT 'x', 'k' || i, 'm', 'falcon number ' || i FROM n"
        )
        local.query(f"INSERT INTO strands_objects (key, digest) {rows} SELECT 'k' || i, 'm' FROM n")
        began = time.perf_counter()

        assert found(storage, "number 12345") == ["k12345"]
        assert time.perf_counter() - began < 1.0
