"""Checks: what is damaged is found and named, and repaired where that was asked for."""

import json
from typing import Any

import pytest
from strands.types.exceptions import EventLoopException

from strands_persql.admin import Finding, SessionAdmin, checks, storing
from strands_persql.admin.checks import CheckProgress
from strands_persql.testing import ToolCall
from tests.contract.agents import Scene, answers, manager_of, paying, unmanaged
from tests.contract.lived_in import LIVES, memory, new_agent, pinned, plain
from tests.contract.test_upgrade import old
from tests.support.backends import FAST, Backend
from tests.support.conversation import Team, listed, said, session_agent, session_message, stored


def keeper(backend: Backend) -> SessionAdmin:
    """Look after a backend's sessions."""
    return SessionAdmin(backend.database, retry=FAST)


def found(backend: Backend) -> list[Finding]:
    """Check all sessions."""
    return [*keeper(backend).check()]


def repaired(backend: Backend) -> list[Finding]:
    """Repair what a check finds, and check again."""
    keeper(backend).repair(found(backend))
    return found(backend)


def kinds(findings: list[Finding]) -> list[tuple[str, int | None]]:
    """Tell what was found, and with which message it begins."""
    return [(one.kind, one.message_id) for one in findings]


def turns(backend: Backend, *prompts: str) -> Any:
    """Have an agent take turns, each with a tool call."""
    agent = new_agent(backend.manager("s"), [ToolCall("count"), "done"] * len(prompts))
    for prompt in prompts:
        agent(prompt)
    return agent


def test_nothing_is_found_where_an_agent_went_back(backend: Backend) -> None:
    """A call that is answered anew after a rewind is whole, and so is what was rewound."""
    pay, _ = paying()
    scene = Scene(backend, make=lambda: {**unmanaged(), "tools": [pay]})
    agent = scene.open(ToolCall("pay", {"amount": 1}), "paid")
    interrupts = agent("Pay.").interrupts
    checkpoint = manager_of(agent).checkpoint(agent)
    for name in ("Ada", "Ben", "Cy"):
        manager_of(agent).rewind(agent, checkpoint)
        agent(answers(interrupts, name))
    assert found(backend) == []
    manager_of(agent).rewind(agent, agent.messages[0])
    agent(None)
    assert found(backend) == []


@pytest.mark.parametrize("life", [*(life for life, _ in LIVES.values()), pinned])
def test_nothing_is_found_in_what_agents_leave(backend: Backend, life: Any) -> None:
    """Sessions of agents that work as usual have nothing to repair."""
    life(backend.manager("s"))
    backend.repository().create_multi_agent("s", Team(n=1))

    assert found(backend) == []


def test_nothing_is_found_where_turns_overlap_and_stop(backend: Backend) -> None:
    """Turns that moved behind others, and turns that nobody has ended, are as they should be."""
    one, two = (
        new_agent(backend.manager("s"), [ToolCall("count"), "a", ToolCall("count"), RuntimeError()])
        for _ in range(2)
    )
    one("q1")
    two("q2")
    for agent in (one, two):
        with pytest.raises(EventLoopException):
            agent("and?")

    assert found(backend) == []


def test_nothing_is_found_in_tables_of_an_earlier_version(backend: Backend) -> None:
    """Rows of 0.1 are checked without altering their tables."""
    old(backend, "primary keys", *"0123456789", removed=6)
    columns = backend.raw("SELECT name FROM pragma_table_info('strands_messages')")

    assert found(backend) == []
    assert backend.raw("SELECT name FROM pragma_table_info('strands_messages')") == columns


def test_an_empty_database_has_nothing_to_repair(backend: Backend) -> None:
    """A check of nothing makes no table."""
    assert found(backend) == []
    assert backend.raw("SELECT name FROM sqlite_master WHERE name LIKE 'strands%'") == []


# -- unreadable rows -------------------------------------------------------------------------------


@pytest.mark.parametrize("data", ["{torn", "[]", '{"message": {"role": 1}, "message_id": 1}', ""])
def test_a_message_that_cannot_be_read_is_deleted(backend: Backend, data: str) -> None:
    """An unreadable message is named, and its row goes, alone."""
    stored(backend, "zero", "one", "two")
    backend.raw("UPDATE strands_messages SET data = ? WHERE message_id = 1", data)

    findings = found(backend)
    assert kinds(findings) == [("unreadable", 1)]
    assert "export the session first" in str(findings[0].repair)
    assert repaired(backend) == []
    assert listed(backend.repository()) == ["zero", "two"]


def test_an_agent_that_cannot_be_read_begins_with_its_messages(backend: Backend) -> None:
    """Where an agent's row is lost, the next agent of that id takes its messages up."""
    turns(backend, "q1")
    backend.raw("UPDATE strands_agents SET data = '{torn'")

    assert kinds(found(backend)) == [("unreadable", None)]
    assert kinds(repaired(backend)) == [("orphan", 0)]
    again = new_agent(backend.manager("s"), [])
    assert said(again.messages)[0] == "q1"
    assert found(backend) == []


def test_a_session_that_cannot_be_read_is_written_anew(backend: Backend) -> None:
    """A session's own row is made of what is known of it, and its agents go on."""
    live = plain(backend.manager("s"))
    backend.raw("UPDATE strands_sessions SET data = '{torn'")

    assert kinds(found(backend)) == [("unreadable", None)]
    assert repaired(backend) == []
    assert memory(new_agent(backend.manager("s"), [])) == memory(live)


def test_a_multi_agent_that_cannot_be_read_is_deleted(backend: Backend) -> None:
    """A graph's or swarm's unreadable row goes."""
    stored(backend).create_multi_agent("s", Team(n=1))
    backend.raw("UPDATE strands_multi_agents SET data = '{torn'")

    assert [one.agent_id for one in found(backend)] == ["team"]
    assert repaired(backend) == []


# -- rows that have lost others ----------------------------------------------------------------


def test_a_lost_session_is_made_again(backend: Backend) -> None:
    """Agents whose session's row is lost get one, and are found where they were."""
    live = plain(backend.manager("s"))
    backend.raw("DELETE FROM strands_sessions")

    assert kinds(found(backend)) == [("orphan", None)]
    assert repaired(backend) == []
    assert memory(new_agent(backend.manager("s"), [])) == memory(live)


def test_messages_of_a_lost_agent_are_named(backend: Backend) -> None:
    """Messages without their agent are kept for the next one, and nothing is made up."""
    stored(backend, "zero", "one")
    backend.raw("DELETE FROM strands_agents")

    findings = found(backend)
    assert kinds(findings) == [("orphan", 0)]
    assert findings[0].repair is None
    before = backend.dump()
    assert keeper(backend).repair(findings) == 0
    assert backend.dump() == before


def test_an_unfinished_import_is_cleared_away(
    backend: Backend, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """What an interrupted import has left is found, belongs to no session, and is deleted."""
    stored(backend, *map(str, range(30)))
    keeper(backend).export_archive(tmp_path / "a")
    backend.repository().delete_session("s")
    monkeypatch.setattr(storing, "REQUEST_BYTES", 2_000)

    class Killed(BaseException):
        pass

    def kill(*_: Any) -> None:
        raise Killed

    monkeypatch.setattr(storing, "drop_staged", kill)
    monkeypatch.setattr(storing.DatabaseSink, "_store_all", kill)
    with pytest.raises(Killed):
        keeper(backend).import_archive(tmp_path / "a")
    monkeypatch.undo()

    assert keeper(backend).list_sessions().items == []
    assert [one.kind for one in found(backend)] == ["unfinished_import"]
    assert "'s'" in found(backend)[0].what
    assert repaired(backend) == []
    assert backend.raw("SELECT * FROM strands_messages") == []


# -- histories that are torn -------------------------------------------------------------------


def test_a_lost_result_is_stood_in_for(backend: Backend) -> None:
    """Where the result of a call is lost, one that says so takes its place."""
    turns(backend, "q1", "q2")
    backend.raw("DELETE FROM strands_messages WHERE message_id = 2")

    assert kinds(found(backend)) == [("hole", 1)]
    assert repaired(backend) == []
    assert listed(backend.repository())[:4] == [
        "q1",
        "call count",
        "result The result of this call was lost.",
        "done",
    ]
    agent = new_agent(backend.manager("s"), ["fine"])
    agent("go on")
    assert len(agent.messages) == 10


def test_a_lost_call_leaves_its_result_as_text(backend: Backend) -> None:
    """A result whose call is lost is kept as words, which a model takes."""
    turns(backend, "q1", "q2")
    backend.raw("DELETE FROM strands_messages WHERE message_id = 1")

    assert kinds(found(backend)) == [("hole", 2), ("hole", 0)]
    left = repaired(backend)
    assert kinds(left) == [("hole", 0)]
    assert "between the messages 0 and 2 of one turn 1 are lost" in left[0].what
    assert left[0].repair is None
    assert listed(backend.repository())[:3] == ["q1", "1", "done"]


def test_a_result_that_is_there_twice_goes_once(backend: Backend) -> None:
    """A result that was stored a second time, away from its call, is deleted there."""
    turns(backend, "q1", "q2")
    before = listed(backend.repository())
    backend.raw(
        "INSERT INTO strands_messages (session_id, agent_id, message_id, data, turn) SELECT"
        " session_id, agent_id, 8, json_set(data, '$.message_id', 8), 'x' FROM strands_messages"
        " WHERE message_id = 2"
    )

    assert kinds(found(backend)) == [("doubled", 8)]
    assert repaired(backend) == []
    assert listed(backend.repository()) == before


def test_turns_that_stand_in_each_others_way_are_put_apart(backend: Backend) -> None:
    """Each turn's messages come to stand side by side, a turn that ended later behind."""
    turns(backend, "q1", "q2", "q3")
    before = backend.raw("SELECT message_id, turn FROM strands_messages ORDER BY message_id")
    for message_id, other in ((3, 4), (4, 3)):  # the second turn begins within the first
        backend.raw(
            "UPDATE strands_messages SET message_id = ? WHERE message_id = ?",
            100 + other,
            message_id,
        )
    backend.raw("UPDATE strands_messages SET message_id = message_id - 100 WHERE message_id > 99")
    assert [one for one in found(backend) if one.kind == "interleaved_turn"] != []
    repository = backend.repository()
    repository.read_session("s")

    assert repaired(backend) == []

    after = backend.raw("SELECT message_id, turn FROM strands_messages ORDER BY message_id")
    assert after == before
    repository.read_session("s")  # a warm cache notices
    assert listed(repository)[:4] == ["q1", "call count", "result 1", "done"]
    assert [one.message_id for one in repository.list_messages("s", "a")] == list(range(12))


def test_a_window_that_begins_between_torn_turns_is_widened(backend: Backend) -> None:
    """No message that the agent works with falls out of its window by a repair."""
    _swap(backend)
    backend.raw("UPDATE strands_agents SET window_start = 2")

    assert repaired(backend) == []

    assert backend.raw("SELECT window_start FROM strands_agents")[0]["window_start"] == 1


def test_a_range_that_ends_between_torn_turns_is_left_to_people(backend: Backend) -> None:
    """Where an agent works with a part of what would move, nothing is moved."""
    _swap(backend)
    backend.raw("UPDATE strands_agents SET window_start = 4, view = '[[0,1]]'")

    findings = found(backend)
    assert kinds(findings) == [("interleaved_turn", 1)]
    assert findings[0].repair is None


def _swap(backend: Backend) -> None:
    """Store two turns of plain words, and let the second begin within the first."""
    agent = new_agent(backend.manager("s"), ["a1", "a2"])
    agent("q1")
    agent("q2")
    for place, message_id in ((11, 0), (13, 1), (12, 2), (14, 3)):
        backend.raw(
            "UPDATE strands_messages SET message_id = ? WHERE message_id = ?", place, message_id
        )
    backend.raw("UPDATE strands_messages SET message_id = message_id - 10")
    backend.raw("UPDATE strands_messages SET data = json_set(data, '$.message_id', message_id)")


def test_a_repair_waits_for_no_writer(backend: Backend) -> None:
    """What has changed since it was found is left as it is."""
    _swap(backend)
    findings = found(backend)
    backend.raw("UPDATE strands_messages SET turn = 'another' WHERE message_id = 2")
    before = backend.dump()

    keeper(backend).repair(findings)

    assert backend.dump()["messages"] == before["messages"]


def test_a_message_that_gives_another_id_is_numbered_anew(backend: Backend) -> None:
    """The id within a message's JSON is that of its row."""
    stored(backend, "zero")
    backend.raw("UPDATE strands_messages SET data = json_set(data, '$.message_id', 7)")

    assert kinds(found(backend)) == [("misnumbered", 0)]
    assert repaired(backend) == []
    data = json.loads(backend.raw("SELECT data FROM strands_messages")[0]["data"])
    assert data["message_id"] == 0


# -- views and counters ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("view", "start", "after"),
    [
        ("{torn", 2, ("[]", 2)),
        ("[[0]]", 2, ("[]", 2)),
        ("[[3,1]]", 2, ("[]", 2)),
        ("[[0,0],[70,90]]", 2, ("[[0,0]]", 2)),
        ('[{"role":1}]', 2, ("[]", 2)),
        ("[]", 9, ("[]", 4)),
        ("[]", None, (None, None)),
        ("[]", -1, (None, None)),
    ],
)
def test_a_view_of_what_is_not_there_is_repaired(
    backend: Backend, view: str, start: int | None, after: Any
) -> None:
    """A view that can't be read, or has ranges without rows, says what is there."""
    agent = new_agent(backend.manager("s"), ["a1", "a2"])
    agent("q1")
    agent("q2")
    backend.raw("UPDATE strands_agents SET view = ?, window_start = ?", view, start)

    assert [one.kind for one in found(backend)] == ["view"]
    assert repaired(backend) == []
    row = backend.raw("SELECT view, window_start FROM strands_agents")[0]
    assert (row["view"], row["window_start"]) == after
    new_agent(backend.manager("s"), ["fine"])("go on")


@pytest.mark.parametrize(
    ("table", "column", "value"),
    [
        ("sessions", "version", "x"),
        ("agents", "version", 0),
        ("agents", "epoch", -1),
        ("messages", "version", 1.5),
        ("multi_agents", "version", "x"),
    ],
)
def test_counters_that_do_not_count_are_set(
    backend: Backend, table: str, column: str, value: Any
) -> None:
    """A version that is no number is one again."""
    stored(backend, "zero").create_multi_agent("s", Team(n=1))
    backend.raw(f"UPDATE strands_{table} SET {column} = ?", value)

    assert [one.kind for one in found(backend)] == ["counter"]
    assert repaired(backend) == []


# -- all at once -------------------------------------------------------------------------------


def test_many_things_are_found_at_once(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over pages and sessions each thing is found once, and told as the check goes on."""
    monkeypatch.setattr(checks, "_FIRST_PAGE_ROWS", 3)
    monkeypatch.setattr(checks, "_PAGE_BYTES", 1_000)
    for number in range(45):
        repository = stored(backend, *map(str, range(number % 7)), session_id=f"s{number:02}")
        repository.create_agent(f"s{number:02}", session_agent("b"))
        repository.create_message(f"s{number:02}", "b", session_message("b", 0))
    backend.raw("UPDATE strands_messages SET data = '' WHERE message_id = 5")
    told: list[CheckProgress] = []

    findings = [*keeper(backend).check(progress=told.append)]

    damaged = [f"s{number:02}" for number in range(45) if number % 7 == 6]
    assert [(one.session_id, one.message_id) for one in findings] == [
        (session_id, 5) for session_id in damaged
    ]
    assert (told[-1].sessions, told[-1].messages) == (
        45,
        len(backend.raw("SELECT message_id FROM strands_messages")),
    )
    assert [*keeper(backend).check("s06")] == findings[:1]
    assert [*keeper(backend).check("s05")] == []


def test_a_check_reads_and_changes_nothing(backend: Backend) -> None:
    """Nothing is repaired unless that is asked for."""
    turns(backend, "q1", "q2")
    backend.raw("DELETE FROM strands_messages WHERE message_id = 2")
    before = backend.dump()

    found(backend)

    assert backend.dump() == before


def test_an_unreadable_message_hides_no_other_damage(backend: Backend) -> None:
    """What stands beside an unreadable message is judged without it."""
    turns(backend, "q1", "q2")
    backend.raw("UPDATE strands_messages SET data = '' WHERE message_id = 1")

    assert kinds(found(backend)) == [("unreadable", 1)]


@pytest.mark.backends("memory", "file")
def test_ids_that_are_no_text_stop_nothing(backend: Backend) -> None:
    """Where damage has left bytes in an id, the check and the lists go on to the others."""
    stored(backend, "zero")
    for table in ("sessions", "messages"):
        backend.raw(
            f"INSERT INTO strands_{table} (session_id, data) VALUES (CAST(x'61ff' AS TEXT), '{{}}')"
        )
    backend.raw("UPDATE strands_messages SET data = '{' WHERE session_id = 's'")
    assert ("unreadable", "s") in [(one.kind, one.session_id) for one in found(backend)]
    assert len(keeper(backend).list_sessions().items) == 2


def test_the_words_of_a_check_are_sentences(backend: Backend) -> None:
    """Each finding says what it is, and what would be done."""
    _swap(backend)
    backend.raw("UPDATE strands_agents SET version = 0")

    for one in found(backend):
        assert one.what[0].islower()
        assert one.repair is None or len(one.repair) > 10
        assert "statements" not in repr(one)
