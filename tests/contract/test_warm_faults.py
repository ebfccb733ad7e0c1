"""Warm agents after lost answers, killed processes and turns of other threads."""

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from strands import Agent

from strands_persql.testing import Fault, FaultyDatabase, ToolCall
from tests.contract.agents import (
    COMMITS,
    Scene,
    both,
    calls,
    manager_of,
    outcome,
    unmanaged,
)
from tests.contract.stopped import heard, play
from tests.support import backends
from tests.support.backends import NEVER, Backend
from tests.support.conversation import said

pytestmark = pytest.mark.backends("memory")

BOOK = ToolCall("step", {"note": "seat 12A is booked"}, "b1")


@both
@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("fault", ["lost_answer", "lost_request"])
@pytest.mark.parametrize("call", [False, True])
def test_a_lost_answer_with_anothers_turn_in_between(
    backend: Backend, commit: str, place: int, fault: Fault, call: bool
) -> None:
    """After a write whose answer was lost, and another's turn, memory and rows have one order."""
    scene = Scene(backend, commit, unmanaged)
    faults: list[Fault | None] = []
    faulty = FaultyDatabase(backend.database, lambda _: faults.pop(0) if faults else None)
    repository = backend.repository(faulty, retry=NEVER)
    agent = scene.open(manager=backend.manager(repository=repository, commit=commit))
    agent.model = scene.model("Hi.", *[BOOK] * call, "Booked.", "Yes.", "Sure.")
    agent("Hello.")
    other = scene.open("Noon.", "Later.")
    faults += [None] * place + [fault]
    for prompt in ("Book 12A.", "Is it booked?", "Sure?"):
        if outcome(lambda prompt=prompt: agent(prompt)) != "done":  # type: ignore[misc]
            assert faulty.injected
            other("What time?")
    faults.clear()
    manager_of(agent).close()
    agent("And now?")
    texts = scene.transcript()
    assert said(agent.messages) == texts
    assert said(scene.open().messages) == texts
    assert texts.count("Book 12A.") == texts.count("Is it booked?") == 1
    assert scene.invalid == []
    assert [len(set(block)) for _, block in scene.turns()] == [
        len(block) for _, block in scene.turns()
    ]


# -- real kills ------------------------------------------------------------------------------------

_VICTIM = """
import sys, time
from strands import Agent, tool
from strands.agent.conversation_manager import NullConversationManager
from strands_persql import LocalDatabase, PerSQLSessionManager
from strands_persql.testing import ScriptedModel, ToolCall

@tool
def step(note: str) -> str:
    "Take a step."
    if sys.argv[3] == "tool":
        wait()
    return note

def wait():
    print("ready", flush=True)
    time.sleep(60)

def reply(messages):
    if len(messages) == 3 and sys.argv[3] == "first":
        wait()
    if len(messages) > 3:
        wait()
    return ToolCall("step", {"note": "seat 12A is booked"}, "b1")

session = PerSQLSessionManager("s", LocalDatabase(sys.argv[1]), commit=sys.argv[2])
Agent(
    model=ScriptedModel(reply), agent_id="a", tools=[step], session_manager=session,
    callback_handler=None, conversation_manager=NullConversationManager(),
)("Book 12A.")
"""


@pytest.mark.parametrize("commit", COMMITS)
@pytest.mark.parametrize("when", ["first", "tool", "second"])
def test_a_process_that_is_killed(tmp_path: Path, commit: str, when: str) -> None:
    """After a SIGKILL a warm agent is asked what a fresh one would be asked."""
    given = []
    for warm in (True, False):
        folder = tmp_path / str(warm)
        folder.mkdir()
        with backends.opened("file", folder) as backend:
            asking = play(backend, commit, "s", warm=warm)
            victim = subprocess.Popen(
                [sys.executable, "-c", _VICTIM, str(folder / "sessions.db"), commit, when],
                stdout=subprocess.PIPE,
            )
            assert victim.stdout is not None
            with victim.stdout as output:
                assert output.readline() == b"ready\n"
                victim.send_signal(signal.SIGKILL)
            victim.wait(timeout=60)
            if commit == "turn":
                asking.ask("Are you there?")
            agent = asking.ask("Is a seat booked?")
            given.append(said(calls(agent)[-1]))
            assert asking.scene.invalid == []
            assert heard(said(agent.messages)) == heard(asking.scene.transcript())
    assert given[0] == given[1]
    stored = {"first": 1, "tool": 2, "second": 3}[when] if commit == "message" else 0
    assert ("Book 12A." in given[0]) == (stored > 0)
    assert ("result seat 12A is booked" in given[0]) == (stored == 3)


def test_threads_of_warm_agents(backend: Backend) -> None:
    """Agents that have turns in several threads all know all of it when it is over."""
    scene = Scene(backend, "message", unmanaged)
    agents = [scene.open() for _ in range(4)]

    def work(agent: Agent, number: int) -> None:
        for turn in range(5):
            agent(f"{number}.{turn}")

    threads = [
        threading.Thread(target=work, args=(agent, number)) for number, agent in enumerate(agents)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert len(scene.rows()) == 40
    for number, agent in enumerate(agents):
        agent(f"last {number}")
        assert said(calls(agent)[-1]) == scene.transcript()[:-1]
        scene.check(agent)
    assert len({len(block) for _, block in scene.turns()}) == 1
