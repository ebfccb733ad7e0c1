"""Statements that copy a session within the database, and that remove what was rewound for good."""

from collections.abc import Mapping

from strands_persql.databases.protocol import Statement, Value
from strands_persql.runtime.ids import AgentKey
from strands_persql.tables.checkpoint_rows import PROBLEM, is_whole, list_in, number_at
from strands_persql.tables.checkpointing import CHECKPOINT, RESOLVED_VIEW
from strands_persql.tables.expressions import NEWEST, OF_AGENT, PUSH_WRITE
from strands_persql.tables.reading import RANGES
from strands_persql.tables.tables import DATABASE_NOW, MAX_ID, Tables, columns

# A late copy of the request finds the session that it made, or that it was deleted since.
_IS_FREE = """NOT EXISTS (
    SELECT 1 FROM {sessions} WHERE session_id = :new_id
    UNION ALL SELECT 1 FROM {deletions} WHERE write_id = :write_id
)"""
_NEWEST_COPIED = """(
    SELECT max(m.message_id) FROM {messages} AS m
    WHERE m.session_id = :new_id AND m.agent_id = :agent_id
)"""
# What the history was then: all up to its newest message, and what has moved behind that since.
_WAS_SAID = f"""(s.message_id <= (SELECT c.newest_id {CHECKPOINT}) OR s.message_id IN (
    SELECT m.message_id FROM (SELECT c.newest_id, {RESOLVED_VIEW} AS view {CHECKPOINT}) AS c
    CROSS JOIN json_each(c.view) AS v CROSS JOIN {{messages}} AS m
        ON m.session_id = :session_id AND m.agent_id = :agent_id AND m.message_id
        BETWEEN json_extract(v.value, '$[0]') AND json_extract(v.value, '$[1]')
    WHERE v.type = 'array'
))"""  # noqa: S608 - nothing but constants
_WAS_MADE = f"""(s.checkpoint_id = '' OR EXISTS (
    SELECT 1 {CHECKPOINT} AND s.version <= c.version AND s.newest_id <= c.newest_id
))"""

Copy = Mapping[str, tuple[dict[str, str], str]]
"""By table which columns get other values, and which rows are copied."""

_NEW_ROW = {"session_id": ":new_id", "write_id": ":write_id", "writes": "''"}
_NEW_SESSION = {
    **_NEW_ROW,
    "expires_at": f"{DATABASE_NOW} + s.expires_after",
    "created_at": ":time",
    "updated_at": ":time",
    "data": """json_set(s.data, '$.session_id', :new_name, '$.created_at', :time,
        '$.updated_at', :time)""",
}
_AS_IT_IS: Copy = {
    # Triggers count the rows that refer to them, as these are copied.
    "contents": ({"session_id": ":new_id", "uses": "0", "stored_at": DATABASE_NOW}, ""),
    "messages": ({"session_id": ":new_id", "writes": "''"}, ""),
    "agents": (_NEW_ROW, ""),
    "multi_agents": (_NEW_ROW, ""),
    "checkpoints": ({"session_id": ":new_id"}, ""),
    "sessions": (_NEW_SESSION, ""),  # the last one: all others depend on its not being there
}


_DROP_UNUSED = f"""
    DELETE FROM {{contents}} WHERE session_id = :new_id AND digest IN (
        SELECT digest FROM {{contents}} WHERE session_id = :new_id AND place = 0 AND uses = 0
    ) AND {_IS_FREE}
"""  # noqa: S608


def _then(value: str, otherwise: str) -> str:
    return f"CASE WHEN s.agent_id = :agent_id THEN {value} ELSE {otherwise} END"


def _of_checkpoint(value: str) -> str:
    return f"(SELECT {value} {CHECKPOINT})"


_AS_IT_WAS: Copy = {
    **_AS_IT_IS,
    "messages": (_AS_IT_IS["messages"][0], f" AND {_then(_WAS_SAID, 'true')}"),
    "agents": (
        {
            **_NEW_ROW,
            "data": _then(_of_checkpoint("c.data"), "s.data"),
            "view": _then(_of_checkpoint(RESOLVED_VIEW), "s.view"),
            "window_start": _then(f"coalesce({_NEWEST_COPIED}, -1) + 1", "s.window_start"),
        },
        "",
    ),
    "checkpoints": (
        {
            "session_id": ":new_id",
            "rewound": _then(
                f"CASE s.checkpoint_id WHEN '' THEN {_of_checkpoint('c.rewound')}"
                " ELSE s.rewound END",
                "s.rewound",
            ),
        },
        f" AND {_then(_WAS_MADE, 'true')}",
    ),
}


def fork_session(
    tables: Tables,
    session_id: str,
    new_id: str,
    *,
    write_id: str,
    time: str,
    at: tuple[str, str] | None,
) -> list[Statement]:
    """Copy a session under a new id, once, unless that is taken.

    Args:
        tables: The tables.
        session_id: The session.
        new_id: The new session.
        write_id: The write that creates it.
        time: When that is.
        at: An agent and one of its checkpoints: that agent is copied as it was then, without what
            was said since. None for all as it is.
    """
    values: dict[str, Value] = {
        "session_id": session_id,
        "new_id": new_id,
        "new_name": new_id,  # in the row's JSON, where it is as its owner knows it
        "write_id": write_id,
        "time": time,
    }
    copy, is_there, unused = _AS_IT_IS, "", []
    if at is not None:
        values |= {"agent_id": at[0], "checkpoint_id": at[1]}
        copy, is_there = _AS_IT_WAS, f" AND EXISTS (SELECT 1 {CHECKPOINT} AND {PROBLEM} IS NULL)"
        unused = [tables.statement(_DROP_UNUSED, **values)]
    *parts, session = (
        tables.statement(_copied(table, replaced, f"{_IS_FREE}{is_there}{only}"), **values)
        for table, (replaced, only) in copy.items()
    )
    return [*parts, *unused, session]


def _copied(table: str, replaced: Mapping[str, str], condition: str) -> str:
    names = list(columns(table))
    values = ", ".join(replaced.get(name, f"s.{name}") for name in names)
    return f"""
        INSERT INTO {{{table}}} ({", ".join(names)})
        SELECT {values} FROM {{{table}}} AS s WHERE s.session_id = :session_id AND {condition}
    """  # noqa: S608


# -- what was rewound ------------------------------------------------------------------------------

_IS_DUE = f"""EXISTS (
    SELECT 1 FROM {{checkpoints}} WHERE {OF_AGENT} AND checkpoint_id = '' AND rewound <> '[]'
        AND instr(writes, :write_id) = 0
)"""  # noqa: S608
_IS_SHOWN = f"""EXISTS (
    SELECT 1 FROM {{agents}} AS a CROSS JOIN json_each({RANGES}) AS r
    WHERE a.session_id = :session_id AND a.agent_id = :agent_id AND r.type = 'array'
        AND m.message_id BETWEEN json_extract(r.value, '$[0]')
            AND coalesce(json_extract(r.value, '$[1]'), {MAX_ID})
)"""  # noqa: S608
# Messages of one turn with others between them that are gone: each by the write before the gap.
_GAPS = f"""
    SELECT json_array(write_id, next_id - message_id) AS gap FROM (
        SELECT m.write_id, m.turn, m.message_id,
            lead(m.turn) OVER following AS next_turn, lead(m.message_id) OVER following AS next_id
        FROM {{checkpoints}} AS c CROSS JOIN json_each({list_in("c.rewound")}) AS g
        CROSS JOIN {{messages}} AS m ON m.session_id = c.session_id AND m.agent_id = c.agent_id
            AND m.message_id BETWEEN coalesce((
                SELECT max(b.message_id) FROM {{messages}} AS b WHERE b.session_id = c.session_id
                    AND b.agent_id = c.agent_id AND b.message_id < {number_at("g", 0)}
            ), 0) AND coalesce((
                SELECT min(b.message_id) FROM {{messages}} AS b WHERE b.session_id = c.session_id
                    AND b.agent_id = c.agent_id AND b.message_id > {number_at("g", 1)}
            ), {number_at("g", 1)})
        WHERE c.session_id = :session_id AND c.agent_id = :agent_id AND c.checkpoint_id = ''
        WINDOW following AS (PARTITION BY g.key ORDER BY m.message_id)
    ) WHERE turn <> '' AND turn = next_turn AND next_id > message_id + 1
"""  # noqa: S608


def truncate_agent(tables: Tables, key: AgentKey, write_id: str) -> list[Statement]:
    """Delete what an agent has gone back behind and doesn't work with, once.

    Checkpoints of what is deleted go with it. Where that leaves a turn with a gap it is noted: a
    check takes other gaps for losses. The agent's row counts as made anew: requests of
    before, which could bring back what is deleted, find another agent.

    Args:
        tables: The tables.
        key: The agent.
        write_id: The write that does this.

    Returns:
        The statements; the first one returns the ids of the messages that it has deleted.
    """
    templates = (
        f"""
        DELETE FROM {{messages}} WHERE {OF_AGENT} AND message_id IN (
            SELECT m.message_id FROM {{checkpoints}} AS c
            CROSS JOIN json_each({list_in("c.rewound")}) AS g
            CROSS JOIN {{messages}} AS m ON m.session_id = c.session_id
                AND m.agent_id = c.agent_id
                AND m.message_id BETWEEN {number_at("g", 0)} AND {number_at("g", 1)}
            WHERE c.session_id = :session_id AND c.agent_id = :agent_id AND c.checkpoint_id = ''
                AND NOT {_IS_SHOWN}
        ) AND {_IS_DUE}
        RETURNING message_id
        """,  # noqa: S608
        f"""
        DELETE FROM {{checkpoints}} WHERE {OF_AGENT} AND checkpoint_id <> '' AND {_IS_DUE}
            AND EXISTS (
                SELECT 1 FROM json_each({list_in("turns")}) AS t
                WHERE NOT {is_whole(":session_id", ":agent_id")}
            )
        """,  # noqa: S608
        f"""
        UPDATE {{checkpoints}} SET turns = (
            SELECT json_group_array(json(gap)) FROM (
                SELECT value AS gap FROM json_each({list_in("turns")}) WHERE type = 'array'
                UNION {_GAPS}
            )
        ) WHERE {OF_AGENT} AND checkpoint_id = '' AND {_IS_DUE}
        """,  # noqa: S608
        f"""
        INSERT INTO {{deletions}} (write_id, deleted_at)
        SELECT write_id, {DATABASE_NOW} FROM {{agents}}
        WHERE {OF_AGENT} AND write_id <> '' AND {_IS_DUE} ON CONFLICT DO NOTHING
        """,  # noqa: S608
        f"""
        UPDATE {{agents}} SET write_id = :write_id, version = version + 1, epoch = epoch + 1,
            window_start = min(window_start, coalesce({NEWEST}, -1) + 1)
        WHERE {OF_AGENT} AND {_IS_DUE}
        """,  # noqa: S608
        f"""
        UPDATE {{checkpoints}} SET rewound = '[]',
            newest_id = min(newest_id, coalesce({NEWEST}, -1))
        WHERE {OF_AGENT} AND checkpoint_id <> '' AND {_IS_DUE}
        """,  # noqa: S608
        f"""
        UPDATE {{checkpoints}} SET rewound = '[]', writes = {PUSH_WRITE}
        WHERE {OF_AGENT} AND checkpoint_id = '' AND {_IS_DUE}
        """,  # noqa: S608
    )
    return [
        tables.statement(one, **key.context, write_id=write_id, previous="-") for one in templates
    ]


def read_fork(tables: Tables, new_id: str) -> Statement:
    """Read the row of a session that a fork has made, or found."""
    return tables.statement(
        "SELECT data, write_id FROM {sessions} WHERE session_id = :session_id", session_id=new_id
    )
