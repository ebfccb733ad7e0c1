"""SQL that the statements of a change set have in common: an agent's rows, and their writes."""

from strands_persql.runtime.ids import CHANGE_ID_LENGTH

WRITES_KEPT = 60
"""Writers whose latest write a row remembers, to recognize their retries."""

_WRITES_LENGTH = WRITES_KEPT * (CHANGE_ID_LENGTH + 1)

OF_AGENT = "session_id = :session_id AND agent_id = :agent_id"
"""The rows of an agent."""

NEWEST = f"(SELECT max(message_id) FROM {{messages}} WHERE {OF_AGENT})"  # noqa: S608
"""The newest id of an agent's messages: one row read."""

PUSH_WRITE = (
    f"substr(:write_id || ' ' || replace(writes, :previous || ' ', ''), 1, {_WRITES_LENGTH})"
)
"""The writes that a row remembers, the newest first; the writer's own previous one gives up its
place."""
