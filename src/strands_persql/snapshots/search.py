"""Full-text search over a storage's values, by SQLite's FTS5 in the same database."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from strands.storage.search.keyword import STOP_WORDS, tokenize
from strands.storage.storage import StorageSearchResult

from strands_persql.databases.protocol import Statement
from strands_persql.errors import AccessDeniedError, PerSQLError, SchemaError, StatementError
from strands_persql.gateway.batch import Batch
from strands_persql.runtime.threads import in_thread
from strands_persql.snapshots.errors import storage_errors
from strands_persql.snapshots.store import ValueStore
from strands_persql.snapshots.values import Encoded
from strands_persql.tables import object_conditions, searching
from strands_persql.tables.preconditions import Precondition
from strands_persql.tables.tables import Tables

if TYPE_CHECKING:
    from strands_persql.snapshots.storage import PerSQLStorage

_T = TypeVar("_T")

INDEXED_CHARACTERS = 400_000
"""Characters of a value that are indexed: a row of the index has to fit the database's limit."""

_KEYS_PER_STATEMENT = 100


@dataclass
class SearchHit(StorageSearchResult):
    """A value that was found.

    Attributes:
        snippet: What it says around the words that were looked for.
    """

    snippet: str = field(default="")


def is_prose(key: str) -> bool:
    """Whether a value is text to be found: no snapshot, no file that begins with a dot."""
    return "/snapshots/" not in f"/{key}" and not key.rsplit("/", 1)[-1].startswith(".")


class NoIndex:
    """What a storage without an index does beside its writes: nothing."""

    def added(
        self, tables: Tables, key: str, value: Encoded, precondition: Precondition
    ) -> Sequence[Statement]:
        """Return no statements."""
        return []

    def removed(self, tables: Tables, keys: Sequence[str]) -> Sequence[Statement]:
        """Return no statements."""
        return []

    def setup(self, store: ValueStore) -> None:
        """Make nothing."""

    def with_index(self, store: ValueStore, call: Callable[[], _T]) -> _T:
        """Call."""
        return call()


class FullTextSearch(NoIndex):
    """A search strategy that keeps an index beside the values, written with them.

    A value and its place in the index change in one transaction, at one row written more. All
    who write to the storage should have the strategy: what others have changed since isn't found
    until it is saved again, and what they delete stays in the index until then.

    Args:
        limit: The most values that a search finds.
        includes: Whether the value of a key is indexed; None for all but snapshots and files
            whose names begin with a dot.
    """

    requires_host_fs: Literal[False] = False

    def __init__(self, *, limit: int = 50, includes: Callable[[str], bool] | None = None) -> None:
        """Initialize without asking the database for anything."""
        if limit < 1:
            raise ValueError(f"limit={limit} | must be 1 or more")
        self._limit = limit
        self._includes = includes or is_prose

    # -- as Strands calls it -------------------------------------------------------------------

    async def index(self, storage: "PerSQLStorage", key: str, data: bytes, **kwargs: Any) -> None:
        """Index a value that is stored already, as one that was stored without this strategy.

        Raises:
            StorageError: If it can't be done.
        """
        place, gateway = storage.place_of(key), storage.store.gateway

        def run() -> None:
            value = Encoded.of(bytes(data))
            statements = self.added(
                storage.store.tables, place, value, object_conditions.UNCONDITIONAL
            )
            if statements:
                batch = Batch(*statements)
                self.with_index(storage.store, lambda: gateway.run(batch, writes=True))

        with storage_errors(f"index {key!r}"):
            await in_thread(run)

    async def search(self, storage: "PerSQLStorage", query: str, **kwargs: Any) -> list[Any]:
        """Find values that have all words of a query, or words that begin so, the best first.

        Returns:
            A `SearchHit` for each.

        Raises:
            StorageError: If it can't be done.
        """
        words = sorted(word for word in tokenize(query) if len(word) > 1 and word not in STOP_WORDS)
        if not words:
            return []
        prefix = storage.prefix
        scope = searching.scope_word("d", prefix.rstrip("/")) if prefix else None

        def run() -> list[SearchHit]:
            batch = Batch()
            found = batch.ask(
                searching.search_texts(storage.store.tables, words, scope, self._limit)
            )
            rows = self.with_index(storage.store, lambda: storage.store.gateway.run(batch))[found]
            return [
                SearchHit(
                    row["ref"][len(prefix) :],
                    searching.score_of(row["score"]),
                    snippet=row["snippet"],
                )
                for row in rows
            ]

        with storage_errors(f"search for {query!r}"):
            return await in_thread(run)

    # -- beside a storage's own writes ---------------------------------------------------------

    def added(
        self, tables: Tables, key: str, value: Encoded, precondition: Precondition
    ) -> Sequence[Statement]:
        """Return the statements that index a value, if it is to be."""
        if not self._includes(key):
            return []
        # Whatever takes its place: text that was replaced must not be found, nor stay.
        statements = [searching.remove_text(tables, _own(key), precondition)]
        if value.encoding == "text":
            content = value.text[:INDEXED_CHARACTERS]
            statements.append(
                searching.add_text(
                    tables, [*_scopes(key)], key, value.digest, content, precondition
                )
            )
        return statements

    def removed(self, tables: Tables, keys: Sequence[str]) -> Sequence[Statement]:
        """Return the statements that take deleted values out of the index."""
        wanted = [key for key in keys if self._includes(key)]
        return [
            searching.remove_texts(
                tables, [_own(key) for key in wanted[first : first + _KEYS_PER_STATEMENT]]
            )
            for first in range(0, len(wanted), _KEYS_PER_STATEMENT)
        ]

    def setup(self, store: ValueStore) -> None:
        """Make the index, unless it is there.

        Raises:
            SchemaError: If this access may not do that.
        """
        statement = searching.create_index(store.tables)
        try:
            store.gateway.run(Batch(statement), writes=True)
        except (AccessDeniedError, StatementError) as error:
            raise SchemaError(
                f"the index {store.tables.prefix}search is missing and could not be made ({error})."
                " Let someone whose token may create tables call storage.setup() once, or run"
                " the SQL that this error has as its attribute sql",
                sql=f"{statement['sql']};",
            ) from error

    def with_index(self, store: ValueStore, call: Callable[[], _T]) -> _T:
        """Call, and again once the index is made where it was missing."""
        try:
            return call()
        except PerSQLError as error:
            if f"no such table: {store.tables.prefix}search" not in str(error):
                raise
        self.setup(store)
        return call()


def _own(key: str) -> str:
    return searching.scope_word("k", key)


def _scopes(key: str) -> Iterator[str]:
    """Yield the words of a key and of the folders that it is in."""
    yield _own(key)
    place = key.find("/")
    while place >= 0:
        yield searching.scope_word("d", key[:place])
        place = key.find("/", place + 1)
