"""A restored agent is the agent that stopped, whatever its conversation manager has done."""

from collections.abc import Callable
from typing import Any

import pytest
from strands import Agent
from strands.agent.conversation_manager import (
    SlidingWindowConversationManager,
)
from strands.types.content import Messages

from strands_persql.testing import Reply, ScriptedModel, ToolCall
from tests.contract.agents import (
    OVERFLOW,
    Options,
    Scene,
    asked,
    both,
    calls,
    contents,
    in_a_small_window,
    is_for_summary,
    long_talk,
    needs,
    pin,
    sliding,
    step,
    summarizing,
    talk,
    unmanaged,
)
from tests.support.backends import Backend
from tests.support.conversation import said

pytestmark = pytest.mark.backends("memory")

# -- windows ---------------------------------------------------------------------------------------


@pytest.mark.guarantee(number=17)
@both
@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 7])
def test_a_sliding_window(backend: Backend, commit: str, size: int) -> None:
    """The window is restored as it stands, whatever its size, after each turn."""
    scene = Scene(backend, commit, sliding(size))
    talk(scene, scene.open(), 6)


@both
@pytest.mark.parametrize("per_turn", [True, 2, 3])
def test_a_window_that_moves_within_a_turn(backend: Backend, commit: str, per_turn: Any) -> None:
    """What a window drops between two calls of a model, within one turn, stays dropped."""
    scene = Scene(backend, commit, sliding(4, per_turn=per_turn))
    agent = scene.open("a0", *[ToolCall("step")] * 6, "done")
    for number in range(3):
        agent(f"q{number}")
        scene.check(agent)
    scene.check_rows()


@both
def test_the_default_window_over_a_long_turn(backend: Backend, commit: str) -> None:
    """A turn of more messages than the window is restored as the window left it."""
    scene = Scene(backend, commit, sliding())
    agent = scene.open(*[ToolCall("step")] * 35, "done")
    agent("job")
    assert len(agent.messages) < 40 < len(scene.said)
    scene.check(agent)
    scene.check_rows()
    agent("and now?")
    scene.check(agent)


@both
def test_tool_results_that_are_truncated_in_place(backend: Backend, commit: str) -> None:
    """A result that an overflow truncates is restored truncated, and its row has only that."""
    scene = Scene(backend, commit, sliding())
    words = "word " * 400
    agent = scene.open("hello", ToolCall("step", {"note": words}), OVERFLOW, "done")
    agent("hi")
    agent("go")
    assert "[truncated" in said(agent.messages)[4]
    scene.check(agent)
    scene.check_rows()
    assert not any(f"result {words}" in text for text in scene.transcript())


@both
def test_an_older_result_that_is_truncated_in_a_later_turn(backend: Backend, commit: str) -> None:
    """An overflow in a later turn, before anything was answered in it, changes an older row."""
    scene = Scene(backend, commit, sliding())
    agent = scene.open(ToolCall("step", {"note": "word " * 400}), "done", OVERFLOW, "fine")
    agent("go")
    scene.check(agent)
    agent("next")
    assert "[truncated" in said(agent.messages)[2]
    scene.check(agent)
    scene.check_rows()


@both
def test_an_overflow_that_trims(backend: Backend, commit: str) -> None:
    """An overflow with nothing to truncate drops old messages in the middle of a turn."""
    scene = Scene(backend, commit, sliding(20))
    agent = scene.open("a0", "a1", ToolCall("step"), OVERFLOW, "done")
    for number in range(3):
        agent(f"q{number}")
    assert said(agent.messages)[0] == "q1"
    scene.check(agent)
    scene.check_rows()


# -- summaries -------------------------------------------------------------------------------------


@both
def test_a_summary_when_a_turn_begins(backend: Backend, commit: str) -> None:
    """A summary that was never said stands before what is left, and the rows have all of it."""
    scene = Scene(backend, commit, summarizing())
    agent = scene.open("a0", "a1", "a2", OVERFLOW, "a3")
    for number in range(4):
        agent(f"q{number}")
    assert said(agent.messages)[0] == "summary 1"
    scene.check(agent)
    scene.check_rows()


@both
def test_two_summaries(backend: Backend, commit: str) -> None:
    """A summary of a summary is restored, with what was said since."""
    scene = Scene(backend, commit, summarizing())
    agent = scene.open("a0", "a1", "a2", OVERFLOW, "a3", "a4", OVERFLOW, "a5")
    for number in range(6):
        agent(f"q{number}")
        scene.check(agent)
    assert said(agent.messages)[0] == "summary 2"
    scene.check_rows()


@both
def test_two_summaries_in_one_turn(backend: Backend, commit: str) -> None:
    """Two overflows of one turn leave the second summary alone."""
    scene = Scene(backend, commit, summarizing())
    job: list[Reply] = [ToolCall("step"), OVERFLOW, ToolCall("count"), OVERFLOW, "done"]
    agent = scene.open("a0", "a1", "a2", *job)
    for number in range(4):
        agent(f"q{number}")
    assert said(agent.messages)[0] == "summary 2"
    scene.check(agent)
    scene.check_rows()
    agent("next")
    scene.check(agent)


@both
def test_a_summary_in_the_middle_of_a_turn(backend: Backend, commit: str) -> None:
    """A summary may take in the first messages of the turn that is under way."""
    scene = Scene(backend, commit, summarizing(summary_ratio=0.8))
    agent = scene.open("a0", *[ToolCall("step")] * 4, OVERFLOW, ToolCall("count"), "done")
    agent("q0")
    agent("q1")
    assert said(agent.messages)[0] == "summary 1"
    assert "q1" not in said(agent.messages)
    scene.check(agent)
    scene.check_rows()


@both
def test_a_summary_of_a_summarizing_agent_of_its_own(backend: Backend, commit: str) -> None:
    """A summary that another agent wrote is no different."""

    def make() -> dict[str, Any]:
        writer = Agent(model=ScriptedModel(lambda _: "in short"), callback_handler=None)
        return summarizing(summarization_agent=writer)()

    scene = Scene(backend, commit, make)
    agent = scene.open("a0", "a1", "a2", OVERFLOW, "a3")
    for number in range(4):
        agent(f"q{number}")
    assert said(agent.messages)[0] == "in short"
    scene.check(agent)
    scene.check_rows()


# -- pins ------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("pinned", [1, 2, 3])
def test_pins_at_the_start(backend: Backend, commit: str, pinned: int) -> None:
    """Pinned first messages stand before the window, with their marks."""
    needs("pinned messages")
    scene = Scene(backend, commit, sliding(6, pin_first=pinned))
    agent = scene.open()
    talk(scene, agent, 8)
    assert said(agent.messages)[0] == "q0"


@both
@pytest.mark.parametrize("index", [0, 2, 3, 5])
def test_pins_in_the_middle(backend: Backend, commit: str, index: int) -> None:
    """A message, a call or a result that is pinned later stays while all around it is dropped."""
    needs("pinned messages")
    scene = Scene(backend, commit, sliding(4))
    agent = scene.open("a0", ToolCall("step"), "a1")
    agent("q0")
    agent.conversation_manager = SlidingWindowConversationManager(40)
    agent("q1")
    pin(agent.messages, index)
    kept = said(agent.messages)[index]
    agent.conversation_manager = SlidingWindowConversationManager(4)
    for number in range(2, 6):
        agent(f"q{number}")
        scene.check(agent)
    assert kept in said(agent.messages)[:2]
    scene.check_rows()


@both
def test_pins_and_summaries(backend: Backend, commit: str) -> None:
    """Pins stand before the summary of what lay between them and the rest."""
    needs("pinned messages")
    scene = Scene(backend, commit, summarizing(pin_first=1))
    agent = scene.open("a0", "a1", "a2", OVERFLOW, "a3", "a4", OVERFLOW, "a5")
    for number in range(6):
        agent(f"q{number}")
        scene.check(agent)
    assert said(agent.messages)[:2] == ["q0", "summary 2"]
    scene.check_rows()


@both
def test_a_pin_that_is_taken_off(backend: Backend, commit: str) -> None:
    """A message that isn't pinned any more is restored without its mark, and then dropped."""
    needs("pinned messages")
    scene = Scene(backend, commit, sliding(4, pin_first=1))
    agent = scene.open()
    talk(scene, agent, 5)
    del agent.messages[0]["metadata"]
    agent("a plain turn")
    scene.check(agent)
    assert "q0" not in said(agent.messages)
    scene.check_rows()


# -- proactive compression and context managers ----------------------------------------------------


@both
@pytest.mark.parametrize("make", [sliding, summarizing])
def test_proactive_compression(backend: Backend, commit: str, make: Callable[..., Options]) -> None:
    """Messages that are compressed before the window is full are restored compressed."""
    options = make(proactive_compression={"compression_threshold": 0.5})
    scene = Scene(backend, commit, options)
    agent = scene.open("a0", ToolCall("step"), "a1", "a2", ToolCall("step"), "a3", "a4")
    in_a_small_window(agent, 100)
    for number in range(5):
        agent(f"q{number} " + "word " * 60)
        scene.check(agent)
    assert len(agent.messages) < len(scene.said)
    scene.check_rows()


CONTEXT_MANAGERS: dict[str, Callable[[], Any]] = {
    "auto": lambda: "auto",
    "agentic": lambda: "agentic",
    "proactive_summarization": lambda: {"strategies": ["proactive_summarization"]},
    "large_tool_offloading": lambda: {"strategies": ["large_tool_offloading"]},
    "overflow_protection": lambda: {"strategies": ["overflow_protection"]},
    "stale_tool_cleanup": lambda: {"strategies": ["stale_tool_cleanup"]},
    "no stash": lambda: {"strategies": ["large_tool_offloading"], "stash": False},
}


@both
@pytest.mark.parametrize("mode", CONTEXT_MANAGERS)
def test_context_managers(backend: Backend, commit: str, mode: str) -> None:
    """What a context manager offloads, summarizes, truncates or drops is restored so."""
    needs("context managers")
    scene = Scene(
        backend, commit, lambda: {"context_manager": CONTEXT_MANAGERS[mode](), "tools": [step]}
    )
    agent = scene.open()
    long_talk(scene, agent)
    assert contents(agent.messages) != contents([then for _, then in scene.said])
    scene.check_rows(edited=False)


@both
def test_a_context_manager_that_overflows(backend: Backend, commit: str) -> None:
    """A model that overflows in the middle of a turn has its oldest messages dropped."""
    needs("context managers")
    scene = Scene(backend, commit, lambda: {"context_manager": "auto", "tools": [step]})
    replies: list[Reply] = ["a0", "a1", "a2", ToolCall("step"), OVERFLOW, "a3"]
    agent = scene.open(*replies)
    for number in range(4):
        agent(f"q{number}")
        scene.check(agent)
    assert len(agent.messages) < len(scene.said)
    scene.check_rows(edited=False)


@both
def test_a_model_that_manages_its_own_context(backend: Backend, commit: str) -> None:
    """A model's own tools pin, summarize and truncate in the middle of a turn."""
    needs("context managers")
    scene = Scene(backend, commit, lambda: {"context_manager": "agentic", "tools": [step]})
    agent = scene.open(
        *("a0", "a1", "a2", "a3"),
        ToolCall("pin_context", {"select": [2]}),
        ToolCall("summarize_context", {"keep_recent": 2, "summary_ratio": 0.5}),
        "a4",
        ToolCall("truncate_context", {"keep_recent": 2}),
        "a5",
    )
    for number in range(6):
        agent(f"q{number}")
        scene.check(agent)
    assert "q1" in said(agent.messages)
    assert len(agent.messages) < len(scene.said)
    scene.check_rows()


# -- new processes ---------------------------------------------------------------------------------


RELAYS: dict[str, tuple[Options, int]] = {
    "a window": (sliding(5), 10),
    "a window that moves within turns": (sliding(8, per_turn=True), 10),
    "summaries": (summarizing(), 10),
    "no management": (unmanaged, 4),
}


def answering(messages: Messages) -> Reply:
    """Answer by what is given alone, and overflow when that is much."""
    latest = said(messages)[-1]
    if is_for_summary(messages):
        return f"summary of {len(messages) - 1}"
    if len(messages) > 11:
        return OVERFLOW
    if latest.startswith("use"):
        return ToolCall("step", {"note": latest}, f"call of {latest}")
    return f"answer to {latest}"


@both
@pytest.mark.parametrize("kind", RELAYS)
def test_a_new_process_for_each_turn(backend: Backend, commit: str, kind: str) -> None:
    """A conversation whose process ends after each turn is the one that was never interrupted."""
    make, turns = RELAYS[kind]
    scene = Scene(backend, commit, make)
    never_stopped = Agent(model=ScriptedModel(answering), callback_handler=None, **make())
    for number in range(turns):
        prompt = f"use {number}" if number % 2 else f"q{number}"
        never_stopped(prompt)
        agent = scene.open(replying=answering)
        agent(prompt)
        given = [contents(each) for each in calls(agent)]
        assert given == [contents(each) for each in calls(never_stopped)[-len(given) :]]
        assert contents(agent.messages) == contents(never_stopped.messages)
        removed = agent.conversation_manager.removed_message_count
        assert removed == never_stopped.conversation_manager.removed_message_count
        scene.check(agent)


@both
def test_pins_over_many_processes(backend: Backend, commit: str) -> None:
    """A pin set by one process is kept by all that follow, and the model is given no more."""
    needs("pinned messages")
    scene = Scene(backend, commit, sliding(6, pin_first=1))
    never_stopped = Agent(
        model=ScriptedModel(lambda _: "ok"), callback_handler=None, **sliding(6, pin_first=1)()
    )
    for number in range(12):
        never_stopped(f"q{number}")
        agent = scene.open(replying=lambda _: "ok")
        agent(f"q{number}")
        assert asked(agent) == asked(never_stopped)
        assert said(agent.messages) == said(never_stopped.messages)
