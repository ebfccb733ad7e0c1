"""Forks: a session copied within the database, at one moment, once."""

from contextlib import suppress
from typing import Any

import pytest
from strands import Agent

from strands_persql import PerSQLSessionRepository
from strands_persql.errors import AlreadyExistsError, NotFoundError, OutcomeUnknownError
from strands_persql.testing import FaultyDatabase, ToolCall
from tests.contract.agents import (
    Scene,
    answers,
    both,
    manager_of,
    memory,
    paying,
    sliding,
    unmanaged,
)
from tests.support.backends import NEVER, Backend
from tests.support.conversation import Team, count, said
from tests.support.racing import beside, race_processes

LATER = 1_000_000


def talked(backend: Backend, commit: str = "message") -> tuple[Scene, Agent]:
    """Make a session with three turns, the second one with a tool, and a team beside it."""
    scene = Scene(backend, commit, unmanaged)
    agent = scene.open(ToolCall("count"))
    agent.state.set("mood", {"is": "good"})
    for prompt in ("one", "two", "three"):
        agent(prompt)
    repository = manager_of(agent).session_repository
    repository.create_multi_agent("s", Team(step=1))
    return scene, agent


def rows_of(backend: Backend, session_id: str) -> dict[str, list[dict[str, Any]]]:
    """Return all rows of a session."""
    return {
        table: [row for row in rows if row["session_id"] == session_id]
        for table, rows in backend.dump().items()
    }


@pytest.mark.guarantee(number=21)
@both
def test_a_fork_restores_what_the_original_would(backend: Backend, commit: str) -> None:
    """A fork gives a new process the messages, the state and the teams of the original."""
    scene, agent = talked(backend, commit)
    before = rows_of(backend, "s")
    copy = backend.repository(backend.reopen()).fork_session("s", "copy")
    assert copy.session_id == "copy"
    there = Scene(backend, commit, unmanaged, session_id="copy")
    forked = there.open()
    assert memory(forked) == memory(agent)
    assert there.transcript() == scene.transcript()
    repository = backend.repository()
    assert repository.read_session("copy") == copy
    assert repository.read_multi_agent("copy", "team") == {"id": "team", "step": 1}
    assert rows_of(backend, "s") == before
    forked("four")
    agent("five")
    assert said(there.check(forked).messages)[-2] == "four"
    assert said(scene.check(agent).messages)[-2] == "five"


@pytest.mark.parametrize("commit", ["message"])
def test_a_fork_is_one_request_without_a_message(backend: Backend, commit: str) -> None:
    """Whatever a session holds, its fork is one round trip that carries none of it."""
    scene, _ = talked(backend, commit)
    repository = backend.repository()
    repository.setup()
    seen = len(backend.database.log)
    repository.fork_session("s", "copy")
    sent = backend.database.log[seen:]
    assert len(sent) == 1
    assert "three" not in str(sent)
    assert Scene(backend, session_id="copy").transcript() == scene.transcript()


def test_a_fork_at_a_checkpoint_is_the_session_as_it_was(backend: Backend) -> None:
    """Such a fork has the view, the state and the history of then, and nothing said since."""
    scene, agent = talked(backend)
    checkpoint = manager_of(agent).checkpoint(agent, "here")
    held, transcript = memory(agent), scene.transcript()
    agent.state.set("mood", {"is": "bad"})
    agent("later")
    manager_of(agent).checkpoint(agent, "later")
    repository = manager_of(agent).session_repository
    repository.fork_session("s", "copy", at=checkpoint)
    there = Scene(backend, session_id="copy", make=unmanaged)
    forked = there.open()
    assert memory(forked) == held
    assert there.transcript() == transcript
    assert [one.label for one in repository.list_checkpoints("copy")] == ["here"]
    forked("another way")
    assert said(there.check(forked).messages)[-2:] == ["another way", "answer 1"]
    assert "later" in scene.transcript()


def test_a_fork_at_a_checkpoint_by_its_id(backend: Backend) -> None:
    """A checkpoint's id says which one it is, also to who hasn't made it."""
    _, agent = talked(backend)
    checkpoint = manager_of(agent).checkpoint(agent)
    agent("later")
    backend.repository().fork_session("s", "copy", at=checkpoint.checkpoint_id)
    assert "later" not in Scene(backend, session_id="copy").transcript()


def test_a_window_that_has_moved_since(backend: Backend) -> None:
    """A fork at a checkpoint works with what the window had then, not with what it has now."""
    scene = Scene(backend, make=sliding(4))
    agent = scene.open()
    for number in range(4):
        agent(f"q{number}")
    checkpoint, held = manager_of(agent).checkpoint(agent), memory(agent)
    for number in range(4):
        agent(f"more {number}")
    backend.repository().fork_session("s", "copy", at=checkpoint)
    there = Scene(backend, session_id="copy", make=sliding(4))
    assert memory(there.open()) == held
    assert len(there.transcript()) == 8


def test_a_fork_of_a_turn_that_waits(backend: Backend) -> None:
    """An interrupt waits in the fork too, and is answered in each once."""
    pay, paid = paying()
    scene = Scene(backend, make=lambda: {"tools": [pay]})
    agent = scene.open(ToolCall("pay", {"amount": 1}))
    interrupts = agent("Pay.").interrupts
    backend.repository().fork_session("s", "copy")
    there = Scene(backend, session_id="copy", make=lambda: {"tools": [pay]})
    response = answers(interrupts, "Ada")
    there.open()(response)
    scene.open()(response)
    assert paid == ["Ada", "Ada"]
    assert there.transcript()[:3] == scene.transcript()[:3]


def test_an_id_that_is_taken(backend: Backend) -> None:
    """A fork to an id that is taken raises and changes nothing, to the session's own id too."""
    _, agent = talked(backend)
    repository = manager_of(agent).session_repository
    repository.fork_session("s", "copy")
    agent("more")
    before = backend.dump()
    for taken in ("copy", "s"):
        with pytest.raises(AlreadyExistsError, match=f"'{taken}' already exists"):
            repository.fork_session("s", taken)
    assert backend.dump() == before


def test_what_is_not_there_is_not_forked(backend: Backend) -> None:
    """A session or a checkpoint that isn't there raises, and leaves nothing under the new id."""
    _, agent = talked(backend)
    repository = manager_of(agent).session_repository
    checkpoint = manager_of(agent).checkpoint(agent)
    with pytest.raises(NotFoundError, match="'nobody' does not exist"):
        repository.fork_session("nobody", "copy")
    with pytest.raises(NotFoundError, match="no checkpoint 'none'"):
        repository.fork_session("s", "copy", at="none")
    repository.fork_session("s", "other")
    repository.delete_session("s")
    with pytest.raises(NotFoundError, match="'s' does not exist"):
        repository.fork_session("s", "copy", at=checkpoint)
    with pytest.raises(ValueError, match="must be of session 'other'"):
        repository.fork_session("other", "copy", at=checkpoint)
    with pytest.raises(ValueError, match="session_id"):
        repository.fork_session("other", "a/b")
    assert repository.read_session("copy") is None
    assert not any(rows_of(backend, "copy").values())


# -- faults ----------------------------------------------------------------------------------------


@pytest.mark.backends("memory", "http")
@pytest.mark.parametrize("fault", ["lost_request", "lost_answer", "duplicate", "locked"])
def test_a_fork_is_made_once_whatever_befalls_it(backend: Backend, fault: Any) -> None:
    """A fork whose request is lost, doubled or tried again is made, and made once."""
    scene, _ = talked(backend)
    faults: list[Any] = [fault]
    faulty = FaultyDatabase(backend.database, lambda _: faults.pop(0) if faults else None)
    backend.repository(faulty).fork_session("s", "copy")
    assert faulty.injected
    assert Scene(backend, session_id="copy").transcript() == scene.transcript()


@pytest.mark.backends("memory")
def test_a_fork_that_is_asked_for_again(backend: Backend) -> None:
    """Who wasn't told whether the fork was made asks again, and has it."""
    scene, agent = talked(backend)
    faults: list[Any] = ["lost_answer"]
    faulty = FaultyDatabase(backend.database, lambda _: faults.pop(0) if faults else None)
    repository = backend.repository(faulty, retry=NEVER)
    with pytest.raises(OutcomeUnknownError):
        repository.fork_session("s", "copy")
    transcript = scene.transcript()
    agent("more")
    assert repository.fork_session("s", "copy").session_id == "copy"
    assert Scene(backend, session_id="copy").transcript() == transcript


@pytest.mark.backends("memory")
def test_a_late_copy_of_a_fork(backend: Backend) -> None:
    """A copy of the request that comes late adds nothing, and brings no deleted fork back."""
    scene, agent = talked(backend)
    faulty = FaultyDatabase(backend.database, ["delayed_duplicate"], duplicate_after=LATER)
    backend.repository(faulty).fork_session("s", "copy")
    transcript = scene.transcript()
    agent("more")
    there = Scene(backend, session_id="copy", make=unmanaged)
    forked = there.open("kept")
    forked("What now?")
    faulty.deliver_late()
    assert there.transcript() == [*transcript, "What now?", "kept"]
    late = FaultyDatabase(backend.database, ["delayed_duplicate"], duplicate_after=LATER)
    backend.repository(late).fork_session("s", "other")
    backend.repository().delete_session("other")
    late.deliver_late()
    assert not any(rows_of(backend, "other").values())


# -- others ----------------------------------------------------------------------------------------


@pytest.mark.backends("memory", "http")
def test_a_fork_beside_a_writer(backend: Backend) -> None:
    """While an agent talks on, each fork is as the session was at some moment, with whole turns."""
    scene, agent = talked(backend)

    def talk() -> None:
        for number in range(12):
            agent(f"talk {number}")

    repository = backend.repository(backend.reopen())
    with beside(talk) as thread:
        number = 0
        while thread.is_alive() or number == 0:
            repository.fork_session("s", f"copy-{number}")
            number += 1
    spoken = scene.transcript()
    for one in range(number):
        found = Scene(backend, session_id=f"copy-{one}").transcript()
        assert found == spoken[: len(found)]
    scene.check(agent)


def _fork(address: Any, number: int, barrier: Any, report: Any) -> None:
    with address.open() as database:
        repository = PerSQLSessionRepository(database)
        barrier.wait()
        for round_ in range(5):
            with suppress(AlreadyExistsError):
                repository.fork_session("s", f"copy-{round_}")
                report((round_, number))


@pytest.mark.guarantee(number=21)
@pytest.mark.backends("file", "http")
def test_processes_that_fork_to_one_id(backend: Backend) -> None:
    """Of processes that fork to one id at once, one makes the copy, whole."""
    scene = Scene(backend, make=lambda: {"tools": [count]})
    agent = scene.open()
    for prompt in ("one", "two"):
        agent(prompt)
    made = race_processes(_fork, 3, backend.address)
    assert sorted(round_ for round_, _ in made) == list(range(5))
    for round_ in range(5):
        assert Scene(backend, session_id=f"copy-{round_}").transcript() == scene.transcript()


# -- large content ---------------------------------------------------------------------------------

LARGE = "large " * 50_000


def contents(backend: Backend, session_id: str) -> list[tuple[int, int]]:
    """Return the parts of large content that a session has: their places, and how many uses."""
    rows = backend.raw(
        "SELECT place, uses FROM strands_contents WHERE session_id = ? ORDER BY digest, place",
        session_id,
    )
    return [(int(row["place"]), int(row["uses"])) for row in rows]


@pytest.mark.backends("memory", "http")
def test_large_content_comes_along(backend: Backend) -> None:
    """A fork has the large content that it refers to, of its own, and no other."""
    scene = Scene(backend, make=unmanaged)
    agent = scene.open()
    agent.state.set("notes", LARGE)
    agent(LARGE)
    checkpoint, held = manager_of(agent).checkpoint(agent), memory(agent)
    agent.state.set("notes", "short")
    agent(f"another {LARGE}")
    repository = backend.repository()
    repository.fork_session("s", "then", at=checkpoint)
    repository.fork_session("s", "now")
    now = memory(agent)
    repository.delete_session("s")
    assert contents(backend, "s") == []
    assert len(contents(backend, "then")) == 1
    assert all(uses for _, uses in [*contents(backend, "then"), *contents(backend, "now")])
    for session_id, expected in (("then", held), ("now", now)):
        there = Scene(backend, make=unmanaged, session_id=session_id)
        assert memory(there.open()) == expected
        repository.delete_session(session_id)
        assert contents(backend, session_id) == []
