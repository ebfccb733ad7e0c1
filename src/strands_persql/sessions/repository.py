"""The SessionRepository contract of Strands, over the cache and the database."""

import copy
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import cachetools
from strands.session.session_repository import SessionRepository
from strands.types.session import Session, SessionAgent, SessionMessage

from strands_persql.databases.protocol import Database, Statement
from strands_persql.errors import AlreadyExistsError, NotFoundError
from strands_persql.gateway.retry import RetryPolicy
from strands_persql.gateway.stats import Counters, Stats
from strands_persql.gateway.transport import new_write_id
from strands_persql.persistence.cache import SessionCache
from strands_persql.persistence.cached import MessageRow
from strands_persql.persistence.committer import Base, Moment, OnConflict, now
from strands_persql.persistence.compare_and_swap import Replacement, Replacer, Seen, not_found
from strands_persql.persistence.store import SessionStore
from strands_persql.runtime.forks import renew_after_fork
from strands_persql.runtime.ids import check_id, check_message_id
from strands_persql.tables.schema import Row, Schema

if TYPE_CHECKING:
    from strands.multiagent.base import MultiAgentBase


_REMEMBERED_BYTES = 16 * 1024 * 1024  # of what callers last saw of their agents
_REMEMBERED_MULTI_AGENTS = 4096

# What an object remembers of the row that it was read from or written to.
_SEEN = "_persql_seen"
_WRITE = "_persql_write_id"


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
        cache: The cache to use, or None for one of the default size.
        max_staleness: How old, in seconds, a cached session may be when it is opened without
            asking the database. With 0, each open asks.
        on_conflict: ``"merge"`` to merge with what another writer did in between, ``"raise"``
            to raise `ConflictError`.
        retry: How long failed requests are tried again, or None for the default policy.
        clock: Gives the seconds of a monotonic clock, by which staleness is measured.

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
        retry = retry or RetryPolicy()
        self._schema = Schema(table_prefix)
        self._counters = Counters()
        self.store = SessionStore(
            database,
            self._schema,
            self.cache,
            max_staleness,
            on_conflict,
            retry,
            self._counters,
            clock,
        )
        self._codec = self.store.codec
        self._replacer = Replacer(self.store, on_conflict, retry)
        self.after_fork()
        renew_after_fork(self)
        self._seen_agents: cachetools.LRUCache[tuple[str, str], Base] = cachetools.LRUCache(
            _REMEMBERED_BYTES, getsizeof=lambda base: base.size
        )
        self._seen_multi_agents: cachetools.LRUCache[tuple[str, str], Seen] = cachetools.LRUCache(
            _REMEMBERED_MULTI_AGENTS
        )

    def after_fork(self) -> None:
        """Begin with a lock that no thread of the parent holds."""
        self._seen_lock = threading.Lock()

    def __repr__(self) -> str:
        """Tell which database and tables it works on."""
        return f"PerSQLSessionRepository({self.database!r}, table_prefix={self._schema.prefix!r})"

    def setup(self) -> None:
        """Create the tables, or bring those of strands-persql 0.1 up to date.

        Not needed where the access may create tables: the first call that misses them does it.
        Safe to call at any time.

        Raises:
            SchemaError: If this access may not do that; the error has the SQL for who may.
        """
        self.store.transport.setup()

    def stats(self) -> Stats:
        """Give what has been counted since the repository was made."""
        cached = self.cache.counters.read()
        return replace(
            self._counters.read(),
            hits=cached.hits,
            misses=cached.misses,
            evictions=cached.evictions,
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
        rows = self.store.write(
            self._schema.create_session(session_id, row, write_id), session_id
        ).rows
        self.cache.forget(session_id)
        if rows[1][0]["write_id"] != write_id:
            raise AlreadyExistsError(
                f"session {session_id!r} already exists; read it instead", session_id=session_id
            )
        return session

    def read_session(self, session_id: str, **kwargs: Any) -> Session | None:
        """Open a session: bring it up to date in memory, from where the other reads answer.

        Returns:
            The session, or None if it isn't there.
        """
        found = self.store.open(session_id)
        return None if found is None else self._codec.read_session(session_id, found.data)

    def delete_session(self, session_id: str, **kwargs: Any) -> None:
        """Delete a session with all its agents, messages and multi-agents.

        Raises:
            NotFoundError: If it isn't there.
        """
        check_id("session", session_id)
        answer = self.store.write(self._schema.delete_session(session_id), session_id)
        self.cache.forget(session_id)
        if not answer.rows[0] and not answer.ambiguous:  # or a lost answer was of our deletion
            raise NotFoundError(f"session {session_id!r} does not exist", session_id=session_id)

    def list_sessions(
        self, *, limit: int = 100, after: str = "", starts_with: str = ""
    ) -> list[Session]:
        """List sessions in the order of their ids.

        Args:
            limit: How many at the most.
            after: An id: the list begins behind it, for going on page by page.
            starts_with: What the ids begin with.
        """
        statement = self._schema.list_sessions(after, starts_with, limit)
        rows = self.store.read([statement], None)[0]
        return [self._codec.read_session(row["session_id"], row["data"]) for row in rows]

    # -- agents --------------------------------------------------------------------------------

    def create_agent(self, session_id: str, session_agent: SessionAgent, **kwargs: Any) -> None:
        """Create an agent in a session.

        Raises:
            AlreadyExistsError: If it is there; it is left as it is.
            NotFoundError: If the session isn't there.
        """
        agent_id = _check_ids(session_id, session_agent.agent_id)
        row = self._codec.agent(session_id, session_agent)
        write_id = _write_id(session_agent, row.data)
        removed = self._codec.removed_messages(session_id, agent_id, row.data)
        self._create(
            self._schema.create_agent(session_id, agent_id, row, write_id, removed),
            self._schema.agents,
            session_id,
            agent_id,
            write_id,
        )
        content = self._codec.read_agent_content(session_id, agent_id, row.data)
        base = Base(1, write_id, 0, 0, row.created_at, content, content, size=len(row.data))
        self._remember(session_id, agent_id, base, session_agent)

    def read_agent(self, session_id: str, agent_id: str, **kwargs: Any) -> SessionAgent | None:
        """Read an agent, from memory where the session has been opened.

        Returns:
            The agent, or None if it isn't there.
        """
        _check_ids(session_id, agent_id)
        found = self.store.agent(session_id, agent_id)
        if found is None:
            return None
        agent = self._codec.read_agent(session_id, agent_id, found.data)
        self._remember(session_id, agent_id, self.store.base_of(session_id, agent_id, found), agent)
        return agent

    def update_agent(self, session_id: str, session_agent: SessionAgent, **kwargs: Any) -> None:
        """Replace an agent's state, merging with what another writer did in between.

        What a merge brings in is set on ``session_agent.state``. ``created_at`` is kept.

        Raises:
            NotFoundError: If the agent isn't there.
            ConflictError: With ``on_conflict="raise"``, if another writer came first.
        """
        agent_id = _check_ids(session_id, session_agent.agent_id)
        row = self._codec.agent(session_id, session_agent)
        content = self._codec.read_agent_content(session_id, agent_id, row.data)
        base = getattr(session_agent, _SEEN, None) or self._last_seen(session_id, agent_id)
        outcome = self.store.commit(Moment(session_id, agent_id, base, content, forced=True))
        session_agent.created_at = base.created_at
        if outcome.brought_in:
            session_agent.state = copy.deepcopy(base.known["state"])
        setattr(session_agent, _SEEN, base)
        # Who makes each SessionAgent anew hasn't seen what was merged into this one.
        self._remember(session_id, agent_id, replace(base, known=content, unsettled=[]))

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
        _check_ids(session_id, agent_id)
        wanted = check_message_id(session_message.message_id)
        row = self._codec.message(session_id, agent_id, session_message)
        apart_from_its_place = row.data.replace(f'"message_id":{wanted}', "", 1)
        write_id = _write_id(session_message, apart_from_its_place)
        statements = self._schema.create_message(session_id, agent_id, wanted, row, write_id)
        rows = self.store.write(statements, session_id, agent_id).rows
        if not rows[2]:
            self.cache.forget(session_id)
            raise not_found("agent", session_id, agent_id)
        session_message.message_id = int(rows[3][0]["message_id"])
        stored = MessageRow(session_message.message_id, 1, write_id, "", row.data)
        self.store.take_in_message(session_id, agent_id, stored)
        setattr(session_message, _SEEN, Seen(1, write_id))

    def read_message(
        self, session_id: str, agent_id: str, message_id: int, **kwargs: Any
    ) -> SessionMessage | None:
        """Read a message, from memory where it is within the agent's window.

        Returns:
            The message, or None if it isn't there.
        """
        _check_ids(session_id, agent_id)
        row = self.store.message(session_id, agent_id, check_message_id(message_id))
        return None if row is None else self._read_message(session_id, agent_id, row)

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
        _check_ids(session_id, agent_id)
        message_id = check_message_id(session_message.message_id)
        seen: Seen | None = getattr(session_message, _SEEN, None)
        if seen is None:
            found = self.store.message(session_id, agent_id, message_id)
            if found is None:
                raise not_found(f"message {message_id} of agent", session_id, agent_id)
            seen = Seen(found.version, found.write_id)

        session_message.updated_at = now()

        def statements(write_id: str) -> list[Statement]:
            row = self._codec.message(session_id, agent_id, session_message)
            expected = (seen.version, seen.write_id)
            return self._schema.update_message(
                session_id, agent_id, message_id, row, write_id, expected
            )

        def merge(theirs: SessionMessage) -> None:
            if theirs.redact_message is not None and session_message.redact_message is None:
                session_message.redact_message = theirs.redact_message
                session_message.message = theirs.message

        def decode(found: Any) -> SessionMessage:
            return self._read_message(session_id, agent_id, MessageRow.of(found))

        stored = self._replacer.replace(
            Replacement(f"message {message_id} of agent", session_message, statements, decode),
            seen,
            session_id,
            agent_id,
            merge,
        )
        session_message.created_at = stored.created_at
        setattr(session_message, _SEEN, seen)

    def list_messages(
        self,
        session_id: str,
        agent_id: str,
        limit: int | None = None,
        offset: int = 0,
        **kwargs: Any,
    ) -> list[SessionMessage]:
        """List an agent's messages in order, from memory where they are its whole window.

        Args:
            session_id: The session.
            agent_id: The agent.
            limit: How many at the most, or None for all.
            offset: How many of the first ones to pass over.
            **kwargs: For compatibility; not used.

        Raises:
            NotFoundError: If the agent isn't there.
        """
        _check_ids(session_id, agent_id)
        if offset < 0 or (limit is not None and limit < 0):
            raise ValueError(f"limit={limit}, offset={offset} | must not be negative")
        rows = self.store.messages(session_id, agent_id, limit, offset)
        if rows is None:
            raise not_found("agent", session_id, agent_id)
        return [self._read_message(session_id, agent_id, row) for row in rows]

    # -- multi-agents --------------------------------------------------------------------------

    def create_multi_agent(
        self, session_id: str, multi_agent: "MultiAgentBase", **kwargs: Any
    ) -> None:
        """Create a graph's or swarm's state in a session.

        Raises:
            AlreadyExistsError: If it is there; it is left as it is.
            NotFoundError: If the session isn't there.
        """
        multi_agent_id = _check_ids(session_id, multi_agent.id, "multi_agent")
        write_id, row = new_write_id(), self._codec.multi_agent(session_id, multi_agent, now())
        self._create(
            self._schema.create_multi_agent(session_id, multi_agent_id, row, write_id),
            self._schema.multi_agents,
            session_id,
            multi_agent_id,
            write_id,
        )
        self._remember_multi_agent(session_id, multi_agent_id, Seen(1, write_id))

    def read_multi_agent(
        self, session_id: str, multi_agent_id: str, **kwargs: Any
    ) -> dict[str, Any] | None:
        """Read a graph's or swarm's state, from memory where the session has been opened.

        Returns:
            The state, or None if it isn't there.
        """
        _check_ids(session_id, multi_agent_id, "multi_agent")
        found = self.store.multi_agent(session_id, multi_agent_id)
        if found is None:
            return None
        seen = Seen(found.version, found.write_id)
        self._remember_multi_agent(session_id, multi_agent_id, seen)
        return self._codec.read_multi_agent(session_id, multi_agent_id, found.data)

    def update_multi_agent(
        self, session_id: str, multi_agent: "MultiAgentBase", **kwargs: Any
    ) -> None:
        """Replace a graph's or swarm's state, which belongs to its writer and is taken whole.

        Raises:
            NotFoundError: If it isn't there.
            ConflictError: With ``on_conflict="raise"``, if another writer came first.
        """
        multi_agent_id = _check_ids(session_id, multi_agent.id, "multi_agent")
        row = self._codec.multi_agent(session_id, multi_agent, now())
        with self._seen_lock:
            seen = self._seen_multi_agents.get((session_id, multi_agent_id))
        if seen is None:
            found = self.store.multi_agent(session_id, multi_agent_id)
            if found is None:
                raise not_found("multi-agent", session_id, multi_agent_id)
            seen = self._remember_multi_agent(
                session_id, multi_agent_id, Seen(found.version, found.write_id)
            )
        self.replace_multi_agent(session_id, multi_agent_id, row, seen)

    def replace_multi_agent(
        self, session_id: str, multi_agent_id: str, row: Row, seen: Seen
    ) -> None:
        """Replace a graph's or swarm's row for a holder that keeps itself what it has seen.

        Args:
            session_id: The session.
            multi_agent_id: The graph or swarm.
            row: What to store.
            seen: What the holder has seen of the row; brought up to date.
        """

        def statements(write_id: str) -> list[Statement]:
            expected = (seen.version, seen.write_id)
            return self._schema.update_multi_agent(
                session_id, multi_agent_id, row, write_id, expected
            )

        def decode(found: Any) -> dict[str, Any]:
            return self._codec.read_multi_agent(session_id, multi_agent_id, found["data"])

        ours = decode({"data": row.data})
        self._replacer.replace(
            Replacement("multi-agent", ours, statements, decode), seen, session_id, multi_agent_id
        )

    def _remember_multi_agent(self, session_id: str, multi_agent_id: str, seen: Seen) -> Seen:
        with self._seen_lock:
            self._seen_multi_agents[session_id, multi_agent_id] = seen
        return seen

    # -- what the methods above share ----------------------------------------------------------

    def _create(
        self, statement: Statement, table: str, session_id: str, agent_id: str, write_id: str
    ) -> None:
        rows = self.store.write(
            [
                statement,
                self._schema.row_exists(self._schema.sessions, session_id),
                self._schema.row_exists(table, session_id, agent_id),
            ],
            session_id,
            agent_id,
        ).rows
        self.cache.forget(session_id)
        context = {"session_id": session_id, "agent_id": agent_id}
        if not rows[1]:
            raise NotFoundError(
                f"session {session_id!r} does not exist; create it before {agent_id!r} in it",
                **context,
            )
        if rows[2][0]["write_id"] != write_id:
            raise AlreadyExistsError(
                f"{agent_id!r} already exists in session {session_id!r}; read it instead",
                **context,
            )

    def _read_message(self, session_id: str, agent_id: str, row: MessageRow) -> SessionMessage:
        message = self._codec.read_message(session_id, agent_id, row)
        setattr(message, _SEEN, Seen(row.version, row.write_id))
        return message

    def _remember(
        self, session_id: str, agent_id: str, base: Base, agent: SessionAgent | None = None
    ) -> None:
        if agent is not None:
            setattr(agent, _SEEN, base)
        with self._seen_lock:
            self._seen_agents.pop((session_id, agent_id), None)
            if base.size <= self._seen_agents.maxsize:
                self._seen_agents[session_id, agent_id] = replace(base)

    def _last_seen(self, session_id: str, agent_id: str) -> Base:
        with self._seen_lock:
            base = self._seen_agents.get((session_id, agent_id))
        if base is not None:
            return base
        found = self.store.agent(session_id, agent_id)
        if found is None:
            raise not_found("agent", session_id, agent_id)
        return self.store.base_of(session_id, agent_id, found)


def _check_ids(session_id: Any, agent_id: Any, kind: str = "agent") -> str:
    check_id("session", session_id)
    return check_id(kind, agent_id)


def _write_id(value: Session | SessionAgent | SessionMessage, content: str) -> str:
    """Give the id of the write that creates a row, the same however often it is tried.

    It belongs to this object with this content: a copy, or the object with another content, is
    another write.
    """
    what = (id(value), hash(content))
    known: tuple[tuple[int, int], str] | None = getattr(value, _WRITE, None)
    if known is not None and known[0] == what:
        return known[1]
    write_id = new_write_id()
    setattr(value, _WRITE, (what, write_id))
    return write_id
