"""Sessions in memory, kept true to the database: opening, refreshing, writing through."""

import copy
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from strands_persql.databases.protocol import Statement
from strands_persql.errors import NotFoundError
from strands_persql.gateway.batch import Answer, Batch, Row
from strands_persql.gateway.gateway import Gateway, SessionExpiredError
from strands_persql.gateway.retry import RetryPolicy
from strands_persql.persistence.cache import CachePartition
from strands_persql.persistence.cached import (
    CachedAgent,
    CachedMultiAgent,
    CachedSession,
    StoredMessage,
)
from strands_persql.persistence.changes import (
    ChangeSet,
    CommitResult,
    MergeBase,
    OnConflict,
)
from strands_persql.persistence.committer import Committer, Rebase, Request
from strands_persql.persistence.compare_and_swap import CompareAndSwap
from strands_persql.persistence.locks import AgentLock, AgentLocks
from strands_persql.persistence.message_index import MessageIndex
from strands_persql.persistence.opening import AGENTS_PER_OPEN, MESSAGES_PER_REQUEST, Opening
from strands_persql.persistence.write_through import after_commit
from strands_persql.runtime.ids import AgentKey, check_id
from strands_persql.tables import appending, reading, retention
from strands_persql.tables.codec import RowCodec, content_of, removed_messages
from strands_persql.tables.tables import Tables


class SessionStore:
    """The cache and the database as one.

    Args:
        gateway: What asks the database.
        tables: Its tables.
        cache: Where they are remembered.
        max_staleness: Seconds for which a cached session is opened without asking.
        on_conflict: What happens to a write that another one came before.
        retry: How long lost races are run again.
        clock: The time in seconds, for what ``max_staleness`` is compared with.
        expires_after: For how many seconds sessions are kept after their last activity, or None
            for as it is said of them, and for ever where nothing is.
        search: Whether the full-text index of messages is kept.
    """

    def __init__(
        self,
        gateway: Gateway,
        tables: Tables,
        cache: CachePartition,
        max_staleness: float,
        on_conflict: OnConflict,
        retry: RetryPolicy,
        clock: Callable[[], float] = time.monotonic,
        expires_after: int | None = None,
        *,
        search: bool = False,
    ) -> None:
        """Initialize without asking the database for anything."""
        self.tables = tables
        self.cache = cache
        self.codec = RowCodec(tables, gateway.max_row_bytes)
        self._on_conflict: OnConflict = on_conflict
        self._retry = retry
        self._keeps_index = search
        self._use(gateway)
        self._max_staleness = max_staleness
        self.clock = clock
        self.expires_after = expires_after
        self._locks = AgentLocks()

    def lock(self, key: AgentKey) -> AgentLock:
        """Return the lock of all who write an agent in this process."""
        return self._locks.of(AgentKey(self.tables.scope + key.session_id, key.agent_id))

    @property
    def is_merging(self) -> bool:
        """Whether a write that another one came before is merged with it."""
        return self.swaps.on_conflict == "merge"

    def as_read_only(self) -> "SessionStore":
        """Return a store of the same sessions and cache that reads alone."""
        other = copy.copy(self)
        other._use(self.gateway.as_read_only())  # noqa: SLF001 - the same class
        return other

    def of_owner(self, owner: str) -> "SessionStore":
        """Return a store of an owner's sessions, in the same cache."""
        other = copy.copy(self)
        other.tables = Tables(self.tables.prefix, owner)
        other.cache = self.cache.of_owner(other.tables.scope)
        other.codec = RowCodec(other.tables, self.gateway.max_row_bytes)
        other._use(self.gateway.of_owner(other.tables))  # noqa: SLF001 - the same class
        return other

    def keeping(self, expires_after: int | None) -> "SessionStore":
        """Return a store of the same sessions and cache that keeps them for some seconds."""
        other = copy.copy(self)
        other.expires_after = expires_after
        return other

    def _use(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.swaps = CompareAndSwap(gateway, self._on_conflict, self._retry)
        self.index = MessageIndex(gateway, self.tables, is_kept=self._keeps_index)
        self._committer = Committer(self.swaps, self.tables, self.codec)

    # -- reading -------------------------------------------------------------------------------

    def rows(
        self, statement: Statement, session_id: str | None, agent_id: str | None = None
    ) -> list[Row]:
        """Ask the database, past the cache."""
        batch = Batch()
        handle = batch.ask(statement)
        return self.gateway.run(batch, session_id=session_id, agent_id=agent_id)[handle]

    def kept_rows(
        self, statement: Statement, session_id: str, agent_id: str | None = None
    ) -> list[Row]:
        """Ask the database for rows of a session, which has none once it has expired."""
        batch = Batch()
        if self.may_expire(session_id):
            batch.run(retention.refuse_expired(self.tables, session_id))
        handle = batch.ask(statement)
        try:
            return self.gateway.run(batch, session_id=session_id, agent_id=agent_id)[handle]
        except SessionExpiredError:
            return []

    def open(self, session_id: str) -> CachedSession | None:
        """Return a session that is no older than ``max_staleness``, or None if it isn't there."""
        check_id("session", session_id)
        entry = self._current(session_id)
        if entry is not None and self.clock() - entry.checked_at < self._max_staleness:
            self.cache.count("hits")
            return entry
        fresh = self._refresh(session_id, entry)
        is_unchanged = entry and fresh and fresh.known() == entry.known()
        self.cache.count("unchanged" if is_unchanged else "misses")
        return fresh

    def _current(self, session_id: str) -> CachedSession | None:
        """Return what is remembered of a session, unless it may have expired since."""
        entry = self.cache.get(session_id)
        return entry if entry is not None and self.clock() < entry.current_until else None

    def may_expire(self, session_id: str) -> bool:
        """Whether a session expires, or it isn't remembered whether it does."""
        entry = self.cache.get(session_id)
        return entry is None or entry.expires_after is not None

    def agent(self, key: AgentKey) -> CachedAgent | None:
        """Return an agent as its session was last seen, or None if it isn't there."""
        entry = self._current(key.session_id)
        agent = None if entry is None else entry.agents.get(key.agent_id)
        self.cache.count("misses" if agent is None else "hits")
        if agent is not None:
            return agent
        fresh = self._refresh(key.session_id, entry, key.agent_id)
        return None if fresh is None else fresh.agents.get(key.agent_id)

    def multi_agent(self, key: AgentKey) -> CachedMultiAgent | None:
        """Return a multi-agent as its session was last seen, or None if it isn't there."""
        entry = self._current(key.session_id)
        found = None if entry is None else entry.multi_agents.get(key.agent_id)
        self.cache.count("misses" if found is None else "hits")
        if found is not None:
            return found
        rows = self.kept_rows(reading.read_multi_agent(self.tables, key), *key)
        return CachedMultiAgent.of(rows[0]) if rows else None

    def message(self, key: AgentKey, message_id: int) -> StoredMessage | None:
        """Return a message, from memory where the agent works with it."""
        entry = self._current(key.session_id)
        agent = None if entry is None else entry.agents.get(key.agent_id)
        row = None if agent is None else agent.messages.find(message_id)
        self.cache.count("misses" if row is None else "hits")
        if row is not None:
            return row
        rows = self.kept_rows(reading.read_message(self.tables, key, message_id), *key)
        return StoredMessage.of(rows[0]) if rows else None

    def messages(self, key: AgentKey, limit: int | None, offset: int) -> list[StoredMessage] | None:
        """Return an agent's history, from memory where what it works with is all of it.

        Returns:
            The messages from the ``offset``-th on, or None if the agent isn't there.
        """
        entry = self._current(key.session_id)
        answered = "hits"
        if entry is None or key.agent_id not in entry.agents:
            answered = "misses"
            entry = self._refresh(key.session_id, entry, key.agent_id)
            if entry is None or key.agent_id not in entry.agents:
                self.cache.count(answered)
                return None
        agent = entry.agents[key.agent_id]
        if agent.view.is_plain and agent.view.start == 0:  # nothing is before it
            self.cache.count(answered)
            return list(agent.messages[offset : None if limit is None else offset + limit])
        if agent.view.is_plain and limit is None:
            removed = removed_messages(self.codec.readable_content(key, agent.data) or {})
            if offset == removed:  # what Strands asks for to restore an agent
                self.cache.count(answered)
                return list(agent.messages)
        self.cache.count("misses")
        return self._read_messages(key, limit, offset)

    def read_turn(self, key: AgentKey, turn: str) -> list[StoredMessage]:
        """Return a turn's messages, whether the agent works with them or not."""
        statement = appending.read_whole_turn(self.tables, key, turn)
        return [StoredMessage.of(row) for row in self.rows(statement, *key)]

    def _read_messages(self, key: AgentKey, limit: int | None, offset: int) -> list[StoredMessage]:
        messages: list[StoredMessage] = []
        after = -1
        while limit is None or len(messages) < limit:
            wanted = MESSAGES_PER_REQUEST
            if limit is not None:
                wanted = min(wanted, limit - len(messages))
            statement = reading.list_messages(self.tables, key, after, offset, wanted)
            page = [StoredMessage.of(row) for row in self.kept_rows(statement, *key)]
            messages += page
            if len(page) < wanted or page[-1].message_id <= after:
                break
            after, offset = page[-1].message_id, 0
        return messages

    def _refresh(
        self, session_id: str, entry: CachedSession | None, agent_id: str | None = None
    ) -> CachedSession | None:
        """Bring a session up to date, reading what has changed since ``entry`` alone.

        Args:
            session_id: The session.
            entry: What is known of it, or None.
            agent_id: An agent to read besides, or None for all of the session's.
        """
        with self.reading(session_id) as keep:
            fresh, more = self._read_changes(session_id, entry, agent_id)
            while fresh is not None and more:
                fresh, more = self._read_changes(session_id, fresh, agent_id)
            keep(fresh)
        return fresh

    @contextmanager
    def reading(
        self, session_id: str, *, writes: bool = False
    ) -> "Iterator[Callable[[CachedSession | None], None]]":
        """Read for the cache, which keeps what it is handed unless a write comes between."""
        ticket = self.cache.begin_read(session_id)
        found: CachedSession | None = None

        def keep(session: CachedSession | None) -> None:
            nonlocal found
            found = session

        try:
            yield keep
        finally:
            self.cache.end_read(ticket, found, wrote=writes)

    def _read_changes(
        self, session_id: str, entry: CachedSession | None, agent_id: str | None
    ) -> tuple[CachedSession | None, bool]:
        """Read once what has changed, and return whether there is more."""
        known = {} if entry is None else {one: was.known() for one, was in entry.agents.items()}
        multi_agents = {} if entry is None else entry.multi_agents
        if agent_id is not None:
            known.setdefault(agent_id, {})
        limit = max(AGENTS_PER_OPEN, len(known))
        asked_at = self.clock()
        batch = Batch()
        opened = Opening(
            batch,
            reading.open_session(
                self.tables,
                session_id,
                known,
                {one: was.known() for one, was in multi_agents.items()},
                agent_limit=limit + 1,
                message_limit=MESSAGES_PER_REQUEST,
                asks_parts=entry is None or entry.has_parts,
            ),
        )
        answer = self.gateway.run(batch, session_id=session_id)
        return opened.read(answer, entry, asked_at, limit), opened.is_cut(answer)

    # -- writing -------------------------------------------------------------------------------

    def write(self, batch: Batch, session_id: str, agent_id: str | None = None) -> Answer:
        """Write past the cache, which forgets the session if it isn't sure that this worked.

        A caller whose write worked says what the cache should make of it.
        """
        try:
            return self.gateway.run(batch, writes=True, session_id=session_id, agent_id=agent_id)
        except BaseException:
            self.cache.forget(session_id)
            raise

    def forget_deleted(self, session_id: str) -> None:
        """Have the index and a file's log forget what was deleted or redacted in a session."""
        self.index.forget_deleted(session_id)
        self.gateway.empty_log()

    # -- change sets ---------------------------------------------------------------------------

    def base_of(self, key: AgentKey, agent: CachedAgent, fields: Mapping[str, Any]) -> MergeBase:
        """Return the merge base of an agent that was just read, given its decoded fields."""
        content = content_of(fields)
        return MergeBase(
            version=agent.version,
            origin=agent.origin,
            history_version=agent.history_version,
            view=agent.view,
            is_counted=agent.is_counted,
            created_at=self.codec.agent_of(key, fields).created_at,
            content=content,
            own=content,
            expires=agent.expires,
        )

    def commit(
        self,
        change: ChangeSet,
        base: MergeBase,
        rebase: Rebase,
        in_doubt: Request | None = None,
    ) -> CommitResult:
        """Store a change set and bring the cache up to date.

        Raises:
            PerSQLError: As `Committer.commit` says; the cache then forgets the session.
            InDoubtError: If an answer was lost.
        """
        key = change.key
        with self.lock(key):
            if in_doubt is None:
                base = self._base_from_cache(change, base)
            try:
                stored, result = self._committer.commit(change, base, rebase, in_doubt)
            except BaseException:
                self.cache.forget(key.session_id)
                raise
            self.cache.written(key.session_id, lambda entry: after_commit(entry, stored, result))
        if any(update.is_redaction for update in stored.updates):
            self.forget_deleted(key.session_id)
        if result.base.expires and not base.expires:  # which was said since the agent was read
            self._note_activity(key, result.base.origin)
        return result

    def read_others(self, change: ChangeSet, base: MergeBase) -> CommitResult:
        """Read what others have changed about an agent, with a change set that stores nothing.

        Raises:
            PerSQLError: If it can't be read.
        """
        with self.lock(change.key):
            result = self._committer.read(change, base)
            self.cache.written(
                change.key.session_id, lambda entry: after_commit(entry, change, result)
            )
        return result

    def wants_other_retention(self, expires_after: int | None) -> bool:
        """Whether a session that is kept for some seconds is to be kept for others."""
        return self.expires_after is not None and expires_after != self.expires_after

    # -- keeping -------------------------------------------------------------------------------

    def keep_for(self, session_id: str, expires_after: int | None) -> None:
        """Say for how many seconds a session is kept after its last activity, or None for ever.

        Raises:
            NotFoundError: If it isn't there.
        """
        batch = Batch(retention.refuse_expired(self.tables, session_id))
        batch.run(*retention.keep_for(self.tables, session_id, expires_after))
        found = batch.ask(reading.read_creating_write(self.tables, "sessions", session_id))
        row = self.write(batch, session_id).first(found)
        self.cache.forget(session_id)
        if row is None:
            raise NotFoundError(f"session {session_id!r} does not exist", session_id=session_id)

    def _note_activity(self, key: AgentKey, origin: str) -> None:
        batch = Batch(retention.refuse_expired(self.tables, key.session_id))
        batch.run(retention.note_activity(self.tables, key, origin))
        self.write(batch, *key)

    def _base_from_cache(self, change: ChangeSet, base: MergeBase) -> MergeBase:
        """Return a base that another writer of this process has advanced, before a race is run."""
        entry = self.cache.get(change.key.session_id)
        seen = None if entry is None else entry.agents.get(change.key.agent_id)
        if (
            seen is None
            or change.content is None
            or change.view is not None
            or not self.is_merging
            or seen.origin != base.origin
            or seen.version <= base.version
            or seen.view != base.view
            or seen.history_version != base.history_version
        ):
            return base
        content = self.codec.readable_content(change.key, seen.data)
        return base if content is None else replace(base, version=seen.version, content=content)

    def remember_message(self, key: AgentKey, row: StoredMessage) -> None:
        """Bring the cache up to date after a message was stored on its own."""

        def change(entry: CachedSession) -> CachedSession | None:
            agent = entry.agents.get(key.agent_id)
            if agent is None or row.message_id != agent.last_id + 1:
                return None
            return entry.with_agent(
                key.agent_id, replace(agent, messages=agent.messages.appended([row]))
            )

        self.cache.written(key.session_id, change)
