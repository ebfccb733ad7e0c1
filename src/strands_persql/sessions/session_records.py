"""Sessions of a repository: created, opened, deleted and listed."""

import random

import cachetools
from strands.types.session import Session, SessionType

from strands_persql.errors import (
    AlreadyExistsError,
    CorruptRowError,
    NotFoundError,
    OutcomeUnknownError,
)
from strands_persql.gateway.batch import Batch
from strands_persql.persistence.store import SessionStore
from strands_persql.runtime.ids import check_id, new_id
from strands_persql.sessions.seen import WRITE, write_id_of
from strands_persql.tables import creating, deleting, reading
from strands_persql.tables.codec import warn_of_unreadable_row

_REMEMBERED_DELETIONS = 1024
_FORGETS_DELETIONS = 1 / 64  # how often a deletion looks for old ones to forget


class SessionRecords:
    """What `PerSQLSessionRepository` does with sessions.

    Args:
        store: Where the sessions are.
    """

    def __init__(self, store: SessionStore) -> None:
        """Initialize."""
        self._store = store
        # Deletions whose answers were lost.
        self._deletions: cachetools.LRUCache[str, str] = cachetools.LRUCache(_REMEMBERED_DELETIONS)

    def create(self, session: Session) -> Session:
        """Create a session."""
        session_id = check_id("session", session.session_id)
        row = self._store.codec.session(session)
        write_id = write_id_of(session, row.data)
        tables, expires_after = self._store.tables, self._store.expires_after
        batch = Batch(creating.create_session(tables, session_id, row, write_id, expires_after))
        created = batch.ask(reading.read_creating_write(tables, "sessions", session_id))
        found = self._store.write(batch, session_id).first(created)
        self._store.cache.forget(session_id)
        if found is not None and found["has_expired"]:
            self._store.write(Batch(*deleting.remove_expired(tables, session_id)), session_id)
            return self.create(session)
        if found is None:
            setattr(session, WRITE, None)  # it was created by this write before, and deleted
            return self.create(session)
        if found["write_id"] != write_id:
            raise AlreadyExistsError(
                f"session {session_id!r} already exists; read it instead", session_id=session_id
            )
        return session

    def read(self, session_id: str) -> Session | None:
        """Open a session: bring it up to date in memory."""
        found = self._store.open(session_id)
        return None if found is None else self._store.codec.read_session(session_id, found.data)

    def delete(self, session_id: str) -> None:
        """Delete a session, as it was last seen here, with all that is in it."""
        check_id("session", session_id)
        seen = self._store.cache.get(session_id)
        origin = None if seen is None else seen.origin
        created = reading.read_creating_write(self._store.tables, "sessions", session_id)
        deletion = self._deletions.get(session_id) or new_id()
        batch = Batch()
        found = batch.ask(created)
        batch.run(*deleting.delete_session(self._store.tables, session_id, origin, deletion))
        if random.random() < _FORGETS_DELETIONS:  # noqa: S311 - spreads the work
            batch.run(deleting.forget_deletions(self._store.tables))
        try:
            answer = self._store.write(batch, session_id)
        except OutcomeUnknownError:
            self._deletions[session_id] = deletion  # said again, it is this one
            raise
        self._deletions.pop(session_id, None)
        self._store.cache.forget(session_id)
        self._store.forget_deleted(session_id)
        row = answer.first(found)
        is_other = (
            row is None or row["has_expired"] or row["write_id"] != (origin or row["write_id"])
        )
        if is_other and not answer.is_ambiguous:
            # An ambiguous answer may be to a copy of the deletion that came first.
            raise NotFoundError(f"session {session_id!r} does not exist", session_id=session_id)

    def list(self, limit: int, after: str, starts_with: str) -> list[Session]:
        """Return sessions in the order of their ids."""
        if limit < 0:
            raise ValueError(f"limit={limit} | must not be negative")
        statement = reading.list_sessions(self._store.tables, after, starts_with, limit)
        rows = self._store.rows(statement, None)
        return [self._listed(row["session_id"], row["data"]) for row in rows]

    def _listed(self, session_id: str, data: str) -> Session:
        """Return a session, or what is known of it where its row can't be read: its id."""
        try:
            return self._store.codec.read_session(session_id, data)
        except CorruptRowError as error:
            warn_of_unreadable_row(error, "it is listed by its id alone")
        return Session(session_id, SessionType.AGENT, created_at="", updated_at="")
