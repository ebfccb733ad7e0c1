"""Strands' contract of a storage, on every database."""

import asyncio
from collections.abc import Callable
from unittest.mock import AsyncMock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.storages import (
    FullTextSearch,
    PerSQLStorage,
    Storage,
    StorageError,
    parts,
    run,
    storage_of,
    text_of,
)
from tests.support.backends import Backend

VALUES = {
    "nothing": b"",
    "a word": b"hello",
    "UTF-8": "é 漢字 \U0001f600 \ufeff \u2028 'quoted' \"twice\" \\".encode(),
    "all bytes": bytes(range(256)),
    "text with NUL": b"a\0b",
    "a large text": text_of(300_000).encode(),
    "a large text of wide characters": (text_of(700) + "漢\U0001f600" * 90_000).encode(),
    "large bytes": bytes(range(256)) * 1_000,
}


@pytest.mark.parametrize("name", VALUES)
def test_what_is_written_is_read(backend: Backend, name: str) -> None:
    """Any bytes come back as they are, here and in a process that has seen nothing of them."""
    here, elsewhere = storage_of(backend), storage_of(backend)

    run(here.write("a/b", VALUES[name]))

    assert run(here.read("a/b")) == run(elsewhere.read("a/b")) == VALUES[name]


@pytest.mark.parametrize("first", VALUES)
def test_a_value_is_replaced_by_any_other(backend: Backend, first: str) -> None:
    """A value of any kind takes another one's place, whole, and leaves nothing of it."""
    storage = storage_of(backend)
    for value in VALUES.values():
        run(storage.write("k", VALUES[first]))
        run(storage.write("k", value))
        assert run(storage_of(backend).read("k")) == value

    run(storage.delete("k"))

    assert parts(backend) == {}


def test_a_storage_is_one_of_strands(backend: Backend) -> None:
    """Strands takes it for a storage, and so do its namespaces and views."""
    storage = storage_of(backend)

    for one in (storage, storage.namespace("x"), storage.view()):
        assert isinstance(one, Storage)
        assert isinstance(one, PerSQLStorage)


def test_what_is_not_there_is_none(backend: Backend) -> None:
    """A key without a value is read as None, and can be deleted."""
    storage = storage_of(backend)

    run(storage.delete("missing"))

    assert run(storage.read("missing")) is None


def test_what_is_deleted_is_gone(backend: Backend) -> None:
    """A deleted value is gone for everyone, and may be written anew."""
    storage, other = storage_of(backend), storage_of(backend)
    run(storage.write("k", b"first"))
    run(other.delete("k"))

    assert run(storage.read("k")) is None
    run(storage.write("k", b"second"))
    assert run(other.read("k")) == b"second"


def test_keys_are_listed_by_prefix(backend: Backend) -> None:
    """A listing has the keys that begin with a prefix, sorted, and nothing else."""
    storage = storage_of(backend)
    keys = ["a", "a/1", "a/2", "a0", "b/1", "é", "漢", "a/\U0010ffff", "A/1", "a_/1", "a%/1"]
    for key in keys:
        run(storage.write(key, b""))

    assert run(storage.list()) == run(storage.list("")) == sorted(keys)
    assert run(storage.list("a/")) == ["a/1", "a/2", "a/\U0010ffff"]
    assert run(storage.list("a_")) == ["a_/1"]
    assert run(storage.list("a%")) == ["a%/1"]
    assert run(storage.list("/a//")) == run(storage.list("a/"))
    assert run(storage.list("a/\U0010ffff")) == ["a/\U0010ffff"]
    assert run(storage.list("nothing")) == []


@pytest.mark.parametrize("key", ["", "/", "a/../b", "..", "a\\b", "a\0b", "\ud800", 7, None])
def test_a_key_that_no_storage_takes_is_refused(backend: Backend, key: object) -> None:
    """A key that can't be one is refused with Strands' error, before anything is sent."""
    storage = storage_of(backend)

    for call in (storage.read, storage.delete, lambda one: storage.write(one, b"x")):
        with pytest.raises(StorageError):
            run(call(key))  # type: ignore[arg-type]
    assert backend.database.round_trips == 0


def outcome(call: Callable[[str], str], text: str) -> str:
    """Return what a call returns, or what its error says."""
    try:
        return call(text)
    except StorageError as error:
        return str(error)


@given(st.text(alphabet="/.a\\b", max_size=8))
def test_keys_are_written_as_strands_writes_them(text: str) -> None:
    """A key and a prefix become what Strands' own storages make of them, or are refused alike."""
    from strands.storage import storage as theirs  # noqa: PLC0415 - private, for this test alone

    from strands_persql.snapshots import keys as ours  # noqa: PLC0415

    for kind in ("key", "prefix"):
        expected = outcome(getattr(theirs, f"_normalize_{kind}"), text)
        assert outcome(getattr(ours, f"normalized_{kind}"), text) == expected


def test_a_namespace_is_a_part_of_the_keys(backend: Backend) -> None:
    """A namespace sees the keys under its prefix, without it, and nests."""
    storage = storage_of(backend)
    inner = storage.namespace("/a//").namespace("b")
    run(inner.write("k", b"v"))
    run(storage.write("a/bc", b"other"))

    assert run(storage.read("a/b/k")) == b"v"
    assert run(inner.list()) == ["k"]
    assert run(storage.namespace("").list()) == ["a/b/k", "a/bc"]
    run(inner.delete("k"))
    assert run(storage.list()) == ["a/bc"]


def test_a_namespace_keeps_what_a_subclass_adds(backend: Backend) -> None:
    """Namespaces and views are of their storage's class, with its attributes."""

    class Tagged(PerSQLStorage):
        tag = ""

    storage = Tagged(backend.database)
    storage.tag = "mine"

    assert (storage.namespace("x").tag, storage.view().tag) == ("mine", "mine")


def test_changes_to_what_was_written_change_nothing(backend: Backend) -> None:
    """What a caller does to its bytes later stays its own."""
    storage, data = storage_of(backend), bytearray(b"mutable")
    run(storage.write("k", data))  # type: ignore[arg-type]
    data[0] = 0

    assert run(storage.read("k")) == b"mutable"


def test_words_are_searched_without_an_index(backend: Backend) -> None:
    """Without a strategy values are scanned for words, as in Strands' own storages."""
    storage = storage_of(backend)
    run(storage.write("notes/dark-mode.md", b"enable dark mode in settings"))
    run(storage.write("notes/deploy.md", b"deploy to production"))

    found = run(storage.search("dark mode"))

    assert [hit.key for hit in found] == ["notes/dark-mode.md"]


def test_any_strategy_of_strands_is_asked(backend: Backend) -> None:
    """A strategy is told each value that is written, by the storage and key that wrote it."""
    strategy = AsyncMock()
    strategy.search.return_value = []
    scoped = storage_of(backend, search_strategy=strategy).namespace("memory")

    run(scoped.write("/deploy.md", b"x"))
    run(scoped.search("query"))

    strategy.index.assert_awaited_once_with(scoped, "deploy.md", b"x")
    strategy.search.assert_awaited_once_with(scoped, "query")


def test_a_strategy_that_fails_says_that_the_value_is_written(backend: Backend) -> None:
    """Where a strategy fails, the value is there, and the error says so."""
    strategy = AsyncMock()
    strategy.index.side_effect = RuntimeError("no")
    storage = storage_of(backend, search_strategy=strategy)

    with pytest.raises(StorageError, match="Wrote 'k' but indexing failed"):
        run(storage.write("k", b"v"))
    assert run(storage.read("k")) == b"v"


def test_writes_of_one_key_come_in_the_order_in_which_they_were_asked_for(
    backend: Backend,
) -> None:
    """Of writes that are awaited together the last one stands."""
    storage = storage_of(backend)

    async def write() -> None:
        await asyncio.gather(*(storage.write("k", str(n).encode()) for n in range(8)))

    run(write())

    assert run(storage.read("k")) == b"7"


def test_a_cancelled_write_is_finished(backend: Backend) -> None:
    """A write whose caller was cancelled is done, and the next one builds on it."""
    storage = storage_of(backend)

    async def write() -> None:
        first = asyncio.ensure_future(storage.write("k", b"first"))
        await asyncio.sleep(0)
        first.cancel()
        await storage.write("k", b"second")

    run(write())

    assert run(storage.read("k")) == b"second"
    assert backend.raw("SELECT version FROM strands_objects")[0]["version"] == 2


def test_options_are_checked(backend: Backend) -> None:
    """Options out of their range are refused when a storage is made."""
    for options in ({"max_staleness": -1}, {"on_conflict": "merge"}, {"table_prefix": "no-go"}):
        with pytest.raises(ValueError, match=next(iter(options))):
            storage_of(backend, **options)
    with pytest.raises(ValueError, match="limit"):
        FullTextSearch(limit=0)


def test_a_storage_names_its_database_and_namespace(backend: Backend) -> None:
    """Its repr says where it is."""
    assert "under 'x/'" in repr(storage_of(backend).namespace("x"))
