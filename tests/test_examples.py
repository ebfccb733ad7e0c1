"""The examples of the documentation, run as a newcomer runs them."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

EXAMPLES = Path(__file__).parent.parent / "docs" / "examples"
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
            one, cwd=demo_folder, capture_output=True, text=True, encoding="utf-8", check=True
        ).stdout
        for one in commands
    )

    assert "calls book_seat(city=" in shown
    assert "sessions  1 with 1 agent" in counted


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The address of the web example, started on a file of its own."""
    process = subprocess.Popen(
        [sys.executable, EXAMPLES / "web.py", "--port", "0"],
        env=environment(AGENTS_DB=str(tmp_path / "agents.db")),
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    with process:
        assert process.stderr is not None
        found = None
        for line in process.stderr:
            if found := re.search(r"http://[\d.]+:\d+", line):
                break
        assert found, "the server did not start"
        yield found[0]
        process.send_signal(signal.SIGINT)
        process.stderr.read()
    assert process.returncode in (0, -signal.SIGINT)


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
        """The state has both writers' keys, and both writers' turns are whole."""
        assert 'Agent state     {"guests":["Ben"],"seat":"12A to Oslo"}' in demo
        assert "Turns           5, each of them whole" in demo

    def test_it_tells_the_rows_and_the_round_trips(self, demo: str) -> None:
        """Rows by table and round trips by step are shown, one to open and two for a plain turn."""
        assert "Rows            sessions 1, agents 1, messages 14, multi_agents 0" in demo
        assert re.search(r"opened  with 4 messages +1 round trip\n", demo)
        assert re.search(r"Nice to meet you, Ada\. +2 round trips\n", demo)

    def test_it_fits_a_terminal(self, demo: str) -> None:
        """What it prints fits a terminal of 100 columns and 50 lines."""
        lines = demo.splitlines()
        assert (max(map(len, lines)) <= 100, len(lines) <= 50) == (True, True)


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
