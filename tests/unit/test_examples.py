"""The examples of the documentation, run as a newcomer runs them."""

import asyncio
import importlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import httpx
import pytest

from strands_persql import LocalDatabase, PerSQLSessionRepository, RetryPolicy
from strands_persql.testing import FaultyDatabase
from tests.support.racing import PATIENCE, until

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
BAD_REQUESTS = (
    ("ada", b"x" * 200_000, 413),
    ("ada", b"\xff\xfe", 400),
    ("ada", b"", 400),
    ("ada", b" \n", 400),
    ("a" * 65, b"Hello.", 400),
    ("a%00b", b"Hello.", 400),
    ("a%5Cb", b"Hello.", 400),
    ("a%0AERROR", b"Hello.", 400),
    ("%FF", b"Hello.", 400),
    ("a%2Fb", b"Hello.", 404),
    ("a/b", b"Hello.", 404),
)
CITIES = ("Lisbon", "Oslo", "Quito")


def environment(**more: str) -> dict[str, str]:
    """Give an environment without keys of hosted models and databases."""
    kept = {k: v for k, v in os.environ.items() if not k.endswith(("_API_KEY", "_TOKEN", "_MODEL"))}
    return {**kept, "PYTHONUTF8": "1", **more}


@pytest.fixture(scope="module")
def demo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the demo is run."""
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def demo(demo_folder: Path) -> str:
    """What the demo prints."""
    done = subprocess.run(
        [sys.executable, EXAMPLES / "demo.py"],
        env=environment(),
        cwd=demo_folder,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_the_commands_that_the_demo_names_work(demo: str, demo_folder: Path) -> None:
    """What the demo prints at its end is run as it is printed, and shows what was made."""
    _, _, named = demo.partition("Look at it:\n")
    commands = [line.split() for line in named.splitlines()]

    shown, counted = (
        subprocess.run(
            one,
            cwd=demo_folder,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=60,
            check=True,
        ).stdout
        for one in commands
    )

    assert "calls book_seat(city=" in shown
    assert "sessions  1 with 1 agent" in counted


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The address of the web example, started on a file of its own."""
    log = tmp_path / "log"

    def address() -> re.Match[str] | None:
        assert process.poll() is None, f"the server did not start: {log.read_text()}"
        return re.search(r"http://[\d.]+:\d+", log.read_text())

    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, EXAMPLES / "web.py", "--port", "0"],
            env=environment(AGENTS_DB=str(tmp_path / "agents.db")),
            stderr=output,
            stdout=subprocess.DEVNULL,
        )
    try:
        until(lambda: address() is not None)
        found = address()
        assert found is not None
        yield found[0]
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) in (0, -signal.SIGINT)
    finally:
        process.kill()
        process.wait(PATIENCE)


async def say(client: httpx.AsyncClient, session_id: str, text: str) -> str:
    """Have a turn in a session and give the agent's answer."""
    async with client.stream("POST", f"/sessions/{session_id}", content=text) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = [line async for line in response.aiter_lines() if line]
    assert lines[-2:] == ["event: done", "data: null"]
    return "".join(json.loads(line.removeprefix("data: ")) for line in lines[:-2])


async def converse(client: httpx.AsyncClient, name: str) -> list[str]:
    """Tell one session of three cities, and give its answers."""
    return [await say(client, name, f"{name} likes {city}.") for city in CITIES]


class TestDemo:
    def test_it_answers_from_what_was_said_to_a_killed_process(self, demo: str) -> None:
        """The process after the killed one knows who travels, and books the seat."""
        assert "SIGKILL" in demo
        assert "Ada and Ben, from Lisbon to Oslo." in demo
        assert "Done: seat 12A to Oslo is booked." in demo

    def test_it_merges_what_two_writers_did(self, demo: str) -> None:
        """The state has both writers' keys, and no turn is mixed with another."""
        assert 'Agent state     {"guests":["Ben"],"seat":"12A to Oslo"}' in demo
        assert "Turns           5, none mixed with another: 4 finished, 1 cut short" in demo

    def test_it_tells_the_rows_and_the_round_trips(self, demo: str) -> None:
        """Rows by table and round trips by step are shown, one to open and two for a plain turn."""
        assert "Rows            sessions 1, agents 1, messages 14, multi_agents 0" in demo
        assert re.search(r"opened  with 4 messages +1 round trip\n", demo)
        assert re.search(r"Nice to meet you, Ada\. +2 round trips\n", demo)

    def test_it_says_what_a_new_database_costs(self, demo: str) -> None:
        """The round trips of the first open are explained: there are no tables yet."""
        assert re.search(r"opened  a new database: makes its tables, .+ \d round trips\n", demo)

    def test_it_names_what_to_look_at_next(self, demo: str) -> None:
        """It ends with pages and folders that are there."""
        names = re.findall(r"[\w/-]+\.md", demo.partition("look at next:")[2])

        assert len(names) == 4
        assert [name for name in names if not (EXAMPLES.parent.parent / name).exists()] == []

    def test_keys_alone_choose_no_real_model(self) -> None:
        """With model keys in the environment the scripted model still answers."""
        done = subprocess.run(
            [sys.executable, "-c", "import demo; print(type(demo.choose_model()).__name__)"],
            cwd=EXAMPLES,
            env=environment(OPENAI_API_KEY="sk-none", ANTHROPIC_API_KEY="sk-none"),
            capture_output=True,
            text=True,
            check=False,
            timeout=900,
        )
        assert (done.stdout, done.stderr) == ("ScriptedModel\n", "")

    def test_a_wrong_provider_is_named(self) -> None:
        """A provider that isn't known ends the demo with those that are."""
        done = subprocess.run(
            [sys.executable, "-c", "import demo; demo.choose_model()"],
            cwd=EXAMPLES,
            env=environment(STRANDS_PERSQL_DEMO_MODEL="opnai"),
            capture_output=True,
            text=True,
            check=False,
            timeout=900,
        )
        assert done.returncode == 1
        assert "=opnai | must be one of anthropic, bedrock, openai" in done.stderr

    def test_it_fits_a_terminal(self, demo: str) -> None:
        """What it prints fits a terminal of 100 columns and 50 lines."""
        lines = demo.splitlines()
        assert (max(map(len, lines)) <= 100, len(lines) <= 50) == (True, True)


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The web example's application, in this process, its database not yet chosen."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    app = importlib.import_module("web").app
    app.state.locks = WeakValueDictionary()
    return app


def ask_app(app: Any, path: str = "/sessions/ada") -> httpx.Response:
    """Post a prompt to an application of this process."""

    async def post() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://web") as client:
            return await client.post(path, content="Hello.")

    return asyncio.run(post())


class TestWebWithoutItsDatabase:
    @pytest.mark.parametrize("first", [0, 1], ids=["open the session", "make its agent"])
    def test_a_database_that_is_away_is_told_by_the_status(self, app: Any, first: int) -> None:
        """Whatever of opening a session fails, the answer is 503 and says when to come back."""
        with LocalDatabase() as database:
            PerSQLSessionRepository(database).setup()
            faulty = FaultyDatabase(database, lambda n: "lost_request" if n >= first else None)
            app.state.repository = PerSQLSessionRepository(faulty, retry=RetryPolicy.never())
            refused = ask_app(app)
            app.state.repository = PerSQLSessionRepository(database)
            answered = ask_app(app)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
        assert answered.status_code == 200
        assert answered.text.endswith("event: done\ndata: null\n\n")

    def test_a_failure_in_the_answers_middle_is_told_by_an_event(self, app: Any) -> None:
        """Where the database goes away during a turn the answer ends so, and the next works."""
        with LocalDatabase() as database:
            repository = PerSQLSessionRepository(database)
            repository.setup()
            faulty = FaultyDatabase(database, lambda n: "lost_request" if n == 2 else None)
            app.state.repository = PerSQLSessionRepository(faulty, retry=RetryPolicy.never())
            refused, answered = ask_app(app), ask_app(app)
        assert (refused.status_code, refused.text) == (200, "event: error\ndata: null\n\n")
        assert answered.text.endswith("event: done\ndata: null\n\n")


class TestWeb:
    def test_many_sessions_at_once_remember_each_its_own(self, server: str) -> None:
        """20 sessions at once, of 3 turns each, are told what they said, and nothing else."""

        async def live() -> list[list[str]]:
            async with httpx.AsyncClient(base_url=server, timeout=30) as client:
                names = [f"user-{number}" for number in range(20)]
                return await asyncio.gather(*(converse(client, name) for name in names))

        for number, answers in enumerate(asyncio.run(live())):
            told = [f"user-{number} likes {city}." for city in CITIES]
            assert answers == [
                "I am listening.",
                f"So far you have told me: {told[0]}",
                f"So far you have told me: {told[0]} {told[1]}",
            ]

    def test_requests_of_one_session_queue(self, server: str) -> None:
        """Requests that reach one session at once are answered one after the other, none lost."""

        async def live() -> tuple[list[str], str]:
            async with httpx.AsyncClient(base_url=server, timeout=30) as client:
                texts = [f"No{number}" for number in range(8)]
                answers = await asyncio.gather(*(say(client, "shared", text) for text in texts))
                return answers, await say(client, "shared", "And?")

        answers, last = asyncio.run(live())
        assert sorted(answer.count("No") for answer in answers) == list(range(8))
        assert sorted(re.findall(r"No\d", last)) == [f"No{number}" for number in range(8)]

    def test_stats_tell_of_cache_and_round_trips(self, server: str) -> None:
        """A second turn of a session in memory costs three round trips: one to open, two to say."""
        with httpx.Client(base_url=server, timeout=30) as client:
            client.post("/sessions/ada", content="Hello.")
            before = client.get("/stats").json()
            client.post("/sessions/ada", content="Hello again.")
            after = client.get("/stats").json()
        assert after["round_trips"] - before["round_trips"] == 3
        assert after["cached_bytes"] > 0

    def test_a_session_goes_on_after_a_client_has_gone(self, server: str) -> None:
        """A client that leaves in the middle of an answer leaves a session that goes on."""
        with httpx.Client(base_url=server, timeout=30) as client:
            with client.stream("POST", "/sessions/ada", content="Hello.") as response:
                next(response.iter_raw())
            assert "Hello." in client.post("/sessions/ada", content="And?").text

    def test_bad_requests_are_refused(self, server: str) -> None:
        """Bodies that are too long or no text, and ids that are none, are the client's errors."""
        with httpx.Client(base_url=server, timeout=30) as client:
            refused = {
                (path, body[:9]): client.post(f"/sessions/{path}", content=body).status_code
                for path, body, _ in BAD_REQUESTS
            }
            assert client.post("/sessions/ada", content="Hello.").status_code == 200
        assert refused == {(path, body[:9]): status for path, body, status in BAD_REQUESTS}

    def test_a_body_without_end_is_refused(self, server: str) -> None:
        """A body whose length isn't told is read up to the bound, and no further."""

        def endless() -> Iterator[bytes]:
            for _ in range(1000):
                yield b"x" * 10_000

        with httpx.Client(base_url=server, timeout=30) as client:
            try:
                refused = client.post("/sessions/ada", content=endless()).status_code == 413
            except httpx.TransportError:  # the server has closed while this still sent
                refused = True
            assert refused
            assert client.post("/sessions/ada", content="Hello.").status_code == 200
