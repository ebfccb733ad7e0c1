"""Statements that replace rows of a session, each on the version that its writer knows.

No statement reads more rows as a history grows: ids bound every scan of messages, and a look at
the newest message is a scalar subquery on the primary key.
"""

from dataclasses import dataclass

from strands_persql.databases.protocol import Statement, Value
from strands_persql.runtime.ids import AgentKey
from strands_persql.tables.expressions import CREATED_AT, NEWEST, OF_AGENT, PUSH_WRITE
from strands_persql.tables.preconditions import Precondition
from strands_persql.tables.retention import STORED_NOW
from strands_persql.tables.tables import NO_WRITE, RowData, Tables, row_values

_SET_MESSAGE = f"""
    data = json_set(:data, '$.message_id', message_id, '$.created_at', {CREATED_AT}),
    version = version + 1, writes = {PUSH_WRITE}, updated_at = :updated_at
"""


def edit_message(
    tables: Tables,
    key: AgentKey,
    *,
    between: tuple[int, int],
    message_write: str,
    version: int | None,
    row: RowData,
    write_id: str,
    precondition: Precondition,
) -> Statement:
    """Replace what a write stored between two ids, once.

    Args:
        tables: The tables.
        key: The agent.
        between: The ids.
        message_write: The write that stored the message.
        version: The version that the edit was made on, or None for any: a redaction.
        row: What to store.
        write_id: The edit's write.
        precondition: That of the change set.
    """
    on_version = "" if version is None else " AND version = :version"
    return tables.statement(
        f"""
        UPDATE {{messages}} SET {_SET_MESSAGE}
        WHERE {OF_AGENT} AND message_id BETWEEN :first AND :last
            AND write_id = :message_write AND instr(writes, :write_id) = 0{on_version}
            AND {precondition.sql}
        """,  # noqa: S608
        **key.context,
        first=between[0],
        last=between[1],
        message_write=message_write,
        version=version,
        write_id=write_id,
        previous=NO_WRITE,
        **row_values(row),
        **precondition.values,
    )


def read_edited(
    tables: Tables, key: AgentKey, between: tuple[int, int], message_write: str
) -> Statement:
    """Read what a write stored between two ids, with the writes that it remembers."""
    return tables.statement(
        f"""
        SELECT message_id, version, write_id, writes, turn, claim, data FROM {{messages}}
        WHERE {OF_AGENT} AND message_id BETWEEN :first AND :last AND write_id = :message_write
        LIMIT 1
        """,  # noqa: S608
        **key.context,
        first=between[0],
        last=between[1],
        message_write=message_write,
    )


def update_message(
    tables: Tables,
    key: AgentKey,
    message_id: int,
    row: RowData,
    write_id: str,
    *,
    version: int,
    origin: str,
    expires: bool,
) -> list[Statement]:
    """Replace a message if its version is the expected one and the same write created it."""
    return [
        tables.statement(
            f"""
            UPDATE {{messages}} SET {_SET_MESSAGE}
            WHERE {OF_AGENT} AND message_id = :message_id AND version = :version
                AND write_id = :origin
            """,  # noqa: S608
            **key.context,
            message_id=message_id,
            write_id=write_id,
            previous=NO_WRITE,
            version=version,
            origin=origin,
            **row_values(row),
        ),
        mark_history(tables, key, expires=expires),
    ]


def mark_edits(tables: Tables, key: AgentKey, origin: str, *, expires: bool) -> Statement:
    """Grow the history's version, for messages of it were edited."""
    return tables.statement(
        f"""
        UPDATE {{agents}} SET epoch = epoch + 1{STORED_NOW if expires else ""}
        WHERE {OF_AGENT} AND write_id = :origin
        """,  # noqa: S608
        **key.context,
        origin=origin,
    )


def mark_history(tables: Tables, key: AgentKey, *, expires: bool = False) -> Statement:
    """Grow the history's version, right behind a statement that may have changed old messages."""
    return tables.statement(
        f"""
        UPDATE {{agents}} SET epoch = epoch + 1{STORED_NOW if expires else ""}
        WHERE session_id = CASE WHEN changes() > 0 THEN :session_id END AND agent_id = :agent_id
        """,  # noqa: S608
        **key.context,
    )


@dataclass(frozen=True)
class ViewChange:
    """How a write of an agent's row changes what the agent works with.

    Attributes:
        view: What the agent works with before the window, as JSON.
        start: From which id on the agent works with all messages.
    """

    view: str | None
    start: int


@dataclass(frozen=True)
class WindowMove:
    """A window that is moved by a number of messages, for writers who know no ids."""

    by: int


def update_agent(
    tables: Tables,
    key: AgentKey,
    *,
    row: RowData,
    write_id: str,
    previous: str,
    view: ViewChange | WindowMove | None,
    origin: str,
    version: int,
    edits: bool,
    expires: bool,
    precondition: Precondition | None,
) -> Statement:
    """Replace an agent's row if its version is the expected one.

    Args:
        tables: The tables.
        key: The agent.
        row: What to store.
        write_id: This write.
        previous: The writer's write before it, which needn't be remembered any longer.
        view: What the agent works with from now on, or None for as it is.
        origin: The write that created the row.
        version: The version to replace.
        edits: Whether messages of the history are edited along with it.
        expires: Whether its session expires.
        precondition: What else must hold.
    """
    more = "" if precondition is None else f" AND {precondition.sql}"
    values = {} if precondition is None else precondition.values
    set_view, view_values = _set_view(view)
    set_view += ", epoch = epoch + 1" if edits else ""
    set_view += STORED_NOW if expires else ""
    return tables.statement(
        f"""
        UPDATE {{agents}} SET
            data = json_set(:data, '$.created_at', {CREATED_AT}),
            version = version + 1, writes = {PUSH_WRITE}, updated_at = :updated_at{set_view}
        WHERE {OF_AGENT} AND version = :own_version AND write_id = :own_origin{more}
        """,  # noqa: S608
        **key.context,
        write_id=write_id,
        previous=previous,
        own_version=version,
        own_origin=origin,
        **row_values(row),
        **view_values,
        **values,
    )


def _set_view(view: ViewChange | WindowMove | None) -> tuple[str, dict[str, Value]]:
    if view is None:
        return "", {}
    if isinstance(view, ViewChange):
        # A window that begins behind the newest message begins with the next one.
        start = f"min(CAST(:start AS INTEGER), coalesce({NEWEST}, -1) + 1)"
        return f", view = :view, window_start = {start}", {"view": view.view, "start": view.start}
    ids = f"SELECT message_id FROM {{messages}} WHERE {OF_AGENT}"  # noqa: S608
    if view.by > 0:
        at, skip = f"{ids} AND message_id >= window_start ORDER BY message_id", view.by
        beyond = f"coalesce({NEWEST}, -1) + 1"
    else:
        at, skip = f"{ids} AND message_id < window_start ORDER BY message_id DESC", -view.by - 1
        beyond = "0"
    moved = f"coalesce(({at} LIMIT 1 OFFSET CAST(:skip AS INTEGER)), {beyond})"
    return f", window_start = CASE WHEN window_start IS NOT NULL THEN {moved} END", {"skip": skip}


def read_result(
    tables: Tables, key: AgentKey, *, known_version: int | None, write_id: str
) -> Statement:
    """Read the agent's row as a change set left it, with its data unless that is known.

    Known is the version that the writer holds, and what this very write has stored.
    """
    return tables.statement(
        f"""
        SELECT version, write_id, epoch, view, window_start, writes, expires_after,
            CASE WHEN version = :known_version OR instr(writes, :write_id) = 1
                THEN NULL ELSE data END AS data
        FROM {{agents}} WHERE {OF_AGENT}
        """,  # noqa: S608
        **key.context,
        known_version=known_version,
        write_id=write_id,
    )


def update_multi_agent(
    tables: Tables,
    key: AgentKey,
    row: RowData,
    write_id: str,
    *,
    version: int,
    origin: str,
    expires: bool,
) -> Statement:
    """Replace a multi-agent's row if its version is the expected one."""
    return tables.statement(
        f"""
        UPDATE {{multi_agents}} SET data = :data, version = version + 1, writes = {PUSH_WRITE},
            updated_at = :updated_at{STORED_NOW if expires else ""}
        WHERE session_id = :session_id AND multi_agent_id = :agent_id AND version = :version
            AND write_id = :origin
        """,  # noqa: S608
        **key.context,
        write_id=write_id,
        previous=NO_WRITE,
        version=version,
        origin=origin,
        **row_values(row),
    )
