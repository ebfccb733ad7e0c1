"""Removing what writers left behind that stopped before their rows were stored."""

from strands_persql.admin.access import Access
from strands_persql.gateway.batch import Batch
from strands_persql.tables import contents
from strands_persql.tables.object_parts import count_changes

UNUSED_FOR_S = 3_600
"""No write is under way for longer: what nothing refers to by then has been left behind."""

_PARTS_PER_REQUEST = 1_000


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
