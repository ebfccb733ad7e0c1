"""Removing what has expired, and what writers left that stopped halfway, beside other writers."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from strands_persql.admin.access import Access
from strands_persql.gateway.batch import Batch
from strands_persql.persistence.message_index import MessageIndex
from strands_persql.tables import contents, deleting, reading, retention
from strands_persql.tables.object_parts import count_changes

PAGE_SIZE = 500
"""Messages of a session that one request deletes, and sessions that one looks at."""

UNUSED_FOR_S = 3_600
"""No write is under way for longer: what nothing refers to by then has been left behind."""

_PARTS_PER_REQUEST = 1_000
_TOGETHER = 10  # sessions that one request removes: 100 statements at the most


@dataclass(frozen=True)
class Sweep:
    """What a sweep has removed.

    Attributes:
        looked_at: Sessions that it has looked at.
        sessions: Sessions that had expired and are gone.
        messages: Messages that went with them.
        parts: Parts of large content that nothing referred to, left by writers that died.
    """

    looked_at: int = 0
    sessions: int = 0
    messages: int = 0
    parts: int = 0


def sweep(
    access: Access,
    *,
    page_size: int = PAGE_SIZE,
    progress: Callable[[Sweep], None] | None = None,
) -> Sweep:
    """Remove sessions that have expired, and what nothing needs any more.

    A session that has expired stays so, and nobody is given it: it may go in parts.

    Args:
        access: The database.
        page_size: Messages of a session that one request deletes, and sessions that one looks at.
        progress: Called as it goes on.

    Raises:
        ValueError: If the page is empty.
    """
    if page_size < 1:
        raise ValueError(f"page_size={page_size} | must be 1 or more")
    access.setup()
    done = Sweep()
    for looked_at, expired in _pages(access, page_size):
        for first in range(0, len(expired), _TOGETHER):
            some = expired[first : first + _TOGETHER]
            messages = _remove_messages(access, some, page_size)
            sessions = _remove_sessions(access, some)
            done = replace(
                done, sessions=done.sessions + sessions, messages=done.messages + messages
            )
        done = replace(done, looked_at=done.looked_at + looked_at)
        if progress is not None:
            progress(done)
    access.run(Batch(deleting.forget_deletions(access.tables)), writes=True)
    index = MessageIndex(access.gateway, access.tables)
    if index.is_there():
        index.catch_up()
    return replace(done, parts=sweep_contents(access))


def _pages(access: Access, page_size: int) -> Iterator[tuple[int, list[str]]]:
    """Yield how many sessions were looked at, and which of them have expired, page by page."""
    after = ""
    while True:
        page = access.rows(retention.list_expired(access.tables, after, page_size))
        yield len(page), [row["session_id"] for row in page if row["has_expired"]]
        if len(page) < page_size:
            return
        after = page[-1]["session_id"]


def _remove_messages(access: Access, session_ids: Sequence[str], page_size: int) -> int:
    """Delete the messages of sessions, up to a page of each in one request."""
    count, left = 0, list(session_ids)
    while left:
        batch = Batch()
        handles = [
            batch.ask(retention.remove_messages(access.tables, one, page_size)) for one in left
        ]
        answer = access.run(batch, writes=True)
        found = [len(answer[handle]) for handle in handles]
        count += sum(found)
        left = [one for one, some in zip(left, found, strict=True) if some == page_size]
    return count


def _remove_sessions(access: Access, session_ids: Sequence[str]) -> int:
    """Delete what is left of sessions, and return how many they were."""
    batch = Batch()
    found = []
    for one in session_ids:
        found.append(batch.ask(reading.read_creating_write(access.tables, "sessions", one)))
        batch.run(*deleting.remove_expired(access.tables, one))
    answer = access.run(batch, writes=True)
    rows = [answer.first(handle) for handle in found]
    return sum(row is not None and bool(row["has_expired"]) for row in rows)


def sweep_contents(access: Access, *, older_than: float = UNUSED_FOR_S) -> int:
    """Delete parts of large content that no message, agent or multi-agent refers to.

    A process that dies while it stores large content leaves such parts, and nothing else does.

    Args:
        access: The database.
        older_than: How old they are at the least, in seconds of the database's clock.

    Returns:
        How many parts were deleted.
    """
    count, after = 0, ("", "", -1)
    while True:
        statement = contents.list_parts(access.found, after, _PARTS_PER_REQUEST)
        rows = access.rows(statement)
        if not rows:
            return count
        last = (rows[-1]["session_id"], rows[-1]["digest"], int(rows[-1]["place"]))
        batch = Batch(contents.sweep_parts(access.tables, after, last, older_than))
        changed = batch.ask(count_changes(access.tables))
        row = access.run(batch, writes=True).first(changed)
        count += 0 if row is None else int(row["changed"])
        if len(rows) < _PARTS_PER_REQUEST:
            return count
        after = last
