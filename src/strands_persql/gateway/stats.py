"""What a repository has done so far, counted."""

import threading
from collections import Counter
from dataclasses import dataclass, fields, replace

from strands_persql.runtime.forks import renew_after_fork


@dataclass(frozen=True)
class Stats:
    """A repository's counters since it was made, or the difference of two such readings.

    Attributes:
        round_trips: Requests sent to the database, retries included.
        retries: Requests among them that retried one after a transient failure.
        conflicts: Conditional writes that another writer's came before.
        hits: Reads answered from memory.
        unchanged: Reads of which one small request said that memory is up to date.
        misses: Reads that brought something from the database.
        evictions: Sessions dropped from memory to stay within its limit.
        oversized: Sessions that were not kept, for each alone is beyond the cache's limit.
        cached_bytes: What the cache holds now, in bytes (a level, not a count).
        rows_read: Rows that the database read, where it tells.
        rows_written: Rows that the database wrote, where it tells.
        cost_usd: What the requests cost, in US dollars, where the service tells.
    """

    round_trips: int = 0
    retries: int = 0
    conflicts: int = 0
    hits: int = 0
    unchanged: int = 0
    misses: int = 0
    evictions: int = 0
    oversized: int = 0
    cached_bytes: int = 0
    rows_read: int = 0
    rows_written: int = 0
    cost_usd: float = 0.0

    def __sub__(self, earlier: "Stats") -> "Stats":
        """Tell what was counted since an earlier reading; levels stay as they are."""
        counted = {
            field.name: getattr(self, field.name) - getattr(earlier, field.name)
            for field in fields(self)
            if field.name != "cached_bytes"
        }
        return replace(self, **counted)


class Counters:
    """Counts from many threads, for `Stats`."""

    def __init__(self) -> None:
        """Start at zero."""
        self.after_fork()
        renew_after_fork(self)
        self._counts: Counter[str] = Counter()

    def after_fork(self) -> None:
        """Begin with a lock that no thread of the parent holds."""
        self._lock = threading.Lock()

    def add(self, **counts: float) -> None:
        """Add to counters by their names in `Stats`."""
        with self._lock:
            for name, count in counts.items():
                self._counts[name] += count  # type: ignore[assignment]

    def read(self) -> Stats:
        """Give the counters as they are now."""
        with self._lock:
            return Stats(**self._counts)
