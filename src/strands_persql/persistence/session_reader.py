"""Sessions as they are: from memory, or with what has changed in the database since."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from strands_persql.databases.protocol import Statement
from strands_persql.gateway.batch import Batch, Row
from strands_persql.gateway.gateway import Gateway
from strands_persql.gateway.request_errors import SessionExpiredError
from strands_persql.persistence.cache import CachePartition
from strands_persql.persistence.cached import (
    CachedAgent,
    CachedMultiAgent,
    CachedSession,
    StoredMessage,
)
from strands_persql.persistence.opening import AGENTS_PER_OPEN, MESSAGES_PER_REQUEST, Opening
from strands_persql.runtime.ids import AgentKey, check_id
from strands_persql.tables import appending, reading, retention
from strands_persql.tables.codec import RowCodec, removed_messages
from strands_persql.tables.tables import Tables


class SessionReader:
    """Opens and refreshes sessions, and reads their rows one by one.

    Args:
        gateway: What asks the database.
        tables: Its tables.
        cache: Where they are remembered.
        max_staleness: Seconds for which a cached session is opened without asking.
        clock: The time in seconds, for what ``max_staleness`` is compared with.
    """

    def __init__(
        self,
        gateway: Gateway,
        tables: Tables,
        cache: CachePartition,
        max_staleness: float,
        clock: Callable[[], float],
    ) -> None:
        """Initialize without asking the database for anything."""
        self.gateway = gateway
        self.tables = tables
        self.cache = cache
        self.codec = RowCodec(tables, gateway.max_row_bytes)
        self.clock = clock
        self._max_staleness = max_staleness

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
        is_known = entry is not None and key.agent_id in entry.agents
        if not is_known:
            entry = self._refresh(key.session_id, entry, key.agent_id)
        agent = None if entry is None else entry.agents.get(key.agent_id)
        remembered = None if agent is None else self._remembered(key, agent, limit, offset)
        self.cache.count("hits" if is_known and remembered is not None else "misses")
        if agent is None or remembered is not None:
            return remembered
        return self._read_messages(key, limit, offset)

    def _remembered(
        self, key: AgentKey, agent: CachedAgent, limit: int | None, offset: int
    ) -> list[StoredMessage] | None:
        """Return messages of an agent's history, or None where memory doesn't have all of them."""
        if not agent.view.is_plain:
            return None
        if agent.view.start == 0:  # nothing is before it
            return list(agent.messages[offset : None if limit is None else offset + limit])
        removed = removed_messages(self.codec.readable_content(key, agent.data) or {})
        # What Strands asks for to restore an agent.
        return list(agent.messages) if limit is None and offset == removed else None

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
