"""The full-text index of messages, and what tells which of them it doesn't have as they are.

Triggers note what is appended, changed or deleted, by whichever writer: from which id on an agent
has messages that are new, and the keys of the others. Older SQLite lets no trigger write to the
index itself, so whoever searches indexes these first.
"""

import json
from collections.abc import Iterable, Sequence

from strands_persql.databases.protocol import Statement, Value
from strands_persql.runtime.ids import AgentKey
from strands_persql.tables.retention import NOT_EXPIRED
from strands_persql.tables.searching import all_of, snippet
from strands_persql.tables.tables import Tables

INDEXED_CHARACTERS = 100_000
"""Characters of a message that are indexed."""

WINDOW = 500
"""Ids of an agent whose messages one request indexes."""

_CONTENT = 5  # the column


def _words(row: str) -> str:
    """Return the SQL for the words of the scopes that a message is in: its own one first."""
    session, agent = f"hex({row}.session_id)", f"hex({row}.agent_id)"
    end = f"instr({row}.session_id, '~')"
    return f"""{_own(row)} || ' a' || {session} || 'z' || {agent} || ' s' || {session}
        || CASE WHEN substr({row}.session_id, 1, 1) = '@' AND {end} > 0
            THEN ' o' || hex(substr({row}.session_id, 1, {end})) ELSE '' END"""


def _own(row: str) -> str:
    return f"""'m' || hex({row}.session_id) || 'z' || hex({row}.agent_id)
        || 'z' || hex({row}.message_id)"""


# -- the index -------------------------------------------------------------------------------------


def create_index(tables: Tables) -> list[Statement]:
    """Make the index and the triggers, unless they are there, and note all messages as new."""
    prefix = tables.prefix
    sql = [
        f"""CREATE VIRTUAL TABLE IF NOT EXISTS {prefix}message_search USING fts5(
            scope, session_id UNINDEXED, agent_id UNINDEXED, message_id UNINDEXED, mark UNINDEXED,
            content, tokenize = "unicode61 remove_diacritics 2")""",
        f"""CREATE TABLE IF NOT EXISTS {prefix}search_new (session_id TEXT NOT NULL,
            agent_id TEXT NOT NULL, first_id INTEGER NOT NULL,
            PRIMARY KEY (session_id, agent_id)) WITHOUT ROWID""",
        f"""CREATE TABLE IF NOT EXISTS {prefix}search_changed (session_id TEXT NOT NULL,
            agent_id TEXT NOT NULL, message_id INTEGER NOT NULL,
            PRIMARY KEY (session_id, agent_id, message_id)) WITHOUT ROWID""",
        *triggers(tables),
        f"""INSERT INTO {prefix}search_new (session_id, agent_id, first_id)
            SELECT session_id, agent_id, first_id FROM (
                SELECT a.session_id, a.agent_id, (
                    SELECT min(m.message_id) FROM {prefix}messages AS m
                    WHERE m.session_id = a.session_id AND m.agent_id = a.agent_id
                ) AS first_id FROM {prefix}agents AS a
            ) WHERE first_id IS NOT NULL ON CONFLICT DO NOTHING""",  # noqa: S608
    ]
    return [{"sql": " ".join(one.split())} for one in sql]


def drop_index(tables: Tables) -> list[Statement]:
    """Remove the index, and the triggers."""
    names = [f"TRIGGER IF EXISTS {tables.prefix}{name}" for name in _TRIGGERS]
    names += [
        f"TABLE IF EXISTS {tables.prefix}{name}"
        for name in ("search_changed", "search_new", "message_search")
    ]
    return [{"sql": f"DROP {one}"} for one in names]


_TRIGGERS = ("message_said", "message_edited", "message_moved", "message_gone")


def triggers(tables: Tables) -> list[str]:
    """Return the SQL of the triggers that note what the index doesn't have as it is."""
    prefix = tables.prefix
    new = f"""INSERT INTO {prefix}search_new (session_id, agent_id, first_id)
        VALUES (NEW.session_id, NEW.agent_id, NEW.message_id)
        ON CONFLICT (session_id, agent_id) DO UPDATE SET first_id = excluded.first_id
        WHERE excluded.first_id < first_id;"""  # noqa: S608
    changed = f"""INSERT INTO {prefix}search_changed (session_id, agent_id, message_id)
        VALUES (OLD.session_id, OLD.agent_id, OLD.message_id) ON CONFLICT DO NOTHING;"""  # noqa: S608
    is_moved = """OLD.session_id <> NEW.session_id OR OLD.agent_id <> NEW.agent_id
        OR OLD.message_id <> NEW.message_id"""
    bodies = {
        "message_said": ("INSERT", "", new),
        "message_edited": (
            "UPDATE OF data",
            f"WHEN OLD.data IS NOT NEW.data AND NOT ({is_moved})",
            changed,
        ),
        "message_moved": (
            "UPDATE OF session_id, agent_id, message_id",
            f"WHEN {is_moved}",
            f"{changed} {new}",
        ),
        "message_gone": ("DELETE", "", changed),
    }
    sql = [
        f"""CREATE TRIGGER IF NOT EXISTS {prefix}{name} AFTER {event} ON {prefix}messages
        {condition} BEGIN {body} END"""
        for name, (event, condition, body) in bodies.items()
    ]
    return [" ".join(one.split()) for one in sql]


def find_index(tables: Tables) -> Statement:
    """Read whether there is an index."""
    return {
        "sql": "SELECT 1 AS there FROM sqlite_master WHERE type = 'table' AND name = ?",
        "params": [f"{tables.prefix}message_search"],
    }


def keep_no_deleted_words(tables: Tables) -> Statement:
    """Have the index overwrite the words of what is deleted; SQLite from 3.42 on can."""
    return tables.statement(
        "INSERT INTO {message_search} ({message_search}, rank) VALUES ('secure-delete', 1)"
    )


def merge(tables: Tables) -> Statement:
    """Rewrite the index, without what was deleted."""
    return tables.statement("INSERT INTO {message_search} ({message_search}) VALUES ('optimize')")


# -- bringing it up to date ------------------------------------------------------------------------


def read_new(tables: Tables, session_id: str | None, limit: int) -> Statement:
    """Read which agents have messages that aren't indexed yet, some of them."""
    return tables.statement(
        f"""
        SELECT session_id, agent_id, first_id FROM {{search_new}} AS n
        WHERE {_within("n", session_id)} AND typeof(first_id) = 'integer'
        ORDER BY session_id, agent_id LIMIT CAST(:limit AS INTEGER)
        """,  # noqa: S608 - nothing but constants
        session_id=session_id or "",
        limit=limit,
    )


def read_changed(tables: Tables, session_id: str | None, limit: int) -> Statement:
    """Read which messages were changed, moved or deleted since they were indexed, some of them."""
    return tables.statement(
        f"""
        SELECT session_id, agent_id, message_id FROM {{search_changed}} AS n
        WHERE {_within("n", session_id)} AND typeof(message_id) = 'integer'
        ORDER BY session_id, agent_id, message_id LIMIT CAST(:limit AS INTEGER)
        """,  # noqa: S608 - nothing but constants
        session_id=session_id or "",
        limit=limit,
    )


def _within(row: str, session_id: str | None) -> str:
    """Return the SQL for whether a row is of a session, or of the owner whose rows these are."""
    if session_id is not None:
        return f"{row}.session_id = :session_id"
    return f"""{row}.session_id >= :session_id
        AND {row}.session_id < :owner_scope || CAST(x'ff' AS TEXT)"""


_DATA = "CASE WHEN json_valid(m.data) THEN m.data ELSE '{}' END"
# What a message says: its blocks' text, those in the results of tools included. Of a redacted one
# what stands in its place.
_SAID = f"""substr((
    SELECT group_concat(t.value, char(10)) FROM json_tree({_DATA},
        CASE json_type({_DATA}, '$.redact_message') WHEN 'object' THEN '$.redact_message.content'
            ELSE '$.message.content' END) AS t
    WHERE t.key = 'text' AND t.type = 'text'
), 1, {INDEXED_CHARACTERS})"""  # noqa: S608 - nothing but constants
_MARK = "m.write_id || ' ' || m.version"
_KEY = "json_extract(k.value, '$[0]')", "json_extract(k.value, '$[1]')"
_OF_KEY = f"m.session_id = {_KEY[0]} AND m.agent_id = {_KEY[1]}"
_CHANGED = f"""json_each(:keys) AS k CROSS JOIN {{messages}} AS m
    ON {_OF_KEY} AND m.message_id = json_extract(k.value, '$[2]')"""
_NEW = f"""json_each(:keys) AS k CROSS JOIN {{search_new}} AS n
    ON n.session_id = {_KEY[0]} AND n.agent_id = {_KEY[1]}
    CROSS JOIN {{messages}} AS m ON m.session_id = n.session_id AND m.agent_id = n.agent_id
        AND m.message_id >= n.first_id AND m.message_id < n.first_id + :window"""


def _remove(words: str) -> str:
    """Return the SQL that takes texts out of the index, given the query of their own words."""
    return f"""
        DELETE FROM {{message_search}} WHERE rowid IN (
            SELECT x.rowid FROM ({words}) AS w
            CROSS JOIN {{message_search}} AS x ON x.{{message_search}} MATCH 'scope : ' || w.own
        )
    """  # noqa: S608 - nothing but constants


def _add(source: str) -> str:
    """Return the SQL that indexes messages, given where they are."""
    return f"""
        INSERT INTO {{message_search}} (scope, session_id, agent_id, message_id, mark, content)
        SELECT {_words("m")}, m.session_id, m.agent_id, m.message_id, {_MARK}, {_SAID} FROM {source}
        WHERE {_SAID} <> ''
    """  # noqa: S608 - nothing but constants


def index_changed(tables: Tables, keys: Sequence[tuple[AgentKey, int]]) -> list[Statement]:
    """Index messages as they are now, or not at all where they are gone."""
    values = {"keys": _json(tables, ((*key, message_id) for key, message_id in keys))}
    own = f"""
        SELECT 'm' || hex({_KEY[0]}) || 'z' || hex({_KEY[1]})
            || 'z' || hex(json_extract(k.value, '$[2]')) AS own FROM json_each(:keys) AS k
    """  # noqa: S608 - nothing but constants
    return [
        tables.statement(_remove(own), **values),
        tables.statement(_add(_CHANGED), **values),
        tables.statement(
            f"""
            DELETE FROM {{search_changed}} WHERE (session_id, agent_id, message_id) IN (
                SELECT {_KEY[0]}, {_KEY[1]}, json_extract(k.value, '$[2]')
                FROM json_each(:keys) AS k
            )
            """,  # noqa: S608 - nothing but constants
            **values,
        ),
    ]


def index_new(tables: Tables, keys: Sequence[AgentKey]) -> list[Statement]:
    """Index the first messages of agents that aren't indexed yet."""
    values: dict[str, Value] = {"keys": _json(tables, keys), "window": WINDOW}
    is_one = f"""(session_id, agent_id) IN (
        SELECT {_KEY[0]}, {_KEY[1]} FROM json_each(:keys) AS k
    )"""  # noqa: S608 - nothing but constants
    following = """(
        SELECT min(m.message_id) FROM {messages} AS m
        WHERE m.session_id = {search_new}.session_id AND m.agent_id = {search_new}.agent_id
            AND m.message_id >= first_id + :window
    )"""
    return [
        tables.statement(_remove(f"SELECT {_own('m')} AS own FROM {_NEW}"), **values),  # noqa: S608
        tables.statement(_add(_NEW), **values),
        tables.statement(
            f"DELETE FROM {{search_new}} WHERE {is_one} AND {following} IS NULL",  # noqa: S608
            **values,
        ),
        tables.statement(
            f"UPDATE {{search_new}} SET first_id = {following} WHERE {is_one}",  # noqa: S608
            **values,
        ),
    ]


def _json(tables: Tables, keys: Iterable[Sequence[str | int]]) -> str:
    return json.dumps([[f"{tables.scope}{session_id}", *rest] for session_id, *rest in keys])


# -- searching -------------------------------------------------------------------------------------

_IS_REWOUND = """EXISTS (
    SELECT 1 FROM {checkpoints} AS c CROSS JOIN json_each(c.rewound) AS g
    WHERE c.session_id = m.session_id AND c.agent_id = m.agent_id AND c.checkpoint_id = ''
        AND m.message_id BETWEEN json_extract(g.value, '$[0]') AND json_extract(g.value, '$[1]')
)"""


def search_messages(
    tables: Tables,
    words: Sequence[str],
    *,
    session_id: str | None,
    agent_id: str | None,
    limit: int,
) -> Statement:
    """Find messages by all of some beginnings of words, the best first.

    What was changed since it was indexed isn't found, nor what an agent has gone back behind.

    Args:
        tables: The tables.
        words: The beginnings.
        session_id: The session that they are in, or None for all.
        agent_id: The agent whose they are, or None for all of the session's.
        limit: The most to return.
    """
    scope = _scope(tables, session_id, agent_id)
    query = f"content : ({all_of(words)})"
    return tables.statement(
        f"""
        SELECT m.session_id, m.agent_id, m.message_id, m.created_at, rank AS score,
            json_extract({_DATA}, '$.message.role') AS role,
            {snippet("{message_search}", _CONTENT)} AS snippet
        FROM {{message_search}} CROSS JOIN {{messages}} AS m
            ON m.session_id = {{message_search}}.session_id
            AND m.agent_id = {{message_search}}.agent_id
            AND m.message_id = {{message_search}}.message_id
        CROSS JOIN {{sessions}} AS s ON s.session_id = m.session_id
        WHERE {{message_search}} MATCH :query
            AND rank MATCH 'bm25(0.0, 0.0, 0.0, 0.0, 0.0, 1.0)'
            AND {{message_search}}.mark = {_MARK} AND {_within("m", session_id)}
            AND {NOT_EXPIRED} AND NOT {_IS_REWOUND}
        ORDER BY rank LIMIT CAST(:limit AS INTEGER)
        """,  # noqa: S608 - nothing but constants
        query=query if scope is None else f"scope : {scope} AND {query}",
        session_id=session_id or "",
        limit=limit,
    )


def _scope(tables: Tables, session_id: str | None, agent_id: str | None) -> str | None:
    if session_id is None:
        return f"o{tables.scope.encode().hex()}" if tables.scope else None
    session = f"{tables.scope}{session_id}".encode().hex()
    return f"s{session}" if agent_id is None else f"a{session}z{agent_id.encode().hex()}"
