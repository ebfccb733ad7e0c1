"""Graphs and swarms of a repository: states that are created, read and replaced whole."""

from typing import TYPE_CHECKING, Any

from strands_persql.persistence.compare_and_swap import InDoubtError
from strands_persql.persistence.creations import Creations
from strands_persql.persistence.row_version import RowVersion
from strands_persql.persistence.rows import RowUpdates
from strands_persql.persistence.store import SessionStore
from strands_persql.runtime.clock import now
from strands_persql.runtime.ids import new_id
from strands_persql.sessions.seen import Seen, key_of
from strands_persql.tables import creating

if TYPE_CHECKING:
    from strands.multiagent.base import MultiAgentBase


class MultiAgentRecords:
    """What `PerSQLSessionRepository` does with graphs and swarms.

    Args:
        store: Where the sessions are.
        seen: What callers last saw.
    """

    def __init__(self, store: SessionStore, seen: Seen) -> None:
        """Initialize."""
        self._store = store
        self._seen = seen
        self._creations = Creations(store)
        self._updates = RowUpdates(store)

    def create(self, session_id: str, multi_agent: "MultiAgentBase") -> None:
        """Create a graph's or swarm's state in a session."""
        key = key_of(session_id, multi_agent.id, "multi_agent")
        write_id, row = new_id(), self._store.codec.multi_agent(session_id, multi_agent, now())
        statement = creating.create_multi_agent(self._store.tables, key, row, write_id)
        expires = self._creations.create(statement, row, "multi_agents", key, write_id)
        self._seen.remember_multi_agent(key, RowVersion(1, write_id, expires=expires))

    def read(self, session_id: str, multi_agent_id: str) -> dict[str, Any] | None:
        """Return a graph's or swarm's state, or None if it isn't there."""
        key = key_of(session_id, multi_agent_id, "multi_agent")
        found = self._store.multi_agent(key)
        if found is None:
            return None
        self._seen.remember_multi_agent(key, found.row_version)
        return self._store.codec.read_multi_agent(key, found.data)

    def update(self, session_id: str, multi_agent: "MultiAgentBase") -> None:
        """Replace a graph's or swarm's state."""
        key = key_of(session_id, multi_agent.id, "multi_agent")
        row = self._store.codec.multi_agent(session_id, multi_agent, now())
        seen = self._seen.last_multi_agent(key)
        try:
            version = self._updates.replace_multi_agent(key, row, seen)
        except InDoubtError as error:
            self._seen.remember_multi_agent(key, error.request.doubted_version)
            raise error.error from error
        self._seen.remember_multi_agent(key, version)
