"""What one view of a storage has seen: what its saves build on."""

import threading
from dataclasses import dataclass, replace

import cachetools

from strands_persql.runtime.forks import renew_after_fork
from strands_persql.snapshots.pieces import parts_of
from strands_persql.snapshots.values import StoredValue

REMEMBERED = 65_536
"""Keys that a view remembers; one that it has forgotten is as one that it has never seen."""


@dataclass(frozen=True)
class SeenValue:
    """What is known of a value without its text.

    Attributes:
        saved_by: The write that has left it so, or nothing where there is no value.
        origin: The write that created it.
        version: Its version.
        digest: What it is recognized by.
        parts: The parts that it refers to.
        doubted: Own writes on top of it whose answers were lost.
    """

    saved_by: str = ""
    origin: str = ""
    version: int = 0
    digest: str = ""
    parts: frozenset[str] = frozenset()
    doubted: tuple[str, ...] = ()

    @classmethod
    def of(cls, value: StoredValue | None) -> "SeenValue":
        """Return what is known of a value, or of its absence."""
        if value is None:
            return ABSENT
        parts = frozenset(parts_of(value.pieces))
        return cls(value.saved_by, value.origin, value.version, value.digest, parts)

    def doubting(self, write_id: str) -> "SeenValue":
        """Return what is known after an own write whose answer was lost."""
        return replace(self, doubted=(*self.doubted, write_id))


ABSENT = SeenValue()


class Sight:
    """What a view has seen of each key."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._seen: cachetools.LRUCache[str, SeenValue] = cachetools.LRUCache(REMEMBERED)
        self.after_fork()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Begin with a lock that no thread of the parent holds."""
        self._lock = threading.Lock()

    def get(self, key: str) -> SeenValue | None:
        """Return what was last seen of a key, or None."""
        with self._lock:
            return self._seen.get(key)

    def note(self, key: str, seen: SeenValue) -> None:
        """Note what is known of a key now."""
        with self._lock:
            self._seen[key] = seen

    def note_deleted(self, prefix: str) -> None:
        """Note that all values whose keys begin with a prefix were deleted."""
        with self._lock:
            for key in [key for key in self._seen if key.startswith(prefix)]:
                self._seen[key] = ABSENT
