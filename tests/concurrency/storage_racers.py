"""Writers of snapshots that race, in threads and processes: functions that are found by name."""

import json
import multiprocessing
from collections.abc import Callable
from contextlib import contextmanager
from multiprocessing.synchronize import Barrier
from typing import Any

from strands import Agent
from strands.agent.conversation_manager import NullConversationManager

from strands_persql import LocalDatabase, RestClient
from tests.storages import (
    LATEST,
    PerSQLStorage,
    StorageConflictError,
    agent_of,
    immutable,
    run,
    snapshot,
)

ROUNDS = 12
"""Saves of each writer that must be applied."""

Place = tuple[str, ...]
"""A file's path, or an engine's address, token and database: what a process is told."""


@contextmanager
def opened(place: Place) -> Any:
    """Open a database in a process of its own."""
    if len(place) == 1:
        with LocalDatabase(place[0]) as local:
            yield local
    else:
        address, token, name = place
        with RestClient(token, base_url=address) as client:
            yield client.database(name)


def saved_numbers(data: bytes | None) -> list[int]:
    """Return the numbers of the messages of a snapshot."""
    if data is None:
        return []
    messages = json.loads(data)["data"]["messages"]
    return [int(message["tracking_id"].partition("-")[0]) for message in messages]


def save_turns(storage: PerSQLStorage, writer: int, barrier: Any) -> list[int]:
    """Add a message to the latest snapshot as often as it is to be applied, after restores."""
    applied = []
    barrier.wait(20)
    numbers = saved_numbers(run(storage.read(LATEST)))
    for round_ in range(ROUNDS):
        number = writer * 1_000 + round_
        while True:
            data = snapshot([*numbers, number], time=round_)
            try:
                run(storage.write(LATEST, data))
            except StorageConflictError:
                numbers = saved_numbers(run(storage.read(LATEST)))
                continue
            numbers.append(number)
            applied.append(number)
            break
        if round_ % 4 == writer % 4:
            key = immutable(number)
            run(storage.write(key, data))
            assert run(storage.view().read(key)) == data
            if round_ % 8 < 4:
                run(storage.delete(key))
    return applied


def race_to_save(place: Place, writer: int, barrier: Barrier, results: Any) -> None:
    """Save turns in a process, and report which were applied."""
    with opened(place) as database:
        results.put(save_turns(PerSQLStorage(database), writer, barrier))


def race_to_create(place: Place, writer: int, barrier: Barrier, results: Any) -> None:
    """Begin one session after the other at the moment at which others do."""
    with opened(place) as database:
        storage = PerSQLStorage(database)
        won = []
        for number in range(ROUNDS):
            key = f"session/s{number}/latest"
            barrier.wait(20)
            assert run(storage.read(key)) is None
            barrier.wait(20)
            try:
                run(storage.write(key, snapshot([writer * 1_000 + number])))
                won.append(number)
            except StorageConflictError:
                pass
        results.put((writer, won))


def restored(storage: PerSQLStorage) -> Agent:
    """Restore the agent as it is now, with all that was said."""
    replies = ["ok"] * 1_000
    return agent_of(storage, *replies, conversation_manager=NullConversationManager())


def race_turns(storage: PerSQLStorage, writer: int, barrier: Any) -> list[str]:
    """Have turns with an agent that is restored anew after each conflict."""
    said: list[str] = []
    barrier.wait(20)
    agent = restored(storage)
    while len(said) < ROUNDS:
        text = f"writer {writer}, turn {len(said)}"
        try:
            agent(text)
        except StorageConflictError:
            agent = restored(storage)
            continue
        said.append(text)
    return said


def run_processes(target: Callable[..., None], place: Place, count: int) -> list[Any]:
    """Run processes to their end, and give what each reported."""
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(count, timeout=60), context.Queue()
    processes = [
        context.Process(target=target, args=(place, writer, barrier, results))
        for writer in range(count)
    ]
    for process in processes:
        process.start()
    found = [results.get(timeout=90) for _ in processes]
    for process in processes:
        process.join(timeout=60)
    assert [process.exitcode for process in processes] == [0] * count
    results.close()
    results.join_thread()
    return found
