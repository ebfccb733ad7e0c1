"""What the repository does beyond Strands' contract: lists, copies, ways back, and searches."""

from datetime import timedelta

from strands.types.session import Session

from strands_persql.persistence.checkpoints import Checkpoint, Checkpoints
from strands_persql.persistence.message_index import MessageHit
from strands_persql.persistence.options import seconds_of
from strands_persql.persistence.store import SessionStore
from strands_persql.runtime.ids import check_id
from strands_persql.sessions.seen import key_of
from strands_persql.sessions.session_records import SessionRecords
from strands_persql.sessions.stored_agent import Point, fork_at, rewind_stored


class BeyondTheContract:
    """What `PerSQLSessionRepository` has that no other repository of Strands has."""

    _store: SessionStore
    _sessions: SessionRecords
    _checkpoints: Checkpoints

    def fork_session(
        self,
        session_id: str,
        new_id: str,
        *,
        at: Point | None = None,
        agent_id: str | None = None,
    ) -> Session:
        """Copy a session under a new id, within the database, in one request.

        The original stays as it is, and the copy is as the original was at one moment, whoever
        writes meanwhile.

        Args:
            session_id: The session.
            new_id: The copy's id.
            at: A checkpoint, or its id, which takes a request more: its agent is copied as it was
                then, without what was said since. A message that the agent works with, as the
                repository has read it, to be its last one, or how many of its latest turns to
                leave out: a few requests more, and without what it had gone back behind. None
                for all as it is now.
            agent_id: Whose message or turns.

        Returns:
            The copy.

        Raises:
            AlreadyExistsError: If the new id is taken.
            NotFoundError: If the session, the agent or the checkpoint isn't there.
            ValueError: If the checkpoint is another session's, there is no such message, or there
                aren't as many turns.
        """
        if at is None or isinstance(at, Checkpoint | str):
            return self._checkpoints.fork(session_id, new_id, at)
        if agent_id is None:
            raise ValueError("agent_id | must say whose message or turns these are")
        return fork_at(self._store, self._checkpoints, session_id, key_of(new_id, agent_id), at)

    def rewind_session(self, session_id: str, agent_id: str, to: Point) -> int:
        """Have an agent go back that nobody needs to have open.

        As `PerSQLSessionManager.rewind` does, with a request to read what the agent works with.
        Agents that are open learn of it with their next turn.

        Args:
            session_id: The session.
            agent_id: The agent.
            to: A checkpoint or its id; a message that the agent works with, as the repository has
                read it, to be its last one; or how many of its latest turns to drop.

        Returns:
            How many messages the agent works with then.

        Raises:
            ConflictError: With ``on_conflict="raise"``, if another writer came first.
            NotFoundError: If the agent or the checkpoint isn't there.
            ValueError: If there is no such message, there aren't as many turns, or the checkpoint
                is another agent's.
        """
        return rewind_stored(self._store, key_of(session_id, agent_id), to)

    def list_checkpoints(self, session_id: str, agent_id: str | None = None) -> list[Checkpoint]:
        """List the checkpoints of an agent, or of all of a session's, oldest first.

        Args:
            session_id: The session.
            agent_id: The agent, or None for all.
        """
        return self._checkpoints.list(session_id, agent_id)

    def truncate_session(self, session_id: str, agent_id: str) -> int:
        """Delete for good what an agent has gone back behind, and what checkpoints have of it.

        Agents that are open elsewhere are to be opened again: their next write raises
        `NotFoundError`.

        Args:
            session_id: The session.
            agent_id: The agent.

        Returns:
            How many messages were deleted; 0 where the agent has never gone back.

        Raises:
            NotFoundError: If the agent isn't there.
        """
        return self._checkpoints.truncate(key_of(session_id, agent_id))

    def set_expiry(self, session_id: str, expires_after: float | timedelta | None) -> None:
        """Say for how long a session is kept after the last activity in it.

        Args:
            session_id: The session.
            expires_after: Seconds, or a ``timedelta``, from now on and from each activity; None
                for ever.

        Raises:
            NotFoundError: If it isn't there, or has expired.
            ValueError: If it is less than a second.
        """
        self._store.keep_for(check_id("session", session_id), seconds_of(expires_after))

    def list_sessions(
        self, *, limit: int = 100, after: str = "", starts_with: str = ""
    ) -> list[Session]:
        """List sessions in the order of their ids.

        One whose row can't be read is listed by its id alone, and a warning names it.

        Args:
            limit: The most to return.
            after: An id: the list begins after it, to continue page by page.
            starts_with: What the ids begin with.

        Raises:
            ValueError: If the limit is negative.
        """
        return self._sessions.list(limit, after, starts_with)

    def search(
        self,
        query: str,
        *,
        session_id: str | None = None,
        agent_id: str | None = None,
        limit: int = 20,
    ) -> list[MessageHit]:
        """Find messages that have all words of a query, or words that begin so, the best first.

        Upper and lower case and accents don't matter. What was deleted, redacted, edited since,
        rewound or truncated isn't found, nor what is in sessions that have expired. One request,
        and more where messages were stored since the last search: they are indexed first.

        Args:
            query: The words; no more than words, there are no operators.
            session_id: The session to look in, or None for all.
            agent_id: The agent whose messages to look at, or None for all of the session's.
            limit: The most to return.

        Raises:
            SchemaError: If there is no index: it is made by a repository with ``search=True``.
            ValueError: If the limit isn't from 1 to 1,000, or an agent is given without a session.
        """
        return self._store.index.search(
            query, session_id=session_id, agent_id=agent_id, limit=limit
        )
