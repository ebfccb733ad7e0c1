"""The SessionRepository contract of Strands, over the cache and the database."""

import copy
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import cachetools
from strands.session.session_repository import SessionRepository
from strands.types.session import Session, SessionAgent, SessionMessage

from strands_persql.databases.protocol import Database, Statement
from strands_persql.errors import AlreadyExistsError, NotFoundError, OutcomeUnknownError
from strands_persql.gateway.batch import Batch
from strands_persql.gateway.retry import RetryPolicy
from strands_persql.gateway.stats import Counters, Stats
from strands_persql.persistence.cache import SessionCache, partition
from strands_persql.persistence.cached import StoredMessage
from strands_persql.persistence.changes import ChangeSet, CommitResult, MergeBase, OnConflict
from strands_persql.persistence.committer import Request
from strands_persql.persistence.compare_and_swap import InDoubtError, RowVersion, not_found
from strands_persql.persistence.rows import RowUpdates
from strands_persql.persistence.store import SessionStore
from strands_persql.persistence.view import View
from strands_persql.runtime.clock import now
from strands_persql.runtime.containers import copy_containers
from strands_persql.runtime.forks import renew_after_fork
from strands_persql.runtime.ids import AgentKey, check_id, check_message_id, new_id
from strands_persql.tables import appending, creating, reading
from strands_persql.tables.codec import removed_messages
from strands_persql.tables.tables import Tables

if TYPE_CHECKING:
    from strands.multiagent.base import MultiAgentBase


_REMEMBERED_BYTES = 16 * 1024 * 1024  # of what callers last saw of their agents
_REMEMBERED_MULTI_AGENTS = 4096
_REMEMBERED_DELETIONS = 1024
_FORGETS_DELETIONS = 1 / 64  # how often a deletion looks for old ones to forget

# What an object remembers of the row that it was read from or written to.
_SEEN = "_persql_seen"
_WRITE = "_persql_write_id"


@dataclass(frozen=True)
class _SeenAgent:
    """What a caller has last seen of an agent.

    Attributes:
        base: The merge base.
        in_doubt: The caller's update whose answer was lost, or None.
    """

    base: MergeBase
    in_doubt: Request | None = None


class PerSQLSessionRepository(SessionRepository):
    """Sessions in a PerSQL or SQLite database, with a write-through cache in front.

    When a call returns, the database has what was written; when it raises, the cache has
    forgotten what it is unsure of. Freshness is decided when a session is opened
    (`read_session`); the other reads then answer from memory.

    One repository can serve all sessions of a process, from any number of threads, and should:
    its cache and its database's connections are shared by all who use it.

    An update compares with what its caller last saw. The objects that the read methods return
    remember it; for an object made anew, it is what was last read or written through these
    methods, so callers that share a repository should update the objects that they read.

    Args:
        database: Where the sessions are: `LocalDatabase`, `RestDatabase`, or a handle of the
            persql SDK.
        table_prefix: What the tables' names begin with.
        cache: The memory to use, or None for one of the default size. Repositories of several
            databases may share one, so that one limit holds for all of them; each has a part of
            its own.
        max_staleness: How old, in seconds, a cached session may be when it is opened without
            asking the database. With 0, each open asks.
        on_conflict: ``"merge"`` to merge with what another writer did in between, ``"raise"``
            to raise `ConflictError`.
        retry: How long failed requests are tried again, or None for the default policy.
        clock: The time in seconds that ``max_staleness`` is measured by.

    Attributes:
        database: The database. Closing it is its owner's business.
        cache: The cache.

    Raises:
        ValueError: If an argument is out of its range.
    """

    def __init__(
        self,
        database: Database,
        *,
        table_prefix: str = "strands_",
        cache: SessionCache | None = None,
        max_staleness: float = 0.0,
        on_conflict: OnConflict = "merge",
        retry: RetryPolicy | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Initialize without asking the database for anything."""
        if not max_staleness >= 0:
            raise ValueError(f"max_staleness={max_staleness} | must not be negative")
        if on_conflict not in ("merge", "raise"):
            raise ValueError(f"on_conflict={on_conflict!r} | must be 'merge' or 'raise'")
        self.database = database
        self.cache = cache if cache is not None else SessionCache()
        self._tables = Tables(table_prefix)
        self._counters = Counters()
        self._partition = partition(self.cache, database, self._tables.prefix, clock)
        self._store = SessionStore(
            database,
            self._tables,
            self._partition,
            max_staleness,
            on_conflict,
            retry or RetryPolicy(),
            self._counters,
            clock,
        )
        self._codec = self._store.codec
        self._updates = RowUpdates(self._store)
        self.after_fork()
        renew_after_fork(self)
        self._seen_agents: cachetools.LRUCache[AgentKey, _SeenAgent] = cachetools.LRUCache(
            _REMEMBERED_BYTES, getsizeof=lambda seen: seen.base.size
        )
        self._seen_multi_agents: cachetools.LRUCache[AgentKey, RowVersion] = cachetools.LRUCache(
            _REMEMBERED_MULTI_AGENTS
        )
        # Deletions whose answers were lost.
        self._deletions: cachetools.LRUCache[str, str] = cachetools.LRUCache(_REMEMBERED_DELETIONS)

    def after_fork(self) -> None:
        """Begin with a lock that no thread of the parent holds."""
        self._seen_lock = threading.Lock()

    def __repr__(self) -> str:
        """Name the database and the tables."""
        return f"PerSQLSessionRepository({self.database!r}, table_prefix={self._tables.prefix!r})"

    def setup(self) -> None:
        """Create the tables, or bring those of earlier versions up to date.

        Not needed where the access may create tables: the first call that misses them does it.
        Safe to call at any time.

        Raises:
            SchemaError: If this access may not do that; the error has the SQL for who may.
        """
        self._store.gateway.setup()

    def stats(self) -> Stats:
        """Return what has been counted since the repository was made."""
        cached = self._partition.counters.read()
        return replace(
            self._counters.read(),
            hits=cached.hits,
            misses=cached.misses,
            evictions=self.cache.evictions,
            cached_bytes=self.cache.current_bytes,
        )

    # -- sessions ------------------------------------------------------------------------------

    def create_session(self, session: Session, **kwargs: Any) -> Session:
        """Create a session.

        Raises:
            AlreadyExistsError: If it is there; it is left as it is.
        """
        session_id = check_id("session", session.session_id)
        row = self._codec.session(session)
        write_id = _write_id(session, row.data)
        batch = Batch(creating.create_session(self._tables, session_id, row, write_id))
        created = batch.ask(reading.read_creating_write(self._tables, "sessions", session_id))
        found = self._store.write(batch, session_id).first(created)
        self._partition.forget(session_id)
        if found is None:
            setattr(session, _WRITE, None)  # it was created by this write before, and deleted
            return self.create_session(session)
        if found["write_id"] != write_id:
            raise AlreadyExistsError(
                f"session {session_id!r} already exists; read it instead", session_id=session_id
            )
        return session

    def read_session(self, session_id: str, **kwargs: Any) -> Session | None:
        """Open a session: bring it up to date in memory, from where the other reads answer.

        Returns:
            The session, or None if it isn't there.
        """
        found = self._store.open(session_id)
        return None if found is None else self._codec.read_session(session_id, found.data)

    def delete_session(self, session_id: str, **kwargs: Any) -> None:
        """Delete a session with all its agents, messages and multi-agents.

        That session, as it was last seen here: one that was made anew since stays.

        Raises:
            NotFoundError: If it isn't there.
        """
        check_id("session", session_id)
        seen = self._partition.get(session_id)
        origin = None if seen is None else seen.origin
        created = reading.read_creating_write(self._tables, "sessions", session_id)
        deletion = self._deletions.get(session_id) or new_id()
        batch = Batch()
        found = batch.ask(created)
        batch.run(*creating.delete_session(self._tables, session_id, origin, deletion))
        if random.random() < _FORGETS_DELETIONS:  # noqa: S311 - spreads the work
            batch.run(creating.forget_deletions(self._tables))
        try:
            answer = self._store.write(batch, session_id)
        except OutcomeUnknownError:
            self._deletions[session_id] = deletion  # said again, it is this one
            raise
        self._deletions.pop(session_id, None)
        self._partition.forget(session_id)
        row = answer.first(found)
        is_other = row is None or row["write_id"] != (origin or row["write_id"])
        if is_other and not answer.is_ambiguous:
            # An ambiguous answer may be to a copy of the deletion that came first.
            raise NotFoundError(f"session {session_id!r} does not exist", session_id=session_id)

    def list_sessions(
        self, *, limit: int = 100, after: str = "", starts_with: str = ""
    ) -> list[Session]:
        """List sessions in the order of their ids.

        Args:
            limit: How many at the most.
            after: An id: the list begins behind it, for going on page by page.
            starts_with: What the ids begin with.

        Raises:
            ValueError: If the limit is negative.
        """
        if limit < 0:
            raise ValueError(f"limit={limit} | must not be negative")
        statement = reading.list_sessions(self._tables, after, starts_with, limit)
        rows = self._store.rows(statement, None)
        return [self._codec.read_session(row["session_id"], row["data"]) for row in rows]

    # -- agents --------------------------------------------------------------------------------

    def create_agent(self, session_id: str, session_agent: SessionAgent, **kwargs: Any) -> None:
        """Create an agent in a session.

        Raises:
            AlreadyExistsError: If it is there; it is left as it is.
            NotFoundError: If the session isn't there.
        """
        key = _key(session_id, session_agent.agent_id)
        row = self._codec.agent(session_id, session_agent)
        write_id = _write_id(session_agent, row.data)
        content = self._codec.read_content(key, row.data)
        is_counted = removed_messages(content) > 0
        start = None if is_counted else 0
        statement = creating.create_agent(self._tables, key, row, write_id, start=start, view=None)
        self._create(statement, "agents", key, write_id)
        view = View(0, is_explicit=False)
        base = MergeBase(
            1, write_id, 0, view, is_counted, row.created_at, content, content, size=len(row.data)
        )
        self._remember(key, _SeenAgent(base), session_agent)

    def read_agent(self, session_id: str, agent_id: str, **kwargs: Any) -> SessionAgent | None:
        """Read an agent, from memory where the session has been opened.

        Returns:
            The agent, or None if it isn't there.
        """
        key = _key(session_id, agent_id)
        found = self._store.agent(key)
        if found is None:
            return None
        fields = self._codec.read_agent_fields(key, found.data)
        agent = self._codec.agent_of(key, copy_containers(fields))
        self._remember(key, _SeenAgent(self._store.base_of(key, found, fields)), agent)
        return agent

    def update_agent(self, session_id: str, session_agent: SessionAgent, **kwargs: Any) -> None:
        """Replace an agent's state, merging with what another writer did in between.

        What a merge brings in is set on ``session_agent.state``. ``created_at`` is kept.

        Raises:
            NotFoundError: If the agent isn't there.
            ConflictError: With ``on_conflict="raise"``, if another writer came first.
        """
        key = _key(session_id, session_agent.agent_id)
        row = self._codec.agent(session_id, session_agent)
        content = self._codec.read_content(key, row.data)
        seen = getattr(session_agent, _SEEN, None) or self._last_seen(key)
        try:
            result = self._commit(key, seen, content)
        except InDoubtError as error:
            doubting = _SeenAgent(seen.base, error.request)
            self._remember(key, doubting, session_agent)
            raise error.error from error
        base = result.base
        session_agent.created_at = base.created_at
        if result.has_foreign_state:
            session_agent.state = copy.deepcopy(base.own["state"])
        setattr(session_agent, _SEEN, _SeenAgent(base))
        # Who makes each SessionAgent anew hasn't seen what was merged into this one.
        self._remember(key, _SeenAgent(replace(base, own=content)))

    def _commit(self, key: AgentKey, seen: _SeenAgent, content: dict[str, Any]) -> CommitResult:
        base = seen.base
        if seen.in_doubt is not None:  # it comes first, word for word
            doubted = seen.in_doubt
            base = self._store.commit(doubted.change, doubted.base, _keep, doubted).base
            # The caller hasn't seen what was merged into that one.
            base = replace(base, own=doubted.change.content or base.own)
        change = ChangeSet(
            new_id(),
            key,
            _with_waiting(content, base),
            moved_by=removed_messages(content) - removed_messages(base.own),
            is_forced=True,
        )
        return self._store.commit(change, base, _keep)

    # -- messages ------------------------------------------------------------------------------

    def create_message(
        self, session_id: str, agent_id: str, session_message: SessionMessage, **kwargs: Any
    ) -> None:
        """Append a message to an agent's.

        Where another writer has taken its ``message_id``, it is stored at the next free one,
        which is set on ``session_message``. Storing the same object again changes nothing.

        Raises:
            NotFoundError: If the agent isn't there.
        """
        key = _key(session_id, agent_id)
        wanted = check_message_id(session_message.message_id)
        row = self._codec.message(key, session_message)
        apart_from_its_place = row.data.replace(f'"message_id":{wanted}', "", 1)
        write_id = _write_id(session_message, apart_from_its_place)
        statements = appending.create_message(
            self._tables, key, wanted, row, write_id, self._origin(key)
        )
        batch = Batch(statements.insert, statements.mark)
        place = batch.ask(statements.place)
        found = self._store.write(batch, *key).first(place)
        if found is None:
            self._partition.forget(session_id)
            with self._seen_lock:
                self._seen_agents.pop(key, None)
            raise not_found("agent", key)
        session_message.message_id = int(found["message_id"])
        stored = StoredMessage(session_message.message_id, 1, write_id, "", "", row.data)
        self._store.remember_message(key, stored)
        setattr(session_message, _SEEN, RowVersion(1, write_id))

    def _origin(self, key: AgentKey) -> str:
        """Return the write that created an agent: a late copy of a write is of that one alone."""
        entry = self._partition.get(key.session_id)
        cached = None if entry is None else entry.agents.get(key.agent_id)
        if cached is not None:
            return cached.origin
        return self._last_seen(key).base.origin

    def read_message(
        self, session_id: str, agent_id: str, message_id: int, **kwargs: Any
    ) -> SessionMessage | None:
        """Read a message, from memory where the agent works with it.

        Returns:
            The message, or None if it isn't there.
        """
        key = _key(session_id, agent_id)
        row = self._store.message(key, check_message_id(message_id))
        return None if row is None else self._read_message(key, row)

    def update_message(
        self, session_id: str, agent_id: str, session_message: SessionMessage, **kwargs: Any
    ) -> None:
        """Replace a message, for a redaction as a rule.

        ``created_at`` is kept. A redaction wins over the text that it redacts, whichever was
        written later.

        Raises:
            NotFoundError: If the message isn't there.
            ConflictError: With ``on_conflict="raise"``, if another writer came first.
        """
        key = _key(session_id, agent_id)
        message_id = check_message_id(session_message.message_id)
        seen: RowVersion | None = getattr(session_message, _SEEN, None)
        if seen is None:
            found = self._store.message(key, message_id)
            if found is None:
                raise not_found(f"message {message_id} of agent", key)
            seen = RowVersion(found.version, found.write_id)
        session_message.updated_at = now()

        def merge(theirs: SessionMessage) -> None:
            if theirs.redact_message is not None and session_message.redact_message is None:
                session_message.redact_message = theirs.redact_message
                session_message.message = theirs.message

        try:
            stored, version = self._updates.replace_message(
                key,
                message_id,
                lambda: self._codec.message(key, session_message),
                seen,
                ours=session_message,
                merge=merge,
            )
        except InDoubtError as error:
            setattr(session_message, _SEEN, error.request.doubted_version)
            raise error.error from error
        session_message.created_at = stored.created_at
        setattr(session_message, _SEEN, version)

    def list_messages(
        self,
        session_id: str,
        agent_id: str,
        limit: int | None = None,
        offset: int = 0,
        **kwargs: Any,
    ) -> list[SessionMessage]:
        """List an agent's messages in order, from memory where they are what it works with.

        Args:
            session_id: The session.
            agent_id: The agent.
            limit: How many at the most, or None for all.
            offset: How many of the first ones to pass over.
            **kwargs: For compatibility; not used.

        Raises:
            NotFoundError: If the agent isn't there.
        """
        key = _key(session_id, agent_id)
        if offset < 0 or (limit is not None and limit < 0):
            raise ValueError(f"limit={limit}, offset={offset} | must not be negative")
        rows = self._store.messages(key, limit, offset)
        if rows is None:
            raise not_found("agent", key)
        return [self._read_message(key, row) for row in rows]

    # -- multi-agents --------------------------------------------------------------------------

    def create_multi_agent(
        self, session_id: str, multi_agent: "MultiAgentBase", **kwargs: Any
    ) -> None:
        """Create a graph's or swarm's state in a session.

        Raises:
            AlreadyExistsError: If it is there; it is left as it is.
            NotFoundError: If the session isn't there.
        """
        key = _key(session_id, multi_agent.id, "multi_agent")
        write_id, row = new_id(), self._codec.multi_agent(session_id, multi_agent, now())
        statement = creating.create_multi_agent(self._tables, key, row, write_id)
        self._create(statement, "multi_agents", key, write_id)
        self._remember_multi_agent(key, RowVersion(1, write_id))

    def read_multi_agent(
        self, session_id: str, multi_agent_id: str, **kwargs: Any
    ) -> dict[str, Any] | None:
        """Read a graph's or swarm's state, from memory where the session has been opened.

        Returns:
            The state, or None if it isn't there.
        """
        key = _key(session_id, multi_agent_id, "multi_agent")
        found = self._store.multi_agent(key)
        if found is None:
            return None
        self._remember_multi_agent(key, RowVersion(found.version, found.origin))
        return self._codec.read_multi_agent(key, found.data)

    def update_multi_agent(
        self, session_id: str, multi_agent: "MultiAgentBase", **kwargs: Any
    ) -> None:
        """Replace a graph's or swarm's state, which belongs to its writer and is taken whole.

        Raises:
            NotFoundError: If it isn't there.
            ConflictError: With ``on_conflict="raise"``, if another writer came first.
        """
        key = _key(session_id, multi_agent.id, "multi_agent")
        row = self._codec.multi_agent(session_id, multi_agent, now())
        with self._seen_lock:
            seen = self._seen_multi_agents.get(key)
        if seen is None:
            found = self._store.multi_agent(key)
            if found is None:
                raise not_found("multi-agent", key)
            seen = RowVersion(found.version, found.origin)
        try:
            version = self._updates.replace_multi_agent(key, row, seen)
        except InDoubtError as error:
            self._remember_multi_agent(key, error.request.doubted_version)
            raise error.error from error
        self._remember_multi_agent(key, version)

    def _remember_multi_agent(self, key: AgentKey, version: RowVersion) -> None:
        with self._seen_lock:
            self._seen_multi_agents[key] = version

    # -- what the methods above share ----------------------------------------------------------

    def _create(self, statement: Statement, table: str, key: AgentKey, write_id: str) -> None:
        batch = Batch(statement)
        session = batch.ask(reading.read_creating_write(self._tables, "sessions", key.session_id))
        created = batch.ask(reading.read_creating_write(self._tables, table, *key))
        answer = self._store.write(batch, *key)
        self._partition.forget(key.session_id)
        found = answer.first(created)
        if answer.first(session) is None or found is None:
            raise NotFoundError(
                f"session {key.session_id!r} does not exist; create it before {key.agent_id!r} in"
                " it",
                **key.context,
            )
        if found["write_id"] != write_id:
            raise AlreadyExistsError(
                f"{key.agent_id!r} already exists in session {key.session_id!r}; read it instead",
                **key.context,
            )

    def _read_message(self, key: AgentKey, row: StoredMessage) -> SessionMessage:
        message = self._codec.read_message(key, row)
        setattr(message, _SEEN, RowVersion(row.version, row.write_id))
        return message

    def _remember(self, key: AgentKey, seen: _SeenAgent, agent: SessionAgent | None = None) -> None:
        if agent is not None:
            setattr(agent, _SEEN, seen)
        with self._seen_lock:
            self._seen_agents.pop(key, None)
            if seen.base.size <= self._seen_agents.maxsize:
                self._seen_agents[key] = seen

    def _last_seen(self, key: AgentKey) -> _SeenAgent:
        with self._seen_lock:
            seen = self._seen_agents.get(key)
        if seen is not None:
            return seen
        found = self._store.agent(key)
        if found is None:
            raise not_found("agent", key)
        fields = self._codec.read_agent_fields(key, found.data)
        return _SeenAgent(self._store.base_of(key, found, fields))


def _keep(change: ChangeSet, result: CommitResult) -> tuple[ChangeSet, MergeBase]:
    """Try a change set again as it is, on what another writer has left."""
    return change, result.base


def _with_waiting(content: dict[str, Any], base: MergeBase) -> dict[str, Any]:
    """Return content that keeps the interrupts that wait: records of Strands don't know them."""
    before = base.own.get("_internal_state")
    internal = content.get("_internal_state")
    if not isinstance(before, dict) or "waiting" not in before or not isinstance(internal, dict):
        return content
    return {**content, "_internal_state": {"waiting": before["waiting"], **internal}}


def _key(session_id: Any, agent_id: Any, kind: str = "agent") -> AgentKey:
    return AgentKey(check_id("session", session_id), check_id(kind, agent_id))


def _write_id(value: Session | SessionAgent | SessionMessage, content: str) -> str:
    """Return the id of the write that creates a row, the same however often it is tried.

    It belongs to this object with this content: a copy, or the object with another content, is
    another write.
    """
    what = (id(value), hash(content))
    known: tuple[tuple[int, int], str] | None = getattr(value, _WRITE, None)
    if known is not None and known[0] == what:
        return known[1]
    write_id = new_id()
    setattr(value, _WRITE, (what, write_id))
    return write_id
