"""How the statements of the administration are run: none reads more than it must."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from strands_persql import LocalDatabase, PerSQLSessionRepository
from strands_persql.databases.protocol import Statement
from strands_persql.runtime.ids import AgentKey
from strands_persql.tables import (
    appending,
    archive_lines,
    archiving,
    catalogue,
    checking,
    checkpoint_rows,
    checkpointing,
    contents,
    deleting,
    forking,
    message_search,
    preconditions,
    repairing,
    retention,
)
from strands_persql.tables.tables import SESSION_IDS, Tables

TABLES = Tables()
KEY = AgentKey("s", "a")
IDS = ["s", "t"]
ROW: dict[str, Any] = {**KEY.context, "message_id": 1}


@pytest.fixture(scope="module")
def database() -> Iterator[LocalDatabase]:
    """A database with our tables."""
    with LocalDatabase() as opened:
        PerSQLSessionRepository(opened, search=True).setup()
        yield opened


def plan(database: LocalDatabase, statement: Statement) -> list[str]:
    """Return the steps in which a statement is run."""
    rows = database.query(f"EXPLAIN QUERY PLAN {statement['sql']}", statement.get("params", ()))
    return [row["detail"] for row in rows["data"]]


def scans(steps: list[str]) -> list[str]:
    """Return the tables that are read from end to end."""
    return sorted(
        step
        for step in steps
        if step.startswith("SCAN ")
        and not any(word in step for word in ("json_each", "VIRTUAL TABLE", "CONSTANT", "SUBQUERY"))
        and step.split()[1]
        not in {
            "k",
            "l",
            "ids",
            "staged",
            "sized",
            "(subquery-1)",
            "value",
            "w",  # rows of 0.1 alone, whose window is counted out
            "p",
            "a",
            "i",
            "items",
            "numbered",
            "shown",  # of one checkpoint
        }
        and not step.split()[1].startswith("(")
    )


SORTED = {
    # which count by groups
    "measure_days",
    "measure_tools",
    "measure_sessions",
    # which are about one agent's checkpoints, or about the turns in one
    "keep_checkpoint",
    "list_checkpoints",
    "rewind_agent",
    "fork_session",
    "truncate_agent",
    "read_unknown",
    "read_agent",  # of a row of 0.1
    "read_refused",
}


def _of_triggers() -> Iterator[str]:
    """Yield what the triggers on messages do, with values in place of the row's."""
    for sql in contents.triggers(TABLES, ["messages"]):
        body = sql.partition(" BEGIN ")[2].removesuffix(" END")
        for statement in body.removesuffix(";").split("; "):
            named = statement.replace("NEW.session_id", "'s'").replace("OLD.session_id", "'s'")
            yield named.replace("NEW.data", "'{}'").replace("OLD.data", "'{}'")


BOUNDED = {
    "list_sessions": catalogue.list_sessions(TABLES, after="", starts_with="a", limit=9),
    "list_agents": catalogue.list_agents(TABLES, "s"),
    "list_multi_agents": catalogue.list_multi_agents(TABLES, "s"),
    "measure_sessions": catalogue.measure_sessions(TABLES, IDS),
    "measure_states": catalogue.measure_states(TABLES, IDS),
    "measure_days": catalogue.measure_days(TABLES, IDS),
    "measure_tools": catalogue.measure_tools(TABLES, IDS),
    "read_transcript": catalogue.read_transcript(TABLES, KEY, after=5, newest_first=False, limit=9),
    "read_transcript, newest first": catalogue.read_transcript(
        TABLES, KEY, after=None, newest_first=True, limit=9
    ),
    "list_session_ids": archive_lines.list_session_ids(TABLES, after="", starts_with="a", limit=9),
    "read_session_line": archive_lines.read_session_line(TABLES, "s"),
    "read_agent_lines": archive_lines.read_agent_lines(TABLES, "s"),
    "read_agent_states": archive_lines.read_agent_states(TABLES, "s"),
    "read_multi_agent_lines": archive_lines.read_multi_agent_lines(TABLES, "s"),
    "read_last_message": archive_lines.read_last_message(TABLES, "s"),
    "read_messages": archive_lines.read_messages(
        TABLES, "s", "r.data", after=("a", 5), rows=9, size=9
    ),
    "read_message_lines": archive_lines.read_message_lines(
        TABLES, "s", after=("a", 5), rows=9, size=9
    ),
    **{
        f"store_lines, {table}": archiving.store_lines(TABLES, table, "s", "w", lines="[]")
        for table in ("sessions", "agents", "multi_agents", "messages")
    },
    "store_lines, unreadable": archiving.store_lines(
        TABLES, "messages", "s", "w", lines="[]", unreadable="{}"
    ),
    "read_checkpoint_lines": archive_lines.read_checkpoint_lines(
        TABLES, "s", after=("a", "c"), rows=9, size=9
    ),
    "store_behind": archiving.store_behind(TABLES, "s", "w", "[]"),
    **{
        f"stage_lines, {table}": archiving.stage_lines(TABLES, table, "s", "w", lines="[]")
        for table in ("messages", "checkpoints")
    },
    **{
        f"take_staged, {number}": one
        for number, one in enumerate(archiving.take_staged(TABLES, "s", "w"))
    },
    **{
        f"drop_staged, {number}": one
        for number, one in enumerate(archiving.drop_staged(TABLES, "import/w/s", 9))
    },
    "list_staged": archiving.list_staged(TABLES, "s", "", 9),
    "find_sessions": archiving.find_sessions(TABLES, IDS),
    "list_all_ids": checking.list_all_ids(TABLES, after="", limit=9),
    "read_session_row": checking.read_session_row(TABLES, "s"),
    "read_agent_rows": checking.read_agent_rows(TABLES, "s"),
    "read_multi_agent_rows": checking.read_multi_agent_rows(TABLES, "s"),
    "read_message_rows": checking.read_message_rows(TABLES, "s", after=("a", 5), rows=9, size=9),
    "read_turns": checking.read_turns(TABLES, KEY, (1, 5)),
    "count_rows": deleting.count_rows(TABLES, "s"),
    **{
        f"erase_session, {number}": statement
        for number, statement in enumerate(deleting.erase_session(TABLES, "s"))
    },
    "store_part": contents.store_part(TABLES, "s", "d", 0, ""),
    "require_parts": contents.require_parts(TABLES, "s", IDS, 2),
    "require_parts, of a write": contents.require_parts(TABLES, "s", IDS, 2, write_id="w"),
    **{
        f"take_staged, contents {number}": statement
        for number, statement in enumerate(contents.take_staged(TABLES, "s", "import/w/s", "w"))
    },
    "drop": contents.drop(TABLES, "s"),
    "read_parts": contents.read_parts(TABLES, "s", IDS, 0, 8),
    "list_parts": contents.list_parts(TABLES, ("s", "d", 0), 9),
    "sweep_parts": contents.sweep_parts(TABLES, ("s", "d", 0), ("t", "d", 0), 60.0),
    **{f"triggers, {number}": TABLES.statement(sql) for number, sql in enumerate(_of_triggers())},
    "refuse_expired": retention.refuse_expired(TABLES, "s"),
    **{
        f"keep_for, {number}": statement
        for number, statement in enumerate(retention.keep_for(TABLES, "s", 9))
    },
    **{
        f"take_over, {number}": statement
        for number, statement in enumerate(retention.take_over(TABLES, "s"))
    },
    "note_activity": retention.note_activity(TABLES, KEY, "w"),
    "note_activity, multi_agents": retention.note_activity(TABLES, KEY, "w", "multi_agents"),
    "list_expired": retention.list_expired(TABLES, "", 9),
    "remove_messages": retention.remove_messages(TABLES, "s", 9),
    **{
        f"remove_expired, {number}": statement
        for number, statement in enumerate(deleting.remove_expired(TABLES, "s"))
    },
    **{
        f"delete_session, {number}": statement
        for number, statement in enumerate(deleting.delete_session(TABLES, "s", "w", "d"))
    },
    "create_missing_session": repairing.create_missing_session(TABLES, "s", "{}", ""),
    "replace_data": repairing.replace_data(TABLES, "messages", ROW, found="", data=""),
    "delete_row": repairing.delete_row(TABLES, "messages", ROW, ""),
    "reset_counter": repairing.reset_counter(TABLES, "messages", ROW, "version"),
    "set_view": repairing.set_view(TABLES, KEY, found=(None, None), view="[]", start=0),
    "mark_repaired": repairing.mark_repaired(TABLES, KEY),
    **{
        f"reorder_messages, {number}": statement
        for number, statement in enumerate(
            repairing.reorder_messages(TABLES, KEY, [(1, "t"), (2, "u")], [2, 1])
        )
    },
    "keep_checkpoint": checkpointing.keep_checkpoint(
        TABLES,
        KEY,
        checkpoint_id="c",
        label="",
        time="",
        version=1,
        origin="w",
        write_id="",
        complete_to=5,
        turn="t",
    ),
    "read_checkpoint": checkpoint_rows.read_checkpoint(TABLES, KEY, "c"),
    "list_checkpoints": checkpoint_rows.list_checkpoints(TABLES, "s", "a"),
    "rewind_agent": checkpointing.rewind_agent(
        TABLES,
        KEY,
        checkpoint_id="c",
        data=None,
        view=None,
        start=5,
        write_id="w",
        previous="-",
        time="",
        version=1,
        origin="o",
        precondition=preconditions.nothing_after(5, "t"),
    ),
    "note_rewound": checkpointing.note_rewound(
        TABLES, KEY, checkpoint_id="c", to=5, write_id="w", time=""
    ),
    "note_dropped": checkpointing.note_dropped(TABLES, KEY, first=1, last=5, write_id="w", time=""),
    "read_agent": checkpointing.read_agent(TABLES, KEY),
    "read_refused": checkpointing.read_refused(TABLES, KEY, "c", "w"),
    "read_rest_of_turn": checkpointing.read_rest_of_turn(TABLES, KEY, "t", after=1, before=5),
    "read_whole_turn": appending.read_whole_turn(TABLES, KEY, "t"),
    "read_unknown": checkpointing.read_unknown(TABLES, KEY, epoch=1, known="[]", limit=9),
    **{
        f"fork_session, {number} {at}": statement
        for at in (None, ("a", "c"))
        for number, statement in enumerate(
            forking.fork_session(TABLES, "s", "t", write_id="w", time="", at=at)
        )
    },
    "read_fork": forking.read_fork(TABLES, "t"),
    **{
        f"truncate_agent, {number}": statement
        for number, statement in enumerate(forking.truncate_agent(TABLES, KEY, "w"))
    },
    **{
        f"{name}, {within}": statement
        for within in (None, "s")
        for name, statement in (
            ("read_new", message_search.read_new(TABLES, within, 9)),
            ("read_changed", message_search.read_changed(TABLES, within, 9)),
            (
                "search_messages",
                message_search.search_messages(
                    TABLES, ["falcon"], session_id=within, agent_id=None, limit=9
                ),
            ),
        )
    },
    **{
        f"index_new, {number}": statement
        for number, statement in enumerate(message_search.index_new(TABLES, [KEY]))
    },
    **{
        f"index_changed, {number}": statement
        for number, statement in enumerate(message_search.index_changed(TABLES, [(KEY, 1)]))
    },
    "read_checkpoint_rows": checking.read_checkpoint_rows(TABLES, KEY, after="c", rows=9, size=9),
    "read_behind": checking.read_behind(TABLES, KEY),
    "forget_behind": repairing.forget_behind(TABLES, KEY, "[]"),
    "count_values": deleting.count_values(TABLES, "session/s/", "session/s0"),
    "insert_message": repairing.insert_message(TABLES, KEY, 1, data="", turn="", time=""),
}


@pytest.mark.parametrize("name", BOUNDED)
def test_a_statement_reads_by_its_key(database: LocalDatabase, name: str) -> None:
    """No table is read from end to end, and no order is made by sorting messages."""
    steps = plan(database, BOUNDED[name])

    assert scans(steps) == [], steps
    if name.partition(",")[0] not in SORTED:
        assert not [step for step in steps if "TEMP B-TREE FOR ORDER" in step], steps


def test_the_order_of_activity_reads_sessions_and_agents(database: LocalDatabase) -> None:
    """The one list that has no index reads each session of its range, and no history."""
    statement = catalogue.list_active_sessions(
        TABLES, before=("2026", "s"), starts_with="", limit=9
    )

    steps = plan(database, statement)

    assert "SEARCH s USING PRIMARY KEY (session_id>? AND session_id<?)" in steps, steps
    assert scans(steps) == []
    assert all("strands_messages" not in step and "SCAN n" not in step for step in steps)


def test_a_scan_would_be_noticed(database: LocalDatabase) -> None:
    """The judgement above fails for a statement that has no key."""
    statement = TABLES.statement("SELECT * FROM {messages} AS m WHERE m.turn = :turn", turn="x")

    assert scans(plan(database, statement)) == ["SCAN m"]


def test_every_statement_of_the_administration_is_judged() -> None:
    """Each function of these modules that returns a statement is among those above."""
    # These read all that there is, the one for a list, the other with few of the deletions.
    judged = {"list_active_sessions", "forget_deletions"}
    judged |= {name.partition(",")[0] for name in BOUNDED}
    helpers = {
        "page_size",
        "staged_id",
        "session_of_staged",
        "has_list",
        "list_of",
        "parts_of",
        "expires_at",
        "remove_session",
        # about the index as a whole
        "create_index",
        "drop_index",
        "find_index",
        "keep_no_deleted_words",
        "merge",
        "triggers",
        "is_whole",
        "is_within",
        "list_in",
        "number_at",
        "ranges_in",
    }
    modules = (
        archive_lines,
        archiving,
        catalogue,
        checking,
        checkpoint_rows,
        checkpointing,
        contents,
        deleting,
        forking,
        message_search,
        repairing,
        retention,
    )
    for module in modules:
        names = {
            name
            for name, value in vars(module).items()
            if callable(value) and getattr(value, "__module__", "") == module.__name__
            if not name.startswith("_")
        }
        assert names - judged - helpers == set()


def test_pages_grow_and_shrink_with_their_rows(database: LocalDatabase) -> None:
    """A page has as many rows as were asked for, or as its size allows, and always one."""
    for number in range(100):
        data = json.dumps({"x": "y" * (10 if number < 50 else 2_000)})
        database.query(
            "INSERT INTO strands_messages (session_id, agent_id, message_id, data)"
            " VALUES ('pages', 'a', ?, ?)",
            [number, data],
        )

    def count(after: int, rows: int, size: int) -> int:
        statement = archive_lines.read_message_lines(
            TABLES, "pages", after=("a", after), rows=rows, size=size
        )
        return len(database.query(statement["sql"], statement["params"])["data"])

    assert count(-1, 40, 10_000) == 40
    assert count(49, 40, 10_000) == 40 // 64 + 1
    assert count(49, 40, 12_000) == 5
    assert count(49, 4, 10) == 1
    assert count(98, 40, 100_000) == 1


@pytest.mark.guarantee(number=23)
def test_every_session_id_among_values_is_known_as_one() -> None:
    """What a session's id is compared with gets its owner's scope, so it is named as such."""
    source = "".join(path.read_text() for path in Path(catalogue.__file__).parent.glob("*.py"))
    compared = re.findall(r"session_id\b[^:\n()]{0,12}?(?:=|<|>|IS|IN) ?\(?:([a-z_]+)", source)
    assert {"session_id", "new_id", "staged", "after_session_id", "starts_with"} <= {*compared}
    assert {*compared} - SESSION_IDS == set()
