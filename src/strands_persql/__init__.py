"""Sessions of Strands agents in PerSQL, a hosted SQLite database, or in an SQLite file."""

from strands_persql.gateway.retry import RetryPolicy
from strands_persql.gateway.stats import Stats
from strands_persql.persistence.cache import SessionCache
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
)

__version__ = "1.0.0"

__all__ = [
    "AccessDeniedError",
    "AlreadyExistsError",
    "BadAnswerError",
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
]
