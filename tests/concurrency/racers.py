"""What races: threads from one barrier, and processes, whose functions must be found by name."""

import multiprocessing
import threading
from collections.abc import Callable, Sequence
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

from strands import Agent
from strands.types.session import SessionAgent

from strands_persql import (
    ConflictError,
    LocalDatabase,
    PerSQLSessionManager,
    PerSQLSessionRepository,
)
from strands_persql.testing import ScriptedModel

ROUNDS = 8
"""How often each race is run."""


def race(racers: Sequence[Callable[[], object]]) -> list[object]:
    """Let all begin at once, and give what each returned or raised."""
    barrier = threading.Barrier(len(racers))
    outcomes: list[object] = [None] * len(racers)

    def run(number: int) -> None:
        barrier.wait()
        try:
            outcomes[number] = racers[number]()
        except Exception as error:  # noqa: BLE001 - the test looks at it
            outcomes[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(racers))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


def opened(repository: PerSQLSessionRepository) -> SessionAgent:
    """Read the agent as the database has it now."""
    repository.read_session("s")
    agent = repository.read_agent("s", "a")
    assert agent is not None
    return agent


def agent_of(manager: PerSQLSessionManager) -> Agent:
    return Agent(
        model=ScriptedModel(lambda _: "answer"),
        agent_id="a",
        session_manager=manager,
        callback_handler=None,
    )


def race_to_update(path: Path, number: int, barrier: Barrier, results: Any) -> None:
    """Expect the same version as the others, again and again, and report who was let through."""
    with LocalDatabase(path) as database:
        repository = PerSQLSessionRepository(database, on_conflict="raise")
        for _ in range(ROUNDS):
            agent = opened(repository)
            agent.state["winner"] = number
            barrier.wait(20)
            try:
                repository.update_agent("s", agent)
                results.put(number)
            except ConflictError:
                results.put(None)
            barrier.wait(20)


def race_to_merge(path: Path, number: int, barrier: Barrier, results: Any) -> None:
    """Count under a key of one's own while the others do."""
    with LocalDatabase(path) as database:
        repository = PerSQLSessionRepository(database)
        agent = opened(repository)
        barrier.wait(20)
        for count in range(1, ROUNDS + 1):
            agent.state[f"k{number}"] = count
            repository.update_agent("s", agent)
            results.put(number)


def race_to_open(path: Path, number: int, barrier: Barrier, results: Any) -> None:
    """Open one new session after the other at the moment at which the others do."""
    with LocalDatabase(path) as database:
        for session in range(ROUNDS):
            barrier.wait(20)
            agent = agent_of(PerSQLSessionManager(f"s{session}", database))
            agent(f"hello from {number}")
            barrier.wait(20)
            agent(f"again from {number}")
            results.put(len(agent.messages))


def run_processes(target: Callable[..., None], path: Path, count: int) -> list[Any]:
    """Run processes to their end, and give all that they reported."""
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(count), context.Queue()
    processes = [
        context.Process(target=target, args=(path, number, barrier, results))
        for number in range(count)
    ]
    for process in processes:
        process.start()
    found = [results.get(timeout=30) for _ in range(count * ROUNDS)]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * count
    results.close()
    results.join_thread()
    return found
