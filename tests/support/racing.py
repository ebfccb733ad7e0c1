"""Calls that begin at once, in threads and in processes, and never last for ever."""

import asyncio
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.synchronize import Barrier
from typing import Any

PATIENCE = 60.0
"""Seconds after which what doesn't come to an end is a failure."""


def race(calls: Sequence[Callable[[], object]]) -> list[Any]:
    """Let all begin at once, and give what each returned or raised."""
    barrier = threading.Barrier(len(calls), timeout=PATIENCE)
    outcomes: list[Any] = [None] * len(calls)

    def run(number: int) -> None:
        try:
            barrier.wait()
            outcomes[number] = calls[number]()
        except Exception as error:  # noqa: BLE001 - the test looks at it
            outcomes[number] = error

    threads = [
        threading.Thread(target=run, args=(number,), daemon=True) for number in range(len(calls))
    ]
    for thread in threads:
        thread.start()
    join(threads)
    return outcomes


@contextmanager
def beside(call: Callable[[], object]) -> Iterator[threading.Thread]:
    """Let a call run in a thread; what follows waits for its end, and raises what it raised."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except BaseException as error:  # noqa: BLE001 - raised below
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield thread
    join([thread])
    for error in errors:
        raise error


def join(threads: Iterable[threading.Thread]) -> None:
    """Wait for the end of threads, which must come."""
    deadline = time.monotonic() + PATIENCE
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
        assert not thread.is_alive(), f"{thread.name} doesn't come to an end"


def until(condition: Callable[[], bool]) -> None:
    """Wait for something that is about to happen."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it doesn't happen"
        time.sleep(0.002)


async def until_async(condition: Callable[[], bool]) -> None:
    """The same, while other coroutines go on."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it doesn't happen"
        await asyncio.sleep(0.002)


def exit_status(child: int) -> int:
    """Wait for the end of a forked child, which must come, and give its status."""
    found = (0, 0)

    def has_ended() -> bool:
        nonlocal found
        found = os.waitpid(child, os.WNOHANG)
        return found[0] == child

    try:
        until(has_ended)
    except BaseException:
        os.kill(child, signal.SIGKILL)
        raise
    return os.waitstatus_to_exitcode(found[1])


class Gate:
    """Where a thread waits until it may go on.

    Attributes:
        reached: Whether somebody stands before it.
    """

    def __init__(self) -> None:
        self._reached, self._opened = threading.Event(), threading.Event()

    def wait(self) -> None:
        """Stand before it until it is open."""
        self._reached.set()
        assert self._opened.wait(PATIENCE), "nobody opened the gate"

    def reached(self) -> None:
        """Wait until somebody stands before it."""
        assert self._reached.wait(PATIENCE), "nobody came to the gate"

    def open(self) -> None:
        """Let who stands before it go on, and all who come later."""
        self._opened.set()


def race_processes(target: Callable[..., None], count: int, *args: Any) -> list[Any]:
    """Run processes to their end, and give all that they have reported, in any order.

    Args:
        target: What each process does, found by its name: ``target(*args, number, barrier,
            report)`` with the process's number, a barrier of all of them, and a function that
            takes what it reports.
        count: How many processes.
        *args: What all of them are given.
    """
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(count, timeout=PATIENCE), context.Queue()
    processes = [
        context.Process(target=_run, args=(target, args, number, barrier, results), daemon=True)
        for number in range(count)
    ]
    for process in processes:
        process.start()
    try:
        found = [results.get(timeout=PATIENCE) for _ in processes]
        for process in processes:
            process.join(PATIENCE)
        assert [process.exitcode for process in processes] == [0] * count
    finally:
        for process in processes:
            process.kill()
    results.close()
    results.join_thread()
    return [report for reports in found for report in reports]


def _run(
    target: Callable[..., None], args: Sequence[Any], number: int, barrier: Barrier, results: Any
) -> None:
    reports: list[Any] = []
    try:
        target(*args, number, barrier, reports.append)
    except BaseException:
        barrier.abort()
        raise
    finally:
        results.put(reports)
