"""What bad input gets: a typed error, nothing written, and the next write works."""

from typing import Any

import pytest
from strands import Agent
from strands.types.session import SessionMessage

from strands_persql import persql_error
from strands_persql.errors import CorruptRowError, InvalidDataError, TooLargeError
from strands_persql.testing import ScriptedModel
from tests.support.backends import Backend
from tests.support.conversation import (
    Team,
    in_database,
    listed,
    said,
    session,
    session_agent,
    session_message,
    state_in_database,
    stored,
    user,
)

BAD_IDS = ["", "a/b", "a\\b", "..\\x", "nul\0", "\ud800", None, 3, b"s"]
UNFIT = [{1, 2}, object(), 1j]


@pytest.mark.guarantee(number=15)
@pytest.mark.parametrize("bad", BAD_IDS)
def test_session_ids_are_checked_before_anything_is_sent(backend: Backend, bad: Any) -> None:
    """An empty id, a path separator, NUL or a lone surrogate is a ValueError without a request."""
    repository = backend.repository()
    made = session()
    made.session_id = bad
    calls: list[Any] = [
        lambda: repository.create_session(made),
        lambda: repository.read_session(bad),
        lambda: repository.delete_session(bad),
        lambda: repository.create_agent(bad, session_agent()),
        lambda: repository.read_agent(bad, "a"),
        lambda: repository.update_agent(bad, session_agent()),
        lambda: repository.create_message(bad, "a", session_message("x", 0)),
        lambda: repository.read_message(bad, "a", 0),
        lambda: repository.update_message(bad, "a", session_message("x", 0)),
        lambda: repository.list_messages(bad, "a"),
        lambda: repository.create_multi_agent(bad, Team()),
        lambda: repository.read_multi_agent(bad, "team"),
        lambda: repository.update_multi_agent(bad, Team()),
        lambda: backend.manager(bad),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="session_id"):
            call()
    assert backend.database.round_trips == 0


@pytest.mark.parametrize("bad", BAD_IDS)
def test_agent_ids_are_checked_before_anything_is_sent(backend: Backend, bad: Any) -> None:
    """The same holds for ids of agents and multi-agents."""
    repository = backend.repository()
    calls: list[Any] = [
        lambda: repository.create_agent("s", session_agent(bad)),
        lambda: repository.read_agent("s", bad),
        lambda: repository.update_agent("s", session_agent(bad)),
        lambda: repository.create_message("s", bad, session_message("x", 0)),
        lambda: repository.read_message("s", bad, 0),
        lambda: repository.update_message("s", bad, session_message("x", 0)),
        lambda: repository.list_messages("s", bad),
        lambda: repository.create_multi_agent("s", Team(bad)),
        lambda: repository.read_multi_agent("s", bad),
        lambda: repository.update_multi_agent("s", Team(bad)),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="agent_id"):
            call()
    assert backend.database.round_trips == 0


@pytest.mark.parametrize("bad", ["0", 1.0, None, True, -1])
def test_message_ids_are_checked_before_anything_is_sent(backend: Backend, bad: Any) -> None:
    """A message id that is no integer from 0 on is a ValueError without a request."""
    repository = backend.repository()
    calls: list[Any] = [
        lambda: repository.create_message("s", "a", session_message("x", bad)),
        lambda: repository.read_message("s", "a", bad),
        lambda: repository.update_message("s", "a", session_message("x", bad)),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="message_id"):
            call()
    assert backend.database.round_trips == 0


@pytest.mark.parametrize("bad", ["", "1x", "x-", 'x"', "x y", "x;", "é", "x" * 64, "/", "\0"])
def test_table_prefixes_are_checked(backend: Backend, bad: str) -> None:
    """A prefix of anything but letters, digits and underscores is a ValueError."""
    with pytest.raises(ValueError, match="table_prefix"):
        backend.repository(table_prefix=bad)


@pytest.mark.guarantee(number=15)
@pytest.mark.parametrize("unfit", UNFIT)
def test_state_that_json_cant_hold_is_refused(backend: Backend, unfit: Any) -> None:
    """Creation and update of an agent raise, write nothing, and the next update works."""
    repository = stored(backend, n=1)
    before = backend.dump()
    backend.database.reset()
    for call in (repository.create_agent, repository.update_agent):
        agent_id = "b" if call == repository.create_agent else "a"
        with pytest.raises(InvalidDataError, match="nothing was written") as caught:
            call("s", session_agent(agent_id, deep=[{"x": unfit}]))
        place = f"state['deep'][0]['x'] is of type {type(unfit).__name__}"
        assert place in str(caught.value)
        assert f"(session 's', agent {agent_id!r})" in str(caught.value)
        assert (caught.value.session_id, caught.value.agent_id) == ("s", agent_id)
    with pytest.raises(InvalidDataError):
        repository.create_multi_agent("s", Team(x=unfit))
    assert backend.database.round_trips == 0
    assert backend.dump() == before
    repository.update_agent("s", session_agent(n=2))
    assert state_in_database(backend) == {"n": 2}


@pytest.mark.guarantee(number=15)
@pytest.mark.parametrize("unfit", UNFIT)
def test_messages_that_json_cant_hold_are_refused(backend: Backend, unfit: Any) -> None:
    """Creation and update of a message raise, write nothing, and the next write works."""
    repository = stored(backend, "zero")
    message: Any = {"role": "user", "content": [{"text": unfit}]}
    before = backend.dump()
    for call in (repository.create_message, repository.update_message):
        with pytest.raises(InvalidDataError):
            call("s", "a", SessionMessage.from_message(message, 0))
    assert backend.dump() == before
    repository.create_message("s", "a", session_message("one", 1))
    assert in_database(backend) == ["zero", "one"]


def test_keys_that_json_would_change_dont_pass_in_silence(backend: Backend) -> None:
    """A state whose keys aren't text either comes back as it was, or is refused."""
    repository = stored(backend)
    agent = session_agent()
    agent.state = {"by_number": {1: "a", "1": "b"}}
    try:
        repository.update_agent("s", agent)
    except InvalidDataError:
        return
    assert state_in_database(backend) in ({"by_number": {"1": "b"}}, {"by_number": {"1": "a"}})


def test_state_that_contains_itself_is_refused(backend: Backend) -> None:
    """A circle is a typed error, as is what is nested beyond all depth."""
    repository = stored(backend)
    circle: dict[str, Any] = {}
    circle["self"] = circle
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    for unfit in (circle, deep):
        with pytest.raises(InvalidDataError):
            repository.update_agent("s", session_agent(x=unfit))
    while deep:  # freed from within, for the interpreter frees what is nested recursively
        deep = deep[0]
    assert state_in_database(backend) == {}


def test_lone_surrogates_in_state_come_back(backend: Backend) -> None:
    """State may hold text that has no UTF-8, and NUL, as values and as keys."""
    state: dict[str, Any] = {"\ud800": "\udfff", "nul\0": "\0", "ok": "ü"}
    repository = stored(backend, **state)
    assert state_in_database(backend) == state
    repository.update_agent("s", session_agent(**{**state, "n": 1}))
    assert state_in_database(backend) == {**state, "n": 1}


@pytest.mark.guarantee(number=15)
@pytest.mark.parametrize("broken", ["", "{", "null", "[]", "3", '"text"', "{}", '{"message": 3}'])
def test_a_corrupt_message_is_named_and_others_stay_readable(backend: Backend, broken: str) -> None:
    """A row of broken JSON or wrong shape raises with its table and key; its neighbours don't."""
    stored(backend, "zero", "one", "two")
    backend.raw("UPDATE strands_messages SET data = ? WHERE message_id = 1", broken)
    repository = backend.repository()
    repository.read_session("s")
    for call in (
        lambda: repository.read_message("s", "a", 1),
        lambda: repository.list_messages("s", "a"),
    ):
        with pytest.raises(CorruptRowError, match="strands_messages") as caught:
            call()
        assert caught.value.table == "strands_messages"
        assert caught.value.key == ("s", "a", 1)
    assert said(one.to_message() for one in repository.list_messages("s", "a", limit=1)) == ["zero"]
    for message_id in (0, 2):
        assert repository.read_message("s", "a", message_id) is not None
    repository.create_message("s", "a", session_message("three", 3))
    assert repository.read_message("s", "a", 3) is not None


@pytest.mark.parametrize("broken", ["", "{", "null", "[]", "{}", '{"agent_id": "a", "state": 3}'])
def test_a_corrupt_agent_is_named_and_others_stay_readable(backend: Backend, broken: str) -> None:
    """An agent's corrupt row doesn't keep its session from being opened, nor others' reading."""
    stored(backend, "zero").create_agent("s", session_agent("b", n=1))
    backend.raw("UPDATE strands_agents SET data = ? WHERE agent_id = 'a'", broken)
    repository = backend.repository()
    assert repository.read_session("s") is not None
    with pytest.raises(CorruptRowError, match="strands_agents") as caught:
        repository.read_agent("s", "a")
    assert caught.value.key == ("s", "a")
    other = repository.read_agent("s", "b")
    assert other is not None
    assert other.state == {"n": 1}


@pytest.mark.parametrize("broken", ["", "{", "null", "{}"])
def test_a_corrupt_session_is_named_and_others_stay_readable(backend: Backend, broken: str) -> None:
    """A session's corrupt row raises when that session is opened, and no other."""
    stored(backend)
    stored(backend, session_id="s2")
    backend.raw("UPDATE strands_sessions SET data = ? WHERE session_id = 's'", broken)
    with pytest.raises(CorruptRowError, match="strands_sessions") as caught:
        backend.repository().read_session("s")
    assert caught.value.key == ("s",)
    assert backend.repository().read_session("s2") is not None


@pytest.mark.parametrize("broken", ["", "{", "[]"])
def test_a_corrupt_multi_agent_is_named(backend: Backend, broken: str) -> None:
    """A multi-agent's corrupt row raises with its table and key when it is read."""
    stored(backend).create_multi_agent("s", Team())
    backend.raw("UPDATE strands_multi_agents SET data = ?", broken)
    repository = backend.repository()
    assert repository.read_session("s") is not None
    with pytest.raises(CorruptRowError, match="strands_multi_agents") as caught:
        repository.read_multi_agent("s", "team")
    assert caught.value.key == ("s", "team")


def test_broken_base64_is_a_corrupt_row(backend: Backend) -> None:
    """Bytes that can't be decoded are named as any other corruption."""
    stored(backend, "zero")
    data = '{"message": {"x": {"__bytes_encoded__": true, "data": "A"}}, "message_id": 0}'
    backend.raw("UPDATE strands_messages SET data = ?", data)
    with pytest.raises(CorruptRowError):
        backend.repository().read_message("s", "a", 0)


def test_an_unknown_field_of_a_row_is_passed_over(backend: Backend) -> None:
    """Rows that a later version of Strands has written with more fields are read."""
    stored(backend, "zero")
    for table in ("sessions", "agents", "messages"):
        backend.raw(f"UPDATE strands_{table} SET data = json_set(data, '$.later', 1)")
    repository = backend.repository()
    assert repository.read_session("s") is not None
    assert repository.read_agent("s", "a") is not None
    assert listed(repository) == ["zero"]


@pytest.mark.guarantee(number=15)
def test_what_a_row_cant_hold_is_refused_before_it_is_sent(backend: Backend) -> None:
    """Beyond the stated maximum a message is a typed error with sizes, and nothing is sent."""
    repository = stored(backend)
    limit = 200_000_000
    backend.database.reset()
    with pytest.raises(TooLargeError, match=rf"\(session 's', agent 'a'\) .*{limit}") as caught:
        repository.create_message("s", "a", session_message("x" * limit, 0))
    assert caught.value.size > caught.value.limit == limit
    assert backend.database.round_trips == 0


def test_a_refused_message_of_an_agent_stands_in_nobodys_way(backend: Backend) -> None:
    """A message that JSON can't hold raises at its append, and the next one is stored."""
    manager = backend.manager()
    agent = Agent(session_manager=manager, agent_id="a", callback_handler=None)
    unfit: Any = {"role": "user", "content": [{"text": {1, 2}}]}
    with pytest.raises(InvalidDataError):
        manager.append_message(unfit, agent)
    manager.append_message(user("fine"), agent)
    assert in_database(backend) == ["fine"]


def test_what_cant_be_stored_is_told_in_a_line(
    backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    """The caller has the error; that it fails once more after all hooks is a line of the log."""
    agent = Agent(
        model=ScriptedModel(["fine"]), session_manager=backend.manager(), callback_handler=None
    )
    agent.messages.append({"role": "user", "content": [{"text": {1, 2}}]})  # type: ignore[typeddict-item]
    with pytest.raises(Exception, match="agent 'default'") as caught:
        agent("Hello.")
    assert isinstance(persql_error(caught.value), InvalidDataError)
    [record] = [one for one in caplog.records if one.name.startswith("strands_persql")]
    assert (record.levelname, record.exc_info) == ("WARNING", None)
    assert "what a hook changed could not be stored" in record.message
