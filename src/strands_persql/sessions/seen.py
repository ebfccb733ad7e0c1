"""What callers last saw of agents, messages and multi-agents: what their updates compare with."""

import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import cachetools
from strands.types.session import Session, SessionAgent, SessionMessage

from strands_persql.persistence.changes import MergeBase
from strands_persql.persistence.commit_request import Request
from strands_persql.persistence.compare_and_swap import not_found
from strands_persql.persistence.row_version import RowVersion
from strands_persql.persistence.store import SessionStore
from strands_persql.runtime.forks import renew_after_fork
from strands_persql.runtime.ids import AgentKey, check_id, new_id
from strands_persql.tables.codec import RowCodec
from strands_persql.tables.tables import RowData

_REMEMBERED_BYTES = 16 * 1024 * 1024  # of what callers last saw of their agents
_REMEMBERED_MULTI_AGENTS = 4096
_OVERHEAD = 2_048  # what is remembered of an agent besides texts, in bytes

# What an object remembers of the row that it was read from or written to.
SEEN = "_persql_seen"
WRITE = "_persql_write_id"


Encode = Callable[[dict[str, Any]], str]
"""Returns the JSON of a row that has some content."""


@dataclass(frozen=True)
class SeenBase:
    """A merge base whose contents are JSON: objects take many times as much memory.

    Attributes:
        base: The merge base without its contents.
        content: A row's JSON with the row's content.
        own: The same with the content that the caller itself has.
    """

    base: MergeBase
    content: str
    own: str

    @classmethod
    def of(cls, base: MergeBase, encode: Encode) -> "SeenBase":
        """Return a merge base with its contents as JSON."""
        content = encode(base.content)
        own = content if base.own is base.content else encode(base.own)
        return cls(replace(base, content={}, own={}), content, own)

    @property
    def texts(self) -> tuple[str, ...]:
        """What takes memory in it."""
        extras = (one for one in self.base.view.head if isinstance(one, str))
        return self.content, self.own, *extras

    def restored(self, key: AgentKey, codec: RowCodec) -> MergeBase:
        """Return the merge base."""
        content = codec.read_content(key, self.content)
        own = content if self.own is self.content else codec.read_content(key, self.own)
        return replace(self.base, content=content, own=own)


@dataclass(frozen=True)
class DoubtedUpdate:
    """A caller's update whose answer was lost, its contents as JSON.

    Attributes:
        request: The update without its contents.
        base: What it is based on.
        content: A row's JSON with what the caller wanted to store.
        row: The row that it writes.
    """

    request: Request
    base: SeenBase
    content: str
    row: RowData

    @classmethod
    def of(cls, request: Request, encode: Encode) -> "DoubtedUpdate":
        """Return an update with its contents as JSON."""
        change, base, row = request.change, SeenBase.of(request.base, encode), request.row
        assert change.content is not None
        assert row is not None
        bare = replace(request, change=replace(change, content=None), base=base.base, merged={})
        return cls(bare, base, encode(change.content), row)

    @property
    def texts(self) -> tuple[str, ...]:
        """What takes memory in it."""
        return *self.base.texts, self.content, self.row.data, self.row.skeleton.text

    def restored(self, key: AgentKey, codec: RowCodec) -> Request:
        """Return the update."""
        return replace(
            self.request,
            change=replace(self.request.change, content=codec.read_content(key, self.content)),
            base=self.base.restored(key, codec),
            merged=codec.read_content(key, self.row.data),
        )


@dataclass(frozen=True)
class SeenAgent:
    """What a caller has last seen of an agent.

    Attributes:
        base: The merge base.
        in_doubt: The caller's update whose answer was lost, or None.
    """

    base: SeenBase
    in_doubt: DoubtedUpdate | None = None

    @property
    def origin(self) -> str:
        """The write that created the agent's row."""
        return self.base.base.origin

    @property
    def size(self) -> int:
        """Its size in memory, in bytes."""
        texts = self.base.texts + (() if self.in_doubt is None else self.in_doubt.texts)
        return _OVERHEAD + sum(sys.getsizeof(text) for text in {id(t): t for t in texts}.values())


class Seen:
    """What was last read or written through a repository.

    Args:
        store: Where the sessions are.
    """

    def __init__(self, store: SessionStore) -> None:
        """Begin with nothing seen."""
        self._store = store
        self._agents: cachetools.LRUCache[AgentKey, SeenAgent] = cachetools.LRUCache(
            _REMEMBERED_BYTES, getsizeof=lambda seen: seen.size
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
            if seen.size <= self._agents.maxsize:
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
        base = self._store.base_of(key, found, fields)
        return SeenAgent(SeenBase.of(base, lambda _: found.data))

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
