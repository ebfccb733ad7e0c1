"""The time as rows tell it."""

from datetime import datetime, timezone


def now() -> str:
    """Return the time in UTC, in ISO format, as Strands writes it."""
    return datetime.now(timezone.utc).isoformat()
