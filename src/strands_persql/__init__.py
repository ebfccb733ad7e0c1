"""Sessions of Strands agents in PerSQL, a hosted SQLite database, or in an SQLite file."""

from .cache import SessionCache
from .databases import Database, LocalDatabase, RestClient, RestDatabase, RestError
from .errors import (
    AccessDeniedError,
    AlreadyExistsError,
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
)
from .manager import PerSQLSessionManager
from .repository import PerSQLSessionRepository
from .retry import RetryPolicy
from .stats import Stats

__all__ = [
    "AccessDeniedError",
    "AlreadyExistsError",
    "ConflictError",
    "CorruptRowError",
    "Database",
    "DatabaseError",
    "DatabaseOpenError",
    "InvalidDataError",
    "LocalDatabase",
    "NotFoundError",
    "OutcomeUnknownError",
    "PerSQLError",
    "PerSQLSessionManager",
    "PerSQLSessionRepository",
    "RestClient",
    "RestDatabase",
    "RestError",
    "RetryPolicy",
    "SchemaError",
    "SessionCache",
    "StatementError",
    "Stats",
    "TooLargeError",
    "UnavailableError",
]
