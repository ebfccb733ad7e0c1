"""The contract's essence on the persql SDK itself, for whoever has it installed."""

from typing import Any

import pytest
from strands import Agent

from strands_persql import PerSQLSessionManager, PerSQLSessionRepository
from strands_persql.errors import AlreadyExistsError, NotFoundError
from strands_persql.testing import Reply, ScriptedModel, ToolCall
from tests.support.conversation import (
    Team,
    count,
    plain,
    said,
    session,
    session_agent,
    session_message,
    user,
)

persql = pytest.importorskip("persql", reason="the persql SDK isn't installed")


@pytest.fixture
def handle() -> Any:
    """A handle of the SDK on a database in memory."""
    return persql.PerSQL(local=":memory:").database("acme/x")


def agent_on(handle: Any, *replies: Reply, **options: Any) -> Agent:
    """Make an agent in a session that is opened anew."""
    return Agent(
        model=ScriptedModel(replies),
        session_manager=PerSQLSessionManager("s", handle, **options),
        agent_id="a",
        tools=[count],
        callback_handler=None,
    )


def test_what_is_created_is_there_once(handle: Any) -> None:
    """Tables are made when they are missed, and a second creation raises and resets nothing."""
    repository = PerSQLSessionRepository(handle)
    assert repository.read_session("s") is None
    repository.create_session(session())
    repository.create_agent("s", session_agent(n=1))
    again = PerSQLSessionRepository(handle)
    with pytest.raises(AlreadyExistsError):
        again.create_session(session())
    with pytest.raises(AlreadyExistsError):
        again.create_agent("s", session_agent(n=2))
    found = again.read_agent("s", "a")
    assert found is not None
    assert found.state == {"n": 1}


def test_messages_are_appended_and_redacted(handle: Any) -> None:
    """Messages come back in order, and a redaction is what is read."""
    repository = PerSQLSessionRepository(handle)
    repository.create_session(session())
    repository.create_agent("s", session_agent())
    for number, text in enumerate(("zero", "one", "two")):
        repository.create_message("s", "a", session_message(text, number))
    found = repository.read_message("s", "a", 1)
    assert found is not None
    found.redact_message = user("[gone]")
    repository.update_message("s", "a", found)
    listed = PerSQLSessionRepository(handle).list_messages("s", "a")
    assert said(one.to_message() for one in listed) == ["zero", "[gone]", "two"]


@pytest.mark.parametrize("commit", ["message", "turn"])
def test_an_agent_goes_on_where_another_stopped(handle: Any, commit: str) -> None:
    """A tool turn and its state are restored, and gone on from."""
    first = agent_on(handle, ToolCall("count"), "one", commit=commit)
    first("go")
    second = agent_on(handle, "two", commit=commit)
    assert plain(second.messages) == plain(first.messages)
    assert second.state.get() == {"n": 1}
    second("on")
    assert said(agent_on(handle).messages)[-2:] == ["on", "two"]


def test_changes_of_two_writers_are_merged(handle: Any) -> None:
    """A stale update keeps what another writer has changed, and its own change."""
    one, other = PerSQLSessionRepository(handle), PerSQLSessionRepository(handle)
    one.create_session(session())
    one.create_agent("s", session_agent(n=0))
    ours, theirs = one.read_agent("s", "a"), other.read_agent("s", "a")
    assert ours is not None
    assert theirs is not None
    theirs.state["theirs"], ours.state["ours"] = 1, 2
    other.update_agent("s", theirs)
    one.update_agent("s", ours)
    found = PerSQLSessionRepository(handle).read_agent("s", "a")
    assert found is not None
    assert found.state == {"n": 0, "theirs": 1, "ours": 2}
    assert one.stats().conflicts == 1


def test_turns_of_two_agents_are_kept_whole(handle: Any) -> None:
    """A warm agent learns another's turn, and both are stored as blocks."""
    one, other = agent_on(handle, "a1", "a2"), agent_on(handle, "b1")
    one("q1")
    other("q2")
    one("q3")
    texts = ["q1", "a1", "q2", "b1", "q3", "a2"]
    assert said(agent_on(handle).messages) == said(one.messages) == texts


def test_a_team_is_stored(handle: Any) -> None:
    """A graph's or swarm's state is created, replaced and read."""
    repository = PerSQLSessionRepository(handle)
    repository.create_session(session())
    repository.create_multi_agent("s", Team(step=1))
    repository.update_multi_agent("s", Team(step=2))
    read = PerSQLSessionRepository(handle).read_multi_agent("s", "team")
    assert read == {"id": "team", "step": 2}


def test_a_deleted_session_is_gone(handle: Any) -> None:
    """Deleting takes all of a session with it, and deleting it again raises."""
    agent_on(handle, "hi")("hello")
    repository = PerSQLSessionRepository(handle)
    repository.delete_session("s")
    assert repository.read_session("s") is None
    with pytest.raises(NotFoundError):
        repository.delete_session("s")
    assert agent_on(handle).messages == []
