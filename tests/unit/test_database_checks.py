"""What stands in the place of tables: refused by name, whoever made it."""

import pytest

from strands_persql import DatabaseOpenError, LocalDatabase

TABLES = ("app_agents", "app_messages")
OURS = "CREATE TRIGGER IF NOT EXISTS ours AFTER INSERT ON app_messages  BEGIN SELECT 1; END"


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ("CREATE VIEW app_agents AS SELECT 1 AS a", "'app_agents' is a view"),
        ("CREATE VIEW App_Agents AS SELECT 1 AS a", "'App_Agents' is a view"),
        ("CREATE TEMP VIEW x AS SELECT 1", None),
        ("CREATE VIEW app_other AS SELECT * FROM app_messages", None),
        (
            "CREATE TRIGGER spy AFTER INSERT ON app_messages BEGIN SELECT 1; END",
            "'app_messages' has the trigger 'spy'",
        ),
        (OURS, None),
        (OURS.replace("SELECT 1", "SELECT 2"), "'app_messages' has the trigger 'ours'"),
        ("CREATE VIEW app_search AS SELECT 1 AS a", "'app_search' is a view"),
        ("CREATE VIRTUAL TABLE app_search USING fts5(a)", None),
        ("CREATE TRIGGER spy AFTER INSERT ON users BEGIN SELECT 1; END", None),
        ("CREATE TABLE app_agents (a)", None),
    ],
)
def test_views_and_triggers_in_place_of_tables_are_refused(made: str, said: str | None) -> None:
    """A view, or a trigger that does anything else, is refused where it concerns our tables."""
    with LocalDatabase() as database:
        database.query("CREATE TABLE app_messages (a)")
        database.query("CREATE TABLE users (a)")
        database.query(made)
        if said is None:
            database.check_tables(TABLES, ["app_search"], [OURS])
            return
        with pytest.raises(DatabaseOpenError, match=said) as caught:
            database.check_tables(TABLES, ["app_search"], [OURS])
    assert caught.value.kind == "foreign_schema"


def test_a_virtual_table_in_place_of_a_table_is_refused() -> None:
    """A virtual table, whose code decides what it holds, is refused as one."""
    with LocalDatabase() as database:
        database.query("CREATE VIRTUAL TABLE app_agents USING fts5(a)")
        with pytest.raises(DatabaseOpenError, match="'app_agents' is a virtual table"):
            database.check_tables(TABLES)


def test_names_of_a_foreign_schema_forge_no_lines() -> None:
    """A trigger's name is escaped where an error shows it."""
    with LocalDatabase() as database:
        database.query("CREATE TABLE app_agents (a)")
        database.query(
            'CREATE TRIGGER "x\nERROR \x1b" AFTER INSERT ON app_agents BEGIN SELECT 1; END'
        )
        with pytest.raises(DatabaseOpenError) as caught:
            database.check_tables(TABLES)
    assert str(caught.value).isprintable()
