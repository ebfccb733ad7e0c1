"""Many writers on one session, while all that can go wrong goes wrong; then the tables are judged.

By hand, at any size::

    python -m tests.concurrency.torture --operations 10000 --writers 8 --database file \
        --faults --kill --commit message --seed 1

Each writer is a process (or one of a process's threads) that calls a real agent: plain turns,
turns with tools that count in the agent's state, redactions, models that fail half-way, restarts.
Writers also change what their agents have in memory: they edit, drop and pin messages, go back to
earlier points, and have older messages summarized or trimmed; and they go on with turns that
stopped, because the model failed or because a tool has asked for leave.
All of them share one session and one agent. Requests are lost before and after they were
applied, doubled and delayed, and writers are killed with SIGKILL and started again.
"""

import argparse
import contextlib
import multiprocessing
import random
import sqlite3
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from strands_persql import RestError, Value
from tests.concurrency.checker import Query, Row, Violation, check, check_blocks, read_tables
from tests.concurrency.journal import Entry, read_journal
from tests.concurrency.writer import (
    AGENT,
    SESSION,
    Settings,
    Weather,
    look_at_rest,
    run_process,
)
from tests.engine.engine import Engine
from tests.engine.proxy import FaultProxy, Request
from tests.support.backends import Address
from tests.support.racing import PATIENCE

_OUTAGE = (
    "500_before",
    "500_after",
    "429:0.01",
    "cut_answer",
    "close_before",
    "close_after",
    "reset_after",
    "not_json",
    "not_json_before",
)
_FAULTS = (
    *_OUTAGE,
    "duplicate",
    "duplicate_first",
    "delay_duplicate:1",
    "delay_duplicate:7",
    "latency:0.8",
    "latency_after:0.8",
)
_WATCHED = 200  # messages that the watch looks at, from the end on


@dataclass
class Report:
    """What a run came to."""

    settings: Settings
    seconds: float
    violations: list[Violation]
    figures: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        rate = self.figures["turns"] / self.seconds
        lines = [f"{count:>8} {name}" for name, count in sorted(self.figures.items()) if count]
        lines += [f"{self.seconds:8.1f} seconds, {rate:.1f} turns a second"]
        lines += [f"VIOLATION {violation}" for violation in self.violations[:50]]
        lines += [f"{len(self.violations)} violations"]
        return "\n".join(lines)


def torture(settings: Settings, *, engine: Engine | None = None) -> Report:
    """Run writers until their operations are done, and judge what they left.

    Args:
        settings: What to run. Where its folder has journals of an earlier run, that goes on.
        engine: The engine to run over, or None for a file.
    """
    began = time.monotonic()
    with _opened(settings, engine) as (told, query, settle):
        run = _Run(told, query, began + settings.limit)
        run.drive()
        seconds = time.monotonic() - began
        settle()
        tables = read_tables(query, SESSION, AGENT)
        rest = look_at_rest(told)
    writers = range(settings.writers * settings.threads)
    journals = {number: read_journal(settings.journal(number)) for number in writers}
    found = check(tables, journals, commit=settings.commit, rest=rest)
    figures = run.figures + _figures(journals)
    figures["messages stored"] = len(tables.messages)
    figures["versions of the agent"] = tables.agents[0]["version"] if tables.agents else 0
    return Report(settings, seconds, [*run.violations, *found], figures)


class _Run:
    """Starts writers, kills them, starts them again, and looks at the tables meanwhile."""

    def __init__(self, settings: Settings, query: Query, deadline: float) -> None:
        self.violations: list[Violation] = []
        self.figures: Counter[str] = Counter()
        self._settings, self._query, self._deadline = settings, query, deadline
        self._chance = random.Random(settings.seed)  # noqa: S311 - repeatable
        self._context = multiprocessing.get_context("spawn")
        self._lives: Counter[int] = Counter()
        self._written: dict[int, int] = {}  # sizes of journals as their processes' lives began
        self._running: dict[int, Any] = {}
        self._last: Row | None = None

    def drive(self) -> None:
        """Run until every writer is at its end."""
        for process in range(self._settings.writers):
            self._start(process)
        kill_at: float | None = None
        watch_at = time.monotonic() + 0.5
        try:
            while self._running:
                time.sleep(0.02)
                self._bury()
                now = time.monotonic()
                if now > self._deadline:
                    self._complain("crash", f"writers {list(self._running)} don't come to an end")
                    return
                if kill_at is None and self._settings.kill and self._settings.journal(0).exists():
                    kill_at = now + min(self._pause(), 0.3)  # even a short run has one
                if kill_at is not None and now > kill_at:
                    kill_at = now + self._pause()
                    self._kill()
                if now > watch_at:
                    watch_at = now + 0.3
                    self._watch()
        finally:
            for one in self._running.values():
                one.kill()
                one.join(PATIENCE)

    def _pause(self) -> float:
        return self._chance.expovariate(1 / self._settings.kill_every)

    def _start(self, process: int) -> None:
        one = self._context.Process(
            target=run_process, args=(self._settings, process, self._lives[process])
        )
        one.start()
        self._written[process] = self._size(process)
        self._lives[process] += 1
        self._running[process] = one

    def _kill(self) -> None:
        """Kill a process that has done something since it began, so that all come to their end."""
        found = [one for one in sorted(self._running) if self._size(one) > self._written[one]]
        if found:
            self._running[self._chance.choice(found)].kill()

    def _size(self, process: int) -> int:
        journal = self._settings.journal(process * self._settings.threads)
        return journal.stat().st_size if journal.exists() else 0

    def _bury(self) -> None:
        for process, one in list(self._running.items()):
            if one.is_alive():
                continue
            del self._running[process]
            code = one.exitcode
            one.close()
            if code == 0:
                continue
            if code == -9:
                self.figures["kills"] += 1
            else:
                self._complain("crash", f"the process of writer {process} ended with {code}")
            if code == -9 or self._lives[process] < 3:
                self._start(process)

    def _watch(self) -> None:
        """Look at the newest messages, which must be in order at any moment, and at the version."""
        try:
            tables = read_tables(self._query, SESSION, AGENT, newest=_WATCHED)
        except (sqlite3.OperationalError, RestError):
            return  # there are no tables yet
        self.figures["looks at the tables meanwhile"] += 1
        # The stretch begins anywhere, in the middle of a turn too.
        self.violations += check_blocks(tables.messages)
        for row in tables.agents:
            last, self._last = self._last, row
            if last is None:
                continue
            for column in ("version", "epoch"):
                if row[column] < last[column]:
                    self._complain("version", f"{column} {row[column]} after {last[column]}")
            if (row["created_at"], row["write_id"]) != (last["created_at"], last["write_id"]):
                self._complain("creation time", f"{row['created_at']} was {last['created_at']}")

    def _complain(self, kind: Any, what: str) -> None:
        self.violations.append(Violation(kind, what))


@contextlib.contextmanager
def _opened(settings: Settings, engine: Engine | None) -> Iterator[Any]:
    """Give the settings with the database's address, what reads it, and what ends late copies."""
    if engine is None:
        yield settings, _sqlite_query(settings.file), lambda: None
        return
    name = f"acme/t-{uuid.uuid4().hex[:12]}"
    with FaultProxy(engine.base_url, strip_idempotency_key=True) as proxy:
        if settings.faults:
            proxy.script = _script(proxy, settings)
        told = Address(proxy.base_url, name, engine.token())
        with (
            Address(engine.base_url, name, engine.token()).open() as database,
            told.open() as through,
        ):

            def query(sql: str, params: Sequence[Value]) -> list[dict[str, Any]]:
                return list(database.query(sql, params)["data"])

            def settle() -> None:
                proxy.script = None
                time.sleep(1.0)  # for what is held up on its way
                for _ in range(10):
                    through.query("SELECT 1")

            yield replace(settings, hosted=told), query, settle


def _sqlite_query(path: Path) -> Query:
    def query(sql: str, params: Sequence[Value]) -> list[dict[str, Any]]:
        if not path.exists():
            raise sqlite3.OperationalError(f"{path} isn't there")
        with contextlib.closing(sqlite3.connect(path, timeout=10.0)) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(sql, params)]

    return query


def _script(proxy: FaultProxy, settings: Settings) -> Any:
    chance = random.Random(settings.seed)  # noqa: S311 - repeatable
    weather = Weather(chance, _FAULTS, _OUTAGE, longest=100 * settings.writers)

    def choose(request: Request) -> Any:
        # The proxy remembers every request, which a long run has too many of.
        del proxy.requests[:-1000]
        return weather(request)

    return choose


def _figures(journals: dict[int, list[Entry]]) -> Counter[str]:
    figures: Counter[str] = Counter()
    for entries in journals.values():
        for entry in entries:
            kind = entry["kind"]
            if kind in ("failed", "crashed"):
                figures[f"calls that raised {entry['error']}" if kind == "failed" else kind] += 1
            elif kind == "started":
                figures["restarts"] += 1
            elif kind == "turn":
                figures["turns"] += 1
            elif kind == "ran":
                figures["increments"] += 1
            elif kind == "acknowledged":
                figures["messages acknowledged"] += len(entry["tokens"])
    return figures


def _settings(arguments: Sequence[str] | None, folder: Path) -> tuple[Settings, str]:
    parser = argparse.ArgumentParser(prog="python -m tests.concurrency.torture")
    parser.add_argument("--operations", type=int, default=1000)
    parser.add_argument("--writers", type=int, default=8, help="processes")
    parser.add_argument("--threads", type=int, default=1, help="writers in each process")
    parser.add_argument("--database", choices=["file", "engine"], default="file")
    parser.add_argument("--faults", action="store_true")
    parser.add_argument("--kill", action="store_true")
    parser.add_argument("--kill-every", type=float, default=2.0, help="seconds, on average")
    parser.add_argument("--commit", choices=["message", "turn"], default="message")
    parser.add_argument("--on-conflict", choices=["merge", "raise"], default="merge")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--window", type=int, default=40, help="messages in an agent's memory")
    parser.add_argument("--management", choices=["window", "summaries"], default="window")
    parser.add_argument("--plain", dest="memory", action="store_false", help="leave memory alone")
    parser.add_argument("--unasked", dest="interrupts", action="store_false", help="no interrupts")
    parser.add_argument("--limit", type=float, default=3600.0, help="seconds")
    parser.add_argument("--folder", type=Path, help="where to leave the file and the journals")
    chosen = vars(parser.parse_args(arguments))
    database = chosen.pop("database")
    kept = chosen.pop("folder")
    if kept is not None:
        kept.mkdir(parents=True, exist_ok=True)
    return Settings(folder=kept or folder, **chosen), database


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the arguments say, and say what came of it; 1 if anything was wrong."""
    with tempfile.TemporaryDirectory(prefix="torture-") as folder:
        settings, database = _settings(arguments, Path(folder))
        if database == "engine":
            with Engine() as engine:
                report = torture(settings, engine=engine)
        else:
            report = torture(settings)
    sys.stdout.write(f"{report}\n")
    return 1 if report.violations else 0


if __name__ == "__main__":
    sys.exit(main())
