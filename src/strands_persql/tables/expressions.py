"""SQL that the statements of a change set have in common: an agent's rows, and their writes."""

from strands_persql.runtime.ids import CHANGE_ID_LENGTH
from strands_persql.tables.tables import MAX_ID

WRITES_KEPT = 60
"""Writers whose latest write a row remembers, to recognize their retries."""

_WRITES_LENGTH = WRITES_KEPT * (CHANGE_ID_LENGTH + 1)

OF_AGENT = "session_id = :session_id AND agent_id = :agent_id"
"""The rows of an agent."""

NEWEST = f"(SELECT max(message_id) FROM {{messages}} WHERE {OF_AGENT} AND message_id < {MAX_ID})"  # noqa: S608
"""The newest id of an agent's messages: one row read. What isn't a number is beyond every one."""

PUSH_WRITE = (
    f"substr(:write_id || ' ' || replace(writes, :previous || ' ', ''), 1, {_WRITES_LENGTH})"
)
"""The writes that a row remembers, the newest first; the writer's own previous one gives up its
place."""

CREATED_AT = """CASE WHEN NOT json_valid(data) THEN CAST(created_at AS TEXT)
    WHEN json_type(data, '$.created_at') = 'text'
        AND json_extract(data, '$.created_at') NOT GLOB '*[^ -~]*'
    THEN json_extract(data, '$.created_at') ELSE CAST(created_at AS TEXT) END"""
"""When a row was created: as its JSON says, which others may have made unreadable."""
