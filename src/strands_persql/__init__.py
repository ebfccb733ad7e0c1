"""Sessions of Strands agents in PerSQL, a hosted SQLite database, or in a SQLite file."""

import importlib
import typing

from strands_persql.gateway.retry import RetryPolicy
from strands_persql.gateway.stats import Stats
from strands_persql.persistence.cache import SessionCache
from strands_persql.persistence.checkpoints import Checkpoint
from strands_persql.persistence.message_index import MessageHit
from strands_persql.sessions.manager import PerSQLSessionManager
from strands_persql.sessions.repository import PerSQLSessionRepository

from .databases import (
    Database,
    LocalDatabase,
    RestClient,
    RestDatabase,
    RestError,
    Result,
    Statement,
    Value,
)
from .errors import (
    AccessDeniedError,
    AlreadyExistsError,
    BadAnswerError,
    ConflictError,
    CorruptRowError,
    DatabaseError,
    DatabaseOpenError,
    InvalidDataError,
    NotFoundError,
    OutcomeUnknownError,
    PerSQLError,
    SchemaError,
    StatementError,
    TooLargeError,
    UnavailableError,
    persql_error,
)

if typing.TYPE_CHECKING:
    from strands_persql.snapshots import FullTextSearch as FullTextSearch
    from strands_persql.snapshots import PerSQLStorage as PerSQLStorage
    from strands_persql.snapshots import StorageConflictError as StorageConflictError
    from strands_persql.snapshots import session_from_snapshots as session_from_snapshots
    from strands_persql.snapshots import snapshots_from_session as snapshots_from_session

__version__ = "1.0.0"

__all__ = [
    "AccessDeniedError",
    "AlreadyExistsError",
    "BadAnswerError",
    "Checkpoint",
    "ConflictError",
    "CorruptRowError",
    "Database",
    "DatabaseError",
    "DatabaseOpenError",
    "InvalidDataError",
    "LocalDatabase",
    "MessageHit",
    "NotFoundError",
    "OutcomeUnknownError",
    "PerSQLError",
    "PerSQLSessionManager",
    "PerSQLSessionRepository",
    "RestClient",
    "RestDatabase",
    "RestError",
    "Result",
    "RetryPolicy",
    "SchemaError",
    "SessionCache",
    "Statement",
    "StatementError",
    "Stats",
    "TooLargeError",
    "UnavailableError",
    "Value",
    "persql_error",
]

# Older versions of Strands have no storages: these are imported when they are first asked for.
_OF_STORAGES = (
    "FullTextSearch",
    "PerSQLStorage",
    "StorageConflictError",
    "session_from_snapshots",
    "snapshots_from_session",
)


def __getattr__(name: str) -> typing.Any:
    if name not in _OF_STORAGES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("strands_persql.snapshots"), name)
