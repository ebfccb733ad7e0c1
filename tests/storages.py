"""What the tests of storages share; where Strands has no storages, they are skipped here."""

import asyncio
import json
import random
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

import pytest

pytest.importorskip("strands.storage", reason="this version of Strands has no storages")

from strands import Agent
from strands.session import SnapshotSessionManager
from strands.storage import InMemoryStorage, LocalFileStorage, Storage
from strands.types.exceptions import StorageError

from strands_persql.snapshots import (
    FullTextSearch,
    PerSQLStorage,
    StorageConflictError,
    session_from_snapshots,
    snapshots_from_session,
)
from strands_persql.testing import Reply, ScriptedModel
from tests.support.backends import FAST, Backend

__all__ = [
    "FAST",
    "LATEST",
    "FullTextSearch",
    "InMemoryStorage",
    "LocalFileStorage",
    "PerSQLStorage",
    "SnapshotSessionManager",
    "Storage",
    "StorageConflictError",
    "StorageError",
    "agent_of",
    "immutable",
    "mark",
    "parts",
    "run",
    "session_from_snapshots",
    "snapshot",
    "snapshots_from_session",
    "storage_of",
    "text_of",
]

LATEST = "session/s/scopes/agent/a/snapshots/snapshot_latest.json"
"""Where Strands keeps the latest snapshot of agent ``a`` of session ``s``."""

_T = TypeVar("_T")


def run(work: Coroutine[Any, Any, _T]) -> _T:
    """Run one coroutine to its end."""
    return asyncio.run(work)


def immutable(number: int) -> str:
    """Return where an immutable snapshot of that agent is."""
    return LATEST.replace("snapshot_latest", f"immutable_history/snapshot_{number:04}")


def storage_of(backend: Backend, **options: Any) -> PerSQLStorage:
    """Make a storage with a cache of its own, as another process would have."""
    options.setdefault("retry", FAST)
    return PerSQLStorage(options.pop("database", backend.database), **options)


def text_of(size: int, seed: object = 0) -> str:
    """Return text without repetitions."""
    chosen = random.Random(repr(seed))  # noqa: S311 - no secret
    return "".join(chosen.choice("abcdefghij klmnop") for _ in range(size))


def mark(number: int) -> str:
    """Return a message's mark as Strands gives one, of a number."""
    return f"{number:08}-0000-4000-8000-000000000000"


def snapshot(numbers: Sequence[int], *, size: int = 400, time: int = 0, **state: Any) -> bytes:
    """Return a snapshot as Strands writes it, of messages that have so many characters."""
    messages = [
        {
            "role": "user" if number % 2 else "assistant",
            "content": [{"text": text_of(size, number)}],
            "tracking_id": mark(number),
        }
        for number in numbers
    ]
    value = {
        "scope": "agent",
        "schema_version": "1.0",
        "created_at": f"2026-11-25T02:{time // 60:02}:{time % 60:02}.{time * 7919 % 1000000:06}Z",
        "data": {"messages": messages, "state": state, "interrupt_state": {"interrupts": {}}},
        "app_data": {},
    }
    return json.dumps(value, ensure_ascii=False).encode()


def agent_of(
    storage: Storage | None, /, *replies: Reply, session: str = "s", **options: Any
) -> Agent:
    """Restore agent ``a`` of a session by a snapshot manager of its own."""
    of_agent = ("storage", "tools", "context_manager", "conversation_manager")
    agent_options = {name: options.pop(name) for name in of_agent if name in options}
    model = ScriptedModel(list(replies))
    model.update_config(context_window_limit=200_000)
    return Agent(
        model=model,
        agent_id="a",
        session_manager=SnapshotSessionManager(session, storage=storage, **options),
        callback_handler=None,
        **agent_options,
    )


def parts(backend: Backend) -> dict[str, int]:
    """Return the parts in the database, and how many characters each has."""
    rows = backend.raw("SELECT part, length(data) AS size FROM strands_parts")
    return {row["part"]: int(row["size"]) for row in rows}
