"""A restored agent is the agent that stopped, whatever an application did to its messages."""

import copy
from collections.abc import Callable
from typing import Any, cast

import pytest
from strands import Agent, ToolContext, tool
from strands.agent.conversation_manager import (
    SlidingWindowConversationManager,
)
from strands.types.content import Messages

from strands_persql.testing import ToolCall
from tests.contract.agents import (
    Options,
    Scene,
    both,
    contents,
    edit,
    manager_of,
    mark,
    sliding,
    talk,
    unmanaged,
)
from tests.support.backends import Backend
from tests.support.conversation import assistant, said, user

pytestmark = pytest.mark.backends("memory")


def another(messages: Messages, index: int) -> None:
    """Give a message another content."""
    messages[index]["content"] = [{"text": "another"}]


CHANGES: dict[str, Callable[[Agent], object]] = {
    "clear": lambda agent: agent.messages.clear(),
    "a new list": lambda agent: setattr(agent, "messages", []),
    "pop the latest": lambda agent: agent.messages.pop(),
    "pop the first": lambda agent: agent.messages.pop(0),
    "drop the first turn": lambda agent: agent.messages.__delitem__(slice(0, 2)),
    "drop in the middle": lambda agent: agent.messages.__delitem__(slice(2, 6)),
    "keep the latest turn": lambda agent: agent.messages.__delitem__(slice(0, -2)),
    "insert in front": lambda agent: agent.messages.insert(0, user("put in front")),
    "insert in the middle": lambda agent: agent.messages.insert(2, user("put in")),
    "append": lambda agent: agent.messages.append(user("appended")),
    "extend": lambda agent: agent.messages.extend([user("one more"), assistant("and another")]),
    "edit the first": lambda agent: edit(agent.messages, 0),
    "edit the latest": lambda agent: edit(agent.messages, -1),
    "edit two": lambda agent: edit(agent.messages, 0, -2),
    "another content": lambda agent: agent.messages[0].__setitem__(
        "content", [{"text": "another"}]
    ),
    "mark the first": lambda agent: mark(agent.messages, 0),
    "mark a result": lambda agent: mark(agent.messages, 4),
    "mark the latest": lambda agent: mark(agent.messages, -1),
    "replace one": lambda agent: agent.messages.__setitem__(0, user("in its place")),
    "copy the list": lambda agent: setattr(agent, "messages", list(agent.messages)),
    "copy all": lambda agent: setattr(agent, "messages", [*map(copy.copy, agent.messages)]),
    "copy deeply": lambda agent: setattr(agent, "messages", copy.deepcopy(agent.messages)),
    "copy and drop": lambda agent: setattr(agent, "messages", copy.deepcopy(agent.messages[2:])),
    "move to the front": lambda agent: agent.messages.insert(0, agent.messages.pop(-2)),
    "repeat one": lambda agent: agent.messages.append(agent.messages[0]),
    "swap": lambda agent: setattr(agent, "messages", agent.messages[6:8] + agent.messages[:6]),
}
"""What an application may do to an agent's messages between two turns."""

WITHIN = {
    "drop the first turn",
    "drop in the middle",
    "insert in front",
    "insert in the middle",
    "edit the first",
    "another content",
    "mark the first",
    "mark a result",
    "pop the first",
    "replace one",
    "copy the list",
    "copy all",
    "copy deeply",
    "copy and drop",
}
"""Those that leave the latest message alone."""

REPLACES = {"edit the first", "edit the latest", "edit two", "another content"}
"""Those after which the rows say something else."""

FREE = {"replace one"}
"""Those that may be taken for an edit, or for a message dropped and another one put in."""


def changed(scene: Scene) -> Agent:
    """Open an agent that has said eight messages, the third to sixth of them with a tool."""
    agent = scene.open("a0", ToolCall("step"), "a1", "a2")
    for number in range(3):
        agent(f"q{number}")
    assert len(agent.messages) == 8
    scene.check(agent)
    return agent


def check_changed(scene: Scene, agent: Agent, change: str) -> None:
    """Assert what must hold after a change: memory is restored, and the rows have what was said."""
    scene.check(agent)
    now, then = (said([one[place] for one in scene.said]) for place in (0, 1))
    never_said = set(said(agent.messages)) - {*now, *then}
    if change not in FREE:
        assert [text for text in scene.transcript() if text not in never_said] == now
    if change in REPLACES:
        replaced = set(then) - set(now)
        assert replaced
        assert not replaced & set(scene.transcript())


@pytest.mark.guarantee(number=17)
@both
@pytest.mark.parametrize("change", CHANGES)
def test_what_an_application_does_between_turns(backend: Backend, commit: str, change: str) -> None:
    """The next turn stores what was done to the messages before it."""
    scene = Scene(backend, commit, unmanaged)
    agent = changed(scene)
    CHANGES[change](agent)
    agent("q3")
    check_changed(scene, agent, change)
    agent("q4")
    check_changed(scene, agent, change)


@both
@pytest.mark.parametrize("change", CHANGES)
def test_what_an_application_does_and_stores(backend: Backend, commit: str, change: str) -> None:
    """``sync_agent``, outside a turn, stores what was done to the messages."""
    scene = Scene(backend, commit, unmanaged)
    agent = changed(scene)
    CHANGES[change](agent)
    manager_of(agent).sync_agent(agent)
    scene.check(agent)


@both
@pytest.mark.parametrize("change", CHANGES)
def test_a_restored_agents_messages_are_changed(backend: Backend, commit: str, change: str) -> None:
    """What is done to the messages of an agent that was restored is stored as well."""
    scene = Scene(backend, commit, unmanaged)
    agent = changed(scene)
    scene.said.clear()
    restored = scene.open()
    scene.said += [(message, copy.deepcopy(message)) for message in restored.messages]
    CHANGES[change](restored)
    restored("q3")
    check_changed(scene, restored, change)
    assert said(agent.messages)[0] == "q0"


@both
@pytest.mark.parametrize("change", sorted(WITHIN))
def test_what_a_tool_does_within_a_turn(backend: Backend, commit: str, change: str) -> None:
    """What a tool does to the agent's messages is stored by the turn that it is called in."""

    @tool(context=True)
    def meddle(tool_context: ToolContext) -> str:
        """Change the agent's messages."""
        CHANGES[change](tool_context.agent)
        return "done"

    scene = Scene(backend, commit, unmanaged)
    agent = changed(scene)
    agent.tool_registry.process_tools([meddle])
    agent.model = scene.model(ToolCall("meddle"), ToolCall("step"), "a3")
    agent("q3")
    check_changed(scene, agent, change)


@both
def test_a_message_that_is_said_and_dropped_in_one_turn(backend: Backend, commit: str) -> None:
    """What a turn says and drops again is in the rows and in nobody's memory."""

    @tool(context=True)
    def forget(tool_context: ToolContext) -> str:
        """Drop the oldest call and its result of this turn."""
        del tool_context.agent.messages[3:5]
        return "forgotten"

    scene = Scene(backend, commit, unmanaged)
    agent = scene.open("a0", ToolCall("step"), ToolCall("count"), ToolCall("forget"), "a1")
    agent.tool_registry.process_tools([forget])
    agent("q0")
    agent("q1")
    assert len(agent.messages) == len(scene.said) - 2
    scene.check(agent)
    scene.check_rows()


@both
def test_a_message_that_is_edited_in_the_turn_that_says_it(backend: Backend, commit: str) -> None:
    """An edit of a message of the same turn replaces its text in the rows."""

    @tool(context=True)
    def censor(tool_context: ToolContext) -> str:
        """Change the turn's prompt."""
        tool_context.agent.messages[-2]["content"] = [{"text": "[gone]"}]
        return "done"

    scene = Scene(backend, commit, unmanaged)
    agent = scene.open(ToolCall("censor"), "a0")
    agent.tool_registry.process_tools([censor])
    agent.messages.append(assistant("hello"))
    agent("the secret")
    scene.check(agent)
    assert "the secret" not in str(backend.dump())


@both
def test_a_rewind(backend: Backend, commit: str) -> None:
    """A snapshot that is loaded is what a restore brings, and what was said since is kept."""
    scene = Scene(backend, commit, unmanaged)
    agent = scene.open()
    agent.state.set("step", 1)
    agent("q0")
    snapshot = agent.take_snapshot(preset="session")
    agent.state.set("step", 2)
    agent("q1")
    agent.load_snapshot(snapshot)
    assert agent.state.get("step") == 1
    agent("q2")
    assert said(agent.messages) == ["q0", "answer 1", "q2", "answer 3"]
    scene.check(agent)
    scene.check_rows()


@both
def test_a_rewind_that_is_stored_without_a_turn(backend: Backend, commit: str) -> None:
    """``sync_agent`` stores a rewind, with the states that came with it."""
    scene = Scene(backend, commit, sliding(4))
    agent = scene.open()
    talk(scene, agent, 2)
    snapshot = agent.take_snapshot(preset="session")
    talk(scene, agent, 4)
    agent.load_snapshot(snapshot)
    manager_of(agent).sync_agent(agent)
    scene.check(agent)
    scene.check_rows()


@both
def test_a_rewind_behind_a_window_and_forward_again(backend: Backend, commit: str) -> None:
    """A rewind brings back what the window had dropped, and another one takes it away again."""
    scene = Scene(backend, commit, sliding(4))
    agent = scene.open()
    agent("q0")
    early = agent.take_snapshot(preset="session")
    talk(scene, agent, 5)
    late = agent.take_snapshot(preset="session")
    for snapshot in (early, late, early):
        agent.load_snapshot(snapshot)
        agent("again")
        scene.check(agent)
        scene.check_rows()


@both
def test_a_rewind_to_another_sessions_snapshot(backend: Backend, commit: str) -> None:
    """Messages that this session never said are restored, and stand in no row as if it had."""
    other = Scene(backend, commit, unmanaged, session_id="other")
    elsewhere = other.open()
    elsewhere("from elsewhere")
    scene = Scene(backend, commit, unmanaged)
    agent = scene.open()
    agent("q0")
    agent.load_snapshot(elsewhere.take_snapshot(preset="session"))
    agent("q1")
    assert said(agent.messages)[0] == "from elsewhere"
    scene.check(agent)
    assert [text for text in scene.transcript() if text[0] == "q"] == ["q0", "q1"]


@both
def test_an_agent_that_is_cleared_in_each_turn(backend: Backend, commit: str) -> None:
    """An application that begins anew each time finds nothing, and has all in the rows."""
    scene = Scene(backend, commit, unmanaged)
    agent = scene.open()
    for number in range(3):
        agent(f"q{number}")
        agent.messages.clear()
        manager_of(agent).sync_agent(agent)
        assert scene.check(agent).messages == []
    scene.check_rows()


# -- the same dict twice ---------------------------------------------------------------------------


@both
@pytest.mark.parametrize("make", [unmanaged, sliding(4), sliding(5), sliding()])
def test_one_dict_is_said_again_and_again(backend: Backend, commit: str, make: Options) -> None:
    """Occurrences of one message are told apart by their places, under a window too."""
    scene = Scene(backend, commit, make)
    agent = scene.open()
    go = user("go on")
    for _ in range(25):
        agent([go])
    scene.check(agent)
    scene.check_rows()
    agent("something else")
    scene.check(agent)
    scene.check_rows()


@both
@pytest.mark.parametrize("make", [unmanaged, sliding(4), sliding()])
@pytest.mark.parametrize("copied", ["all", "the last prompt", "the last message"])
def test_one_dict_is_said_again_behind_copies(
    backend: Backend, commit: str, make: Options, copied: str
) -> None:
    """A message that is said again is said again, where what was said before was replaced."""
    scene = Scene(backend, commit, make)
    agent = scene.open()
    go = user("go on")
    for _ in range(6):
        agent([go])
        if copied == "all":
            agent.messages = copy.deepcopy(agent.messages)
        elif copied == "the last prompt":
            agent.messages[-2] = copy.deepcopy(agent.messages[-2])
        else:
            agent.messages[-1] = copy.deepcopy(go)
    scene.check_rows(edited=False)
    agent("something else")
    scene.check(agent)
    scene.check_rows(edited=False)


@both
def test_equal_messages_are_not_the_same(backend: Backend, commit: str) -> None:
    """Messages that are equal, without being one, keep their number and their places."""
    scene = Scene(backend, commit, sliding(5))
    agent = scene.open(replying=lambda _: "ok")
    for _ in range(6):
        agent("go on")
        scene.check(agent)
    del agent.messages[0:2]
    agent("go on")
    scene.check(agent)
    scene.check_rows()


@both
def test_one_dict_twice_in_a_prompt(backend: Backend, commit: str) -> None:
    """A prompt of several messages may have one of them twice."""
    scene = Scene(backend, commit, unmanaged)
    agent = scene.open()
    again = user("again")
    agent([again, assistant("what?"), again])
    scene.check(agent)
    scene.check_rows()
    agent("next")
    scene.check(agent)


@both
def test_one_dict_of_two_is_dropped(backend: Backend, commit: str) -> None:
    """Where one of two occurrences of a message is dropped, the other is restored, in its place."""
    scene = Scene(backend, commit, unmanaged)
    agent = scene.open()
    again = user("again")
    for prompt in ([again], "between", [again], "behind"):
        agent(cast("Any", prompt))
    del agent.messages[0:2]
    agent("end")
    scene.check(agent)
    del agent.messages[2:4]
    agent("very end")
    scene.check(agent)
    scene.check_rows()


@both
def test_one_dict_twice_is_edited(backend: Backend, commit: str) -> None:
    """An edit of a message that stands there twice changes both rows."""
    scene = Scene(backend, commit, unmanaged)
    agent = scene.open()
    again = user("again")
    for _ in range(2):
        agent([again])
    again["content"] = [{"text": "edited"}]
    agent("end")
    scene.check(agent)
    scene.check_rows()
    assert scene.transcript()[::2] == ["edited", "edited", "end"]


# -- shared conversation managers ------------------------------------------------------------------


@both
def test_sessions_that_share_a_conversation_manager(backend: Backend, commit: str) -> None:
    """One conversation manager for all sessions of a process drops in each what it did there."""
    shared = SlidingWindowConversationManager(window_size=2)
    scenes = [Scene(backend, commit, session_id=f"s{number}", make=dict) for number in range(3)]
    for turn in range(6):
        scene = scenes[turn % 3]
        agent = scene.open(conversation_manager=shared)
        agent(f"q{turn}")
        live = contents(agent.messages)
        fresh = scene.open(conversation_manager=SlidingWindowConversationManager(window_size=2))
        assert contents(fresh.messages) == live
        scene.check_rows()


@both
def test_agents_that_share_a_conversation_manager(backend: Backend, commit: str) -> None:
    """Two agents of one session and one conversation manager have each their own window."""
    shared = SlidingWindowConversationManager(window_size=4)
    manager = backend.manager(commit=commit)
    scenes = [Scene(backend, commit, agent_id=name) for name in "ab"]
    agents = [scene.open(manager=manager, conversation_manager=shared) for scene in scenes]
    for turn in range(8):
        for scene, agent in zip(scenes, agents, strict=True):
            agent(f"q{turn}")
            own = SlidingWindowConversationManager(window_size=4)
            fresh = scene.open(conversation_manager=own)
            assert fresh.messages == agent.messages
            scene.check_rows()


@both
def test_a_new_agent_whose_conversation_manager_has_removed_messages(
    backend: Backend, commit: str
) -> None:
    """A manager that has removed more messages than a new session has hides none of its own."""
    used = SlidingWindowConversationManager(window_size=2)
    used.removed_message_count = 50
    scene = Scene(backend, commit, sliding(2))
    agent = scene.open(conversation_manager=used)
    for number in range(4):
        agent(f"q{number}")
        assert said(scene.open().messages) == said(agent.messages)
    scene.check_rows()
