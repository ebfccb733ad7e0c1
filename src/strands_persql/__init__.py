"""Sessions of Strands agents in PerSQL, a hosted SQLite database, or in an SQLite file."""

from .cache import SessionCache
from .databases import Database, LocalDatabase, RestClient, RestDatabase, RestError
from .errors import ConflictError, PerSQLError
from .manager import PerSQLSessionManager
from .repository import PerSQLSessionRepository
from .retry import RetryPolicy
from .stats import Stats

__all__ = [
    "ConflictError",
    "Database",
    "LocalDatabase",
    "PerSQLError",
    "PerSQLSessionManager",
    "PerSQLSessionRepository",
    "RestClient",
    "RestDatabase",
    "RestError",
    "RetryPolicy",
    "SessionCache",
    "Stats",
]
