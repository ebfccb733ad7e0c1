"""Statements that keep checkpoints of an agent, and that go back to them.

A checkpoint is a copy of the agent's row with its view closed at its end. It holds no message: it
says where each turn was and which write stored the turn's first message, for a turn that goes on
moves, as a whole, to higher ids.
"""

from strands_persql.databases.protocol import Statement, Value
from strands_persql.runtime.ids import AgentKey
from strands_persql.tables.checkpoint_rows import (
    PROBLEM,
    is_within,
    list_in,
    number_at,
    ranges_in,
)
from strands_persql.tables.expressions import OF_AGENT, PUSH_WRITE
from strands_persql.tables.preconditions import Precondition
from strands_persql.tables.reading import RANGES, WINDOW_START
from strands_persql.tables.tables import MAX_ID, Tables

_OF_AGENT_M = "m.session_id = a.session_id AND m.agent_id = a.agent_id"

# What the view had in order: its ranges, the known end of it, and what the writer's own turn has
# said behind messages of others that the writer hasn't seen.
_ITEMS = f"""
    SELECT r.key AS place, r.type AS kind, r.value
    FROM a CROSS JOIN json_each(coalesce(a.view, '[]')) AS r
    UNION ALL
    SELECT {2**40}, 'array', json_array(window_start, last) FROM (
        SELECT a.window_start, (
            SELECT max(m.message_id) FROM {{messages}} AS m
            WHERE {_OF_AGENT_M} AND m.message_id BETWEEN a.window_start AND :complete_to
        ) AS last FROM a
    ) WHERE last IS NOT NULL
    UNION ALL
    SELECT {2**41}, 'array', json_array(min(m.message_id), max(m.message_id))
    FROM a CROSS JOIN {{messages}} AS m ON {_OF_AGENT_M}
        AND m.message_id > max(:complete_to, a.window_start - 1) AND m.turn = :turn
    HAVING count(*) > 0
"""  # noqa: S608 - nothing but constants

# Messages of one turn side by side have the same difference of the two numbers.
_SHOWN = f"""
    SELECT i.place, m.message_id, m.turn, m.write_id,
        row_number() OVER (PARTITION BY i.place ORDER BY m.message_id)
        - row_number() OVER (PARTITION BY i.place, m.turn ORDER BY m.message_id) AS island
    FROM items AS i CROSS JOIN a CROSS JOIN {{messages}} AS m ON {_OF_AGENT_M}
        AND m.message_id BETWEEN json_extract(i.value, '$[0]') AND json_extract(i.value, '$[1]')
    WHERE i.kind = 'array'
"""  # noqa: S608

_TURNS = """
    SELECT json_group_array(json_array(place, first, last, write_id)) FROM (
        SELECT place, min(message_id) AS first, max(message_id) AS last,
            CASE turn WHEN '' THEN ''
                ELSE substr(min(printf('%016d', message_id) || write_id), 17) END AS write_id
        FROM shown GROUP BY place, turn, island ORDER BY place, first
    )
"""

REWOUND_ID = ""
"""Of the row that says what an agent has gone back behind, which is no checkpoint."""

_REWOUND = f"""coalesce((
    SELECT {ranges_in("rewound")} FROM {{checkpoints}} WHERE {OF_AGENT} AND checkpoint_id = ''
), '[]')"""  # noqa: S608


def keep_checkpoint(
    tables: Tables,
    key: AgentKey,
    *,
    checkpoint_id: str,
    label: str,
    time: str,
    version: int,
    origin: str,
    write_id: str,
    complete_to: int,
    turn: str,
) -> Statement:
    """Keep what an agent works with, and its row, once, if the row is as it is known.

    Args:
        tables: The tables.
        key: The agent.
        checkpoint_id: The checkpoint.
        label: What it is called.
        time: When it was made.
        version: The version that the agent's row must have.
        origin: The write that created it.
        write_id: The write that must have left it so, or nothing for any.
        complete_to: Up to which id the writer knows all messages that the agent works with; what
            others have said beyond it isn't part of the checkpoint.
        turn: The writer's turn, whose messages it knows beyond that too.
    """
    return tables.statement(
        f"""
        INSERT INTO {{checkpoints}} (session_id, agent_id, checkpoint_id, data, version, write_id,
            created_at, updated_at, label, view, turns, newest_id, rewound)
        WITH a AS (
            SELECT session_id, agent_id, data, version, view, window_start
            FROM {{agents}} WHERE {OF_AGENT} AND version = :version AND write_id = :origin
                AND instr(writes, :write_id) > 0
        ), numbered AS ({_ITEMS}), items AS (
            SELECT row_number() OVER (ORDER BY place) - 1 AS place, kind, value FROM numbered
        ), shown AS ({_SHOWN})
        SELECT session_id, agent_id, :checkpoint_id, data, version, :checkpoint_id, :time, :time,
            :label,
            (SELECT json_group_array(json(value)) FROM (SELECT value FROM items ORDER BY place)),
            ({_TURNS}), max(coalesce((
                SELECT max(message_id) FROM {{messages}}
                WHERE {OF_AGENT} AND message_id <= :complete_to
            ), -1), coalesce((
                SELECT max(message_id) FROM {{messages}}
                WHERE {OF_AGENT} AND message_id > :complete_to AND turn = :turn
            ), -1)), {_REWOUND}
        FROM a WHERE true ON CONFLICT DO NOTHING
        """,  # noqa: S608
        **key.context,
        checkpoint_id=checkpoint_id,
        label=label,
        time=time,
        version=version,
        origin=origin,
        write_id=write_id,
        complete_to=complete_to,
        turn=turn,
    )


# -- going back ------------------------------------------------------------------------------------

CHECKPOINT = """
    FROM {checkpoints} AS c WHERE c.session_id = :session_id AND c.agent_id = :agent_id
        AND c.checkpoint_id = :checkpoint_id
"""
_FIRST, _LAST, _WRITE = (number_at("t", index) for index in (1, 2, 3))
_TURNS_THEN, _VIEW_THEN = list_in("c.turns"), list_in("c.view")
_OF_CHECKPOINT_M = "m.session_id = c.session_id AND m.agent_id = c.agent_id"
# Ids grow only, so the first message of a turn is where it was or beyond.
_NOW = f"""CASE {_WRITE} WHEN '' THEN {_FIRST} ELSE (
    SELECT m.message_id FROM {{messages}} AS m
    WHERE {_OF_CHECKPOINT_M} AND m.message_id >= {_FIRST} AND m.write_id = {_WRITE}
    ORDER BY m.message_id LIMIT 1
) END"""  # noqa: S608

RESOLVED_VIEW = f"""
    CASE WHEN NOT EXISTS (
        SELECT 1 FROM json_each({_TURNS_THEN}) AS t WHERE {_WRITE} <> '' AND NOT EXISTS (
            SELECT 1 FROM {{messages}} AS m
            WHERE {_OF_CHECKPOINT_M} AND m.message_id = {_FIRST} AND m.write_id = {_WRITE}
        )
    ) THEN {_VIEW_THEN} ELSE (
        SELECT json_group_array(json(item)) FROM (
            SELECT CASE v.type WHEN 'object' THEN v.value
                ELSE json_array(p.now, p.now + p.last - p.first) END AS item
            FROM json_each({_VIEW_THEN}) AS v LEFT JOIN (
                SELECT t.key AS number, {number_at("t", 0)} AS place,
                    {_FIRST} AS first, {_LAST} AS last, {_NOW} AS now
                FROM json_each({_TURNS_THEN}) AS t
            ) AS p ON p.place = v.key
            WHERE v.type = 'object' OR p.now IS NOT NULL ORDER BY v.key, p.number
        )
    ) END
"""  # noqa: S608
"""A checkpoint's view, with the turns in it where they are now."""


def rewind_agent(
    tables: Tables,
    key: AgentKey,
    *,
    checkpoint_id: str,
    data: str | None,
    view: str | None,
    start: int,
    write_id: str,
    previous: str,
    time: str,
    version: int,
    origin: str,
    precondition: Precondition,
) -> Statement:
    """Give an agent back the row of a checkpoint, if its version is the expected one.

    Args:
        tables: The tables.
        key: The agent.
        checkpoint_id: The checkpoint, which must be there.
        data: The content in place of the checkpoint's, or None.
        view: What it works with in place of the checkpoint's view, or None.
        start: From which id on the agent works with all messages besides.
        write_id: This write.
        previous: The writer's write before it, which needn't be remembered any longer.
        time: When it is.
        version: The version to replace.
        origin: The write that created the row.
        precondition: What else must hold.
    """
    return tables.statement(
        f"""
        UPDATE {{agents}} SET
            data = json_set(coalesce(:data, (SELECT c.data {CHECKPOINT})), '$.created_at',
                coalesce(json_extract(data, '$.created_at'), created_at),
                '$.updated_at', :time),
            view = coalesce(:view, (SELECT {RESOLVED_VIEW} {CHECKPOINT})),
            window_start = CAST(:start AS INTEGER),
            version = version + 1, writes = {PUSH_WRITE}, updated_at = :time
        WHERE {OF_AGENT} AND version = :own_version AND write_id = :own_origin
            AND EXISTS (SELECT 1 {CHECKPOINT} AND {PROBLEM} IS NULL) AND {precondition.sql}
        """,  # noqa: S608
        **key.context,
        checkpoint_id=checkpoint_id,
        data=data,
        view=view,
        start=start,
        write_id=write_id,
        previous=previous,
        time=time,
        own_version=version,
        own_origin=origin,
        **precondition.values,
    )


# The latest write of the agent's row: whoever comes later, with another one, changes nothing.
_HAS_WRITTEN = f"""EXISTS (
    SELECT 1 FROM {{agents}} WHERE {OF_AGENT} AND instr(writes, :write_id) = 1
)"""  # noqa: S608


def note_rewound(
    tables: Tables, key: AgentKey, *, checkpoint_id: str, to: int, write_id: str, time: str
) -> Statement:
    """Note what an agent that has just gone back to a checkpoint has gone back behind.

    Args:
        tables: The tables.
        key: The agent.
        checkpoint_id: The checkpoint.
        to: The newest message that its writer knew.
        write_id: The write that has rewound it.
        time: When that was.
    """
    return tables.statement(
        f"""
        INSERT INTO {{checkpoints}} (session_id, agent_id, checkpoint_id, created_at, updated_at,
            rewound)
        SELECT c.session_id, c.agent_id, '', :time, :time, CASE WHEN :to > c.newest_id
            THEN json_insert(c.rewound, '$[#]',
                json_array(c.newest_id + 1, CAST(:to AS INTEGER)))
            ELSE c.rewound END
        {CHECKPOINT} AND {_HAS_WRITTEN}
        ON CONFLICT (session_id, agent_id, checkpoint_id)
        DO UPDATE SET rewound = excluded.rewound, updated_at = excluded.updated_at
        """,
        **key.context,
        checkpoint_id=checkpoint_id,
        to=to,
        write_id=write_id,
        time=time,
    )


def note_dropped(
    tables: Tables, key: AgentKey, *, first: int, last: int, write_id: str, time: str
) -> Statement:
    """Note that an agent has gone back behind some messages, which a write has just dropped.

    Args:
        tables: The tables.
        key: The agent.
        first: The first message's id.
        last: The last message's id.
        write_id: The write of the agent's row.
        time: When that was.
    """
    added = f"""json_insert({_REWOUND}, '$[#]',
        json_array(CAST(:first AS INTEGER), CAST(:last AS INTEGER)))"""
    return tables.statement(
        f"""
        INSERT INTO {{checkpoints}} (session_id, agent_id, checkpoint_id, created_at, updated_at,
            rewound)
        SELECT :session_id, :agent_id, '', :time, :time, {added} WHERE {_HAS_WRITTEN}
        ON CONFLICT (session_id, agent_id, checkpoint_id)
        DO UPDATE SET rewound = excluded.rewound, updated_at = excluded.updated_at
        """,
        **key.context,
        first=first,
        last=last,
        write_id=write_id,
        time=time,
    )


_READ_REWOUND = f"""
    SELECT m.message_id, m.version, m.write_id, m.turn, m.claim, m.data
    FROM (
        SELECT a.session_id, a.agent_id, a.epoch, a.view, {WINDOW_START} AS window_start
        FROM {{agents}} AS a WHERE a.session_id = :session_id AND a.agent_id = :agent_id
    ) AS a CROSS JOIN json_each({RANGES}) AS r
    CROSS JOIN {{messages}} AS m ON {_OF_AGENT_M}
        AND m.message_id >= json_extract(r.value, '$[0]')
        AND m.message_id <= coalesce(json_extract(r.value, '$[1]'), {MAX_ID})
    WHERE r.type = 'array' AND NOT (a.epoch = :epoch AND EXISTS (
        SELECT 1 FROM json_each(:known) AS k WHERE m.message_id
            BETWEEN json_extract(k.value, '$[0]') AND json_extract(k.value, '$[1]')
    ))
    ORDER BY m.message_id LIMIT CAST(:limit AS INTEGER)
"""  # noqa: S608


def read_unknown(tables: Tables, key: AgentKey, *, epoch: int, known: str, limit: int) -> Statement:
    """Read what an agent works with, without the messages that are known.

    Args:
        tables: The tables.
        key: The agent.
        epoch: The version of the history that is known.
        known: The ranges of ids of which all messages are known, as JSON.
        limit: Messages at the most.
    """
    values: dict[str, Value] = {"epoch": epoch, "known": known, "limit": limit}
    return tables.statement(_READ_REWOUND, **key.context, **values)


def read_agent(tables: Tables, key: AgentKey) -> Statement:
    """Read an agent's row, with the writes that it remembers."""
    return tables.statement(
        f"""
        SELECT a.version, a.write_id, a.epoch, a.view, {WINDOW_START} AS window_start,
            a.window_start IS NULL AS counted, a.expires_after, a.writes, a.data
        FROM {{agents}} AS a WHERE a.session_id = :session_id AND a.agent_id = :agent_id
        """,  # noqa: S608
        **key.context,
    )


def read_refused(tables: Tables, key: AgentKey, checkpoint_id: str, write_id: str) -> Statement:
    """Read what a checkpoint has, unless a write has gone back to it."""
    return tables.statement(
        f"""
        SELECT c.data, {RESOLVED_VIEW} AS view, {PROBLEM} AS problem {CHECKPOINT} AND NOT EXISTS (
            SELECT 1 FROM {{agents}} WHERE {OF_AGENT} AND instr(writes, :write_id) > 0
        )
        """,  # noqa: S608
        **key.context,
        checkpoint_id=checkpoint_id,
        write_id=write_id,
    )


def read_rest_of_turn(
    tables: Tables, key: AgentKey, turn: str, *, after: int, before: int
) -> Statement:
    """Read which messages of a turn are between two ids, and whether the agent is behind them."""
    return tables.statement(
        f"""
        SELECT message_id, version, write_id, turn, claim, '' AS data,
            {is_within("message_id", _REWOUND)} AS is_rewound
        FROM {{messages}}
        WHERE {OF_AGENT} AND message_id > :after AND message_id < :before AND turn = :turn
        ORDER BY message_id
        """,  # noqa: S608
        **key.context,
        turn=turn,
        after=after,
        before=before,
    )
