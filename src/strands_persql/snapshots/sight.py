"""What one view of a storage has seen: what its saves build on."""

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import cachetools

from strands_persql.runtime.forks import renew_after_fork
from strands_persql.snapshots.keys import pool_of
from strands_persql.snapshots.pieces import parts_of
from strands_persql.snapshots.values import StoredValue

REMEMBERED = 65_536
"""Keys that a view remembers; one that it has forgotten is as one that it has never seen."""


@dataclass(frozen=True)
class Seen:
    """What is known of a value without its text.

    Attributes:
        saved_by: The write that has left it so, or nothing where there is no value.
        origin: The write that created it.
        version: Its version.
        parts: The parts that it refers to.
        doubted: Own writes on top of it whose answers were lost.
    """

    saved_by: str = ""
    origin: str = ""
    version: int = 0
    parts: frozenset[str] = frozenset()
    doubted: tuple[str, ...] = ()

    @classmethod
    def of(cls, value: StoredValue | None) -> "Seen":
        """Return what is known of a value, or of its absence."""
        if value is None:
            return ABSENT
        return cls(value.saved_by, value.origin, value.version, frozenset(parts_of(value.pieces)))

    def doubting(self, write_id: str) -> "Seen":
        """Return what is known after an own write whose answer was lost."""
        return replace(self, doubted=(*self.doubted, write_id))


ABSENT = Seen()


class Sight:
    """What a view has seen of each key, and how often it was read through it."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._seen: cachetools.LRUCache[str, Seen] = cachetools.LRUCache(REMEMBERED)
        self._reads: cachetools.LRUCache[str, int] = cachetools.LRUCache(REMEMBERED)
        # By pool: the snapshot that was read last, and its last message.
        self._visited: cachetools.LRUCache[str, tuple[str, str]] = cachetools.LRUCache(REMEMBERED)
        self.after_fork()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Begin with a lock that no thread of the parent holds."""
        self._lock = threading.Lock()

    def get(self, key: str) -> Seen | None:
        """Return what was last seen of a key, or None."""
        with self._lock:
            return self._seen.get(key)

    def note(self, key: str, seen: Seen) -> None:
        """Note what is known after a write."""
        with self._lock:
            self._seen[key] = seen
            if key in self._reads:
                self._visited.pop(pool_of(key), None)

    def note_deleted(self, prefix: str) -> None:
        """Note that all values whose keys begin with a prefix were deleted."""
        with self._lock:
            for key in [key for key in self._seen if key.startswith(prefix)]:
                self._seen[key] = ABSENT

    def note_read(self, key: str, value: StoredValue | None) -> None:
        """Note what was read."""
        pool = pool_of(key)
        visited = None if value is None or pool == key else last_message(value.text)
        with self._lock:
            self._seen[key] = Seen.of(value)
            self._reads[key] = self._reads.get(key, 0) + 1
            if visited is not None:
                self._visited[pool] = (key, visited)

    def may_be_shared(self, key: str) -> bool:
        """Whether several managers may have restored a value through this view."""
        with self._lock:
            return self._reads.get(key, 0) > 1

    def builds_on(self, key: str, text: str, before: Callable[[], StoredValue | None]) -> bool:
        """Whether a snapshot builds on the one that it replaces, as far as its messages say.

        It has that one's last message, or that of an older snapshot that was gone back to.

        Args:
            key: The snapshot's key.
            text: Its JSON.
            before: Returns what it replaces.
        """
        replaced = before()
        last = None if replaced is None else last_message(replaced.text)
        if last is None or replaced is None or replaced.text == text:
            return True
        with self._lock:
            other, visited = self._visited.get(pool_of(key), (key, ""))
        return bool({last} & _marks(text)) or (other != key and visited in _marks(text))


def last_message(text: str) -> str | None:
    """Return Strands' mark of a snapshot's last message, or None where there is none."""
    marks = _messages(text)
    mark = marks[-1].get("tracking_id") if marks and isinstance(marks[-1], dict) else None
    return mark if isinstance(mark, str) else None


def _marks(text: str) -> set[Any]:
    return {one.get("tracking_id") for one in _messages(text) if isinstance(one, dict)}


def _messages(text: str) -> list[Any]:
    try:
        messages = json.loads(text)["data"]["messages"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return []
    return messages if isinstance(messages, list) else []
