"""The tables and the limits that every statement keeps."""

import pytest
from strands import Agent

from strands_persql import LocalDatabase, PerSQLSessionManager, PerSQLSessionRepository
from strands_persql.tables.schema import Schema
from strands_persql.testing import CountingDatabase, ScriptedModel, ToolCall


@pytest.mark.parametrize("prefix", ["strands_", "x", "_", "A1_", "x" * 63])
def test_prefixes_of_plain_letters_are_taken(prefix: str) -> None:
    """Letters, digits and underscores make a prefix, 63 at the most."""
    assert Schema(prefix).messages == f"{prefix}messages"


@pytest.mark.parametrize("prefix", ["", "1x", "x-", "x\n", "x y", "x'", "é", "x" * 64])
def test_other_prefixes_are_refused(prefix: str) -> None:
    """Nothing else goes into SQL text."""
    with pytest.raises(ValueError, match="table_prefix"):
        Schema(prefix)


def test_no_table_has_a_second_index_or_a_row_id() -> None:
    """A row written is one row billed: every table is its primary key's index and nothing else."""
    with LocalDatabase() as database:
        PerSQLSessionRepository(database).setup()
        kinds = database.query("SELECT type, sql FROM sqlite_master WHERE name LIKE 'strands%'")
    rows = kinds["data"]
    assert [row["type"] for row in rows] == ["table"] * 4
    assert all(row["sql"].endswith("WITHOUT ROWID") for row in rows)


def test_the_sql_for_others_makes_the_same_tables() -> None:
    """The statements that an error hands out are those that ``setup`` runs."""
    made = []
    for by_hand in (True, False):
        with LocalDatabase() as database:
            if by_hand:
                for sql in Schema().changes([[], [], [], []]):
                    database.query(sql)
            PerSQLSessionRepository(database).setup()
            made.append(database.query("SELECT sql FROM sqlite_master ORDER BY name")["data"])
    assert made[0] == made[1]


def test_statements_keep_to_the_services_limits() -> None:
    """No batch has over 100 statements, and no statement over 100 parameters or 100 KB."""
    with LocalDatabase() as local:
        database = CountingDatabase(local)
        manager = PerSQLSessionManager("s", database, commit="turn")
        agent = Agent(
            model=ScriptedModel([*[ToolCall("missing")] * 90, "done"]),
            session_manager=manager,
            agent_id="a",
            callback_handler=None,
            messages=[{"role": "user", "content": [{"text": str(n)}]} for n in range(300)],
        )
        agent("go")
        assert max(len(batch) for batch in database.log) <= 100
        for batch in database.log:
            for statement in batch:
                assert len(statement.get("params", ())) <= 100
                assert len(statement["sql"]) < 100_000
