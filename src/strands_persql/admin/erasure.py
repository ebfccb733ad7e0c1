"""Erasing a session: no byte of it is left, and what it was is said."""

import sqlite3
from dataclasses import dataclass

from strands_persql.admin.access import Access
from strands_persql.admin.erased_values import erase_values
from strands_persql.admin.storing import drop_staged
from strands_persql.databases.local import LocalDatabase
from strands_persql.databases.protocol import Database
from strands_persql.errors import StatementError
from strands_persql.gateway.batch import Batch
from strands_persql.persistence.message_index import MessageIndex
from strands_persql.runtime.ids import check_id
from strands_persql.tables import archiving, deleting
from strands_persql.tables.cells import text_in

_STAGED_IDS = 100


@dataclass(frozen=True)
class Erasure:
    """What was erased.

    Attributes:
        session_id: The session.
        rows: How many rows were deleted, by table, unprefixed: those of storages too. All 0 where
            nothing was there.
        bytes: The size of their JSON.
        staged: Messages that interrupted imports had left of it.
        is_purged: Whether the files hold nothing of it either. False if another process kept
            them busy: erase again. None where that wasn't asked for, or the database is hosted: its
            pages are its service's to overwrite.
    """

    session_id: str
    rows: dict[str, int]
    bytes: int
    staged: int
    is_purged: bool | None

    @property
    def was_there(self) -> bool:
        """Whether anything was there to erase."""
        return any(self.rows.values()) or self.staged > 0


def erase(access: Access, session_id: str, *, purge: bool = True) -> Erasure:
    """Delete all that there is of a session, and purge a local file of what it leaves.

    That includes what `PerSQLStorage` has of it in these tables where Strands puts it: snapshots,
    and what a context manager has put aside.

    Writers that still work with it get a `NotFoundError` and write nothing. Caches of other
    processes hold it until they look.

    Args:
        access: The database.
        session_id: The session.
        purge: Whether to purge the file.

    Returns:
        What was there; nothing where there was no such session.
    """
    check_id("session", session_id)
    access.setup()  # late copies of creations are remembered in a table that 0.1 hasn't
    batch = Batch()
    counted = batch.ask(deleting.count_rows(access.tables, session_id))
    batch.run(*deleting.erase_session(access.tables, session_id))
    rows = access.run(batch, writes=True, session_id=session_id)[counted]
    MessageIndex(access.gateway, access.tables).purge(session_id)
    staged = sum(drop_staged(access, one) for one in _staged_of(access, session_id))
    values, size = erase_values(access, session_id)
    access.gateway.empty_log()
    return Erasure(
        session_id,
        {row["name"]: int(row["n"]) for row in rows} | values,
        sum(int(row["bytes"] or 0) for row in rows) + size,
        staged,
        _purge(access, session_id) if purge else None,
    )


def _staged_of(access: Access, session_id: str) -> list[str]:
    """Return under which ids interrupted imports have left messages of a session."""
    found: list[str] = []
    after = ""
    while True:
        statement = archiving.list_staged(access.tables, session_id, after, _STAGED_IDS)
        page = [row["session_id"] for row in access.rows(statement)]
        found += [one for one in page if archiving.session_of_staged(text_in(one)) == session_id]
        if len(page) < _STAGED_IDS:
            return found
        after = page[-1]


def _purge(access: Access, session_id: str) -> bool | None:
    try:
        return _purged(access.database)
    except sqlite3.Error as error:
        raise StatementError(
            f"the rows of session {session_id!r} are deleted, and the file could not be purged of"
            f" what they leave ({error}). Call purge() on the database when there is room; restore"
            " a damaged file from a backup",
            session_id=session_id,
        ) from error


def _purged(database: Database) -> bool | None:
    purge = getattr(database, "purge", None)
    if purge is not None:
        return bool(purge())
    if not isinstance(database, LocalDatabase):
        return None
    database.query("VACUUM")
    (result,) = database.query("PRAGMA wal_checkpoint(TRUNCATE)")["data"]
    return not result["busy"]
