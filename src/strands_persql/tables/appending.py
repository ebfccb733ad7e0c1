"""Statements that put messages into a history: new ones, and turns that are claimed and moved.

No statement reads more rows as a history grows: ids bound every scan of messages, and a look at
the newest message is a scalar subquery on the primary key.
"""

from dataclasses import dataclass

from strands_persql.databases.protocol import Statement
from strands_persql.runtime.ids import AgentKey
from strands_persql.tables.expressions import NEWEST, OF_AGENT
from strands_persql.tables.preconditions import Precondition, agent_is
from strands_persql.tables.retention import STORED_NOW
from strands_persql.tables.tables import DATABASE_NOW, MAX_ID, RowData, Tables, row_values
from strands_persql.tables.updating import mark_history

# The turn that the newest message belongs to: one row read.
_NEWEST_TURN = f"""(
    SELECT turn FROM {{messages}} WHERE {OF_AGENT} AND message_id < {MAX_ID}
    ORDER BY message_id DESC LIMIT 1
)"""  # noqa: S608


def claim_turn(
    tables: Tables,
    key: AgentKey,
    *,
    message_id: int,
    message_write: str,
    turn: str,
    known_claim: str,
    write_id: str,
    expires: bool,
    precondition: Precondition,
) -> Statement:
    """Claim a turn on its last message, unless it was claimed or continued since it was read."""
    return tables.statement(
        f"""
        UPDATE {{messages}} SET claim = :write_id{STORED_NOW if expires else ""}
        WHERE {OF_AGENT} AND message_id >= :message_id AND write_id = :message_write
            AND claim = :known_claim AND NOT EXISTS (
                SELECT 1 FROM {{messages}} AS later WHERE later.session_id = :session_id
                    AND later.agent_id = :agent_id AND later.message_id > {{messages}}.message_id
                    AND later.turn = :turn
            ) AND {precondition.sql}
        """,  # noqa: S608
        **key.context,
        message_id=message_id,
        message_write=message_write,
        known_claim=known_claim,
        turn=turn,
        write_id=write_id,
        **precondition.values,
    )


def move_turn(
    tables: Tables,
    key: AgentKey,
    *,
    turn: str,
    first: int,
    complete_to: int,
    last_write: str,
    precondition: Precondition,
) -> list[Statement]:
    """Move a turn's messages behind another writer's, if any came after them.

    Args:
        tables: The tables.
        key: The agent.
        turn: The turn to move.
        first: Lower bound for the ids of the turn's messages.
        complete_to: Up to which id the writer knows all messages that the agent works with.
        last_write: Nothing is moved if this write has stored a message beyond ``complete_to``:
            this is a late copy of the request then.
        precondition: That of the change set.
    """
    new_id = f"CAST(message_id + {NEWEST} - :first + 1 AS INTEGER)"
    # SQLite still scans if the condition is constant; an unreachable lower bound makes the scan
    # empty.
    lower_bound = f"CASE WHEN {_NEWEST_TURN} <> :turn THEN :first ELSE {MAX_ID} END"
    return [
        tables.statement(
            f"""
            UPDATE {{messages}} SET message_id = {new_id},
                data = CASE WHEN json_valid(data)
                    THEN json_set(data, '$.message_id', {new_id}) ELSE data END
            WHERE {OF_AGENT} AND message_id >= {lower_bound} AND turn = :turn
                AND NOT EXISTS (
                    SELECT 1 FROM {{messages}} WHERE {OF_AGENT} AND message_id > :complete_to
                        AND write_id = :last_write
                ) AND {precondition.sql}
            """,  # noqa: S608
            **key.context,
            turn=turn,
            first=first,
            complete_to=complete_to,
            last_write=last_write,
            **precondition.values,
        ),
        mark_history(tables, key),
    ]


def append_message(
    tables: Tables,
    key: AgentKey,
    *,
    turn: str,
    row: RowData,
    write_id: str,
    complete_to: int,
    message_id: int | None,
    expires: bool,
    precondition: Precondition,
) -> Statement:
    """Store a message behind all others, unless its write has stored it beyond an id.

    Args:
        tables: The tables.
        key: The agent.
        turn: The message's turn.
        row: What to store.
        write_id: The message's write.
        complete_to: Up to which id the writer knows all messages: a late copy of the request finds
            its message beyond it.
        message_id: The id that the precondition leaves free, or None for the next one.
        expires: Whether its session expires.
        precondition: That of the change set.
    """
    # LIMIT keeps SQLite from working the id out once for each mention of it.
    place = f"coalesce({NEWEST}, -1) + 1" if message_id is None else "CAST(:place AS INTEGER)"
    return tables.statement(
        f"""
        INSERT INTO {{messages}} (session_id, agent_id, message_id, data, write_id, created_at,
            updated_at, turn{", stored_at" if expires else ""})
        SELECT :session_id, :agent_id, place.id, json_set(:data, '$.message_id', place.id),
            :write_id, :created_at, :updated_at, :turn{f", {DATABASE_NOW}" if expires else ""}
        FROM (SELECT {place} AS id LIMIT 1) AS place
        WHERE {precondition.sql} AND NOT EXISTS (
            SELECT 1 FROM {{messages}} WHERE {OF_AGENT} AND message_id > :complete_to
                AND write_id = :write_id
        )
        """,  # noqa: S608
        **key.context,
        turn=turn,
        write_id=write_id,
        complete_to=complete_to,
        place=message_id,
        **row_values(row),
        **precondition.values,
    )


def read_turn(tables: Tables, key: AgentKey, turn: str, after: int) -> Statement:
    """Read the ids of a turn's messages beyond an id."""
    return tables.statement(
        f"""
        SELECT message_id, write_id, claim FROM {{messages}}
        WHERE {OF_AGENT} AND message_id > :after AND turn = :turn ORDER BY message_id
        """,  # noqa: S608
        **key.context,
        turn=turn,
        after=after,
    )


# Rows that a turn has are side by side; the scans end where they begin and end.
_TURN_END = f"""(
    SELECT message_id FROM {{messages}} WHERE {OF_AGENT} AND turn = :turn
    ORDER BY message_id DESC LIMIT 1
)"""  # noqa: S608
_BEFORE_TURN = f"""coalesce((
    SELECT message_id FROM {{messages}}
    WHERE {OF_AGENT} AND message_id < {_TURN_END} AND turn <> :turn
    ORDER BY message_id DESC LIMIT 1
), -1)"""  # noqa: S608


def read_whole_turn(tables: Tables, key: AgentKey, turn: str) -> Statement:
    """Read a turn, whatever the agent works with: as many rows as there are since it began."""
    return tables.statement(
        f"""
        SELECT message_id, version, write_id, turn, claim, data FROM {{messages}}
        WHERE {OF_AGENT} AND message_id > {_BEFORE_TURN} AND message_id <= {_TURN_END}
        ORDER BY message_id
        """,  # noqa: S608
        **key.context,
        turn=turn,
    )


_REPLAY = f"""
    SELECT message_id, claim FROM {{messages}}
    WHERE {OF_AGENT} AND message_id >= :message_id AND write_id = :write_id
"""  # noqa: S608


@dataclass(frozen=True)
class CreateMessage:
    """What stores one message on its own: two statements, and a look at where it is."""

    insert: Statement
    mark: Statement
    place: Statement


def insert_single_message(
    tables: Tables,
    key: AgentKey,
    message_id: int,
    row: RowData,
    write_id: str,
    origin: str,
    *,
    expires: bool,
) -> CreateMessage:
    """Store a message at its id if that is free, else at the next one.

    A message that this write has stored before isn't stored again. One that lands before the
    newest marks the history as changed.

    Args:
        tables: The tables.
        key: The agent.
        message_id: The wanted id.
        row: What to store.
        write_id: The message's write.
        origin: The write that created the agent: no other agent of that name gets the message.
        expires: Whether its session may expire.
    """
    exists = agent_is(origin)
    insert = tables.statement(
        f"""
        INSERT INTO {{messages}} (session_id, agent_id, message_id, data, write_id, created_at,
            updated_at{", stored_at" if expires else ""})
        SELECT :session_id, :agent_id, place.id, json_set(:data, '$.message_id', place.id),
            :write_id, :created_at, :updated_at{f", {DATABASE_NOW}" if expires else ""}
        FROM (
            SELECT CASE WHEN EXISTS (
                SELECT 1 FROM {{messages}} WHERE {OF_AGENT} AND message_id = :message_id
            ) THEN {NEWEST} + 1 ELSE CAST(:message_id AS INTEGER) END AS id
        ) AS place
        WHERE {exists.sql} AND NOT EXISTS ({_REPLAY})
        """,  # noqa: S608
        **key.context,
        message_id=message_id,
        write_id=write_id,
        **row_values(row),
        **exists.values,
    )
    mark = tables.statement(
        f"""
        UPDATE {{agents}} SET epoch = epoch + 1
        WHERE {OF_AGENT} AND changes() > 0 AND {NEWEST} > :message_id
        """,  # noqa: S608
        **key.context,
        message_id=message_id,
    )
    place = tables.statement(_REPLAY, **key.context, message_id=message_id, write_id=write_id)
    return CreateMessage(insert, mark, place)


def insert_first_messages(
    tables: Tables,
    key: AgentKey,
    *,
    turn: str,
    rows: str,
    first: int,
    precondition: Precondition,
) -> Statement:
    """Store messages of a new agent, all in one statement.

    Args:
        tables: The tables.
        key: The agent.
        turn: Their turn.
        rows: A JSON array with an array for each: data, write, times of creation and update.
        first: The first one's id; nothing is stored if there is one of that id or beyond.
        precondition: That of the request.
    """
    place = "r.key + CAST(:first AS INTEGER)"
    return tables.statement(
        f"""
        INSERT INTO {{messages}} (session_id, agent_id, message_id, data, write_id, created_at,
            updated_at, turn)
        SELECT :session_id, :agent_id, {place},
            json_set(json_extract(r.value, '$[0]'), '$.message_id', {place}),
            json_extract(r.value, '$[1]'), json_extract(r.value, '$[2]'),
            json_extract(r.value, '$[3]'), :turn
        FROM json_each(:rows) AS r
        WHERE {precondition.sql} AND NOT EXISTS (
            SELECT 1 FROM {{messages}} WHERE {OF_AGENT} AND message_id >= :first
        )
        """,  # noqa: S608
        **key.context,
        turn=turn,
        rows=rows,
        first=first,
        **precondition.values,
    )
