"""Checkpoints of agents, and what is made of them within the database: forks and truncations."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cachetools
from strands.types.session import Session

from strands_persql.databases.protocol import Statement
from strands_persql.errors import (
    AlreadyExistsError,
    CorruptRowError,
    NotFoundError,
    OutcomeUnknownError,
)
from strands_persql.gateway.batch import Answer, Batch, Row
from strands_persql.persistence.compare_and_swap import not_found
from strands_persql.persistence.store import SessionStore
from strands_persql.runtime.clock import now
from strands_persql.runtime.ids import AgentKey, check_id, new_id
from strands_persql.tables import checkpoint_rows, deleting, forking, reading, retention
from strands_persql.tables.codec import warn_of_unreadable_row

_REMEMBERED = 1024  # requests whose answers were lost


@dataclass(frozen=True)
class Checkpoint:
    """A point to go back to: what an agent worked with, and its state.

    Attributes:
        session_id: The session.
        agent_id: The agent.
        checkpoint_id: Its id.
        label: What it was called, or nothing.
        created_at: When it was made, by the clock of its maker.
        messages: How many messages the agent worked with.
    """

    session_id: str
    agent_id: str
    checkpoint_id: str
    label: str
    created_at: str
    messages: int

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> "Checkpoint":
        """Return a checkpoint as it was read, and can be."""
        return cls(
            row["session_id"],
            row["agent_id"],
            row["checkpoint_id"],
            row["label"],
            row["created_at"],
            int(row["messages"]),
        )

    @property
    def key(self) -> AgentKey:
        """Which agent of which session."""
        return AgentKey(self.session_id, self.agent_id)


class Checkpoints:
    """Lists checkpoints, forks sessions and removes what was rewound.

    Args:
        store: Where the sessions are.
    """

    def __init__(self, store: SessionStore) -> None:
        """Initialize."""
        self._store = store
        # Ids of writes whose answers were lost: who asks for the same again means the same write.
        self._in_doubt: cachetools.LRUCache[Any, str] = cachetools.LRUCache(_REMEMBERED)

    def list(self, session_id: str, agent_id: str | None = None) -> list[Checkpoint]:
        """Return the checkpoints of an agent, or of all of a session, oldest first.

        One that can't be read is left out, and a warning names it.
        """
        found = []
        for row in self._rows(session_id, agent_id):
            if row["problem"] is None:
                found.append(Checkpoint.of(row))
            else:
                warn_of_unreadable_row(self._corrupt(row), "the checkpoint is left out")
        return found

    def _rows(self, session_id: str, agent_id: str | None = None) -> Iterable[Row]:
        statement = checkpoint_rows.list_checkpoints(self._store.tables, session_id, agent_id)
        return self._store.kept_rows(statement, session_id, agent_id)

    def _corrupt(self, row: Row) -> CorruptRowError:
        key = AgentKey(row["session_id"], row["agent_id"])
        return self._store.codec.corrupt_checkpoint(key, row["checkpoint_id"], row["problem"])

    def find(self, session_id: str, checkpoint: Checkpoint | str) -> Checkpoint:
        """Return a checkpoint of a session.

        Raises:
            CorruptRowError: If it can't be read.
            NotFoundError: If it isn't there.
            ValueError: If it is another session's.
        """
        if isinstance(checkpoint, str):
            for row in self._rows(session_id):
                if row["checkpoint_id"] == checkpoint:
                    if row["problem"] is not None:
                        raise self._corrupt(row)
                    return Checkpoint.of(row)
            raise no_checkpoint(session_id, checkpoint)
        if checkpoint.session_id != session_id:
            raise ValueError(f"checkpoint={checkpoint!r} | must be of session {session_id!r}")
        return checkpoint

    def fork(self, session_id: str, copy_id: str, at: Checkpoint | str | None) -> Session:
        """Copy a session under another id."""
        check_id("session", session_id)
        check_id("session", copy_id)
        if at is not None:
            at = self.find(session_id, at)
        tables, what = self._store.tables, (session_id, copy_id, at)
        write_id = self._in_doubt.get(what) or new_id()
        batch = Batch(*self._refuse_expired(session_id))
        batch.run(
            *forking.fork_session(
                tables,
                session_id,
                copy_id,
                write_id=write_id,
                time=now(),
                at=None if at is None else (at.agent_id, at.checkpoint_id),
            )
        )
        copy = batch.ask(forking.read_fork(tables, copy_id))
        source = batch.ask(reading.read_creating_write(tables, "sessions", session_id))
        taken = batch.ask(reading.read_creating_write(tables, "sessions", copy_id))
        answer = self._send(batch, what, write_id, copy_id)
        found = answer.first(copy)
        if found is not None and found["write_id"] == write_id:
            return self._store.codec.read_session(copy_id, found["data"])
        other = answer.first(taken)
        if other is not None and other["has_expired"]:
            self._store.write(Batch(*deleting.remove_expired(tables, copy_id)), copy_id)
            return self.fork(session_id, copy_id, at)
        if found is not None:
            raise AlreadyExistsError(
                f"session {copy_id!r} already exists; give the fork another id", session_id=copy_id
            )
        if answer.first(source) is None:
            raise NotFoundError(f"session {session_id!r} does not exist", session_id=session_id)
        if at is not None:
            self.find(session_id, at.checkpoint_id)  # which says what is wrong with it
        raise NotFoundError(
            f"session {copy_id!r}, which this had made, was deleted since", session_id=copy_id
        )

    def truncate(self, key: AgentKey) -> int:
        """Delete what an agent has gone back behind, and return how many messages that were."""
        write_id = self._in_doubt.get(key) or new_id()
        first, *others = forking.truncate_agent(self._store.tables, key, write_id)
        guard = self._refuse_expired(key.session_id)
        batch = Batch(*guard)
        deleted = batch.ask(first)
        batch.run(*others)
        if guard:
            batch.run(retention.note_activity(self._store.tables, key, write_id))
        agent = batch.ask(reading.read_creating_write(self._store.tables, "agents", *key))
        with self._store.lock(key):
            answer = self._send(batch, key, write_id, key.session_id)
        self._store.forget_deleted(key.session_id)
        if answer.first(agent) is None:
            raise not_found("agent", key)
        return len(answer[deleted])

    def _refuse_expired(self, session_id: str) -> Sequence[Statement]:
        if not self._store.may_expire(session_id):
            return []
        return [retention.refuse_expired(self._store.tables, session_id)]

    def _send(self, batch: Batch, what: Any, write_id: str, session_id: str) -> Answer:
        try:
            answer = self._store.write(batch, session_id)
        except OutcomeUnknownError:
            self._in_doubt[what] = write_id  # said again, it is this one
            raise
        self._in_doubt.pop(what, None)
        self._store.cache.forget(session_id)
        return answer


def no_checkpoint(session_id: str, checkpoint_id: str) -> NotFoundError:
    """Return the error for a checkpoint that isn't there."""
    return NotFoundError(
        f"session {session_id!r} has no checkpoint {checkpoint_id!r}; it may have been removed with"
        " what was rewound. List the checkpoints to see which there are",
        session_id=session_id,
    )
