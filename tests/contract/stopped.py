"""Turns that stop, in each way in which they can be gone on with, and agents asked after them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest
from strands import Agent, hooks
from strands.hooks import BeforeToolCallEvent

from strands_persql import LocalDatabase, PerSQLSessionManager
from strands_persql.testing import Reply, ScriptedModel, ToolCall
from tests.contract.agents import (
    STAND_IN,
    Scene,
    answers,
    calls,
    fails,
    needs,
    outcome,
    paying,
    step,
    unmanaged,
)
from tests.support.backends import Backend
from tests.support.conversation import said

CALL = ToolCall("pay", {"amount": 5}, "p1")
STEP = ToolCall("step", {}, "s1")
PAID = "result paid 5, approved by Ada"
DOWN = RuntimeError("overloaded")


@dataclass
class Way:
    """A way in which a turn stops and goes on.

    Attributes:
        stopping: What the model answers until the turn stops.
        before: What the turn has said by then.
        after: What it says when it goes on; the last is the model's answer to all of it.
        stop: Lets an agent begin the turn, and gives the prompt that goes on with it.
        options: Gives what the agents that stop and go on are made with.
    """

    stopping: list[Reply]
    before: list[str]
    after: list[str]
    stop: Callable[[Agent], Any]
    options: Callable[[], dict[str, Any]] = dict

    def go_on(self, scene: Scene, agent: Agent, prompt: Any) -> None:
        """Let an agent go on with the turn to its end."""
        agent.model = scene.model(self.after[-1])
        result = agent(prompt)
        while result.stop_reason == "checkpoint":
            result = agent(resumed(result))
        assert result.stop_reason == "end_turn"


def interrupted(agent: Agent) -> Any:
    """Have a turn that an interrupt stops."""
    result = agent("Pay 5.")
    assert result.stop_reason == "interrupt"
    return answers(result.interrupts, "Ada")


def failed(agent: Agent) -> Any:
    """Have a turn whose model fails."""
    fails(lambda: agent("Pay 5."), "overloaded")


def failed_twice(agent: Agent) -> Any:
    """Have a turn whose model fails, and fails again when it is asked again."""
    failed(agent)
    fails(lambda: agent(None), "overloaded")


def limited(agent: Agent) -> Any:
    """Have a turn that reaches its limit."""
    needs("invocation limits")
    assert agent("Pay 5.", limits={"turns": 1}).stop_reason == "limit_turns"


def resumed(result: Any) -> Any:
    """Make the prompt that resumes a checkpoint of Strands."""
    assert result.stop_reason == "checkpoint"
    return {"checkpointResume": {"checkpoint": result.checkpoint.to_dict()}}


def before_tools(agent: Agent) -> Any:
    """Have a turn that pauses when the model has asked for a tool."""
    return resumed(agent("Pay 5."))


def after_tools(agent: Agent) -> Any:
    """Have a turn that pauses when its tool has run."""
    return resumed(agent(resumed(agent("Pay 5."))))


def hooked(event_type: Any) -> Callable[[], dict[str, Any]]:
    """Give what makes the options of an agent that a hook interrupts."""

    class Hook:
        def register_hooks(self, registry: Any, **_: Any) -> None:
            registry.add_callback(event_type, lambda event: event.interrupt("approve"))

    return lambda: {"hooks": [Hook()], "tools": [step]}


PROMPT, CALLED, RESULT, DONE = "Pay 5.", "call step", "result ok", "Done."
WAYS: dict[str, Callable[[], Way]] = {
    "a tool interrupts": lambda: Way(
        [CALL],
        [PROMPT, "call pay"],
        [PAID, DONE],
        interrupted,
        lambda: {"tools": [paying()[0]]},
    ),
    "a hook before the tool interrupts": lambda: Way(
        [STEP], [PROMPT, CALLED], [RESULT, DONE], interrupted, hooked(BeforeToolCallEvent)
    ),
    "a hook before all tools interrupts": lambda: Way(
        [STEP], [PROMPT, CALLED], [RESULT, DONE], interrupted, hooked(hooks.BeforeToolsEvent)
    ),
    "the model fails": lambda: Way([DOWN], [PROMPT], [DONE], failed),
    "the model fails twice": lambda: Way([DOWN, DOWN], [PROMPT], [DONE], failed_twice),
    "the model fails after a tool": lambda: Way(
        [STEP, DOWN], [PROMPT, CALLED, RESULT], [DONE], failed, lambda: {"tools": [step]}
    ),
    "a limit is reached": lambda: Way(
        [STEP], [PROMPT, CALLED, RESULT], [DONE], limited, lambda: {"tools": [step]}
    ),
    "a checkpoint before the tool": lambda: Way(
        [STEP],
        [PROMPT, CALLED],
        [RESULT, DONE],
        before_tools,
        lambda: {"tools": [step], "checkpointing": True},
    ),
    "a checkpoint after the tool": lambda: Way(
        [STEP],
        [PROMPT, CALLED, RESULT],
        [DONE],
        after_tools,
        lambda: {"tools": [step], "checkpointing": True},
    ),
}
INTERRUPTS = [kind for kind in WAYS if "interrupts" in kind]
places = pytest.mark.parametrize("where", ["the same process", "another process"])
ways = pytest.mark.parametrize("kind", WAYS)


def way_of(kind: str) -> Way:
    """Make a way, or skip the test where Strands doesn't have it."""
    if "checkpoint" in kind:
        needs("checkpoints")
    if "before all tools" in kind and not hasattr(hooks, "BeforeToolsEvent"):
        pytest.skip("this version of strands-agents has no BeforeToolsEvent")
    return WAYS[kind]()


@dataclass
class Stopped:
    """A session in which a turn has stopped.

    Attributes:
        scene: The session.
        way: How it stopped.
        other: Another writer, that opened the session before.
        stopped: The agent that stopped.
        prompt: What goes on with the turn.
    """

    scene: Scene
    way: Way
    other: Agent
    stopped: Agent
    prompt: Any
    others: list[str] = field(default_factory=list)

    def let_others_speak(self, turns: int = 1) -> None:
        """Let the other writer have turns."""
        for _ in range(turns):
            self.other("What time?")
            self.others += said(self.other.messages[-2:])

    def open(self, **options: Any) -> Agent:
        """Open the session in a new process that can go on with the turn."""
        return self.scene.open(**self.way.options(), **options)

    def go_on(self, agent: Agent) -> None:
        """Go on with the turn."""
        self.way.go_on(self.scene, agent, self.prompt)

    def pieces(self) -> list[list[str]]:
        """Tell what all turns said, in the order in which they must stand."""
        others = [self.others[place : place + 2] for place in range(0, len(self.others), 2)]
        return [["Hello.", "Hi."], *others, [*self.way.before, *self.way.after]]

    def check(self, agent: Agent) -> None:
        """Assert that rows and restores have the turn that went on, whole and at the end."""
        pieces = self.pieces()
        whole = [text for piece in pieces for text in piece]
        assert [texts for _, texts in self.scene.turns()] == pieces
        assert said(self.scene.open().messages) == whole
        self.scene.check(agent)
        self.no_stand_in(agent, self.scene.open(), self.other)

    def no_stand_in(self, *agents: Agent) -> None:
        """Assert that no result was made up, in any row, memory or model's input.

        While the turn has stopped, others' models need one for its call: their last input counts.
        """
        found = [self.scene.backend.dump(), *(agent.messages for agent in agents)]
        for agent in agents:
            found += calls(agent)[-1:] if agent is self.other else calls(agent)
        assert not [one for one in found if STAND_IN in str(one)]


def stop(backend: Backend, commit: str, kind: str) -> Stopped:
    """Let a turn stop in a session that another writer has open."""
    way = way_of(kind)
    scene = Scene(backend, commit)
    other = scene.open("Hi.")
    other("Hello.")
    agent = scene.open(*way.stopping, **way.options())
    return Stopped(scene, way, other, agent, way.stop(agent))


def answer_in_process(path: Path, commit: Any, prompt: Any, barrier: Barrier, results: Any) -> None:
    """Answer in a process of one's own when all others do, and report what came of it."""
    with LocalDatabase(path) as database:
        pay, paid = paying()
        agent = Agent(
            model=ScriptedModel(["Done."]),
            agent_id="a",
            tools=[pay],
            session_manager=PerSQLSessionManager("s", database, commit=commit),
            callback_handler=None,
        )
        barrier.wait(60)
        try:
            results.put((outcome(lambda: agent(prompt)), paid))
        except Exception as error:  # noqa: BLE001 - the test looks at it
            results.put((repr(error), paid))


def play(backend: Backend, commit: str, session_id: str, *, warm: bool) -> "Asking":
    """Begin a session whose agent is open all along, or opened when it is asked."""
    scene = Scene(backend, commit, unmanaged, session_id=session_id)
    agent = scene.open("Hi.")
    agent("Hello.")
    return Asking(scene, agent if warm else None)


class Asking:
    """A session in which an agent is asked something when others have been there.

    Args:
        scene: The session.
        agent: The agent, or None if it is opened to be asked.
    """

    def __init__(self, scene: Scene, agent: Agent | None) -> None:
        self.scene, self.agent = scene, agent

    def ask(self, prompt: str, reply: str = "Yes.") -> Agent:
        """Ask, and give the agent that was asked."""
        agent = self.agent or self.scene.open()
        agent.model = self.scene.model(reply)
        agent(prompt)
        return agent


def heard(texts: list[str]) -> list[str]:
    """Leave out results that stand for those of a process that died."""
    return [text for text in texts if text != f"result {STAND_IN}"]
