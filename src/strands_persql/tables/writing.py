"""Statements of a change set: messages, updates of messages, a claim and an agent's row.

No statement reads more rows as a history grows: ids bound every scan of messages, and a look at
the newest message is a scalar subquery on the primary key.
"""

from dataclasses import dataclass, field

from strands_persql.databases.protocol import Statement, Value
from strands_persql.runtime.ids import CHANGE_ID_LENGTH, AgentKey
from strands_persql.tables.tables import MAX_ID, RowData, Tables, row_values

WRITES_KEPT = 60
"""Writers whose latest write a row remembers, to recognize their retries."""

_WRITES_LENGTH = WRITES_KEPT * (CHANGE_ID_LENGTH + 1)

_OF_AGENT = "session_id = :session_id AND agent_id = :agent_id"
# The newest id, and the turn that it belongs to: one row read each.
_NEWEST = f"(SELECT max(message_id) FROM {{messages}} WHERE {_OF_AGENT})"  # noqa: S608
_NEWEST_TURN = f"""(
    SELECT turn FROM {{messages}} WHERE {_OF_AGENT} ORDER BY message_id DESC LIMIT 1
)"""  # noqa: S608
# The newest write first; the writer's own previous one gives up its place.
_PUSH_WRITE = (
    f"substr(:write_id || ' ' || replace(writes, :previous || ' ', ''), 1, {_WRITES_LENGTH})"
)
_SET_MESSAGE = f"""
    data = json_set(:data, '$.message_id', message_id, '$.created_at',
        coalesce(json_extract(data, '$.created_at'), created_at)),
    version = version + 1, writes = {_PUSH_WRITE}, updated_at = :updated_at
"""


@dataclass(frozen=True)
class Precondition:
    """The condition under which the statements of a change set apply.

    Attributes:
        sql: The condition.
        values: Its named values.
    """

    sql: str
    values: dict[str, Value] = field(default_factory=dict)

    def __and__(self, other: "Precondition") -> "Precondition":
        """Return the condition that both hold."""
        return Precondition(f"{self.sql} AND {other.sql}", {**self.values, **other.values})


def agent_is(
    origin: str, version: int | None = None, plain_from: int | None = None
) -> Precondition:
    """Return the precondition that the agent is there, created by a write.

    Args:
        origin: The write that created the agent's row.
        version: The version that the row must have, or None for any.
        plain_from: Any version will do as well where the view is plain and begins at this id or
            before, so that messages from there on may move.
    """
    where = f"{_OF_AGENT} AND write_id = :origin"
    values: dict[str, Value] = {"origin": origin}
    if version is not None:
        is_version = "version = :expected"
        values["expected"] = version
        if plain_from is not None:
            is_version = (
                f"({is_version} OR coalesce(view, '[]') = '[]' AND window_start <= :plain_from)"
            )
            values["plain_from"] = plain_from
        where += f" AND {is_version}"
    return Precondition(f"EXISTS (SELECT 1 FROM {{agents}} WHERE {where})", values)  # noqa: S608


def nothing_after(message_id: int, turn: str) -> Precondition:
    """Return the precondition that no message is beyond an id, but for those of a turn."""
    of_others = " AND turn <> :turn_alone" if turn else ""
    return Precondition(
        f"""NOT EXISTS (
            SELECT 1 FROM {{messages}} WHERE {_OF_AGENT} AND message_id > :alone_after{of_others}
        )""",  # noqa: S608
        {"alone_after": message_id, "turn_alone": turn},
    )


def claimed(message_id: int, message_write: str, write_id: str) -> Precondition:
    """Return the precondition that a write holds the claim on a message, at an id or beyond."""
    return Precondition(
        f"""EXISTS (
            SELECT 1 FROM {{messages}} WHERE {_OF_AGENT} AND message_id >= :claimed_from
                AND write_id = :claimed_message AND claim = :claimed_by
        )""",  # noqa: S608
        {
            "claimed_from": message_id,
            "claimed_message": message_write,
            "claimed_by": write_id,
        },
    )


def claim_turn(
    tables: Tables,
    key: AgentKey,
    *,
    message_id: int,
    message_write: str,
    turn: str,
    known_claim: str,
    write_id: str,
    precondition: Precondition,
) -> Statement:
    """Claim a turn on its last message, unless it was claimed or went on since it was read."""
    return tables.statement(
        f"""
        UPDATE {{messages}} SET claim = :write_id
        WHERE {_OF_AGENT} AND message_id >= :message_id AND write_id = :message_write
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
        complete_to: An id.
        last_write: Nothing is moved if this write has stored a message beyond ``complete_to``:
            this is a late copy of the request then.
        precondition: That of the change set.
    """
    new_id = f"CAST(message_id + {_NEWEST} - :first + 1 AS INTEGER)"
    # SQLite still scans if the condition is constant; an unreachable lower bound makes the scan
    # empty.
    lower_bound = f"CASE WHEN {_NEWEST_TURN} <> :turn THEN :first ELSE {MAX_ID} END"
    return [
        tables.statement(
            f"""
            UPDATE {{messages}} SET message_id = {new_id},
                data = json_set(data, '$.message_id', {new_id})
            WHERE {_OF_AGENT} AND message_id >= {lower_bound} AND turn = :turn
                AND NOT EXISTS (
                    SELECT 1 FROM {{messages}} WHERE {_OF_AGENT} AND message_id > :complete_to
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
    precondition: Precondition,
) -> Statement:
    """Store a message behind all others, unless its write has stored it beyond an id.

    Args:
        tables: The tables.
        key: The agent.
        turn: The message's turn.
        row: What to store.
        write_id: The message's write.
        complete_to: Beyond which id a late copy of the request looks for itself.
        message_id: The id that the precondition leaves free, or None for the next one.
        precondition: That of the change set.
    """
    # LIMIT keeps SQLite from working the id out once for each mention of it.
    place = f"coalesce({_NEWEST}, -1) + 1" if message_id is None else "CAST(:place AS INTEGER)"
    return tables.statement(
        f"""
        INSERT INTO {{messages}} (session_id, agent_id, message_id, data, write_id, created_at,
            updated_at, turn)
        SELECT :session_id, :agent_id, place.id, json_set(:data, '$.message_id', place.id),
            :write_id, :created_at, :updated_at, :turn
        FROM (SELECT {place} AS id LIMIT 1) AS place
        WHERE {precondition.sql} AND NOT EXISTS (
            SELECT 1 FROM {{messages}} WHERE {_OF_AGENT} AND message_id > :complete_to
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
        WHERE {_OF_AGENT} AND message_id BETWEEN :first AND :last
            AND write_id = :message_write AND instr(writes, :write_id) = 0{on_version}
            AND {precondition.sql}
        """,  # noqa: S608
        **key.context,
        first=between[0],
        last=between[1],
        message_write=message_write,
        version=version,
        write_id=write_id,
        previous="-",
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
        WHERE {_OF_AGENT} AND message_id BETWEEN :first AND :last AND write_id = :message_write
        LIMIT 1
        """,  # noqa: S608
        **key.context,
        first=between[0],
        last=between[1],
        message_write=message_write,
    )


def mark_edits(tables: Tables, key: AgentKey, origin: str) -> Statement:
    """Grow the history's version, for messages of it were edited."""
    return tables.statement(
        f"UPDATE {{agents}} SET epoch = epoch + 1 WHERE {_OF_AGENT} AND write_id = :origin",  # noqa: S608
        **key.context,
        origin=origin,
    )


def mark_history(tables: Tables, key: AgentKey) -> Statement:
    """Grow the history's version, right behind a statement that may have changed old messages."""
    return tables.statement(
        """
        UPDATE {agents} SET epoch = epoch + 1
        WHERE session_id = CASE WHEN changes() > 0 THEN :session_id END AND agent_id = :agent_id
        """,
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
        precondition: What else must hold.
    """
    more = "" if precondition is None else f" AND {precondition.sql}"
    values = {} if precondition is None else precondition.values
    set_view, view_values = _set_view(view)
    set_view += ", epoch = epoch + 1" if edits else ""
    return tables.statement(
        f"""
        UPDATE {{agents}} SET
            data = json_set(:data, '$.created_at',
                coalesce(json_extract(data, '$.created_at'), created_at)),
            version = version + 1, writes = {_PUSH_WRITE}, updated_at = :updated_at{set_view}
        WHERE {_OF_AGENT} AND version = :own_version AND write_id = :own_origin{more}
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
        start = f"min(CAST(:start AS INTEGER), coalesce({_NEWEST}, -1) + 1)"
        return f", view = :view, window_start = {start}", {"view": view.view, "start": view.start}
    ids = f"SELECT message_id FROM {{messages}} WHERE {_OF_AGENT}"  # noqa: S608
    if view.by > 0:
        at, skip = f"{ids} AND message_id >= window_start ORDER BY message_id", view.by
        beyond = f"coalesce({_NEWEST}, -1) + 1"
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
        SELECT version, write_id, epoch, view, window_start, writes,
            CASE WHEN version = :known_version OR instr(writes, :write_id) = 1
                THEN NULL ELSE data END AS data
        FROM {{agents}} WHERE {_OF_AGENT}
        """,  # noqa: S608
        **key.context,
        known_version=known_version,
        write_id=write_id,
    )


def read_turn(tables: Tables, key: AgentKey, turn: str, after: int) -> Statement:
    """Read the ids of a turn's messages beyond an id."""
    return tables.statement(
        f"""
        SELECT message_id, write_id, claim FROM {{messages}}
        WHERE {_OF_AGENT} AND message_id > :after AND turn = :turn ORDER BY message_id
        """,  # noqa: S608
        **key.context,
        turn=turn,
        after=after,
    )


_REPLAY = f"""
    SELECT message_id, claim FROM {{messages}}
    WHERE {_OF_AGENT} AND message_id >= :message_id AND write_id = :write_id
"""  # noqa: S608


@dataclass(frozen=True)
class CreateMessage:
    """What stores one message on its own: two statements, and a look at where it is."""

    insert: Statement
    mark: Statement
    place: Statement


def create_message(
    tables: Tables, key: AgentKey, message_id: int, row: RowData, write_id: str, origin: str
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
    """
    exists = agent_is(origin)
    insert = tables.statement(
        f"""
        INSERT INTO {{messages}} (session_id, agent_id, message_id, data, write_id, created_at,
            updated_at)
        SELECT :session_id, :agent_id, place.id, json_set(:data, '$.message_id', place.id),
            :write_id, :created_at, :updated_at
        FROM (
            SELECT CASE WHEN EXISTS (
                SELECT 1 FROM {{messages}} WHERE {_OF_AGENT} AND message_id = :message_id
            ) THEN {_NEWEST} + 1 ELSE CAST(:message_id AS INTEGER) END AS id
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
        WHERE {_OF_AGENT} AND changes() > 0 AND {_NEWEST} > :message_id
        """,  # noqa: S608
        **key.context,
        message_id=message_id,
    )
    place = tables.statement(_REPLAY, **key.context, message_id=message_id, write_id=write_id)
    return CreateMessage(insert, mark, place)


def update_message(
    tables: Tables,
    key: AgentKey,
    message_id: int,
    row: RowData,
    write_id: str,
    *,
    version: int,
    origin: str,
) -> list[Statement]:
    """Replace a message if its version is the expected one and the same write created it."""
    return [
        tables.statement(
            f"""
            UPDATE {{messages}} SET {_SET_MESSAGE}
            WHERE {_OF_AGENT} AND message_id = :message_id AND version = :version
                AND write_id = :origin
            """,  # noqa: S608
            **key.context,
            message_id=message_id,
            write_id=write_id,
            previous="-",
            version=version,
            origin=origin,
            **row_values(row),
        ),
        mark_history(tables, key),
    ]


def update_multi_agent(
    tables: Tables, key: AgentKey, row: RowData, write_id: str, *, version: int, origin: str
) -> Statement:
    """Replace a multi-agent's row if its version is the expected one."""
    return tables.statement(
        f"""
        UPDATE {{multi_agents}} SET data = :data, version = version + 1, writes = {_PUSH_WRITE},
            updated_at = :updated_at
        WHERE session_id = :session_id AND multi_agent_id = :agent_id AND version = :version
            AND write_id = :origin
        """,  # noqa: S608
        **key.context,
        write_id=write_id,
        previous="-",
        version=version,
        origin=origin,
        **row_values(row),
    )


def create_messages(
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
            SELECT 1 FROM {{messages}} WHERE {_OF_AGENT} AND message_id >= :first
        )
        """,  # noqa: S608
        **key.context,
        turn=turn,
        rows=rows,
        first=first,
        **precondition.values,
    )
