"""What a warm agent's model is asked is what a process that opens the session now would ask.

Each case is played twice, in two sessions: in one the agent that is asked was open all along, in
the other it is opened at the end. With ``commit="turn"`` a warm agent learns at the end of its own
turn, so there it has one turn more before the one that is looked at.
"""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel
from strands import Agent, ToolContext, tool
from strands.types.session import SessionMessage

from strands_persql.testing import Redact, ToolCall
from tests.contract.agents import (
    Process,
    Scene,
    alike,
    both,
    calls,
    fails,
    invalid,
    needs,
    outcome,
    paying,
)
from tests.contract.stopped import (
    heard,
    play,
)
from tests.support.backends import Backend
from tests.support.conversation import assistant, said, user

pytestmark = pytest.mark.backends("memory", "http")

DOWN = RuntimeError("overloaded")


class Seat(BaseModel):
    """Where somebody sits."""

    row: int


@tool(context=True)
def hang_up(tool_context: ToolContext) -> str:
    """Cancel the turn."""
    tool_context.agent.cancel()
    return "cancelled"


@tool(context=True)
def stop(tool_context: ToolContext) -> str:
    """Ask the event loop to stop."""
    tool_context.invocation_state.setdefault("request_state", {})["stop_event_loop"] = True
    return "stopped"


def book(scene: Scene, name: str = "step", **arguments: Any) -> ToolCall:
    """Make a call that no other call of the scene is taken for."""
    arguments = arguments or {"note": "seat 12A is booked"}
    return ToolCall(name, arguments, f"b{scene.number()}")


# -- ways in which a turn of somebody else ends ----------------------------------------------------


def answered(scene: Scene) -> None:
    """A turn that ends well."""
    scene.open(book(scene), "Booked.")("Book 12A.")


def failed_at_once(scene: Scene) -> None:
    """A turn whose model fails before it has said anything."""
    fails(lambda: scene.open(DOWN)("Book 12A."), "overloaded")


def failed_after_a_tool(scene: Scene) -> None:
    """A turn whose model fails when a tool has run."""
    fails(lambda: scene.open(book(scene), DOWN)("Book 12A."), "overloaded")


def failed_and_retried(scene: Scene) -> None:
    """A turn that failed and went on."""
    agent = scene.open(book(scene), DOWN, "Booked.")
    fails(lambda: agent("Book 12A."), "overloaded")
    agent(None)


def cancelled_by_a_tool(scene: Scene) -> None:
    """A turn that is cancelled while its tool runs."""
    scene.open(book(scene, "hang_up"), "never said", tools=[hang_up])("Book 12A.")


def cancelled_before_a_tool(scene: Scene) -> None:
    """A turn that is cancelled when the model has asked for a tool."""
    agent: Agent

    def reply(_: Any) -> Any:
        agent.cancel()
        return book(scene)

    agent = scene.open(replying=reply)
    agent("Book 12A.")


def limited(scene: Scene) -> None:
    """A turn that reached its limit."""
    needs("invocation limits")
    scene.open(book(scene))("Book 12A.", limits={"turns": 1})


def structured(scene: Scene) -> None:
    """A turn that ends with its structured output."""
    agent = scene.open(book(scene, "Seat", row=12))
    agent("Where?", structured_output_model=Seat)


def structured_when_asked_again(scene: Scene) -> None:
    """A turn whose model has to be asked a second time for its structured output."""
    agent = scene.open("Row 12.", book(scene, "Seat", row=12))
    agent("Where?", structured_output_model=Seat)


def stopped_by_its_tool(scene: Scene) -> None:
    """A turn whose tool stops the event loop."""
    scene.open(book(scene, "stop"), tools=[stop])("Book 12A.")


def interrupted(scene: Scene) -> None:
    """A turn that waits for an answer, begun by an agent that was opened for it."""
    scene.open(book(scene, "pay", amount=5), tools=[paying()[0]])("Pay.")


def bare_message(scene: Scene) -> None:
    """A message that is appended outside a turn."""
    manager = scene.manager()
    agent = scene.open(manager=manager)
    manager.append_message(user("By the way."), agent)


def bare_messages(scene: Scene) -> None:
    """A question and an answer that are appended outside a turn."""
    manager = scene.manager()
    agent = scene.open(manager=manager)
    manager.append_message(user("By the way."), agent)
    manager.append_message(assistant("I see."), agent)


def called_directly(scene: Scene) -> None:
    """A tool that is called by the application."""
    agent = scene.open()
    agent.tool.step(note="by hand")


def made_by_a_repository(scene: Scene) -> None:
    """Messages that a bare repository stores."""
    repository = scene.backend.repository()
    repository.read_session(scene.session_id)
    for text in ("By the way.", "And then."):
        made = SessionMessage.from_message(user(text), 50)
        repository.create_message(scene.session_id, scene.agent_id, made)


def guarded(scene: Scene) -> None:
    """A turn whose prompt a guardrail redacts."""
    scene.open(Redact("[gone]"))("The SECRET.")


def edited(scene: Scene) -> None:
    """A turn of an agent that has changed what was said before."""
    agent = scene.open("Well.")
    agent.messages[0]["content"] = [{"text": "Good morning."}]
    agent("Hm.")


def forgetful(scene: Scene) -> None:
    """A turn of an agent that has dropped what was said before."""
    agent = scene.open("Well.")
    del agent.messages[:2]
    agent("Hm.")


def killed_before_the_model(scene: Scene) -> None:
    """A process that is killed while its model is asked for the first time."""
    _killed(scene, 0)


def killed_before_the_tool(scene: Scene) -> None:
    """A process that is killed when the model has asked for a tool."""
    process = Process(scene)

    @tool(name="step")
    def deadly(note: str) -> str:
        """Die.

        Args:
            note: Not used.
        """
        process.kill()
        return note

    _lost(process.open(book(scene), tools=[deadly]))


def killed_after_the_tool(scene: Scene) -> None:
    """A process that is killed when its tool has run and the model is asked again."""
    _killed(scene, 1)


def _killed(scene: Scene, after: int) -> None:
    process, numbers = Process(scene), itertools.count()

    def reply(_: Any) -> Any:
        if next(numbers) == after:
            process.kill()
            return "never heard"
        return book(scene)

    _lost(process.open(replying=reply))


def _lost(agent: Agent) -> None:
    """Have a turn of which the end is lost with its process."""
    assert outcome(lambda: agent("Book 12A.")) == "UnavailableError"


def several(scene: Scene) -> None:
    """Turns of several others, of which some end well."""
    for end in (failed_after_a_tool, answered_plainly, bare_message, killed_after_the_tool):
        end(scene)


def answered_plainly(scene: Scene) -> None:
    """A turn without tools."""
    scene.open("Noon.")("What time?")


ENDS: list[Callable[[Scene], None]] = [
    answered,
    answered_plainly,
    failed_at_once,
    failed_after_a_tool,
    failed_and_retried,
    cancelled_by_a_tool,
    cancelled_before_a_tool,
    limited,
    structured,
    structured_when_asked_again,
    stopped_by_its_tool,
    bare_message,
    bare_messages,
    called_directly,
    made_by_a_repository,
    guarded,
    edited,
    forgetful,
    killed_before_the_model,
    killed_before_the_tool,
    killed_after_the_tool,
    several,
]
ends = pytest.mark.parametrize("end", ENDS)
"""All but interrupts: who opens a session that waits for an answer can give it no other prompt."""


def check_warm_as_fresh(backend: Backend, commit: str, *others: Callable[[Scene], None]) -> None:
    """Assert that an agent that was open all along is asked what a new one would be asked."""
    warm = play(backend, commit, "warm", warm=True)
    fresh = play(backend, commit, "fresh", warm=False)
    for other in others:
        asked = []
        for asking in (warm, fresh):
            other(asking.scene)
            if commit == "turn":
                asking.ask("Are you there?")
            asked.append(asking.ask("Is a seat booked?"))
        given = [alike(calls(agent)[-1]) for agent in asked]
        assert said(calls(asked[0])[-1]) == said(calls(asked[1])[-1])
        assert given[0] == given[1]
        assert heard(warm.scene.transcript()) == heard(fresh.scene.transcript())
        assert said(asked[0].messages) == said(asked[1].messages)
        warm.scene.check(asked[0])
    assert warm.scene.invalid == fresh.scene.invalid == []


@pytest.mark.guarantee(number=19)
@both
@ends
@pytest.mark.filterwarnings("ignore:request_state:DeprecationWarning")
def test_a_warm_agent_knows_what_a_fresh_one_would(
    backend: Backend, commit: str, end: Callable[[Scene], None]
) -> None:
    """Its model is asked with everything that others have stored, however their turns ended."""
    check_warm_as_fresh(backend, commit, end)


@pytest.mark.guarantee(number=19)
@both
@ends
@pytest.mark.filterwarnings("ignore:request_state:DeprecationWarning")
def test_a_warm_agent_goes_on_knowing(
    backend: Backend, commit: str, end: Callable[[Scene], None]
) -> None:
    """The same holds for each turn of a long life, with other ends between."""
    check_warm_as_fresh(backend, commit, end, answered, failed_after_a_tool, answered_plainly)


@both
def test_a_warm_agent_is_asked_nothing_invalid_while_a_turn_waits(
    backend: Backend, commit: str
) -> None:
    """While another's turn waits for an answer, a warm agent's model is given whole turns only."""
    asking = play(backend, commit, "s", warm=True)
    interrupted(asking.scene)
    for number in range(3):
        agent = asking.ask(f"q{number}")
        assert invalid(calls(agent)[-1]) == []
    assert asking.scene.invalid == []


@both
def test_a_turn_that_goes_on_while_another_is_asked(backend: Backend, commit: str) -> None:
    """What two agents say at the same time is known to both afterwards, in the rows' order."""
    asking = play(backend, commit, "s", warm=True)
    scene = asking.scene
    inner = scene.open("Noon.")
    seen: list[str] = []

    def reply(_: Any) -> Any:
        if not seen:
            seen.append("asked")
            inner("What time?")
            return book(scene)
        return "Booked."

    assert asking.agent is not None
    asking.agent.model = scene.model(replying=reply)
    asking.agent("Book 12A.")
    for agent in (inner, asking.agent, inner, asking.agent):
        before = scene.transcript()
        agent.model = scene.model("Fine.")
        agent("How are you?")
        if commit == "message":
            assert said(calls(agent)[-1]) == [*before, "How are you?"]
        scene.check(agent)
        assert said(agent.messages) == scene.transcript()
