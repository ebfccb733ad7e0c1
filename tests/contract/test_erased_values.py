"""What storages keep of a session is erased with it: values, parts and words of their index."""

from pathlib import Path

import pytest

from strands_persql import LocalDatabase
from strands_persql.admin import SessionAdmin
from tests.contract.agents import Scene, unmanaged
from tests.storages import FAST, FullTextSearch, PerSQLStorage, agent_of, run, storage_of, text_of
from tests.support.backends import Backend

_SECRET = "b1u3b3rry"  # noqa: S105 - a word to look for


def fill(storage: PerSQLStorage, session_id: str, word: str) -> None:
    """Store snapshots of a session, and texts that a context manager has put aside."""
    agent = agent_of(
        storage.view(), f"{word} one {text_of(20_000)}", f"{word} two", session=session_id
    )
    agent("q0")
    agent("q1")
    for number in range(3):
        run(storage.write(f"context/{session_id}/{number}.md", f"{word} {number}".encode()))


def keys(storage: PerSQLStorage) -> set[str]:
    """Return the sessions that a storage has values of."""
    return {key.split("/")[1] for key in run(storage.list(""))}


@pytest.mark.parametrize("owner", [None, "ann"])
def test_values_of_a_session_go_with_it(backend: Backend, owner: str | None) -> None:
    """Those of its name, of its owner alone, and of no other session; it says how many."""
    storages = {
        name: storage_of(backend, search_strategy=FullTextSearch(), owner=name)
        for name in (None, "ann", "ben")
    }
    for name, storage in storages.items():
        for session_id in ("s", "st", "t"):
            fill(storage, session_id, f"word{name}")
    Scene(backend, make=unmanaged).open()("hello")

    admin = SessionAdmin(backend.database, retry=FAST, owner=owner)
    erasure = admin.erase("s")

    assert erasure.rows["objects"] >= 4
    assert erasure.rows["parts"] > 0
    assert erasure.bytes > 0
    for name, storage in storages.items():
        own = keys(storage) if name else {key for key in keys(storage) if "~" not in key}
        assert ("s" in own) == (name != owner)
        assert {"st", "t"} <= own
        found = {hit.key.split("/")[1] for hit in run(storage.search(f"word{name}"))}
        assert ("s" in found) == (name != owner)
    again = admin.erase("s")
    assert (again.was_there, again.rows["objects"], again.rows["parts"]) == (False, 0, 0)


def test_a_session_that_storages_alone_have(backend: Backend) -> None:
    """A session of Strands' snapshots is erased by its name too."""
    fill(storage_of(backend), "s", "hello")
    erasure = SessionAdmin(backend.database, retry=FAST).erase("s")
    assert erasure.was_there
    assert erasure.rows["sessions"] == 0
    assert not backend.raw("SELECT 1 FROM strands_objects")
    assert not backend.raw("SELECT 1 FROM strands_parts")


def test_no_byte_of_it_is_in_the_files(tmp_path: Path) -> None:
    """Neither a value, nor a key, nor a word of the index."""
    with LocalDatabase(tmp_path / "agents.db") as database:
        storage = PerSQLStorage(database, search_strategy=FullTextSearch())
        fill(storage, f"{_SECRET}-s", _SECRET)
        fill(storage, "other", "kept")
        assert any(_SECRET.encode() in one.read_bytes() for one in tmp_path.iterdir())

        assert SessionAdmin(database).erase(f"{_SECRET}-s").is_purged

        for file in tmp_path.iterdir():
            assert _SECRET.encode() not in file.read_bytes(), file
        assert keys(storage) == {"other"}
        assert len(run(storage.search("kept"))) == 3
