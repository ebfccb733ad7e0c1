"""Strands' lifecycle of agents, graphs and swarms, turned into moments to be stored."""

import threading
from types import TracebackType
from typing import Any, Literal, TypeVar

from strands.agent.state import AgentState
from strands.hooks.events import (
    AfterInvocationEvent,
    AfterMultiAgentInvocationEvent,
    AfterNodeCallEvent,
    AgentInitializedEvent,
    BeforeInvocationEvent,
    MessageAddedEvent,
    MultiAgentInitializedEvent,
)
from strands.hooks.registry import HookRegistry
from strands.session.repository_session_manager import RepositorySessionManager
from strands.types.content import Message
from strands.types.exceptions import SessionException
from strands.types.session import Session, SessionMessage, SessionType

from strands_persql.databases.protocol import Database
from strands_persql.databases.rest import RestClient
from strands_persql.errors import PerSQLError
from strands_persql.gateway.retry import RetryPolicy
from strands_persql.gateway.transport import new_write_id
from strands_persql.persistence.cached import AgentSnapshot, SessionSnapshot
from strands_persql.persistence.committer import MAX_MESSAGES, NewMessage, OnConflict, now
from strands_persql.persistence.compare_and_swap import Seen
from strands_persql.runtime.ids import check_id
from strands_persql.runtime.threads import Queue, in_thread
from strands_persql.sessions.repository import PerSQLSessionRepository
from strands_persql.sessions.unit_of_work import AgentHolder, agent_record
from strands_persql.tables.schema import Row

_Self = TypeVar("_Self", bound="PerSQLSessionManager")


class PerSQLSessionManager(RepositorySessionManager):
    """Keeps the agents of one session in a PerSQL or SQLite database.

    Hand it to an agent, a graph or a swarm as its ``session_manager``. What they say and know is
    in the database when the call that changed it returns, and comes back when another manager is
    made for the same session, in this process or another.

    Args:
        session_id: The session. It is created with its first agent, if it isn't there.
        database: Where sessions are: `LocalDatabase`, `RestDatabase`, or a handle of the persql
            SDK. Not with ``repository``.
        table_prefix: What the tables' names begin with.
        commit: ``"message"`` to store each message before the agent goes on; ``"turn"`` to store
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

    Attributes:
        session_id: The session.
        session: Its record.
        session_repository: The repository behind it.

    Raises:
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
    ) -> None:
        """Open the session."""
        if (database is None) == (repository is None):
            raise ValueError("give either a database or a repository")
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
            )
        self.session_id = check_id("session", session_id)
        self.session_repository = repository
        self._store = repository.store
        self._commit_turns = commit == "turn"
        self._client: RestClient | None = None
        self._opened = self._store.open(session_id)
        if self._opened is None:
            self.session = Session(session_id=session_id, session_type=SessionType.AGENT)
        else:
            self.session = self._store.codec.read_session(session_id, self._opened.data)
        self._holders: dict[str, AgentHolder] = {}
        self._agents: dict[str, Any] = {}
        self._multi_agents: dict[str, tuple[str, Seen]] = {}  # by id, the JSON that is stored
        self._multi_agent_queue = Queue()
        self._moment = threading.local()

    @classmethod
    def from_token(
        cls: type[_Self], session_id: str, token: str, database: str, **options: Any
    ) -> _Self:
        """Open a session in a hosted database, with a client of the manager's own.

        Where several sessions are served, share a `RestClient` or a repository instead.

        Args:
            session_id: The session.
            token: The PerSQL token.
            database: The database, as ``"namespace/name"``.
            **options: ``base_url`` for the client; all else is the constructor's.
        """
        base_url = options.pop("base_url", None)
        client = RestClient(token) if base_url is None else RestClient(token, base_url=base_url)
        del token  # from this frame, which reporters may show
        try:
            manager = cls(session_id, client.database(database), **options)
        except BaseException:
            client.close()
            raise
        manager._client = client
        return manager

    @classmethod
    async def open(cls: type[_Self], *args: Any, **kwargs: Any) -> _Self:
        """Do what the constructor does, without blocking the event loop."""
        return await in_thread(cls, *args, **kwargs)

    # -- closing -------------------------------------------------------------------------------

    def close(self) -> None:
        """Store what is unsaved, and close the client if the manager made it.

        Raises:
            PerSQLError: If something could not be stored. It is still held: call again.
        """
        errors = []
        for agent_id, holder in self._holders.items():
            try:
                holder.close(self._agents[agent_id])
            except PerSQLError as error:  # noqa: PERF203 - one agent's failure isn't another's
                errors.append(error)
        if errors:
            raise errors[0]
        if self._client is not None:
            self._client.close()

    def __enter__(self: _Self) -> _Self:
        """Give the manager."""
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
        """Give the manager."""
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

        All but initialization are coroutines, so that other agents on the event loop go on.
        """
        super().register_hooks(_Others(registry), **kwargs)  # type: ignore[arg-type]
        registry.add_callback(AgentInitializedEvent, lambda event: self.initialize(event.agent))
        registry.add_callback(BeforeInvocationEvent, self._on_invocation)
        registry.add_callback(MessageAddedEvent, self._on_message)
        registry.add_callback(AfterInvocationEvent, self._on_invocation_end)
        registry.add_callback(
            MultiAgentInitializedEvent, lambda event: self.initialize_multi_agent(event.source)
        )
        registry.add_callback(AfterNodeCallEvent, self._on_multi_agent)
        registry.add_callback(AfterMultiAgentInvocationEvent, self._on_multi_agent)

    async def _on_invocation(self, event: BeforeInvocationEvent) -> None:
        holder = self._holder(event.agent)
        await holder.queue.run(holder.begin_invocation)

    async def _on_message(self, event: MessageAddedEvent) -> None:
        holder = self._holder(event.agent)
        await holder.queue.run(lambda: self._store_message(holder, event.message, event.agent))

    async def _on_invocation_end(self, event: AfterInvocationEvent) -> None:
        holder = self._holder(event.agent)
        await holder.queue.run(lambda: holder.end_invocation(event.agent))

    async def _on_multi_agent(
        self, event: AfterNodeCallEvent | AfterMultiAgentInvocationEvent
    ) -> None:
        text = self._encode_multi_agent(event.source)  # here, for nodes change it on this loop
        await self._multi_agent_queue.run(lambda: self._store_multi_agent(event.source.id, text))

    def _store_message(self, holder: AgentHolder, message: Message, agent: Any) -> None:
        """Make one moment of what Strands calls as two."""
        self._moment.open = True
        try:
            self.append_message(message, agent)
            self.sync_agent(agent)
        finally:
            self._moment.open = False
        if not self._waits_for_turn(holder) or holder.is_full:
            holder.commit(agent)

    def _waits_for_turn(self, holder: AgentHolder) -> bool:
        return self._commit_turns and holder.is_invoked

    # -- agents --------------------------------------------------------------------------------

    def initialize(self, agent: Any, **kwargs: Any) -> None:
        """Restore an agent from the session, or create it there.

        Raises:
            SessionException: If the session has another agent of that id in this manager.
            PerSQLError: If the database can't be asked; the agent is then not known here.
        """
        agent_id = check_id("agent", agent.agent_id)
        if agent_id in self._holders:
            raise SessionException("The `agent_id` of an agent must be unique in a session.")
        opened = self._as_opened()
        found = None if opened is None else opened.agents.get(agent_id)
        created = False
        records: list[SessionMessage] = []
        if found is None:
            turn = new_write_id()
            records = [SessionMessage.from_message(m, i) for i, m in enumerate(agent.messages)]
            found, created = self._store.start_agent(
                self.session,
                agent_record(agent),
                [
                    NewMessage(
                        new_write_id(), self._store.codec.message(self.session_id, agent_id, one)
                    )
                    for one in records[:MAX_MESSAGES]
                ],
                turn,
            )
        rows = list(found.window)
        created = created and len(rows) <= len(records)  # or others came before our answer
        if not created:
            records = self._restore(agent, found)
        holder = AgentHolder(
            self._store, self.session_id, agent_id, found, records[: len(rows)], rows
        )
        self._holders[agent_id], self._agents[agent_id] = holder, agent
        if created and len(records) > len(rows):
            try:
                for record in records[len(rows) :]:
                    holder.add(record.message, agent)
                holder.commit(agent)
            except BaseException:
                del self._holders[agent_id], self._agents[agent_id]
                raise
        if not created and getattr(getattr(agent, "_interrupt_state", None), "activated", False):
            holder.continue_last_turn()

    def append_message(self, message: Message, agent: Any, **kwargs: Any) -> None:
        """Store a message, behind all that are there.

        Raises:
            ConflictError: With ``on_conflict="raise"``, if another writer came first.
            PerSQLError: If it could not be stored. It is still held, and goes out first with
                the next one.
        """
        holder = self._holder(agent)
        holder.add(message, agent)
        if not self._in_moment and not self._waits_for_turn(holder):
            holder.commit(agent, state=False)

    def sync_agent(self, agent: Any, **kwargs: Any) -> None:
        """Store an agent's state, if it isn't stored as it is.

        Raises:
            ConflictError: With ``on_conflict="raise"``, if another writer came first.
            PerSQLError: If it could not be stored.
        """
        holder = self._holder(agent)
        if self._in_moment or (self._waits_for_turn(holder) and holder.has_unsaved):
            return  # it goes out with the moment, or with the turn
        holder.commit(agent)

    def redact_latest_message(self, redact_message: Message, agent: Any, **kwargs: Any) -> None:
        """Replace the latest message's content in the session.

        Raises:
            SessionException: If there is no message.
            PerSQLError: If it could not be stored; it is tried again with the next write.
        """
        holder = self._holder(agent)
        if not holder.redact_latest(redact_message):
            raise SessionException("No message to redact.")
        holder.commit(agent, state=False, messages=not self._waits_for_turn(holder))

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

    @property
    def _in_moment(self) -> bool:
        return getattr(self._moment, "open", False)

    def _holder(self, agent: Any) -> AgentHolder:
        try:
            return self._holders[agent.agent_id]
        except KeyError:
            raise SessionException(
                f"agent {agent.agent_id!r} was not initialized with session {self.session_id!r};"
                " give it this session manager when it is made, or call initialize()"
            ) from None

    def _as_opened(self) -> SessionSnapshot | None:
        """Give the session as this manager opened it, or as it was seen later."""
        cached, opened = self._store.cache.get(self.session_id), self._opened
        self._opened = None  # what comes after the first agent is read anew, if it isn't cached
        if opened is None or (cached is not None and cached.checked_at >= opened.checked_at):
            return cached
        return opened

    def _restore(self, agent: Any, found: AgentSnapshot) -> list[SessionMessage]:
        """Give an agent its state and its messages back; those that it had are dropped."""
        codec, context = self._store.codec, (self.session_id, agent.agent_id)
        record = codec.read_agent(*context, found.data)
        agent.state = AgentState(record.state)
        prepended: list[Message] = []
        manager = getattr(agent, "conversation_manager", None)
        if manager is not None:
            record.initialize_internal_state(agent)
            prepended = manager.restore_from_session(record.conversation_manager_state) or []
        records = [codec.read_message(*context, row) for row in found.window]
        if not getattr(agent.model, "stateful", False):
            messages = [one.to_message() for one in records]
            agent.messages = self._fix_broken_tool_use([*prepended, *messages])
        return records

    # -- graphs and swarms ---------------------------------------------------------------------

    def initialize_multi_agent(self, source: Any, **kwargs: Any) -> None:
        """Restore a graph or swarm from the session, or create it there.

        Raises:
            PerSQLError: If the database can't be asked.
        """
        multi_agent_id = check_id("multi_agent", source.id)
        opened = self._as_opened()
        found = None if opened is None else opened.multi_agents.get(multi_agent_id)
        created = False
        if found is None:
            row = self._store.codec.multi_agent(self.session_id, source, now())
            found, created = self._store.start_multi_agent(self.session, multi_agent_id, row)
        if not created:
            source.deserialize_state(
                self._store.codec.read_multi_agent(self.session_id, multi_agent_id, found.data)
            )
        self._multi_agents[multi_agent_id] = (found.data, Seen(found.version, found.write_id))

    def sync_multi_agent(self, source: Any, **kwargs: Any) -> None:
        """Store a graph's or swarm's state, if it isn't stored as it is.

        Raises:
            ConflictError: With ``on_conflict="raise"``, if another writer came first.
            PerSQLError: If it could not be stored.
        """
        self._store_multi_agent(source.id, self._encode_multi_agent(source))

    def _encode_multi_agent(self, source: Any) -> str:
        return self._store.codec.multi_agent(self.session_id, source, now()).data

    def _store_multi_agent(self, multi_agent_id: str, text: str) -> None:
        try:
            stored, seen = self._multi_agents[multi_agent_id]
        except KeyError:
            raise SessionException(
                f"multi-agent {multi_agent_id!r} was not initialized with session"
                f" {self.session_id!r}; give it this session manager when it is made"
            ) from None
        if text == stored:
            return
        time = now()
        row = Row(text, time, time)
        self.session_repository.replace_multi_agent(self.session_id, multi_agent_id, row, seen)
        self._multi_agents[multi_agent_id] = (text, seen)


class _Others:
    """A registry for the parent class: takes what it registers for events that aren't ours."""

    _OURS = (
        AgentInitializedEvent,
        MessageAddedEvent,
        AfterInvocationEvent,
        MultiAgentInitializedEvent,
        AfterNodeCallEvent,
        AfterMultiAgentInvocationEvent,
    )

    def __init__(self, registry: HookRegistry) -> None:
        self._registry = registry

    def add_callback(self, event_type: Any, callback: Any, **kwargs: Any) -> None:
        if event_type not in self._OURS:
            self._registry.add_callback(event_type, callback, **kwargs)
