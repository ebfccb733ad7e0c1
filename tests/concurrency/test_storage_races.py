"""Racing writers of snapshots: nobody's save is lost without an error."""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from strands_persql import SessionCache
from tests.concurrency.storage_racers import (
    ROUNDS,
    Place,
    opened,
    race_to_create,
    race_to_save,
    race_turns,
    restored,
    run_processes,
    save_turns,
    saved_numbers,
)
from tests.storages import LATEST, PerSQLStorage, run, snapshot

RACERS = 4


@pytest.fixture(params=["file", "engine"])
def place(request: pytest.FixtureRequest, tmp_path: Path, database_name: str) -> Place:
    """A database that several processes can open, with its tables."""
    if request.param == "file":
        found: Place = (str(tmp_path / "race.db"),)
    else:
        engine = request.getfixturevalue("engine")
        found = (engine.base_url, engine.token(), database_name)
    with opened(found) as database:
        PerSQLStorage(database).setup()
    return found


def check(place: Place, applied: list[list[int]]) -> None:
    """Check that each save that was acknowledged is in the latest snapshot, in its order."""
    with opened(place) as database:
        fresh = PerSQLStorage(database)
        stored = saved_numbers(run(fresh.read(LATEST)))
        for numbers in applied:
            assert [number for number in stored if number in numbers] == numbers
        assert Counter(stored) == Counter(number for numbers in applied for number in numbers)
        for key in run(fresh.list("session/")):
            assert run(fresh.read(key)) is not None
        assert run(fresh.sweep(older_than=-1)) == 0
        run(fresh.delete_session("s"))
        count = "SELECT count(*) AS n FROM strands_parts"
        assert list(database.query(count)["data"]) == [{"n": 0}]


def test_processes_lose_no_save(place: Place) -> None:
    """Of processes that save one agent's snapshots each acknowledged save is there at the end."""
    check(place, run_processes(race_to_save, place, RACERS))


def test_one_process_begins_each_session(place: Place) -> None:
    """Of processes that find no session and save at once, exactly one begins it."""
    won = run_processes(race_to_create, place, RACERS)

    assert Counter(number for _, numbers in won for number in numbers) == Counter(range(ROUNDS))
    with opened(place) as database:
        storage = PerSQLStorage(database)
        for writer, numbers in won:
            for number in numbers:
                stored = run(storage.read(f"session/s{number}/latest"))
                assert stored == snapshot([writer * 1_000 + number])


@pytest.mark.parametrize("cache", [0, 64 * 1024 * 1024], ids=["no cache", "one cache"])
def test_views_in_threads_lose_no_save(place: Place, cache: int) -> None:
    """Views of one storage, each in a thread, are told apart however they share a cache."""
    barrier = threading.Barrier(RACERS, timeout=60)
    with opened(place) as database:
        storage = PerSQLStorage(database, cache=SessionCache(cache))
        with ThreadPoolExecutor(RACERS) as threads:
            applied = list(
                threads.map(
                    lambda writer: save_turns(storage.view(), writer, barrier), range(RACERS)
                )
            )
    check(place, applied)


@pytest.mark.parametrize("views", [True, False], ids=["a view each", "one storage"])
def test_managers_in_one_process_lose_no_turn(place: Place, views: bool) -> None:
    """Agents in threads of one process lose no turn, though they share a storage object."""
    barrier = threading.Barrier(RACERS, timeout=60)
    with opened(place) as database:
        storage = PerSQLStorage(database)

        def turns(writer: int) -> list[str]:
            return race_turns(storage.view() if views else storage, writer, barrier)

        with ThreadPoolExecutor(RACERS) as threads:
            said = list(threads.map(turns, range(RACERS)))

        messages = restored(PerSQLStorage(database)).messages
        stored = [one["content"][0]["text"] for one in messages if one["role"] == "user"]
        for texts in said:
            assert [text for text in stored if text in texts] == texts
