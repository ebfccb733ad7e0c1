"""Graphs and swarms: their state, stored and brought back."""

import asyncio

import pytest
from strands import Agent
from strands.hooks import HookRegistry
from strands.hooks.events import AfterNodeCallEvent
from strands.multiagent import GraphBuilder, Swarm
from strands.multiagent.base import Status
from strands.types.exceptions import SessionException

from strands_persql.errors import AlreadyExistsError, ConflictError, NotFoundError
from strands_persql.testing import ScriptedModel
from tests.support.backends import Backend
from tests.support.conversation import Team, stored


def test_a_created_multi_agent_is_read_as_it_was(backend: Backend) -> None:
    """Its state comes back, from the cache and from elsewhere."""
    repository = stored(backend)
    repository.create_multi_agent("s", Team(step=1, data=b"\x00"))
    for one in (repository, backend.repository(backend.reopen())):
        assert one.read_multi_agent("s", "team") == {"id": "team", "step": 1, "data": b"\x00"}


def test_a_missing_multi_agent_is_none(backend: Backend) -> None:
    """Reading what isn't there gives None, and that is never remembered."""
    repository = stored(backend)
    assert repository.read_multi_agent("s", "team") is None
    assert repository.read_multi_agent("t", "team") is None
    backend.repository().create_multi_agent("s", Team())
    assert repository.read_multi_agent("s", "team") == {"id": "team"}


def test_creating_a_multi_agent_twice_raises_and_resets_nothing(backend: Backend) -> None:
    """A second creation raises, and the first one's state stays."""
    repository = stored(backend)
    repository.create_multi_agent("s", Team(step=1))
    for one in (repository, backend.repository()):
        with pytest.raises(AlreadyExistsError):
            one.create_multi_agent("s", Team(step=2))
    assert backend.repository().read_multi_agent("s", "team") == {"id": "team", "step": 1}


def test_a_multi_agent_needs_its_session(backend: Backend) -> None:
    """It can't be created under a session that isn't there."""
    repository = stored(backend)
    with pytest.raises(NotFoundError):
        repository.create_multi_agent("t", Team())
    assert backend.dump()["multi_agents"] == []


def test_an_update_replaces_the_state(backend: Backend) -> None:
    """An update's state is read from then on; ``created_at`` stays and the version counts."""
    repository = stored(backend)
    repository.create_multi_agent("s", Team(step=1, gone=True))
    before = backend.raw("SELECT created_at FROM strands_multi_agents")[0]
    repository.update_multi_agent("s", Team(step=2))
    for one in (repository, backend.repository()):
        assert one.read_multi_agent("s", "team") == {"id": "team", "step": 2}
    after = backend.raw("SELECT created_at, version FROM strands_multi_agents")[0]
    assert after == {**before, "version": 2}


def test_updating_a_missing_multi_agent_raises(backend: Backend) -> None:
    """An update of what isn't there raises and creates nothing."""
    repository = stored(backend)
    with pytest.raises(SessionException, match="does not exist"):
        repository.update_multi_agent("s", Team())
    assert backend.dump()["multi_agents"] == []


def test_an_update_on_its_own_costs_one_round_trip(backend: Backend) -> None:
    """A multi-agent that this repository has created or read isn't read before an update."""
    repository = stored(backend)
    repository.create_multi_agent("s", Team(step=1))
    backend.database.reset()
    repository.update_multi_agent("s", Team(step=2))
    assert backend.database.round_trips == 1


def test_a_stale_update_is_refused_where_asked(backend: Backend) -> None:
    """With ``on_conflict="raise"`` the writer that comes second gets both versions."""
    repository = stored(backend)
    repository.create_multi_agent("s", Team(step=1))
    strict = backend.repository(on_conflict="raise")
    strict.read_multi_agent("s", "team")
    repository.update_multi_agent("s", Team(step=2))
    with pytest.raises(ConflictError) as caught:
        strict.update_multi_agent("s", Team(step=3))
    assert (caught.value.expected_version, caught.value.found_version) == (1, 2)
    assert backend.repository().read_multi_agent("s", "team") == {"id": "team", "step": 2}


def test_a_conflict_says_what_both_sides_have(backend: Backend) -> None:
    """A multi-agent's conflict carries the refused value and the stored one."""
    repository = stored(backend)
    repository.create_multi_agent("s", Team(step=1))
    strict = backend.repository(on_conflict="raise")
    strict.read_multi_agent("s", "team")
    repository.update_multi_agent("s", Team(step=2))
    with pytest.raises(ConflictError) as caught:
        strict.update_multi_agent("s", Team(step=3))
    assert caught.value.found == {"id": "team", "step": 2}
    assert caught.value.ours == {"id": "team", "step": 3}


@pytest.mark.guarantee(number=6)
def test_the_later_of_two_writers_stands(backend: Backend) -> None:
    """Under ``merge`` the later update is taken whole, and no version is skipped."""
    repository, other = stored(backend), backend.repository()
    repository.create_multi_agent("s", Team(step=1))
    other.read_multi_agent("s", "team")
    repository.update_multi_agent("s", Team(step=2))
    other.update_multi_agent("s", Team(step=3))
    assert backend.repository().read_multi_agent("s", "team") == {"id": "team", "step": 3}
    assert backend.raw("SELECT version FROM strands_multi_agents") == [{"version": 3}]


def test_a_manager_restores_a_multi_agent(backend: Backend) -> None:
    """A second manager brings the state back that the first one has synced."""
    manager, team = backend.manager(), Team(step=0)
    manager.initialize_multi_agent(team)
    team.state = {"step": 7}
    manager.sync_multi_agent(team)
    again = Team()
    backend.manager().initialize_multi_agent(again)
    assert again.state == {"step": 7}


def test_a_sync_without_a_change_is_no_write(backend: Backend) -> None:
    """A multi-agent whose state is stored as it is costs no round trip."""
    manager, team = backend.manager(), Team(step=0)
    manager.initialize_multi_agent(team)
    backend.database.reset()
    manager.sync_multi_agent(team)
    assert backend.database.round_trips == 0


def test_a_graph_is_stored_when_it_ends(backend: Backend) -> None:
    """A real graph's results are in the session after its run, and another graph gets them."""

    def graph() -> GraphBuilder:
        builder = GraphBuilder()
        agent = Agent(model=ScriptedModel(["done"]), callback_handler=None, name="node")
        builder.add_node(agent, "one")
        builder.set_entry_point("one")
        builder.set_graph_id("graph")
        builder.set_max_node_executions(5)
        return builder

    first = graph().set_session_manager(backend.manager()).build()
    assert first("go").status == Status.COMPLETED
    state = backend.repository().read_multi_agent("s", "graph")
    assert state is not None
    assert state["status"] == "completed"
    second = graph().set_session_manager(backend.manager()).build()
    assert second.serialize_state()["id"] == "graph"


def test_a_swarm_is_stored_as_it_goes(backend: Backend) -> None:
    """A real swarm's state is in the session after its run."""
    agent = Agent(model=ScriptedModel(["done"]), callback_handler=None, name="one")
    swarm = Swarm([agent], session_manager=backend.manager(), id="swarm")
    assert swarm("go").status == Status.COMPLETED
    state = backend.repository().read_multi_agent("s", "swarm")
    assert state is not None
    assert state["status"] == "completed"


def test_managers_that_share_a_repository_are_two_writers(backend: Backend) -> None:
    """A manager's base is its own: what another one of the process stored is a conflict to it."""
    repository = backend.repository(on_conflict="raise")
    first, second = (backend.manager(repository=repository) for _ in range(2))
    team, same = Team(step=0), Team(step=0)
    first.initialize_multi_agent(team)
    second.initialize_multi_agent(same)
    team.state["step"], same.state["step"] = 1, 2
    first.sync_multi_agent(team)
    with pytest.raises(ConflictError):
        second.sync_multi_agent(same)
    assert backend.repository().read_multi_agent("s", "team") == {"id": "team", "step": 1}


def test_a_graph_is_encoded_before_other_nodes_go_on(backend: Backend) -> None:
    """What is stored of a graph is its state at the event, whatever its nodes do meanwhile."""
    manager = backend.manager()
    team = Team(nodes={str(number): number for number in range(2_000)})
    manager.initialize_multi_agent(team)
    hooks = HookRegistry()
    manager.register_hooks(hooks)

    async def change_while_it_is_stored() -> None:
        event = AfterNodeCallEvent(team, "0", {})
        storing = asyncio.ensure_future(hooks.invoke_callbacks_async(event))
        while not storing.done():
            team.state["nodes"][str(len(team.state["nodes"]))] = 0
            await asyncio.sleep(0)
        await storing

    team.state["changed"] = True
    asyncio.run(change_while_it_is_stored())
    found = backend.repository(backend.reopen()).read_multi_agent("s", "team")
    assert found is not None
    assert found["changed"]


def test_an_update_hits_no_other_multi_agent_of_its_id(backend: Backend) -> None:
    """An update of a multi-agent whose session was made anew leaves the new one alone."""
    repository = stored(backend)
    repository.create_multi_agent("s", Team(step=1))
    other = backend.repository()
    other.delete_session("s")
    stored(backend).create_multi_agent("s", Team(step=2))
    with pytest.raises(NotFoundError):
        repository.update_multi_agent("s", Team(step=3))
    assert backend.repository().read_multi_agent("s", "team") == {"id": "team", "step": 2}
