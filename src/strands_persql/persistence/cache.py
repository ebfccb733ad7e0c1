"""A bounded LRU of what databases hold, by session; never of what they don't hold."""

import copy
import itertools
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import cachetools

from strands_persql.gateway import telemetry
from strands_persql.gateway.stats import Counters
from strands_persql.persistence.cached import CachedSession
from strands_persql.runtime.forks import renew_after_fork
from strands_persql.runtime.owners import split_scope

DEFAULT_MAX_BYTES = 64 * 1024 * 1024
"""Room for a few hundred sessions of some hundred messages each, and small beside a Python
process that runs agents."""

_Key = tuple[int, str]  # the partition's number and the session, as the database has its id


class SessionCache:
    """Memory for sessions, for any number of repositories: one limit holds for all of them.

    Each database and table prefix has a part of its own, so that one tenant's sessions never
    answer for another's. Entries are immutable values, so nobody can change them from outside.
    The lock is held for look-ups and replacements alone, never while a database is asked.

    Args:
        max_bytes: The most that the entries may take together; 0 for no cache.
    """

    def __init__(self, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        """Start empty."""
        if max_bytes < 0:
            raise ValueError(f"max_bytes={max_bytes} | must not be negative")
        self._numbers = itertools.count()
        self._partitions: weakref.WeakValueDictionary[tuple[int, str], CachePartition] = (
            weakref.WeakValueDictionary()
        )
        self._entries = _CountingLRU(max_bytes, self._count_eviction)
        self._evicted = Counters()
        self.after_fork()
        renew_after_fork(self)
        _caches.add(self)

    def after_fork(self) -> None:
        """Forget what the parent's threads may have left half done."""
        self._entries.lock = threading.Lock()
        # Not by clear(), which in older versions of cachetools evicts one after the other.
        for key in [*self._entries]:
            del self._entries[key]

    @property
    def max_bytes(self) -> int:
        """The most that the entries may take together."""
        return int(self._entries.maxsize)

    @property
    def current_bytes(self) -> int:
        """What the entries take now."""
        return int(self._entries.currsize)

    @property
    def evictions(self) -> int:
        """How many sessions were dropped to stay within the limit."""
        return int(self._evicted.read().evictions)

    def forget(self, session_id: str) -> None:
        """Drop a session, of whichever database and owner it is."""
        for partition in list(self._partitions.values()):
            partition.forget_of_all(session_id)

    def clear(self) -> None:
        """Drop everything."""
        for partition in list(self._partitions.values()):
            partition.clear()

    def _partition(
        self, database: object, prefix: str, clock: Callable[[], float]
    ) -> "CachePartition":
        """Return the part of a database and prefix, the same for all who use both."""
        with self._entries.lock:
            known = self._partitions.get((id(database), prefix))
            if known is not None and known.clock is clock:
                return known
            number = next(self._numbers)
            made = CachePartition(number, database, clock, self._entries)
            self._partitions[id(database), prefix] = made
        weakref.finalize(made, self._drop, number).atexit = False
        return made

    def _drop(self, number: int) -> None:
        # May run wherever garbage is collected, this lock held: others' look-ups come first then.
        if self._entries.lock.acquire(blocking=False):
            try:
                for key in [key for key in self._entries if key[0] == number]:
                    del self._entries[key]
            finally:
                self._entries.lock.release()

    def _count_eviction(self) -> None:
        self._evicted.add(evictions=1)
        telemetry.count("evictions")


def partition(
    cache: SessionCache, database: object, prefix: str, clock: Callable[[], float] = time.monotonic
) -> "CachePartition":
    """Return the part of a cache that belongs to a database and table prefix."""
    return cache._partition(database, prefix, clock)  # noqa: SLF001 - this module's own


class CachePartition:
    """The sessions of one database and table prefix in a cache.

    Args:
        number: Tells it apart from other parts.
        database: The database; held, so that no other one is taken for it.
        clock: The time in seconds.
        entries: All entries of the cache, and their lock.
    """

    def __init__(
        self,
        number: int,
        database: object,
        clock: Callable[[], float],
        entries: "_CountingLRU",
    ) -> None:
        """Start empty."""
        self.clock = clock
        self.counters = Counters()
        self._attributes = telemetry.attributes_of(database)
        self._number = number
        self._database = database
        self._entries = entries
        self._scope = ""
        self._whole: CachePartition | None = None
        # Reads under way, by session: a write marks them, so that what they bring is not kept.
        self._reads: dict[_Key, set[ReadTicket]] = {}
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Forget the reads of the parent's threads."""
        self._reads.clear()

    def of_owner(self, scope: str) -> "CachePartition":
        """Return what is this part to an owner: the sessions whose ids begin with a scope.

        They are where whoever may see all sessions has them too.
        """
        other = copy.copy(self)
        other._scope = scope  # noqa: SLF001 - the same class
        other._whole = self  # noqa: SLF001 - held, for what is in it goes when nobody holds it
        return other

    def _key(self, session_id: str) -> _Key:
        return self._number, self._scope + session_id

    def get(self, session_id: str) -> CachedSession | None:
        """Return a session as it was last seen, or None."""
        with self._entries.lock:
            return self._entries.get(self._key(session_id))

    def begin_read(self, session_id: str) -> "ReadTicket":
        """Announce that the database is about to be asked for a session."""
        ticket = ReadTicket(self._key(session_id), self.clock())
        with self._entries.lock:
            self._reads.setdefault(ticket.key, set()).add(ticket)
        return ticket

    def end_read(
        self, ticket: "ReadTicket", found: CachedSession | None, *, wrote: bool = False
    ) -> None:
        """Keep what a read has found, unless a write has come between.

        Args:
            ticket: What `begin_read` returned.
            found: The session, or None if the read failed or there is none.
            wrote: Whether the request has written too, so that other reads are outdated by it.
        """
        key = ticket.key
        with self._entries.lock:
            self._end(ticket)
            kept = self._entries.get(key)
            if ticket.is_outdated:
                # What is kept may lack other writers' changes that this read has seen.
                if kept is not None and kept.checked_at < ticket.began_at:
                    del self._entries[key]
                return
            if wrote:
                self._outdate_reads(key)
            if found is None:
                self._entries.pop(key, None)
            elif kept is None or kept.checked_at <= found.checked_at:
                self._keep(key, found)

    def written(
        self, session_id: str, change: Callable[[CachedSession], CachedSession | None]
    ) -> None:
        """Bring a session up to date after a write that the database has acknowledged.

        Args:
            session_id: The session.
            change: Returns the session as it is now, or None where that isn't sure; called with
                the lock held, if the session is cached.
        """
        key = self._key(session_id)
        with self._entries.lock:
            self._outdate_reads(key)
            entry = self._entries.get(key)
            changed = None if entry is None else change(entry)
            if changed is None:
                self._entries.pop(key, None)
            elif changed is not entry:
                self._keep(key, changed)

    def forget(self, session_id: str) -> None:
        """Drop a session of which something is unsure."""
        self.written(session_id, lambda _: None)

    def forget_of_all(self, session_id: str) -> None:
        """Drop a session of which something is unsure, whoever's it is."""
        with self._entries.lock:
            keys = {*self._entries, *self._reads}
        known = [stored for number, stored in keys if number == self._number]
        for stored in known:
            if session_id in (stored, split_scope(stored)[1]):
                self.forget(stored)

    def clear(self) -> None:
        """Drop all sessions of this database and prefix."""
        with self._entries.lock:
            for key in self._reads:
                self._outdate_reads(key)
            for key in [key for key in self._entries if key[0] == self._number]:
                del self._entries[key]

    def count(self, name: str) -> None:
        """Count a read by how it was answered, under its name in `Stats`."""
        self.counters.add(**{name: 1})
        telemetry.count(name, 1, self._attributes)

    def _end(self, ticket: "ReadTicket") -> None:
        # The lock is held.
        reads = self._reads.get(ticket.key, set())
        reads.discard(ticket)
        if not reads:
            self._reads.pop(ticket.key, None)

    def _outdate_reads(self, key: _Key) -> None:
        # The lock is held.
        for ticket in self._reads.get(key, ()):
            ticket.is_outdated = True

    def _keep(self, key: _Key, entry: CachedSession) -> None:
        # The lock is held. The older entry must not count while room is made for the newer one.
        self._entries.pop(key, None)
        if entry.size <= self._entries.maxsize:
            self._entries[key] = entry
        else:
            self.count("oversized")


class ReadTicket:
    """A read under way.

    Attributes:
        key: The session that is being read.
        began_at: When, in seconds of the clock.
        is_outdated: Whether a write has come between.
    """

    def __init__(self, key: _Key, began_at: float) -> None:
        """Begin."""
        self.key = key
        self.began_at = began_at
        self.is_outdated = False


class _CountingLRU(cachetools.LRUCache[_Key, CachedSession]):
    def __init__(self, max_bytes: int, evicted: Callable[[], None]) -> None:
        super().__init__(max_bytes, getsizeof=lambda entry: entry.size)
        self.lock = threading.Lock()
        self._evicted = evicted

    def popitem(self) -> Any:
        item = super().popitem()
        self._evicted()
        return item


class _Caches:
    """All caches of the process, for the metrics of what they hold."""

    def __init__(self) -> None:
        self._caches: weakref.WeakSet[SessionCache] = weakref.WeakSet()
        self.after_fork()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Begin with a lock that no thread of the parent holds."""
        self._lock = threading.Lock()

    def add(self, cache: SessionCache) -> None:
        with self._lock:
            self._caches.add(cache)

    def all(self) -> list[SessionCache]:
        with self._lock:
            return list(self._caches)


_caches = _Caches()
telemetry.observe_bytes(
    "cached_bytes",
    "What the caches of this process hold",
    lambda: sum(cache.current_bytes for cache in _caches.all()),
)
telemetry.observe_bytes(
    "cache_limit",
    "The most that the caches of this process may hold",
    lambda: sum(cache.max_bytes for cache in _caches.all()),
)
