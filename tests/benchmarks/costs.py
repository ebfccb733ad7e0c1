"""Prints what each step costs, as Markdown: `python -m tests.benchmarks.costs [--engine]`.

Without `--engine` the round trips to an embedded file are counted. With it all is counted on the
wire to the hosted database's engine, which must be installed (`make test` does that), and what
the service would bill is worked out from its published prices.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from tests.benchmarks.workload import (
    STEPS,
    SYSTEMS,
    Cost,
    file_place,
    measure_reopening,
    measure_steps,
    measure_tool_turns,
    wire_place,
)
from tests.engine.engine import Engine

_NAMES = {
    "baseline": "as 0.1",
    "message": '`commit="message"`',
    "turn": '`commit="turn"`',
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.costs", description=__doc__)
    parser.add_argument("--engine", action="store_true", help="count on the wire to the engine")
    if parser.parse_args().engine:
        with Engine() as engine:
            sys.stdout.write(_on_the_wire(engine))
    else:
        sys.stdout.write(_on_a_file())


def _on_a_file() -> str:
    costs: dict[str, dict[str, Cost]] = {}
    for system in SYSTEMS:
        with (
            tempfile.TemporaryDirectory() as folder,
            file_place(Path(folder) / "agents.db") as place,
        ):
            costs[system] = measure_steps(system, place)
    return _round_trips(costs)


def _on_the_wire(engine: Engine) -> str:
    costs: dict[str, dict[str, Cost]] = {}
    for system in SYSTEMS:
        with wire_place(engine, f"acme/steps-{system}") as place:
            costs[system] = measure_steps(system, place)
    return "\n".join([_round_trips(costs), _tool_turns(engine), _reopening(engine)])


def _round_trips(costs: dict[str, dict[str, Cost]]) -> str:
    return _table(
        ["round trips", *(_NAMES[system] for system in costs)],
        ([step, *(str(costs[system][step].round_trips) for system in costs)] for step in STEPS),
    )


def _tool_turns(engine: Engine) -> str:
    rows = []
    for window in (None, 40):
        for system in SYSTEMS:
            near, far = (_tool_turn(engine, system, history, window) for history in (100, 10_000))
            rows.append(
                [
                    _NAMES[system] + (", window of 40" if window else ""),
                    str(near.round_trips),
                    f"{near.rows_read} / {far.rows_read}",
                    f"{near.rows_written} / {far.rows_written}",
                    f"{near.bytes_up} / {far.bytes_up}",
                    f"{near.bytes_down} / {far.bytes_down}",
                    f"{near.usd * 1e6:.2f} / {far.usd * 1e6:.2f}",
                ]
            )
    return _table(
        [
            "a tool turn beyond 100 / 10,000 messages",
            "requests",
            "rows read",
            "rows written",
            "bytes up",
            "bytes down",
            "US dollars a million turns",
        ],
        rows,
    )


def _tool_turn(engine: Engine, system: str, history: int, window: int | None) -> Cost:
    with wire_place(engine, f"acme/turns-{system}-{history}-{window}") as place:
        return measure_tool_turns(system, place, history, window=window)


def _reopening(engine: Engine) -> str:
    rows = []
    for history in (10, 1_000, 5_000):
        with wire_place(engine, f"acme/reopened-{history}") as place:
            cost = measure_reopening(place, history)
        rows.append(
            [
                f"{history:,}",
                str(cost.round_trips),
                str(cost.rows_read),
                f"{cost.bytes_up:,}",
                str(cost.bytes_down),
            ]
        )
    return _table(
        [
            "messages of an unchanged session, opened again",
            "requests",
            "rows read",
            "bytes up",
            "bytes down",
        ],
        rows,
    )


def _table(head: list[str], rows: Iterable[list[str]]) -> str:
    ruler = ["---", *("---:" for _ in head[1:])]
    return "".join(f"| {' | '.join(row)} |\n" for row in (head, ruler, *rows))


if __name__ == "__main__":
    main()
