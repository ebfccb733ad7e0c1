"""Opening agents: created in their session with what they have, or given back what it has."""

from typing import Any

from strands.types.session import Session, SessionMessage

from strands_persql.persistence.cached import CachedAgent
from strands_persql.persistence.changes import PendingMessage
from strands_persql.persistence.creations import Creations
from strands_persql.persistence.store import SessionStore
from strands_persql.runtime.ids import AgentKey, new_id
from strands_persql.sessions import upstream
from strands_persql.sessions.read_only import NothingStored
from strands_persql.sessions.restoring import Restorer
from strands_persql.sessions.unit_of_work import UnitOfWork


class AgentOpener:
    """Opens the agents of one session.

    Args:
        store: Where the session is.
        restorer: What gives agents back what is stored.
        session: The session.
        defers: Whether messages are stored with their turn, not one by one.
        read_only: Whether nothing is stored.
    """

    def __init__(
        self,
        store: SessionStore,
        restorer: Restorer,
        session: Session,
        *,
        defers: bool,
        read_only: bool,
    ) -> None:
        """Initialize."""
        self._store = store
        self._restorer = restorer
        self._session = session
        self._defers = defers
        self._read_only = read_only

    def open(
        self, agent: Any, key: AgentKey, found: CachedAgent | None
    ) -> UnitOfWork | NothingStored:
        """Restore an agent from what was found of it, or create it.

        Raises:
            CorruptRowError: If a row of it can't be read, and that is an error.
            PerSQLError: If the database can't be asked.
        """
        if found is not None:
            restored = self._restore(agent, key, found)
            return NothingStored() if self._read_only else restored
        return NothingStored() if self._read_only else self._create(agent, key)

    def _create(self, agent: Any, key: AgentKey) -> UnitOfWork:
        """Create an agent in the session, whole or not at all; another writer may come first."""
        for index, message in enumerate(agent.messages):
            upstream.mark_message(message, f"{'/'.join(key)}/initial/{new_id()}/{index}")
        records = [SessionMessage.from_message(one, i) for i, one in enumerate(agent.messages)]
        rows = [self._store.codec.message(key, record) for record in records]
        found, created = Creations(self._store).start_agent(
            self._session,
            upstream.agent_record(agent),
            [PendingMessage(new_id(), row) for row in rows],
            new_id(),
        )
        if not created or len(found.messages) > len(records):  # or others came before our answer
            return self._restore(agent, key, found)
        fields = self._store.codec.read_agent_fields(key, found.data)
        unit = UnitOfWork(self._store, key, found, fields, defers=self._defers)
        unit.adopt(agent)
        return unit

    def _restore(self, agent: Any, key: AgentKey, found: CachedAgent) -> UnitOfWork:
        """Give an agent its state and its messages back; those that it had are dropped."""
        fields, prepended = self._restorer.agent(agent, key, found)
        unit = UnitOfWork(self._store, key, found, fields, defers=self._defers)
        unit.restore(agent, prepended)
        return unit
