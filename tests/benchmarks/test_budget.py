"""What each step may cost: these fail when one asks more of the database than its budget."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.benchmarks import sizing
from tests.benchmarks.workload import (
    FIRST_TURN,
    LONG_TURN,
    NEW,
    PLAIN_TURN,
    REOPEN,
    REOPEN_STALE,
    RESTORE,
    STEPS,
    TOOL_TURN,
    TRIMMED_TURN,
    UPDATE_AGENT,
    UPDATE_MESSAGE,
    Cost,
    Place,
    file_place,
    measure_reopening,
    measure_steps,
    measure_tool_turns,
    wire_place,
)
from tests.engine.engine import Engine

_OPENING = {NEW: 2, RESTORE: 1, REOPEN: 1, REOPEN_STALE: 0, UPDATE_AGENT: 1, UPDATE_MESSAGE: 1}
_TURNS = (FIRST_TURN, PLAIN_TURN, TOOL_TURN, TRIMMED_TURN, LONG_TURN)

ROUND_TRIPS = {
    "message": _OPENING | dict(zip(_TURNS, (2, 2, 4, 5, 12), strict=True)),
    "turn": _OPENING | dict.fromkeys(_TURNS, 1),
}
"""The most round trips of each step, by how turns are committed."""

BASELINE = {
    NEW: 7,
    RESTORE: 7,
    REOPEN: 7,
    REOPEN_STALE: 7,
    FIRST_TURN: 4,
    PLAIN_TURN: 2,
    TOOL_TURN: 6,
    TRIMMED_TURN: 8,
    LONG_TURN: 22,
    UPDATE_AGENT: 2,
    UPDATE_MESSAGE: 2,
}
"""The round trips of what ours are measured against, exactly: as 0.1 is described."""

USD_PER_MILLION_TOOL_TURNS = {"message": 15.0, "turn": 11.0}
ROWS_READ_PER_TOOL_TURN = 40
BYTES_DOWN_TO_REOPEN = 2_000
BYTES_UP_TO_REOPEN = 6_000

Costs = dict[str, Cost]


@pytest.fixture(scope="module", params=["file", "engine"])
def steps(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Costs]:
    """What each step cost, by system, on a file and on the wire."""
    costs: dict[str, Costs] = {}
    for system in ("baseline", *ROUND_TRIPS):
        if request.param == "file":
            with file_place(tmp_path_factory.mktemp("budget") / "agents.db") as place:
                costs[system] = measure_steps(system, place)
        else:
            engine = request.getfixturevalue("engine_process")
            with wire_place(engine.start(), f"acme/budget-{system}") as wire:
                costs[system] = measure_steps(system, wire)
    return costs


@pytest.fixture
def wire(engine: Engine, database_name: str) -> Iterator[Place]:
    """A database on the engine, with all that is asked of it counted on the wire."""
    with wire_place(engine, database_name) as place:
        yield place


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("commit", ROUND_TRIPS)
def test_a_step_takes_no_more_round_trips_than_it_may(
    steps: dict[str, Costs], commit: str, step: str
) -> None:
    """Each step of an agent's life stays within its budget of round trips."""
    assert steps[commit][step].round_trips <= ROUND_TRIPS[commit][step]


def test_the_baseline_is_what_0_1_is_described_to_be(steps: dict[str, Costs]) -> None:
    """What ours are measured against makes the round trips that 0.1 is described to make."""
    assert {step: cost.round_trips for step, cost in steps["baseline"].items()} == BASELINE


@pytest.mark.guarantee(number=16)
@pytest.mark.parametrize("window", [None, 40], ids=["all", "window"])
@pytest.mark.parametrize("commit", ROUND_TRIPS)
def test_a_tool_turn_costs_the_same_however_long_the_history_is(
    wire: Place, commit: str, window: int | None
) -> None:
    """A tool turn beyond 10,000 messages reads a few rows, as many as beyond 100."""
    near, far = (measure_tool_turns(commit, wire, size, window=window) for size in (100, 10_000))

    assert far.rows_read <= ROWS_READ_PER_TOOL_TURN
    assert (far.rows_read, far.rows_written) == (near.rows_read, near.rows_written)


@pytest.mark.parametrize("commit", ROUND_TRIPS)
def test_a_million_tool_turns_stay_within_their_price(wire: Place, commit: str) -> None:
    """At the published prices a million tool turns cost $15 at most, $11 if written at once."""
    cost = measure_tool_turns(commit, wire, 100)

    assert cost.usd * 1e6 <= USD_PER_MILLION_TOOL_TURNS[commit]


def test_opening_a_long_session_again_is_small(wire: Place) -> None:
    """Opening an unchanged session of 1,000 messages again brings 2 kB at the most, for 6 kB."""
    cost = measure_reopening(wire, 1_000)

    assert cost.round_trips == 1
    assert cost.bytes_down <= BYTES_DOWN_TO_REOPEN
    assert cost.bytes_up <= BYTES_UP_TO_REOPEN


def test_opening_a_session_again_reads_no_more_rows_the_longer_it_is(wire: Place) -> None:
    """Opening an unchanged session again reads a few rows, however long its history is."""
    assert measure_reopening(wire, 1_000).rows_read <= 10


def test_an_open_reads_the_same_rows_however_many_sessions_there_are(
    engine: Engine, database_name: str
) -> None:
    """One session's open reads as many rows beside 1,000 others as the page on sizing says."""
    page = Path(__file__).parents[2] / "docs" / "explanation" / "sizing.md"
    promised = re.findall(r"^\| [\d,]+ \| (\d+) \|$", page.read_text("utf-8"), re.MULTILINE)
    read = {sizing.rows_to_open(engine, f"{database_name}-{n}", n) for n in (10, 1_000)}

    assert {str(rows) for rows in read} == set(promised)


def test_a_turn_adds_a_row_for_each_message(engine: Engine, database_name: str) -> None:
    """A turn adds its messages to the database, and no other row."""
    added = {
        prompt: sizing.growth(engine, f"{database_name}-{number}", prompt)[0]
        for number, prompt in enumerate(sizing.PROMPTS.values())
    }

    assert [*added.values()] == [2, 4]


def test_the_baseline_costs_about_what_0_1_does(wire: Place) -> None:
    """A million of the baseline's tool turns cost between $18 and $28."""
    cost = measure_tool_turns("baseline", wire, 100)

    assert 18 <= cost.usd * 1e6 <= 28


def test_the_table_of_costs_can_be_made(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The program that prints the table prints a row for each step."""
    from tests.benchmarks import costs  # noqa: PLC0415 - a program, imported where it is run

    monkeypatch.setattr("sys.argv", ["costs"])
    costs.main()

    printed = capsys.readouterr().out
    assert all(step in printed for step in STEPS)
