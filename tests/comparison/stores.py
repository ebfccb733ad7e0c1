"""The session stores that are compared, each in a place of its own that counts.

Each is opened as its package documents it, with the defaults. In a service's place there is a
stand-in that runs in this process: it counts what is asked of it, and says nothing of time.
"""

import importlib
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from strands.session.file_session_manager import FileSessionManager

from strands_persql import LocalDatabase, PerSQLSessionManager
from strands_persql.testing import CountingDatabase
from tests.comparison.agentcore import AgentCoreStandIn

Manager = Any
"""A session manager of Strands, of whatever class."""

REGION = "eu-west-1"


class Place:
    """Where the sessions of one store are, and what was asked of it.

    Args:
        open_manager: Makes a session's manager, as a process does that has just begun.
        asked: Gives how many requests there were, and how many bytes they sent.
        remote: Whether the store is reached over a network, so that requests cost time.
    """

    def __init__(
        self,
        open_manager: Callable[[str], Manager],
        asked: Callable[[], tuple[int, int]],
        *,
        remote: bool = True,
    ) -> None:
        self.open_manager = open_manager
        self.asked = asked
        self.remote = remote


Open = Callable[[Path], AbstractContextManager[Place]]


@dataclass(frozen=True)
class Store:
    """A store that is compared.

    Attributes:
        name: What the table calls it.
        opened: Opens a place for it in a folder.
        needs: The modules that must be installed.
    """

    name: str
    opened: Open
    needs: tuple[str, ...] = ()

    @property
    def missing(self) -> str:
        """The modules that aren't installed, as a list in words; empty if all are."""
        return ", ".join(name for name in self.needs if not _is_there(name))


def _is_there(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        return False


class Tally:
    """Counts requests and the bytes that they send."""

    def __init__(self) -> None:
        self.requests = 0
        self.bytes = 0

    def add(self, *sent: Any) -> None:
        """Count one request, and what it sends."""
        self.requests += 1
        self.bytes += sum(map(size, sent))

    def get(self) -> tuple[int, int]:
        """Give the requests and the bytes so far."""
        return self.requests, self.bytes


def size(value: Any) -> int:
    """Give how many bytes a value takes on its way, about."""
    if isinstance(value, bytes | bytearray):
        return len(value)
    if isinstance(value, str):
        return len(value.encode())
    if isinstance(value, dict):
        return size([*value, *value.values()])
    if isinstance(value, list | tuple):
        return sum(map(size, value))
    return len(json.dumps(value, default=str))


# -- ours ------------------------------------------------------------------------------------------


class HostedLimits(CountingDatabase):
    """A file whose rows may be as large as the hosted database's, and which counts."""

    @property
    def max_row_bytes(self) -> int:
        """What a row may take there."""
        return 2_000_000


def _ours(commit: Literal["message", "turn"]) -> Open:
    @contextmanager
    def opened(folder: Path) -> Iterator[Place]:
        with LocalDatabase(folder / "agents.db") as file:
            database = HostedLimits(file)
            yield Place(
                lambda session_id: PerSQLSessionManager(session_id, database, commit=commit),
                lambda: _counted(database),
            )

    return opened


@contextmanager
def _our_storage(folder: Path) -> Iterator[Place]:
    session, ours = map(importlib.import_module, ("strands.session", "strands_persql"))
    with LocalDatabase(folder / "agents.db") as file:
        database = HostedLimits(file)

        def open_manager(session_id: str) -> Manager:
            storage = ours.PerSQLStorage(database)
            return session.SnapshotSessionManager(session_id, storage=storage)

        yield Place(open_manager, lambda: _counted(database))


def _counted(database: CountingDatabase) -> tuple[int, int]:
    sent = [
        size([each["sql"], list(each.get("params", ()))])
        for statements in database.log
        for each in statements
    ]
    return database.round_trips, sum(sent)


# -- what comes with Strands -----------------------------------------------------------------------


@contextmanager
def _file(folder: Path) -> Iterator[Place]:
    tally = Tally()

    class Counted(FileSessionManager):
        def _write_file(self, path: str, data: dict[str, Any]) -> None:
            tally.add(json.dumps(data, indent=2, ensure_ascii=False))
            super()._write_file(path, data)

    def open_manager(session_id: str) -> Manager:
        return Counted(session_id, storage_dir=str(folder))

    yield Place(open_manager, tally.get, remote=False)


@contextmanager
def _snapshots_in_files(folder: Path) -> Iterator[Place]:
    session, storage = map(importlib.import_module, ("strands.session", "strands.storage"))
    tally = Tally()

    class Counted(storage.LocalFileStorage):  # type: ignore[name-defined,misc]
        async def write(self, key: str, data: bytes) -> None:
            tally.add(data)
            await super().write(key, data)

    def open_manager(session_id: str) -> Manager:
        return session.SnapshotSessionManager(session_id, storage=Counted(str(folder)))

    yield Place(open_manager, tally.get, remote=False)


@contextmanager
def _amazon() -> Iterator[tuple[Any, Tally]]:
    """Give a boto3 session of a simulated Amazon, and what counts its requests."""
    boto3, moto = map(importlib.import_module, ("boto3", "moto"))
    tally = Tally()

    def count(request: Any, **_: Any) -> None:
        headers = request.headers
        length = headers.get("X-Amz-Decoded-Content-Length") or headers.get("Content-Length") or 0
        tally.requests += 1
        tally.bytes += int(length)

    keys = {"aws_access_key_id": "none", "aws_secret_access_key": "none"}
    with moto.mock_aws():
        session = boto3.Session(region_name=REGION, **keys)
        session.client("s3").create_bucket(
            Bucket="sessions", CreateBucketConfiguration={"LocationConstraint": REGION}
        )
        session.events.register("before-send", count)
        yield session, tally


@contextmanager
def _s3(_: Path) -> Iterator[Place]:
    module = importlib.import_module("strands.session.s3_session_manager")
    with _amazon() as (session, tally):

        def open_manager(session_id: str) -> Manager:
            return module.S3SessionManager(session_id, "sessions", boto_session=session)

        yield Place(open_manager, tally.get)


@contextmanager
def _snapshots_in_s3(_: Path) -> Iterator[Place]:
    session, storage = map(importlib.import_module, ("strands.session", "strands.storage"))
    with _amazon() as (amazon, tally):

        def open_manager(session_id: str) -> Manager:
            inside = storage.S3Storage("sessions", boto_session=amazon)
            return session.SnapshotSessionManager(session_id, storage=inside)

        yield Place(open_manager, tally.get)


# -- from the package index ------------------------------------------------------------------------


@contextmanager
def _sql(folder: Path) -> Iterator[Place]:
    alchemy, module = map(importlib.import_module, ("sqlalchemy", "strands_session_sql"))
    tally = Tally()
    engine = alchemy.create_engine(f"sqlite:///{folder / 'sessions.db'}")

    def execute(_1: Any, _2: Any, statement: str, parameters: Any, *_: Any) -> None:
        tally.add(statement, parameters)

    alchemy.event.listen(engine, "before_cursor_execute", execute)
    alchemy.event.listen(engine, "commit", lambda _: tally.add())

    def open_manager(session_id: str) -> Manager:
        return module.SQLSessionManager(session_id, engine=engine)

    yield Place(open_manager, tally.get)
    engine.dispose()


@contextmanager
def _dynamodb(_: Path) -> Iterator[Place]:
    module = importlib.import_module("strands_session_dynamodb")
    with _amazon() as (amazon, tally):

        def open_manager(session_id: str) -> Manager:
            return module.DynamoDBSessionManager(session_id, "sessions", boto_session=amazon)

        yield Place(open_manager, tally.get)


@contextmanager
def _redis(_: Path) -> Iterator[Place]:
    fake, module = map(importlib.import_module, ("fakeredis", "redis_session_manager"))
    tally = Tally()
    server = fake.FakeServer()

    class Pipeline(importlib.import_module("redis.client").Pipeline):  # type: ignore[misc]
        def execute(self, *args: Any, **kwargs: Any) -> Any:
            tally.add([command[0] for command in self.command_stack])
            return super().execute(*args, **kwargs)

    class Counted(fake.FakeRedis):  # type: ignore[name-defined,misc]
        def execute_command(self, *args: Any, **options: Any) -> Any:
            tally.add([*args])
            return super().execute_command(*args, **options)

        def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> Any:
            return Pipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)

    def open_manager(session_id: str) -> Manager:
        client = Counted(server=server, decode_responses=True)
        return module.RedisSessionManager(session_id, redis_client=client)

    yield Place(open_manager, tally.get)


class _CountedCollection:
    """A collection of MongoDB whose calls are counted."""

    def __init__(self, collection: Any, tally: Tally) -> None:
        self._collection = collection
        self._tally = tally

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._collection, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            self._tally.add(list(args))
            return method(*args, **kwargs)

        return call


@contextmanager
def _mongodb(_: Path) -> Iterator[Place]:
    mock, module = map(importlib.import_module, ("mongomock", "strands_session_mongodb"))
    tally = Tally()
    collection = _CountedCollection(mock.MongoClient()["sessions"]["sessions"], tally)

    def open_manager(session_id: str) -> Manager:
        client = {"strands_sessions": {"sessions": collection}}
        return module.MongoDBSessionManager(session_id, client=client)

    yield Place(open_manager, tally.get)


@contextmanager
def _agentcore(_: Path) -> Iterator[Place]:
    module = importlib.import_module("bedrock_agentcore.memory.integrations.strands")
    config, manager = (
        importlib.import_module(f"{module.__name__}.{name}")
        for name in ("config", "session_manager")
    )
    tally = Tally()
    service = AgentCoreStandIn(tally.add)

    def open_manager(session_id: str) -> Manager:
        settings = config.AgentCoreMemoryConfig(
            memory_id="memory", actor_id="user", session_id=session_id
        )
        return manager.AgentCoreMemorySessionManager(
            settings, region_name=REGION, boto_session=service
        )

    yield Place(open_manager, tally.get)


_SNAPSHOTS = ("strands.storage",)

STORES = (
    Store('PerSQL, `commit="message"`', _ours("message")),
    Store('PerSQL, `commit="turn"`', _ours("turn")),
    Store("snapshots in `PerSQLStorage`", _our_storage, _SNAPSHOTS),
    Store("`FileSessionManager`", _file),
    Store("snapshots in files", _snapshots_in_files, _SNAPSHOTS),
    Store("snapshots in S3", _snapshots_in_s3, (*_SNAPSHOTS, "moto")),
    Store("`S3SessionManager`", _s3, ("moto",)),
    Store("AgentCore", _agentcore, ("bedrock_agentcore",)),
    Store("SQL", _sql, ("sqlalchemy", "strands_session_sql")),
    Store("DynamoDB", _dynamodb, ("moto", "strands_session_dynamodb")),
    Store("Redis", _redis, ("fakeredis", "redis_session_manager")),
    Store("MongoDB", _mongodb, ("mongomock", "strands_session_mongodb")),
)
"""Ours first, then those that come with Strands, then those of the package index."""
