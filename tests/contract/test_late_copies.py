"""Requests that arrive again, late: nothing that was deleted, made anew or changed is touched."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

from strands_persql import PerSQLSessionRepository, RetryPolicy
from strands_persql.errors import NotFoundError, OutcomeUnknownError
from strands_persql.testing import FaultyDatabase
from tests.contract.agents import Scene, both, outcome
from tests.support.backends import FAST, NEVER, Backend
from tests.support.conversation import (
    Team,
    said,
    session,
    session_agent,
    session_message,
    stored,
)

pytestmark = pytest.mark.backends("memory")

LATER = 1_000_000
"""So many calls later that only `deliver_late` brings it."""


def make_anew(backend: Backend) -> None:
    """Make the session anew, with an agent that has a turn, as another process would."""
    scene = Scene(backend)
    agent = scene.open("new answer")
    agent.state.set("new", True)
    agent("new question")


def check_anew(backend: Backend) -> None:
    """Assert that the session that was made anew is there, whole."""
    scene = Scene(backend)
    fresh = scene.open("and more")
    assert said(fresh.messages) == ["new question", "new answer"]
    assert fresh.state.get() == {"new": True}
    fresh("is it there?")
    assert len(scene.rows()) == 4


# -- deletions -------------------------------------------------------------------------------------


def test_a_late_copy_of_a_deletion(backend: Backend) -> None:
    """A copy of a deletion that arrives late leaves a session that was made anew alone."""
    stored(backend, "old", old=True)
    faulty = FaultyDatabase(backend.database, ["delayed_duplicate"], duplicate_after=LATER)
    backend.repository(faulty).delete_session("s")
    assert faulty.injected
    make_anew(backend)
    faulty.deliver_late()
    check_anew(backend)


def test_a_late_copy_of_a_deletion_by_who_had_it_open(backend: Backend) -> None:
    """The same holds where the deleting repository has read the session."""
    stored(backend, "old", old=True).create_multi_agent("s", Team(old=True))
    faults: list[Any] = []
    faulty = FaultyDatabase(
        backend.database, lambda _: faults.pop(0) if faults else None, duplicate_after=LATER
    )
    repository = backend.repository(faulty)
    repository.read_session("s")
    repository.read_agent("s", "a")
    faults += ["delayed_duplicate"] * 3
    repository.delete_session("s")
    make_anew(backend)
    backend.repository().create_multi_agent("s", Team(new=True))
    faulty.deliver_late()
    check_anew(backend)
    found = backend.repository()
    found.read_session("s")
    assert found.read_multi_agent("s", "team") == {"id": "team", "new": True}


@pytest.mark.parametrize("fault", ["lost_answer", "lost_request"])
@pytest.mark.parametrize("has_read", [True, False])
def test_a_deletion_that_is_tried_again(backend: Backend, fault: Any, has_read: bool) -> None:
    """A retry deletes the session that its caller saw, or none, never one made anew since."""
    stored(backend, "old", old=True)
    faults: list[Any] = []
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        if not slept:
            slept.append(seconds)
            outcome(lambda: backend.repository().delete_session("s"))
            make_anew(backend)

    faulty = FaultyDatabase(backend.database, lambda _: faults.pop(0) if faults else None)
    retry = RetryPolicy(budget=5.0, first_wait=0.001, sleep=sleep)
    repository = backend.repository(faulty, retry=retry)
    if has_read:
        repository.read_session("s")
    faults.append(fault)
    how = outcome(lambda: repository.delete_session("s"))
    assert slept
    if fault == "lost_answer" or has_read:
        assert how in ("done", "NotFoundError")
        check_anew(backend)


def test_a_deletion_that_is_sent_again_by_its_caller(backend: Backend) -> None:
    """Who wasn't told whether a session is deleted may say so again, whatever came between."""
    stored(backend, "old", old=True)
    faults: list[Any] = []
    faulty = FaultyDatabase(backend.database, lambda _: faults.pop(0) if faults else None)
    repository = backend.repository(faulty, retry=NEVER)
    repository.read_session("s")
    faults.append("lost_answer")
    with pytest.raises(OutcomeUnknownError):
        repository.delete_session("s")
    make_anew(backend)
    assert outcome(lambda: repository.delete_session("s")) in ("done", "NotFoundError")
    check_anew(backend)


@pytest.mark.parametrize("fault", ["duplicate", "lost_answer", "delayed_duplicate"])
def test_a_deletion_deletes_all(backend: Backend, fault: Any) -> None:
    """A deletion whose request arrives twice, or is tried again, leaves nothing of its session."""
    stored(backend, "old", old=True).create_multi_agent("s", Team(old=True))
    stored(backend, "other", session_id="t")
    faults: list[Any] = []
    faulty = FaultyDatabase(backend.database, lambda _: faults.pop(0) if faults else None)
    repository = backend.repository(faulty, retry=FAST)
    repository.read_session("s")
    faults.append(fault)
    assert outcome(lambda: repository.delete_session("s")) in ("done", "NotFoundError")
    faulty.deliver_late()
    left = {table: {row["session_id"] for row in rows} for table, rows in backend.dump().items()}
    assert left == {
        "sessions": {"t"},
        "agents": {"t"},
        "messages": {"t"},
        "multi_agents": set(),
        "contents": set(),
    }


def test_a_session_that_is_made_anew_can_be_deleted(backend: Backend) -> None:
    """Who reads a session that was made anew may delete that one, too."""
    repository = stored(backend, "old")
    repository.read_session("s")
    backend.repository().delete_session("s")
    make_anew(backend)
    assert repository.read_session("s") is not None
    repository.delete_session("s")
    assert all(rows == [] for rows in backend.dump().values())
    with pytest.raises(NotFoundError):
        repository.delete_session("s")


@both
def test_an_agent_of_a_deleted_session_writes_nothing_anew(backend: Backend, commit: str) -> None:
    """An agent whose session was deleted and made anew is refused, whatever it still held back."""
    scene = Scene(backend, commit)
    faults: list[Any] = []
    faulty = FaultyDatabase(
        backend.database, lambda _: faults.pop(0) if faults else None, duplicate_after=LATER
    )
    manager = backend.manager(repository=backend.repository(faulty), commit=commit)
    agent = scene.open(manager=manager)
    faults += ["delayed_duplicate"] * 10
    agent("old question")
    backend.repository().delete_session("s")
    make_anew(backend)
    faulty.deliver_late()
    assert outcome(lambda: agent("another")) == "NotFoundError"
    check_anew(backend)


def test_racing_deletions_and_creations(backend: Backend) -> None:
    """Deletions of the old session that come at once with a new one never take the new one."""
    for _ in range(5):
        outcome(lambda: backend.repository().delete_session("s"))
        stored(backend, "old", old=True)
        deleters = [backend.repository(backend.reopen()) for _ in range(3)]
        for one in deleters:
            one.read_session("s")
        deleters[0].delete_session("s")
        late = [
            threading.Thread(target=outcome, args=(lambda one=one: one.delete_session("s"),))
            for one in deleters[1:]
        ]
        for thread in late:
            thread.start()
        make_anew(backend)
        for thread in late:
            thread.join(timeout=60)
        scene = Scene(backend)
        assert said(scene.open().messages) == ["new question", "new answer"]


# -- creations -------------------------------------------------------------------------------------

Write = Callable[[PerSQLSessionRepository], Any]
CREATIONS: dict[str, Write] = {
    "a session": lambda one: one.create_session(session()),
    "an agent": lambda one: one.create_agent("s", session_agent("b", old=True)),
    "a message": lambda one: one.create_message("s", "a", session_message("late", 1)),
    "a message behind others": lambda one: one.create_message("s", "a", session_message("x", 0)),
    "a multi-agent": lambda one: one.create_multi_agent("s", Team(old=True)),
}


def created_late(backend: Backend, kind: str) -> FaultyDatabase:
    """Create something by a request of which a copy is still under way."""
    if kind != "a session":
        stored(backend, "first")
    faults: list[Any] = []
    faulty = FaultyDatabase(
        backend.database, lambda _: faults.pop(0) if faults else None, duplicate_after=LATER
    )
    repository = backend.repository(faulty)
    repository.setup()
    if kind != "a session":
        repository.read_session("s")
    faults += ["delayed_duplicate"] * 3
    CREATIONS[kind](repository)
    assert faulty.injected
    return faulty


def change_all(backend: Backend) -> None:
    """Change all that is there, as another process would."""
    repository = backend.repository()
    repository.read_session("s")
    for agent_id in ("a", "b"):
        agent = repository.read_agent("s", agent_id)
        if agent is not None:
            agent.state["changed"] = True
            repository.update_agent("s", agent)
            for record in repository.list_messages("s", agent_id):
                record.message["content"] = [{"text": "changed"}]
                repository.update_message("s", agent_id, record)
    if repository.read_multi_agent("s", "team") is not None:
        repository.update_multi_agent("s", Team(changed=True))


@pytest.mark.parametrize("kind", CREATIONS)
def test_a_late_copy_of_a_creation_changes_nothing(backend: Backend, kind: str) -> None:
    """What was created and changed since stays as it is when a copy of its creation arrives."""
    faulty = created_late(backend, kind)
    change_all(backend)
    before = backend.dump()
    faulty.deliver_late()
    assert backend.dump() == before


@pytest.mark.parametrize("kind", CREATIONS)
def test_a_late_copy_of_a_creation_brings_nothing_back(backend: Backend, kind: str) -> None:
    """What was deleted since stays deleted when a copy of its creation arrives."""
    faulty = created_late(backend, kind)
    backend.repository().delete_session("s")
    faulty.deliver_late()
    assert all(rows == [] for rows in backend.dump().values())


@pytest.mark.parametrize("kind", CREATIONS)
def test_a_late_copy_of_a_creation_adds_nothing_to_what_was_made_anew(
    backend: Backend, kind: str
) -> None:
    """A session that was made anew gets nothing of the old one's when a copy arrives."""
    faulty = created_late(backend, kind)
    backend.repository().delete_session("s")
    make_anew(backend)
    before = backend.dump()
    faulty.deliver_late()
    assert backend.dump() == before
    check_anew(backend)


@both
def test_late_copies_of_a_whole_turn(backend: Backend, commit: str) -> None:
    """Copies of all requests of a turn, that arrive after edits, redactions and others' turns."""
    scene = Scene(backend, commit)
    faults: list[Any] = []
    faulty = FaultyDatabase(
        backend.database, lambda _: faults.pop(0) if faults else None, duplicate_after=LATER
    )
    manager = backend.manager(repository=backend.repository(faulty), commit=commit)
    agent = scene.open("Hi.", "Fine.", manager=manager)
    agent("Hello.")
    faults += ["delayed_duplicate"] * 10
    agent("How are you?")
    other = scene.open("Noon.")
    other.messages[0]["content"] = [{"text": "[gone]"}]
    other("What time?")
    before = backend.dump()
    faulty.deliver_late()
    assert backend.dump() == before
    scene.check(other)
