"""Going back with agents that nobody has open, forks of them, and truncations of open ones."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from strands import Agent

from strands_persql import PerSQLSessionRepository
from strands_persql.errors import AccessDeniedError, AlreadyExistsError, NotFoundError, PerSQLError
from strands_persql.testing import FaultyDatabase, InterceptingDatabase, ToolCall
from tests.contract.agents import (
    OVERFLOW,
    Options,
    Scene,
    both,
    manager_of,
    memory,
    paying,
    sliding,
    summarizing,
    unmanaged,
)
from tests.support.backends import NEVER, Backend
from tests.support.conversation import said, user

MANAGEMENT: dict[str, Options] = {
    "none": unmanaged,
    "a window": sliding(10),
    "summaries": summarizing(),
}
WAYS = ["a checkpoint", "its id", "a message", "turns"]


def where_to(repository: PerSQLSessionRepository, session_id: str, way: str, label: str) -> Any:
    """Return a point to go back to, as one who has read the session names it."""
    if way == "turns":
        return 2
    if way == "a message":
        spoken = repository.list_messages(session_id, "a")
        return next(one for one in spoken if said([one.to_message()]) == [label])
    points = repository.list_checkpoints(session_id, "a")
    point = next(one for one in points if one.label == label)
    return point if way == "a checkpoint" else point.checkpoint_id


def talked(backend: Backend, management: str, commit: str = "message") -> tuple[Scene, Agent]:
    """Let an agent have turns of all kinds, with a checkpoint in between."""
    scene = Scene(backend, commit, MANAGEMENT[management])
    agent = scene.open()
    for prompt in ("q0", "q1", "q2"):
        agent(prompt)
    agent.state.set("mood", {"is": "good"})
    if management == "summaries":
        agent.model = scene.model(OVERFLOW, "after a summary")
        agent("q3")
        agent.model = scene.model()
    agent("kept")
    label = said(agent.messages)[-1]
    manager_of(agent).checkpoint(agent, label)
    agent.state.set("mood", {"is": "bad"})
    agent.model = scene.model(ToolCall("count"), "counted")
    agent("q4")
    agent("q5")
    return scene, agent


@pytest.mark.guarantee(number=21)
@both
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("management", MANAGEMENT)
def test_an_agent_that_nobody_has_open(
    backend: Backend, commit: str, management: str, way: str
) -> None:
    """It goes back as one does that is open, and who opens it then is given the same."""
    scene, agent = talked(backend, management, commit)
    repository = backend.repository()
    label = next(one.label for one in repository.list_checkpoints("s"))
    repository.fork_session("s", "copy")
    manager_of(agent).rewind(agent, where_to(repository, "s", way, label))
    scene.check(agent)

    other = backend.repository(backend.reopen())
    transcript = Scene(backend, session_id="copy").transcript()
    other.rewind_session("copy", "a", where_to(other, "copy", way, label))

    there = Scene(backend, commit, MANAGEMENT[management], session_id="copy")
    fresh = there.open()
    assert memory(fresh) == memory(agent)
    assert there.transcript() == transcript
    fresh("another way")
    there.check(fresh)


def test_it_costs_a_request_and_the_read(backend: Backend) -> None:
    """What the agent works with is read once; going back itself is one request."""
    talked(backend, "none")
    repository = backend.repository()
    repository.setup()
    seen = len(backend.database.log)
    repository.rewind_session("s", "a", 1)
    assert len(backend.database.log) == seen + 2
    repository.rewind_session("s", "a", repository.list_checkpoints("s")[0])


def test_interrupts_of_what_an_agent_goes_back_behind(backend: Backend) -> None:
    """Who opens the agent afterwards is asked nothing."""
    pay, paid = paying()
    scene = Scene(backend, make=lambda: {**unmanaged(), "tools": [pay]})
    agent = scene.open()
    agent("q0")
    agent.model = scene.model(ToolCall("pay", {"amount": 1}))
    agent("Pay.")
    backend.repository().rewind_session("s", "a", 1)
    fresh = scene.open()
    assert not fresh._interrupt_state.activated
    assert said(fresh.messages) == ["q0", "answer 1"]
    fresh("another thing")
    scene.check(fresh)
    assert paid == []


@pytest.mark.backends("memory", "http")
@pytest.mark.parametrize("way", WAYS)
def test_what_is_said_meanwhile_stays(backend: Backend, way: str) -> None:
    """A turn that comes between the read and the write isn't dropped, and nothing is lost."""
    scene, agent = talked(backend, "none")
    late: list[Callable[[], object]] = []

    def before(statements: Any) -> None:
        if late and "UPDATE" in str(statements):
            late.pop()()

    database = InterceptingDatabase(backend.database, before=before)
    repository = backend.repository(database)
    label = next(one.label for one in repository.list_checkpoints("s"))
    point = where_to(repository, "s", way, label)
    late.append(lambda: agent("unseen"))
    repository.rewind_session("s", "a", point)
    assert not late
    fresh = scene.open()
    assert said(fresh.messages)[-4:-2] == ["kept", label]
    assert said(fresh.messages)[-2] == "unseen"
    fresh("on")
    scene.check(fresh)
    scene.check_rows()


def test_an_open_agent_learns_of_it(backend: Backend) -> None:
    """An agent of another process drops what was dropped when its next turn begins."""
    scene, agent = talked(backend, "none")
    backend.repository(backend.reopen()).rewind_session("s", "a", 2)
    agent("on")
    assert said(agent.messages)[-4:-1] == ["kept", "answer 4", "on"]
    scene.check(agent)


def test_what_cant_be_gone_back_to(backend: Backend) -> None:
    """Wrong points, and agents and sessions that aren't there, raise and change nothing."""
    talked(backend, "a window")
    repository = backend.repository()
    first = repository.list_messages("s", "a")[0]
    before = backend.dump()
    points: list[Any] = [0, True, 40, first, user("never said")]
    for to in points:
        with pytest.raises(ValueError, match="must be"):
            repository.rewind_session("s", "a", to)
        with pytest.raises(ValueError, match="must be"):
            repository.fork_session("s", "copy", at=to, agent_id="a")
    with pytest.raises(ValueError, match="agent_id"):
        repository.fork_session("s", "copy", at=1)
    for session_id, agent_id in (("s", "b"), ("t", "a")):
        with pytest.raises(NotFoundError, match=f"'{agent_id}' of session '{session_id}'"):
            repository.rewind_session(session_id, agent_id, 1)
    for wanted, session_id, agent_id in (("agent 'b'", "s", "b"), ("session 't'", "t", "a")):
        with pytest.raises(NotFoundError, match=wanted):
            repository.fork_session(session_id, "copy", at=1, agent_id=agent_id)
    with pytest.raises(AccessDeniedError):
        repository.as_read_only().rewind_session("s", "a", 1)
    assert {**backend.dump(), "strands_deletions": []} == {**before, "strands_deletions": []}


# -- forks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["a message", "turns"])
@pytest.mark.parametrize("management", MANAGEMENT)
def test_a_fork_at_a_message(backend: Backend, management: str, way: str) -> None:
    """The copy has what an agent has that goes back there, and nothing that was said since."""
    scene, agent = talked(backend, management)
    repository = backend.repository()
    label = next(one.label for one in repository.list_checkpoints("s"))
    before = backend.dump()
    point = where_to(repository, "s", way, label)
    copy = repository.fork_session("s", "copy", at=point, agent_id="a")
    assert copy.session_id == "copy"
    original = {
        table: [row for row in rows if row.get("session_id") == "s"]
        for table, rows in backend.dump().items()
    }
    assert all(original[table] == before[table] for table in before if table in original)
    assert "q4" not in Scene(backend, session_id="copy").transcript()
    there = Scene(backend, make=MANAGEMENT[management], session_id="copy")
    fresh = there.open()
    manager_of(agent).rewind(agent, point)
    assert memory(fresh) == memory(agent)
    fresh("another way")
    there.check(fresh)
    scene.check(agent)


_REQUESTS = 5  # that a fork at a turn takes


@pytest.mark.parametrize("fails_at", range(_REQUESTS))
def test_a_fork_that_fails_halfway(backend: Backend, fails_at: int) -> None:
    """No copy is left that has too much, and who says it again gets the one that was meant."""
    talked(backend, "none")
    repository = backend.repository()
    repository.setup()
    faults: list[Any] = [*[None] * fails_at, "lost_answer"]
    faulty = FaultyDatabase(backend.database, faults)
    repository = backend.repository(faulty, retry=NEVER)
    with suppress(PerSQLError):
        repository.fork_session("s", "copy", at=2, agent_id="a")
    assert faulty.injected
    with suppress(AlreadyExistsError):
        repository.fork_session("s", "copy", at=2, agent_id="a")
    assert said(Scene(backend, make=unmanaged, session_id="copy").open().messages)[-2:] == [
        "kept",
        "answer 4",
    ]
    assert "q4" not in Scene(backend, session_id="copy").transcript()


# -- truncations -----------------------------------------------------------------------------------


@both
def test_an_open_agent_truncates(backend: Backend, commit: str) -> None:
    """It goes on with what it works with, its unsaved state too; others open it again."""
    scene, agent = talked(backend, "a window", commit)
    manager = manager_of(agent)
    other = scene.open()
    assert manager.truncate(agent) == 0
    manager.rewind(agent, 2)
    agent.state.set("later", [1])
    held = memory(agent)
    assert manager.truncate(agent) == 6
    assert memory(agent) == held
    assert "q4" not in scene.transcript()
    scene.check(agent)
    agent("on")
    scene.check(agent)
    with pytest.raises(NotFoundError):
        other("from before")
    reader = backend.manager(repository=backend.repository().as_read_only())
    fresh = scene.open(manager=reader)
    with pytest.raises(AccessDeniedError):
        reader.truncate(fresh)
