"""How long things take, as ratios of two ways that are timed in turns; run by `make bench`."""

import asyncio
import contextlib
import gc
import itertools
import json
import multiprocessing
import sqlite3
import statistics
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest
from strands import Agent
from strands.agent.conversation_manager import NullConversationManager
from strands.session.file_session_manager import FileSessionManager
from strands.types.content import Message, Messages
from strands.types.session import Session, SessionAgent, SessionMessage, SessionType

from strands_persql import (
    Database,
    LocalDatabase,
    PerSQLSessionManager,
    PerSQLSessionRepository,
    SessionCache,
)
from strands_persql.testing import CountingDatabase
from tests.benchmarks.conftest import Report
from tests.benchmarks.workload import (
    AGENT_ID,
    SYSTEMS,
    make_tables,
    new_agent,
    seed,
    take_turn,
)
from tests.support.backends import Address, Backend
from tests.support.conversation import state_in_database, stored
from tests.support.racing import PATIENCE

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(600)]

RACERS, ROUNDS, UPDATES = "abcdefgh", 5, 25
ALL_COUNTED = dict.fromkeys(RACERS, ROUNDS * UPDATES) | {"alone": len(RACERS) * ROUNDS * UPDATES}


def medians(rounds: int, *ways: Callable[[], object]) -> list[float]:
    """Time each way once a round, one after the other, and give each one's median in seconds."""
    times: list[list[float]] = [[] for _ in ways]
    for _ in range(rounds):
        for way, taken in zip(ways, times, strict=True):
            began = time.perf_counter()
            way()
            taken.append(time.perf_counter() - began)
    return [statistics.median(taken) for taken in times]


def conversation(count: int, size: int = 400) -> Messages:
    """Make a history."""
    return [
        {"role": "assistant" if i % 2 else "user", "content": [{"text": f"{i} " + "x" * size}]}
        for i in range(count)
    ]


@pytest.fixture
def database(tmp_path: Path) -> Iterator[LocalDatabase]:
    """A durable file."""
    with LocalDatabase(tmp_path / "agents.db") as opened:
        yield opened


def test_restoring_is_much_faster_than_from_files(tmp_path: Path, report: Report) -> None:
    """A session of 3,000 messages is restored in 0.12 of the time of FileSessionManager."""
    folder, path = str(tmp_path / "files"), tmp_path / "agents.db"
    with LocalDatabase(path) as database:
        for manager in (
            FileSessionManager("long", storage_dir=folder),
            PerSQLSessionManager("long", database),
        ):
            Agent(
                agent_id=AGENT_ID,
                messages=conversation(3_000),
                session_manager=manager,
                conversation_manager=NullConversationManager(),
            )

    def from_files() -> None:
        agent = new_agent(FileSessionManager("long", storage_dir=folder))
        assert len(agent.messages) == 3_000

    def from_database() -> None:
        with LocalDatabase(path) as database:
            agent = new_agent(PerSQLSessionManager("long", database))
        assert len(agent.messages) == 3_000

    theirs, ours = medians(7, from_files, from_database)
    report("restore of 3,000 messages / FileSessionManager", ours / theirs, at_most=0.12)


def test_an_append_takes_little_more_than_a_bare_insert(
    database: LocalDatabase, tmp_path: Path, report: Report
) -> None:
    """Appending to a durable file has at least 0.6 of a bare INSERT's speed, equally durable."""
    manager = PerSQLSessionManager("log", database)
    agent = new_agent(manager)
    repository = PerSQLSessionRepository(database)
    repository.create_session(Session("plain", SessionType.AGENT))
    repository.create_agent("plain", SessionAgent(AGENT_ID, {}, {}))
    message: Message = {"role": "user", "content": [{"text": "x" * 400}]}
    data = json.dumps(SessionMessage.from_message(message, 0).to_dict())
    bare = sqlite3.connect(tmp_path / "bare.db", isolation_level=None)
    bare.execute("PRAGMA journal_mode=WAL")
    bare.execute("PRAGMA synchronous=FULL")
    bare.execute(
        "CREATE TABLE messages (session_id TEXT, agent_id TEXT, message_id INTEGER, data TEXT,"
        " created_at TEXT, PRIMARY KEY (session_id, agent_id, message_id)) WITHOUT ROWID"
    )
    ids, records = itertools.count(), itertools.count()

    def insert(text: str = data) -> None:
        row = ("log", AGENT_ID, next(ids), text, "2026-01-01T00:00:00+00:00")
        bare.execute("INSERT INTO messages VALUES (?, ?, ?, ?, ?)", row)

    def encode_and_insert() -> None:
        insert(json.dumps(SessionMessage.from_message(message, 0).to_dict()))

    def create() -> None:
        record = SessionMessage.from_message({**message}, next(records))
        repository.create_message("plain", AGENT_ID, record)

    def append() -> None:
        manager.append_message({**message}, agent)

    with contextlib.closing(bare):
        medians(50, insert, encode_and_insert, create, append)
        inserted, encoded, created, appended = medians(
            500, insert, encode_and_insert, create, append
        )
    report(
        "create_message on a durable file: speed / a bare INSERT's",
        inserted / created,
        at_least=0.6,
    )
    # An agent's append asks for other writers' messages too, in the same transaction.
    report(
        "append_message, likewise / encoding and a bare INSERT", encoded / appended, at_least=0.5
    )


def test_an_append_does_not_grow_with_the_history(report: Report, tmp_path: Path) -> None:
    """An append takes at 100,000 messages at most 1.1 of what it takes at 100."""
    with contextlib.ExitStack() as stack:
        appends = []
        for history in (100, 100_000):
            database = stack.enter_context(LocalDatabase(tmp_path / f"{history}.db"))
            new_agent(PerSQLSessionManager("log", database))
            seed(database, "log", history, size=200)
            manager = PerSQLSessionManager("log", database)
            agent = new_agent(manager)
            assert len(agent.messages) == history
            appends.append(_appends(manager, agent))
        medians(50, *appends)
        short, long = medians(500, *appends)
    report("append at 100,000 messages / at 100", long / short, at_most=1.1)


def _appends(manager: PerSQLSessionManager, agent: Agent) -> Callable[[], None]:
    return lambda: manager.append_message({"role": "user", "content": [{"text": "x" * 200}]}, agent)


@pytest.mark.parametrize(("commit", "limit"), [("message", 0.7), ("turn", 0.18)])
def test_tool_turns_spend_less_time_on_the_way(commit: str, limit: float, report: Report) -> None:
    """20 tool turns at 30 ms a request take 0.7 of the baseline's time, 0.18 if written at once."""
    _twenty_tool_turns(commit, 0.0)  # the first agent of a process has more to import
    runs = [[_twenty_tool_turns(system, 0.03) for system in ("baseline", commit)] for _ in "1234"]
    # Each turn's best: what else goes on in the machine makes a turn longer, never shorter.
    theirs, ours = (sum(map(min, *times)) for times in zip(*runs, strict=True))
    report(f'20 tool turns at 30 ms a request, "{commit}" / baseline', ours / theirs, at_most=limit)


def _twenty_tool_turns(system: str, latency: float) -> list[float]:
    """Give the seconds that each of the tool turns of four new sessions takes, five in each.

    In longer ones Strands itself, which copies the conversation for each call of the model, would
    take more and more of the time on both sides.
    """
    taken = []
    with LocalDatabase() as local:
        database = CountingDatabase(local)
        make_tables(system, database)
        for number in range(4):
            database.latency = 0.0
            agent = new_agent(SYSTEMS[system](f"trip-{number}", database))
            database.latency = latency
            for _ in range(5):
                began = time.perf_counter()
                take_turn(agent, tools=1)
                taken.append(time.perf_counter() - began)
    return taken


@pytest.mark.parametrize("commit", ["message", "turn"])
def test_the_event_loop_goes_on(commit: Any, report: Report) -> None:
    """While an agent opens and has turns at 100 ms a request the loop stalls for 10 ms at most."""

    async def live() -> float:
        with LocalDatabase() as local:
            make_tables(commit, local)
            database, ticker = CountingDatabase(local, latency=0.1), Ticker()
            async with ticker:
                manager = await PerSQLSessionManager.open("busy", database, commit=commit)
                async with manager:
                    agent = await asyncio.to_thread(new_agent, manager)
                    for tools in (0, 1, 2):
                        await agent.invoke_async("Please " + "note " * tools)
            assert database.round_trips >= 4
            return ticker.worst

    asyncio.run(live())  # the first agent of a process has more to import
    stalls = [asyncio.run(live()) for _ in range(3)]
    name = f'event loop\'s worst stall at 100 ms a request, "{commit}", in ms'
    report(name, statistics.median(stalls) * 1e3, at_most=10)


class Ticker:
    """A coroutine that wants to run each millisecond, and how long it had to wait at worst."""

    def __init__(self) -> None:
        self.worst = 0.0

    async def _tick(self) -> None:
        while True:
            began = time.perf_counter()
            await asyncio.sleep(0.001)
            self.worst = max(self.worst, time.perf_counter() - began - 0.001)

    async def __aenter__(self) -> "Ticker":
        gc.collect()
        self._task = asyncio.create_task(self._tick())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()


def test_the_cache_stays_within_its_limit(database: LocalDatabase, report: Report) -> None:
    """A run that touches ten times the cache's limit never holds more than that limit."""
    limit, sessions = 2_000_000, [f"session-{number}" for number in range(50)]
    for session_id in sessions:
        new_agent(PerSQLSessionManager(session_id, database))
        seed(database, session_id, 100, size=4_000)
    repository = PerSQLSessionRepository(database, cache=SessionCache(limit))

    def open_all() -> list[int]:
        return [_held(repository, session_id) for session_id in sessions]

    open_all()
    repository.cache.clear()
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        most = max(open_all()) - before
    finally:
        tracemalloc.stop()
    assert repository.stats().evictions > len(sessions)
    assert repository.stats().cached_bytes > limit / 2
    report("memory held at any time by a cache / its limit", most / limit, at_most=1.0)


def _held(repository: PerSQLSessionRepository, session_id: str) -> int:
    """Give the bytes that are held once a session has been read."""
    assert repository.read_session(session_id)
    assert len(repository.list_messages(session_id, AGENT_ID)) == 100
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


class Updater:
    """A writer with a repository of its own, that counts under a key of its own."""

    def __init__(self, database: Database, key: str) -> None:
        self._repository = PerSQLSessionRepository(database)
        self._key = key
        found = self._repository.read_agent("s", "a")
        assert found is not None
        self._agent = found

    def update(self, times: int) -> None:
        for _ in range(times):
            self._agent.state[self._key] = self._agent.state.get(self._key, 0) + 1
            self._repository.update_agent("s", self._agent)


def race_along(address: Address, key: str, begin: Barrier, end: Barrier) -> None:
    """Update in rounds that begin and end together with those of others: a process's work."""
    with address.open() as database:
        racer = Updater(database, key)
        for _ in range(ROUNDS):
            begin.wait()
            racer.update(UPDATES)
            end.wait()


@pytest.mark.backends("file")
def test_threads_that_race_keep_their_pace(backend: Backend, report: Report) -> None:
    """8 threads that update one agent get at least 0.7 of what one of them gets alone."""
    stored(backend)
    racers = [Updater(backend.plain, key) for key in RACERS]
    alone = Updater(backend.plain, "alone")
    with ThreadPoolExecutor(len(RACERS)) as threads:

        def race() -> None:
            list(threads.map(lambda racer: racer.update(UPDATES), racers))

        sequential, raced = medians(ROUNDS, lambda: alone.update(len(RACERS) * UPDATES), race)
    assert state_in_database(backend) == ALL_COUNTED
    report("updates of one agent by 8 racing threads / by one", sequential / raced, at_least=0.7)


@pytest.mark.backends("file")
def test_processes_that_race_keep_their_pace(backend: Backend, report: Report) -> None:
    """8 processes that update one agent get at least 0.7 of what one of them gets alone."""
    context = multiprocessing.get_context("spawn")
    begin, end = (context.Barrier(len(RACERS) + 1, timeout=PATIENCE) for _ in range(2))

    def race() -> None:
        begin.wait()
        end.wait()

    stored(backend)
    processes = [
        context.Process(target=race_along, args=(backend.address, key, begin, end), daemon=True)
        for key in RACERS
    ]
    for process in processes:
        process.start()
    alone = Updater(backend.plain, "alone")
    sequential, raced = medians(ROUNDS, lambda: alone.update(len(RACERS) * UPDATES), race)
    for process in processes:
        process.join(PATIENCE)
    assert state_in_database(backend) == ALL_COUNTED
    report("updates of one agent by 8 racing processes / by one", sequential / raced, at_least=0.7)
