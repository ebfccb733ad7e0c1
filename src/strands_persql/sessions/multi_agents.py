"""The states of graphs and swarms of one session, and which versions of their rows are known."""

from typing import Any

from strands.types.exceptions import SessionException
from strands.types.session import Session

from strands_persql.errors import ConflictError
from strands_persql.persistence.cached import CachedSession
from strands_persql.persistence.compare_and_swap import InDoubtError
from strands_persql.persistence.creations import Creations
from strands_persql.persistence.row_version import RowVersion
from strands_persql.persistence.rows import RowUpdates
from strands_persql.persistence.store import SessionStore
from strands_persql.runtime.clock import now
from strands_persql.runtime.ids import AgentKey, new_id
from strands_persql.sessions.restoring import Restorer
from strands_persql.tables.encoding import decoded_text, to_json
from strands_persql.tables.tables import RowData

_CLAIM = "strands_persql_claim"  # in a state's JSON: who continues what has stopped for answers


class MultiAgentStates:
    """Stores graphs and swarms, each where its state has changed.

    Args:
        store: Where the session is.
        updates: What replaces rows.
        restorer: What gives stored states back.
        session: The session.
    """

    def __init__(
        self, store: SessionStore, updates: RowUpdates, restorer: Restorer, session: Session
    ) -> None:
        """Know none."""
        self._store = store
        self._updates = updates
        self._restorer = restorer
        self._session = session
        self._stored: dict[str, tuple[str, RowVersion]] = {}  # the JSON in the row, its version
        self._claims: set[str] = set()  # our own
        self._refused: set[str] = set()  # those that others have continued

    def initialize(self, source: Any, opened: CachedSession | None) -> None:
        """Restore a graph or swarm from its session, or create it there."""
        key = self._key(source.id)
        found = None if opened is None else opened.multi_agents.get(source.id)
        created = False
        if found is None:
            row = self._store.codec.multi_agent(key.session_id, source, now())
            found, created = Creations(self._store).start_multi_agent(self._session, key, row)
        if not created:
            self._restorer.multi_agent(source, key, found)
        self._stored[source.id] = (found.data, found.row_version)

    def encode(self, source: Any) -> str:
        """Return the JSON of a graph's or swarm's state."""
        return self._store.codec.multi_agent(self._session.session_id, source, now()).data

    def store(self, multi_agent_id: str, text: str) -> None:
        """Store a state, unless it is stored as it is."""
        try:
            stored, version = self._stored[multi_agent_id]
        except KeyError:
            raise SessionException(
                f"multi-agent {multi_agent_id!r} was not initialized with session"
                f" {self._session.session_id!r}; give it this session manager when it is made"
            ) from None
        if text != stored and multi_agent_id not in self._refused:
            self._replace(multi_agent_id, text, stored, version)

    def claim(self, source: Any) -> None:
        """Claim a graph or swarm that has stopped for answers: one writer continues it.

        Its row says so until its next state is stored, to whoever opens it meanwhile.

        Raises:
            ConflictError: If another writer has continued it.
        """
        stored, version = self._stored[source.id]
        state, claim = decoded_text(stored), new_id()
        if state.get(_CLAIM, "") not in {"", *self._claims}:
            raise self._continued_elsewhere(source.id)
        self._claims.add(claim)
        text = to_json({**state, _CLAIM: claim}, "multi-agent's state")
        try:
            self._replace(source.id, text, stored, version, is_claim=True)
        except ConflictError:
            self._refused.add(source.id)
            raise

    def _continued_elsewhere(self, multi_agent_id: str) -> ConflictError:
        self._refused.add(multi_agent_id)
        return ConflictError(
            f"multi-agent {multi_agent_id!r} of session {self._session.session_id!r} is being"
            " continued by another process: an interrupt is answered once. Nothing ran here; open"
            " the session again to see what became of it",
            **self._key(multi_agent_id).context,
        )

    def _replace(
        self,
        multi_agent_id: str,
        text: str,
        stored: str,
        version: RowVersion,
        *,
        is_claim: bool = False,
    ) -> None:
        time = now()
        row, key = RowData(text, time, time), self._key(multi_agent_id)
        try:
            version = self._updates.replace_multi_agent(key, row, version, is_claim=is_claim)
        except InDoubtError as error:
            self._stored[multi_agent_id] = (stored, error.request.doubted_version)
            raise error.error from error
        self._stored[multi_agent_id] = (text, version)

    def _key(self, multi_agent_id: str) -> AgentKey:
        return AgentKey(self._session.session_id, multi_agent_id)
