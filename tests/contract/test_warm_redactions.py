"""A redaction reaches every agent that is open before its model is asked again."""

import contextlib
import copy
from collections.abc import Callable
from typing import Any

import pytest
from strands.hooks import AfterToolCallEvent

from strands_persql.errors import PerSQLError
from strands_persql.testing import Fault, InterceptingDatabase, Redact, Reply, ToolCall
from tests.contract.agents import (
    Scene,
    both,
    calls,
    needs,
    sliding,
    unmanaged,
)
from tests.support.backends import NEVER, Backend
from tests.support.conversation import said
from tests.support.faults import Switch


def redact(scene: Scene, text: str) -> None:
    """Redact the message with a text, as an operator would."""
    repository = scene.backend.repository()
    repository.read_session(scene.session_id)
    for record in repository.list_messages(scene.session_id, scene.agent_id):
        if said([record.to_message()]) == [text]:
            record.message = {**record.message, "content": [{"text": "[gone]"}]}
            record.redact_message = record.message
            repository.update_message(scene.session_id, scene.agent_id, record)


COPIES: dict[str, Callable[[list[Any]], list[Any]]] = {
    "as they are": lambda messages: messages,
    "a new list": list,
    "copies": lambda messages: [dict(one) for one in messages],
    "deep copies": copy.deepcopy,
}


@both
@pytest.mark.parametrize("copying", COPIES)
@pytest.mark.parametrize("turns", [0, 2])
def test_a_redaction_reaches_an_agent(
    backend: Backend, commit: str, copying: str, turns: int
) -> None:
    """What was redacted elsewhere is not given to a live agent's model, copied or not."""
    scene = Scene(backend, commit, unmanaged)
    agent = scene.open("Hi.")
    agent("The SECRET.")
    for number in range(turns):
        agent(f"q{number}")
    agent.messages = COPIES[copying](agent.messages)
    redact(scene, "The SECRET.")
    if commit == "turn":
        agent("Are you there?")
    agent("What did I say?")
    assert "SECRET" not in str(calls(agent)[-1])
    assert said(calls(agent)[-1])[0] == "[gone]"
    scene.check(agent)
    assert "SECRET" not in str(backend.dump())


@both
def test_a_guardrails_redaction_reaches_another_agent(backend: Backend, commit: str) -> None:
    """A prompt that one agent's guardrail redacts is not given to another's model."""
    scene = Scene(backend, commit, unmanaged)
    agent, other = scene.open("Hi."), scene.open("Fine.")
    agent("Hello.")
    other("How are you?")
    agent.model = scene.model(Redact("[gone]"))
    agent("The SECRET.")
    if commit == "turn":
        other("Are you there?")
    other("What was said?")
    assert "SECRET" not in str(calls(other))
    assert "[gone]" in said(calls(other)[-1])
    scene.check(other)


@both
def test_a_redaction_reaches_an_agent_whose_window_another_moved(
    backend: Backend, commit: str
) -> None:
    """A redaction of a message that another's window has dropped reaches who still has it."""
    scene = Scene(backend, commit, sliding(40))
    agent = scene.open("Hi.", "Fine.")
    agent("The SECRET.")
    agent("How are you?")
    narrow = scene.open(**sliding(2)())
    narrow("What time?")
    redact(scene, "The SECRET.")
    if commit == "turn":
        agent("Are you there?")
    agent("What did I say?")
    assert "SECRET" not in str(calls(agent)[-1])
    assert "SECRET" not in str(agent.messages)
    assert agent.messages == scene.open().messages  # each conversation manager counts its own
    assert "SECRET" not in str(backend.dump())


@both
@pytest.mark.guarantee(number=17)
@pytest.mark.parametrize("is_forgotten", [False, True])
def test_a_rewind_to_before_a_redaction(backend: Backend, commit: str, is_forgotten: bool) -> None:
    """What was redacted stays so, where messages from before come back."""
    needs("tracking ids")
    scene = Scene(backend, commit, unmanaged)
    agent = scene.open()
    kept: list[Any] = []

    def guarded(_: Any) -> Reply:
        kept.extend(copy.deepcopy(agent.messages))
        return Redact("[gone]", "No.")

    agent.model = scene.model(replying=guarded)
    agent("SECRET")
    agent.model = scene.model("Hi.", "Fine.")
    if is_forgotten:
        agent.messages.clear()
    agent("Hello.")
    agent.messages = kept
    agent("How are you?")
    assert said(agent.messages) == ["[gone]", "How are you?", "Fine."]
    assert "SECRET" not in str(backend.dump())
    scene.check(agent)
    scene.check_rows(edited=False)


@both
def test_a_redaction_reaches_an_agent_that_is_in_its_turn(backend: Backend, commit: str) -> None:
    """A redaction during an agent's turn stands when the turn is over, and in the next call."""
    scene = Scene(backend, commit, unmanaged)
    agent = scene.open("Hi.", ToolCall("step", {}, "s1"))
    agent("The SECRET.")
    agent.hooks.add_callback(AfterToolCallEvent, lambda _: redact(scene, "The SECRET."))
    agent("Book 12A.")
    assert "SECRET" not in str(agent.messages)
    if commit == "message":
        assert "SECRET" not in str(calls(agent)[-1])
    scene.check(agent)
    assert "SECRET" not in str(backend.dump())


@both
@pytest.mark.parametrize("fault", ["lost_request", "lost_answer"])
@pytest.mark.parametrize("windows", [(2, 1), (2, 2), (4, 2), (4, 40)])
def test_a_redaction_that_waits_outlives_the_window(
    backend: Backend, commit: str, fault: Fault, windows: tuple[int, int]
) -> None:
    """A redaction that could not be stored is stored later, whoever has dropped its message."""
    ours, theirs = windows
    scene = Scene(backend, commit, sliding(ours))
    switch = Switch(backend.database)
    repository = backend.repository(switch, retry=NEVER)
    other = scene.open(**sliding(theirs)())
    agent = scene.open("Hi.", manager=backend.manager(repository=repository, commit=commit))
    agent("How are you?")
    agent.model = scene.model(Redact("[gone]", "Fine."), "More.")
    switch.next = [None, fault] if commit == "message" else [fault]  # the turn's end
    with contextlib.suppress(PerSQLError):
        agent("The SECRET.")
    other("What time?")
    other("And now?")
    agent("What did I say?")
    assert "SECRET" not in str(backend.dump())
    assert agent.messages == scene.open().messages


def test_a_message_that_left_memory_is_redacted(backend: Backend) -> None:
    """The latest message is redacted also where the window has dropped it."""
    scene = Scene(backend, "message", sliding(0))
    manager = scene.manager()
    agent = scene.open("The SECRET.", manager=manager)
    agent("What is it?")
    gone: Any = {"role": "assistant", "content": [{"text": "[gone]"}]}
    manager.redact_latest_message(gone, agent)
    manager.sync_agent(agent)
    assert "SECRET" not in str(backend.dump())
    assert "[gone]" in str(backend.dump())


@both
@pytest.mark.parametrize("fault", [None, "lost_answer"])
def test_a_redaction_while_an_edit_is_on_its_way(
    backend: Backend, commit: str, fault: Fault | None
) -> None:
    """A redaction made while an edit's round trip is under way, or its answer lost, is stored."""
    scene = Scene(backend, commit, unmanaged)
    switch = Switch(backend.database)
    database = InterceptingDatabase(switch)
    repository = backend.repository(database, retry=NEVER)
    manager = backend.manager(repository=repository, commit=commit)
    agent = scene.open("Hi.", manager=manager)
    agent("Hello.")

    def redact_now(*_: Any) -> None:
        database.after = None
        agent.messages[-1]["content"] = [{"text": "[gone]"}]

    agent.messages[-1]["content"] = [{"text": "The SECRET."}]
    if fault is None:
        database.after = redact_now
    switch.next = [fault]
    with contextlib.suppress(PerSQLError):
        manager.sync_agent(agent)
    if fault is not None:
        redact_now()
    manager.redact_latest_message(agent.messages[-1], agent)
    assert "SECRET" not in str(backend.dump())
    assert agent.messages == scene.open().messages


@both
def test_an_edit_while_another_edit_is_on_its_way(backend: Backend, commit: str) -> None:
    """What is edited once more while its edit is being stored is stored with the next write."""
    scene = Scene(backend, commit, unmanaged)
    database = InterceptingDatabase(backend.database)
    manager = backend.manager(repository=backend.repository(database), commit=commit)
    agent = scene.open("Hi.", manager=manager)
    agent("Hello.")

    def edit_again(*_: Any) -> None:
        database.after = None
        agent.messages[-1]["content"] = [{"text": "second"}]

    agent.messages[-1]["content"] = [{"text": "first"}]
    database.after = edit_again
    manager.sync_agent(agent)
    manager.sync_agent(agent)
    assert said(scene.open().messages)[-1] == "second"
