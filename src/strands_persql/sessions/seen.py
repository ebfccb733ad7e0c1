"""What callers last saw of agents, messages and multi-agents: what their updates compare with."""

import threading
from dataclasses import dataclass
from typing import Any

import cachetools
from strands.types.session import Session, SessionAgent, SessionMessage

from strands_persql.persistence.changes import MergeBase
from strands_persql.persistence.committer import Request
from strands_persql.persistence.compare_and_swap import not_found
from strands_persql.persistence.row_version import RowVersion
from strands_persql.persistence.store import SessionStore
from strands_persql.runtime.forks import renew_after_fork
from strands_persql.runtime.ids import AgentKey, check_id, new_id

_REMEMBERED_BYTES = 16 * 1024 * 1024  # of what callers last saw of their agents
_REMEMBERED_MULTI_AGENTS = 4096

# What an object remembers of the row that it was read from or written to.
SEEN = "_persql_seen"
WRITE = "_persql_write_id"


@dataclass(frozen=True)
class SeenAgent:
    """What a caller has last seen of an agent.

    Attributes:
        base: The merge base.
        in_doubt: The caller's update whose answer was lost, or None.
    """

    base: MergeBase
    in_doubt: Request | None = None


class Seen:
    """What was last read or written through a repository.

    Args:
        store: Where the sessions are.
    """

    def __init__(self, store: SessionStore) -> None:
        """Begin with nothing seen."""
        self._store = store
        self._agents: cachetools.LRUCache[AgentKey, SeenAgent] = cachetools.LRUCache(
            _REMEMBERED_BYTES, getsizeof=lambda seen: seen.base.size
        )
        self._multi_agents: cachetools.LRUCache[AgentKey, RowVersion] = cachetools.LRUCache(
            _REMEMBERED_MULTI_AGENTS
        )
        self.after_fork()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Begin with a lock that no thread of the parent holds."""
        self._lock = threading.Lock()

    def remember(self, key: AgentKey, seen: SeenAgent, agent: SessionAgent | None = None) -> None:
        """Remember an agent as its caller sees it now.

        Args:
            key: The agent.
            seen: How it is seen.
            agent: The object that remembers it too, or None.
        """
        if agent is not None:
            setattr(agent, SEEN, seen)
        with self._lock:
            self._agents.pop(key, None)
            if seen.base.size <= self._agents.maxsize:
                self._agents[key] = seen

    def forget(self, key: AgentKey) -> None:
        """Forget an agent."""
        with self._lock:
            self._agents.pop(key, None)

    def last(self, key: AgentKey) -> SeenAgent:
        """Return an agent as it was last seen, or as it is.

        Raises:
            NotFoundError: If it isn't there.
        """
        with self._lock:
            seen = self._agents.get(key)
        if seen is not None:
            return seen
        found = self._store.agent(key)
        if found is None:
            raise not_found("agent", key)
        fields = self._store.codec.read_agent_fields(key, found.data)
        return SeenAgent(self._store.base_of(key, found, fields))

    def remember_multi_agent(self, key: AgentKey, version: RowVersion) -> None:
        """Remember a multi-agent's row as its caller sees it now."""
        with self._lock:
            self._multi_agents[key] = version

    def last_multi_agent(self, key: AgentKey) -> RowVersion:
        """Return a multi-agent's row as it was last seen, or as it is.

        Raises:
            NotFoundError: If it isn't there.
        """
        with self._lock:
            seen = self._multi_agents.get(key)
        if seen is not None:
            return seen
        found = self._store.multi_agent(key)
        if found is None:
            raise not_found("multi-agent", key)
        return found.row_version


def key_of(session_id: Any, agent_id: Any, kind: str = "agent") -> AgentKey:
    """Return the key of an agent or multi-agent, its ids checked."""
    return AgentKey(check_id("session", session_id), check_id(kind, agent_id))


def write_id_of(value: Session | SessionAgent | SessionMessage, content: str) -> str:
    """Return the id of the write that creates a row, the same however often it is tried.

    It belongs to this object with this content: a copy, or the object with another content, is
    another write.
    """
    what = (id(value), hash(content))
    known: tuple[tuple[int, int], str] | None = getattr(value, WRITE, None)
    if known is not None and known[0] == what:
        return known[1]
    write_id = new_id()
    setattr(value, WRITE, (what, write_id))
    return write_id
