"""Values in memory: a part of the same cache that sessions are in, under the same limit."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from strands_persql.persistence.cache import SessionCache, partition
from strands_persql.snapshots.values import StoredValue

Keep = Callable[[StoredValue | None], None]
"""Hands the cache a value as it is now, or None where it isn't there or isn't known."""


class ValueCache:
    """The values of one database and table prefix in a cache.

    Args:
        cache: The cache.
        database: The database.
        prefix: The tables' prefix.
        clock: The time in seconds.
    """

    def __init__(
        self,
        cache: SessionCache,
        database: object,
        prefix: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the part of the cache that no table prefix can be the name of."""
        self.clock = clock
        self._entries: Any = partition(cache, database, f"{prefix}/objects", clock)

    @property
    def counters(self) -> Any:
        """What counts hits and misses."""
        return self._entries.counters

    def get(self, key: str) -> StoredValue | None:
        """Return a value as it was last seen, or None."""
        found: StoredValue | None = self._entries.get(key)
        return found

    def count(self, name: str) -> None:
        """Count a hit or a miss."""
        self._entries.count(name)

    def forget(self, key: str) -> None:
        """Drop a value of which something is unsure."""
        self._entries.forget(key)

    @contextmanager
    def asking(self, key: str, *, writes: bool = False) -> Iterator[Keep]:
        """Ask the database for a value, or write it; what comes of it is kept, else forgotten.

        Nothing is kept where another write has come between.
        """
        ticket = self._entries.begin_read(key)
        found: StoredValue | None = None

        def keep(value: StoredValue | None) -> None:
            nonlocal found
            found = value

        try:
            yield keep
        finally:
            self._entries.end_read(ticket, found, wrote=writes)
