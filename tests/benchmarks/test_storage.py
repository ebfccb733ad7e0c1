"""What a storage may cost: budgets that always run, and ratios at full size by ``make bench``."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from strands import Agent
from strands.agent.conversation_manager import NullConversationManager

from strands_persql import LocalDatabase, SessionCache
from strands_persql.testing import CountingDatabase, ScriptedModel
from tests.benchmarks.conftest import Report
from tests.benchmarks.workload import Cost, Place, wire_place
from tests.engine.engine import Engine
from tests.storages import (
    LATEST,
    LocalFileStorage,
    PerSQLStorage,
    SnapshotSessionManager,
    Storage,
    immutable,
    run,
    snapshot,
    text_of,
)

BYTES_A_SAVE = 2_000
ROWS_A_SAVE = 2.0
ROWS_OF_ANY_SAVE = 3
ROWS_READ_TO_RESTORE = 140
SHARE_OF_FILES_BYTES = 0.03
SHARE_OF_FILES_IN_A_LOG = 0.06  # SQLite's log holds whole pages, of 4 kB each
TIME_OF_BARE_REQUESTS = 1.1


@pytest.fixture
def wire(engine: Engine, database_name: str) -> Iterator[Place]:
    """A database on the engine, with all that is asked of it counted on the wire."""
    with wire_place(engine, database_name) as place:
        PerSQLStorage(place.database).setup()
        yield place


def growing(count: int, first: int = 0) -> list[bytes]:
    """Return snapshots of which each has 500 characters more, its time and a state that change."""
    return [
        snapshot(range(number), size=398, time=number, turns=number)
        for number in range(first + 1, first + count + 1)
    ]


def save_all(storage: PerSQLStorage, values: Sequence[bytes]) -> None:
    """Save values under one key, one after the other."""

    async def save() -> None:
        for value in values:
            await storage.write(LATEST, value)

    run(save())


def rows_of_each(place: Place) -> list[int]:
    """Return the rows that each request of the last measure has written."""
    assert place._proxy is not None
    return [
        json.loads(body)["meta"]["rowsWritten"]
        for request in place._proxy.requests
        for _, body in request.answers
    ]


def check_saves(place: Place, values: Sequence[bytes], cost: Cost) -> None:
    """Hold saves, and a restore after them, to their budget."""
    count = len(values)
    assert cost.round_trips == count
    assert cost.rows_written <= ROWS_A_SAVE * count
    assert cost.bytes_up <= BYTES_A_SAVE * count
    assert max(rows_of_each(place)) <= ROWS_OF_ANY_SAVE
    found, restore = place.measure(lambda: run(PerSQLStorage(place.database).read(LATEST)))
    assert found == values[-1]
    assert (restore.round_trips, restore.rows_read <= ROWS_READ_TO_RESTORE) == (1, True)


def test_a_save_stays_within_its_budget(wire: Place) -> None:
    """A save of a growing snapshot is 1 request, 2 kB up and 2 rows on average, 3 at the most."""
    values = growing(150)

    _, cost = wire.measure(lambda: save_all(PerSQLStorage(wire.database), values))

    check_saves(wire, values, cost)


def test_a_save_costs_the_same_however_long_the_snapshot_is(wire: Place) -> None:
    """Beyond 2,000 messages a save costs what it does beyond 50, but for a few ranges more."""
    costs = []
    for first in (50, 2_000):
        storage, values = PerSQLStorage(wire.database), growing(21, first)
        run(storage.delete(LATEST))
        save_all(storage, values[:1])
        costs.append(wire.measure(lambda: save_all(storage, values[1:]))[1])  # noqa: B023

    near, far = costs
    assert far.bytes_up <= 1.5 * near.bytes_up
    assert (far.round_trips, far.rows_written) == (near.round_trips, near.rows_written)


def test_a_process_that_restored_pays_no_more(wire: Place) -> None:
    """Saves of processes that come one after the other, each after a restore, keep the budget."""
    values = growing(60, first=100)
    save_all(PerSQLStorage(wire.database), values[:1])

    def restore_and_save() -> None:
        for value in values[1:]:
            storage = PerSQLStorage(wire.database)
            run(storage.read(LATEST))
            run(storage.write(LATEST, value))

    _, cost = wire.measure(restore_and_save)

    assert cost.round_trips == 2 * 59
    assert cost.rows_written <= ROWS_A_SAVE * 59
    assert cost.bytes_up <= 2 * BYTES_A_SAVE * 59


def test_immutable_snapshots_cost_a_row_each(wire: Place) -> None:
    """An immutable snapshot with each save costs 1 request and less than 2 rows more."""
    values = growing(60, first=20)

    def save() -> None:
        storage = PerSQLStorage(wire.database)
        for number, value in enumerate(values):
            run(storage.write(immutable(number), value))
            run(storage.write(LATEST, value))

    _, cost = wire.measure(save)

    assert cost.round_trips == 120
    assert cost.rows_written <= 1.6 * 120
    assert cost.bytes_up <= 1.25 * BYTES_A_SAVE * 120
    stored = wire.database.query("SELECT sum(length(data)) AS size FROM strands_parts")["data"]
    assert stored[0]["size"] < 1.5 * len(values[-1])


def test_an_unchanged_snapshot_is_read_again_for_little(wire: Place) -> None:
    """Reading a remembered value again is 1 request of 2 rows and 2 kB, or none."""
    storage = PerSQLStorage(wire.database)
    save_all(storage, growing(1, first=500))
    _, cost = wire.measure(lambda: run(storage.view().read(LATEST)))
    assert (cost.round_trips, cost.rows_read) == (1, 2)
    assert cost.bytes_up + cost.bytes_down <= 2_000

    lasting = PerSQLStorage(wire.database, cache=storage.cache, max_staleness=60)
    run(lasting.read(LATEST))
    assert wire.measure(lambda: run(lasting.read(LATEST)))[1].round_trips == 0


def test_a_session_is_deleted_in_a_few_requests(wire: Place) -> None:
    """A session with 1,000 immutable snapshots is deleted in 3 requests, rows twice its values."""
    storage, values = PerSQLStorage(wire.database), growing(3)
    for number, value in enumerate(values):
        run(storage.write(immutable(number), value))
    wire.database.query(
        "INSERT INTO strands_objects (key, pool, write_id, saved_by, pieces)"
        " WITH RECURSIVE n(i) AS (SELECT 3 UNION ALL SELECT i + 1 FROM n WHERE i < 999)"
        " SELECT replace(?, '0000', printf('%04d', i)), ?, 'w' || i, 'w' || i, '[]' FROM n",
        [immutable(0), LATEST.rpartition("/")[0] + "/"],
    )

    count, cost = wire.measure(lambda: run(storage.delete_session("s")))

    assert count == 1_000
    assert cost.round_trips <= 3
    assert cost.rows_written <= 2_010


def test_a_hundred_thousand_keys_are_listed_in_pages(tmp_path: Path) -> None:
    """100,000 keys are listed by their prefix in as many requests as there are pages."""
    with LocalDatabase(tmp_path / "many.db") as local:
        storage = PerSQLStorage(CountingDatabase(local))
        storage.setup()
        local.query(
            "INSERT INTO strands_objects (key) WITH RECURSIVE n(i) AS"
            " (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 99999)"
            " SELECT printf('a/%06d', i) FROM n"
        )
        assert isinstance(storage.database, CountingDatabase)
        storage.database.reset()

        async def count() -> int:
            return len([1 async for _ in storage.keys("a/")])

        assert run(count()) == 100_000
        assert storage.database.round_trips == 21
        assert len(run(storage.list("a/05"))) == 10_000


# -- at full size ----------------------------------------------------------------------------------


class _CountingFiles(LocalFileStorage):
    """Files, with the bytes counted that are written to them."""

    bytes_written = 0

    async def write(self, key: str, data: bytes) -> None:
        self.bytes_written += len(data)
        await super().write(key, data)


def take_turns(storage: Storage, count: int) -> None:
    """Have turns of an agent whose session is stored as snapshots, a save each."""
    agent = Agent(
        model=ScriptedModel(lambda messages: text_of(500, len(messages))),
        agent_id="a",
        conversation_manager=NullConversationManager(),
        session_manager=SnapshotSessionManager("s", storage=storage),
        callback_handler=None,
    )
    for number in range(count):
        agent(text_of(500, f"prompt {number}"))


@pytest.mark.benchmark
@pytest.mark.timeout(0)
def test_a_thousand_saves(wire: Place, report: Report) -> None:
    """1,000 saves of a growing snapshot keep their budget."""
    values = growing(1_000)

    _, cost = wire.measure(lambda: save_all(PerSQLStorage(wire.database), values))

    check_saves(wire, values, cost)
    report("1,000 saves, MB up", cost.bytes_up / 1e6, at_most=2.0)
    report("1,000 saves, rows written a save", cost.rows_written / 1_000, at_most=ROWS_A_SAVE)


@pytest.mark.benchmark
@pytest.mark.timeout(0)
def test_a_thousand_turns_beside_files(wire: Place, tmp_path: Path, report: Report) -> None:
    """1,000 turns through Strands' manager send a few hundredths of what it writes to files."""
    files = _CountingFiles(str(tmp_path / "files"))
    take_turns(files, 1_000)
    _, cost = wire.measure(lambda: take_turns(PerSQLStorage(wire.database), 1_000))
    path = tmp_path / "ours.db"
    with LocalDatabase(path) as local:
        local.query("PRAGMA wal_autocheckpoint = 0")
        take_turns(PerSQLStorage(local), 1_000)
        wal = path.with_name("ours.db-wal").stat().st_size

    written = files.bytes_written
    report("1,000 turns, bytes up of LocalFileStorage's", cost.bytes_up / written,
           at_most=SHARE_OF_FILES_BYTES)  # fmt: skip
    report("1,000 turns, bytes in a file's log of LocalFileStorage's", wal / written,
           at_most=SHARE_OF_FILES_IN_A_LOG)  # fmt: skip
    report("1,000 turns, rows written a save", cost.rows_written / 1_000, at_most=ROWS_A_SAVE)


@pytest.mark.benchmark
@pytest.mark.timeout(0)
def test_a_save_takes_the_time_of_its_request(wire: Place, report: Report) -> None:
    """1,000 saves over 30 ms a request take hardly longer than 1,000 bare requests."""
    distant, values = CountingDatabase(wire.database, latency=0.03), growing(1_000)
    bare = _seconds(lambda: [distant.query("SELECT 1") for _ in values])
    saves = _seconds(lambda: save_all(PerSQLStorage(distant), values))

    report("1,000 saves at 30 ms a request, time of bare requests", saves / bare,
           at_most=TIME_OF_BARE_REQUESTS)  # fmt: skip


def _seconds(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


@pytest.mark.benchmark
@pytest.mark.timeout(0)
def test_a_value_of_25_mb(wire: Place, report: Report) -> None:
    """25 MB of bytes are written and read in a few requests, byte for byte."""
    data = bytes(range(256)) * 100_000
    storage = PerSQLStorage(wire.database, cache=SessionCache(0))

    _, up = wire.measure(lambda: run(storage.write("video", data)))
    found, down = wire.measure(lambda: run(storage.read("video")))

    assert found == data
    report("25 MB, requests to write", up.round_trips, at_most=12)
    report("25 MB, requests to read", down.round_trips, at_most=12)


def test_saves_from_one_loop_overlap(tmp_path: Path) -> None:
    """Saves of many keys that are awaited together take the time of one, not of all."""
    with LocalDatabase(tmp_path / "wide.db") as local:
        PerSQLStorage(local).setup()
        storage = PerSQLStorage(CountingDatabase(local, latency=0.05))

        async def save() -> None:
            await asyncio.gather(*(storage.write(f"k{n}", b"v") for n in range(20)))

        assert _seconds(lambda: run(save())) < 0.6
