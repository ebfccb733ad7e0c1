"""Moving, checking and showing long sessions: times against plain scripts, and memory."""

import json
import resource
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from strands_persql import LocalDatabase, PerSQLSessionRepository
from tests.benchmarks.conftest import Report
from tests.benchmarks.workload import AGENT_ID, seed
from tests.support.conversation import session, session_agent

MESSAGES = 100_000
MEGABYTE = 1_000_000


def filled(path: Path, sessions: int, messages: int) -> Path:
    """Write sessions that hold so many messages in all."""
    with LocalDatabase(path) as database:
        repository = PerSQLSessionRepository(database)
        for number in range(sessions):
            repository.create_session(session(f"s{number:05}"))
            repository.create_agent(f"s{number:05}", session_agent(AGENT_ID))
            seed(database, f"s{number:05}", messages // sessions)
    return path


def plain_script(source: Path, archive: Path, target: Path) -> None:
    """Write each row as a line of JSON, and read the lines back into another file."""
    old = sqlite3.connect(source)
    old.row_factory = sqlite3.Row
    with archive.open("w", encoding="utf-8") as file:
        for table in ("sessions", "agents", "messages"):
            for row in old.execute(f"SELECT * FROM strands_{table}"):
                fields = {**dict(row), "data": json.loads(row["data"])}
                file.write(json.dumps({"table": table, **fields}, ensure_ascii=False) + "\n")
    old.close()
    with LocalDatabase(target) as database:
        PerSQLSessionRepository(database).setup()
    new = sqlite3.connect(target)
    new.execute("PRAGMA synchronous = FULL")
    with archive.open(encoding="utf-8") as file:
        for line in file:
            fields = json.loads(line)
            table = fields.pop("table")
            fields["data"] = json.dumps(fields["data"], ensure_ascii=False)
            marks = ", ".join("?" * len(fields))
            new.execute(
                f"INSERT INTO strands_{table} ({', '.join(fields)}) VALUES ({marks})",
                [*fields.values()],
            )
    new.commit()
    new.close()


OURS = """
import sys
from strands_persql import LocalDatabase
from strands_persql.admin import SessionAdmin
source, archive, target = sys.argv[1:]
with LocalDatabase(source) as database:
    SessionAdmin(database).export_archive(archive)
with LocalDatabase(target) as database:
    print(SessionAdmin(database).import_archive(archive).messages)
"""
CHECK = """
import sys
from strands_persql import LocalDatabase
from strands_persql.admin import SessionAdmin
with LocalDatabase(sys.argv[1]) as database:
    print(len([*SessionAdmin(database).check()]))
"""
_MEMORY = """
import resource
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def in_a_process(program: str, *arguments: Path) -> tuple[str, float, int]:
    """Run a program, and give what it prints, its processor time and its memory in bytes."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    ran = subprocess.run(
        [sys.executable, "-c", program + _MEMORY, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=600,
        check=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    printed, memory = ran.stdout.split()
    return printed, used, int(memory) * 1_024


def processor_time(act: Callable[[], None]) -> float:
    """Give the processor time of a call."""
    before = time.process_time()
    act()
    return time.process_time() - before


@pytest.mark.benchmark
@pytest.mark.timeout(600)
@pytest.mark.parametrize("sessions", [1, 1_000])
def test_an_archive_takes_at_most_twice_a_plain_script(
    tmp_path: Path, report: Report, sessions: int
) -> None:
    """Export and import of 100,000 messages take 2 times a plain script's time, and 200 MB."""
    source = filled(tmp_path / "source.db", sessions, MESSAGES)
    plain = processor_time(
        lambda: plain_script(source, tmp_path / "plain.jsonl", tmp_path / "plain.db")
    )

    printed, used, memory = in_a_process(
        OURS, source, tmp_path / "ours.jsonl", tmp_path / "ours.db"
    )
    _, idle, _ = in_a_process("import strands_persql; print(0)")

    what = f"export and import of {MESSAGES:,} messages in {sessions:,} sessions"
    assert int(printed) == MESSAGES
    report(f"{what} / a plain script", (used - idle) / plain, at_most=2)
    report(f"{what}, in MB", memory / MEGABYTE, at_most=200)


@pytest.mark.benchmark
@pytest.mark.timeout(600)
def test_a_check_streams(tmp_path: Path, report: Report) -> None:
    """A check of 100,000 messages takes less than 200 MB."""
    source = filled(tmp_path / "source.db", 1, MESSAGES)

    printed, _, memory = in_a_process(CHECK, source)

    assert printed == "0"
    report(f"check of {MESSAGES:,} messages, in MB", memory / MEGABYTE, at_most=200)


@pytest.mark.benchmark
def test_a_long_transcript_begins_at_once(tmp_path: Path, report: Report) -> None:
    """``show`` of 10,000 messages begins half a second after the program is there."""
    source = filled(tmp_path / "source.db", 1, 10_000)
    command = [sys.executable, "-m", "strands_persql"]

    def first_line(*arguments: str) -> float:
        began = time.perf_counter()
        with subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            seen = b""
            while b"user" not in seen and b"strands-persql" not in seen:
                line = process.stdout.readline()
                assert line
                seen += line
            took = time.perf_counter() - began
            process.kill()
        return took

    starting = min(first_line("--version") for _ in range(3))
    showing = min(first_line("show", "s00000", "--local", str(source)) for _ in range(3))

    report(
        "show of 10,000 messages, first line behind the start, in s",
        showing - starting,
        at_most=0.5,
    )
