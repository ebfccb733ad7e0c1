"""What a context manager takes out of messages can be retrieved by whoever opens the session."""

import asyncio
import re
from typing import Any

import pytest
from strands import Agent

from tests.contract.agents import (
    Scene,
    both,
    contents,
    long_talk,
    needs,
    step,
)
from tests.support.backends import Backend
from tests.support.conversation import user

pytestmark = pytest.mark.backends("memory")

REFERENCES = re.compile(r"\[refs?: ([^\]]+)\]")


def references(agent: Agent) -> list[str]:
    """Give the stash's references that stand in an agent's messages."""
    found = REFERENCES.findall(str(contents(agent.messages)))
    return [one for each in found for one in each.split(", ")]


def stashed(agent: Any, names: list[str]) -> list[Any]:
    """Look references up in an agent's stash."""
    return [asyncio.run(agent.context_manager.stash.retrieve(one)) for one in names]


@both
def test_a_stash_in_a_storage_of_its_own(backend: Backend, commit: str) -> None:
    """References in restored messages lead to what was offloaded, in the storage that has it."""
    needs("context managers")
    from strands.storage import InMemoryStorage  # noqa: PLC0415 - older versions have none

    storage = InMemoryStorage()
    strategies = ["large_tool_offloading"]
    scene = Scene(
        backend,
        commit,
        lambda: {
            "context_manager": {"strategies": strategies, "stash": {"storage": storage}},
            "tools": [step],
        },
    )
    agent = scene.open()
    long_talk(scene, agent, 2)
    names = references(agent)
    assert names
    fresh = scene.open()
    assert references(fresh) == names
    assert stashed(fresh, names) == stashed(agent, names)
    assert None not in stashed(fresh, names)


@both
def test_the_stash_that_nobody_chose(backend: Backend, commit: str) -> None:
    """What was offloaded into a stash in memory can be retrieved by a new process too."""
    needs("context managers")
    scene = Scene(
        backend,
        commit,
        lambda: {"context_manager": {"strategies": ["large_tool_offloading"]}, "tools": [step]},
    )
    agent = scene.open()
    long_talk(scene, agent, 2)
    names = references(agent)
    assert names
    fresh = scene.open()
    assert stashed(fresh, names) == stashed(agent, names)


def offloading(backend: Backend, commit: str) -> Scene:
    """Make a scene whose agents replace large results by references."""
    needs("context managers")
    return Scene(
        backend,
        commit,
        lambda: {"context_manager": {"strategies": ["large_tool_offloading"]}, "tools": [step]},
    )


@pytest.mark.guarantee(number=17)
@both
def test_it_outlives_turns_of_other_processes(backend: Backend, commit: str) -> None:
    """Processes that open the session one after the other can all retrieve it."""
    scene = offloading(backend, commit)
    long_talk(scene, scene.open(), 2)
    agent = scene.open()
    names, had = references(agent), stashed(agent, references(agent))
    for number in range(3):
        agent.messages[0]["content"][0]["text"] += f", edited {number}"
        agent("And now?")
        agent = scene.check(agent)
        assert stashed(agent, names) == had
    assert names
    assert None not in had


@both
def test_a_warm_agent_has_what_another_took_out(backend: Backend, commit: str) -> None:
    """An agent that was open all along can retrieve what another writer's messages refer to."""
    scene = offloading(backend, commit)
    warm, other = scene.open(), scene.open()
    long_talk(scene, other, 2)
    warm("What do you know?")
    names = references(other)
    assert names
    assert references(warm) == names
    assert stashed(warm, names) == stashed(other, names)


@both
def test_a_rewound_agent_has_it(backend: Backend, commit: str) -> None:
    """An agent that goes back to a checkpoint can retrieve what its messages of then refer to."""
    scene = offloading(backend, commit)
    agent = scene.open()
    long_talk(scene, agent, 2)
    checkpoint = agent._session_manager.checkpoint(agent)  # type: ignore[union-attr]
    names, had = references(agent), stashed(agent, references(agent))
    agent("And now?")
    later = scene.open()
    later._session_manager.rewind(later, checkpoint)  # type: ignore[union-attr]
    assert references(later) == names != []
    assert stashed(later, names) == had


@both
def test_a_redacted_message_has_it_no_more(backend: Backend, commit: str) -> None:
    """A redaction of a message removes what was taken out of it, too."""
    scene = offloading(backend, commit)
    agent = scene.open()
    long_talk(scene, agent, 1)
    repository = scene.manager().session_repository
    held = "SELECT message_id, data FROM strands_messages WHERE data LIKE '%\"stash\":%'"
    (row,) = backend.raw(held)
    message = repository.read_message("s", "a", int(row["message_id"]))
    assert message is not None
    message.message = message.redact_message = user("redacted")
    repository.update_message("s", "a", message)
    assert backend.raw(held) == []
    agent("And now?")
    assert references(scene.check(agent)) == []


@both
def test_a_message_that_quotes_a_reference_has_no_copy(backend: Backend, commit: str) -> None:
    """What a reference leads to is in the row of the message that it was taken from, alone."""
    scene = offloading(backend, commit)
    agent = scene.open()
    long_talk(scene, agent, 1)
    (name,) = references(agent)
    agent(f"What is behind [ref: {name}]?")
    agent.messages[-2]["content"][0]["text"] += " Please."
    agent("And now?")
    holders = backend.raw("SELECT message_id FROM strands_messages WHERE data LIKE '%\"stash\":%'")
    assert len(holders) == 1


@both
@pytest.mark.parametrize("odd", ['"text"', "[1]", '{"../x": 1}', '{"": {}}', "null"])
def test_a_stash_that_is_odd_costs_itself(backend: Backend, commit: str, odd: str) -> None:
    """A row whose part of it isn't what was stored is read without it."""
    scene = offloading(backend, commit)
    agent = scene.open()
    long_talk(scene, agent, 1)
    backend.raw(
        "UPDATE strands_messages SET version = version + 1,"
        " data = json_set(data, '$.stash', json(?)) WHERE data LIKE '%\"stash\":%'",
        odd,
    )
    fresh = scene.open()
    assert contents(fresh.messages) == contents(agent.messages)
    assert stashed(fresh, references(agent)) == [None]
    fresh("And now?")


def test_sessions_and_snapshots_exchange_it(backend: Backend) -> None:
    """A session made snapshots, and made a session again, has what was taken out of messages."""
    needs("context managers")
    from tests import storages  # noqa: PLC0415 - older versions have none

    scene = offloading(backend, "message")
    agent = scene.open()
    long_talk(scene, agent, 2)
    names, had = references(agent), stashed(agent, references(agent))
    storage = storages.storage_of(backend)
    storages.run(storages.snapshots_from_session(storage, "s"))
    snapshots = storages.SnapshotSessionManager("s", storage=storage.view())
    fresh = scene.open(manager=snapshots)  # type: ignore[arg-type]
    assert stashed(fresh, names) == had

    backend.repository().delete_session("s")
    storages.run(storages.session_from_snapshots(storage, "s"))
    assert stashed(scene.open(), names) == had != []
