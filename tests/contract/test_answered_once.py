"""A turn that stopped is gone on with once, whoever tries, and however many at once."""

import asyncio
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from strands import Agent
from strands.hooks import BeforeModelCallEvent, BeforeToolCallEvent

from strands_persql.testing import InterceptingDatabase, ToolCall
from tests.contract.agents import (
    Scene,
    answers,
    both,
    manager_of,
    outcome,
    paying,
    race,
    refused,
)
from tests.contract.stopped import (
    CALL,
    INTERRUPTS,
    PAID,
    answer_in_process,
    interrupted,
    places,
    stop,
    ways,
)
from tests.support import backends
from tests.support.backends import NEVER, Backend
from tests.support.conversation import said
from tests.support.faults import Switch

pytestmark = pytest.mark.backends("memory", "http")


@both
@pytest.mark.parametrize("conflict", ["merge", "raise"])
@pytest.mark.parametrize("second", ["another process", "the one that stopped"])
@ways
def test_a_turn_goes_on_once(
    backend: Backend, commit: str, conflict: str, second: str, kind: str
) -> None:
    """Who goes on with a turn that has gone on is refused before anything runs."""
    case = stop(backend, commit, kind)
    first = case.open(conflict=conflict)
    late = case.stopped if second == "the one that stopped" else case.open(conflict=conflict)
    case.go_on(first)
    before = backend.dump()["messages"]
    runs: list[str] = []
    late.hooks.add_callback(BeforeToolCallEvent, lambda _: runs.append("a tool"))
    late.hooks.add_callback(BeforeModelCallEvent, lambda _: runs.append("the model"))
    late.model = case.scene.model("Done again.")
    error = refused(lambda: late(case.prompt))
    assert (error.session_id, error.agent_id) == ("s", "a")
    assert runs == []
    assert backend.dump()["messages"] == before
    case.check(first)


@both
@pytest.mark.parametrize("conflict", ["merge", "raise"])
def test_a_double_click(backend: Backend, commit: str, conflict: str) -> None:
    """The second of two equal answers is refused before the tool runs, and the session goes on."""
    pay, paid = paying()
    scene = Scene(backend, commit, lambda: {"tools": [pay]})
    stopped = scene.open(CALL)
    prompt = interrupted(stopped)
    one, two = (scene.open("Done.", conflict=conflict) for _ in range(2))
    one(prompt)
    for late in (two, one, scene.open()):
        refused(lambda late=late: late(prompt))  # type: ignore[misc]
    assert paid == ["Ada"]
    assert scene.transcript() == ["Pay 5.", "call pay", PAID, "Done."]
    scene.check(one)
    after = scene.open("You are welcome.")
    after("Thanks.")
    scene.check(after)
    assert len(scene.rows()) == 6


AFTERWARDS: dict[str, Callable[[Agent, Any], object]] = {
    "nothing": lambda _agent, _prompt: None,
    "saves": lambda agent, _: asyncio.run(manager_of(agent).save(agent)),
    "is synced": lambda agent, _: manager_of(agent).sync_agent(agent),
    "closes": lambda agent, _: manager_of(agent).close(),
    "answers again": lambda agent, prompt: refused(lambda: agent(prompt)),
    "changes its state": lambda agent, _: agent.state.set("seen", value=True),
}


@pytest.mark.guarantee(number=18)
@both
@pytest.mark.parametrize("second", ["another process", "the one that stopped"])
@pytest.mark.parametrize("how", AFTERWARDS)
@pytest.mark.parametrize("kind", [*INTERRUPTS, "the model fails"])
def test_who_was_refused_takes_nothing_back(
    backend: Backend, commit: str, second: str, how: str, kind: str
) -> None:
    """The turn stays answered whatever its agent does next, and that goes on as a fresh one."""
    case = stop(backend, commit, kind)
    first = case.open()
    late = case.stopped if second == "the one that stopped" else case.open()
    case.go_on(first)
    refused(lambda: late(case.prompt))
    if how != "answers again" or kind in INTERRUPTS:
        AFTERWARDS[how](late, case.prompt)
    first.model = case.scene.model()
    first("Thanks.")
    case.scene.check(first)
    late.model = case.scene.model()
    late("Hello?")
    case.scene.check(late)
    first("And you?")
    case.scene.check(first)


@both
@pytest.mark.parametrize("how", ["nothing", "saves", "is synced", "closes", "answers again"])
@pytest.mark.parametrize("lost", ["the claim", "its answer", "what became of it"])
def test_who_was_refused_behind_a_fault_takes_nothing_back(
    backend: Backend, commit: str, how: str, lost: str
) -> None:
    """The same, where the claim itself was lost before another's, or what follows a refusal."""
    case = stop(backend, commit, "a tool interrupts")
    switch = Switch(backend.database)
    manager = case.scene.manager(repository=backend.repository(switch, retry=NEVER))
    late, first = case.open(manager=manager), case.open()
    if lost == "the claim":
        switch.next = ["lost_request"]
        assert outcome(lambda: late(case.prompt)) == "UnavailableError"
    case.go_on(first)
    if lost == "its answer":
        switch.next = ["lost_answer"]
        assert outcome(lambda: late(case.prompt)) == "OutcomeUnknownError"
    elif lost == "what became of it":
        switch.next = [None, "lost_request"]
        refused(lambda: late(case.prompt))
    AFTERWARDS[how](late, case.prompt)
    first.model = case.scene.model()
    first("Thanks.")
    case.scene.check(first)
    if lost != "what became of it":
        refused(lambda: late(case.prompt))
    late.model = case.scene.model()
    late("Hello?")
    case.scene.check(late)


@both
def test_an_answer_that_is_given_in_another_sense(backend: Backend, commit: str) -> None:
    """A refusal that comes after an approval, or the other way round, changes nothing."""
    pay, paid = paying()
    scene = Scene(backend, commit, lambda: {"tools": [pay]})
    stopped = scene.open(CALL)
    result = stopped("Pay 5.")
    one, two = scene.open("Done."), scene.open("Done.")
    one(answers(result.interrupts, "Ada"))
    refused(lambda: two(answers(result.interrupts, "nobody")))
    assert paid == ["Ada"]
    assert "nobody" not in str(backend.dump())


@pytest.mark.guarantee(number=18)
@both
@pytest.mark.parametrize("kind", [*INTERRUPTS, "the model fails"])
def test_threads_that_answer_at_once(backend: Backend, commit: str, kind: str) -> None:
    """Of eight that go on at the same moment one does, and seven are refused."""
    case = stop(backend, commit, kind)
    case.let_others_speak()
    ran: list[str] = []

    def answering(agent: Agent) -> Callable[[], str]:
        agent.hooks.add_callback(
            BeforeToolCallEvent, lambda event: ran.append(event.tool_use["name"])
        )
        agent.model = case.scene.model("Done.")
        return lambda: outcome(lambda: agent(case.prompt))

    agents = [case.open() for _ in range(8)]
    outcomes = race([answering(agent) for agent in agents])
    assert sorted(map(str, outcomes)) == ["ConflictError"] * 7 + ["done"]
    assert len(ran) == (1 if len(case.way.after) == 2 else 0)
    case.check(agents[outcomes.index("done")])


@pytest.mark.guarantee(number=18)
@both
def test_who_opens_the_session_between_two_tries_of_a_claim(backend: Backend, commit: str) -> None:
    """A claim that lost a race is no claim yet: its interrupt waits, and one process answers it."""
    case = stop(backend, commit, "a tool interrupts")
    database = InterceptingDatabase(backend.database)
    manager = case.scene.manager(repository=backend.repository(database))
    answering = case.open(manager=manager)
    case.other.state.set("asked", value=True)  # so that the row is another one by then
    case.other("What time?")
    opened: list[Agent] = []

    def open_between(statements: Any, _: Any) -> None:
        if not opened and any("SET claim" in one["sql"] for one in statements):
            opened.append(case.open())

    def answer_too(event: BeforeToolCallEvent) -> None:  # noqa: ARG001 - its name counts
        opened[0].model = case.scene.model("Done too.")
        outcomes.append(outcome(lambda: opened[0](case.prompt)))

    outcomes: list[str] = []
    database.after = open_between
    answering.hooks.add_callback(BeforeToolCallEvent, answer_too)
    answering.model = case.scene.model("Done.")
    answering(case.prompt)
    assert outcomes == ["ConflictError"]
    assert case.scene.transcript()[-4:] == ["Pay 5.", "call pay", PAID, "Done."]
    case.scene.check(answering)


@both
def test_processes_that_answer_at_once(tmp_path: Path, commit: str) -> None:
    """Of processes that answer one interrupt at the same moment the tool runs in one."""
    path, number = tmp_path / "sessions.db", 4
    with backends.opened("file", tmp_path) as backend:
        scene = Scene(backend, commit, lambda: {"tools": [paying()[0]]})
        prompt = interrupted(scene.open(CALL))
        context = multiprocessing.get_context("spawn")
        barrier, results = context.Barrier(number, timeout=60), context.Queue()
        processes = [
            context.Process(target=answer_in_process, args=(path, commit, prompt, barrier, results))
            for _ in range(number)
        ]
        for process in processes:
            process.start()
        found = sorted(results.get(timeout=90) for _ in processes)
        for process in processes:
            process.join(timeout=60)
        results.close()
        results.join_thread()
        assert found == [*[("ConflictError", [])] * (number - 1), ("done", ["Ada"])]
        assert scene.transcript() == ["Pay 5.", "call pay", PAID, "Done."]
        assert said(scene.open().messages) == scene.transcript()


@both
@pytest.mark.parametrize("when", ["before", "after"])
def test_who_only_looked_does_not_ask_again(backend: Backend, commit: str, when: str) -> None:
    """A process that was opened while a turn waits, and is closed, leaves its answer as it is."""
    pay, paid = paying()
    scene = Scene(backend, commit, lambda: {"tools": [pay]})
    prompt = interrupted(scene.open(CALL))
    looking = scene.open()
    answering = scene.open("Done.")
    if when == "before":
        manager_of(looking).close()
    answering(prompt)
    if when == "after":
        manager_of(looking).close()
    fresh = scene.check(answering)
    fresh("Thanks.")
    assert paid == ["Ada"]
    assert scene.invalid == []


@pytest.mark.guarantee(number=18)
@both
@pytest.mark.parametrize("where", ["the one that answered", "another process", "a new process"])
def test_one_of_two_interrupts_is_answered_once(backend: Backend, commit: str, where: str) -> None:
    """Of two calls of one message, each is answered once, and the other one waits meanwhile."""
    pay, paid = paying()
    scene = Scene(backend, commit, lambda: {"tools": [pay]})
    both_calls = [ToolCall("pay", {"amount": n}, f"p{n}") for n in (1, 2)]
    interrupts = scene.open(both_calls)("Pay both.").interrupts or ()
    one, two = (answers([i for i in interrupts if f":p{n}:" in i.id], "Ada") for n in (1, 2))
    answering, late = scene.open(), scene.open()
    answering(one)
    again = {"the one that answered": answering, "another process": late}.get(where, scene.open())
    refused(lambda: again(answers([i for i in interrupts if ":p1:" in i.id], "Eve")))
    refused(lambda: again([*one, *two]))
    assert paid == ["Ada"]
    again.model = scene.model("Done.")
    assert again(two).stop_reason == "end_turn"
    assert paid == ["Ada", "Ada"]
    assert scene.transcript()[-1] == "Done."
    scene.check(again)
    for agent in (answering, late, scene.open()):
        refused(lambda agent=agent: agent(two))  # type: ignore[misc]
    assert len(paid) == 2


# -- several turns that wait -----------------------------------------------------------------------


@both
@places
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_two_turns_that_wait_in_one_session(
    backend: Backend, commit: str, where: str, order: tuple[int, int]
) -> None:
    """Each answer either takes effect, once, or an error of this library says that it didn't."""
    pay, paid = paying()
    scene = Scene(backend, commit, lambda: {"tools": [pay]})
    agents = [scene.open(ToolCall("pay", {"amount": n}, f"p{n}")) for n in range(2)]
    prompts: list[Any] = [None, None]
    for number, agent in enumerate(agents):

        def begin(number: int = number, agent: Agent = agent) -> None:
            result = agent(f"Pay {number}.")
            prompts[number] = answers(result.interrupts, f"human {number}")

        if outcome(begin) != "done":
            prompts[number] = None
    assert prompts[0] is not None
    for number in order:
        if prompts[number] is None:
            continue
        agent = agents[number] if where == "the same process" else scene.open()
        agent.model = scene.model(f"Done {number}.")
        how = outcome(lambda agent=agent, number=number: agent(prompts[number]))  # type: ignore[misc]
        done = how == "done"
        assert paid.count(f"human {number}") == done
        result = f"result paid {number}, approved by human {number}"
        assert scene.transcript().count(result) == done
    assert paid
    assert scene.invalid == []
    if len(paid) == 2:
        assert said(scene.check(agent).messages)[-1].startswith("Done")
