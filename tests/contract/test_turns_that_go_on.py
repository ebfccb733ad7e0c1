"""A turn that stopped and goes on is that turn: whole, and behind the others."""

from typing import Any

import pytest
from strands.hooks import BeforeModelCallEvent, BeforeToolCallEvent

from strands_persql.testing import Fault, ToolCall
from tests.contract.agents import (
    STAND_IN,
    Scene,
    answers,
    asked,
    both,
    calls,
    memory,
    outcome,
    paying,
    refused,
    sliding,
    step,
    unmanaged,
)
from tests.contract.stopped import (
    CALL,
    INTERRUPTS,
    PAID,
    STEP,
    interrupted,
    places,
    stop,
    ways,
)
from tests.support.backends import NEVER, Backend
from tests.support.conversation import said, state_in_database
from tests.support.faults import Switch

pytestmark = pytest.mark.backends("memory", "http")


@pytest.mark.guarantee(number=18)
@both
@places
@pytest.mark.parametrize("turns", [0, 1, 2])
@ways
def test_a_turn_that_goes_on_is_the_one_that_stopped(
    backend: Backend, commit: str, where: str, turns: int, kind: str
) -> None:
    """It moves behind the others, whole, in the model's input, in the rows and in every restore."""
    case = stop(backend, commit, kind)
    case.let_others_speak(turns)
    agent = case.stopped if where == "the same process" else case.open()
    case.go_on(agent)
    given = said(calls(agent)[-1])
    own = [*case.way.before, *case.way.after][:-1]
    whole = [text for piece in case.pieces() for text in piece][:-1]
    if commit == "message" or where == "another process":
        assert given == whole
    assert given[-len(own) :] == own
    case.check(agent)


@both
@places
@pytest.mark.guarantee(number=18)
@pytest.mark.parametrize("tools", [0, 1, 3])
@pytest.mark.parametrize("others", [0, 1, 2])
def test_a_turn_that_its_own_window_has_cut(
    backend: Backend, commit: str, where: str, tools: int, others: int
) -> None:
    """It goes on as one, where a window that moves before each call has dropped its beginning."""
    pay, paid = paying()
    scene = Scene(backend, commit, lambda: {**sliding(2, per_turn=True)(), "tools": [step, pay]})
    other = scene.open()
    other("Hello.")
    agent = scene.open(*[ToolCall("step")] * tools, CALL)
    prompt = interrupted(agent)
    for number in range(others):
        other.model = scene.model()
        other(f"o{number}")
    if where == "another process":
        agent = scene.open()
    agent.model = scene.model("Done.")
    agent(prompt)
    assert paid == ["Ada"]
    turns = [turn for turn, _ in scene.turns()]
    assert len(turns) == len(set(turns))
    steps = ["call step", "result ok"] * tools
    assert scene.turns()[-1][1] == ["Pay 5.", *steps, "call pay", PAID, "Done."]
    scene.check(agent)


@places
@pytest.mark.guarantee(number=18)
def test_a_turn_that_another_has_dropped(backend: Backend, where: str) -> None:
    """It goes on though who saw it before it waited has dropped it from what all work with."""
    pay, paid = paying()
    scene = Scene(backend, "message", lambda: {**unmanaged(), "tools": [pay]})
    agent, other = scene.open(CALL), scene.open()
    questions = iter(["What?"])

    def ask_meanwhile(event: BeforeToolCallEvent) -> None:  # noqa: ARG001 - its name counts
        for question in questions:
            other(question)

    agent.hooks.add_callback(BeforeToolCallEvent, ask_meanwhile)
    prompt = interrupted(agent)
    assert said(other.messages)[:2] == ["Pay 5.", "call pay"]
    del other.messages[:3]  # with the result that Strands has made up
    other("And?")
    assert "Pay 5." not in said(scene.open().messages)
    if where == "another process":
        agent = scene.open()
    agent.model = scene.model("Done.")
    agent(prompt)
    assert paid == ["Ada"]
    assert scene.turns()[-1][1] == ["Pay 5.", "call pay", PAID, "Done."]
    scene.check(agent)


@both
@pytest.mark.guarantee(number=18)
@pytest.mark.parametrize("fault", ["lost_request", "lost_answer"])
@pytest.mark.parametrize("after", range(4))
@pytest.mark.parametrize("others", [0, 1])
def test_a_turn_that_could_not_be_stored(
    backend: Backend, commit: str, fault: Fault, after: int, others: int
) -> None:
    """Who goes on after a fault goes on with the turn that met it, not with the one before."""
    scene = Scene(backend, commit, lambda: {**unmanaged(), "tools": [step]})
    switch = Switch(backend.database)
    manager = scene.manager(repository=backend.repository(switch, retry=NEVER))
    agent, other = scene.open("one", manager=manager), scene.open()
    agent("zero")
    agent.model = scene.model(STEP, "two")
    switch.next = [*[None] * after, fault]
    if outcome(lambda: agent("X")) == "done":
        return  # there are fewer round trips in it
    for number in range(others):
        other(f"o{number}")
    calls_before = sum("toolUse" in str(one) for one in agent.messages)
    agent.model = scene.model(*[STEP] * (1 - calls_before), "two")
    agent(None)
    turns = [texts for _, texts in scene.turns()]
    assert turns[0] == ["zero", "one"]
    assert turns[-1][:2] + turns[-1][-1:] == ["X", "call step", "two"]
    assert len({turn for turn, _ in scene.turns()}) == len(turns) == 2 + others
    scene.check(agent)
    other("And?")
    scene.check(other)


@both
@pytest.mark.parametrize("fault", ["lost_request", "lost_answer"])
@pytest.mark.parametrize("after", range(3))
@pytest.mark.parametrize("others", [0, 1])
def test_an_interrupt_that_could_not_be_stored(
    backend: Backend, commit: str, fault: Fault, after: int, others: int
) -> None:
    """Who answers it answers it for its own turn, and stores all of it."""
    pay, paid = paying()
    scene = Scene(backend, commit, lambda: {**unmanaged(), "tools": [pay]})
    switch = Switch(backend.database)
    manager = scene.manager(repository=backend.repository(switch, retry=NEVER))
    agent, other = scene.open("one", manager=manager), scene.open()
    agent("zero")
    agent.model = scene.model(CALL)
    switch.next = [*[None] * after, fault]
    outcome(lambda: agent("X"))
    switch.next = []
    waiting = list(agent._interrupt_state.interrupts.values())
    if not waiting:
        return  # it has ended before
    for number in range(others):
        other(f"o{number}")
    agent.model = scene.model("two")
    agent(answers(waiting, "Ada"))
    assert paid == ["Ada"]
    turns = [texts for _, texts in scene.turns()]
    assert (turns[0], turns[-1]) == (["zero", "one"], ["X", "call pay", PAID, "two"])
    assert len(turns) == 2 + others
    scene.check(agent)
    other("And?")
    scene.check(other)


@both
@ways
@pytest.mark.parametrize("when", ["before its next message", "when others came"])
def test_a_late_copy_of_a_claim(backend: Backend, commit: str, kind: str, when: str) -> None:
    """A claim that arrives once more, late, moves nothing that has gone on since."""
    case = stop(backend, commit, kind)
    switch = Switch(backend.database, duplicate_after=100)
    manager = case.scene.manager(repository=backend.repository(switch))
    agent = case.open(manager=manager)
    case.let_others_speak()
    switch.next = ["delayed_duplicate"]
    if when == "before its next message":
        agent.hooks.add_callback(BeforeModelCallEvent, lambda _: switch.deliver_late())
    case.go_on(agent)
    case.check(agent)
    case.other("And now?")
    before = backend.dump()
    switch.deliver_late()
    assert backend.dump() == before
    case.scene.check(case.other)


@both
@pytest.mark.guarantee(number=18)
@pytest.mark.parametrize("fault", ["lost_answer", None])
def test_a_process_that_ends_behind_its_claim(
    backend: Backend, commit: str, fault: Fault | None
) -> None:
    """Nobody answers the turn again, for its tool may have run; the session goes on."""
    pay, paid = paying()
    scene = Scene(backend, commit, lambda: {"tools": [pay]})
    prompt = interrupted(scene.open(CALL))
    switch, late = Switch(backend.database), scene.open()
    repository = backend.repository(switch, retry=NEVER)
    answering = scene.open(manager=scene.manager(repository=repository))

    def end(event: BeforeToolCallEvent) -> None:  # noqa: ARG001 - its name counts
        switch.down = "lost_request"
        raise RuntimeError("killed")

    answering.hooks.add_callback(BeforeToolCallEvent, end)
    switch.next = [fault]
    with pytest.raises(Exception, match="reached" if fault is None else "known"):
        answering(prompt)
    fresh = scene.open()
    for agent in (late, fresh):
        refused(lambda agent=agent: agent(prompt))  # type: ignore[misc]
    assert paid == []
    fresh("Did you pay?")
    assert asked(fresh) == ["Pay 5.", "call pay", f"result {STAND_IN}", "Did you pay?"]
    scene.check(fresh)


@both
@ways
def test_nothing_is_made_up_while_a_turn_waits(backend: Backend, commit: str, kind: str) -> None:
    """Who opens the session meanwhile is given no result that nobody gave."""
    case = stop(backend, commit, kind)
    for _ in range(2):
        case.no_stand_in(case.stopped, case.open(), case.other)
        case.let_others_speak()
    assert case.scene.invalid == []


@both
@ways
def test_others_know_a_turn_that_went_on(backend: Backend, commit: str, kind: str) -> None:
    """A writer that was open all along has the turn where it stands now, as a new process does."""
    case = stop(backend, commit, kind)
    case.let_others_speak()
    case.go_on(case.open())
    if commit == "turn":
        case.other("Are you there?")
    known = said(case.scene.open().messages)
    case.other("And now?")
    assert said(calls(case.other)[-1]) == [*known, "And now?"]
    case.scene.check(case.other)
    case.no_stand_in(case.other)


@both
@places
def test_interrupts_that_are_answered_one_by_one(backend: Backend, commit: str, where: str) -> None:
    """Two calls of one message wait for two answers, which come with others' turns between them."""
    pay, paid = paying()
    scene = Scene(backend, commit, lambda: {"tools": [pay]})
    other = scene.open()
    two = [ToolCall("pay", {"amount": 1}, "p1"), ToolCall("pay", {"amount": 2}, "p2")]
    agent = scene.open(two, "Done.")
    interrupts = list(agent("Pay both.").interrupts or ())
    assert len(interrupts) == 2
    for who in ("Ada", "Ben"):
        other("What time?")
        if where == "another process":
            agent = scene.open("Done.")
        first = [one for one in interrupts if "p1" in one.id] or interrupts
        result = agent(answers(first[:1], who))
        interrupts = list(result.interrupts or ())
    assert result.stop_reason == "end_turn"
    assert paid == ["Ada", "Ben"]
    own = [
        "Pay both.",
        "call pay call pay",
        "result paid 1, approved by Ada result paid 2, approved by Ben",
        "Done.",
    ]
    assert scene.turns()[-1][1] == own
    assert scene.transcript()[-4:] == own
    assert len(scene.rows()) == 8
    scene.check(agent)
    assert STAND_IN not in str(backend.dump())


@both
def test_a_turn_that_stops_twice(backend: Backend, commit: str) -> None:
    """A turn that stops again after it has gone on stays one turn, and each stop has its answer."""
    pay, paid = paying()
    scene = Scene(backend, commit, lambda: {"tools": [pay]})
    other = scene.open()
    again = ToolCall("pay", {"amount": 6}, "p2")
    prompt: Any = "Pay."
    for replies, who in (([CALL], "Ada"), ([again], "Ben"), (["Done."], None)):
        agent = scene.open(*replies)
        result = agent(prompt)
        other("What time?")
        prompt = answers(result.interrupts, who)
    assert paid == ["Ada", "Ben"]
    blocks = [texts for _, texts in scene.turns()]
    own = [
        *("Pay.", "call pay", PAID),
        *("call pay", "result paid 6, approved by Ben", "Done."),
    ]
    assert own in blocks
    assert len(blocks) == 4
    scene.check(other)
    assert scene.invalid == []


# -- cost ------------------------------------------------------------------------------------------


@both
@places
@pytest.mark.parametrize("kind", [*INTERRUPTS, "the model fails", "the model fails after a tool"])
def test_going_on_costs_one_more_round_trip(
    backend: Backend, commit: str, where: str, kind: str
) -> None:
    """Whoever goes on asks once whether he may, and pays for the rest what a turn costs."""
    case = stop(backend, commit, kind)
    agent = case.stopped if where == "the same process" else case.open()
    backend.database.reset()
    case.go_on(agent)
    messages = len(case.way.after)
    assert backend.database.round_trips <= 1 + (1 if commit == "turn" else messages)


@both
def test_a_turn_that_was_not_stopped_costs_no_more(backend: Backend, commit: str) -> None:
    """Plain prompts don't ask whether they may."""
    scene = Scene(backend, commit)
    agent = scene.open()
    agent("q0")
    backend.database.reset()
    agent("q1")
    assert backend.database.round_trips == (1 if commit == "turn" else 2)


@both
def test_state_is_kept_when_a_turn_goes_on(backend: Backend, commit: str) -> None:
    """State that others set while a turn waited is there when it goes on, and after it."""
    case = stop(backend, commit, "a tool interrupts")
    case.other.state.set("noon", True)
    case.let_others_speak()
    agent = case.open()
    assert agent.state.get("noon") is True
    agent.state.set("approved", 1)
    case.go_on(agent)
    assert state_in_database(backend) == {"noon": True, "approved": 1}
    assert memory(agent)["interrupts"]["activated"] is False
    case.scene.check(agent)
