"""Agents and multi-agents that begin, each with its session, unless they are there."""

import json
from collections.abc import Iterator, Sequence

from strands.types.session import Session, SessionAgent

from strands_persql.databases.protocol import Statement
from strands_persql.errors import AlreadyExistsError, NotFoundError
from strands_persql.gateway.batch import Batch
from strands_persql.persistence.cached import CachedAgent, CachedMultiAgent
from strands_persql.persistence.changes import PendingMessage
from strands_persql.persistence.opening import MESSAGES_PER_REQUEST, Opening
from strands_persql.persistence.store import SessionStore
from strands_persql.runtime.ids import AgentKey, new_id
from strands_persql.tables import appending, creating, preconditions, reading
from strands_persql.tables.tables import RowData

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
        batch = Batch(
            creating.create_session(
                self._store.tables, key.session_id, self._store.codec.session(session), write_id
            ),
            creating.create_agent(self._store.tables, key, row, write_id, start=0, view="[]"),
        )
        batch.bring(row.skeleton, *(one.row.skeleton for one in messages))
        precondition = preconditions.agent_is(write_id, 1)
        first = 0
        for portion in _portions(messages):
            rows = [
                (one.row.skeleton.text, one.write_id, one.row.created_at, one.row.updated_at)
                for one in portion
            ]
            batch.run(
                appending.create_messages(
                    self._store.tables,
                    key,
                    turn=turn,
                    rows=json.dumps(rows, ensure_ascii=False),
                    first=first,
                    precondition=precondition,
                )
            )
            first += len(portion)
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
        agent, is_whole = self._start(key, batch, opened)
        if not is_whole:  # another writer's, with more messages than one request brings
            agent = self._store.agent(key) or agent
        return agent, agent.origin == write_id

    def _start(self, key: AgentKey, batch: Batch, opened: Opening) -> tuple[CachedAgent, bool]:
        asked_at = self._store.clock()
        with self._store.reading(key.session_id, writes=True) as keep:
            answer = self._store.write(batch, *key)
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
                entry = self._store.cache.get(key.session_id) or found
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
                self._store.tables, key.session_id, self._store.codec.session(session), write_id
            ),
            creating.create_multi_agent(self._store.tables, key, row, write_id),
        )
        batch.bring(row.skeleton)
        handle = batch.ask(reading.read_multi_agent(self._store.tables, key))
        created = self._store.write(batch, *key).first(handle)
        self._store.cache.forget(key.session_id)
        if created is None:
            raise NotFoundError(
                f"session {key.session_id!r} was deleted while {key.agent_id!r} was created in"
                " it; open it again",
                **key.context,
            )
        found = CachedMultiAgent.of(created)
        return found, found.origin == write_id

    def create(
        self, statement: Statement, row: RowData, table: str, key: AgentKey, write_id: str
    ) -> None:
        """Create a row in a session that exists.

        Args:
            statement: What creates it.
            row: The row.
            table: Its table, unprefixed.
            key: Its key.
            write_id: The write that creates it.

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
