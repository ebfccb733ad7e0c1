"""Owners of values: nobody reads, finds or changes another one's, whatever the keys."""

import inspect
import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from strands_persql import LocalDatabase, PerSQLSessionRepository
from strands_persql.errors import PerSQLError
from tests.storages import (
    FullTextSearch,
    PerSQLStorage,
    StorageError,
    agent_of,
    run,
    session_from_snapshots,
    snapshots_from_session,
)
from tests.support.backends import FAST, Backend

WORDS = "nobody else is to read this"
KEYS = [
    "session/x/notes",
    "@alice~/session/x/notes",
    "/@alice~/session/x/notes",
    "../@alice~/session/x/notes",
    "session/x/../../@alice~/session/x/notes",
    "@alice~",
    "",
    "%",
]
REFUSED = (StorageError, PerSQLError, ValueError)


async def _keys(storage: PerSQLStorage, prefix: str) -> list[str]:
    return [key async for key in storage.keys(prefix)]


async def _now(call: Callable[[], Any]) -> Any:
    return call()


ATTEMPTS: dict[str, Callable[[PerSQLStorage, str], Awaitable[Any]]] = {
    "delete": lambda storage, key: storage.delete(key),
    "delete_prefix": lambda storage, key: storage.delete_prefix(key),
    "delete_session": lambda storage, key: storage.delete_session(key.split("/")[0] or "x"),
    "for_owner": lambda storage, _: _now(lambda: storage.for_owner("alice")),
    "keys": _keys,
    "list": lambda storage, key: storage.list(key),
    "namespace": lambda storage, key: storage.namespace(key).list(),
    "place_of": lambda storage, key: _now(lambda: storage.place_of(key)),
    "read": lambda storage, key: storage.read(key),
    "search": lambda storage, _: storage.search(WORDS),
    "session_prefix": lambda storage, _: storage.list(storage.session_prefix("x")),
    "sweep": lambda storage, _: storage.sweep(),
    "view": lambda storage, key: storage.view().read(key),
    "write": lambda storage, key: storage.write(key, b"mine"),
    "session_from_snapshots": lambda storage, _: session_from_snapshots(storage, "x"),
    "snapshots_from_session": lambda storage, _: snapshots_from_session(storage, "x"),
}
HARMLESS = {"setup": "is about tables", "stats": "counts requests of the process"}


def alices(storage: PerSQLStorage) -> None:
    """Store a note and a session of Alice's."""
    alice = storage.for_owner("alice")
    run(alice.write("session/x/notes", WORDS.encode()))
    agent_of(alice, WORDS, session="x")(WORDS)
    run(session_from_snapshots(alice, "x"))


def rows(backend: Backend) -> list[Any]:
    """Return what the tables have of Alice's."""
    tables = {
        row["name"]: row["column"]
        for row in backend.raw(
            "SELECT m.name, c.name AS column"
            " FROM sqlite_master AS m, pragma_table_info(m.name) AS c"
            " WHERE m.type = 'table' AND m.name LIKE 'strands!_%' ESCAPE '!'"
            " AND c.name IN ('key', 'pool', 'session_id')"
        )
    }
    return [
        backend.raw(f"SELECT * FROM {table} WHERE {key} LIKE '@alice~%' ORDER BY 1, 2, 3")
        for table, key in sorted(tables.items())
    ]


def tried(call: Callable[[PerSQLStorage, str], Awaitable[Any]], storage: Any, key: str) -> Any:
    """Return what an attempt brought, or the error that it ended with."""

    async def attempt() -> Any:
        return await call(storage, key)

    try:
        return run(attempt())
    except REFUSED as error:
        return error


@pytest.mark.guarantee(number=23)
def test_every_public_method_is_tried() -> None:
    """A method that is new is tried by the attacker, or said to be about no value."""
    names = {name for name, _ in inspect.getmembers(PerSQLStorage, callable) if name[0] != "_"}
    assert names - HARMLESS.keys() == ATTEMPTS.keys() - {
        "session_from_snapshots",
        "snapshots_from_session",
    }


@pytest.mark.guarantee(number=23)
@pytest.mark.parametrize("name", ATTEMPTS)
def test_an_attacker_neither_sees_nor_touches_anything(backend: Backend, name: str) -> None:
    """Whatever Bob calls with whatever keys tells nothing of Alice's values and leaves them."""
    storage = PerSQLStorage(
        backend.database, retry=FAST, max_staleness=3600.0, search_strategy=FullTextSearch()
    )
    alices(storage)
    before = rows(backend)
    assert sum(map(len, before)) > 4
    with LocalDatabase() as empty:
        alone = PerSQLStorage(empty, owner="bob", search_strategy=FullTextSearch())
        for key in KEYS:
            found = tried(ATTEMPTS[name], storage.for_owner("bob"), key)
            assert WORDS not in repr(found)
            expected = tried(ATTEMPTS[name], alone, key)
            assert masked(found) == masked(expected), key
    assert rows(backend) == before
    assert run(storage.for_owner("alice").read("session/x/notes")) == WORDS.encode()
    assert PerSQLSessionRepository(backend.database, owner="alice").read_session("x") is not None


def masked(found: Any) -> str:
    """Return an answer without what is another in each database."""
    return re.sub(r"(Counting|Local|Rest)Database\(.*\)|Sdk\w+|0x\w+", "#", repr(found))


def test_two_owners_may_use_the_same_key(backend: Backend) -> None:
    """Each has a value of its own under it, and finds only that."""
    storage = PerSQLStorage(backend.database, retry=FAST, search_strategy=FullTextSearch())
    for owner in ("alice", "bob"):
        run(storage.for_owner(owner).write("notes", f"a falcon of {owner}".encode()))
    for owner in ("alice", "bob"):
        narrowed = PerSQLStorage(
            backend.database, retry=FAST, search_strategy=FullTextSearch(), owner=owner
        )
        assert run(narrowed.read("notes")) == f"a falcon of {owner}".encode()
        assert run(narrowed.list()) == ["notes"]
        assert [one.key for one in run(narrowed.search("falcon"))] == ["notes"]
    assert run(storage.list()) == ["@alice~/notes", "@bob~/notes"]
    run(storage.for_owner("bob").delete_prefix(""))
    assert run(storage.list()) == ["@alice~/notes"]


def test_a_narrowed_storage_is_not_widened() -> None:
    """Neither an owner's storage nor a namespace can be made another owner's."""
    with LocalDatabase() as database:
        storage = PerSQLStorage(database)
        for narrowed in (storage.for_owner("alice"), storage.namespace("notes")):
            with pytest.raises(ValueError, match="narrowed already"):
                narrowed.for_owner("bob")
        for owner in ("", "a\0"):
            with pytest.raises(ValueError, match="owner="):
                storage.for_owner(owner)
        assert storage.for_owner("alice").namespace("notes").owner == "alice"
        assert "@alice~/" in repr(storage.for_owner("alice"))
