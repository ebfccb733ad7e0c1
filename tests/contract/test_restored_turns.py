"""A restored agent is the agent that stopped: redactions, continuation, beginnings, waiting."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from strands import Agent, ToolContext, tool
from strands.hooks import AfterInvocationEvent, BeforeModelCallEvent
from strands.types.content import Message

from strands_persql.testing import FaultyDatabase, Redact, Reply, ToolCall
from tests.contract.agents import (
    OVERFLOW,
    Options,
    Scene,
    both,
    invalid,
    mark,
    memory,
    needs,
    outcome,
    sliding,
    step,
    summarizing,
    unmanaged,
)
from tests.support.backends import NEVER, Backend
from tests.support.conversation import assistant, said, user

pytestmark = pytest.mark.backends("memory")

SECRET = "the SECRET"  # noqa: S105 - no password

GUARDED: dict[str, list[Reply]] = {
    "the first prompt": [Redact("[gone]")],
    "a later prompt": ["a0", Redact("[gone]")],
    "a tool's result": ["a0", ToolCall("step", {"note": "x"}), Redact("[gone]")],
    "two prompts": [Redact("[gone]"), Redact("[gone too]")],
    "a prompt after a tool's turn": [ToolCall("step"), "a0", Redact("[gone]")],
}


@both
@pytest.mark.parametrize("make", [unmanaged, sliding(2), sliding(3)])
@pytest.mark.parametrize("which", GUARDED)
def test_a_guardrails_redaction(backend: Backend, commit: str, make: Options, which: str) -> None:
    """What a guardrail redacts is restored redacted, under a window that trims at once too."""
    scene = Scene(backend, commit, make)
    agent = scene.open(*GUARDED[which])
    for number in range(3):
        agent(f"q{number} {SECRET}")
        scene.check(agent)
        scene.check_rows()
    redacted = sum(text.endswith("[gone]") for text in scene.transcript())
    assert redacted == 1


@both
def test_a_redacted_text_is_in_no_row(backend: Backend, commit: str) -> None:
    """Nothing of a redacted prompt or result is left in any table, with a summary too."""

    @tool
    def leak() -> str:
        """Say what must not be said."""
        return SECRET

    scene = Scene(backend, commit, lambda: {**summarizing()(), "tools": [leak]})
    result: list[Reply] = [ToolCall("leak"), Redact("[gone as well]")]
    agent = scene.open("a0", Redact("[gone]"), *result, OVERFLOW, "a4")
    for prompt in ("q0", SECRET, "q2", "q3"):
        agent(prompt)
        scene.check(agent)
    assert "SECRET" not in str(backend.dump())
    scene.check_rows()


@both
def test_a_redaction_of_a_message_that_was_never_said(backend: Backend, commit: str) -> None:
    """A guardrail that redacts a message put in by hand leaves what was said last alone."""
    scene = Scene(backend, commit, unmanaged)
    agent = scene.open("a0", Redact("[gone]"))
    agent("q0")
    agent.messages.append(user(SECRET))
    agent(None)
    assert said(agent.messages)[:3] == ["q0", "a0", "[gone]"]
    scene.check(agent)
    assert scene.transcript()[:2] == ["q0", "a0"]
    assert "SECRET" not in str(backend.dump())


@both
def test_a_redaction_of_one_dict_that_was_said_twice(backend: Backend, commit: str) -> None:
    """A redaction of a prompt that was said before, as the same dict, redacts both."""
    scene = Scene(backend, commit, unmanaged)
    agent = scene.open("a0", Redact("[gone]"))
    prompt = user(SECRET)
    agent([prompt])
    agent([prompt])
    assert said(agent.messages)[::2] == ["[gone]", "[gone]"]
    scene.check(agent)
    scene.check_rows()
    assert "SECRET" not in str(backend.dump())


@both
def test_a_redaction_of_a_pinned_message(backend: Backend, commit: str) -> None:
    """A pinned prompt that is redacted stays pinned, and is restored redacted."""
    needs("pinned messages")
    scene = Scene(backend, commit, sliding(4, pin_first=1))
    agent = scene.open(Redact("[gone]"))
    for number in range(5):
        agent(f"q{number} {SECRET if number == 0 else ''}")
        scene.check(agent)
    assert said(agent.messages)[0] == "[gone]"
    assert "SECRET" not in str(backend.dump())


# -- continuation ----------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("make", [unmanaged, sliding(3), sliding(2)])
def test_an_agent_that_a_hook_resumes(backend: Backend, commit: str, make: Options) -> None:
    """What an agent says when a hook asks it to go on is restored with the rest."""
    prompts = iter(["and then?", "is that all?"])

    def resume(event: AfterInvocationEvent) -> None:
        event.resume = next(prompts, None)

    scene = Scene(backend, commit, make)
    agent = scene.open("a0", ToolCall("step"), "a1", "a2")
    agent.hooks.add_callback(AfterInvocationEvent, resume)
    agent("q0")
    assert len(scene.said) == 8
    scene.check(agent)
    scene.check_rows()


@both
@pytest.mark.parametrize("event_type", [AfterInvocationEvent, BeforeModelCallEvent])
def test_messages_that_join_the_conversation(
    backend: Backend, commit: str, event_type: Any
) -> None:
    """Input that Strands adds behind a turn or to a prompt is restored, each message once."""
    continuation = pytest.importorskip(
        "strands.agent._continuation",
        reason="this version of strands-agents has no continuation input",
    )
    added = iter(["and this"])

    def join(event: Any) -> None:
        for text in added:
            continuation.add_input(event, continuation._ContinuationInput(args=text))
            return

    scene = Scene(backend, commit, unmanaged)
    agent = scene.open()
    agent("q0")
    agent.hooks.add_callback(event_type, join)
    agent("q1")
    agent("q2")
    assert "and this" in str(agent.messages)
    scene.check(agent)
    assert scene.transcript() == said(agent.messages)


# -- initial messages ------------------------------------------------------------------------------


def initial(number: int) -> list[Message]:
    """Make messages that an agent begins with."""
    return [assistant(f"m{n}") if n % 2 else user(f"m{n}") for n in range(number)]


@both
@pytest.mark.parametrize("number", [0, 1, 2, 79, 80, 81, 120, 200])
def test_initial_messages(backend: Backend, commit: str, number: int) -> None:
    """Messages that an agent is made with are restored with it, before and after its first turn."""
    scene = Scene(backend, commit, unmanaged)
    agent = scene.open(messages=initial(number))
    scene.check(agent)
    assert scene.transcript() == [f"m{n}" for n in range(number)]
    assert len({turn for turn, _ in scene.turns()}) == min(number, 1)
    agent("q0")
    scene.check(agent)
    assert scene.transcript() == said(agent.messages)


@both
@pytest.mark.parametrize("number", [80, 81, 120])
def test_initial_messages_within_a_window(backend: Backend, commit: str, number: int) -> None:
    """A window that is shorter than what an agent is made with is restored after the first turn."""
    scene = Scene(backend, commit, sliding(10))
    agent = scene.open(messages=initial(number))
    agent("q0")
    assert len(agent.messages) <= 10
    scene.check(agent)
    assert scene.transcript()[-3:] == [f"m{number - 1}", "q0", "answer 1"]


@both
@pytest.mark.parametrize("number", [2, 81, 200])
@pytest.mark.parametrize("fault", ["lost_request", "lost_answer", "duplicate", "delayed_duplicate"])
def test_initial_messages_are_there_whole_or_not_at_all(
    backend: Backend, commit: str, number: int, fault: Any
) -> None:
    """Wherever the creation of an agent fails, the next process finds nothing of it, or all."""
    texts, other = [f"m{n}" for n in range(number)], user("another beginning")
    for place in range(1, 6):
        scene = Scene(backend, commit, unmanaged, session_id=f"s{place}")
        faulty = FaultyDatabase(backend.database, [None] * place + [fault])
        repository = backend.repository(faulty, retry=NEVER)

        def begin(scene: Scene = scene, repository: Any = repository) -> None:
            manager = backend.manager(scene.session_id, repository=repository, commit=commit)
            scene.open(manager=manager, messages=initial(number))

        outcome(begin)
        found = said(scene.open(messages=[other]).messages)
        assert found in (texts, ["another beginning"])
        faulty.deliver_late()
        assert said(scene.open().messages) == found


@both
def test_initial_messages_of_two_processes_at_once(backend: Backend, commit: str) -> None:
    """Of two new agents that begin with many messages one is created; both go on with it."""
    scene = Scene(backend, commit, unmanaged)
    managers = [scene.manager() for _ in range(2)]
    agents = [scene.open(manager=manager, messages=initial(120)) for manager in managers]
    assert scene.transcript() == [f"m{n}" for n in range(120)]
    for number, agent in enumerate(agents):
        agent(f"q{number}")
    scene.check(agents[1])
    assert len(scene.rows()) == 124


# -- what else an agent holds ----------------------------------------------------------------------


@both
def test_an_interrupt_that_waits(backend: Backend, commit: str) -> None:
    """An agent that waits for an answer is restored with its interrupts and its unanswered call."""

    @tool(context=True)
    def ask(tool_context: ToolContext) -> str:
        """Ask a human."""
        return str(tool_context.interrupt("approval", reason={"why": ["because"]}))

    scene = Scene(backend, commit, lambda: {**sliding(4)(), "tools": [ask, step]})
    agent = scene.open("a0", ToolCall("step"), "a1", [ToolCall("ask"), ToolCall("step")])
    for number in range(3):
        agent(f"q{number}")
    assert memory(agent)["interrupts"]["activated"]
    scene.check(agent)
    scene.check_rows()


@both
def test_state_of_any_moment(backend: Backend, commit: str) -> None:
    """State set between turns, by tools and by hooks is restored after the turn that follows."""
    scene = Scene(backend, commit, sliding(2))
    agent = scene.open(ToolCall("count"), ToolCall("count"), "a0")
    agent.hooks.add_callback(
        BeforeModelCallEvent,
        lambda event: event.agent.state.set("asked", len(event.agent.messages)),
    )
    for number in range(3):
        agent.state.set("before", {"turn": [number]})
        agent(f"q{number}")
        scene.check(agent)
    agent.state.delete("before")
    agent("last")
    assert "before" not in scene.check(agent).state.get()


def test_the_checks_can_fail(backend: Backend) -> None:
    """The proof's own checks tell apart what differs, and refuse what a model would refuse."""
    scene = Scene(backend, "message", unmanaged)
    agent = scene.open()
    agent("q0")
    scene.check(agent)
    scene.check_rows()
    for spoil in _spoils(agent):
        spoil()
        with pytest.raises(AssertionError):
            scene.check(agent)
    scene.said.pop()
    with pytest.raises(AssertionError):
        scene.check_rows()
    call: Message = {
        "role": "assistant",
        "content": [{"toolUse": {"toolUseId": "1", "name": "step", "input": {}}}],
    }
    result: Message = {
        "role": "user",
        "content": [{"toolResult": {"toolUseId": "1", "status": "success", "content": []}}],
    }
    assert invalid([user("q"), call, result]) == []
    for wrong in (
        [call],
        [result],
        [call, user("x")],
        [call, result, call, result],
        [result, call],
    ):
        assert invalid(wrong)


def _spoils(agent: Agent) -> Iterator[Callable[[], object]]:
    yield lambda: mark(agent.messages, 0)
    yield lambda: agent.state.set("x", 1)
    yield agent.messages.pop
