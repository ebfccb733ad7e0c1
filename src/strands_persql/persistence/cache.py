"""A bounded LRU of what the database holds, by session; never of what it doesn't hold."""

import threading
import time
from collections.abc import Callable
from typing import Any

import cachetools

from strands_persql.gateway import telemetry
from strands_persql.gateway.stats import Counters
from strands_persql.persistence.cached import SessionSnapshot
from strands_persql.runtime.forks import renew_after_fork

DEFAULT_MAX_BYTES = 64 * 1024 * 1024
"""Room for a few hundred sessions of some hundred messages each, and small beside a Python
process that runs agents."""


class SessionCache:
    """Sessions in memory, for all managers of one repository.

    Entries are immutable values, so nobody can change them from outside. The lock is held for
    look-ups and replacements alone, never while the database is asked.

    Args:
        max_bytes: The most that the entries may take together; 0 for no cache.
    """

    def __init__(self, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        """Start empty."""
        if max_bytes < 0:
            raise ValueError(f"max_bytes={max_bytes} | must not be negative")
        self.counters = Counters()
        self._entries = _CountingLRU(max_bytes, self._count_eviction)
        self.after_fork()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Forget the reads of the parent's threads, and what they may have left half done."""
        self._lock = threading.Lock()
        # Reads under way, by session: a write marks them, so that what they bring is not kept.
        self._reads: dict[str, set[ReadTicket]] = {}
        self._drop_all()

    @property
    def max_bytes(self) -> int:
        """The most that the entries may take together."""
        return int(self._entries.maxsize)

    @property
    def current_bytes(self) -> int:
        """What the entries take now."""
        return int(self._entries.currsize)

    def get(self, session_id: str) -> SessionSnapshot | None:
        """Give a session as it was last seen, or None."""
        with self._lock:
            return self._entries.get(session_id)

    def begin_read(self, session_id: str, began_at: float | None = None) -> "ReadTicket":
        """Announce that the database is about to be asked for a session."""
        ticket = ReadTicket(session_id, time.monotonic() if began_at is None else began_at)
        with self._lock:
            self._reads.setdefault(session_id, set()).add(ticket)
        return ticket

    def end_read(
        self, ticket: "ReadTicket", found: SessionSnapshot | None, *, wrote: bool = False
    ) -> None:
        """Keep what a read has found, unless a write has come between.

        Args:
            ticket: What `begin_read` gave.
            found: The session, or None if the read failed or there is none.
            wrote: Whether the request has written too, so that other reads are outdated by it.
        """
        with self._lock:
            reads = self._reads[ticket.session_id]
            reads.discard(ticket)
            if not reads:
                del self._reads[ticket.session_id]
            if ticket.outdated:
                # What is kept may lack other writers' changes that this read has seen.
                kept = self._entries.get(ticket.session_id)
                if kept is not None and kept.checked_at < ticket.began_at:
                    del self._entries[ticket.session_id]
                return
            if wrote:
                self._outdate_reads(ticket.session_id)
            kept = self._entries.get(ticket.session_id)
            if found is None:
                self._entries.pop(ticket.session_id, None)
            elif kept is None or kept.checked_at <= found.checked_at:
                self._keep(ticket.session_id, found)

    def written(
        self, session_id: str, change: Callable[[SessionSnapshot], SessionSnapshot | None]
    ) -> None:
        """Take in a write that the database has acknowledged.

        Args:
            session_id: The session.
            change: Gives the session as it is now, or None where that isn't sure; called with
                the lock held, if the session is cached.
        """
        with self._lock:
            self._outdate_reads(session_id)
            entry = self._entries.get(session_id)
            changed = None if entry is None else change(entry)
            if changed is None:
                self._entries.pop(session_id, None)
            elif changed is not entry:
                self._keep(session_id, changed)

    def forget(self, session_id: str) -> None:
        """Drop a session of which something is unsure."""
        self.written(session_id, lambda _: None)

    def clear(self) -> None:
        """Drop everything."""
        with self._lock:
            for session_id in self._reads:
                self._outdate_reads(session_id)
            self._drop_all()

    def count(self, name: str) -> None:
        """Count a hit or a miss."""
        self.counters.add(**{name: 1})
        telemetry.count(name)

    def _outdate_reads(self, session_id: str) -> None:
        # The lock is held.
        for ticket in self._reads.get(session_id, ()):
            ticket.outdated = True

    def _drop_all(self) -> None:
        # Not by clear(), which in older versions of cachetools evicts one after the other.
        for session_id in [*self._entries]:
            del self._entries[session_id]

    def _keep(self, session_id: str, entry: SessionSnapshot) -> None:
        # The lock is held. The older entry must not count while room is made for the newer one.
        self._entries.pop(session_id, None)
        if entry.size <= self._entries.maxsize:
            self._entries[session_id] = entry

    def _count_eviction(self) -> None:
        self.count("evictions")


class ReadTicket:
    """A read under way.

    Attributes:
        session_id: The session that is being read.
        began_at: When, in seconds of the monotonic clock.
        outdated: Whether a write has come between.
    """

    def __init__(self, session_id: str, began_at: float) -> None:
        """Begin."""
        self.session_id = session_id
        self.began_at = began_at
        self.outdated = False


class _CountingLRU(cachetools.LRUCache[str, SessionSnapshot]):
    def __init__(self, max_bytes: int, evicted: Callable[[], None]) -> None:
        super().__init__(max_bytes, getsizeof=lambda entry: entry.size)
        self._evicted = evicted

    def popitem(self) -> Any:
        item = super().popitem()
        self._evicted()
        return item
