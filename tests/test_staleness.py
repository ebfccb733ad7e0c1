"""A cached session is opened no older than it may be: two processes and a state machine try."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from strands_persql import (
    LocalDatabase,
    PerSQLSessionManager,
    PerSQLSessionRepository,
    RestClient,
    RetryPolicy,
    SessionCache,
)
from strands_persql.errors import PerSQLError
from strands_persql.testing import Fault, FaultyDatabase
from tests.contract.helpers import said, session, session_agent, session_message, user
from tests.engine.engine import Engine

# -- two processes ---------------------------------------------------------------------------------

WRITER = """
import sys, time
from strands_persql import LocalDatabase, PerSQLSessionRepository, RestClient
from strands.types.session import SessionMessage

where, name, token, count, pause = sys.argv[1:]
if token:
    database = RestClient(token, base_url=where).database(name)
else:
    database = LocalDatabase(where)
repository = PerSQLSessionRepository(database)
repository.read_session("s")
agent = repository.read_agent("s", "a")
for number in range(int(count)):
    message = SessionMessage.from_message(
        {"role": "user", "content": [{"text": str(number)}]}, number
    )
    repository.create_message("s", "a", message)
    agent.state["n"] = number
    repository.update_agent("s", agent)
    print(number, time.monotonic(), flush=True)
    time.sleep(float(pause))
"""


class Place:
    """A database that several processes can use.

    Attributes:
        database: This process' handle.
        arguments: What another process needs to know.
    """

    def __init__(self, database: Any, *arguments: str) -> None:
        self.database, self.arguments = database, arguments

    @contextmanager
    def writer(self, count: int, pause: float = 0.0) -> Iterator["Writer"]:
        """Let another process write so many messages, each with a state."""
        arguments = [*self.arguments, str(count), str(pause)]
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, *arguments], stdout=subprocess.PIPE, text=True
        )
        try:
            yield Writer(process)
        finally:
            process.kill()
            process.communicate()


class Writer:
    """Another process that writes, and says what was acknowledged, and when."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self.acknowledged = -1
        self.log: list[tuple[int, float]] = []

    def listen(self) -> bool:
        """Wait for the next acknowledgement; tell whether there was one."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            assert self._process.wait(30) == 0
            return False
        number, at = line.split()
        self.acknowledged = int(number)
        self.log.append((self.acknowledged, float(at)))
        return True


@pytest.fixture(params=["file", "http"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """A file and a hosted database, each with a session and an agent."""
    if request.param == "file":
        with LocalDatabase(tmp_path / "sessions.db") as database:
            made = Place(database, str(tmp_path / "sessions.db"), "", "")
            begin(made)
            yield made
        return
    engine: Engine = request.getfixturevalue("engine")
    name: str = request.getfixturevalue("database_name")
    with RestClient(engine.token(), base_url=engine.base_url) as client:
        made = Place(client.database(name), engine.base_url, name, engine.token())
        begin(made)
        yield made


def begin(place: Place) -> None:
    """Create the session and its agent."""
    repository = PerSQLSessionRepository(place.database)
    repository.create_session(session())
    repository.create_agent("s", session_agent(n=-1))


def seen(repository: PerSQLSessionRepository) -> tuple[int, int]:
    """Open the session and tell how many messages and which state are there."""
    assert repository.read_session("s") is not None
    agent = repository.read_agent("s", "a")
    assert agent is not None
    texts = said(one.to_message() for one in repository.list_messages("s", "a"))
    assert texts == [str(number) for number in range(len(texts))]
    return len(texts) - 1, agent.state["n"]


def test_an_open_sees_what_another_process_has_acknowledged(place: Place) -> None:
    """Without staleness each open has every message and state acknowledged before it began."""
    repository = PerSQLSessionRepository(place.database)
    with place.writer(60) as writer:
        while writer.listen():
            acknowledged = writer.acknowledged
            message, state = seen(repository)
            assert min(message, state) >= acknowledged
    assert seen(repository) == (59, 59)
    assert writer.acknowledged == 59


def test_a_manager_sees_what_another_process_has_acknowledged(place: Place) -> None:
    """An agent that is restored in a process with a warm cache has all that was acknowledged."""
    repository = PerSQLSessionRepository(place.database)

    def restored() -> list[str]:
        agent = SimpleNamespace(agent_id="a", messages=[], state=None, model=None)
        PerSQLSessionManager("s", repository=repository).initialize(agent)
        return said(agent.messages)

    with place.writer(20) as writer:
        while writer.listen():
            acknowledged = writer.acknowledged
            assert len(restored()) > acknowledged


def test_an_open_is_never_older_than_its_staleness(place: Place) -> None:
    """What an open within a staleness misses was acknowledged no longer ago than that."""
    staleness = 0.15
    repository = PerSQLSessionRepository(place.database, max_staleness=staleness)
    stale = 0
    with place.writer(40, pause=0.02) as writer:
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


# -- a state machine -------------------------------------------------------------------------------

faults = st.sampled_from(
    [*[None] * 6, "lost_request", "lost_answer", "duplicate", "delayed_duplicate"]
)
who = st.sampled_from([0, 1, 1, 2])
pauses = st.sampled_from([0.0, 0.0, 0.1, 2.6, 4.9, 5.1, 31.0])


class Opening(RuleBasedStateMachine):
    """Repositories with caches of their own on one database, and a clock that rules set.

    Each write is noted with the time of its acknowledgement. Whatever an open of a session leaves
    out must have been acknowledged within the staleness before it.
    """

    STALENESS = (0.0, 5.0, 60.0)

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.database = LocalDatabase()
        self.next_fault: Fault | None = None
        self.faulty = FaultyDatabase(self.database, self._fault, duplicate_after=2)
        retry = RetryPolicy(budget=0.0, sleep=lambda _: None)
        self.repositories = [
            PerSQLSessionRepository(
                self.faulty,
                retry=retry,
                max_staleness=seconds,
                clock=lambda: self.now,
                cache=SessionCache(max_bytes=bytes_),
            )
            for seconds, bytes_ in zip(self.STALENESS, (10**6, 10**6, 6_000), strict=True)
        ]
        self.said: dict[str, float] = {}  # by text, when it was acknowledged
        self.counts: dict[str, dict[int, float]] = {}  # by key, by value, likewise
        self.redacted: dict[str, float] = {}
        self.incarnation = 0
        self.born = 0.0
        self.number = 0

    def _fault(self, _: int) -> Fault | None:
        fault, self.next_fault = self.next_fault, None
        return fault

    def teardown(self) -> None:
        """Close the database."""
        self.database.close()

    @initialize()
    def create(self) -> None:
        """A session with an agent."""
        self._create(0)

    def _create(self, by: int) -> None:
        self.incarnation += 1
        self.said, self.counts, self.redacted = {}, {}, {}
        self.repositories[by].create_session(session())
        self.repositories[by].create_agent("s", session_agent(born=self.incarnation))
        self.born = self.now

    @rule(by=who, fault=faults, after=pauses)
    def append(self, by: int, fault: Fault | None, after: float) -> None:
        """A message is appended."""
        self.now += after
        self.number += 1
        text = f"{self.incarnation}:{self.number}"
        self.next_fault = fault
        if self._went_well(
            lambda: self.repositories[by].create_message(
                "s", "a", session_message(text, self._next_id())
            )
        ):
            self.said[text] = self.now

    def _next_id(self) -> int:
        sql = "SELECT coalesce(max(message_id), -1) + 1 AS next FROM strands_messages"
        return int(self.database.query(sql)["data"][0]["next"])

    @rule(by=who, fault=faults, after=pauses)
    def count_up(self, by: int, fault: Fault | None, after: float) -> None:
        """A repository counts up a key of its own in the agent's state."""
        self.now += after
        repository = self.repositories[by]
        agent = repository.read_agent("s", "a")
        if agent is None:
            return
        self.number += 1
        agent.state[f"k{by}"] = self.number
        self.next_fault = fault
        if self._went_well(lambda: repository.update_agent("s", agent)):
            self.counts.setdefault(f"k{by}", {})[self.number] = self.now

    @rule(by=who, fault=faults, after=pauses)
    def redact(self, by: int, fault: Fault | None, after: float) -> None:
        """The first message is redacted."""
        self.now += after
        repository = self.repositories[by]
        if repository.read_agent("s", "a") is None:
            return
        message = next(iter(repository.list_messages("s", "a")), None)
        if message is None or message.redact_message is not None:
            return
        text = said([message.to_message()])[0]
        message.redact_message = user("[gone]")
        self.said.pop(text, None)  # from here on it may be there or not
        self.next_fault = fault
        if self._went_well(lambda: repository.update_message("s", "a", message)):
            self.redacted[text] = self.now

    def _went_well(self, write: Callable[[], object]) -> bool:
        try:
            write()
        except PerSQLError:
            return False
        return True

    @rule(by=who)
    def make_anew(self, by: int) -> None:
        """The session is deleted and made again."""
        self.repositories[by].delete_session("s")
        self._create(by)

    @rule(by=who)
    def read(self, by: int) -> None:
        """Reading without an opening fills the cache, and may be as old as it likes."""
        self.repositories[by].read_agent("s", "a")
        self.repositories[by].read_message("s", "a", 0)

    @rule()
    def stragglers_arrive(self) -> None:
        """What is late arrives."""
        self.faulty.deliver_late()

    @rule(by=who, after=pauses)
    def open(self, by: int, after: float) -> None:
        """An opened session lacks nothing that was acknowledged longer ago than it may."""
        self.now += after
        repository, fresh = self.repositories[by], PerSQLSessionRepository(self.database)
        limit = self.now - self.STALENESS[by]

        def must_be_there(at: float) -> bool:
            return at < limit or at == limit == self.now

        assert repository.read_session("s") is not None or not must_be_there(self.born)
        agent = repository.read_agent("s", "a")
        if agent is None or agent.state["born"] != self.incarnation:
            assert not must_be_there(self.born)
            return
        for key, values in self.counts.items():
            known = [value for value, at in values.items() if must_be_there(at)]
            assert agent.state.get(key, 0) >= max(known, default=0)
        messages = repository.list_messages("s", "a")
        texts = said(one.to_message() for one in messages)
        assert {text for text, at in self.said.items() if must_be_there(at)} <= set(texts)
        assert not {text for text, at in self.redacted.items() if must_be_there(at)} & set(texts)
        assert {one.message_id for one in messages} <= {
            one.message_id for one in fresh.list_messages("s", "a")
        }
        if self.STALENESS[by] == 0:
            assert agent == fresh.read_agent("s", "a")
            assert messages == fresh.list_messages("s", "a")


@pytest.mark.timeout(0)
def test_no_stale_read_can_be_produced() -> None:
    """No sequence of writes, faults and passing time makes an open older than it may be."""
    default = hypothesis.settings()
    more = hypothesis.settings(
        max_examples=10 * default.max_examples,
        stateful_step_count=2 * default.stateful_step_count,
    )
    run_state_machine_as_test(Opening, settings=more)


def test_without_staleness_each_open_asks() -> None:
    """A clock that stands still between two opens, as coarse ones do, makes none of them stale."""
    with LocalDatabase() as database:
        repository = PerSQLSessionRepository(database, clock=lambda: 100.0)
        other = PerSQLSessionRepository(database)
        other.create_session(session())
        other.create_agent("s", session_agent(n=0))
        repository.read_session("s")
        other.create_message("s", "a", session_message("new", 0))
        repository.read_session("s")
        assert len(repository.list_messages("s", "a")) == 1


def test_the_clock_decides() -> None:
    """An open asks nobody up to its staleness, and the database as soon as that is over."""
    now = 100.0
    with LocalDatabase() as database:
        repository = PerSQLSessionRepository(database, max_staleness=10, clock=lambda: now)
        repository.create_session(session())
        repository.read_session("s")
        asked = repository.stats().round_trips
        for seconds, requests in [(1, 0), (9.9, 0), (10.1, 1), (20, 1), (20.2, 2)]:
            now = 100.0 + seconds
            repository.read_session("s")
            assert (seconds, repository.stats().round_trips - asked) == (seconds, requests)
