"""The SessionRepository contract of Strands, over the cache and the database."""

import copy
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from strands.session.session_repository import SessionRepository
from strands.types.session import Session, SessionAgent, SessionMessage

from strands_persql.databases.protocol import Database
from strands_persql.gateway.gateway import Gateway
from strands_persql.gateway.retry import RetryPolicy, policy_of
from strands_persql.gateway.stats import Counters, Stats
from strands_persql.persistence.cache import SessionCache, partition
from strands_persql.persistence.changes import OnConflict
from strands_persql.persistence.checkpoints import Checkpoints
from strands_persql.persistence.options import check_options, check_type, seconds_of
from strands_persql.persistence.store import SessionStore
from strands_persql.runtime.owners import scope_of
from strands_persql.sessions.agent_records import AgentRecords
from strands_persql.sessions.beyond import BeyondTheContract
from strands_persql.sessions.message_records import MessageRecords
from strands_persql.sessions.multi_agent_records import MultiAgentRecords
from strands_persql.sessions.seen import Seen
from strands_persql.sessions.session_records import SessionRecords
from strands_persql.tables.tables import Tables

if TYPE_CHECKING:
    from strands.multiagent.base import MultiAgentBase


class PerSQLSessionRepository(BeyondTheContract, SessionRepository):
    """Sessions in a PerSQL or SQLite database, with a write-through cache in front.

    When a call returns, the database has what was written; when it raises, the cache has
    forgotten what it is unsure of. Freshness is decided when a session is opened
    (`read_session`); the other reads then answer from memory.

    One repository can serve all sessions of a process, from any number of threads, and should:
    its cache and its database's connections are shared by all who use it.

    An update compares with what its caller last saw. The objects that the read methods return
    remember it; for an object that the caller constructed, it is what was last read or written
    through these methods. So callers that share a repository should update the objects that they
    read.

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
        read_only: Whether whatever would write raises `AccessDeniedError`, and sends nothing.
            Tables are not made either: where there are none, nothing is there.
        expires_after: For how long, in seconds or as a ``timedelta``, sessions are kept after the
            last activity in them; they are then as if they weren't there. It is said of sessions
            that are created through this repository, and of those that managers open through
            it. None leaves it as it is: for ever, where nothing was said.
        owner: Whose sessions these are, such as a user: nobody else's can be seen or changed
            through this repository, whatever the ids. None for all sessions, each under its id
            in the database. See `for_owner`.
        search: Whether messages can be found by what they say: a full-text index is made where it
            is missing, at a row written more for each message. See `search`.
        clock: The time in seconds that ``max_staleness`` is measured by.

    Attributes:
        database: The database. Whoever opened it closes it.
        cache: The cache.
        read_only: Whether nothing is written.
        owner: Whose sessions these are, or None for all.

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
        read_only: bool = False,
        expires_after: float | timedelta | None = None,
        owner: str | None = None,
        search: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Initialize without asking the database for anything."""
        check_options(max_staleness, on_conflict, ("merge", "raise"))
        self.database = database
        check_type("cache", cache, SessionCache)
        self.cache = cache if cache is not None else SessionCache()
        self.read_only = read_only
        self._tables = Tables(table_prefix)
        retry = policy_of(retry)
        self._counters = Counters()
        self._partition = partition(self.cache, database, self._tables.prefix, clock)
        store = SessionStore(
            Gateway(database, self._tables, retry, self._counters, read_only=read_only),
            self._tables,
            self._partition,
            max_staleness,
            on_conflict,
            retry,
            clock,
            seconds_of(expires_after),
            search=search,
        )
        self.owner = owner
        self._use(store if owner is None else store.of_owner(owner))

    def _use(self, store: SessionStore) -> None:
        self._store, seen = store, Seen(store)
        self._sessions = SessionRecords(store)
        self._checkpoints = Checkpoints(store)
        self._agents = AgentRecords(store, seen)
        self._messages = MessageRecords(store, seen)
        self._multi_agents = MultiAgentRecords(store, seen)

    def as_read_only(self) -> "PerSQLSessionRepository":
        """Return a repository of the same sessions, cache and connections that writes nothing."""
        other = copy.copy(self)
        other.read_only = True
        other._use(self._store.as_read_only())  # noqa: SLF001 - the same class
        return other

    def for_owner(self, owner: str) -> "PerSQLSessionRepository":
        """Return a repository of one owner's sessions, with the same cache and connections.

        Its session ids are the owner's own: two owners may each have a session ``"main"``, and
        neither learns of the other's. It costs nothing to make, so make one for each request.

        Args:
            owner: The owner, such as a user's id as your authentication has it.

        Raises:
            ValueError: If this repository is another owner's, or the owner is empty.
        """
        scope_of(owner)
        if self.owner == owner:
            return self
        if self.owner is not None:
            raise ValueError(f"owner={owner!r} | this repository is another owner's")
        other = copy.copy(self)
        other.owner = owner
        other._use(self._store.of_owner(owner))  # noqa: SLF001 - the same class
        return other

    def __repr__(self) -> str:
        """Name the database, the tables and the owner."""
        of_owner = "" if self.owner is None else f", owner={self.owner!r}"
        return (
            f"PerSQLSessionRepository({self.database!r},"
            f" table_prefix={self._tables.prefix!r}{of_owner})"
        )

    def setup(self) -> None:
        """Create the tables, or bring those of earlier versions up to date.

        With ``search=True`` the index of messages too; those that are there already are indexed
        some thousand a request, and what was interrupted goes on when it is called again.

        Not needed where the access may create tables: the first call that misses them does it.
        Safe to call at any time.

        Raises:
            SchemaError: If this access may not do that; the error has the SQL for someone who may.
        """
        self._store.gateway.setup()
        if self._store.index.is_kept:
            self._store.index.setup()

    def stats(self) -> Stats:
        """Return what has been counted since the repository was made."""
        cached = self._partition.counters.read()
        return replace(
            self._counters.read(),
            hits=cached.hits,
            unchanged=cached.unchanged,
            misses=cached.misses,
            evictions=self.cache.evictions,
            oversized=cached.oversized,
            cached_bytes=self.cache.current_bytes,
        )

    # -- sessions ------------------------------------------------------------------------------

    def create_session(self, session: Session, **kwargs: Any) -> Session:
        """Create a session.

        Raises:
            AlreadyExistsError: If it is there; it is left as it is.
        """
        return self._sessions.create(session)

    def read_session(self, session_id: str, **kwargs: Any) -> Session | None:
        """Open a session: bring it up to date in memory, from where the other reads answer.

        Returns:
            The session, or None if it isn't there.
        """
        return self._sessions.read(session_id)

    def delete_session(self, session_id: str, **kwargs: Any) -> None:
        """Delete a session with all its agents, messages and multi-agents.

        The session that was last seen here: one that was created again since stays.

        Raises:
            NotFoundError: If it isn't there.
        """
        self._sessions.delete(session_id)

    # -- agents --------------------------------------------------------------------------------

    def create_agent(self, session_id: str, session_agent: SessionAgent, **kwargs: Any) -> None:
        """Create an agent in a session.

        Raises:
            AlreadyExistsError: If it is there; it is left as it is.
            NotFoundError: If the session isn't there.
        """
        self._agents.create(session_id, session_agent)

    def read_agent(self, session_id: str, agent_id: str, **kwargs: Any) -> SessionAgent | None:
        """Read an agent, from memory where the session has been opened.

        Returns:
            The agent, or None if it isn't there.
        """
        return self._agents.read(session_id, agent_id)

    def update_agent(self, session_id: str, session_agent: SessionAgent, **kwargs: Any) -> None:
        """Replace an agent's state, merging with what another writer did in between.

        What a merge brings in is set on ``session_agent.state``. ``created_at`` is kept.

        Raises:
            NotFoundError: If the agent isn't there.
            ConflictError: With ``on_conflict="raise"``, if another writer came first.
        """
        self._agents.update(session_id, session_agent)

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
        self._messages.create(session_id, agent_id, session_message)

    def read_message(
        self, session_id: str, agent_id: str, message_id: int, **kwargs: Any
    ) -> SessionMessage | None:
        """Read a message, from memory where the agent works with it.

        Returns:
            The message, or None if it isn't there.
        """
        return self._messages.read(session_id, agent_id, message_id)

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
        self._messages.update(session_id, agent_id, session_message)

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
            limit: The most to return, or None for all.
            offset: How many of the first ones to pass over.
            **kwargs: For compatibility; not used.

        Raises:
            NotFoundError: If the agent isn't there.
        """
        return self._messages.list(session_id, agent_id, limit, offset)

    # -- multi-agents --------------------------------------------------------------------------

    def create_multi_agent(
        self, session_id: str, multi_agent: "MultiAgentBase", **kwargs: Any
    ) -> None:
        """Create a graph's or swarm's state in a session.

        Raises:
            AlreadyExistsError: If it is there; it is left as it is.
            NotFoundError: If the session isn't there.
        """
        self._multi_agents.create(session_id, multi_agent)

    def read_multi_agent(
        self, session_id: str, multi_agent_id: str, **kwargs: Any
    ) -> dict[str, Any] | None:
        """Read a graph's or swarm's state, from memory where the session has been opened.

        Returns:
            The state, or None if it isn't there.
        """
        return self._multi_agents.read(session_id, multi_agent_id)

    def update_multi_agent(
        self, session_id: str, multi_agent: "MultiAgentBase", **kwargs: Any
    ) -> None:
        """Replace a graph's or swarm's state, as one value: states of two writers aren't merged.

        Raises:
            NotFoundError: If it isn't there.
            ConflictError: With ``on_conflict="raise"``, if another writer came first.
        """
        self._multi_agents.update(session_id, multi_agent)
