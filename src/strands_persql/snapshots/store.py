"""The values of a database: read through the cache, listed, deleted, and swept."""

import json
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from random import random

from strands_persql.databases.protocol import Statement
from strands_persql.gateway.batch import Batch, Row
from strands_persql.gateway.gateway import Gateway
from strands_persql.gateway.retry import RetryPolicy
from strands_persql.runtime.forks import renew_after_fork
from strands_persql.runtime.threads import Queue
from strands_persql.snapshots.cache import ValueCache
from strands_persql.snapshots.errors import StorageCorruptRowError
from strands_persql.snapshots.keys import context_of, end_of, pool_end, pool_of
from strands_persql.snapshots.pieces import Pieces, length
from strands_persql.snapshots.values import StoredValue, pieces_of
from strands_persql.tables import object_parts, objects
from strands_persql.tables.deleting import forget_deletions
from strands_persql.tables.tables import Tables

KEYS_PER_REQUEST = 5_000
"""The most keys that one request lists."""

DELETED_PER_REQUEST = 2_000
"""The most values that one request deletes."""

_SWEPT_PER_REQUEST = 500
_ATTEMPTS = 5  # reads of a value that others change meanwhile
_POOLS = 4096
_FORGETS_DELETIONS = 1 / 64  # how often a deletion looks for old ones to forget

BesideDeletion = Callable[[Sequence[str]], Sequence[Statement]]
"""Returns statements that go with a deletion, given the keys."""


class ValueStore:
    """The values of one database and table prefix, for any number of views.

    Args:
        gateway: What sends the batches.
        tables: The tables.
        cache: Where values are remembered.
        max_staleness: Seconds for which a remembered value is read without asking.
        retry: How long a lost race is run again.

    Attributes:
        latest: By pool the key that was read or written last: what a new one builds on.
    """

    def __init__(
        self,
        gateway: Gateway,
        tables: Tables,
        cache: ValueCache,
        max_staleness: float,
        retry: RetryPolicy,
    ) -> None:
        """Initialize without asking the database for anything."""
        self.gateway = gateway
        self.tables = tables
        self.cache = cache
        self.retry = retry
        self.latest = LatestByPool()
        self._max_staleness = max_staleness
        self.after_fork()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Forget the queues of the parent's threads."""
        self._queues: weakref.WeakValueDictionary[str, Queue] = weakref.WeakValueDictionary()
        self._lock = threading.Lock()

    def queue(self, key: str) -> Queue:
        """Return the queue of all who ask for a value in this process."""
        with self._lock:
            return self._queues.setdefault(key, Queue())

    # -- reading -------------------------------------------------------------------------------

    def read(self, key: str) -> StoredValue | None:
        """Return a value, or None if there is none.

        Raises:
            StorageCorruptRowError: If it can't be read.
        """
        cached = self.cache.get(key)
        if cached is not None and self.cache.clock() - cached.checked_at < self._max_staleness:
            self.cache.count("hits")
            return cached
        with self.cache.asking(key) as keep:
            found = self._read(key, cached)
            keep(found)
        is_unchanged = cached and found and found.saved_by == cached.saved_by
        self.cache.count("unchanged" if is_unchanged else "misses")
        if found is not None:
            self.latest.note(key)
        return found

    def _read(self, key: str, cached: StoredValue | None) -> StoredValue | None:
        error: ValueError | None = None
        last_seen = ""
        for _ in range(_ATTEMPTS):
            asked_at = self.cache.clock()
            row, texts = self._ask(key, "" if cached is None else cached.saved_by)
            if row is None:
                return None
            if row["pieces"] is None and cached is not None:
                return cached.checked(asked_at)
            if error is not None and row["saved_by"] == last_seen:
                break  # nobody has changed it meanwhile
            try:
                pieces = pieces_of(row["pieces"])
                texts = [*texts, *self._more_texts(key, row, pieces)]
                return StoredValue.of(row, pieces, texts).checked(asked_at)
            except ValueError as found:
                error, last_seen = found, row["saved_by"]
        raise StorageCorruptRowError(
            f"the row {(key,)!r} of {self.tables.prefix}objects can't be read: {error}; delete"
            " the value, or save it again",
            table=f"{self.tables.prefix}objects",
            key=(key,),
            **context_of(key),
        ) from error

    def _ask(self, key: str, known: str) -> tuple[Row | None, list[Row]]:
        batch = Batch()
        row, texts = map(batch.ask, objects.read_object(self.tables, key, known))
        answer = self.gateway.run(batch, **context_of(key))
        return answer.first(row), answer[texts]

    def _more_texts(self, key: str, row: Row, pieces: Pieces) -> Iterator[Row]:
        """Yield the texts of a large value's pieces that the first request has not brought."""
        if int(row["size"]) <= objects.FIRST_PAGE_CHARACTERS:
            return
        for first, last in _pages(pieces):
            batch = Batch()
            texts = batch.ask(objects.read_texts(self.tables, key, row["saved_by"], first, last))
            yield from self.gateway.run(batch, **context_of(key))[texts]

    def look(self, key: str) -> Row | None:
        """Return what a value's row says of it, without its text."""
        batch = Batch()
        row = batch.ask(objects.look(self.tables, key))
        return self.gateway.run(batch, **context_of(key)).first(row)

    def keys(self, prefix: str) -> Iterator[list[str]]:
        """Yield the keys that begin with a prefix, in order, in pages."""
        for page in self._pages(prefix, KEYS_PER_REQUEST):
            yield [row["key"] for row in page]

    def _pages(self, prefix: str, limit: int) -> Iterator[list[Row]]:
        """Yield keys in pages; the last one has fewer than the limit, and may be empty."""
        first, end, is_later = prefix, end_of(prefix), False
        while True:
            batch = Batch()
            rows = batch.ask(objects.list_objects(self.tables, first, end, limit, after=is_later))
            page = self.gateway.run(batch, **context_of(prefix))[rows]
            yield page
            if len(page) < limit:
                return
            # By key, not by offset: keys that come and go meanwhile shift no page.
            first, is_later = page[-1]["key"], True

    # -- deleting ------------------------------------------------------------------------------

    def delete(self, key: str, origin: str, beside: BesideDeletion) -> None:
        """Delete a value, if there is one.

        Args:
            key: Its key.
            origin: The write that created it, as far as that is known, or nothing.
            beside: Returns statements that go with it.
        """
        pool = pool_of(key)
        # Bound to the value that is there: a late copy must not delete one that was created again.
        while True:
            batch = Batch()
            if origin:
                batch.run(*objects.delete_object(self.tables, key, pool, pool_end(pool), origin))
                batch.run(*beside([key]))
                self._forget_deletions(batch)
            left = batch.ask(objects.look(self.tables, key))
            with self.cache.asking(key, writes=True):
                row = self.gateway.run(batch, writes=bool(origin), **context_of(key)).first(left)
            if row is None:
                return
            origin = row["write_id"]

    def delete_prefix(self, prefix: str, beside: BesideDeletion) -> int:
        """Delete all values whose keys begin with a prefix.

        Args:
            prefix: The prefix.
            beside: Returns statements that go with it.

        Returns:
            How many there were.
        """
        count = 0
        for page in self._pages(prefix, DELETED_PER_REQUEST):
            if page or count:
                self._delete_page(prefix, page, beside)
            count += len(page)
        return count

    def _delete_page(self, prefix: str, page: Sequence[Row], beside: BesideDeletion) -> None:
        batch = Batch()
        if page:
            origins = json.dumps([row["write_id"] for row in page])
            keys = [row["key"] for row in page]
            batch.run(*objects.delete_objects(self.tables, keys[0], keys[-1], origins))
            batch.run(*beside(keys))
        if len(page) < DELETED_PER_REQUEST:
            # Keys may lie within a pool that begins before the prefix.
            first = min(prefix, pool_of(prefix))
            batch.run(object_parts.release_unused(self.tables, first, end_of(prefix)))
        self._forget_deletions(batch)
        try:
            self.gateway.run(batch, writes=True, **context_of(prefix))
        finally:
            for row in page:
                self.cache.forget(row["key"])

    def _forget_deletions(self, batch: Batch) -> None:
        if random() < _FORGETS_DELETIONS:  # noqa: S311 - no secret
            batch.run(forget_deletions(self.tables))

    def sweep(self, age: float) -> int:
        """Delete parts that no value refers to: saves that died half-way have left them.

        Args:
            age: How old they are at the least, in seconds by the database's clock.

        Returns:
            How many there were.
        """
        after, count = ("", ""), 0
        while True:
            batch = Batch()
            rows = batch.ask(object_parts.list_parts(self.tables, after, _SWEPT_PER_REQUEST))
            page = self.gateway.run(batch)[rows]
            if not page:
                return count
            last = page[-1]["pool"], page[-1]["part"]
            batch = Batch(object_parts.sweep_parts(self.tables, after, last, age))
            changed = batch.ask(object_parts.count_changes(self.tables))
            count += int(self.gateway.run(batch, writes=True)[changed][0]["changed"])
            if len(page) < _SWEPT_PER_REQUEST:
                return count
            after = last


class LatestByPool:
    """Remembers for each pool the value that was read or written last."""

    def __init__(self) -> None:
        """Begin with none."""
        self._keys: dict[str, str] = {}

    def note(self, key: str) -> None:
        """Note that a value was read or written."""
        pool = pool_of(key)
        if pool != key:
            if len(self._keys) >= _POOLS:
                self._keys.clear()
            self._keys[pool] = key

    def get(self, pool: str) -> str | None:
        """Return the key of a pool's value, or None."""
        return self._keys.get(pool)


def _pages(pieces: Pieces) -> Iterator[tuple[int, int]]:
    """Yield ranges of places among pieces, each of a size that one request brings."""
    first = objects.FIRST_PAGE_PIECES
    size = 0
    for place in range(first, len(pieces)):
        if size and size + length(pieces[place]) > objects.FIRST_PAGE_CHARACTERS:
            yield first, place
            first, size = place, 0
        size += length(pieces[place])
    if size:
        yield first, len(pieces)
