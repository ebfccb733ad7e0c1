"""Going back: to checkpoints, to messages and by turns, alone and beside other writers."""

from collections.abc import Callable
from typing import Any

import pytest
from strands import Agent, ToolContext, tool
from strands.hooks import BeforeModelCallEvent

from strands_persql import PerSQLSessionManager
from strands_persql.errors import (
    AccessDeniedError,
    ConflictError,
    NotFoundError,
    OutcomeUnknownError,
    PerSQLError,
)
from strands_persql.testing import FaultyDatabase, InterceptingDatabase, Redact, ToolCall
from tests.contract.agents import (
    OVERFLOW,
    Options,
    Scene,
    answers,
    asked,
    both,
    edit,
    manager_of,
    memory,
    outcome,
    paying,
    refused,
    sliding,
    summarizing,
    unmanaged,
)
from tests.support.backends import NEVER, Backend
from tests.support.conversation import said, user

LATER = 1_000_000
MANAGEMENT: dict[str, Options] = {
    "none": unmanaged,
    "a window": sliding(4),
    "summaries": summarizing(),
}


def talked(scene: Scene, *prompts: str) -> Agent:
    """Open the session and let the agent have turns."""
    agent = scene.open()
    for prompt in prompts:
        agent(prompt)
    return agent


# -- to a checkpoint -------------------------------------------------------------------------------


@pytest.mark.guarantee(number=21)
@both
@pytest.mark.parametrize("management", MANAGEMENT)
def test_all_is_as_it_was(backend: Backend, commit: str, management: str) -> None:
    """An agent that goes back has the messages, the state and the rest that it had then."""
    scene = Scene(backend, commit, MANAGEMENT[management])
    agent = talked(scene, "q0", "q1", "q2")
    agent.state.set("mood", {"is": "good"})
    if management == "summaries":
        agent.model = scene.model(OVERFLOW, "after a summary")
    agent("q3")
    checkpoint, held = manager_of(agent).checkpoint(agent), memory(agent)
    agent.state.set("mood", {"is": "bad"})
    agent.model = scene.model(ToolCall("count"))
    for number in range(4):
        agent(f"later {number}")
    transcript = scene.transcript()
    manager_of(agent).rewind(agent, checkpoint)
    assert memory(agent) == held
    scene.check(agent)
    assert scene.transcript() == transcript
    agent.model = scene.model(ToolCall("count"), "another way")
    agent("try again")
    assert said(agent.messages)[-1] == "another way"
    scene.check(agent)
    scene.check_rows()
    fresh = scene.open()
    manager_of(fresh).rewind(fresh, checkpoint.checkpoint_id)
    assert memory(fresh) == held
    scene.check(fresh)


def test_going_back_is_one_round_trip(backend: Backend) -> None:
    """A rewind is one request that carries no message, and its answer none that is known."""
    scene = Scene(backend, make=unmanaged)
    brought: list[Any] = []
    database = InterceptingDatabase(
        backend.database, after=lambda _, results: brought.append(str(results))
    )
    manager = backend.manager(repository=backend.repository(database))
    agent = scene.open(manager=manager)
    agent("apples")
    checkpoint = manager.checkpoint(agent)
    agent("two")
    seen = len(backend.database.log)
    manager.rewind(agent, checkpoint)
    assert len(backend.database.log) == seen + 1
    assert "apples" not in str(backend.database.log[seen:])
    assert "apples" not in brought[-1]
    fresh = scene.open()
    fresh("three")
    seen = len(backend.database.log)
    manager_of(fresh).rewind(fresh, checkpoint)
    assert len(backend.database.log) == seen + 1
    seen = len(backend.database.log)
    manager_of(fresh).rewind(fresh, 1)
    assert len(backend.database.log) == seen + 1


def test_there_and_back(backend: Backend) -> None:
    """Going back to a later checkpoint brings back what an earlier one had left behind."""
    scene = Scene(backend, make=unmanaged)
    agent = talked(scene, "one")
    manager = manager_of(agent)
    first, held_first = manager.checkpoint(agent), memory(agent)
    agent("two")
    second, held_second = manager.checkpoint(agent), memory(agent)
    agent("three")
    for checkpoint, held in [(first, held_first), (second, held_second)] * 2:
        manager.rewind(agent, checkpoint)
        assert memory(agent) == held
        scene.check(agent)
        agent("more")
        scene.check(agent)
    scene.check_rows()


def test_what_was_edited_or_redacted_since(backend: Backend) -> None:
    """Messages come back as they are now: a redaction and an edit reach every checkpoint."""
    scene = Scene(backend, make=unmanaged)
    talked(scene, "one")
    made: list[Any] = []

    def keep(event: BeforeModelCallEvent) -> None:
        if not made:
            made.append(manager_of(event.agent).checkpoint(event.agent))

    agent = scene.open(Redact("[gone]", "Sorry."))
    agent.hooks.add_callback(BeforeModelCallEvent, keep)
    agent("SECRET")
    edit(agent.messages, 0)
    agent("more")
    manager_of(agent).rewind(agent, made[0])
    assert said(agent.messages) == ["one, edited", "answer 1", "[gone]"]
    scene.check(agent)
    assert "SECRET" not in str(backend.raw("SELECT * FROM strands_checkpoints"))
    assert "SECRET" not in str(backend.dump())


def test_unsaved_changes_are_left_behind(backend: Backend) -> None:
    """What an application has changed and nobody has stored is as it was at the checkpoint."""
    scene = Scene(backend, make=unmanaged)
    agent = talked(scene, "one", "two")
    checkpoint, held = manager_of(agent).checkpoint(agent), memory(agent)
    agent.state.set("mood", "bad")
    agent.messages.append(user("put in"))
    edit(agent.messages, 1)
    manager_of(agent).rewind(agent, checkpoint)
    assert memory(agent) == held
    scene.check(agent)


def test_a_checkpoint_of_a_turn_that_waits(backend: Backend) -> None:
    """Interrupts wait again, and are answered another way, once, by this process or another."""
    pay, paid = paying()
    scene = Scene(backend, make=lambda: {**unmanaged(), "tools": [pay]})
    agent = scene.open(ToolCall("pay", {"amount": 1}), "paid")
    interrupts = agent("Pay.").interrupts
    manager = manager_of(agent)
    checkpoint, held = manager.checkpoint(agent), memory(agent)
    agent(answers(interrupts, "Ada"))
    manager.rewind(agent, checkpoint)
    assert memory(agent) == held
    scene.check(agent)
    other = scene.open()
    agent(answers(interrupts, "Ben"))
    assert paid == ["Ada", "Ben"]
    refused(lambda: other(answers(interrupts, "late")))
    assert paid == ["Ada", "Ben"]
    scene.check(agent)
    assert len(scene.turns()) == 1
    fresh = scene.open()
    manager_of(fresh).rewind(fresh, checkpoint)
    third = scene.open()
    third(answers(interrupts, "Cy"))
    assert paid == ["Ada", "Ben", "Cy"]
    scene.check(third)


@pytest.mark.guarantee(number=21)
def test_a_turn_that_has_moved_since(backend: Backend) -> None:
    """A turn in a checkpoint is found where it is now, and what came between isn't part of it."""
    pay, _ = paying()
    scene = Scene(backend, make=lambda: {**unmanaged(), "tools": [pay]})
    agent = talked(scene, "one")
    other = scene.open()
    agent.model = scene.model(ToolCall("pay", {"amount": 1}), "paid")
    interrupts = agent("Pay.").interrupts
    checkpoint, held = manager_of(agent).checkpoint(agent), memory(agent)
    other("between")
    agent(answers(interrupts, "Ada"))
    assert scene.transcript()[2] == "between"
    agent("more")
    for one in (agent, scene.open()):
        manager_of(one).rewind(one, checkpoint)
        assert memory(one) == held
        scene.check(one)
    there = Scene(backend, session_id="copy", make=lambda: {**unmanaged(), "tools": [pay]})
    backend.repository().fork_session("s", "copy", at=checkpoint)
    assert memory(there.open()) == held


def test_a_checkpoint_in_a_tool(backend: Backend) -> None:
    """An agent that goes back into a turn goes on there: the tool is called again."""
    made: list[Any] = []

    @tool(context=True)
    def keep(tool_context: ToolContext) -> str:
        """Keep a checkpoint, the first time."""
        agent = tool_context.agent
        if not made:
            made.append(manager_of(agent).checkpoint(agent))
            return "kept"
        return "again"

    scene = Scene(backend, make=lambda: {**unmanaged(), "tools": [keep]})
    agent = scene.open(ToolCall("keep"))
    agent("Go.")
    agent("more")
    manager_of(agent).rewind(agent, made[0])
    fresh = scene.open()
    fresh(None)
    assert "result again" in said(fresh.messages)
    assert "result kept" not in said(fresh.messages)
    scene.check(fresh)
    refused(lambda: agent(None))


# -- to a message and by turns ---------------------------------------------------------------------


@both
def test_by_turns(backend: Backend, commit: str) -> None:
    """The latest turns are dropped, whole, and stay in the transcript; the state stays too."""
    scene = Scene(backend, commit, unmanaged)
    agent = scene.open("a0", ToolCall("count"), "a1", "a2")
    for number in range(3):
        agent(f"q{number}")
    agent.state.set("mood", "good")
    transcript = scene.transcript()
    manager_of(agent).rewind(agent, 2)
    assert said(agent.messages) == ["q0", "a0"]
    assert agent.state.get()["mood"] == "good"
    scene.check(agent)
    agent("again")
    assert asked(agent) == ["q0", "a0", "again"]
    scene.check(agent)
    assert scene.transcript()[: len(transcript)] == transcript
    manager_of(agent).rewind(agent, 2)
    assert agent.messages == []
    scene.check(agent)
    agent("anew")
    assert asked(agent) == ["anew"]
    scene.check(agent)
    scene.check_rows()


@both
def test_to_a_message(backend: Backend, commit: str) -> None:
    """A message that an agent goes back to is its last one."""
    scene = Scene(backend, commit, unmanaged)
    agent = talked(scene, "q0", "q1", "q2")
    manager_of(agent).rewind(agent, agent.messages[1])
    assert said(agent.messages) == ["q0", "answer 1"]
    scene.check(agent)
    manager_of(agent).rewind(agent, dict(agent.messages[1]))  # type: ignore[arg-type]
    assert said(agent.messages) == ["q0", "answer 1"]
    agent("q3")
    scene.check(agent)
    scene.check_rows()


@both
def test_another_answer_to_a_prompt(backend: Backend, commit: str) -> None:
    """An agent that goes back to a prompt answers it anew, here or elsewhere, in the same turn."""
    for elsewhere in (False, True):
        scene = Scene(backend, commit, unmanaged, session_id=f"s{elsewhere}")
        agent = talked(scene, "q0", "q1")
        manager_of(agent).rewind(agent, agent.messages[2])
        other = scene.open("a better answer")
        assert said(other.messages) == ["q0", "answer 1", "q1"]
        going = other if elsewhere else agent
        going.model = scene.model("a better answer")
        going(None)
        assert said(going.messages) == ["q0", "answer 1", "q1", "a better answer"]
        scene.check(going)
        assert scene.transcript() == ["q0", "answer 1", "q1", "answer 2", "a better answer"]
        assert len(scene.turns()) == 2
        late = agent if elsewhere else other
        refused(lambda late=late: late(None))  # type: ignore[misc]
        going("q2")
        scene.check(going)


def test_interrupts_of_what_is_dropped(backend: Backend) -> None:
    """Who goes back behind a turn that waits waits no longer, nor does a new process."""
    pay, paid = paying()
    scene = Scene(backend, make=lambda: {**unmanaged(), "tools": [pay]})
    for elsewhere in (False, True):
        agent = talked(scene, "one") if not elsewhere else scene.open()
        agent.model = scene.model(ToolCall("pay", {"amount": 1}))
        agent("Pay.")
        going = scene.open() if elsewhere else agent
        manager_of(going).rewind(going, 1)
        assert not going._interrupt_state.activated
        fresh = scene.check(going)
        fresh("another thing")
        scene.check(fresh)
    assert paid == []


def test_what_cant_be_gone_back_to(backend: Backend) -> None:
    """Wrong turns, messages and checkpoints raise, and change nothing."""
    scene = Scene(backend, make=sliding(2))
    agent = talked(scene, "q0", "q1")
    manager = manager_of(agent)
    first = agent.messages[0]
    agent("q2")
    stranger = Scene(backend, make=sliding(2), agent_id="b").open()
    foreign = manager_of(stranger).checkpoint(stranger)
    held, before = memory(agent), backend.dump()
    wrong: list[Any] = [0, -1, 2, True, first, user("never said"), foreign]
    for to in wrong:
        with pytest.raises(ValueError, match="must be"):
            manager.rewind(agent, to)
    with pytest.raises(NotFoundError, match="no checkpoint 'none'"):
        manager.rewind(agent, "none")
    assert memory(agent) == held
    assert backend.dump() == before
    reader = PerSQLSessionManager("s", backend.database, read_only=True)
    with pytest.raises(AccessDeniedError):
        reader.rewind(scene.open(manager=reader), 1)


def test_not_within_a_turn(backend: Backend) -> None:
    """An agent can't go back while it has a turn, and the turn goes on."""
    heard: list[str] = []

    @tool(context=True)
    def back(tool_context: ToolContext) -> str:
        """Try to go back."""
        agent = tool_context.agent
        with pytest.raises(PerSQLError, match="in the middle of a turn") as caught:
            manager_of(agent).rewind(agent, 1)
        heard.append(str(caught.value))
        return "no"

    scene = Scene(backend, make=lambda: {**unmanaged(), "tools": [back]})
    agent = scene.open(ToolCall("back"))
    agent("Go.")
    assert len(heard) == 1
    scene.check(agent)
    scene.check_rows()


# -- beside another writer -------------------------------------------------------------------------

Back = Callable[[Agent, Any], None]
WAYS: dict[str, Back] = {
    "a checkpoint": lambda agent, checkpoint: manager_of(agent).rewind(agent, checkpoint),
    "a message": lambda agent, _: manager_of(agent).rewind(agent, agent.messages[1]),
    "turns": lambda agent, _: manager_of(agent).rewind(agent, 1),
}


@pytest.mark.guarantee(number=21)
@both
@pytest.mark.backends("memory", "http")
@pytest.mark.parametrize("way", WAYS)
def test_what_another_said_meanwhile_stays(backend: Backend, commit: str, way: str) -> None:
    """What the agent knew is dropped, and what another writer said unseen stays; so with state."""
    scene = Scene(backend, commit, unmanaged)
    agent = talked(scene, "q0")
    checkpoint = manager_of(agent).checkpoint(agent)
    agent("q1")
    other = scene.open()
    other.state.set("theirs", 1)
    other("unseen")
    WAYS[way](agent, checkpoint)
    assert said(agent.messages)[:2] == ["q0", "answer 1"]
    agent("q2")
    assert said(agent.messages)[:4] == ["q0", "answer 1", "unseen", "answer 3"]
    assert agent.state.get() == {"theirs": 1}
    scene.check(agent)
    other("q3")
    known = ["q0", "answer 1", "unseen", "answer 3", "q2", "answer 4", "q3"]
    assert said(other.messages)[:-1] == known
    assert commit == "turn" or asked(other) == known
    scene.check(other)
    scene.check_rows()


@both
@pytest.mark.backends("memory", "http")
@pytest.mark.parametrize("way", WAYS)
def test_a_warm_agent_learns_of_it(backend: Backend, commit: str, way: str) -> None:
    """An agent that is open elsewhere drops what was dropped, and what it says stays."""
    scene = Scene(backend, commit, unmanaged)
    agent = talked(scene, "q0")
    checkpoint = manager_of(agent).checkpoint(agent)
    agent("q1")
    other = scene.open()
    WAYS[way](agent, checkpoint)
    other("theirs")
    other("more")
    assert asked(other)[:4] == ["q0", "answer 1", "theirs", "answer 3"]
    scene.check(other)
    agent("ours")
    scene.check(agent)
    scene.check_rows()


@pytest.mark.guarantee(number=21)
@both
@pytest.mark.backends("memory", "http")
@pytest.mark.parametrize("way", WAYS)
def test_the_second_is_refused_under_raise(backend: Backend, commit: str, way: str) -> None:
    """Whoever comes second, with a rewind or with a turn, is refused and fenced off."""
    scene = Scene(backend, commit, unmanaged)
    agent = talked(scene, "q0")
    checkpoint = manager_of(agent).checkpoint(agent)
    agent("q1")
    late, other = scene.open(conflict="raise"), scene.open()
    other("q2")
    before = backend.dump()
    for _ in range(2):
        with pytest.raises(ConflictError):
            WAYS[way](late, checkpoint)
    assert backend.dump() == before
    first, second = scene.open(conflict="raise"), scene.open(conflict="raise")
    WAYS[way](first, checkpoint)
    refused(lambda: second("late"))
    first("q3")
    scene.check(first)


@pytest.mark.backends("memory", "http")
def test_both_go_back(backend: Backend) -> None:
    """What either has dropped is dropped."""
    scene = Scene(backend, make=unmanaged)
    agent = talked(scene, "q0")
    first = manager_of(agent).checkpoint(agent)
    agent("q1")
    second = manager_of(agent).checkpoint(agent)
    agent("q2")
    other = scene.open()
    manager_of(agent).rewind(agent, first)
    manager_of(other).rewind(other, second)
    assert said(other.messages) == ["q0", "answer 1"]
    scene.check(other)
    agent("q3")
    scene.check(agent)


# -- faults ----------------------------------------------------------------------------------------


@pytest.mark.guarantee(number=21)
@pytest.mark.backends("memory")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "fault", ["lost_request", "lost_answer", "duplicate", "delayed_duplicate", "locked"]
)
@pytest.mark.parametrize("is_patient", [True, False])
def test_whatever_befalls_it(backend: Backend, way: str, fault: Any, is_patient: bool) -> None:
    """An agent has gone back once, or is told that it isn't known, and can do it again."""
    faults: list[Any] = []
    faulty = FaultyDatabase(
        backend.database, lambda _: faults.pop(0) if faults else None, duplicate_after=3
    )
    options = {} if is_patient else {"retry": NEVER}
    manager = backend.manager(repository=backend.repository(faulty, **options))
    scene = Scene(backend, make=unmanaged)
    agent = scene.open(manager=manager)
    agent("q0")
    checkpoint = manager.checkpoint(agent)
    agent("q1")
    faults.append(fault)
    how = outcome(lambda: WAYS[way](agent, checkpoint))
    if how != "done":
        assert not is_patient
        if way == "a checkpoint":
            WAYS[way](agent, checkpoint)
    agent("q2")
    assert said(agent.messages) == ["q0", "answer 1", "q2", "answer 3"]
    faulty.deliver_late()
    scene.check(agent)
    scene.check_rows()
    agent("q3")
    scene.check(agent)


@pytest.mark.backends("memory")
def test_a_late_copy_of_going_back(backend: Backend) -> None:
    """A copy of the request that comes late changes nothing."""
    scene = Scene(backend, make=unmanaged)
    agent = talked(scene, "q0")
    checkpoint = manager_of(agent).checkpoint(agent)
    agent("q1")
    faulty = FaultyDatabase(backend.database, lambda _: "delayed_duplicate", duplicate_after=LATER)
    going = scene.open(manager=backend.manager(repository=backend.repository(faulty)))
    manager_of(going).rewind(going, checkpoint)
    other = scene.open()
    other("q2")
    before = backend.dump(), backend.raw("SELECT * FROM strands_checkpoints")
    faulty.deliver_late()
    assert (backend.dump(), backend.raw("SELECT * FROM strands_checkpoints")) == before


@pytest.mark.backends("memory")
def test_asked_for_again_under_raise(backend: Backend) -> None:
    """A rewind whose answer was lost is asked for again, and is no conflict with itself."""
    faults: list[Any] = []
    faulty = FaultyDatabase(backend.database, lambda _: faults.pop(0) if faults else None)
    repository = backend.repository(faulty, retry=NEVER, on_conflict="raise")
    manager = backend.manager(repository=repository)
    scene = Scene(backend, make=unmanaged)
    agent = scene.open(manager=manager)
    agent("q0")
    checkpoint, held = manager.checkpoint(agent), memory(agent)
    agent("q1")
    faults.append("lost_answer")
    with pytest.raises(OutcomeUnknownError):
        manager.rewind(agent, checkpoint)
    manager.rewind(agent, checkpoint)
    assert memory(agent) == held
    agent("q2")
    scene.check(agent)


# -- truncation ------------------------------------------------------------------------------------


def test_what_was_rewound_is_removed_for_good(backend: Backend) -> None:
    """A truncation leaves what the agent works with and what its window has let go, no more."""
    scene = Scene(backend, make=sliding(4))
    agent = talked(scene, "q0", "q1", "q2")
    manager, repository = manager_of(agent), backend.repository()
    checkpoint = manager.checkpoint(agent, "kept")
    kept, held = scene.transcript(), memory(agent)
    agent("SECRET")
    manager.checkpoint(agent, "lost")
    agent("and more")
    assert repository.truncate_session("s", "a") == 0
    agent("and more still")
    manager.rewind(agent, checkpoint)
    assert repository.truncate_session("s", "a") == 6
    assert scene.transcript() == kept
    assert "SECRET" not in str(backend.dump())
    assert [one.label for one in repository.list_checkpoints("s")] == ["kept"]
    fresh = scene.open()
    assert memory(fresh) == held
    fresh("q3")
    scene.check(fresh)
    assert repository.truncate_session("s", "a") == 0
    manager_of(fresh).rewind(fresh, checkpoint)
    assert memory(fresh) == held
    assert repository.truncate_session("s", "a") == 2
    assert scene.transcript() == kept


def test_a_truncation_after_going_back_by_turns(backend: Backend) -> None:
    """Messages that were dropped by turns, or behind a prompt, are removed like others."""
    scene = Scene(backend, make=unmanaged)
    agent = talked(scene, "q0", "q1", "q2")
    manager = manager_of(agent)
    manager.rewind(agent, 1)
    manager.rewind(agent, agent.messages[2])
    agent.model = scene.model("a better answer")
    agent(None)
    assert backend.repository().truncate_session("s", "a") == 3
    assert scene.transcript() == ["q0", "answer 1", "q1", "a better answer"]
    fresh = scene.open()
    assert said(fresh.messages) == scene.transcript()
    fresh("q4")
    scene.check(fresh)


def test_what_is_back_is_not_removed(backend: Backend) -> None:
    """What an agent has gone back behind and returned to since stays."""
    scene = Scene(backend, make=sliding(2))
    agent = talked(scene, "q0")
    manager = manager_of(agent)
    first = manager.checkpoint(agent)
    agent("q1")
    second = manager.checkpoint(agent)
    agent("q2")
    manager.rewind(agent, first)
    agent("q3")
    manager.rewind(agent, second)
    agent("q4")
    agent("q5")
    assert backend.repository().truncate_session("s", "a") == 4
    assert [one for one in scene.transcript() if one.startswith("q")] == ["q0", "q1", "q4", "q5"]
    fresh = scene.open()
    assert said(fresh.messages) == ["q5", "answer 6"]
    assert len(manager_of(fresh).checkpoints(fresh)) == 2


def test_writers_of_before_a_truncation(backend: Backend) -> None:
    """Agents that were open before it store nothing more, and are told to open the session."""
    scene = Scene(backend, make=unmanaged)
    agent = talked(scene, "q0", "q1")
    other = scene.open()
    manager_of(agent).rewind(agent, 1)
    backend.repository().truncate_session("s", "a")
    before = backend.dump()
    for one in (agent, other):
        assert outcome(lambda late=one: late("late")) == "NotFoundError"  # type: ignore[misc]
    assert backend.dump() == before
    with pytest.raises(NotFoundError, match="does not exist"):
        backend.repository().truncate_session("s", "nobody")


@pytest.mark.backends("memory")
def test_late_copies_after_a_truncation(backend: Backend) -> None:
    """Copies of requests that come late bring back nothing, and remove nothing said since."""
    scene = Scene(backend, make=unmanaged)
    faulty = FaultyDatabase(backend.database, lambda _: "delayed_duplicate", duplicate_after=LATER)
    agent = scene.open(manager=backend.manager(repository=backend.repository(faulty)))
    for prompt in ("q0", "SECRET"):
        agent(prompt)
    manager_of(agent).rewind(agent, 1)
    assert backend.repository(faulty).truncate_session("s", "a") == 2
    fresh = scene.open()
    fresh("q1")
    manager_of(fresh).rewind(fresh, 1)
    fresh("q2")
    before = backend.dump(), backend.raw("SELECT * FROM strands_checkpoints")
    faulty.deliver_late()
    assert (backend.dump(), backend.raw("SELECT * FROM strands_checkpoints")) == before
    assert "SECRET" not in str(before)
    scene.check(fresh)


@pytest.mark.backends("memory", "http")
@pytest.mark.parametrize("fault", ["lost_request", "lost_answer", "duplicate", "locked"])
def test_a_truncation_is_done_once(backend: Backend, fault: Any) -> None:
    """Whatever befalls its request, a truncation removes what was rewound then."""
    scene = Scene(backend, make=unmanaged)
    agent = talked(scene, "q0", "q1")
    manager_of(agent).rewind(agent, 1)
    faults: list[Any] = [fault]
    faulty = FaultyDatabase(backend.database, lambda _: faults.pop(0) if faults else None)
    assert backend.repository(faulty).truncate_session("s", "a") in (0, 2)
    assert faulty.injected
    assert scene.transcript() == ["q0", "answer 1"]
    scene.check(scene.open())
