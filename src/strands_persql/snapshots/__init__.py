"""Strands' storage on PerSQL or SQLite: snapshots, stashes and memories at the price of a log."""

from strands_persql.snapshots import upstream  # noqa: F401 - first: it says which Strands it takes
from strands_persql.snapshots.errors import StorageConflictError
from strands_persql.snapshots.exchange import session_from_snapshots, snapshots_from_session
from strands_persql.snapshots.search import FullTextSearch, SearchHit
from strands_persql.snapshots.storage import PerSQLStorage

__all__ = [
    "FullTextSearch",
    "PerSQLStorage",
    "SearchHit",
    "StorageConflictError",
    "session_from_snapshots",
    "snapshots_from_session",
]
