"""Whether several managers restore snapshots through one storage, and what that may lose.

Two managers that share a storage can't be told apart: it has seen what either of them has. The
one that is behind would save over the other's turn. What tells it is what it saves: the last
message of the snapshot before isn't in it.
"""

import json
import threading
from dataclasses import dataclass, replace
from typing import Any

import cachetools

from strands_persql.runtime.forks import renew_after_fork
from strands_persql.snapshots.errors import StorageConflictError
from strands_persql.snapshots.keys import context_of, pool_of
from strands_persql.snapshots.sight import REMEMBERED
from strands_persql.snapshots.store import ValueStore
from strands_persql.snapshots.values import StoredValue


@dataclass(frozen=True)
class _Readers:
    """Those who have read a value through a storage, or saved it.

    Attributes:
        saved_by: The write that has left the value as some of them know it.
        latest: How many of them know it so.
        has_older: Whether there are others, who know an older one.
    """

    saved_by: str = ""
    latest: int = 0
    has_older: bool = False


class Sharing:
    """Counts who has read each value, and where they are, as far as that can be told."""

    def __init__(self) -> None:
        """Begin with nobody."""
        self._readers: cachetools.LRUCache[str, _Readers] = cachetools.LRUCache(REMEMBERED)
        # By pool: the snapshot that was read last, and its last message.
        self._visited: cachetools.LRUCache[str, tuple[str, str]] = cachetools.LRUCache(REMEMBERED)
        self.after_fork()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Begin with a lock that no thread of the parent holds."""
        self._lock = threading.Lock()

    def note_read(self, key: str, value: StoredValue | None) -> None:
        """Note that a reader has a value."""
        pool, saved_by = pool_of(key), "" if value is None else value.saved_by
        # Going back to an older snapshot is told by its last message, too.
        visited = None if value is None or pool == key else last_message(value.text)
        with self._lock:
            before = self._readers.get(key, _Readers(saved_by))
            if before.saved_by == saved_by:
                self._readers[key] = replace(before, latest=before.latest + 1)
            else:
                self._readers[key] = _Readers(saved_by, 1, before.has_older or before.latest > 0)
            if visited is not None:
                self._visited[pool] = (key, visited)

    def note_saved(self, key: str, saved_by: str) -> None:
        """Note that one of those who knew the latest value has saved the next one."""
        with self._lock:
            before = self._readers.get(key)
            if before is None:
                return
            self._readers[key] = _Readers(saved_by, 1, before.has_older or before.latest > 1)
            self._visited.pop(pool_of(key), None)

    def forget(self, key: str) -> None:
        """Forget who has read a value: it was deleted."""
        with self._lock:
            self._readers.pop(key, None)

    def forget_prefix(self, prefix: str) -> None:
        """Forget who has read the values whose keys begin with a prefix: they were deleted."""
        with self._lock:
            for key in [key for key in self._readers if key.startswith(prefix)]:
                del self._readers[key]

    def check(self, store: ValueStore, key: str, text: str, saved_by: str) -> None:
        """Refuse a snapshot that was built on an older one, by a manager that shares the storage.

        Args:
            store: Where the values are.
            key: The value's key.
            text: The snapshot.
            saved_by: The write that has left the value as it was last seen.

        Raises:
            StorageConflictError: If it is so.
        """
        with self._lock:
            if not self._readers.get(key, _Readers()).has_older:
                return
        before = store.cache.get(key)
        if before is None or before.saved_by != saved_by:
            before = store.read(key)
        if self._is_built_on(key, text, before):
            return
        raise StorageConflictError(
            f"{key!r} would lose the last message that was saved: several have restored it"
            " through one storage, and this is built on an older snapshot. Nothing was written."
            " Give each session manager a storage of its own: storage.view()",
            key=key,
            **context_of(key),
        )

    def _is_built_on(self, key: str, text: str, before: StoredValue | None) -> bool:
        """Whether a snapshot is built on the one before, as far as its messages say.

        It has that one's last message, or that of another snapshot that was gone back to.
        """
        last = None if before is None else last_message(before.text)
        if last is None:
            return True
        marks = {one.get("tracking_id") for one in _messages(text) if isinstance(one, dict)}
        with self._lock:
            other, visited = self._visited.get(pool_of(key), (key, ""))
        return last in marks or (other != key and visited in marks)


def last_message(text: str) -> str | None:
    """Return Strands' mark of a snapshot's last message, or None where there is none."""
    messages = _messages(text)
    mark = messages[-1].get("tracking_id") if messages and isinstance(messages[-1], dict) else None
    return mark if isinstance(mark, str) else None


def _messages(text: str) -> list[Any]:
    try:
        messages = json.loads(text)["data"]["messages"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return []
    return messages if isinstance(messages, list) else []
