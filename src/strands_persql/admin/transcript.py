"""What was said, page by page, whatever its rows are like."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from strands.types.content import Message

from strands_persql.admin.access import Access, no_agent
from strands_persql.admin.catalogue import Page
from strands_persql.errors import CorruptRowError
from strands_persql.gateway.batch import Row
from strands_persql.persistence.cached import StoredMessage
from strands_persql.runtime.ids import AgentKey, check_id
from strands_persql.tables import catalogue, reading
from strands_persql.tables.cells import number_in, text_in


@dataclass(frozen=True)
class TranscriptEntry:
    """A message of the history, as it was last said.

    Attributes:
        message_id: Its place.
        message: The message, or what took its place when it was redacted; None where the row
            can't be read.
        is_redacted: Whether it was redacted.
        turn: Its turn, or nothing where it was stored on its own.
        version: Its row's version: 1 unless it was changed.
        write_id: The write that stored it, or nothing for rows of 0.1. It stays when the message
            moves.
        created_at: When it was stored, by the clock of who did.
        updated_at: When it was last changed.
        problem: Why the row can't be read, or None.
    """

    message_id: int
    message: Message | None
    is_redacted: bool
    turn: str
    version: int
    write_id: str
    created_at: str
    updated_at: str
    problem: str | None = None


def read_transcript(
    access: Access,
    session_id: str,
    agent_id: str,
    *,
    limit: int,
    after: str | int | None,
    newest_first: bool,
) -> Page[TranscriptEntry]:
    """Read what was said, one page at a time.

    Args:
        access: The database.
        session_id: The session.
        agent_id: The agent.
        limit: The most messages to return.
        after: `Page.next` of the page before, or the id of a message: the page begins behind it,
            in the direction of reading.
        newest_first: Whether to read from the end.

    Raises:
        NotFoundError: If the agent isn't there.
        ValueError: If an argument is out of its range.
    """
    if limit < 1:
        raise ValueError(f"limit={limit} | must be 1 or more")
    key = AgentKey(check_id("session", session_id), check_id("agent", agent_id))
    place = None if after is None else int(after)
    statement = catalogue.read_transcript(
        access.found, key, after=place, newest_first=newest_first, limit=limit + 1
    )
    rows = access.rows(statement, **key.context)
    if not rows and after is None and not _is_there(access, key):
        raise no_agent(*key)
    entries = [_entry(access, key, access.whole_row(row, session_id)) for row in rows[:limit]]
    return Page(entries, str(entries[-1].message_id) if len(rows) > limit else None)


def _is_there(access: Access, key: AgentKey) -> bool:
    return bool(access.rows(reading.read_creating_write(access.found, "agents", *key)))


def _entry(access: Access, key: AgentKey, row: Row) -> TranscriptEntry:
    message: Message | None = None
    is_redacted, problem = False, None
    try:
        record = access.codec.read_message(key, StoredMessage.of(row))
    except CorruptRowError as error:
        problem = str(error)
    else:
        message, is_redacted = record.to_message(), record.redact_message is not None
    return TranscriptEntry(
        number_in(row["message_id"]),
        message,
        is_redacted,
        text_in(row["turn"]),
        number_in(row["version"]),
        text_in(row["write_id"]),
        text_in(row["created_at"]),
        text_in(row["updated_at"]),
        problem,
    )


def token_usage(message: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Return the tokens that a message says it took, by Strands' names."""
    metadata = (message or {}).get("metadata")
    usage = cast("Mapping[str, Any]", metadata).get("usage") if isinstance(metadata, dict) else None
    return usage if isinstance(usage, dict) else {}
