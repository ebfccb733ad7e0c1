"""``save``: what has changed is stored now, in one round trip, or nothing is sent."""

import asyncio
from typing import Any

import pytest
from strands import ToolContext, tool
from strands.types.exceptions import SessionException

from strands_persql.testing import FaultyDatabase, ToolCall
from tests.support.backends import Backend
from tests.support.conversation import Team, in_database, state_in_database


@pytest.mark.parametrize("commit", ["message", "turn"])
def test_a_bare_change_of_the_state_is_saved(backend: Backend, commit: Any) -> None:
    """It is durable when the call returns, and took one round trip; unchanged, it takes none."""
    manager = backend.manager(commit=commit)
    agent = backend.agent(["hello"], manager=manager)
    agent("hi")
    agent.state.set("seats", 2)
    backend.database.reset()
    asyncio.run(manager.save(agent))
    assert backend.database.round_trips == 1
    assert state_in_database(backend) == {"seats": 2}
    asyncio.run(manager.save(agent))
    assert backend.database.round_trips == 1
    agent.state.set("seats", 3)
    manager.sync_agent(agent)  # the same where there is no event loop
    assert state_in_database(backend) == {"seats": 3}


@pytest.mark.parametrize("commit", ["message", "turn"])
def test_a_tool_saves_the_state_and_no_half_turn(backend: Backend, commit: Any) -> None:
    """Within a turn that is stored whole the state is stored, and its messages with the turn."""
    manager = backend.manager(commit=commit)
    seen: list[Any] = []

    @tool(context=True)
    async def book(tool_context: ToolContext) -> str:
        """Book."""
        tool_context.agent.state.set("booked", True)
        await manager.save(tool_context.agent)
        seen.append((state_in_database(backend), len(in_database(backend))))
        return "booked"

    agent = backend.agent([ToolCall("book"), "done"], manager=manager, tools=[book])
    agent("book it")
    assert seen == [({"booked": True}, 0 if commit == "turn" else 2)]
    assert len(in_database(backend)) == 4


def test_two_savers_are_merged(backend: Backend) -> None:
    """What another writer has set of the state stays, and comes along."""
    first, second = (backend.manager() for _ in range(2))
    one, other = (backend.agent(manager=manager) for manager in (first, second))
    one.state.set("a", 1)
    other.state.set("b", 2)
    asyncio.run(first.save(one))
    asyncio.run(second.save(other))
    assert state_in_database(backend) == {"a": 1, "b": 2} == other.state.get()


@pytest.mark.parametrize("fault", ["lost_request", "lost_answer", "duplicate", "delayed_duplicate"])
def test_a_save_is_applied_once_whatever_the_wire_does(backend: Backend, fault: Any) -> None:
    """A save whose request or answer is lost or doubled is stored, at one version more."""
    faulty = FaultyDatabase(backend.plain, lambda call: fault if call == 2 else None)
    manager = backend.manager(database=faulty)
    agent = backend.agent(manager=manager)
    (before,) = backend.dump()["agents"]
    agent.state.set("n", 1)
    asyncio.run(manager.save(agent))
    faulty.deliver_late()
    assert [one[1] for one in faulty.injected] == [fault]
    (after,) = backend.dump()["agents"]
    assert (int(after["version"]), state_in_database(backend)) == (
        int(before["version"]) + 1,
        {"n": 1},
    )


def test_a_graph_is_saved(backend: Backend) -> None:
    """A graph's state is stored as an agent's is, once for each change."""
    manager = backend.manager()
    team = Team(step=1)
    manager.initialize_multi_agent(team)
    team.state["step"] = 2
    backend.database.reset()
    asyncio.run(manager.save(team))
    asyncio.run(manager.save(team))
    assert backend.database.round_trips == 1
    assert backend.repository().read_multi_agent("s", "team") == {"id": "team", "step": 2}


def test_only_what_was_initialized_is_saved(backend: Backend) -> None:
    """An agent or graph that the manager doesn't know raises, and nothing is stored."""
    manager, other = backend.manager(), backend.agent(agent_id="b")
    for stranger in (other, Team()):
        with pytest.raises(SessionException, match="not initialized"):
            asyncio.run(manager.save(stranger))
