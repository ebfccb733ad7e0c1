"""Strands' ``Storage`` over a PerSQL or SQLite database."""

import builtins
import copy
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal, TypeVar

from strands.storage.search.keyword import KeywordSearchStrategy
from strands.storage.storage import StorageSearchResult
from strands.types.exceptions import StorageError

from strands_persql.databases.protocol import Database, Statement
from strands_persql.gateway.gateway import Gateway
from strands_persql.gateway.retry import RetryPolicy, policy_of
from strands_persql.gateway.stats import Counters, Stats
from strands_persql.persistence.cache import SessionCache
from strands_persql.persistence.options import check_options, check_type
from strands_persql.runtime.owners import scope_of
from strands_persql.runtime.threads import in_thread
from strands_persql.snapshots import upstream
from strands_persql.snapshots.cache import ValueCache
from strands_persql.snapshots.errors import storage_errors
from strands_persql.snapshots.keys import normalized_key, normalized_prefix
from strands_persql.snapshots.saving import Save, SaveInDoubtError
from strands_persql.snapshots.search import NoIndex
from strands_persql.snapshots.sharing import Sharing
from strands_persql.snapshots.sight import ABSENT, SeenValue, Sight
from strands_persql.snapshots.store import ValueStore
from strands_persql.snapshots.values import Encoded
from strands_persql.tables import object_conditions
from strands_persql.tables.tables import Tables

_Self = TypeVar("_Self", bound="PerSQLStorage")
_T = TypeVar("_T")

_SESSIONS, _STASHES = "session/", "context/"  # where Strands has them

OnStorageConflict = Literal["raise", "overwrite"]
"""What happens to a save that builds on what is no longer the latest."""


class PerSQLStorage:
    """Values under keys in a PerSQL or SQLite database, for all that Strands keeps in storages.

    It is a Strands ``Storage``: of session managers that write snapshots, of the context
    manager's stash, of memory stores and of ``Agent(storage=...)``. A save sends what the database
    doesn't have yet.

    A save is refused where it builds on what is no longer the latest: what counts is what this
    object has last read or saved under the key. So each session manager should have a storage
    of its own, which `view` makes of one that is there: they share its cache and connections.
    A key that this object has neither read nor saved is simply written.

    Its methods may be called from any event loop and thread.

    Args:
        database: Where the values are: `LocalDatabase`, `RestDatabase`, or a handle of the
            persql SDK.
        table_prefix: What the tables' names begin with.
        cache: The memory to use, or None for one of the default size; it may be shared with
            session repositories.
        max_staleness: How old, in seconds, a remembered value may be when it is read without
            asking the database. With 0, each read asks.
        on_conflict: ``"raise"`` to refuse a save that builds on what is no longer the latest,
            ``"overwrite"`` to let the last one win.
        retry: How long failed requests are tried again, or None for the default policy.
        search_strategy: How values are searched: `FullTextSearch`, any strategy of Strands, or
            None to scan them for words.
        owner: Whose values these are, such as a user's: nobody else's can be read, found or changed
            through this object, whatever the keys. None for all. See `for_owner`.
        clock: The time in seconds that ``max_staleness`` is measured by.

    Attributes:
        database: The database. Whoever opened it closes it.
        cache: The cache.
        owner: Whose values these are, or None for all.
        prefix: What all keys of this object begin with in the database.
        store: The values, past what this object has seen of them.

    Raises:
        ValueError: If an argument is out of its range.
    """

    _namespaced: object = None

    def __init__(
        self,
        database: Database,
        *,
        table_prefix: str = "strands_",
        cache: SessionCache | None = None,
        max_staleness: float = 0.0,
        on_conflict: OnStorageConflict = "raise",
        retry: RetryPolicy | None = None,
        search_strategy: Any = None,
        owner: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Initialize without asking the database for anything."""
        check_options(max_staleness, on_conflict, ("raise", "overwrite"))
        self.database = database
        check_type("cache", cache, SessionCache)
        self.cache = cache if cache is not None else SessionCache()
        self.owner = owner
        self.prefix = "" if owner is None else f"{scope_of(owner)}/"
        tables, retry = Tables(table_prefix), policy_of(retry)
        self._counters = Counters()
        self._values = ValueCache(self.cache, database, tables.prefix, clock)
        gateway = Gateway(database, tables, retry, self._counters)
        self.store = ValueStore(gateway, tables, self._values, max_staleness, retry)
        self._on_conflict = on_conflict
        self._search_strategy = search_strategy
        self._index = search_strategy if isinstance(search_strategy, NoIndex) else NoIndex()
        self._sight, self._sharing = Sight(), Sharing()

    def __repr__(self) -> str:
        """Name the database, the tables and the namespace."""
        where = f", under {self.prefix!r}" if self.prefix else ""  # which begins with the owner
        return f"{type(self).__name__}({self.database!r}{where})"

    # -- Strands' Storage ----------------------------------------------------------------------

    async def write(self, key: str, data: bytes) -> None:
        """Store a value in place of the one that this object has last read or saved.

        Raises:
            StorageConflictError: If another writer has saved it since; nothing was written.
            StorageError: If the key is invalid, or the value could not be stored.
        """
        normalized = normalized_key(key)
        place, value = self.prefix + normalized, bytes(data)
        with storage_errors(f"write {key!r}"):
            await self._in_turn(place, lambda: self._save(place, value))
        strategy = self._search_strategy
        if strategy is not None and strategy is not self._index:
            try:
                await strategy.index(self, normalized, data)
            except Exception as error:
                raise StorageError(f"Wrote '{key}' but indexing failed") from error

    async def read(self, key: str) -> bytes | None:
        """Return the value of a key, or None if there is none.

        Raises:
            StorageError: If the key is invalid, or the value can't be read.
        """
        place = self.place_of(key)
        with storage_errors(f"read {key!r}"):
            return await self._in_turn(place, lambda: self._read(place))

    async def delete(self, key: str) -> None:
        """Delete the value of a key, if there is one.

        Raises:
            StorageError: If the key is invalid, or the value could not be deleted.
        """
        place = self.place_of(key)
        with storage_errors(f"delete {key!r}"):
            await self._in_turn(place, lambda: self._delete(place))

    async def list(self, query: str = "") -> builtins.list[str]:
        """Return the keys that begin with a prefix, sorted; `keys` yields them without a list.

        Args:
            query: The prefix.

        Raises:
            StorageError: If the prefix is invalid, or the keys can't be read.
        """
        found: list[str] = []
        async for page in self._pages(query):  # each in a thread, that the loop is never held
            found += page
        return found

    async def search(self, query: str) -> builtins.list[StorageSearchResult]:
        """Return the values that match a query by this storage's strategy, the best first.

        Raises:
            StorageError: If they can't be searched.
        """
        strategy = (
            self._search_strategy if self._search_strategy is not None else KeywordSearchStrategy()
        )
        found: list[StorageSearchResult] = await strategy.search(self, query)
        return found

    def namespace(self: _Self, prefix: str) -> _Self:
        """Return a storage of the keys under a prefix, which sees what this one does.

        Raises:
            StorageError: If the prefix is invalid.
        """
        normalized = normalized_prefix(prefix).rstrip("/")
        scoped = copy.copy(self)
        scoped.prefix = f"{self.prefix}{normalized}/" if normalized else self.prefix
        scoped._namespaced = upstream.NAMESPACED  # noqa: SLF001 - the same class
        return scoped

    # -- beyond it -----------------------------------------------------------------------------

    def view(self: _Self) -> _Self:
        """Return a storage of the same keys that has seen nothing yet.

        Give one to each session manager: a save through one of them is then refused where
        another one has saved since. They share the database, the cache and the strategy.
        """
        other = copy.copy(self)
        other._sight, other._sharing = Sight(), Sharing()  # noqa: SLF001 - the same class
        return other

    def for_owner(self: _Self, owner: str) -> _Self:
        """Return a storage of one owner's values, which has seen nothing yet.

        Its keys are the owner's own: two owners may use the same, and neither learns of the
        other's. It shares the database, the cache and the strategy.

        Args:
            owner: The owner, such as a user's id as your authentication has it.

        Raises:
            ValueError: If this storage is narrowed already, or the owner is empty.
        """
        scope = scope_of(owner)
        if self.prefix:
            raise ValueError(f"owner={owner!r} | this storage is narrowed already")
        other = self.view()
        other.owner, other.prefix = owner, f"{scope}/"
        return other

    async def keys(self, prefix: str = "") -> AsyncIterator[str]:
        """Yield the keys that begin with a prefix, sorted, and hold no more than a page of them.

        Args:
            prefix: The prefix.

        Raises:
            StorageError: If the prefix is invalid, or the keys can't be read.
        """
        async for page in self._pages(prefix):
            for key in page:
                yield key

    async def delete_prefix(self, prefix: str) -> int:
        """Delete all values whose keys begin with a prefix, some thousand a request.

        Returns:
            How many there were.

        Raises:
            StorageError: If the prefix is invalid, or they could not be deleted. Calling again
                goes on.
        """
        place = self.prefix + normalized_prefix(prefix)
        with storage_errors(f"delete what begins with {prefix!r}"):
            return await in_thread(lambda: self._delete_prefix(place))

    async def delete_session(self, session_id: str) -> int:
        """Delete all snapshots of a session, and what the context manager has stashed for it.

        It does what ``SnapshotSessionManager.delete_session`` does, in a few requests however
        many snapshots there are.

        Returns:
            How many values were deleted.

        Raises:
            StorageError: If the id is invalid, or they could not be deleted. Calling again goes
                on.
        """
        prefix = self.session_prefix(session_id)
        count = await self.delete_prefix(prefix)
        if self._namespaced is not upstream.NAMESPACED:
            count += await self.delete_prefix(_STASHES + prefix[len(_SESSIONS) :])
        return count

    async def sweep(self, *, older_than: float = 86_400.0) -> int:
        """Delete text that no value refers to: saves of large values that died have left it.

        Args:
            older_than: How old it is at the least, in seconds by the database's clock; no save
                may take longer.

        Returns:
            How many parts there were.

        Raises:
            StorageError: If they could not be deleted.
        """
        with storage_errors("sweep"):
            return await in_thread(lambda: self.store.sweep(older_than))

    def setup(self) -> None:
        """Create the tables, and the index where the strategy has one.

        Not needed where the access may create tables: the first call that misses them does it.

        Raises:
            SchemaError: If this access may not do that; the error has the SQL for who may.
        """
        self.store.gateway.setup()
        self._index.setup(self.store)

    def stats(self) -> Stats:
        """Return what has been counted since the storage was made, its views' included."""
        cached = self._values.counters.read()
        return replace(
            self._counters.read(),
            hits=cached.hits,
            unchanged=cached.unchanged,
            misses=cached.misses,
            evictions=self.cache.evictions,
            oversized=cached.oversized,
            cached_bytes=self.cache.current_bytes,
        )

    def session_prefix(self, session_id: str) -> str:
        """Return what the keys of a session's snapshots begin with in this storage.

        Raises:
            StorageError: If the id is invalid.
        """
        session = normalized_key(session_id)
        if "/" in session or session in (".", ".."):
            raise StorageError(f"Invalid session id {session_id!r}: it must not have slashes")
        # Strands takes a storage that was narrowed by its user for the place of sessions.
        return f"{'' if self._namespaced is upstream.NAMESPACED else _SESSIONS}{session}/"

    def place_of(self, key: str) -> str:
        """Return a key as the database has it.

        Raises:
            StorageError: If the key is invalid.
        """
        return self.prefix + normalized_key(key)

    # -- in a thread ---------------------------------------------------------------------------

    async def _in_turn(self, place: str, call: Callable[[], _T]) -> _T:
        """Call behind all who asked for the same value before."""
        return await self.store.queue(place).run(call)

    def _read(self, place: str) -> bytes | None:
        value = self.store.read(place)
        self._sight.note(place, SeenValue.of(value))
        self._sharing.note_read(place, value)
        return None if value is None else value.data()

    def _save(self, place: str, data: bytes) -> None:
        value, seen = Encoded.of(data), self._sight.get(place)
        overwrites = self._on_conflict == "overwrite"
        # Versions tell views and processes apart; managers behind one object need another sign.
        if seen is not None and not overwrites:
            self._sharing.check(self.store, place, value.text, seen.saved_by)

        def save() -> None:
            save = Save(
                self.store,
                place,
                value,
                seen,
                overwrites=overwrites,
                beside=lambda write_id: self._index.added(
                    self.store.tables, place, value, object_conditions.object_is(place, write_id)
                ),
            )
            try:
                saved = save.run()
            except SaveInDoubtError as doubt:
                if seen is not None:
                    self._sight.note(place, doubt.seen)
                raise doubt.error from doubt
            self._sight.note(place, saved)
            self._sharing.note_saved(place, saved.saved_by)

        self._index.with_index(self.store, save)

    def _delete(self, place: str) -> None:
        seen = self._sight.get(place)
        cached = self._values.get(place)
        origin = cached.origin if cached is not None else "" if seen is None else seen.origin
        self._index.with_index(
            self.store, lambda: self.store.delete(place, origin, self._unindexed)
        )
        self._sight.note(place, ABSENT)
        self._sharing.forget(place)

    def _delete_prefix(self, prefix: str) -> int:
        count = self._index.with_index(
            self.store, lambda: self.store.delete_prefix(prefix, self._unindexed)
        )
        self._sight.note_deleted(prefix)
        self._sharing.forget_prefix(prefix)
        return count

    def _unindexed(self, places: Sequence[str]) -> Sequence[Statement]:
        return self._index.removed(self.store.tables, places)

    async def _pages(self, query: str) -> AsyncIterator[builtins.list[str]]:
        prefix = self.prefix + normalized_prefix(query)
        pages: Iterator[list[str]] = self.store.keys(prefix)
        while True:
            with storage_errors(f"list keys with prefix {query!r}"):
                page = await in_thread(lambda: next(pages, None))
            if page is None:
                return
            yield [key[len(self.prefix) :] for key in page]
