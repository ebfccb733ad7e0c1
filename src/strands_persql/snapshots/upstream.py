"""What a storage takes of Strands that Strands keeps to itself, or has in newer versions only."""

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

try:
    from strands import Snapshot
    from strands.storage import Storage
    from strands.storage import storage as _storage
except ImportError as error:
    raise ImportError(
        "PerSQLStorage needs a Strands that has storages (strands.storage), and strands-agents"
        f" {version('strands-agents')} has none: upgrade strands-agents, or use"
        " PerSQLSessionManager, which needs none"
    ) from error

from strands.types.exceptions import SnapshotException

__all__ = ["NAMESPACED", "Snapshot", "SnapshotException", "Storage", "snapshot"]

NAMESPACED: object = getattr(_storage, "_NAMESPACED", None) or object()
"""Strands' mark of a storage that was narrowed to a namespace by its user."""

_SCHEMA_VERSION = "1.0"


def snapshot(scope: Any, data: Mapping[str, Any], *, created_at: str = "") -> dict[str, Any]:
    """Return a snapshot of the version that Strands reads, as its fields."""
    made = Snapshot(
        scope=scope,
        schema_version=_SCHEMA_VERSION,
        data=dict(data),
        app_data={},
        created_at=created_at,
    )
    made.validate()
    return made.to_dict()
