"""Strands' lifecycle of agents, graphs and swarms, handed over to be stored."""

from collections.abc import Callable
from datetime import timedelta
from types import TracebackType
from typing import Any, Literal, TypeVar

from strands.hooks.events import AgentInitializedEvent, MultiAgentInitializedEvent
from strands.hooks.registry import HookRegistry
from strands.multiagent.base import MultiAgentBase
from strands.session.repository_session_manager import RepositorySessionManager
from strands.types.content import Message
from strands.types.exceptions import SessionException
from strands.types.session import Session, SessionType

from strands_persql.databases.protocol import Database
from strands_persql.databases.rest import RestClient
from strands_persql.databases.secret import secret
from strands_persql.errors import NotFoundError, PerSQLError
from strands_persql.gateway.retry import RetryPolicy
from strands_persql.persistence.cached import CachedSession
from strands_persql.persistence.changes import OnConflict
from strands_persql.persistence.options import check_type, seconds_of
from strands_persql.persistence.rows import RowUpdates
from strands_persql.runtime.ids import AgentKey, check_id
from strands_persql.runtime.threads import in_thread
from strands_persql.sessions import upstream
from strands_persql.sessions.agent_opening import AgentOpener
from strands_persql.sessions.events import AgentEvents
from strands_persql.sessions.going_back import GoesBack
from strands_persql.sessions.hooks import OtherEvents, SessionHooks
from strands_persql.sessions.multi_agents import MultiAgentStates
from strands_persql.sessions.read_only import NoMultiAgentsStored, NothingStored
from strands_persql.sessions.repository import PerSQLSessionRepository
from strands_persql.sessions.restoring import Restorer
from strands_persql.sessions.unit_of_work import UnitOfWork

_Self = TypeVar("_Self", bound="PerSQLSessionManager")


class PerSQLSessionManager(GoesBack, RepositorySessionManager):
    """Keeps the agents of one session in a PerSQL or SQLite database.

    Pass it to an agent, a graph or a swarm as its ``session_manager``. What they say and know is
    in the database when the call that changed it returns, and comes back when another manager is
    made for the same session, in this process or another.

    Args:
        session_id: The session. It is created with its first agent, if it isn't there.
        database: Where sessions are: `LocalDatabase`, `RestDatabase`, or a handle of the persql
            SDK. Not with ``repository``.
        table_prefix: What the tables' names begin with.
        commit: ``"message"`` to store each message before the agent continues; ``"turn"`` to store
            an invocation's messages together when it ends, in one round trip: a process that
            dies leaves no half turn behind, and loses that turn. A turn of more than 80 messages
            is stored in parts.
        max_staleness: How old, in seconds, what this process remembers of the session may be for
            it to be opened without asking the database. With 0, the database is asked.
        on_conflict: What happens to a write when another writer came first: ``"merge"`` keeps
            both, ``"raise"`` raises `ConflictError`, after which this manager writes nothing more.
        repository: A repository to share with other managers, in place of ``database`` and the
            options that go with it.
        retry: How long failed requests are tried again, or None for the default policy.
        expires_after: For how long, in seconds or as a ``timedelta``, the session is kept after the
            last activity in it; it then opens as new. None leaves that as it is, or to the
            repository.
        owner: Whose session this is, such as a user: one of that id that is another owner's can
            neither be seen nor changed. With ``repository``, that is narrowed to the owner.
        read_only: Whether agents are restored and nothing is stored: what they do stays in their
            memory. True with a repository that is read only.
        strict: Whether a row that can't be read is an error when it is opened; else a warning
            names it, and agents are given the rest.

    Attributes:
        session_id: The session.
        session: Its record.
        session_repository: The repository behind it.
        read_only: Whether nothing is stored.

    Raises:
        CorruptRowError: With ``strict``, if its row can't be read.
        PerSQLError: If the session can't be read. It is then not known whether it exists, and
            nothing is created.
        ValueError: If an argument is out of its range.
    """

    session_repository: PerSQLSessionRepository

    def __init__(  # not the parent's, which would read, then create, in two round trips
        self,
        session_id: str,
        database: Database | None = None,
        *,
        table_prefix: str = "strands_",
        commit: Literal["message", "turn"] = "message",
        max_staleness: float = 0.0,
        on_conflict: OnConflict = "merge",
        repository: PerSQLSessionRepository | None = None,
        retry: RetryPolicy | None = None,
        expires_after: float | timedelta | None = None,
        owner: str | None = None,
        read_only: bool = False,
        strict: bool = False,
    ) -> None:
        """Open the session."""
        if (database is None) == (repository is None):
            raise ValueError("give either a database or a repository")
        check_type("repository", repository, PerSQLSessionRepository)
        options = (table_prefix, max_staleness, on_conflict, retry)
        if repository is not None and options != ("strands_", 0.0, "merge", None):
            raise ValueError(
                "table_prefix, max_staleness, on_conflict and retry are the repository's: give"
                " them to PerSQLSessionRepository"
            )
        if commit not in ("message", "turn"):
            raise ValueError(f"commit={commit!r} | must be 'message' or 'turn'")
        if repository is None:
            assert database is not None
            repository = PerSQLSessionRepository(
                database,
                table_prefix=table_prefix,
                max_staleness=max_staleness,
                on_conflict=on_conflict,
                retry=retry,
                read_only=read_only,
            )
        if owner is not None:
            repository = repository.for_owner(owner)
        if read_only and not repository.read_only:
            repository = repository.as_read_only()
        self.read_only = repository.read_only
        self.session_id = check_id("session", session_id)
        self.session_repository = repository
        self._store = repository._store  # noqa: SLF001 - of the same room
        self._client: RestClient | None = None
        restorer = Restorer(self._store.codec, strict=strict)
        if expires_after is not None:
            self._store = self._store.keeping(seconds_of(expires_after))
        self._opened = self._open()
        if self._opened is None:
            self.session = Session(session_id=session_id, session_type=SessionType.AGENT)
        else:
            self.session = restorer.session(session_id, self._opened.data)
        self._opener = AgentOpener(
            self._store, restorer, self.session, defers=commit == "turn", read_only=self.read_only
        )
        self._units: dict[str, UnitOfWork | NothingStored] = {}
        self._events: dict[str, AgentEvents] = {}
        self._agents: dict[str, Any] = {}
        states = NoMultiAgentsStored if self.read_only else MultiAgentStates
        self._multi_agents = states(self._store, RowUpdates(self._store), restorer, self.session)
        self._hooks = SessionHooks(self._events_of, self._multi_agents)

    @classmethod
    def from_token(
        cls: type[_Self],
        session_id: str,
        token: str | Callable[[], str],
        database: str,
        *,
        base_url: str | None = None,
        table_prefix: str = "strands_",
        commit: Literal["message", "turn"] = "message",
        max_staleness: float = 0.0,
        on_conflict: OnConflict = "merge",
        retry: RetryPolicy | None = None,
        expires_after: float | timedelta | None = None,
        owner: str | None = None,
        read_only: bool = False,
        strict: bool = False,
    ) -> _Self:
        """Open a session in a hosted database, with a client of the manager's own.

        Where several sessions are served, share a `RestClient` or a repository instead.

        Args:
            session_id: The session.
            token: The PerSQL token, or a function that returns it, as for `RestClient`.
            database: The database, as ``"namespace/name"``.
            base_url: Where the service is, or None for PerSQL's own address.
            table_prefix: As for the constructor, like all that follows.
            commit: When messages are stored.
            max_staleness: How old, in seconds, what is remembered may be.
            on_conflict: What happens when another writer came first.
            retry: How long failed requests are tried again.
            expires_after: For how long the session is kept after the last activity in it.
            owner: Whose session this is.
            read_only: Whether nothing is stored.
            strict: Whether a row that can't be read is an error.
        """
        token = token if callable(token) else secret(token)  # no variable shows it from here on
        client = RestClient(token) if base_url is None else RestClient(token, base_url=base_url)
        try:
            manager = cls(
                session_id,
                client.database(database),
                table_prefix=table_prefix,
                commit=commit,
                max_staleness=max_staleness,
                on_conflict=on_conflict,
                retry=retry,
                expires_after=expires_after,
                owner=owner,
                read_only=read_only,
                strict=strict,
            )
        except BaseException:
            client.close()
            raise
        manager._client = client
        return manager

    @classmethod
    async def open(
        cls: type[_Self],
        session_id: str,
        database: Database | None = None,
        *,
        table_prefix: str = "strands_",
        commit: Literal["message", "turn"] = "message",
        max_staleness: float = 0.0,
        on_conflict: OnConflict = "merge",
        repository: PerSQLSessionRepository | None = None,
        retry: RetryPolicy | None = None,
        expires_after: float | timedelta | None = None,
        owner: str | None = None,
        read_only: bool = False,
        strict: bool = False,
    ) -> _Self:
        """Do what the constructor does, without blocking the event loop.

        Args:
            session_id: The session.
            database: As for the constructor, like all that follows.
            table_prefix: What the names of the tables begin with.
            commit: When messages are stored.
            max_staleness: How old, in seconds, what is remembered may be.
            on_conflict: What happens when another writer came first.
            repository: A repository to share, in place of a database.
            retry: How long failed requests are tried again.
            expires_after: For how long the session is kept after the last activity in it.
            owner: Whose session this is.
            read_only: Whether nothing is stored.
            strict: Whether a row that can't be read is an error.
        """
        return await in_thread(
            cls,
            session_id,
            database,
            table_prefix=table_prefix,
            commit=commit,
            max_staleness=max_staleness,
            on_conflict=on_conflict,
            repository=repository,
            retry=retry,
            expires_after=expires_after,
            owner=owner,
            read_only=read_only,
            strict=strict,
        )

    # -- closing -------------------------------------------------------------------------------

    def close(self) -> None:
        """Store what is pending, and close the client if the manager made it, in any case.

        Raises:
            PerSQLError: If something could not be stored; the first such error, which says the
                others too. Where the client wasn't made by the manager it is still held: call
                again.
        """
        errors: list[PerSQLError] = []
        try:
            for agent_id, unit in self._units.items():
                try:
                    unit.close(self._agents[agent_id])
                except PerSQLError as error:  # noqa: PERF203 - one agent's failure isn't another's
                    errors.append(error)
        finally:
            if self._client is not None:
                self._client.close()
        if errors:
            first, *others = errors
            closed = [] if self._client is None else ["the manager's client is closed"]
            first.args = ("; ".join([*map(str, [first, *others]), *closed]), *first.args[1:])
            raise first

    def __enter__(self: _Self) -> _Self:
        """Return the manager."""
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()

    async def __aenter__(self: _Self) -> _Self:
        """Return the manager."""
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close it, without blocking the event loop."""
        await in_thread(self.close)

    # -- hooks ---------------------------------------------------------------------------------

    def register_hooks(self, registry: HookRegistry, **kwargs: Any) -> None:
        """Register for the lifecycle of agents, graphs and swarms.

        All but initialization are coroutines, so that other agents on the event loop can work.
        """
        super().register_hooks(OtherEvents(registry), **kwargs)  # type: ignore[arg-type]
        registry.add_callback(AgentInitializedEvent, lambda event: self.initialize(event.agent))
        registry.add_callback(
            MultiAgentInitializedEvent, lambda event: self.initialize_multi_agent(event.source)
        )
        self._hooks.register(registry)

    # -- agents --------------------------------------------------------------------------------

    def initialize(self, agent: Any, **kwargs: Any) -> None:
        """Restore an agent from the session, or create it there.

        Raises:
            SessionException: If the session has another agent of that id in this manager.
            CorruptRowError: With ``strict``, if a row of the agent can't be read.
            PerSQLError: If the database can't be asked; the agent is then not registered here.
        """
        agent_id = check_id("agent", agent.agent_id)
        if agent_id in self._units:
            raise SessionException("The `agent_id` of an agent must be unique in a session.")
        upstream.warn_of_storage(agent)
        key = AgentKey(self.session_id, agent_id)
        opened = self._as_opened()
        found = None if opened is None else opened.agents.get(agent_id)
        unit = self._opener.open(agent, key, found)
        self._units[agent_id], self._agents[agent_id] = unit, agent
        self._events[agent_id] = AgentEvents(unit, agent)
        upstream.on_management_failure(agent, unit.end_invocation)

    def append_message(self, message: Message, agent: Any, **kwargs: Any) -> None:
        """Store a message, after all that are there.

        Raises:
            ConflictError: With ``on_conflict="raise"``, if another writer came first.
            PerSQLError: If it could not be stored. It is still held, and is stored first with
                the next one.
        """
        unit = self._unit(agent)
        unit.add(message, agent)
        if not unit.waits_for_turn:
            unit.commit(agent, state=False)

    def sync_agent(self, agent: Any, **kwargs: Any) -> None:
        """Store an agent's state and view, if they have changed.

        Raises:
            ConflictError: With ``on_conflict="raise"``, if another writer came first.
            PerSQLError: If it could not be stored.
        """
        unit = self._unit(agent)
        if not unit.waits_for_turn:
            unit.commit(agent)

    def redact_latest_message(self, redact_message: Message, agent: Any, **kwargs: Any) -> None:
        """Replace the content of the message that the agent has redacted.

        Raises:
            SessionException: If there is no message.
            PerSQLError: If it could not be stored; it is tried again with the next write.
        """
        unit = self._unit(agent)
        if not unit.redact_latest(redact_message, agent):
            raise SessionException("No message to redact.")
        unit.commit(agent, state=False, messages=not unit.waits_for_turn)

    async def save(self, agent: Any) -> None:
        """Store now what has changed of an agent, a graph or a swarm, in one round trip.

        For what changes outside of an invocation, such as ``agent.state.set("seats", 2)``, which
        would be stored with the next one. Within an invocation whose messages are stored with
        its turn, the state alone is stored. Where nothing has changed, nothing is sent. Code that
        isn't a coroutine calls `sync_agent` or `sync_multi_agent`.

        Args:
            agent: The agent, graph or swarm.

        Raises:
            SessionException: If it was not initialized with this manager.
            ConflictError: With ``on_conflict="raise"``, if another writer came first.
            PerSQLError: If it could not be stored.
        """
        if isinstance(agent, MultiAgentBase):
            await self._hooks.store_multi_agent(agent)
        else:
            await self._events_of(agent).saved()

    # Older versions of Strands call these for bidirectional agents, newer ones those above.

    def initialize_bidi_agent(self, agent: Any, **kwargs: Any) -> None:
        """Do as `initialize`."""
        self.initialize(agent)

    def append_bidi_message(self, message: Message, agent: Any, **kwargs: Any) -> None:
        """Do as `append_message`."""
        self.append_message(message, agent)

    def sync_bidi_agent(self, agent: Any, **kwargs: Any) -> None:
        """Do as `sync_agent`."""
        self.sync_agent(agent)

    def _unit(self, agent: Any) -> UnitOfWork | NothingStored:
        try:
            return self._units[agent.agent_id]
        except KeyError:
            raise self._not_initialized(agent) from None

    def _events_of(self, agent: Any) -> AgentEvents:
        try:
            return self._events[agent.agent_id]
        except KeyError:
            raise self._not_initialized(agent) from None

    def _not_initialized(self, agent: Any) -> SessionException:
        return SessionException(
            f"agent {agent.agent_id!r} was not initialized with session {self.session_id!r};"
            " give it this session manager when it is made, or call initialize()"
        )

    def _open(self) -> CachedSession | None:
        """Open the session, and say how long it is kept where that is to be another time."""
        opened = self._store.open(self.session_id)
        if opened is None or self.read_only:
            return opened
        if self._store.wants_other_retention(opened.expires_after):
            try:
                self._store.keep_for(self.session_id, self._store.expires_after)
            except NotFoundError:  # it was deleted, or has expired, since it was read
                return None
            return self._store.open(self.session_id)
        return opened

    def _as_opened(self) -> CachedSession | None:
        """Return the session as this manager opened it, or as it was seen later."""
        cached, opened = self._store.cache.get(self.session_id), self._opened
        self._opened = None  # what comes after the first agent is read again, if it isn't cached
        if opened is None or (cached is not None and cached.checked_at >= opened.checked_at):
            opened = cached
        if opened is not None and self._store.clock() >= opened.current_until:
            return self._store.open(self.session_id)  # it may have expired meanwhile
        return opened

    # -- graphs and swarms ---------------------------------------------------------------------

    def initialize_multi_agent(self, source: Any, **kwargs: Any) -> None:
        """Restore a graph or swarm from the session, or create it there.

        Raises:
            PerSQLError: If the database can't be asked.
        """
        check_id("multi_agent", source.id)
        self._multi_agents.initialize(source, self._as_opened())

    def sync_multi_agent(self, source: Any, **kwargs: Any) -> None:
        """Store a graph's or swarm's state, if it isn't stored as it is.

        Raises:
            ConflictError: With ``on_conflict="raise"``, if another writer came first.
            PerSQLError: If it could not be stored.
        """
        self._multi_agents.store(source.id, self._multi_agents.encode(source))
