"""Checked by mypy, never run: what the public interface is to a type checker."""

from collections.abc import Sequence
from typing import Any

import urllib3
from strands import Agent
from strands.session.repository_session_manager import RepositorySessionManager
from strands.session.session_repository import SessionRepository
from strands.storage import Storage
from strands.types.session import Session, SessionAgent, SessionMessage, SessionType
from typing_extensions import assert_type

from strands_persql import (
    ConflictError,
    Database,
    FullTextSearch,
    LocalDatabase,
    PerSQLError,
    PerSQLSessionManager,
    PerSQLSessionRepository,
    PerSQLStorage,
    RestClient,
    RestDatabase,
    Result,
    RetryPolicy,
    SessionCache,
    Statement,
    Stats,
    StorageConflictError,
    Value,
    persql_error,
    session_from_snapshots,
)
from strands_persql.admin import Page, SessionAdmin, SessionSummary, TransferReport
from strands_persql.testing import (
    CountingDatabase,
    FaultyDatabase,
    InterceptingDatabase,
    ManualClock,
    Redact,
    ScriptedModel,
    ToolCall,
    conformance,
)


class MyManager(PerSQLSessionManager):
    """A user's own."""


class MyDatabase:
    """A user's own, with the two methods that are asked for."""

    def query(self, sql: str, params: Sequence[Value] = (), /) -> Result:
        return {"data": []}

    def batch(
        self, statements: Sequence[Statement], /, *, transaction: bool = False
    ) -> list[Result]:
        return [self.query(one["sql"], one.get("params", ())) for one in statements]


def administration(database: Database) -> None:
    """Sessions can be found and moved, wherever they are."""
    admin = SessionAdmin(database, table_prefix="strands_")
    assert_type(admin.list_sessions(order="activity"), Page[SessionSummary])
    assert_type(admin.export_archive("all.jsonl", {"s"}, resume=True), TransferReport)
    admin.import_archive("all.jsonl", existing="skip")


def databases(client: RestClient) -> None:
    """All of these are databases."""
    assert_type(client.database("acme/x"), RestDatabase)
    local: Database = LocalDatabase("agents.db")
    hosted: Database = client.database("acme/x")
    counting: Database = CountingDatabase(local)
    faulty: Database = FaultyDatabase(hosted, ["lost_answer", None])
    assert_type(local.query("SELECT ?", [1]), Result)
    counting.batch([{"sql": "SELECT 1"}, {"sql": "SELECT ?", "params": ["x"]}], transaction=True)
    faulty.query("SELECT 1")
    embedded = LocalDatabase("agents.db", synchronous="normal", statement_timeout=5)
    assert_type(embedded.checkpoint(), bool)
    assert_type(embedded.purge(), bool)
    LocalDatabase("agents.db", synchronous="off")  # type: ignore[arg-type]
    RestClient(lambda: "token")
    RestClient("token", http=urllib3.PoolManager(), max_connections=8, max_answer_bytes=1)
    FaultyDatabase(local, ["no such fault"])  # type: ignore[list-item]
    counting.batch([{"params": []}])  # type: ignore[typeddict-item]
    looking: Database = InterceptingDatabase(
        MyDatabase(), before=print, after=lambda _, one: one[:1]
    )
    for check in conformance.CHECKS:
        check(lambda: looking)
        check(MyDatabase)


def managers(database: Database, repository: PerSQLSessionRepository) -> None:
    """The constructor's forms."""
    manager = PerSQLSessionManager("s", database, commit="turn", on_conflict="raise")
    parent: RepositorySessionManager = manager
    assert_type(manager.session_repository, PerSQLSessionRepository)
    assert_type(manager.session, Session)
    PerSQLSessionManager("s", repository=repository, max_staleness=1)
    assert_type(PerSQLSessionManager.from_token("s", "token", "acme/x"), PerSQLSessionManager)
    assert_type(MyManager.from_token("s", "token", "acme/x"), MyManager)
    with MyManager("s", database) as mine:
        assert_type(mine, MyManager)
    Agent(session_manager=manager)
    Agent(session_manager=parent)
    PerSQLSessionManager("s", database, commit="never")  # type: ignore[arg-type]
    PerSQLSessionManager("s", database, on_conflict="ours")  # type: ignore[arg-type]
    PerSQLSessionManager("s", object())  # type: ignore[arg-type]
    PerSQLSessionManager("s", database, prefix="x")  # type: ignore[call-arg]
    PerSQLSessionManager("s", database, retry=3)  # type: ignore[arg-type]
    PerSQLSessionManager("s", repository)  # type: ignore[arg-type]


def managers_from_a_token() -> None:
    """Each argument is known to a type checker, and wrong ones are refused."""
    PerSQLSessionManager.from_token(
        "s",
        "token",
        "acme/x",
        base_url="https://api.persql.com",
        table_prefix="strands_",
        commit="turn",
        max_staleness=1.0,
        on_conflict="raise",
        retry=RetryPolicy.never(),
    )
    PerSQLSessionManager.from_token("s", "token")  # type: ignore[call-arg]
    PerSQLSessionManager.from_token("s", "token", 3)  # type: ignore[arg-type]
    PerSQLSessionManager.from_token("s", "token", "acme/x", prefix="x")  # type: ignore[call-arg]
    PerSQLSessionManager.from_token("s", "token", "a/x", commit="no")  # type: ignore[arg-type]
    PerSQLSessionManager.from_token("s", "token", "a/x", retry=3)  # type: ignore[arg-type]


async def coroutines(database: Database) -> None:
    """The same without blocking."""
    async with await MyManager.open("s", database) as manager:
        assert_type(manager, MyManager)
    await PerSQLSessionManager.open("s", database, commit="turn", on_conflict="raise")
    await PerSQLSessionManager.open("s", repository=manager.session_repository)
    await PerSQLSessionManager.open(3, database)  # type: ignore[arg-type]
    await PerSQLSessionManager.open("s", "agents.db")  # type: ignore[arg-type]
    await PerSQLSessionManager.open("s", database, commit="no")  # type: ignore[arg-type]
    await PerSQLSessionManager.open("s", database, prefix="x")  # type: ignore[call-arg]
    await PerSQLSessionManager.open("s", database, max_staleness="1")  # type: ignore[arg-type]


def repositories(database: Database) -> None:
    """The contract of Strands, and what is beside it."""
    repository = PerSQLSessionRepository(
        database,
        cache=SessionCache(max_bytes=1),
        retry=RetryPolicy(budget=1.0, sleep=ManualClock().advance),
        clock=ManualClock(),
    )
    contract: SessionRepository = repository
    assert_type(contract.read_session("s"), Session | None)
    assert_type(repository.create_session(Session("s", SessionType.AGENT)), Session)
    assert_type(repository.read_agent("s", "a"), SessionAgent | None)
    assert_type(repository.read_message("s", "a", 0), SessionMessage | None)
    assert_type(repository.list_messages("s", "a", limit=None, offset=1), list[SessionMessage])
    assert_type(repository.read_multi_agent("s", "m"), dict[str, Any] | None)
    assert_type(repository.list_sessions(limit=1, after="a"), list[Session])
    assert_type(repository.stats(), Stats)
    assert_type(repository.stats() - repository.stats(), Stats)
    assert_type(repository.stats().cost_usd, float)
    assert_type(repository.cache.current_bytes, int)
    assert_type(RetryPolicy.never(), RetryPolicy)


def errors(error: ConflictError) -> None:
    """What a handler may look at."""
    parent: PerSQLError = error
    assert_type(parent.session_id, str | None)
    assert_type(persql_error(ValueError()), PerSQLError | None)
    assert_type(error.expected_version, int | None)
    assert_type(error.found_version, int | None)


def doubles() -> None:
    """Scripts for tests."""
    ScriptedModel(["text", ToolCall("t", {"a": 1}), Redact("x"), ["both", ToolCall("t")]])
    ScriptedModel(lambda messages: f"{len(messages)} so far")
    ScriptedModel([], delay=0.1, record_calls=False)
    ScriptedModel([3])  # type: ignore[list-item]


async def storages(database: Database) -> None:
    """Storages are typed where Strands has them."""
    storage = PerSQLStorage(database, on_conflict="overwrite", search_strategy=FullTextSearch())
    taken: Storage = storage.view()
    assert_type(storage.namespace("x"), PerSQLStorage)
    assert_type(await storage.read("k"), bytes | None)
    assert_type([key async for key in storage.keys("")], list[str])
    assert_type(await storage.delete_session("s"), int)
    assert_type(await session_from_snapshots(storage, "s"), list[str])
    await taken.write("k", b"v")
    error: ConflictError = StorageConflictError("refused", key="k")
    assert error.found_version is None
