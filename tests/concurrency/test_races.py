"""Racers that begin at once: of conditional writers one wins, of merging ones nobody loses."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from strands.types.session import Session, SessionAgent, SessionType

from strands_persql import (
    ConflictError,
    Database,
    LocalDatabase,
    PerSQLSessionManager,
    PerSQLSessionRepository,
    RestClient,
)
from strands_persql.errors import AlreadyExistsError
from tests.concurrency.checker import Tables, check_blocks, check_rows, read_tables
from tests.concurrency.racers import (
    ROUNDS,
    agent_of,
    opened,
    race,
    race_to_merge,
    race_to_open,
    race_to_update,
    run_processes,
)

RACERS = 4
Connect = Callable[[], Database]


@pytest.fixture(params=["file", "engine"])
def connect(
    request: pytest.FixtureRequest, tmp_path: Path, database_name: str
) -> Iterator[Connect]:
    """Make handles of one database, each with connections of its own."""
    with ExitStack() as stack:
        if request.param == "file":
            yield lambda: stack.enter_context(LocalDatabase(tmp_path / "race.db"))
            return
        engine = request.getfixturevalue("engine")

        def connect_over_http() -> Database:
            client = RestClient(engine.token(), base_url=engine.base_url)
            return stack.enter_context(client).database(database_name)

        yield connect_over_http


@pytest.fixture(params=["one repository", "a repository each"])
def repositories(
    request: pytest.FixtureRequest, connect: Connect
) -> Callable[..., list[PerSQLSessionRepository]]:
    """Make the racers' repositories, with an agent that is there already."""

    def make(**options: Any) -> list[PerSQLSessionRepository]:
        first = PerSQLSessionRepository(connect(), **options)
        first.create_session(Session("s", SessionType.AGENT))
        first.create_agent("s", SessionAgent("a", {}, {}))
        if request.param == "one repository":
            return [first] * RACERS
        return [first] + [PerSQLSessionRepository(connect(), **options) for _ in range(RACERS - 1)]

    return make


def stored(connect: Connect, session_id: str = "s") -> Tables:
    """Read the rows behind everybody's back."""
    database = connect()
    return read_tables(lambda sql, params: database.query(sql, params)["data"], session_id, "a")


class TestThreads:
    """Racers in one process."""

    def test_one_wins_each_version(
        self, repositories: Callable[..., list[PerSQLSessionRepository]], connect: Connect
    ) -> None:
        """Of writers that expect one version, one writes, and the others are told what they met."""
        racers = repositories(on_conflict="raise")
        for version in range(1, ROUNDS + 1):
            agents = [opened(repository) for repository in racers]
            for number, agent in enumerate(agents):
                agent.state["winner"] = [version, number]
            outcomes = race(
                [
                    partial(repository.update_agent, "s", agent)
                    for repository, agent in zip(racers, agents, strict=True)
                ]
            )

            winners = [number for number, outcome in enumerate(outcomes) if outcome is None]
            losers = [outcome for outcome in outcomes if isinstance(outcome, ConflictError)]
            assert (len(winners), len(losers)) == (1, RACERS - 1)
            assert {(one.expected_version, one.found_version) for one in losers} == {
                (version, version + 1)
            }
            assert stored(connect).agents[0]["version"] == version + 1
            assert opened(racers[0]).state == {"winner": [version, winners[0]]}

    def test_merging_loses_nobody(
        self, repositories: Callable[..., list[PerSQLSessionRepository]], connect: Connect
    ) -> None:
        """Where writers merge, each one's increments of a key of its own are all there."""
        racers = repositories(on_conflict="merge")

        def count_up(number: int) -> None:
            for _ in range(ROUNDS):
                agent = opened(racers[number])
                agent.state[f"k{number}"] = agent.state.get(f"k{number}", 0) + 1
                racers[number].update_agent("s", agent)

        outcomes = race([partial(count_up, number) for number in range(RACERS)])

        assert outcomes == [None] * RACERS
        assert opened(racers[0]).state == {f"k{number}": ROUNDS for number in range(RACERS)}
        assert stored(connect).agents[0]["version"] == 1 + RACERS * ROUNDS

    def test_one_creates_a_session(self, connect: Connect) -> None:
        """Of racers that create one session, one does, and the others are told that it is there."""
        racers = [PerSQLSessionRepository(connect()) for _ in range(RACERS)]
        for number in range(ROUNDS):
            session = f"s{number}"
            outcomes = race(
                [
                    partial(repository.create_session, Session(session, SessionType.AGENT))
                    for repository in racers
                ]
            )

            kinds = Counter(type(outcome) for outcome in outcomes)
            assert kinds == {Session: 1, AlreadyExistsError: RACERS - 1}

    def test_agents_open_a_new_session_at_once(self, connect: Connect) -> None:
        """Of agents that open a new session at once one creates it, and all go on with its rows."""
        databases = [connect() for _ in range(RACERS)]

        def talk(database: Database, session: str) -> None:
            agent = agent_of(PerSQLSessionManager(session, database))
            agent("hello")
            agent("again")

        for number in range(ROUNDS):
            session = f"s{number}"
            outcomes = race([partial(talk, one, session) for one in databases])

            assert outcomes == [None] * RACERS
            assert_whole(stored(connect, session), turns=2 * RACERS)


def assert_whole(tables: Tables, turns: int) -> None:
    """See that there is one session and one agent, and that each turn is whole and a block."""
    assert [*check_rows(tables), *check_blocks(tables.messages)] == []
    assert Counter(Counter(row["turn"] for row in tables.messages).values()) == {2: turns}


class TestProcesses:
    """Racers that share nothing but a file."""

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        """A file with an agent in it."""
        with LocalDatabase(tmp_path / "race.db") as database:
            repository = PerSQLSessionRepository(database)
            repository.create_session(Session("s", SessionType.AGENT))
            repository.create_agent("s", SessionAgent("a", {}, {}))
        return tmp_path / "race.db"

    def test_one_wins_each_version(self, path: Path) -> None:
        """Of processes that expect one version, one writes."""
        reports = run_processes(race_to_update, path, RACERS)

        with LocalDatabase(path) as database:
            tables = stored(lambda: database)
        winners = [report for report in reports if report is not None]
        assert len(winners) == ROUNDS
        assert tables.agents[0]["version"] == 1 + ROUNDS

    def test_merging_loses_nobody(self, path: Path) -> None:
        """Where processes merge, each one's increments of a key of its own are all there."""
        run_processes(race_to_merge, path, RACERS)

        with LocalDatabase(path) as database:
            agent = opened(PerSQLSessionRepository(database))
            tables = stored(lambda: database)
        assert agent.state == {f"k{number}": ROUNDS for number in range(RACERS)}
        assert tables.agents[0]["version"] == 1 + RACERS * ROUNDS

    def test_two_open_a_new_session_at_once(self, tmp_path: Path) -> None:
        """Of two processes that open a new session one creates it; both go on with its rows."""
        path = tmp_path / "new.db"  # without tables, which they create at once too
        reports = run_processes(race_to_open, path, 2)

        assert set(reports) <= {6, 8}  # each knew the other's first turn when it took its second
        with LocalDatabase(path) as database:
            for session in range(ROUNDS):
                assert_whole(stored(lambda: database, f"s{session}"), turns=4)
