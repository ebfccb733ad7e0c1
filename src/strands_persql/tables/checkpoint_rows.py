"""Rows of checkpoints as they are found: whether they can be read, and what is told of them.

Others than this library may have written them, so that each function on JSON is kept from what is
none: a row that can't be read costs that checkpoint alone.
"""

from strands_persql.databases.protocol import Statement
from strands_persql.runtime.ids import AgentKey
from strands_persql.tables.tables import MAX_ID, Tables


def list_in(column: str) -> str:
    """Return the SQL for a column's JSON list, or an empty one where it has none."""
    return f"""CASE WHEN NOT json_valid({column}) THEN '[]'
        WHEN json_type({column}) = 'array' THEN {column} ELSE '[]' END"""


def number_at(item: str, index: int) -> str:
    """Return the SQL for a number in an item of a list, or null where the item is no list."""
    return f"CASE {item}.type WHEN 'array' THEN json_extract({item}.value, '$[{index}]') END"


def is_within(message_id: str, ranges: str) -> str:
    """Return the SQL for whether a list of ranges of ids has a message's."""
    return f"""EXISTS (
        SELECT 1 FROM json_each({ranges}) AS g
        WHERE {message_id} BETWEEN {number_at("g", 0)} AND {number_at("g", 1)}
    )"""  # noqa: S608 - nothing but names


def _is_list_of(column: str, is_item: str) -> str:
    return f"""CASE WHEN NOT json_valid({column}) THEN 0 WHEN json_type({column}) <> 'array' THEN 0
        ELSE NOT EXISTS (SELECT 1 FROM json_each({column}) AS i WHERE NOT ({is_item})) END"""  # noqa: S608


def _is_array(kinds: tuple[str, ...]) -> str:
    has_kinds = " AND ".join(
        f"json_type(i.value, '$[{index}]') = '{kind}'" for index, kind in enumerate(kinds)
    )
    ids = [index for index, kind in enumerate(kinds) if kind == "integer"]
    has_ids = " AND ".join(
        f"json_extract(i.value, '$[{index}]') BETWEEN 0 AND {MAX_ID}" for index in ids
    )
    return f"""CASE i.type WHEN 'array' THEN json_array_length(i.value) = {len(kinds)}
        AND {has_kinds} AND {has_ids} ELSE 0 END"""


_RANGE = _is_array(("integer", "integer"))


def ranges_in(column: str) -> str:
    """Return the SQL for the ranges of ids in a column's JSON list, and nothing else of it."""
    return f"""(SELECT json_group_array(json(i.value)) FROM json_each({list_in(column)}) AS i
        WHERE {_RANGE})"""  # noqa: S608 - nothing but names


_CONTENT = """CASE WHEN NOT json_valid(c.data) THEN 0 ELSE
    coalesce(json_type(c.data, '$.state'), '') = 'object'
    AND coalesce(json_type(c.data, '$.conversation_manager_state'), '') = 'object'
    AND coalesce(json_type(c.data, '$._internal_state'), 'object') = 'object' END"""

IS_BEHIND = f"({_is_list_of('c.rewound', _RANGE)})"
"""Whether it can be read what an agent has gone back behind, as its row ``c`` says it."""

_FIRST, _LAST, _WRITE = (number_at("t", index) for index in (1, 2, 3))


def is_whole(session: str, agent: str) -> str:
    """Return the SQL for whether both ends of a turn ``t`` of a checkpoint are there.

    A turn is deleted from some message on, so that one of its ends is gone.

    Args:
        session: The SQL for its session.
        agent: The SQL for its agent.
    """
    return f"""EXISTS (
        SELECT 1 FROM {{messages}} AS m CROSS JOIN {{messages}} AS n
        WHERE m.session_id = {session} AND m.agent_id = {agent} AND m.message_id >= {_FIRST}
            AND CASE {_WRITE} WHEN '' THEN m.message_id = {_FIRST} ELSE m.write_id = {_WRITE} END
            AND n.session_id = {session} AND n.agent_id = {agent}
            AND n.message_id = m.message_id + {_LAST} - {_FIRST}
    )"""  # noqa: S608 - nothing but names


PROBLEM = f"""CASE
    WHEN typeof(c.label) <> 'text' THEN 'label' WHEN typeof(c.created_at) <> 'text'
    THEN 'created_at' WHEN typeof(c.version) <> 'integer' THEN 'version'
    WHEN typeof(c.newest_id) <> 'integer' THEN 'newest_id' WHEN NOT ({_CONTENT}) THEN 'data'
    WHEN NOT ({_is_list_of("c.view", f"i.type = 'object' OR {_RANGE}")}) THEN 'view'
    WHEN NOT ({_is_list_of("c.turns", _is_array(("integer", "integer", "integer", "text")))})
    THEN 'turns' WHEN NOT ({_is_list_of("c.rewound", _RANGE)}) THEN 'rewound'
END"""
"""Which column of a checkpoint can't be read, or null where all can."""

_SUMMARY = f"""
    SELECT session_id, agent_id, checkpoint_id, label, created_at, problem, CASE
        WHEN problem IS NULL THEN (
        SELECT coalesce(sum(1 + json_extract(t.value, '$[2]') - json_extract(t.value, '$[1]')), 0)
        FROM json_each(turns) AS t
    ) + (SELECT count(*) FROM json_each(view) AS v WHERE v.type = 'object'
        AND coalesce(json_type(v.value, '$.__persql__'), '') <> 'object'
    ) END AS messages
    FROM (
        SELECT c.session_id, c.agent_id, c.checkpoint_id, c.label, c.created_at, c.version,
            c.newest_id, c.turns, c.view, {PROBLEM} AS problem
        FROM {{checkpoints}} AS c WHERE c.session_id = :session_id"""  # noqa: S608 - nothing but constants


def read_checkpoint(tables: Tables, key: AgentKey, checkpoint_id: str) -> Statement:
    """Read what is told of a checkpoint."""
    return tables.statement(
        f"{_SUMMARY} AND c.agent_id = :agent_id AND c.checkpoint_id = :checkpoint_id)",
        **key.context,
        checkpoint_id=checkpoint_id,
    )


def list_checkpoints(tables: Tables, session_id: str, agent_id: str | None) -> Statement:
    """Read what is told of the checkpoints of an agent, or of all of a session, oldest first."""
    of_agent = "" if agent_id is None else " AND c.agent_id = :agent_id"
    return tables.statement(
        f"""
        {_SUMMARY}{of_agent} AND c.checkpoint_id <> ''
        ) ORDER BY agent_id, version, newest_id, created_at, checkpoint_id
        """,
        session_id=session_id,
        agent_id=agent_id,
    )
