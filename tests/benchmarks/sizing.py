"""Prints what one hosted database carries, as Markdown: `python -m tests.benchmarks.sizing`.

Turns are recorded on a file and replayed on the hosted database's engine. What a request takes is
the engine's own processor time, as a ratio to that of the smallest request there is, `SELECT 1`.
What rows and bytes a database grows by is counted. It needs Linux, which tells a process's time.
"""

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeAlias

from strands_persql import (
    Database,
    LocalDatabase,
    PerSQLSessionManager,
    PerSQLSessionRepository,
    RestClient,
    Statement,
)
from strands_persql.testing import CountingDatabase
from tests.benchmarks.workload import new_agent
from tests.engine.engine import Engine

Requests: TypeAlias = list[Sequence[Statement]]
SMALLEST: Sequence[Statement] = ({"sql": "SELECT 1"},)
SESSIONS = 300
COMMITS: tuple[Literal["message", "turn"], ...] = ("message", "turn")
PROMPTS = {"a plain turn": "Hello.", "a tool turn": "Please note."}


def record(prompt: str, commit: Literal["message", "turn"], prefix: str) -> list[list[Requests]]:
    """Return the requests of each session's first two turns, their opens included."""
    recorded: list[list[Requests]] = []
    with LocalDatabase() as local:
        PerSQLSessionRepository(local).setup()
        counting = CountingDatabase(local)
        for number in range(SESSIONS):
            turns: list[Requests] = []
            for _ in range(2):
                counting.reset()
                with PerSQLSessionManager(f"{prefix}-{number}", counting, commit=commit) as manager:
                    new_agent(manager)(prompt)
                turns.append(list(counting.log))
            recorded.append(turns)
    return recorded


def ticks(engine: Engine, database: Database, work: list[Requests]) -> int:
    """Return the engine's processor time for lists of requests, in the system's ticks."""

    def used() -> int:
        fields = Path(f"/proc/{engine.pid}/stat").read_text("utf-8").rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])  # in its own code, and in the system for it

    before = used()
    for requests in work:
        for request in requests:
            database.batch(request, transaction=True)
    return used() - before


def ratio(
    engine: Engine, name: str, prompt: str, commit: Literal["message", "turn"], runs: int
) -> tuple[int, float]:
    """Return a turn's requests, and how many smallest requests' time one of them takes."""
    ratios = []
    with RestClient(engine.token(), base_url=engine.base_url) as client:
        database = client.database(name)
        PerSQLSessionRepository(database).setup()
        for run in range(runs):
            recorded = record(prompt, commit, f"{commit}-{run}")
            ticks(engine, database, [first for first, _ in recorded])
            turns = [second for _, second in recorded]
            smallest: list[Requests] = [[SMALLEST] * len(turn) for turn in turns]
            took = ticks(engine, database, turns)
            ratios.append(took / max(1, ticks(engine, database, smallest)))
    return len(turns[0]), statistics.median(ratios)


def growth(engine: Engine, name: str, prompt: str) -> tuple[int, int]:
    """Return the rows and bytes that a turn adds to a database."""
    with RestClient(engine.token(), base_url=engine.base_url) as client:
        database = client.database(name)
        repository = PerSQLSessionRepository(database)

        def size() -> tuple[int, int]:
            parts = [
                database.query(
                    f"SELECT count(*) AS n, coalesce(sum(length(CAST(data AS BLOB))), 0) AS size"
                    f" FROM strands_{table}"
                )["data"][0]
                for table in ("sessions", "agents", "messages")
            ]
            return sum(one["n"] for one in parts), sum(one["size"] for one in parts)

        with PerSQLSessionManager("s", repository=repository) as manager:
            agent = new_agent(manager)
            agent(prompt)
            before = size()
            for _ in range(10):
                agent(prompt)
            after = size()
    return (after[0] - before[0]) // 10, (after[1] - before[1]) // 10


def rows_to_open(engine: Engine, name: str, sessions: int) -> int:
    """Return the rows that the open of one session reads, in a database of many."""
    with RestClient(engine.token(), base_url=engine.base_url) as client:
        database = client.database(name)
        repository = PerSQLSessionRepository(database)
        repository.setup()
        with PerSQLSessionManager("s-0", repository=repository) as manager:
            new_agent(manager)("Hello.")
        for table in ("sessions", "agents", "messages"):
            described = database.query(f"SELECT name FROM pragma_table_info('strands_{table}')")
            names = [row["name"] for row in described["data"] if row["name"] != "session_id"]
            columns = ", ".join(names)
            database.query(
                f"INSERT INTO strands_{table} (session_id, {columns})"
                " WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i <"
                f" {sessions})"
                f" SELECT 's-' || n.i, {columns} FROM strands_{table}, n WHERE session_id = 's-0'"
            )
        fresh = PerSQLSessionRepository(database)
        fresh.read_session("s-0")
        return fresh.stats().rows_read


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.sizing", description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    with Engine() as engine:
        lines = [
            "| in a session that exists, its open included | requests | time | rows | bytes |",
            "| --- | ---: | ---: | ---: | ---: |",
        ]
        for label, prompt in PROMPTS.items():
            rows, size = growth(engine, f"acme/{label.replace(' ', '-')}", prompt)
            for commit in COMMITS:
                name = f"acme/{commit}-{label.replace(' ', '-')}"
                requests, took = ratio(engine, name, prompt, commit, runs)
                lines.append(
                    f'| {label}, `commit="{commit}"` | {requests} | {took:.1f} | {rows} | {size} |'
                )
        lines += ["", "| sessions in the database | rows that an open reads |", "| ---: | ---: |"]
        for sessions in (10, 1_000, 100_000):
            read = rows_to_open(engine, f"acme/many-{sessions}", sessions)
            lines.append(f"| {sessions:,} | {read} |")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
