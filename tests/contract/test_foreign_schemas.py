"""A file of somebody else's: nothing is read from or written to what only looks like a table."""

import asyncio
import io
from collections.abc import Callable
from typing import Any

import pytest
from strands import Agent

from strands_persql import (
    Database,
    DatabaseOpenError,
    LocalDatabase,
    PerSQLSessionManager,
    PerSQLSessionRepository,
)
from strands_persql.admin import SessionAdmin
from strands_persql.testing import CountingDatabase, ScriptedModel
from tests.support.conversation import session

TRIGGER = (
    "CREATE TRIGGER spy AFTER INSERT ON strands_{table} BEGIN"
    " INSERT INTO loot SELECT {column} FROM strands_{table}; END"
)
OPENERS: dict[str, Callable[[Database], Any]] = {
    "manager": lambda database: PerSQLSessionManager("s", database),
    "first write": lambda database: PerSQLSessionRepository(database).create_session(session("t")),
    "deletion": lambda database: PerSQLSessionRepository(database).delete_session("s"),
    "list": lambda database: PerSQLSessionRepository(database).list_sessions(),
    "setup": lambda database: PerSQLSessionRepository(database).setup(),
    "admin": lambda database: SessionAdmin(database).list_sessions(),
    "check": lambda database: list(SessionAdmin(database).check()),
    "export": lambda database: SessionAdmin(database).export_archive(io.BytesIO()),
    "erasure": lambda database: SessionAdmin(database).erase("s"),
}


def lived_in(database: Database) -> None:
    """Go through a turn."""
    manager = PerSQLSessionManager("s", database)
    Agent(model=ScriptedModel(["hi"]), session_manager=manager, callback_handler=None)("hello")


@pytest.mark.parametrize("opener", OPENERS)
@pytest.mark.parametrize(
    "made",
    [
        [TRIGGER.format(table="messages", column="data")],
        [TRIGGER.format(table="sessions", column="data")],
        [
            "ALTER TABLE strands_agents RENAME TO kept",
            "CREATE VIEW strands_agents AS SELECT * FROM kept",
        ],
        ["DROP TABLE strands_messages", "CREATE VIRTUAL TABLE strands_messages USING fts5(data)"],
        ["CREATE VIEW strands_search AS SELECT 1 AS content"],
    ],
    ids=["trigger", "trigger on sessions", "view", "virtual table", "view for an index"],
)
def test_what_only_looks_like_a_table_is_refused(opener: str, made: list[str]) -> None:
    """Whoever opens the file is told what is there, and nothing has run."""
    with LocalDatabase() as database:
        lived_in(database)
        database.query("CREATE TABLE loot (data)")
        for sql in made:
            database.query(sql)
        with pytest.raises(DatabaseOpenError, match="which this package didn't make") as caught:
            OPENERS[opener](CountingDatabase(database))
        assert caught.value.kind == "foreign_schema"
        assert database.query("SELECT * FROM loot")["data"] == []
        assert database.query("SELECT session_id FROM strands_sessions")["data"] == [
            {"session_id": "s"}
        ]


@pytest.mark.parametrize("call", ["read", "write", "list"])
def test_a_storage_refuses_it_too(call: str) -> None:
    """A trigger on the values' table is refused by reads and writes of a storage."""
    pytest.importorskip("strands.storage", reason="this version of Strands has no storages")
    from strands_persql import PerSQLStorage  # noqa: PLC0415 - of newer versions

    with LocalDatabase() as database:
        asyncio.run(PerSQLStorage(database).write("k", b"v"))
        database.query("CREATE TABLE loot (data)")
        database.query(TRIGGER.format(table="objects", column="data"))
        storage = PerSQLStorage(database)
        calls: dict[str, Callable[[], Any]] = {
            "read": lambda: storage.read("k"),
            "write": lambda: storage.write("l", b"w"),
            "list": lambda: storage.list(""),
        }
        with pytest.raises(DatabaseOpenError, match="has the trigger 'spy'"):
            asyncio.run(calls[call]())
        assert database.query("SELECT * FROM loot")["data"] == []


def test_the_look_costs_no_round_trip() -> None:
    """The schema is looked at once, before the first request, and not as a request of its own."""
    with LocalDatabase() as database:
        lived_in(database)
        counting = CountingDatabase(database)
        repository = PerSQLSessionRepository(counting)
        for _ in range(3):
            repository.read_session("s")
        assert counting.round_trips == 3


def test_what_is_of_others_in_the_same_file_is_left_alone() -> None:
    """Views and triggers on other tables, and on tables of another prefix, are no matter."""
    with LocalDatabase() as database:
        database.query("CREATE TABLE mine (a)")
        database.query("CREATE TRIGGER t AFTER INSERT ON mine BEGIN SELECT 1; END")
        database.query("CREATE VIEW app_agents AS SELECT 1 AS a")
        lived_in(database)
        assert PerSQLSessionRepository(database).read_session("s") is not None
