"""Strands' storage on PerSQL or SQLite: snapshots, stashes and memories at the price of a log."""

from strands_persql.snapshots import upstream  # isort: skip - it says which Strands it takes
from strands_persql.snapshots.errors import StorageConflictError
from strands_persql.snapshots.search import FullTextSearch, SearchHit
from strands_persql.snapshots.storage import PerSQLStorage

__all__ = ["FullTextSearch", "PerSQLStorage", "SearchHit", "StorageConflictError"]
del upstream
