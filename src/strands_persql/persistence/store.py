"""Sessions in memory, kept true to the database: opening, refreshing, writing through."""

import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from strands.types.session import Session, SessionAgent

from strands_persql.databases.protocol import Database, Statement
from strands_persql.errors import NotFoundError
from strands_persql.gateway.retry import RetryPolicy
from strands_persql.gateway.stats import Counters
from strands_persql.gateway.transport import Answer, Rows, Transport, new_write_id
from strands_persql.persistence.cache import SessionCache
from strands_persql.persistence.cached import (
    AgentSnapshot,
    MessageRow,
    MultiAgentSnapshot,
    SessionSnapshot,
)
from strands_persql.persistence.committer import (
    Base,
    Committer,
    Found,
    Moment,
    NewMessage,
    OnConflict,
    Outcome,
)
from strands_persql.runtime.forks import renew_after_fork
from strands_persql.runtime.ids import check_id
from strands_persql.tables.codec import RowCodec
from strands_persql.tables.schema import Row, Schema

AGENTS_PER_OPEN = 50
"""Agents that opening a session reads; others are read when they are asked for."""

MESSAGES_PER_REQUEST = 2_000
"""Messages that one request brings at the most; longer windows take several."""


class SessionStore:
    """The cache and the database as one.

    Args:
        database: Where the sessions are.
        schema: Their tables.
        cache: Where they are remembered.
        max_staleness: Seconds for which a cached session is opened without asking.
        on_conflict: What happens to a write that another one came before.
        retry: How long failed requests are tried again.
        counters: What counts.
        clock: Gives the seconds of a monotonic clock.
    """

    def __init__(
        self,
        database: Database,
        schema: Schema,
        cache: SessionCache,
        max_staleness: float,
        on_conflict: OnConflict,
        retry: RetryPolicy,
        counters: Counters,
        clock: Callable[[], float],
    ) -> None:
        """Initialize without asking the database for anything."""
        self.schema = schema
        self.cache = cache
        self.transport = Transport(database, schema, retry, counters)
        self.codec = RowCodec(schema, self.transport.max_row_bytes)
        self._max_staleness = max_staleness
        self._clock = clock
        self.on_conflict = on_conflict
        self._committer = Committer(self.transport, schema, self.codec, on_conflict, retry)
        self.after_fork()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Forget the writers of the parent process."""
        # Writers of one agent in this process take turns: racing each other would be a waste.
        self._turnstiles: weakref.WeakValueDictionary[tuple[str, str], _Turnstile] = (
            weakref.WeakValueDictionary()
        )
        self._turnstiles_lock = threading.Lock()

    # -- reading -------------------------------------------------------------------------------

    def read(
        self, statements: Sequence[Statement], session_id: str | None, agent_id: str | None = None
    ) -> list[Rows]:
        """Ask the database, past the cache."""
        return self.transport.run(statements, session_id=session_id, agent_id=agent_id).rows

    def open(self, session_id: str) -> SessionSnapshot | None:
        """Give a session that is no older than ``max_staleness``, or None if it isn't there."""
        check_id("session", session_id)
        entry = self.cache.get(session_id)
        if entry is not None and self._clock() - entry.checked_at < self._max_staleness:
            self.cache.count("hits")
            return entry
        self.cache.count("misses")
        return self._refresh(session_id, entry)

    def agent(self, session_id: str, agent_id: str) -> AgentSnapshot | None:
        """Give an agent as its session was last seen, or None if it isn't there."""
        entry = self.cache.get(session_id)
        agent = None if entry is None else entry.agents.get(agent_id)
        self.cache.count("misses" if agent is None else "hits")
        if agent is not None:
            return agent
        fresh = self._refresh(session_id, entry, agent_id)
        return None if fresh is None else fresh.agents.get(agent_id)

    def multi_agent(self, session_id: str, multi_agent_id: str) -> MultiAgentSnapshot | None:
        """Give a multi-agent as its session was last seen, or None if it isn't there."""
        entry = self.cache.get(session_id)
        found = None if entry is None else entry.multi_agents.get(multi_agent_id)
        self.cache.count("misses" if found is None else "hits")
        if found is not None:
            return found
        statement = self.schema.read_multi_agent(session_id, multi_agent_id)
        rows = self.read([statement], session_id, multi_agent_id)[0]
        return MultiAgentSnapshot.of(rows[0]) if rows else None

    def message(self, session_id: str, agent_id: str, message_id: int) -> MessageRow | None:
        """Give a message, from memory where it is within the agent's window."""
        entry = self.cache.get(session_id)
        agent = None if entry is None else entry.agents.get(agent_id)
        row = None if agent is None else agent.window.find(message_id)
        self.cache.count("misses" if row is None else "hits")
        if row is not None:
            return row
        statement = self.schema.read_message(session_id, agent_id, message_id)
        rows = self.read([statement], session_id, agent_id)[0]
        return MessageRow.of(rows[0]) if rows else None

    def messages(
        self, session_id: str, agent_id: str, limit: int | None, offset: int
    ) -> list[MessageRow] | None:
        """Give an agent's messages, from memory where its window is all that is asked for.

        Returns:
            The messages from the ``offset``-th on, or None if the agent isn't there.
        """
        entry = self.cache.get(session_id)
        if entry is None or agent_id not in entry.agents:
            entry = self._refresh(session_id, entry, agent_id)
            if entry is None or agent_id not in entry.agents:
                self.cache.count("misses")
                return None
        agent = entry.agents[agent_id]
        if agent.window_start == 0:  # nothing lies before it: it is the whole history
            self.cache.count("hits")
            return list(agent.window[offset : None if limit is None else offset + limit])
        removed = self.codec.removed_messages(session_id, agent_id, agent.data)
        if offset == removed and limit is None:  # what Strands asks for to restore an agent
            self.cache.count("hits")
            return list(agent.window)
        self.cache.count("misses")
        return self._read_messages(session_id, agent_id, limit, offset)

    def _read_messages(
        self, session_id: str, agent_id: str, limit: int | None, offset: int
    ) -> list[MessageRow]:
        messages: list[MessageRow] = []
        after = -1
        while limit is None or len(messages) < limit:
            wanted = MESSAGES_PER_REQUEST
            if limit is not None:
                wanted = min(wanted, limit - len(messages))
            statement = self.schema.list_messages(session_id, agent_id, after, offset, wanted)
            page = [MessageRow.of(row) for row in self.read([statement], session_id, agent_id)[0]]
            messages += page
            if len(page) < wanted:
                break
            after, offset = page[-1].message_id, 0
        return messages

    def _refresh(
        self, session_id: str, entry: SessionSnapshot | None, agent_id: str | None = None
    ) -> SessionSnapshot | None:
        """Bring a session up to date, reading what has changed since ``entry`` alone.

        Args:
            session_id: The session.
            entry: What is known of it, or None.
            agent_id: An agent to read besides, or None for all of the session's.
        """
        ticket = self.cache.begin_read(session_id, self._clock())
        found: SessionSnapshot | None = None
        try:
            fresh, more = self._read_changes(session_id, entry, agent_id)
            while fresh is not None and more:
                fresh, more = self._read_changes(session_id, fresh, agent_id)
            found = fresh
        finally:
            self.cache.end_read(ticket, found)
        return found

    def _read_changes(
        self, session_id: str, entry: SessionSnapshot | None, agent_id: str | None
    ) -> tuple[SessionSnapshot | None, bool]:
        """Read once what has changed, and tell whether there is more."""
        known = {} if entry is None else {one: was.known() for one, was in entry.agents.items()}
        multi_agents = {} if entry is None else entry.multi_agents
        if agent_id is not None:
            known.setdefault(agent_id, {})
        limit = max(AGENTS_PER_OPEN, len(known))
        asked_at = self._clock()
        statements = self.schema.open_session(
            session_id,
            known,
            {one: was.known() for one, was in multi_agents.items()},
            agent_limit=limit + 1,
            message_limit=MESSAGES_PER_REQUEST,
        )
        rows = self.read(statements, session_id)
        fresh = _refreshed(entry, rows, asked_at, limit)
        return fresh, len(rows[3]) == MESSAGES_PER_REQUEST

    # -- writing -------------------------------------------------------------------------------

    def write(
        self, statements: Sequence[Statement], session_id: str, agent_id: str | None = None
    ) -> Answer:
        """Write past the cache, which forgets the session if it isn't sure that this worked.

        A caller whose write worked says what the cache should make of it.
        """
        try:
            return self.transport.run(
                statements, writes=True, session_id=session_id, agent_id=agent_id
            )
        except BaseException:
            self.cache.forget(session_id)
            raise

    def start_agent(
        self, session: Session, record: SessionAgent, messages: Sequence[NewMessage], turn: str
    ) -> tuple[AgentSnapshot, bool]:
        """Create an agent with its first messages, and its session, unless they are there.

        Args:
            session: The session.
            record: The agent.
            messages: Its messages, `MAX_MESSAGES` at the most.
            turn: The turn that they belong to.

        Returns:
            The agent as it is in the database now, and whether this call created it.
        """
        session_id, agent_id = session.session_id, record.agent_id
        write_id, row = new_write_id(), self.codec.agent(session_id, record)
        removed = self.codec.removed_messages(session_id, agent_id, row.data)
        guard = self.schema.guard(session_id, agent_id, write_id, 1, None)
        statements = [
            self.schema.create_session(session_id, self.codec.session(session), write_id)[0],
            self.schema.create_agent(session_id, agent_id, row, write_id, removed),
            *(
                self.schema.append_message(
                    session_id, agent_id, turn, message.row, message.write_id, -1, guard
                )
                for message in messages
            ),
            *self.schema.open_session(
                session_id, {agent_id: {}}, {}, agent_limit=1, message_limit=MESSAGES_PER_REQUEST
            ),
        ]
        ticket = self.cache.begin_read(session_id, self._clock())
        kept: SessionSnapshot | None = None
        asked_at = self._clock()
        try:
            rows = self.write(statements, session_id, agent_id).rows[-4:]
            found = _refreshed(None, rows, asked_at, 1)
            if found is None or agent_id not in found.agents:
                raise NotFoundError(
                    f"session {session_id!r} was deleted while agent {agent_id!r} was created in"
                    " it; open it again",
                    session_id=session_id,
                    agent_id=agent_id,
                )
            agent = found.agents[agent_id]
            is_whole = len(rows[3]) < MESSAGES_PER_REQUEST
            if is_whole:
                entry = self.cache.get(session_id) or found
                kept = entry.with_agent(agent_id, agent)
        finally:
            self.cache.end_read(ticket, kept, wrote=True)
        if not is_whole:  # another writer's, with more messages than one request brings
            agent = self.agent(session_id, agent_id) or agent
        return agent, agent.write_id == write_id

    def start_multi_agent(
        self, session: Session, multi_agent_id: str, row: Row
    ) -> tuple[MultiAgentSnapshot, bool]:
        """Create a multi-agent, and its session, unless they are there.

        Returns:
            The multi-agent as it is in the database now, and whether this call created it.
        """
        session_id, write_id = session.session_id, new_write_id()
        rows = self.write(
            [
                self.schema.create_session(session_id, self.codec.session(session), write_id)[0],
                self.schema.create_multi_agent(session_id, multi_agent_id, row, write_id),
                self.schema.read_multi_agent(session_id, multi_agent_id),
            ],
            session_id,
            multi_agent_id,
        ).rows
        self.cache.forget(session_id)
        found = MultiAgentSnapshot.of(rows[2][0])
        return found, found.write_id == write_id

    def base_of(self, session_id: str, agent_id: str, agent: AgentSnapshot) -> Base:
        """Give what a holder knows of an agent that it has just been handed."""
        content = self.codec.read_agent_content(session_id, agent_id, agent.data)
        return Base(
            version=agent.version,
            write_id=agent.write_id,
            epoch=agent.epoch,
            window_start=agent.window_start,
            created_at=self.codec.read_agent(session_id, agent_id, agent.data).created_at,
            stored=content,
            known=content,
            size=len(agent.data),
        )

    def commit(self, moment: Moment) -> Outcome:
        """Store a moment and take it into the cache.

        Raises:
            PerSQLError: As `Committer.store` says; the cache then forgets the session.
        """
        session_id, agent_id = moment.session_id, moment.agent_id
        with self._turnstile(session_id, agent_id):
            self._catch_up(moment)
            try:
                outcome = self._committer.store(moment)
            except BaseException:
                self.cache.forget(session_id)
                raise
            self.cache.written(session_id, lambda entry: _after(entry, moment, outcome))
        return outcome

    def take_in_message(self, session_id: str, agent_id: str, row: MessageRow) -> None:
        """Take a message that was stored on its own into the cache."""

        def change(entry: SessionSnapshot) -> SessionSnapshot | None:
            agent = entry.agents.get(agent_id)
            if agent is None or row.message_id != agent.next_id:
                return None
            return entry.with_agent(agent_id, replace(agent, window=agent.window.appended([row])))

        self.cache.written(session_id, change)

    def _catch_up(self, moment: Moment) -> None:
        """Merge with what another writer of this process has left, before the race is run."""
        base, entry = moment.base, self.cache.get(moment.session_id)
        seen = None if entry is None else entry.agents.get(moment.agent_id)
        if (
            seen is not None
            and moment.content is not None
            and self.on_conflict == "merge"
            and not base.unsettled
            and seen.write_id == base.write_id
            and seen.version > base.version
        ):
            content = self.codec.read_agent_content(moment.session_id, moment.agent_id, seen.data)
            base.adopt(Found(seen.version, content))

    def _turnstile(self, session_id: str, agent_id: str) -> "_Turnstile":
        with self._turnstiles_lock:
            return self._turnstiles.setdefault((session_id, agent_id), _Turnstile())


class _Turnstile:
    """A lock that lives as long as somebody holds or awaits it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def _refreshed(
    entry: SessionSnapshot | None, rows: list[Rows], asked_at: float, limit: int
) -> SessionSnapshot | None:
    """Give a session as it is, from what was known of it and what the database has answered."""
    session, agents, multi_agents, messages = rows
    if not session:
        return None
    windows: dict[str, list[MessageRow]] = {}
    for message in messages:
        windows.setdefault(message["agent_id"], []).append(MessageRow.of(message))

    def agent(row: Mapping[str, Any]) -> AgentSnapshot:
        known = None if entry is None else entry.agents.get(row["agent_id"])
        before = AgentSnapshot.of(row) if known is None else known
        return before.refreshed(row, windows.get(row["agent_id"], []))

    def multi_agent(row: Mapping[str, Any]) -> MultiAgentSnapshot:
        if row["data"] is None and entry is not None:
            return entry.multi_agents[row["multi_agent_id"]]
        return MultiAgentSnapshot.of(row)

    return SessionSnapshot(
        session[0]["data"],
        {row["agent_id"]: agent(row) for row in agents[:limit]},
        {row["multi_agent_id"]: multi_agent(row) for row in multi_agents},
        checked_at=asked_at,
    )


def _after(entry: SessionSnapshot, moment: Moment, outcome: Outcome) -> SessionSnapshot | None:
    """Give a session as a moment has left it, or None where that can't be told."""
    agent = entry.agents.get(moment.agent_id)
    if agent is None or agent.write_id != moment.base.write_id or agent.epoch != outcome.epoch:
        return None
    version, data = agent.version, agent.data
    if outcome.written is not None and version == outcome.version - 1:
        version, data = outcome.version, outcome.written.data
    if version != outcome.version or outcome.window_start < agent.window_start:
        return None
    next_id = agent.next_id
    stored = [(outcome.ids[one.write_id], one) for one in moment.messages]
    new = [
        MessageRow(message_id, 1, one.write_id, moment.turn, one.row.data)
        for message_id, one in stored
        if message_id >= next_id
    ]
    if any(row.message_id != next_id + index for index, row in enumerate(new)):
        return None
    window = (agent.window.appended(new) if new else agent.window).since(outcome.window_start)
    after = AgentSnapshot(version, agent.write_id, agent.epoch, outcome.window_start, data, window)
    return entry.with_agent(moment.agent_id, after)
