"""A cached session is opened no older than it may be, while another process writes."""

import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from strands_persql import PerSQLSessionManager, PerSQLSessionRepository
from tests.support.backends import Address, Backend
from tests.support.conversation import said, session_message, stored
from tests.support.racing import PATIENCE

pytestmark = pytest.mark.backends("file", "http")


def write(address: Address, count: int, pause: float, acknowledged: Any) -> None:
    """Write so many messages, each with a state, and tell of each one's acknowledgement, and when.

    This is the other process.
    """
    with address.open() as database:
        repository = PerSQLSessionRepository(database)
        repository.read_session("s")
        agent = repository.read_agent("s", "a")
        assert agent is not None
        for number in range(count):
            repository.create_message("s", "a", session_message(str(number), number))
            agent.state["n"] = number
            repository.update_agent("s", agent)
            acknowledged.send((number, time.monotonic()))
            time.sleep(pause)
    acknowledged.send(None)


class Writer:
    """Another process that writes.

    Attributes:
        log: The number of each acknowledged message, and when that was.
    """

    def __init__(self, acknowledged: Any) -> None:
        self._acknowledged = acknowledged
        self.log: list[tuple[int, float]] = []

    @property
    def last(self) -> int:
        """The number of the message that was acknowledged last."""
        return self.log[-1][0]

    def listen(self) -> bool:
        """Wait for the next acknowledgement; tell whether there was one."""
        assert self._acknowledged.poll(PATIENCE), "the writer is silent"
        told = self._acknowledged.recv()
        if told is not None:
            self.log.append(told)
        return told is not None


@contextmanager
def another_process(backend: Backend, count: int, pause: float = 0.0) -> Iterator[Writer]:
    """Let another process write into a session that is made for it."""
    stored(backend, n=-1)
    context = multiprocessing.get_context("spawn")
    reading, writing = context.Pipe(duplex=False)
    process = context.Process(
        target=write, args=(backend.address, count, pause, writing), daemon=True
    )
    process.start()
    writing.close()
    try:
        yield Writer(reading)
        process.join(PATIENCE)
        assert process.exitcode == 0
    finally:
        process.kill()
        process.join(PATIENCE)
        reading.close()


def seen(repository: PerSQLSessionRepository) -> tuple[int, int]:
    """Open the session and tell how many messages and which state are there."""
    assert repository.read_session("s") is not None
    agent = repository.read_agent("s", "a")
    assert agent is not None
    texts = said(one.to_message() for one in repository.list_messages("s", "a"))
    assert texts == [str(number) for number in range(len(texts))]
    return len(texts) - 1, agent.state["n"]


@pytest.mark.guarantee(number=10)
def test_an_open_sees_what_another_process_has_acknowledged(backend: Backend) -> None:
    """Without staleness each open has every message and state acknowledged before it began."""
    repository = backend.repository()
    with another_process(backend, 60) as writer:
        while writer.listen():
            acknowledged = writer.last
            message, state = seen(repository)
            assert min(message, state) >= acknowledged
    assert seen(repository) == (59, 59)
    assert writer.last == 59


@pytest.mark.guarantee(number=10)
def test_a_manager_sees_what_another_process_has_acknowledged(backend: Backend) -> None:
    """An agent that is restored in a process with a warm cache has all that was acknowledged."""
    repository = backend.repository()

    def restored() -> list[str]:
        agent = SimpleNamespace(agent_id="a", messages=[], state=None, model=None)
        PerSQLSessionManager("s", repository=repository).initialize(agent)
        return said(agent.messages)

    with another_process(backend, 20) as writer:
        while writer.listen():
            acknowledged = writer.last
            assert len(restored()) > acknowledged


@pytest.mark.guarantee(number=10)
def test_an_open_is_never_older_than_its_staleness(backend: Backend) -> None:
    """What an open within a staleness misses was acknowledged no longer ago than that."""
    staleness = 0.15
    repository = backend.repository(max_staleness=staleness)
    stale = 0
    with another_process(backend, 40, pause=0.02) as writer:
        while writer.listen():
            opened_at = time.monotonic()
            message, state = seen(repository)
            missed = [at for number, at in writer.log if number > min(message, state)]
            assert all(opened_at - at <= staleness for at in missed)
            stale += bool(missed)
    time.sleep(staleness)
    assert seen(repository) == (39, 39)
    assert stale > 0
    assert repository.stats().round_trips < 40
