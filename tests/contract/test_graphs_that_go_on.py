"""A graph or swarm that an interrupt stopped goes on in any process, and once."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from strands import Agent
from strands.hooks import HookRegistry
from strands.hooks.events import BeforeNodeCallEvent
from strands.multiagent import GraphBuilder, Swarm
from strands.multiagent.base import Status

from strands_persql import PerSQLError, PerSQLSessionManager, persql_error
from strands_persql.testing import Reply, ScriptedModel, ToolCall
from tests.contract.agents import answers, outcome, paying, race, refused
from tests.support.backends import NEVER, Backend
from tests.support.conversation import said
from tests.support.faults import Switch

pytestmark = pytest.mark.backends("memory")

CALL = ToolCall("pay", {"amount": 5}, "p1")


class Gate:
    """A hook that asks a human before a node is called."""

    def register_hooks(self, registry: HookRegistry, **_: Any) -> None:
        registry.add_callback(BeforeNodeCallEvent, lambda event: event.interrupt("approve"))


@dataclass
class Team:
    """A graph or swarm of one node, as one process has it.

    Attributes:
        group: The graph or swarm.
        worker: The agent in its node.
        manager: Its session manager.
        paid: By whose leave the worker's tool has paid.
    """

    group: Any
    worker: Agent
    manager: PerSQLSessionManager
    paid: list[str]

    def calls(self) -> int:
        """Count the calls of the worker's model."""
        assert isinstance(self.worker.model, ScriptedModel)
        return len(self.worker.model.calls)


def graph(worker: Agent, manager: PerSQLSessionManager, hooks: list[Any]) -> Any:
    """Make a graph of one node."""
    builder = GraphBuilder()
    builder.add_node(worker, "worker")
    builder.set_entry_point("worker")
    builder.set_graph_id("team")
    builder.set_max_node_executions(10)
    builder.set_session_manager(manager)
    builder.set_hook_providers(hooks)
    return builder.build()


def swarm(worker: Agent, manager: PerSQLSessionManager, hooks: list[Any]) -> Any:
    """Make a swarm of one node."""
    return Swarm([worker], id="team", session_manager=manager, hooks=hooks)


GROUPS: dict[str, tuple[Callable[..., Any], bool]] = {
    "a graph's node": (graph, False),
    "a graph's hook": (graph, True),
    "a swarm's node": (swarm, False),
    "a swarm's hook": (swarm, True),
}
groups = pytest.mark.parametrize("kind", GROUPS)


def opened(backend: Backend, kind: str, *replies: Reply, **options: Any) -> Team:
    """Make the team in a process of its own."""
    make, gated = GROUPS[kind]
    pay, paid = paying()
    worker = Agent(model=ScriptedModel(replies), name="worker", tools=[pay], callback_handler=None)
    manager = backend.manager(**options)
    group = make(worker, manager, [Gate()] if gated else [])
    return Team(group, worker, manager, paid)


def stopped(backend: Backend, kind: str) -> tuple[Team, Any]:
    """Let a team be interrupted, and give it and the answer to its interrupt."""
    team = opened(backend, kind, CALL)
    result = team.group("Pay 5.")
    assert result.status == Status.INTERRUPTED
    return team, answers(result.interrupts, "Ada")


@groups
@pytest.mark.parametrize("where", ["the same process", "another process"])
def test_an_interrupted_group_goes_on(backend: Backend, kind: str, where: str) -> None:
    """It goes on where it stopped, and its node is given what it would have been given there."""
    team, answer = stopped(backend, kind)
    if where == "another process":
        team = opened(backend, kind, "Done.")
    else:
        team.worker.model = ScriptedModel(["Done."])
    result = team.group(answer)
    assert result.status == Status.COMPLETED
    if "node" in kind:
        assert team.paid == ["Ada"]
        model = team.worker.model
        assert isinstance(model, ScriptedModel)
        prompt, *others = said(model.calls[-1])
        assert "Pay 5." in prompt
        assert others == ["call pay", "result paid 5, approved by Ada"]


@groups
def test_an_interrupted_group_is_restored_as_it_was(backend: Backend, kind: str) -> None:
    """What another process restores of it is what it holds, before and after the answer."""
    team, prompt = stopped(backend, kind)
    assert opened(backend, kind).group.serialize_state() == team.group.serialize_state()
    team.worker.model = ScriptedModel(["Done."])
    team.group(prompt)
    again = opened(backend, kind).group
    assert again._interrupt_state.to_dict() == team.group._interrupt_state.to_dict()


@groups
@pytest.mark.parametrize("conflict", ["merge", "raise"])
@pytest.mark.parametrize("second", ["another process", "the one that stopped"])
def test_a_group_is_answered_once(backend: Backend, kind: str, conflict: str, second: str) -> None:
    """Who answers what has been answered is refused before a model is asked or a tool runs."""
    team, prompt = stopped(backend, kind)
    late = team
    if second == "another process":
        late = opened(backend, kind, "Done again.", on_conflict=conflict)
    first = opened(backend, kind, "Done.", on_conflict=conflict)
    assert first.group(prompt).status == Status.COMPLETED
    before, paid = backend.dump()["multi_agents"], list(late.paid)
    late.worker.model = ScriptedModel(["Done again."])
    for _ in range(2):
        refused(lambda: late.group(prompt))
        assert (late.calls(), late.paid) == (0, paid)
        late.manager.sync_multi_agent(late.group)
        assert backend.dump()["multi_agents"] == before


@groups
def test_of_groups_that_are_answered_at_once_one_goes_on(backend: Backend, kind: str) -> None:
    """Of eight processes that answer at the same moment the node runs in one."""
    _, prompt = stopped(backend, kind)
    teams = [opened(backend, kind, "Done.") for _ in range(8)]

    def answering(team: Team) -> Callable[[], str]:
        return lambda: outcome(lambda: team.group(prompt))

    outcomes = race([answering(team) for team in teams])
    assert sorted(map(str, outcomes)) == ["ConflictError"] * 7 + ["done"]
    assert sum(team.calls() for team in teams) == 1
    assert [team.paid for team in teams if team.paid] == [["Ada"]] * ("node" in kind)


@pytest.mark.guarantee(number=18)
@groups
def test_who_opens_a_group_that_is_going_on(backend: Backend, kind: str) -> None:
    """It finds the question that was answered, and may not answer it again."""
    _, prompt = stopped(backend, kind)
    team = opened(backend, kind)
    late: list[Team] = []

    def reply(_: object) -> Reply:
        late.append(opened(backend, kind, "Done too."))
        for _ in range(2):
            refused(lambda: late[0].group(prompt))
            late[0].manager.sync_multi_agent(late[0].group)
        return "Done."

    team.worker.model = ScriptedModel(reply)
    assert team.group(prompt).status == Status.COMPLETED
    assert (late[0].calls(), late[0].paid) == (0, [])
    again = opened(backend, kind).group
    assert again._interrupt_state.to_dict() == team.group._interrupt_state.to_dict()
    assert "claim" not in str(backend.dump()["multi_agents"])


@groups
def test_a_claim_whose_answer_was_lost_is_made_again(backend: Backend, kind: str) -> None:
    """Who lost the answer to its claim is told so in our words, and goes on when it tries again."""
    _, prompt = stopped(backend, kind)
    switch = Switch(backend.database)
    team = opened(backend, kind, "Done.", repository=backend.repository(switch, retry=NEVER))
    switch.next = ["lost_answer"]
    with pytest.raises(Exception, match="known") as caught:
        team.group(prompt)
    assert isinstance(persql_error(caught.value), PerSQLError)
    assert team.group(prompt).status == Status.COMPLETED
