"""What ours is measured against: session storage as strands-persql 0.1 describes its own.

No cache, a read before each update, one request a statement, hooks that block, and tables with
a rowid beside their composite key. It makes its tables anew whenever a manager is made.
"""

import json
from typing import Any

from strands.multiagent.base import MultiAgentBase
from strands.session.repository_session_manager import RepositorySessionManager
from strands.session.session_repository import SessionRepository
from strands.types.exceptions import SessionException
from strands.types.session import Session, SessionAgent, SessionMessage

from strands_persql import Database, Value

_TABLES = {
    "strands_sessions": ("session_id TEXT", "session_id"),
    "strands_agents": ("session_id TEXT, agent_id TEXT", "session_id, agent_id"),
    "strands_messages": (
        "session_id TEXT, agent_id TEXT, message_id INTEGER",
        "session_id, agent_id, message_id",
    ),
    "strands_multi_agents": ("session_id TEXT, agent_id TEXT", "session_id, agent_id"),
}


class BaselineRepository(SessionRepository):
    """One request a statement, nothing remembered."""

    def __init__(self, database: Database) -> None:
        self.database = database
        for table, (columns, key) in _TABLES.items():
            database.query(
                f"CREATE TABLE IF NOT EXISTS {table} ({columns}, data TEXT NOT NULL,"
                f" created_at TEXT, updated_at TEXT, PRIMARY KEY ({key}))"
            )

    def create_session(self, session: Session, **kwargs: Any) -> Session:
        self._insert("strands_sessions", (session.session_id,), session)
        return session

    def read_session(self, session_id: str, **kwargs: Any) -> Session | None:
        found = self._select("strands_sessions", (session_id,))
        return None if found is None else Session.from_dict(found)

    def create_agent(self, session_id: str, session_agent: SessionAgent, **kwargs: Any) -> None:
        self._insert("strands_agents", (session_id, session_agent.agent_id), session_agent)

    def read_agent(self, session_id: str, agent_id: str, **kwargs: Any) -> SessionAgent | None:
        found = self._select("strands_agents", (session_id, agent_id))
        return None if found is None else SessionAgent.from_dict(found)

    def update_agent(self, session_id: str, session_agent: SessionAgent, **kwargs: Any) -> None:
        key = (session_id, session_agent.agent_id)
        before = self._select("strands_agents", key)
        if before is None:
            raise SessionException(f"agent {key} does not exist")
        session_agent.created_at = before["created_at"]
        self._update("strands_agents", key, session_agent)

    def create_message(
        self, session_id: str, agent_id: str, session_message: SessionMessage, **kwargs: Any
    ) -> None:
        key = (session_id, agent_id, session_message.message_id)
        self._insert("strands_messages", key, session_message)

    def read_message(
        self, session_id: str, agent_id: str, message_id: int, **kwargs: Any
    ) -> SessionMessage | None:
        found = self._select("strands_messages", (session_id, agent_id, message_id))
        return None if found is None else SessionMessage.from_dict(found)

    def update_message(
        self, session_id: str, agent_id: str, session_message: SessionMessage, **kwargs: Any
    ) -> None:
        key = (session_id, agent_id, session_message.message_id)
        before = self._select("strands_messages", key)
        if before is None:
            raise SessionException(f"message {key} does not exist")
        session_message.created_at = before["created_at"]
        self._update("strands_messages", key, session_message)

    def list_messages(
        self,
        session_id: str,
        agent_id: str,
        limit: int | None = None,
        offset: int = 0,
        **kwargs: Any,
    ) -> list[SessionMessage]:
        found = self.database.query(
            "SELECT data FROM strands_messages WHERE session_id = ? AND agent_id = ?"
            " ORDER BY message_id LIMIT ? OFFSET ?",
            [session_id, agent_id, -1 if limit is None else limit, offset],
        )
        return [SessionMessage.from_dict(json.loads(row["data"])) for row in found["data"]]

    def create_multi_agent(
        self, session_id: str, multi_agent: MultiAgentBase, **kwargs: Any
    ) -> None:
        raise NotImplementedError

    def read_multi_agent(
        self, session_id: str, multi_agent_id: str, **kwargs: Any
    ) -> dict[str, Any] | None:
        raise NotImplementedError

    def update_multi_agent(
        self, session_id: str, multi_agent: MultiAgentBase, **kwargs: Any
    ) -> None:
        raise NotImplementedError

    def _select(self, table: str, key: tuple[Value, ...]) -> dict[str, Any] | None:
        found = self.database.query(f"SELECT data FROM {table} WHERE {_matches(table)}", key)
        rows = found["data"]
        return json.loads(rows[0]["data"]) if rows else None

    def _insert(
        self, table: str, key: tuple[Value, ...], value: Session | SessionAgent | SessionMessage
    ) -> None:
        marks = ", ".join("?" * (len(key) + 3))
        self.database.query(f"INSERT INTO {table} VALUES ({marks})", (*key, *_columns(value)))

    def _update(
        self, table: str, key: tuple[Value, ...], value: SessionAgent | SessionMessage
    ) -> None:
        self.database.query(
            f"UPDATE {table} SET data = ?, created_at = ?, updated_at = ? WHERE {_matches(table)}",
            (*_columns(value), *key),
        )


class BaselineSessionManager(RepositorySessionManager):
    """Strands' own manager over `BaselineRepository`."""

    def __init__(self, session_id: str, database: Database) -> None:
        super().__init__(session_id, BaselineRepository(database))


def _matches(table: str) -> str:
    return " AND ".join(f"{column} = ?" for column in _TABLES[table][1].split(", "))


def _columns(value: Session | SessionAgent | SessionMessage) -> tuple[str, str, str]:
    return json.dumps(value.to_dict()), value.created_at, value.updated_at
