"""The end of a turn: it is stored whatever ends it, in one moment with what the end has changed."""

import asyncio
import inspect
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from strands import Agent, ToolContext, tool
from strands.agent.conversation_manager import ConversationManager, SlidingWindowConversationManager
from strands.hooks import AfterInvocationEvent, MessageAddedEvent
from strands.types.content import Message

from strands_persql.testing import Redact, Reply, ScriptedModel, ToolCall
from tests.contract.agents import (
    COMMITS,
    OVERFLOW,
    Options,
    Scene,
    both,
    edit,
    manager_of,
    needs,
    pin,
    sliding,
    step,
    summarizing,
    unmanaged,
)
from tests.support import backends
from tests.support.backends import Backend
from tests.support.conversation import count, said

pytestmark = pytest.mark.backends("memory", "http")

REPLIES: list[Reply] = [ToolCall("count"), "done"]
SAID = ["go", "call count", "result 1", "done"]


def soon(condition: Callable[[], bool]) -> bool:
    """Whether something holds, or does in a moment."""
    deadline = time.monotonic() + 2.0
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def check_stored(scene: Scene, texts: list[str], **state: Any) -> None:
    """Assert that a new process is given a turn and the state beside it."""
    assert soon(lambda: scene.transcript() == texts), scene.transcript()
    fresh = scene.open()
    assert said(fresh.messages) == texts
    assert fresh.state.get() == state


# -- hooks -----------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("kind", ["a function", "a coroutine"])
def test_a_hook_that_raises_at_the_end(backend: Backend, commit: str, kind: str) -> None:
    """A turn is stored though a hook raises when it is over, with the state that the hook set."""

    def fail(event: AfterInvocationEvent) -> None:
        event.agent.state.set("logged", False)
        raise OSError("the audit log is full")

    async def fail_later(event: AfterInvocationEvent) -> None:
        await asyncio.sleep(0)
        fail(event)

    scene = Scene(backend, commit, unmanaged)
    agent = scene.open(*REPLIES)
    hook: Any = fail if kind == "a function" else fail_later
    agent.hooks.add_callback(AfterInvocationEvent, hook)
    with pytest.raises(OSError, match="audit log"):
        agent("go")
    check_stored(scene, SAID, n=1, logged=False)


@both
def test_a_hook_that_raises_after_each_turn(backend: Backend, commit: str) -> None:
    """An agent whose hook always raises goes on from turn to turn, and loses none of them."""

    def fail(event: AfterInvocationEvent) -> None:
        raise OSError(f"the audit log of {event.agent.agent_id} is full")

    scene = Scene(backend, commit, sliding(4))
    agent = scene.open()
    agent.hooks.add_callback(AfterInvocationEvent, fail)
    for number in range(4):
        with pytest.raises(OSError, match="audit log"):
            agent(f"q{number}")
        expected = 2 * number + 2
        assert soon(lambda expected=expected: len(scene.rows()) == expected)  # type: ignore[misc]
    scene.check_rows()
    scene.check(agent)


@both
def test_a_caller_that_is_cancelled_in_a_hook(backend: Backend, commit: str) -> None:
    """A turn is stored though its caller hangs up while a hook runs at its end."""
    scene = Scene(backend, commit, unmanaged)
    agent = scene.open(*REPLIES)

    async def hang_up() -> None:
        waiting = asyncio.Event()

        async def wait(event: AfterInvocationEvent) -> None:
            event.agent.state.set("waited", True)
            waiting.set()
            await asyncio.sleep(60)

        agent.hooks.add_callback(AfterInvocationEvent, wait)
        turn = asyncio.ensure_future(agent.invoke_async("go"))
        await asyncio.wait_for(waiting.wait(), 30)
        turn.cancel()
        with pytest.raises(asyncio.CancelledError):
            await turn

    asyncio.run(hang_up())
    check_stored(scene, SAID, n=1, waited=True)


@both
def test_state_that_a_later_hook_sets(backend: Backend, commit: str) -> None:
    """State is stored that a hook sets behind the manager, at the end or for a message."""
    scene = Scene(backend, commit, unmanaged)
    agent = scene.open(*REPLIES)
    added: list[str] = []

    def note(event: MessageAddedEvent) -> None:
        added.append(event.message["role"])
        event.agent.state.set("added", list(added))

    agent.hooks.add_callback(MessageAddedEvent, note)
    agent("go")
    check_stored(scene, SAID, n=1, added=["user", "assistant", "user", "assistant"])


@both
def test_state_that_the_very_last_hook_sets(backend: Backend, commit: str) -> None:
    """State is stored that a hook sets when the manager has been told that the turn is over."""
    from strands import hooks  # noqa: PLC0415 - older versions have no orders

    if not hasattr(hooks, "HookOrder"):
        pytest.skip("this version of strands-agents has no orders of hooks")
    scene = Scene(backend, commit, unmanaged)
    agent = scene.open(*REPLIES)

    def note(event: AfterInvocationEvent) -> None:
        event.agent.state.set("over", True)

    agent.hooks.add_callback(AfterInvocationEvent, note, order=hooks.HookOrder.SDK_LAST)
    agent("go")
    check_stored(scene, SAID, n=1, over=True)


# -- conversation managers -------------------------------------------------------------------------


class Failing(ConversationManager):
    """A conversation manager that can't manage."""

    def apply_management(self, agent: Agent, **kwargs: Any) -> None:
        raise ArithmeticError("nobody can count that far")

    def reduce_context(self, agent: Agent, e: Exception | None = None, **kwargs: Any) -> None:
        raise ArithmeticError("nobody can count that far")


@both
def test_a_conversation_manager_that_raises_at_the_end(backend: Backend, commit: str) -> None:
    """A turn is stored though its conversation manager raises, and so is the next one."""
    scene = Scene(
        backend, commit, lambda: {"conversation_manager": Failing(), "tools": [step, count]}
    )
    agent = scene.open(*REPLIES, "again")
    with pytest.raises(ArithmeticError):
        agent("go")
    check_stored(scene, SAID, n=1)
    with pytest.raises(ArithmeticError):
        agent("and now?")
    check_stored(scene, [*SAID, "and now?", "again"], n=1)


@both
def test_an_error_that_stays_when_the_end_fails_too(backend: Backend, commit: str) -> None:
    """What a turn said until its model failed is stored though its conversation manager raises."""
    scene = Scene(
        backend, commit, lambda: {"conversation_manager": Failing(), "tools": [step, count]}
    )
    agent = scene.open(ToolCall("count"), RuntimeError("overloaded"))
    with pytest.raises(ArithmeticError):
        agent("go")
    check_stored(scene, SAID[:3], n=1)


# -- answers that were waiting to be stored --------------------------------------------------------


@both
@pytest.mark.parametrize("when", ["its stream is closed", "its stream is left alone"])
def test_a_stream_that_nobody_reads_to_its_end(backend: Backend, commit: str, when: str) -> None:
    """A turn whose reader leaves when the answer is there is stored as far as it was said."""
    scene = Scene(backend, commit, unmanaged)
    agent = scene.open("done")

    async def leave() -> None:
        stream = agent.stream_async("go")
        async for event in stream:
            if "message" in event and event["message"]["role"] == "assistant":
                break
        if when == "its stream is closed":
            await stream.aclose()  # type: ignore[attr-defined]

    asyncio.run(leave())
    check_stored(scene, ["go", "done"])


@both
def test_an_answer_is_stored_before_the_next_message(backend: Backend, commit: str) -> None:
    """Messages that are appended behind a turn stand behind it."""
    scene = Scene(backend, commit, unmanaged)
    manager = scene.manager()
    agent = scene.open("done", manager=manager)
    agent("go")
    manager.append_message({"role": "user", "content": [{"text": "by hand"}]}, agent)
    assert scene.transcript() == ["go", "done", "by hand"]


@both
def test_a_redaction_never_goes_to_the_call_before(backend: Backend, commit: str) -> None:
    """A guardrail that redacts a tool's result leaves the call as it was."""
    scene = Scene(backend, commit, unmanaged)
    agent = scene.open(ToolCall("step", {"note": "the SECRET"}), Redact("[gone]", "No."))
    agent("go")
    rows = scene.rows()
    assert said([row["message"] for row in rows]) == ["go", "call step", "result [gone]", "No."]
    assert rows[1]["message"] == agent.messages[1]
    scene.check(agent)


@both
def test_a_turn_that_says_nothing_more(backend: Backend, commit: str) -> None:
    """A turn that ends with a tool's result is stored to its end."""

    @tool(context=True)
    def last(tool_context: ToolContext) -> str:
        """Be the last thing that happens."""
        tool_context.agent.cancel()
        return "the end"

    scene = Scene(backend, commit, lambda: {**unmanaged(), "tools": [last]})
    agent = scene.open(ToolCall("last"), "never said")
    agent("go")
    assert scene.transcript()[:3] == ["go", "call last", "result the end"]
    scene.check(agent)


# -- events outside a turn -------------------------------------------------------------------------


@both
def test_an_event_that_is_dispatched_synchronously(backend: Backend, commit: str) -> None:
    """A message that a user's own code announces is stored, or the error says what to call."""
    scene = Scene(backend, commit, unmanaged)
    agent = scene.open()
    message: Message = {"role": "user", "content": [{"text": "by hand"}]}
    agent.messages.append(message)
    event = MessageAddedEvent(agent=agent, message=message)
    try:
        agent.hooks.invoke_callbacks(event)
    except Exception as error:
        if "invoke_callbacks_async" not in str(error) and "append_message" not in str(error):
            raise
    else:
        assert scene.transcript() == ["by hand"]


def test_a_storage_that_the_manager_does_not_use(backend: Backend) -> None:
    """An agent with a storage of its own gets the warning that Strands' manager gives."""
    if "storage" not in inspect.signature(Agent).parameters:
        pytest.skip("agents of this version of strands-agents have no storage")
    from strands.storage import InMemoryStorage  # noqa: PLC0415 - older versions have none

    scene = Scene(backend)
    with pytest.warns(UserWarning, match="storage"):
        scene.open(storage=InMemoryStorage())


# -- the main thread's end -------------------------------------------------------------------------

_PROGRAM = """
import asyncio, atexit, sys, threading, time
from strands import Agent
from strands_persql import LocalDatabase, PerSQLSessionManager
from strands_persql.testing import ScriptedModel

path, commit, how = sys.argv[1:]
session = PerSQLSessionManager("s", LocalDatabase(path), commit=commit)
agent = Agent(
    model=ScriptedModel(["hello"], delay=0.3), agent_id="a", session_manager=session,
    callback_handler=None, state={"n": 0},
)

def turn(wait=0.0):
    time.sleep(wait)
    agent.state.set("n", 1)
    asyncio.run(agent.invoke_async("hi"))

if how == "a thread that is in its turn":
    threading.Thread(target=lambda: agent("hi")).start()
    agent.state.set("n", 1)
    time.sleep(0.1)
elif how == "a loop that is in its turn":
    threading.Thread(target=turn).start()
    time.sleep(0.1)
elif how == "a thread that begins later":
    threading.Thread(target=turn, args=(0.3,)).start()
else:
    atexit.register(turn)
"""


@pytest.mark.parametrize("commit", COMMITS)
@pytest.mark.parametrize(
    "how",
    [
        "a thread that is in its turn",
        "a loop that is in its turn",
        "a thread that begins later",
        "an atexit handler",
    ],
)
def test_a_turn_that_outlives_the_main_thread(tmp_path: Path, commit: str, how: str) -> None:
    """A turn that ends, or begins, when the main thread has ended is stored."""
    path = tmp_path / "sessions.db"
    done = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-c", _PROGRAM, str(path), commit, how],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Error" not in done.stderr, done.stderr
    with backends.opened("file", tmp_path) as backend:
        check_stored(Scene(backend, commit), ["hi", "hello"], n=1)


# -- round trips -----------------------------------------------------------------------------------


def trimming(scene: Scene) -> Agent:
    """Make an agent whose window trims in each turn."""
    agent = scene.open()
    for number in range(6):
        agent(f"q{number}")
    assert len(agent.messages) == 4
    return agent


def pinned(scene: Scene) -> Agent:
    """Make an agent that has pinned messages before its window, which trims in each turn."""
    needs("pinned messages")
    agent = scene.open()
    agent("q0")
    pin(agent.messages, 0)
    for number in range(1, 6):
        agent(f"q{number}")
    assert said(agent.messages)[0] == "q0"
    return agent


def summed_up(scene: Scene) -> Agent:
    """Make an agent that works behind a summary."""
    agent = scene.open("a0", "a1", "a2", OVERFLOW, "a3")
    for number in range(4):
        agent(f"q{number}")
    assert said(agent.messages)[0] == "summary 1"
    return agent


def edited(scene: Scene) -> Agent:
    """Make an agent that has dropped, edited and put in messages."""
    agent = scene.open()
    for number in range(4):
        agent(f"q{number}")
    del agent.messages[2:4]
    edit(agent.messages, 0)
    agent.messages.insert(0, {"role": "user", "content": [{"text": "put in"}]})
    agent("and now?")
    return agent


def rewound(scene: Scene) -> Agent:
    """Make an agent that went back to an earlier point."""
    agent = scene.open()
    agent("q0")
    snapshot = agent.take_snapshot(preset="session")
    agent("q1")
    agent.load_snapshot(snapshot)
    agent("q2")
    return agent


def usual(scene: Scene) -> Agent:
    """Make an agent that works with all of its history."""
    agent = scene.open()
    agent("q0")
    return agent


VIEWS: dict[str, tuple[Options, Callable[[Scene], Agent]]] = {
    "all of it": (unmanaged, usual),
    "a window": (sliding(4), trimming),
    "pins": (sliding(4), pinned),
    "a summary": (summarizing(), summed_up),
    "edits": (unmanaged, edited),
    "a rewind": (unmanaged, rewound),
}


@both
@pytest.mark.parametrize("kind", ["plain", "tool"])
@pytest.mark.parametrize("view", VIEWS)
def test_round_trips_of_a_turn(backend: Backend, commit: str, kind: str, view: str) -> None:
    """A plain turn takes two round trips and a tool turn four, or one, whatever the view is."""
    make, prepare = VIEWS[view]
    scene = Scene(backend, commit, make)
    agent = prepare(scene)
    agent.model = scene.model(*[ToolCall("count")] * (kind == "tool"), "done")
    backend.database.reset()
    agent("go")
    trips = {"plain": 2, "tool": 4}[kind] if commit == "message" else 1
    assert backend.database.round_trips <= trips
    backend.database.reset()
    scene.check(agent)
    assert backend.database.round_trips == 1


@both
def test_round_trips_of_a_change_that_is_stored_by_itself(backend: Backend, commit: str) -> None:
    """A view that is changed outside a turn is stored in one round trip, or with the next turn."""
    scene = Scene(backend, commit, unmanaged)
    agent = usual(scene)
    agent.messages.clear()
    backend.database.reset()
    manager_of(agent).sync_agent(agent)
    assert backend.database.round_trips == 1
    scene.check(agent)


@both
def test_a_window_that_trims_costs_no_round_trip_more_over_a_long_turn(
    backend: Backend, commit: str
) -> None:
    """A turn of five tool calls takes as many round trips with a window that trims as without."""
    trips = []
    for number, make in enumerate((unmanaged, sliding(4), sliding(4, per_turn=True))):
        scene = Scene(backend, commit, make, session_id=f"s{number}")
        agent = scene.open()
        for turn in range(3):
            agent(f"q{turn}")
        agent.model = scene.model(*[ToolCall("step")] * 5, "done")
        backend.database.reset()
        agent("go")
        trips.append(backend.database.round_trips)
        scene.check(agent)
    assert trips[1:] == [trips[0]] * 2
    assert isinstance(agent.conversation_manager, SlidingWindowConversationManager)
    assert isinstance(agent.model, ScriptedModel)
