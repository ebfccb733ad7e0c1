"""What a storage takes of Strands that Strands keeps to itself, or has in newer versions only."""

from importlib.metadata import version

try:
    from strands.storage import Storage
    from strands.storage import storage as _storage
except ImportError as error:
    raise ImportError(
        "PerSQLStorage needs a Strands that has storages (strands.storage), and strands-agents"
        f" {version('strands-agents')} has none: upgrade strands-agents, or use"
        " PerSQLSessionManager, which needs none"
    ) from error

NAMESPACED: object = getattr(_storage, "_NAMESPACED", None) or object()
"""Strands' mark of a storage that was narrowed to a namespace by its user."""

__all__ = ["NAMESPACED", "Storage"]
