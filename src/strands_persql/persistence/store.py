"""Sessions in memory, kept true to the database: read as they change, and written through."""

import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from strands_persql.errors import NotFoundError
from strands_persql.gateway.batch import Answer, Batch
from strands_persql.gateway.gateway import Gateway
from strands_persql.gateway.retry import RetryPolicy
from strands_persql.persistence.cache import CachePartition
from strands_persql.persistence.cached import (
    CachedAgent,
    CachedSession,
    StoredMessage,
)
from strands_persql.persistence.changes import (
    ChangeSet,
    CommitResult,
    MergeBase,
    OnConflict,
)
from strands_persql.persistence.commit_request import Request
from strands_persql.persistence.committer import Committer, Rebase
from strands_persql.persistence.compare_and_swap import CompareAndSwap
from strands_persql.persistence.locks import AgentLock, AgentLocks
from strands_persql.persistence.message_index import MessageIndex
from strands_persql.persistence.session_reader import SessionReader
from strands_persql.persistence.write_through import after_commit
from strands_persql.runtime.ids import AgentKey
from strands_persql.tables import reading, retention
from strands_persql.tables.codec import RowCodec, content_of
from strands_persql.tables.tables import Tables


class SessionStore(SessionReader):
    """The cache and the database as one: reads sessions, and writes them through.

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
        super().__init__(gateway, tables, cache, max_staleness, clock)
        self._on_conflict: OnConflict = on_conflict
        self._retry = retry
        self._keeps_index = search
        self._use(gateway)
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
            self.note_activity(key, result.base.origin)
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

    # -- keeping -------------------------------------------------------------------------------

    def wants_other_retention(self, expires_after: int | None) -> bool:
        """Whether a session that is kept for some seconds is to be kept for others."""
        return self.expires_after is not None and expires_after != self.expires_after

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

    def note_activity(self, key: AgentKey, origin: str, table: str = "agents") -> None:
        """Note that something was stored by a writer that didn't know that its session expires.

        Args:
            key: The agent or multi-agent.
            origin: The write that created its row.
            table: Which of both.

        Raises:
            NotFoundError: If it has expired.
        """
        batch = Batch(retention.refuse_expired(self.tables, key.session_id))
        batch.run(retention.note_activity(self.tables, key, origin, table))
        self.write(batch, *key)
