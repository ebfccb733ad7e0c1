"""Sessions of ``SnapshotSessionManager`` made ones of `PerSQLSessionManager`, and back."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from strands.types.session import (
    Session,
    SessionAgent,
    SessionMessage,
    SessionType,
    decode_bytes_values,
    encode_bytes_values,
)

from strands_persql.databases.protocol import Database
from strands_persql.gateway.batch import Batch
from strands_persql.gateway.gateway import Gateway
from strands_persql.gateway.stats import Counters
from strands_persql.persistence.cache import SessionCache, partition
from strands_persql.persistence.cached import CachedAgent
from strands_persql.persistence.creations import Creations
from strands_persql.persistence.store import SessionStore
from strands_persql.persistence.view import items_of
from strands_persql.runtime.clock import now
from strands_persql.runtime.ids import AgentKey, check_id, new_id
from strands_persql.runtime.threads import in_thread
from strands_persql.snapshots import upstream
from strands_persql.snapshots.errors import (
    StorageAlreadyExistsError,
    StorageCorruptRowError,
    StorageNotFoundError,
    storage_errors,
)
from strands_persql.snapshots.saving import Save
from strands_persql.snapshots.sight import ABSENT
from strands_persql.snapshots.storage import PerSQLStorage
from strands_persql.snapshots.values import Encoded
from strands_persql.tables import creating, exchanging, reading
from strands_persql.tables.encoding import decoded_text
from strands_persql.tables.stash import own_references
from strands_persql.tables.tables import RowData, Tables

_LATEST = "/snapshots/snapshot_latest.json"
_AGENT, _MULTI_AGENT = "scopes/agent/", "scopes/multiAgent/"
_INTERNAL = ("interrupt_state", "model_state")
_BYTES_PER_STATEMENT = 1_000_000  # of messages that are created together


async def session_from_snapshots(
    storage: PerSQLStorage,
    session_id: str,
    *,
    database: Database | None = None,
    table_prefix: str | None = None,
) -> list[str]:
    """Make a session of `PerSQLSessionManager` of the latest snapshots of one.

    An agent restored from it has the messages, state, conversation manager and interrupts that
    it would have been restored with from its snapshot. System prompts stay behind: that manager
    stores none. The snapshots stay as they are.

    Args:
        storage: Where the snapshots are, as ``SnapshotSessionManager`` is given it.
        session_id: The session.
        database: Where the session is made; None for the storage's database.
        table_prefix: What the names of its tables begin with; None for the storage's prefix.
            It is a session of the storage's owner, if that has one.

    Returns:
        The ids of the agents, graphs and swarms, sorted.

    Raises:
        AlreadyExistsError: If there is such a session; it is left as it is.
        NotFoundError: If there are no snapshots.
        StorageError: These two, and whatever else goes wrong.
    """
    check_id("session", session_id)
    log = _Log(storage, session_id, database, table_prefix)
    found = {}
    for key in await storage.list(storage.session_prefix(session_id)):
        if key.endswith(_LATEST):
            found[key] = await storage.view().read(key)
    with storage_errors(f"make a session of the snapshots of {session_id!r}"):
        snapshots = [
            _decoded(storage.place_of(key), data) for key, data in found.items() if data is not None
        ]
        return await in_thread(lambda: log.fill(snapshots, [*found]))


async def snapshots_from_session(
    storage: PerSQLStorage,
    session_id: str,
    *,
    database: Database | None = None,
    table_prefix: str | None = None,
) -> list[str]:
    """Make snapshots of a session of `PerSQLSessionManager`, for ``SnapshotSessionManager``.

    An agent restored from them has the messages, state, conversation manager and interrupts
    that it would have been restored with from the session. The session stays as it is.

    Args:
        storage: Where the snapshots are made, as ``SnapshotSessionManager`` is given it.
        session_id: The session.
        database: Where the session is; None for the storage's database.
        table_prefix: What the names of its tables begin with; None for the storage's prefix.
            It is a session of the storage's owner, if that has one.

    Returns:
        The ids of the agents, graphs and swarms, sorted.

    Raises:
        AlreadyExistsError: If the storage has anything of such a session; it is left as it is.
        NotFoundError: If there is no such session.
        StorageError: These two, and whatever else goes wrong.
    """
    check_id("session", session_id)
    log = _Log(storage, session_id, database, table_prefix)
    prefix = storage.session_prefix(session_id)
    if await storage.list(prefix):
        raise StorageAlreadyExistsError(
            f"there are snapshots of session {session_id!r} already; delete them first, or make"
            " them in another namespace",
            session_id=session_id,
        )
    with storage_errors(f"make snapshots of session {session_id!r}"):
        snapshots = await in_thread(lambda: dict(log.snapshots()))

        def save() -> None:
            for (scope, agent_id), snapshot in snapshots.items():
                key = storage.place_of(f"{prefix}{scope}{agent_id}{_LATEST}")
                _create(storage, key, _encoded(snapshot))

        await in_thread(save)
    return sorted(agent_id for _, agent_id in snapshots)


def _create(storage: PerSQLStorage, key: str, data: bytes) -> None:
    value = Encoded.of(data)
    Save(storage.store, key, value, ABSENT, overwrites=False, beside=lambda _: ()).run()


# -- snapshots -------------------------------------------------------------------------------------


def _encoded(snapshot: Mapping[str, Any]) -> bytes:
    """Return a snapshot as Strands writes it."""
    value = encode_bytes_values(snapshot)
    try:
        return json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # a lone surrogate has no UTF-8, but JSON can escape it
        return json.dumps(value).encode()


def _decoded(place: str, data: bytes) -> dict[str, Any]:
    try:
        snapshot = decode_bytes_values(json.loads(data))
        if isinstance(snapshot["data"], dict):
            upstream.Snapshot.from_dict(snapshot)
            return snapshot  # type: ignore[no-any-return]
    except (KeyError, TypeError, ValueError, upstream.SnapshotException) as error:
        raise _unreadable(place, error) from error
    raise _unreadable(place, "it has no data")


def _unreadable(place: str, why: object) -> StorageCorruptRowError:
    return StorageCorruptRowError(
        f"{place!r} is not a snapshot that can be read ({why}); delete it, or save it again",
        table="objects",
        key=(place,),
    )


def _name(key: str) -> tuple[str, str]:
    """Return the scope and the id that a snapshot's key is of."""
    scope, _, agent_id = key[: -len(_LATEST)].rpartition("/")
    return (_MULTI_AGENT if scope.endswith("multiAgent") else _AGENT), agent_id


# -- sessions --------------------------------------------------------------------------------------


class _Log:
    """A session as `PerSQLSessionManager` has it.

    Args:
        storage: Whose database and prefix hold where none are given.
        session_id: The session.
        database: Where it is.
        table_prefix: What its tables begin with.
    """

    def __init__(
        self,
        storage: PerSQLStorage,
        session_id: str,
        database: Database | None,
        table_prefix: str | None,
    ) -> None:
        database = storage.database if database is None else database
        prefix = storage.store.tables.prefix if table_prefix is None else table_prefix
        self._tables = Tables(prefix, storage.owner)
        self._session_id = session_id
        self._store = SessionStore(
            Gateway(database, self._tables, storage.store.retry, Counters()),
            self._tables,
            partition(SessionCache(0), database, self._tables.prefix),
            0.0,
            "raise",
            storage.store.retry,
        )

    # -- from snapshots --------------------------------------------------------------------------

    def fill(self, snapshots: Sequence[dict[str, Any]], keys: Sequence[str]) -> list[str]:
        """Create the session of snapshots and their keys, and return the ids of its agents."""
        if not snapshots:
            raise StorageNotFoundError(
                f"there are no snapshots of session {self._session_id!r} in this storage",
                session_id=self._session_id,
            )
        if self._store.open(self._session_id) is not None:
            raise self._exists()
        names = [_name(key) for key in keys]
        for (scope, agent_id), snapshot in zip(names, snapshots, strict=True):
            key = AgentKey(self._session_id, check_id("agent", agent_id))
            if scope == _MULTI_AGENT:
                self._create_multi_agent(key, snapshot["data"])
            else:
                self._create_agent(key, snapshot["data"])
        return sorted(agent_id for _, agent_id in names)

    def _exists(self) -> StorageAlreadyExistsError:
        return StorageAlreadyExistsError(
            f"there is a session {self._session_id!r} already; delete it first, or make it in"
            " tables of another prefix",
            session_id=self._session_id,
        )

    def _session(self) -> Session:
        return Session(session_id=self._session_id, session_type=SessionType.AGENT)

    def _create_agent(self, key: AgentKey, data: Mapping[str, Any]) -> None:
        codec, write_id = self._store.codec, new_id()
        internal = {name: data[name] for name in _INTERNAL if name in data}
        record = SessionAgent(
            key.agent_id,
            data.get("state") or {},
            data.get("conversation_manager_state") or {},
            _internal_state=internal,
        )
        rows = [
            codec.message(key, SessionMessage.from_message(one, index), _stashed(one, data))
            for index, one in enumerate(data.get("messages") or [])
        ]
        turns = list(_portions(_turns(data.get("messages") or [], rows)))
        row = codec.agent(key.session_id, record)
        batch = Batch(
            creating.create_session(
                self._tables, key.session_id, codec.session(self._session()), write_id, None
            ),
            *exchanging.create_agent_with_turns(self._tables, key, row, turns, write_id),
        )
        batch.bring(row.skeleton, *(one.skeleton for one in rows))
        created = batch.ask(reading.read_creating_write(self._tables, "agents", *key))
        found = self._store.write(batch, *key).first(created)
        if found is None or found["write_id"] != write_id:
            raise self._exists()

    def _create_multi_agent(self, key: AgentKey, data: Mapping[str, Any]) -> None:
        time = now()
        row = RowData(json.dumps(encode_bytes_values(data.get("state") or {})), time, time)
        _, created = Creations(self._store).start_multi_agent(self._session(), key, row)
        if not created:
            raise self._exists()

    # -- to snapshots ----------------------------------------------------------------------------

    def snapshots(self) -> Iterator[tuple[tuple[str, str], dict[str, Any]]]:
        """Yield a snapshot for each agent, graph and swarm, under its scope and its id.

        Raises:
            NotFoundError: If there is no such session.
        """
        if self._store.open(self._session_id) is None:
            raise StorageNotFoundError(
                f"session {self._session_id!r} does not exist", session_id=self._session_id
            )
        for key in self._ids(exchanging.agents_of(self._tables, self._session_id)):
            found = self._store.agent(key)
            if found is not None:
                yield (_AGENT, key.agent_id), self._agent_snapshot(key, found)
        for key in self._ids(exchanging.multi_agents_of(self._tables, self._session_id)):
            state = self._store.multi_agent(key)
            if state is not None:
                data = {
                    "orchestrator_id": key.agent_id,
                    "state": self._store.codec.read_multi_agent(key, state.data),
                }
                yield (_MULTI_AGENT, key.agent_id), upstream.snapshot("multiAgent", data)

    def _ids(self, statement: Any) -> list[AgentKey]:
        rows = self._store.rows(statement, self._session_id)
        return [AgentKey(self._session_id, row["agent_id"]) for row in rows]

    def _agent_snapshot(self, key: AgentKey, found: CachedAgent) -> dict[str, Any]:
        codec = self._store.codec
        fields = codec.read_agent_fields(key, found.data)
        record = codec.agent_of(key, fields)
        internal = fields.get("_internal_state") or {}
        data: dict[str, Any] = {
            "messages": list(self._messages(key, found, record)),
            "state": record.state,
        }
        if record.conversation_manager_state:
            data["conversation_manager_state"] = record.conversation_manager_state
        data |= {name: internal[name] for name in _INTERNAL if name in internal}
        entries = codec.read_stashed(found.messages)
        if entries:
            data["stash"] = {"location": "inline", "entries": entries}
        return upstream.snapshot("agent", data, created_at=record.updated_at)

    def _messages(self, key: AgentKey, found: CachedAgent, record: SessionAgent) -> Iterator[Any]:
        """Yield what an agent works with, in order."""
        summary = record.conversation_manager_state.get("summary_message")
        if summary is not None and not found.view.is_explicit:
            yield summary
        rows = {row.message_id: row for row in found.messages}
        for item in items_of(found.view, sorted(rows)):
            if isinstance(item, str):
                yield decoded_text(item)
            else:
                yield self._store.codec.read_message(key, rows[item]).to_message()


def _stashed(message: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a snapshot has of content that was taken out of a message."""
    stash = data.get("stash")
    entries = stash.get("entries") if isinstance(stash, dict) else None
    if not isinstance(entries, dict):
        return {}
    return {one: entries[one] for one in own_references(message) if one in entries}


def _turns(
    messages: Sequence[Mapping[str, Any]], rows: Sequence[RowData]
) -> Iterator[tuple[str, int, Sequence[RowData]]]:
    """Yield the last turn's rows, which may go on, and all before them, each as a turn."""
    # One turn for what is over, so that a turn that continues moves alone.
    last = 0
    for index, message in enumerate(messages):
        if message["role"] == "user" and not any("toolResult" in one for one in message["content"]):
            last = index
    if last:
        yield new_id(), 0, rows[:last]
    yield new_id(), last, rows[last:]


def _portions(
    turns: Iterator[tuple[str, int, Sequence[RowData]]],
) -> Iterator[tuple[str, int, str]]:
    """Yield turns as statements take them, in portions of some bytes each."""
    for turn, first, rows in turns:
        portion: list[tuple[str, str, str, str]] = []
        size = 0
        for row in rows:
            if portion and size + len(row.skeleton.text) > _BYTES_PER_STATEMENT:
                yield turn, first, json.dumps(portion, ensure_ascii=False)
                first, portion, size = first + len(portion), [], 0  # noqa: PLW2901 - goes on
            portion.append((row.skeleton.text, new_id(), row.created_at, row.updated_at))
            size += len(row.skeleton.text)
        if portion:
            yield turn, first, json.dumps(portion, ensure_ascii=False)
