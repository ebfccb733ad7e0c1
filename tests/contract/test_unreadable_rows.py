"""A row that can't be read costs that row: what opens goes on, and a warning names it."""

import logging
from typing import Any

import pytest
from strands import Agent
from strands.agent.conversation_manager import NullConversationManager

from strands_persql import CorruptRowError, PerSQLSessionManager
from strands_persql.admin import SessionAdmin
from strands_persql.testing import ScriptedModel, ToolCall
from tests.support.backends import FAST, Backend
from tests.support.conversation import Team, count, said, stored

DEEP = '{"message":' + "[" * 100_000
NEST = '{"a":' * 700 + "1" + "}" * 700  # which Python reads, and can't copy or compare
NESTED = '{"message": {"role": "user", "content": [{"json": %s}]}, "message_id": 1}' % NEST  # noqa: UP031
NO_MESSAGE = '{"message": {"role": "x", "content": []}}'
BROKEN = ("", "{", "null", "3", '{"message": 3}', DEEP, NESTED, NO_MESSAGE)
GONE = "[A message that was here can't be read.]"


def open_agent(backend: Backend, *replies: Any, strict: bool = False) -> Agent:
    """Open the session as another process would, and restore its agent."""
    manager = PerSQLSessionManager("s", backend.database, retry=FAST, strict=strict)
    return Agent(
        model=ScriptedModel(replies),
        session_manager=manager,
        agent_id="a",
        tools=[count],
        conversation_manager=NullConversationManager(),
        callback_handler=None,
    )


def lived_in(backend: Backend) -> Agent:
    """Go through a plain turn and one with a tool: seven messages."""
    agent = open_agent(backend, "hi", ToolCall("count", id="c1"), "one", "fine")
    for text in ("hello", "count", "and you?"):
        agent(text)
    return agent


def outline(agent: Agent) -> list[str]:
    """Return what an agent works with, a word a message."""
    return [
        f"{message['role'][0]}:"
        + ",".join(next(iter(one)) + str(one.get("text", "")) for one in message["content"])
        for message in agent.messages
    ]


def break_message(backend: Backend, message_id: int, data: str = "{") -> None:
    """Make a message's row unreadable."""
    backend.raw(
        "UPDATE strands_messages SET data = ? WHERE message_id = CAST(? AS INTEGER)",
        data,
        message_id,
    )


@pytest.mark.guarantee(number=15)
@pytest.mark.parametrize("broken", BROKEN, ids=lambda one: one[:24] or "empty")
def test_a_message_that_cant_be_read_is_left_out(
    backend: Backend, broken: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The agent is given the rest, a warning names the row, which stays as it is."""
    live = lived_in(backend)
    break_message(backend, 1, broken)
    agent = open_agent(backend, "well")
    assert [one for one in agent.messages if one["content"] != [{"text": GONE}]] == [
        live.messages[0],
        *live.messages[2:],
    ]
    assert "table=<strands_messages>, key=<('s', 'a', 1)>" in caplog.text
    agent("go on")
    assert agent.messages == open_agent(backend).messages
    (row,) = backend.raw("SELECT data FROM strands_messages WHERE message_id = 1")
    assert row["data"] == broken


@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        ([0], [f"u:text{GONE}", "a:texthi", "u:textcount"]),
        ([1], ["u:texthello", f"a:text{GONE}", "u:textcount"]),
        ([0, 1], ["u:textcount", "a:toolUse", "u:toolResult"]),
        ([3], ["u:texthello", "a:texthi", "u:textcount", f"a:text{GONE},toolUse", "u:toolResult"]),
        ([4], ["u:texthello", "a:texthi", "u:textcount", "a:toolUse", "u:toolResult", "a:textone"]),
        (
            [2, 3],
            ["u:texthello", "a:texthi", f"u:text{GONE}", f"a:text{GONE},toolUse", "u:toolResult"],
        ),
        ([3, 4, 5], ["u:texthello", "a:texthi", "u:textcount", f"a:text{GONE}", "u:textand you?"]),
        ([6, 7], ["u:texthello", "a:texthi", "u:textcount", "a:toolUse", "u:toolResult"]),
    ],
)
def test_stand_ins_keep_the_rest_valid(
    backend: Backend, broken: list[int], expected: list[str]
) -> None:
    """Roles take turns and each result follows its call, by a visible stand-in where needed."""
    lived_in(backend)
    for message_id in broken:
        break_message(backend, message_id)
    agent = open_agent(backend, "well")
    assert outline(agent)[: len(expected)] == expected
    assert [one["role"] for one in agent.messages] == ["user", "assistant"] * (
        len(agent.messages) // 2
    )
    agent("go on")
    assert outline(open_agent(backend)) == outline(agent)


def test_a_result_that_cant_be_read_is_an_error_for_the_model(backend: Backend) -> None:
    """A call whose result is lost has one that says so."""
    lived_in(backend)
    break_message(backend, 4)
    (block,) = open_agent(backend).messages[4]["content"]
    result = block["toolResult"]
    assert (result["toolUseId"], result["status"]) == ("c1", "error")
    assert result["content"] == [{"text": GONE}]


def test_a_row_that_was_repaired_is_in_its_place_again(backend: Backend) -> None:
    """A message that is left out stays part of what the agent works with."""
    live = lived_in(backend)
    (row,) = backend.raw("SELECT data FROM strands_messages WHERE message_id = 1")
    break_message(backend, 1)
    agent = open_agent(backend, "well")
    agent("go on")
    break_message(backend, 1, row["data"])
    assert open_agent(backend).messages == [*live.messages, *agent.messages[-2:]]


@pytest.mark.guarantee(number=15)
@pytest.mark.parametrize(
    "broken",
    ["", "{", "[]", "{}", '{"agent_id": "a", "state": 3}', '{"agent_id": "a", "state": %s}' % NEST],  # noqa: UP031
    ids=lambda one: one[:30] or "empty",
)
def test_an_agents_row_that_cant_be_read_costs_its_state(
    backend: Backend, broken: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The agent has its messages and an empty state; the next turn writes its row anew."""
    live = lived_in(backend)
    backend.raw("UPDATE strands_agents SET data = ?", broken)
    agent = open_agent(backend, "well")
    assert agent.messages == live.messages
    assert agent.state.get() == {}
    assert "table=<strands_agents>, key=<('s', 'a')>" in caplog.text
    agent.state.set("n", 5)
    agent("go on")
    caplog.clear()
    assert open_agent(backend).state.get() == {"n": 5}
    assert not caplog.records


@pytest.mark.parametrize("broken", ["", "{", "3", "[[0]]", '[["a","b"]]', "[[0,1e999]]", "[3]"])
def test_a_view_that_cant_be_read_costs_what_is_before_the_window(
    backend: Backend, broken: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The agent works with its window, and its next turn says anew what it works with."""
    live = lived_in(backend)
    backend.raw("UPDATE strands_agents SET view = ?", broken)
    agent = open_agent(backend, "well")
    assert agent.messages == live.messages
    assert "column 'view'" in caplog.text
    agent("go on")
    assert open_agent(backend).messages == agent.messages


@pytest.mark.guarantee(number=15)
def test_a_sessions_row_that_cant_be_read_costs_itself(
    backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    """Its agents are restored; it is listed by its id alone, in a page with the others."""
    live = lived_in(backend)
    stored(backend, session_id="t")
    backend.raw("UPDATE strands_sessions SET data = '{' WHERE session_id = 's'")
    assert open_agent(backend).messages == live.messages
    assert "table=<strands_sessions>, key=<('s',)>" in caplog.text
    repository = backend.repository()
    assert [one.session_id for one in repository.list_sessions(limit=2)] == ["s", "t"]
    with pytest.raises(CorruptRowError):
        repository.read_session("s")
    page = SessionAdmin(backend.database).list_sessions()
    assert [one.session_id for one in page.items] == ["s", "t"]


@pytest.mark.parametrize("broken", ["", "{", "[]", "3", NEST], ids=lambda one: one[:8] or "empty")
def test_a_graphs_row_that_cant_be_read_begins_anew(
    backend: Backend, broken: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The graph is as it was made, and its next sync writes its row anew."""
    backend.manager().initialize_multi_agent(Team(step=1))
    backend.raw("UPDATE strands_multi_agents SET data = ?", broken)
    manager, team = backend.manager(), Team(step=5)
    manager.initialize_multi_agent(team)
    assert team.state == {"step": 5}
    assert "table=<strands_multi_agents>, key=<('s', 'team')>" in caplog.text
    team.state["step"] = 6
    manager.sync_multi_agent(team)
    again = Team()
    backend.manager().initialize_multi_agent(again)
    assert again.state == {"step": 6}


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE strands_sessions SET data = '{'",
        "UPDATE strands_agents SET data = '{'",
        "UPDATE strands_agents SET view = '{'",
        "UPDATE strands_agents SET view = '[3]'",
        "UPDATE strands_messages SET data = '{' WHERE message_id = 1",
    ],
)
def test_strict_opening_raises_instead(backend: Backend, damage: str) -> None:
    """With ``strict`` a row that can't be read is an error, and nothing is written."""
    lived_in(backend)
    assert open_agent(backend, strict=True).messages
    backend.raw(damage)
    before = backend.dump()
    with pytest.raises(CorruptRowError) as caught:
        open_agent(backend, strict=True)
    assert caught.value.table in damage
    assert backend.dump() == before


def test_strict_opening_of_a_graph_raises(backend: Backend) -> None:
    """A graph's row that can't be read is an error with ``strict`` too."""
    backend.manager().initialize_multi_agent(Team(step=1))
    backend.raw("UPDATE strands_multi_agents SET data = '{'")
    manager = PerSQLSessionManager("s", backend.database, retry=FAST, strict=True)
    with pytest.raises(CorruptRowError, match="strands_multi_agents"):
        manager.initialize_multi_agent(Team())


def test_what_says_no_version_is_not_written_over(backend: Backend) -> None:
    """A row that doesn't say which version it is raises; another agent of the session opens."""
    lived_in(backend)
    backend.agent(agent_id="b")
    backend.raw("UPDATE strands_agents SET version = 'x' WHERE agent_id = 'a'")
    with pytest.raises(CorruptRowError, match="'version'"):
        open_agent(backend)
    assert backend.agent(agent_id="b").agent_id == "b"
    (finding,) = [one for one in SessionAdmin(backend.database).check() if one.kind == "counter"]
    assert finding.repair == "set it to 1"


def test_conversation_managers_begin_anew_where_their_state_is_misshapen(
    backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    """Numbers that are none cost the conversation manager's state, and nothing else."""
    agent = backend.agent(["hi"])
    agent.state.set("n", 1)
    agent("hello")
    backend.raw(
        "UPDATE strands_agents SET data ="
        " json_set(data, '$.conversation_manager_state.model_call_count', 'x')"
    )
    again = backend.agent(["well"])
    assert again.state.get() == {"n": 1}
    assert "conversation_manager_state" in caplog.text
    again("go on")
    assert said(backend.agent().messages) == ["hello", "hi", "go on", "well"]


def test_warnings_name_no_content(backend: Backend, caplog: pytest.LogCaptureFixture) -> None:
    """What was in a row that can't be read is in no log."""
    caplog.set_level(logging.DEBUG, "strands_persql")
    lived_in(backend)
    break_message(backend, 1, '{"message": {"role": "user", "content": "a secret"')
    open_agent(backend)
    assert "can't be read" in caplog.text
    assert "secret" not in caplog.text
