"""Sessions in memory, kept true to the database: opening, refreshing, writing through."""

import json
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from strands.types.session import Session, SessionAgent

from strands_persql.databases.protocol import Database, Statement
from strands_persql.errors import NotFoundError
from strands_persql.gateway.batch import Answer, Batch, Row
from strands_persql.gateway.gateway import Gateway
from strands_persql.gateway.retry import RetryPolicy
from strands_persql.gateway.stats import Counters
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
    PendingMessage,
)
from strands_persql.persistence.committer import Committer, Rebase, Request
from strands_persql.persistence.compare_and_swap import CompareAndSwap
from strands_persql.runtime.forks import renew_after_fork
from strands_persql.runtime.ids import AgentKey, check_id, new_id
from strands_persql.tables import appending, creating, preconditions, reading
from strands_persql.tables.codec import RowCodec, content_of, removed_messages
from strands_persql.tables.tables import RowData, Tables

AGENTS_PER_OPEN = 50
"""Agents that opening a session reads; others are read when they are asked for."""

MESSAGES_PER_REQUEST = 2_000
"""Messages that one request brings at the most; longer views take several."""


_BYTES_PER_STATEMENT = 1_000_000  # of messages that are created together


class SessionStore:
    """The cache and the database as one.

    Args:
        database: Where the sessions are.
        tables: Their tables.
        cache: Where they are remembered.
        max_staleness: Seconds for which a cached session is opened without asking.
        on_conflict: What happens to a write that another one came before.
        retry: How long failed requests are tried again.
        counters: What counts.
        clock: The time in seconds, for what ``max_staleness`` is compared with.
    """

    def __init__(
        self,
        database: Database,
        tables: Tables,
        cache: CachePartition,
        max_staleness: float,
        on_conflict: OnConflict,
        retry: RetryPolicy,
        counters: Counters,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Initialize without asking the database for anything."""
        self.tables = tables
        self.cache = cache
        self.gateway = Gateway(database, tables, retry, counters)
        self.codec = RowCodec(tables, self.gateway.max_row_bytes)
        self.swaps = CompareAndSwap(self.gateway, on_conflict, retry)
        self._committer = Committer(self.swaps, tables, self.codec)
        self._max_staleness = max_staleness
        self._clock = clock
        self.after_fork()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Forget the writers of the parent process."""
        # Writers of one agent in this process take turns: racing each other would be a waste.
        self._locks: weakref.WeakValueDictionary[AgentKey, AgentLock] = (
            weakref.WeakValueDictionary()
        )
        self._locks_lock = threading.Lock()

    def lock(self, key: AgentKey) -> "AgentLock":
        """Return the lock of all who write an agent in this process."""
        with self._locks_lock:
            return self._locks.setdefault(key, AgentLock())

    @property
    def is_merging(self) -> bool:
        """Whether a write that another one came before is merged with it."""
        return self.swaps.on_conflict == "merge"

    # -- reading -------------------------------------------------------------------------------

    def rows(
        self, statement: Statement, session_id: str | None, agent_id: str | None = None
    ) -> list[Row]:
        """Ask the database, past the cache."""
        batch = Batch()
        handle = batch.ask(statement)
        return self.gateway.run(batch, session_id=session_id, agent_id=agent_id)[handle]

    def open(self, session_id: str) -> CachedSession | None:
        """Return a session that is no older than ``max_staleness``, or None if it isn't there."""
        check_id("session", session_id)
        entry = self.cache.get(session_id)
        if entry is not None and self._clock() - entry.checked_at < self._max_staleness:
            self.cache.count("hits")
            return entry
        self.cache.count("misses")
        return self._refresh(session_id, entry)

    def agent(self, key: AgentKey) -> CachedAgent | None:
        """Return an agent as its session was last seen, or None if it isn't there."""
        entry = self.cache.get(key.session_id)
        agent = None if entry is None else entry.agents.get(key.agent_id)
        self.cache.count("misses" if agent is None else "hits")
        if agent is not None:
            return agent
        fresh = self._refresh(key.session_id, entry, key.agent_id)
        return None if fresh is None else fresh.agents.get(key.agent_id)

    def multi_agent(self, key: AgentKey) -> CachedMultiAgent | None:
        """Return a multi-agent as its session was last seen, or None if it isn't there."""
        entry = self.cache.get(key.session_id)
        found = None if entry is None else entry.multi_agents.get(key.agent_id)
        self.cache.count("misses" if found is None else "hits")
        if found is not None:
            return found
        rows = self.rows(reading.read_multi_agent(self.tables, key), *key)
        return CachedMultiAgent.of(rows[0]) if rows else None

    def message(self, key: AgentKey, message_id: int) -> StoredMessage | None:
        """Return a message, from memory where the agent works with it."""
        entry = self.cache.get(key.session_id)
        agent = None if entry is None else entry.agents.get(key.agent_id)
        row = None if agent is None else agent.messages.find(message_id)
        self.cache.count("misses" if row is None else "hits")
        if row is not None:
            return row
        rows = self.rows(reading.read_message(self.tables, key, message_id), *key)
        return StoredMessage.of(rows[0]) if rows else None

    def messages(self, key: AgentKey, limit: int | None, offset: int) -> list[StoredMessage] | None:
        """Return an agent's history, from memory where what it works with is all of it.

        Returns:
            The messages from the ``offset``-th on, or None if the agent isn't there.
        """
        entry = self.cache.get(key.session_id)
        if entry is None or key.agent_id not in entry.agents:
            entry = self._refresh(key.session_id, entry, key.agent_id)
            if entry is None or key.agent_id not in entry.agents:
                self.cache.count("misses")
                return None
        agent = entry.agents[key.agent_id]
        if agent.view.is_plain and agent.view.start == 0:  # nothing is before it
            self.cache.count("hits")
            return list(agent.messages[offset : None if limit is None else offset + limit])
        if agent.view.is_plain and limit is None:
            removed = removed_messages(self.codec.read_content(key, agent.data))
            if offset == removed:  # what Strands asks for to restore an agent
                self.cache.count("hits")
                return list(agent.messages)
        self.cache.count("misses")
        return self._read_messages(key, limit, offset)

    def _read_messages(self, key: AgentKey, limit: int | None, offset: int) -> list[StoredMessage]:
        messages: list[StoredMessage] = []
        after = -1
        while limit is None or len(messages) < limit:
            wanted = MESSAGES_PER_REQUEST
            if limit is not None:
                wanted = min(wanted, limit - len(messages))
            statement = reading.list_messages(self.tables, key, after, offset, wanted)
            page = [StoredMessage.of(row) for row in self.rows(statement, *key)]
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
        with self._reading(session_id) as keep:
            fresh, more = self._read_changes(session_id, entry, agent_id)
            while fresh is not None and more:
                fresh, more = self._read_changes(session_id, fresh, agent_id)
            keep(fresh)
        return fresh

    @contextmanager
    def _reading(
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
        asked_at = self._clock()
        batch = Batch()
        opened = _Opening(
            batch,
            reading.open_session(
                self.tables,
                session_id,
                known,
                {one: was.known() for one, was in multi_agents.items()},
                agent_limit=limit + 1,
                message_limit=MESSAGES_PER_REQUEST,
            ),
        )
        answer = self.gateway.run(batch, session_id=session_id)
        return opened.read(answer, entry, asked_at, limit), opened.is_cut(answer)

    # -- creating ------------------------------------------------------------------------------

    def write(self, batch: Batch, session_id: str, agent_id: str | None = None) -> Answer:
        """Write past the cache, which forgets the session if it isn't sure that this worked.

        A caller whose write worked says what the cache should make of it.
        """
        try:
            return self.gateway.run(batch, writes=True, session_id=session_id, agent_id=agent_id)
        except BaseException:
            self.cache.forget(session_id)
            raise

    def start_agent(
        self,
        session: Session,
        record: SessionAgent,
        messages: Sequence[PendingMessage],
        turn: str,
    ) -> tuple[CachedAgent, bool]:
        """Create an agent with its first messages, and its session, unless they are there.

        Args:
            session: The session.
            record: The agent.
            messages: Its messages.
            turn: The turn that they belong to.

        Returns:
            The agent as it is in the database now, and whether this call created it.
        """
        key, write_id = AgentKey(session.session_id, record.agent_id), new_id()
        row = self.codec.agent(key.session_id, record)
        batch = Batch(
            creating.create_session(
                self.tables, key.session_id, self.codec.session(session), write_id
            ),
            creating.create_agent(self.tables, key, row, write_id, start=0, view="[]"),
        )
        precondition = preconditions.agent_is(write_id, 1)
        first = 0
        for portion in _portions(messages):
            rows = [
                (one.row.data, one.write_id, one.row.created_at, one.row.updated_at)
                for one in portion
            ]
            batch.run(
                appending.create_messages(
                    self.tables,
                    key,
                    turn=turn,
                    rows=json.dumps(rows, ensure_ascii=False),
                    first=first,
                    precondition=precondition,
                )
            )
            first += len(portion)
        opened = _Opening(
            batch,
            reading.open_session(
                self.tables,
                key.session_id,
                {key.agent_id: {}},
                {},
                agent_limit=1,
                message_limit=MESSAGES_PER_REQUEST,
            ),
        )
        agent, is_whole = self._start(key, batch, opened)
        if not is_whole:  # another writer's, with more messages than one request brings
            agent = self.agent(key) or agent
        return agent, agent.origin == write_id

    def _start(self, key: AgentKey, batch: Batch, opened: "_Opening") -> tuple[CachedAgent, bool]:
        asked_at = self._clock()
        with self._reading(key.session_id, writes=True) as keep:
            answer = self.write(batch, *key)
            found = opened.read(answer, None, asked_at, 1)
            if found is None or key.agent_id not in found.agents:
                raise NotFoundError(
                    f"session {key.session_id!r} was deleted while agent {key.agent_id!r} was"
                    " created in it; open it again",
                    **key.context,
                )
            agent = found.agents[key.agent_id]
            is_whole = not opened.is_cut(answer)
            if is_whole:
                entry = self.cache.get(key.session_id) or found
                keep(entry.with_agent(key.agent_id, agent))
        return agent, is_whole

    def start_multi_agent(
        self, session: Session, key: AgentKey, row: RowData
    ) -> tuple[CachedMultiAgent, bool]:
        """Create a multi-agent, and its session, unless they are there.

        Returns:
            The multi-agent as it is in the database now, and whether this call created it.

        Raises:
            NotFoundError: If the session was deleted meanwhile.
        """
        write_id = new_id()
        batch = Batch(
            creating.create_session(
                self.tables, key.session_id, self.codec.session(session), write_id
            ),
            creating.create_multi_agent(self.tables, key, row, write_id),
        )
        handle = batch.ask(reading.read_multi_agent(self.tables, key))
        created = self.write(batch, *key).first(handle)
        self.cache.forget(key.session_id)
        if created is None:
            raise NotFoundError(
                f"session {key.session_id!r} was deleted while {key.agent_id!r} was created in"
                " it; open it again",
                **key.context,
            )
        found = CachedMultiAgent.of(created)
        return found, found.origin == write_id

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
            size=len(agent.data),
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
                base = self._caught_up(change, base)
            try:
                stored, result = self._committer.commit(change, base, rebase, in_doubt)
            except BaseException:
                self.cache.forget(key.session_id)
                raise
            self.cache.written(key.session_id, lambda entry: _after(entry, stored, result))
        return result

    def _caught_up(self, change: ChangeSet, base: MergeBase) -> MergeBase:
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
        content = self.codec.read_content(change.key, seen.data)
        return replace(base, version=seen.version, content=content)

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


class AgentLock:
    """A lock that lives as long as somebody holds or awaits it; its holder may take it again."""

    def __init__(self) -> None:
        """Begin unlocked."""
        self.after_fork()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Begin unlocked: no thread of the parent holds it here."""
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        """Wait for it."""
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        """Release it."""
        self.release()

    def release(self) -> None:
        """Let others have it."""
        self._lock.release()

    def try_acquire(self) -> bool:
        """Take it if nobody else has it, without waiting."""
        return self._lock.acquire(blocking=False)


class _Opening:
    """The statements that open a session, within a batch, and how their rows are read."""

    def __init__(self, batch: Batch, opening: reading.Open) -> None:
        self._session = batch.ask(opening.session)
        self._agents = batch.ask(opening.agents)
        self._multi_agents = batch.ask(opening.multi_agents)
        self._messages = batch.ask(opening.messages)

    def is_cut(self, answer: Answer) -> bool:
        """Whether there may be more messages than one request brings."""
        return len(answer[self._messages]) == MESSAGES_PER_REQUEST

    def read(
        self, answer: Answer, entry: CachedSession | None, asked_at: float, limit: int
    ) -> CachedSession | None:
        """Return a session as it is, of what was known of it and what the database answered."""
        session = answer.first(self._session)
        if session is None:
            return None
        known = {} if entry is None else entry.agents
        messages: dict[str, list[StoredMessage]] = {}
        for message in answer[self._messages]:
            messages.setdefault(message["agent_id"], []).append(StoredMessage.of(message))
        agents = {}
        for row in answer[self._agents][:limit]:
            agent_id = row["agent_id"]
            before = known.get(agent_id) or CachedAgent.of(row)
            agents[agent_id] = before.refreshed(row, messages.get(agent_id, []))
        return CachedSession(
            session["data"],
            session["write_id"],
            agents,
            {
                row["multi_agent_id"]: entry.multi_agents[row["multi_agent_id"]]
                if row["data"] is None and entry is not None
                else CachedMultiAgent.of(row)
                for row in answer[self._multi_agents]
            },
            checked_at=asked_at,
        )


def _portions(messages: Sequence[PendingMessage]) -> Iterator[list[PendingMessage]]:
    """Yield messages in portions of some bytes each."""
    portion: list[PendingMessage] = []
    size = 0
    for message in messages:
        if portion and size + len(message.row.data) > _BYTES_PER_STATEMENT:
            yield portion
            portion, size = [], 0
        portion.append(message)
        size += len(message.row.data)
    if portion:
        yield portion


def _after(entry: CachedSession, change: ChangeSet, result: CommitResult) -> CachedSession | None:
    """Return a session as a change set has left it, or None where that can't be told."""
    agent, base = entry.agents.get(change.key.agent_id), result.base
    if (
        agent is None
        or agent.origin != base.origin
        or agent.history_version != base.history_version
    ):
        return None
    version, data = agent.version, agent.data
    if result.row is not None and version == base.version - 1:
        version, data = base.version, result.row.data
    if version != base.version or base.view.start < agent.view.start:
        return None
    new = _appended(agent, change, result)
    if new is None:
        return None
    messages = (agent.messages.appended(new) if new else agent.messages).within(base.view)
    after = replace(
        agent, version=version, view=base.view, is_counted=False, data=data, messages=messages
    )
    return entry.with_agent(change.key.agent_id, after)


def _appended(
    agent: CachedAgent, change: ChangeSet, result: CommitResult
) -> list[StoredMessage] | None:
    """Return the messages that a change set added to the cached ones, or None if it can't tell."""
    if not all(_has(agent, segment) for segment in result.base.view.head):
        return None
    next_id = agent.last_id + 1
    new = [
        StoredMessage(result.ids[one.write_id], 1, one.write_id, change.turn, "", one.row.data)
        for one in change.messages
        if result.ids[one.write_id] >= next_id
    ]
    if any(row.message_id != next_id + index for index, row in enumerate(new)):
        return None
    return new


def _has(agent: CachedAgent, segment: Any) -> bool:
    """Whether the cache has all messages of a view's segment, which it does of its own view's."""
    if isinstance(segment, str):
        return True
    first, last = segment
    return first >= agent.view.start or any(
        one[0] <= first and last <= one[1] for one in agent.view.head if not isinstance(one, str)
    )
