"""A turn goes on while another writer, in the middle of its own turn, drops what it has of it."""

import threading
from collections.abc import Callable
from itertools import combinations_with_replacement

import pytest
from strands import Agent
from strands.hooks import BeforeToolCallEvent
from strands.types.content import Messages

from strands_persql.testing import ToolCall
from tests.contract.agents import Options, Scene, paying, sliding, unmanaged
from tests.contract.stopped import CALL, PAID, interrupted
from tests.support.backends import Backend
from tests.support.conversation import said

pytestmark = pytest.mark.backends("memory")

MOMENTS = ["before the claim", "behind the claim", "behind the result", "at the end"]
WHEN = list(combinations_with_replacement(range(len(MOMENTS)), 2))
NAMES = [f"{MOMENTS[begin]}, {MOMENTS[end]}" for begin, end in WHEN]


def drop_all(agent: Agent) -> None:
    """Drop the whole turn that waits, and the result that Strands has made up."""
    place = said(agent.messages).index("Pay 5.")
    del agent.messages[place : place + 3]


def drop_prompt(agent: Agent) -> None:
    """Drop the prompt of the turn that waits, and what is before it."""
    place = said(agent.messages).index("Pay 5.")
    del agent.messages[: place + 1]


class Meanwhile:
    """A turn of another writer that begins at one moment and ends at another.

    Args:
        scene: The session.
        agent: The other writer's agent.
        when: The moments at which it begins and ends.
    """

    def __init__(self, scene: Scene, agent: Agent, when: tuple[int, int]) -> None:
        self._begins, self._ends = when
        self._asked, self._answer = threading.Event(), threading.Event()
        self._errors: list[BaseException] = []
        agent.model = scene.model(replying=self._reply)
        self._thread = threading.Thread(target=self._talk, args=(agent,))

    def _reply(self, _: Messages) -> str:
        self._asked.set()
        assert self._answer.wait(30)
        return "Noted."

    def _talk(self, agent: Agent) -> None:
        try:
            agent("And?")
        except BaseException as error:  # noqa: BLE001 - the test raises it
            self._errors.append(error)

    def at(self, moment: int) -> None:
        """Begin or end it, where this is the moment."""
        if moment == self._begins:
            self._thread.start()
            assert self._asked.wait(30)
        if moment == self._ends:
            self._answer.set()
            self._thread.join(30)
            for error in self._errors:
                raise error


@pytest.mark.parametrize("make", [unmanaged, sliding(40)])
@pytest.mark.parametrize("drop", [drop_all, drop_prompt])
@pytest.mark.parametrize("when", WHEN, ids=NAMES)
def test_a_turn_that_goes_on_while_another_drops_it(
    backend: Backend,
    make: Options,
    drop: Callable[[Agent], None],
    when: tuple[int, int],
) -> None:
    """It is there whole or not at all, for both writers, in the rows and for all who open it."""
    pay, paid = paying()
    scene = Scene(backend, "message", lambda: {**make(), "tools": [pay]})
    agent = scene.open("Hi.", CALL)
    agent("Hello.")
    other = scene.open("Yes.")
    meanwhile: list[Meanwhile] = []

    def between(event: BeforeToolCallEvent) -> None:  # noqa: ARG001 - its name counts
        if meanwhile:
            meanwhile[0].at(1)
        else:
            other("Are you there?")

    agent.hooks.add_callback(BeforeToolCallEvent, between)
    prompt = interrupted(agent)
    drop(other)
    meanwhile.append(Meanwhile(scene, other, when))

    def reply(_: Messages) -> str:
        meanwhile[0].at(2)
        return "Done."

    agent.model = scene.model(replying=reply)
    meanwhile[0].at(0)
    agent(prompt)
    meanwhile[0].at(3)
    assert paid == ["Ada"]
    turns = [texts for _, texts in scene.turns()]
    assert sorted(map(len, turns)) == [2, 2, 2, 4]
    assert ["Pay 5.", "call pay", PAID, "Done."] in turns
    own = {"Pay 5.", "call pay", PAID, "Done."}
    for one in (other, agent, other):
        one.model = scene.model()
        one("Next?")
        scene.check(one)
        assert len(own & set(said(one.messages))) in (0, 4)


def test_a_snapshot_with_a_part_of_a_turn_that_waits(backend: Backend) -> None:
    """A message of it that a rewind brings back is that message, and there once."""
    pay, paid = paying()
    scene = Scene(backend, "message", lambda: {**unmanaged(), "tools": [pay]})
    agent = scene.open("Hi.")
    agent("Hello.")
    other, kept = scene.open(), []

    def reply(_: Messages) -> ToolCall:
        other("Are you there?")
        kept.append(other.take_snapshot(include=["messages"]))
        return CALL

    agent.model = scene.model(replying=reply)
    prompt = interrupted(agent)
    other("Still there?")
    other.load_snapshot(kept[0])
    assert "Pay 5." in said(other.messages)
    other("And?")
    agent.model = scene.model("Done.")
    agent(prompt)
    assert paid == ["Ada"]
    for one in (agent, other):
        one.model = scene.model()
        one("Next?")
        scene.check(one)
        assert said(one.messages).count("Pay 5.") == 1
