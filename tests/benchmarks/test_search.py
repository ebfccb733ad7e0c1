"""Searching a hundred thousand messages."""

import json
import random
import statistics
import string
import time
from pathlib import Path

import pytest

from strands_persql import LocalDatabase, PerSQLSessionRepository
from tests.benchmarks.conftest import Report
from tests.support.conversation import session, session_agent

MESSAGES = 100_000
SESSIONS = 1_000
WORDS = 60  # of a message

COMMON = ("the", "to", "of", "and", "in", "is", "it", "you", "that", "for", "on", "with", "as")

_INSERT = """
    INSERT INTO strands_messages (session_id, agent_id, message_id, data)
    SELECT json_extract(value, '$[0]'), 'a', json_extract(value, '$[1]'),
        json_object('message', json_object('role', 'user',
            'content', json_array(json_object('text', json_extract(value, '$[2]')))))
    FROM json_each(?)
"""


def vocabulary(draw: random.Random) -> list[str]:
    """Make words, of which each is said as often as its place says."""
    letters = string.ascii_lowercase
    made = ["".join(draw.choices(letters, k=draw.randint(4, 11))) for _ in range(20_000)]
    return [*COMMON, *made]


@pytest.mark.benchmark
def test_a_hundred_thousand_messages_are_searched(tmp_path: Path, report: Report) -> None:
    """A search of all of them takes less than 50 ms on a file, for rare words and common ones."""
    draw = random.Random(12)  # noqa: S311 - no secrets
    words = vocabulary(draw)
    weights = [1 / place for place in range(1, len(words) + 1)]
    with LocalDatabase(tmp_path / "agents.db") as database:
        repository = PerSQLSessionRepository(database)
        for number in range(SESSIONS):
            repository.create_session(session(f"s{number}"))
            repository.create_agent(f"s{number}", session_agent("a"))
        said: dict[str, int] = {}
        for first in range(0, MESSAGES, 1_000):
            rows = []
            for number in range(first, first + 1_000):
                text = draw.choices(words, weights, k=WORDS)
                for word in set(text):
                    said[word] = said.get(word, 0) + 1
                rows.append([f"s{number % SESSIONS}", number // SESSIONS, " ".join(text)])
            database.query(_INSERT, [json.dumps(rows)])
        repository = PerSQLSessionRepository(database, search=True)
        began = time.perf_counter()
        repository.setup()
        report("indexing 100,000 messages, in s", time.perf_counter() - began, at_most=120)
        for share in (0.2, 0.05, 0.001):
            word = min(said, key=lambda one: abs(said[one] / MESSAGES - share))
            for options in ({}, {"session_id": "s7"}):
                times = []
                for _ in range(9):
                    began = time.perf_counter()
                    hits = repository.search(word, **options)  # type: ignore[arg-type]
                    times.append(time.perf_counter() - began)
                where = "a session" if options else "all"
                name = f"search for a word of {said[word]:,} in {MESSAGES:,}, in {where}, ms"
                report(name, statistics.median(times) * 1_000, at_most=50)
                assert all(word in one.snippet for one in hits)
                assert len(hits) == min(20, said[word]) or options
