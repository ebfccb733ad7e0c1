"""Tables of strands-persql 0.1, in the shapes that they may have: read, and written to."""

import json
from typing import Any

import pytest

from tests.support.backends import Backend
from tests.support.conversation import (
    Team,
    in_database,
    listed,
    said,
    session_agent,
    state_in_database,
    user,
)

TIME = "2025-01-02T03:04:05+00:00"
SHAPES: dict[str, dict[str, str]] = {
    "primary keys": {
        "sessions": "session_id TEXT PRIMARY KEY, data TEXT NOT NULL, created_at TEXT,"
        " updated_at TEXT",
        "agents": "session_id TEXT, agent_id TEXT, data TEXT NOT NULL, created_at TEXT,"
        " updated_at TEXT, PRIMARY KEY (session_id, agent_id)",
        "messages": "session_id TEXT, agent_id TEXT, message_id INTEGER, data TEXT NOT NULL,"
        " created_at TEXT, updated_at TEXT, PRIMARY KEY (session_id, agent_id, message_id)",
        "multi_agents": "session_id TEXT, multi_agent_id TEXT, data TEXT NOT NULL,"
        " created_at TEXT, updated_at TEXT, PRIMARY KEY (session_id, multi_agent_id)",
    },
    "no keys": {
        "sessions": "session_id TEXT, data TEXT, created_at TEXT",
        "agents": "session_id TEXT, agent_id TEXT, data TEXT, created_at TEXT",
        "messages": "session_id TEXT, agent_id TEXT, message_id INTEGER, data TEXT,"
        " created_at TEXT",
        "multi_agents": "session_id TEXT, multi_agent_id TEXT, data TEXT, created_at TEXT",
    },
    "row ids": {
        "sessions": "id INTEGER PRIMARY KEY AUTOINCREMENT, session_id TEXT NOT NULL UNIQUE,"
        " data TEXT, created_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP",
        "agents": "id INTEGER PRIMARY KEY AUTOINCREMENT, session_id TEXT NOT NULL,"
        " agent_id TEXT NOT NULL, data TEXT, created_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP,"
        " UNIQUE (session_id, agent_id)",
        "messages": "id INTEGER PRIMARY KEY AUTOINCREMENT, session_id TEXT NOT NULL,"
        " agent_id TEXT NOT NULL, message_id INTEGER NOT NULL, data TEXT,"
        " created_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP,"
        " UNIQUE (session_id, agent_id, message_id)",
        "multi_agents": "id INTEGER PRIMARY KEY AUTOINCREMENT, session_id TEXT NOT NULL,"
        " multi_agent_id TEXT NOT NULL, data TEXT,"
        " created_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP, UNIQUE (session_id, multi_agent_id)",
    },
}
shapes = pytest.mark.parametrize("shape", SHAPES)


def old(backend: Backend, shape: str, *texts: str, removed: int = 0) -> None:
    """Make the tables of 0.1 with one session, one agent, a team and messages in them."""
    for table, columns in SHAPES[shape].items():
        backend.raw(f"CREATE TABLE strands_{table} ({columns})")
    times = {"created_at": TIME, "updated_at": TIME}
    data: dict[str, Any] = {"session_id": "s", "session_type": "AGENT", **times}
    insert(backend, "sessions", data, session_id="s")
    state = {
        "__name__": "SlidingWindowConversationManager",
        "removed_message_count": removed,
        "model_call_count": 0,
    }
    data = {"agent_id": "a", "state": {"n": 1}, "conversation_manager_state": state}
    insert(
        backend, "agents", {**data, "_internal_state": {}, **times}, session_id="s", agent_id="a"
    )
    for index, text in enumerate(texts):
        data = {"message": user(text), "message_id": index, "redact_message": None, **times}
        insert(backend, "messages", data, session_id="s", agent_id="a", message_id=index)
    insert(backend, "multi_agents", {"id": "team", "n": 1}, session_id="s", multi_agent_id="team")


def insert(backend: Backend, table: str, data: dict[str, Any], **columns: Any) -> None:
    names = [*columns, "data", "created_at"]
    backend.raw(
        f"INSERT INTO strands_{table} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})",
        *columns.values(),
        json.dumps(data),
        TIME,
    )


@shapes
def test_old_rows_are_read(backend: Backend, shape: str) -> None:
    """Sessions, agents, messages and multi-agents of 0.1 are read as they were."""
    old(backend, shape, "zero", "one")
    repository = backend.repository()
    found = repository.read_session("s")
    assert found is not None
    assert found.created_at == TIME
    agent = repository.read_agent("s", "a")
    assert agent is not None
    assert (agent.state, agent.created_at) == ({"n": 1}, TIME)
    assert listed(repository) == ["zero", "one"]
    assert repository.read_multi_agent("s", "team") == {"id": "team", "n": 1}
    assert [one.session_id for one in repository.list_sessions()] == ["s"]


@shapes
def test_old_agents_go_on(backend: Backend, shape: str) -> None:
    """A real agent goes on in a session of 0.1 and leaves the old rows as they were."""
    old(backend, shape, "zero", "one")
    agent = backend.agent(["hi"])
    assert said(agent.messages) == ["zero", "one"]
    agent.state.set("m", 2)
    agent("hello")
    assert in_database(backend) == ["zero", "one", "hello", "hi"]
    assert state_in_database(backend) == {"n": 1, "m": 2}
    row = backend.raw("SELECT created_at FROM strands_agents")[0]
    assert row["created_at"] == TIME


@shapes
def test_old_rows_can_be_updated(backend: Backend, shape: str) -> None:
    """Agents, messages and multi-agents of 0.1 take updates, and keep their ``created_at``."""
    old(backend, shape, "zero", "one")
    repository = backend.repository()
    repository.update_agent("s", session_agent(n=2))
    message = repository.read_message("s", "a", 0)
    assert message is not None
    message.redact_message = user("[gone]")
    repository.update_message("s", "a", message)
    repository.update_multi_agent("s", Team(n=2))
    assert in_database(backend) == ["[gone]", "one"]
    assert state_in_database(backend) == {"n": 2}
    fresh = backend.repository()
    assert fresh.read_multi_agent("s", "team") == {"id": "team", "n": 2}
    changed, kept = fresh.read_message("s", "a", 0), fresh.read_agent("s", "a")
    assert changed is not None
    assert kept is not None
    assert changed.created_at == kept.created_at == TIME


@shapes
def test_old_windows_are_kept(backend: Backend, shape: str) -> None:
    """An agent of 0.1 whose conversation manager had trimmed gets its window back, and moves on."""
    old(backend, shape, *"0123456789", removed=6)
    agent = backend.agent(["hi"])
    assert said(agent.messages) == list("6789")
    agent("more")
    assert said(backend.agent().messages) == [*"6789", "more", "hi"]
    assert [one.message_id for one in backend.repository().list_messages("s", "a")] == list(
        range(12)
    )


@shapes
def test_the_latest_old_message_can_be_redacted(backend: Backend, shape: str) -> None:
    """A manager redacts what 0.1 has stored last, and only that."""
    old(backend, shape, "zero", "secret")
    manager = backend.manager()
    manager.redact_latest_message(user("[gone]"), backend.agent(manager=manager))
    assert in_database(backend) == ["zero", "[gone]"]


@shapes
def test_old_sessions_can_be_deleted(backend: Backend, shape: str) -> None:
    """Deleting a session of 0.1 leaves no row of it."""
    old(backend, shape, "zero")
    backend.repository().delete_session("s")
    assert all(rows == [] for rows in backend.dump().values())


@shapes
def test_two_writers_of_an_old_session_agree(backend: Backend, shape: str) -> None:
    """Warm agents in a session of 0.1 keep all turns once, in the database and in memory."""
    old(backend, shape, "zero")
    one, two = backend.agent(["1", "3"]), backend.agent(["2"])
    one("q1")
    two("q2")
    one("q3")
    expected = ["zero", "q1", "1", "q2", "2", "q3", "3"]
    assert in_database(backend) == expected
    assert said(one.messages) == expected


@shapes
def test_an_upgrade_can_be_repeated(backend: Backend, shape: str) -> None:
    """``setup`` on tables of 0.1, on new ones and on its own work changes no row."""
    old(backend, shape, "zero")
    repository = backend.repository()
    repository.setup()
    before = backend.dump()
    repository.setup()
    assert backend.dump() == before


def test_tables_are_made_when_they_are_first_missed(backend: Backend) -> None:
    """A database without tables gets them once, and no statement asks for them after that."""
    repository = backend.repository()
    assert repository.read_session("s") is None
    backend.database.reset()
    assert repository.read_session("s") is None
    backend.agent(["hi"], manager=backend.manager(repository=repository))("hello")
    statements = [one["sql"] for batch in backend.database.log for one in batch]
    assert not [sql for sql in statements if "CREATE" in sql or "pragma" in sql]


def test_a_missing_table_is_made_again(backend: Backend) -> None:
    """Where one of the tables is missing it alone is created."""
    backend.agent(["hi"])("hello")
    backend.raw("DROP TABLE strands_multi_agents")
    assert backend.repository().read_multi_agent("s", "team") is None
    assert in_database(backend) == ["hello", "hi"]
