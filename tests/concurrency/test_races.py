"""Racers that begin at once: of conditional writers one wins, of merging ones nobody loses."""

from collections import Counter
from collections.abc import Callable
from functools import partial
from multiprocessing.synchronize import Barrier
from typing import Any

import pytest
from strands.types.session import Session, SessionAgent

from strands_persql import (
    ConflictError,
    Database,
    PerSQLSessionManager,
    PerSQLSessionRepository,
)
from strands_persql.errors import AlreadyExistsError
from strands_persql.testing import ScriptedModel
from tests.concurrency.checker import Tables, check_blocks, check_rows, read_tables
from tests.support.backends import Address, Backend
from tests.support.conversation import session, stored
from tests.support.racing import race, race_processes

RACERS = 4
ROUNDS = 8
"""How often each race is run."""


def tables(backend: Backend, session_id: str = "s") -> Tables:
    """Read the rows behind everybody's back."""
    return read_tables(lambda sql, params: backend.raw(sql, *params), session_id, "a")


def opened(repository: PerSQLSessionRepository) -> SessionAgent:
    """Read the agent as the database has it now."""
    repository.read_session("s")
    agent = repository.read_agent("s", "a")
    assert agent is not None
    return agent


def talker(database: Database, session_id: str) -> Any:
    """Open a session, new or not, and make an agent of it that always has an answer."""
    manager = PerSQLSessionManager(session_id, database)
    return Backend(database).agent(manager=manager, model=ScriptedModel(lambda _: "answer"))


def assert_whole(found: Tables, turns: int) -> None:
    """See that there is one session and one agent, and that each turn is whole and a block."""
    assert [*check_rows(found), *check_blocks(found.messages)] == []
    assert Counter(Counter(row["turn"] for row in found.messages).values()) == {2: turns}


@pytest.mark.backends("file", "http")
class TestThreads:
    """Racers in one process."""

    @pytest.fixture(params=["one repository", "a repository each"])
    def racers(
        self, request: pytest.FixtureRequest, backend: Backend
    ) -> Callable[..., list[PerSQLSessionRepository]]:
        """Make the racers' repositories, with an agent that is there already."""

        def make(**options: Any) -> list[PerSQLSessionRepository]:
            stored(backend)
            if request.param == "one repository":
                return [PerSQLSessionRepository(backend.connect(), **options)] * RACERS
            return [PerSQLSessionRepository(backend.connect(), **options) for _ in range(RACERS)]

        return make

    @pytest.mark.guarantee(number=5)
    def test_one_wins_each_version(
        self, racers: Callable[..., list[PerSQLSessionRepository]], backend: Backend
    ) -> None:
        """Of writers that expect one version, one writes, and the others are told what they met."""
        repositories = racers(on_conflict="raise")
        for version in range(1, ROUNDS + 1):
            agents = [opened(repository) for repository in repositories]
            for number, agent in enumerate(agents):
                agent.state["winner"] = [version, number]
            outcomes = race(
                [
                    partial(repository.update_agent, "s", agent)
                    for repository, agent in zip(repositories, agents, strict=True)
                ]
            )

            winners = [number for number, outcome in enumerate(outcomes) if outcome is None]
            losers = [outcome for outcome in outcomes if isinstance(outcome, ConflictError)]
            assert (len(winners), len(losers)) == (1, RACERS - 1)
            assert {(one.expected_version, one.found_version) for one in losers} == {
                (version, version + 1)
            }
            assert tables(backend).agents[0]["version"] == version + 1
            assert opened(repositories[0]).state == {"winner": [version, winners[0]]}

    @pytest.mark.guarantee(number=6)
    def test_merging_loses_nobody(
        self, racers: Callable[..., list[PerSQLSessionRepository]], backend: Backend
    ) -> None:
        """Where writers merge, each one's increments of a key of its own are all there."""
        repositories = racers(on_conflict="merge")

        def count_up(number: int) -> None:
            for _ in range(ROUNDS):
                agent = opened(repositories[number])
                agent.state[f"k{number}"] = agent.state.get(f"k{number}", 0) + 1
                repositories[number].update_agent("s", agent)

        outcomes = race([partial(count_up, number) for number in range(RACERS)])

        assert outcomes == [None] * RACERS
        assert opened(repositories[0]).state == {f"k{number}": ROUNDS for number in range(RACERS)}
        assert tables(backend).agents[0]["version"] == 1 + RACERS * ROUNDS

    @pytest.mark.guarantee(number=11)
    def test_one_creates_a_session(self, backend: Backend) -> None:
        """Of racers that create one session, one does, and the others are told that it is there."""
        repositories = [PerSQLSessionRepository(backend.connect()) for _ in range(RACERS)]
        for number in range(ROUNDS):
            outcomes = race(
                [partial(one.create_session, session(f"s{number}")) for one in repositories]
            )

            kinds = Counter(type(outcome) for outcome in outcomes)
            assert kinds == {Session: 1, AlreadyExistsError: RACERS - 1}

    @pytest.mark.guarantee(number=11)
    def test_agents_open_a_new_session_at_once(self, backend: Backend) -> None:
        """Of agents that open a new session at once one creates it, and all go on with its rows."""
        databases = [backend.connect() for _ in range(RACERS)]

        def talk(database: Database, session_id: str) -> None:
            agent = talker(database, session_id)
            agent("hello")
            agent("again")

        for number in range(ROUNDS):
            outcomes = race([partial(talk, one, f"s{number}") for one in databases])

            assert outcomes == [None] * RACERS
            assert_whole(tables(backend, f"s{number}"), turns=2 * RACERS)


def update(address: Address, number: int, barrier: Barrier, report: Any) -> None:
    """Expect the same version as the others, again and again, and report who was let through."""
    with address.open() as database:
        repository = PerSQLSessionRepository(database, on_conflict="raise")
        for _ in range(ROUNDS):
            agent = opened(repository)
            agent.state["winner"] = number
            barrier.wait()
            try:
                repository.update_agent("s", agent)
                report(number)
            except ConflictError:
                report(None)
            barrier.wait()


def merge(address: Address, number: int, barrier: Barrier, report: Any) -> None:
    """Count under a key of one's own while the others do."""
    with address.open() as database:
        repository = PerSQLSessionRepository(database)
        agent = opened(repository)
        barrier.wait()
        for count in range(1, ROUNDS + 1):
            agent.state[f"k{number}"] = count
            repository.update_agent("s", agent)
            report(number)


def open_new(address: Address, number: int, barrier: Barrier, report: Any) -> None:
    """Open one new session after the other at the moment at which the others do."""
    with address.open() as database:
        for round_number in range(ROUNDS):
            barrier.wait()
            agent = talker(database, f"s{round_number}")
            agent(f"hello from {number}")
            barrier.wait()
            agent(f"again from {number}")
            report(len(agent.messages))


@pytest.mark.backends("file")
class TestProcesses:
    """Racers that share nothing but a file."""

    @pytest.mark.guarantee(number=5)
    def test_one_wins_each_version(self, backend: Backend) -> None:
        """Of processes that expect one version, one writes."""
        stored(backend)
        reports = race_processes(update, RACERS, backend.address)

        winners = [report for report in reports if report is not None]
        assert (len(winners), len(reports)) == (ROUNDS, RACERS * ROUNDS)
        assert tables(backend).agents[0]["version"] == 1 + ROUNDS

    @pytest.mark.guarantee(number=6)
    def test_merging_loses_nobody(self, backend: Backend) -> None:
        """Where processes merge, each one's increments of a key of its own are all there."""
        stored(backend)
        reports = race_processes(merge, RACERS, backend.address)

        assert len(reports) == RACERS * ROUNDS
        assert opened(backend.repository()).state == {f"k{one}": ROUNDS for one in range(RACERS)}
        assert tables(backend).agents[0]["version"] == 1 + RACERS * ROUNDS

    @pytest.mark.guarantee(number=11)
    def test_two_open_a_new_session_at_once(self, backend: Backend) -> None:
        """Of two processes that open a new session one creates it; both go on with its rows."""
        # The tables aren't there yet: they create those at once too.
        reports = race_processes(open_new, 2, backend.address)

        assert len(reports) == 2 * ROUNDS
        assert set(reports) <= {6, 7, 8}  # each knew the other's first turn when it took its second
        for number in range(ROUNDS):
            assert_whole(tables(backend, f"s{number}"), turns=4)
