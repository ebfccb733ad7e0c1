"""Agents: their records, their state, and what an update keeps."""

from typing import Any

import pytest
from strands.types.exceptions import SessionException

from strands_persql.errors import AlreadyExistsError, NotFoundError
from tests.support.backends import Backend
from tests.support.conversation import session, session_agent, state_in_database, stored


def test_a_created_agent_is_read_as_it_was(backend: Backend) -> None:
    """State, conversation manager's state, internal state and times come back unchanged."""
    made = session_agent(name="Ada", deep={"list": [1, 2.5, None, True, "ü"]})
    made.conversation_manager_state = {"removed_message_count": 0, "x": [1]}
    made._internal_state = {"interrupt_state": {"activated": False}}
    repository = backend.repository()
    repository.create_session(session())
    repository.create_agent("s", made)
    assert repository.read_agent("s", "a") == made
    assert backend.repository(backend.reopen()).read_agent("s", "a") == made


def test_a_missing_agent_is_none(backend: Backend) -> None:
    """Reading an agent gives None where it or its session isn't there."""
    repository = stored(backend)
    assert repository.read_agent("s", "other") is None
    assert repository.read_agent("other", "a") is None


def test_a_missing_agent_is_found_as_soon_as_it_is_there(backend: Backend) -> None:
    """That an agent wasn't there is never remembered."""
    repository = stored(backend)
    repository.read_session("s")
    assert repository.read_agent("s", "b") is None
    backend.repository().create_agent("s", session_agent("b"))
    assert repository.read_agent("s", "b") is not None


def test_creating_an_agent_twice_raises_and_resets_nothing(backend: Backend) -> None:
    """A second creation raises, here and in another process, and the state stays."""
    repository = stored(backend, "hello", n=1)
    before = backend.dump()
    for one in (repository, backend.repository()):
        with pytest.raises(AlreadyExistsError, match="already exists"):
            one.create_agent("s", session_agent(n=2))
    assert backend.dump() == before
    assert repository.list_messages("s", "a")[0].message_id == 0


def test_an_agent_needs_its_session(backend: Backend) -> None:
    """An agent can't be created under a session that isn't there."""
    repository = stored(backend)
    backend.database.reset()
    with pytest.raises(NotFoundError, match="'other' does not exist"):
        repository.create_agent("other", session_agent("b"))
    assert backend.database.round_trips == 1
    assert len(backend.dump()["agents"]) == 1


def test_creating_an_object_again_is_no_second_creation(backend: Backend) -> None:
    """Creating the very same object again, as after a lost answer, finds itself."""
    repository = backend.repository()
    made_session, made_agent = session(), session_agent(n=1)
    for _ in range(2):
        repository.create_session(made_session)
        repository.create_agent("s", made_agent)
    assert len(backend.dump()["agents"]) == 1


def test_an_update_replaces_the_state(backend: Backend) -> None:
    """What an update stores is read here and elsewhere, and keys left out are gone."""
    repository = stored(backend, a=1, b=2)
    repository.update_agent("s", session_agent(b=3, c=[1]))
    for one in (repository, backend.repository(backend.reopen())):
        agent = one.read_agent("s", "a")
        assert agent is not None
        assert agent.state == {"b": 3, "c": [1]}


@pytest.mark.guarantee(number=5)
def test_an_update_keeps_when_the_agent_was_created(backend: Backend) -> None:
    """``created_at`` stays in column, JSON and object; ``updated_at`` is the newer one."""
    repository = backend.repository()
    repository.create_session(session())
    made = session_agent()
    made.created_at = made.updated_at = "2020-01-01T00:00:00+00:00"
    repository.create_agent("s", made)
    other = session_agent(n=1)
    repository.update_agent("s", other)
    assert other.created_at == made.created_at
    found = backend.repository().read_agent("s", "a")
    assert found is not None
    assert found.created_at == made.created_at
    assert found.updated_at > made.created_at
    row = backend.raw("SELECT created_at, updated_at FROM strands_agents")[0]
    assert row["created_at"] == made.created_at < row["updated_at"]


def test_updating_a_missing_agent_raises(backend: Backend) -> None:
    """An update of what isn't there raises and creates nothing."""
    repository = stored(backend)
    for session_id, agent_id in (("s", "other"), ("other", "a")):
        with pytest.raises(SessionException, match="does not exist"):
            repository.update_agent(session_id, session_agent(agent_id))
    assert len(backend.dump()["agents"]) == 1


def test_each_update_adds_one_to_the_version(backend: Backend) -> None:
    """The version counts applied writes from 1, also of an update that changes nothing."""
    repository = stored(backend)
    for number in range(3):
        repository.update_agent("s", session_agent(n=number // 2))
    assert backend.raw("SELECT version FROM strands_agents") == [{"version": 4}]


def test_an_update_costs_one_round_trip(backend: Backend) -> None:
    """Nothing is read before it is written."""
    repository = stored(backend)
    backend.database.reset()
    repository.update_agent("s", session_agent(n=1))
    assert backend.database.round_trips == 1


def test_agents_of_one_session_keep_apart(backend: Backend) -> None:
    """Agents of like names have each their own state."""
    repository = stored(backend, who="a")
    for agent_id in ("A", "a1", "a%", "ä"):
        repository.create_agent("s", session_agent(agent_id, who=agent_id))
    repository.update_agent("s", session_agent("a%", who="changed"))
    fresh = backend.repository()
    fresh.read_session("s")
    found = {one: state_in_database(backend, one)["who"] for one in ("a", "A", "a1", "a%", "ä")}
    assert found == {"a": "a", "A": "A", "a1": "a1", "a%": "changed", "ä": "ä"}


def test_what_was_given_and_got_is_nobodys_alias(backend: Backend) -> None:
    """Later changes of an object given or got change nothing that is stored or remembered."""
    repository = stored(backend)
    given = session_agent("b", items=[1])
    repository.create_agent("s", given)
    repository.read_session("s")
    given.state["items"].append(2)
    got = repository.read_agent("s", "b")
    assert got is not None
    got.state["items"].append(3)
    again = repository.read_agent("s", "b")
    assert again is not None
    assert again.state == {"items": [1]}
    assert state_in_database(backend, "b") == {"items": [1]}


def test_an_agents_state_may_be_deep_and_wide(backend: Backend) -> None:
    """Bytes, integers, floats, text of all scripts and empty things come back as they were."""
    state: dict[str, Any] = {
        "bytes": b"\x00\xff",
        "int": 2**53 - 1,
        "negative": -3,
        "float": 0.1,
        "one": 1.0,
        "text": "naïve 日本 🎉 \u2028 'quoted' \"twice\"",
        "empty": {"list": [], "dict": {}, "": None},
        "$.path": True,
    }
    stored(backend, **state)
    found = state_in_database(backend)
    assert found == state
    assert type(found["one"]) is float
    assert type(found["int"]) is int
