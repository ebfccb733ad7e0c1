"""The tables and the limits that every statement keeps."""

import sqlite3
from collections.abc import Sequence

import pytest

from strands_persql import LocalDatabase, PerSQLSessionRepository, Statement
from strands_persql.errors import SchemaError
from strands_persql.testing import InterceptingDatabase, ToolCall
from tests.support.backends import Backend
from tests.support.conversation import user

pytestmark = pytest.mark.backends("memory")


@pytest.mark.parametrize("prefix", ["strands_", "x", "_", "A1_", "x" * 63])
def test_prefixes_of_plain_letters_are_taken(backend: Backend, prefix: str) -> None:
    """Letters, digits and underscores make a prefix, 63 at the most."""
    backend.repository(table_prefix=prefix).setup()
    assert backend.raw(f"SELECT * FROM {prefix}messages") == []


@pytest.mark.parametrize("prefix", ["", "1x", "x-", "x\n", "x y", "x'", "é", "x" * 64])
def test_other_prefixes_are_refused(backend: Backend, prefix: str) -> None:
    """Nothing else goes into SQL text."""
    with pytest.raises(ValueError, match="table_prefix"):
        backend.repository(table_prefix=prefix)


def test_no_table_has_a_second_index_or_a_row_id(backend: Backend) -> None:
    """A row written is one row billed: every table is its primary key's index and nothing else."""
    backend.repository().setup()
    rows = backend.raw("SELECT type, sql FROM sqlite_master WHERE name LIKE 'strands%'")
    tables = [row for row in rows if row["type"] != "trigger"]
    assert [row["type"] for row in tables] == ["table"] * 9
    assert all(row["sql"].endswith("WITHOUT ROWID") for row in tables)


def test_the_sql_for_others_makes_the_same_tables() -> None:
    """The statements that an error hands out are those that ``setup`` runs."""

    def refuse_to_make_tables(statements: Sequence[Statement]) -> None:
        if any("CREATE" in statement["sql"] for statement in statements):
            raise sqlite3.OperationalError("attempt to write a readonly database")

    made = []
    for by_hand in (True, False):
        with LocalDatabase() as database:
            if by_hand:
                refusing = InterceptingDatabase(database, before=refuse_to_make_tables)
                with pytest.raises(SchemaError) as caught:
                    PerSQLSessionRepository(refusing).setup()
                for sql in caught.value.sql.split(";\n"):
                    database.query(sql.rstrip(";"))
            PerSQLSessionRepository(database).setup()
            made.append(database.query("SELECT sql FROM sqlite_master ORDER BY name")["data"])
    assert len(made[0]) == 27  # 9 tables, 18 triggers
    assert made[0] == made[1]


def test_statements_keep_to_the_services_limits(backend: Backend) -> None:
    """No batch has over 100 statements, and no statement over 100 parameters or 100 KB."""
    agent = backend.agent(
        [*[ToolCall("missing")] * 90, "done"],
        manager=backend.manager(commit="turn"),
        messages=[user(str(number)) for number in range(300)],
    )
    agent("go")
    assert 80 < max(len(batch) for batch in backend.database.log) <= 100
    for batch in backend.database.log:
        for statement in batch:
            assert len(statement.get("params", ())) <= 100
            assert len(statement["sql"]) < 100_000
