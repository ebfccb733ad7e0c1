"""Agents and multi-agents that begin, each with its session, unless they are there."""

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

from strands.types.session import Session, SessionAgent

from strands_persql.databases.protocol import Statement
from strands_persql.errors import AlreadyExistsError, NotFoundError
from strands_persql.gateway.batch import Batch
from strands_persql.persistence.cached import CachedAgent, CachedMultiAgent
from strands_persql.persistence.changes import PendingMessage
from strands_persql.persistence.opening import MESSAGES_PER_REQUEST, Opening
from strands_persql.persistence.store import SessionStore
from strands_persql.runtime.ids import AgentKey, new_id
from strands_persql.tables import appending, creating, deleting, preconditions, reading
from strands_persql.tables.large_content import Skeleton
from strands_persql.tables.tables import RowData

logger = logging.getLogger("strands_persql")

_Started = TypeVar("_Started")

_BYTES_PER_STATEMENT = 1_000_000  # of messages that are created together


class Creations:
    """Creates agents and multi-agents, whole or not at all; another writer may come first.

    Args:
        store: Where the sessions are.
    """

    def __init__(self, store: SessionStore) -> None:
        """Initialize."""
        self._store = store

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
        row = self._store.codec.agent(key.session_id, record)
        statements = [
            creating.create_agent(self._store.tables, key, row, write_id, start=0, view="[]"),
            *self._messages(key, messages, turn, write_id),
        ]

        skeletons = [row.skeleton, *(one.row.skeleton for one in messages)]

        def start(*before: Statement) -> tuple[CachedAgent, bool]:
            batch = Batch(*before, *statements)
            batch.bring(*skeletons)
            return self._start(key, batch)

        agent, is_whole = self._in_session(session, write_id, skeletons, start)
        if not is_whole:  # another writer's, with more messages than one request brings
            agent = self._store.agent(key) or agent
        return agent, agent.origin == write_id

    def _messages(
        self, key: AgentKey, messages: Sequence[PendingMessage], turn: str, write_id: str
    ) -> Iterator[Statement]:
        """Yield the statements that store an agent's first messages, if its write creates it."""
        precondition = preconditions.agent_is(write_id, 1)
        first = 0
        for portion in _portions(messages):
            rows = [
                (one.row.skeleton.text, one.write_id, one.row.created_at, one.row.updated_at)
                for one in portion
            ]
            yield appending.insert_first_messages(
                self._store.tables,
                key,
                turn=turn,
                rows=json.dumps(rows, ensure_ascii=False),
                first=first,
                precondition=precondition,
            )
            first += len(portion)

    def _in_session(
        self,
        session: Session,
        write_id: str,
        skeletons: Sequence[Skeleton],
        start: Callable[..., _Started],
    ) -> _Started:
        """Start something in a session that is created with it, in place of one that expired.

        Args:
            session: The session.
            write_id: The write that creates both.
            skeletons: What is started, and what is stored apart from it.
            start: Sends the statements that it is given, and those that create what is started.

        Raises:
            NotFoundError: If the session was deleted meanwhile.
        """
        tables, session_id = self._store.tables, session.session_id
        row = self._store.codec.session(session)
        create = creating.create_session(
            tables, session_id, row, write_id, self._store.expires_after
        )
        if self._store.expires_after is None:
            try:
                return start(create)
            except NotFoundError:  # unless it has expired, it isn't found again either
                logger.debug("session_id=<%s> | may have expired", session_id)
        remove = deleting.remove_expired(tables, session_id)
        if any(one.leaves for one in skeletons):  # which come first, and are to stay
            self._store.write(Batch(*remove), session_id)
            remove = []
        return start(*remove, create)

    def _start(self, key: AgentKey, batch: Batch) -> tuple[CachedAgent, bool]:
        opened = Opening(
            batch,
            reading.open_session(
                self._store.tables,
                key.session_id,
                {key.agent_id: {}},
                {},
                agent_limit=1,
                message_limit=MESSAGES_PER_REQUEST,
            ),
        )
        asked_at = self._store.clock()
        with self._store.reading(key.session_id, writes=True) as keep:
            answer = self._store.write(batch, *key)
            found = opened.read(answer, None, asked_at, 1)
            if found is None or key.agent_id not in found.agents:
                raise _deleted(key)
            agent = found.agents[key.agent_id]
            is_whole = not opened.is_cut(answer)
            if is_whole:
                entry = self._store.cache.get(key.session_id) or found
                keep(entry.with_agent(key.agent_id, agent))
        if self._store.wants_other_retention(found.expires_after):  # another writer's session
            self._store.keep_for(key.session_id, self._store.expires_after)
            agent = replace(agent, expires=True)
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
        create = creating.create_multi_agent(self._store.tables, key, row, write_id)

        def start(*before: Statement) -> CachedMultiAgent:
            batch = Batch(*before, create)
            batch.bring(row.skeleton)
            handle = batch.ask(reading.read_multi_agent(self._store.tables, key))
            created = self._store.write(batch, *key).first(handle)
            self._store.cache.forget(key.session_id)
            if created is None:
                raise _deleted(key)
            return CachedMultiAgent.of(created)

        found = self._in_session(session, write_id, [row.skeleton], start)
        if self._store.expires_after is not None and not found.expires:
            self._store.keep_for(key.session_id, self._store.expires_after)
            found = replace(found, expires=True)
        return found, found.origin == write_id

    def create(
        self, statement: Statement, row: RowData, table: str, key: AgentKey, write_id: str
    ) -> bool:
        """Create a row in a session that exists.

        Args:
            statement: What creates it.
            row: The row.
            table: Its table, unprefixed.
            key: Its key.
            write_id: The write that creates it.

        Returns:
            Whether its session expires.

        Raises:
            AlreadyExistsError: If it is there; it is left as it is.
            NotFoundError: If the session isn't there.
        """
        batch = Batch(statement)
        batch.bring(row.skeleton)
        session = batch.ask(
            reading.read_creating_write(self._store.tables, "sessions", key.session_id)
        )
        created = batch.ask(reading.read_creating_write(self._store.tables, table, *key))
        answer = self._store.write(batch, *key)
        self._store.cache.forget(key.session_id)
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
        return found["expires_after"] is not None


def _deleted(key: AgentKey) -> NotFoundError:
    return NotFoundError(
        f"session {key.session_id!r} was deleted while {key.agent_id!r} was created in it; open"
        " it again",
        **key.context,
    )


def _portions(messages: Sequence[PendingMessage]) -> Iterator[list[PendingMessage]]:
    """Yield messages in portions of some bytes each."""
    portion: list[PendingMessage] = []
    size = 0
    for message in messages:
        if portion and size + len(message.row.skeleton.text) > _BYTES_PER_STATEMENT:
            yield portion
            portion, size = [], 0
        portion.append(message)
        size += len(message.row.skeleton.text)
    if portion:
        yield portion
