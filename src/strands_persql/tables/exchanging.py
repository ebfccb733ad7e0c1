"""Statements that turn a session's snapshots into rows of messages, and find what it has."""

from collections.abc import Sequence

from strands_persql.databases.protocol import Statement
from strands_persql.runtime.ids import AgentKey
from strands_persql.tables import appending, creating, preconditions
from strands_persql.tables.tables import RowData, Tables


def create_agent_with_turns(
    tables: Tables, key: AgentKey, row: RowData, turns: Sequence[tuple[str, int, str]], write: str
) -> list[Statement]:
    """Create an agent with messages of some turns, in a session that exists.

    Args:
        tables: The tables.
        key: The agent.
        row: Its row.
        turns: For each its id, the place of its first message, and the JSON of its rows as
            `appending.insert_first_messages` takes them.
        write: This write.
    """
    precondition = preconditions.agent_is(write, 1)
    return [
        creating.create_agent(tables, key, row, write, start=0, view="[]"),
        *(
            appending.insert_first_messages(
                tables, key, turn=turn, rows=rows, first=first, precondition=precondition
            )
            for turn, first, rows in turns
        ),
    ]


def agents_of(tables: Tables, session_id: str) -> Statement:
    """Read the ids of a session's agents."""
    return tables.statement(
        "SELECT agent_id FROM {agents} WHERE session_id = :session_id ORDER BY agent_id",
        session_id=session_id,
    )


def multi_agents_of(tables: Tables, session_id: str) -> Statement:
    """Read the ids of a session's graphs and swarms."""
    return tables.statement(
        """
        SELECT multi_agent_id AS agent_id FROM {multi_agents} WHERE session_id = :session_id
        ORDER BY multi_agent_id
        """,
        session_id=session_id,
    )
