"""What is stored apart from its rows: sent ahead of them where it is much, and put back in."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence

from strands_persql.databases.protocol import Statement
from strands_persql.errors import PerSQLError, StatementError
from strands_persql.gateway.batch import Answer, Batch, Row
from strands_persql.tables import contents
from strands_persql.tables.large_content import (
    PART_BYTES,
    Leaf,
    filled,
    has_leaves,
    is_leaf,
    listed,
)
from strands_persql.tables.tables import MAX_ID, Tables

REQUEST_BYTES = 8_000_000
"""Bytes of parts that one request sends or brings: the hosted engine needs a dozen times as much
memory for an answer, and has 128 MB."""

_STATEMENTS = 100  # of a batch
_PARTS_PER_REQUEST = 90
_ATTEMPTS = 5
_REMEMBERED = 4_096
_COLUMNS = ("data", "view")

Send = Callable[[Batch, bool], Answer]
"""Runs a batch, given whether it writes, as it is."""


class ContentTransfer:
    """Sends and reads what is too large for its row, for one database and prefix.

    Args:
        tables: The tables.
    """

    def __init__(self, tables: Tables) -> None:
        """Know of none that the database has."""
        self._tables = tables
        # Sessions and digests. What turns out to be missing is sent again, so this is a mere hint.
        self._stored: dict[tuple[str, str], None] = {}

    def of_owner(self, tables: Tables) -> "ContentTransfer":
        """Return the same for tables narrowed to an owner."""
        other = copy.copy(self)
        other._tables = tables  # noqa: SLF001 - the same class
        return other

    def _key(self, session_id: str, digest: str) -> tuple[str, str]:
        return self._tables.scope + session_id, digest

    # -- writing -------------------------------------------------------------------------------

    def send(self, batch: Batch, session_id: str, send: Send) -> Answer:
        """Run a batch whose rows have leaves, with those or after them.

        Those that the database is known to have aren't sent again. All must be there when the
        rows are written, or nothing is: another writer may have deleted some, or a sweep.

        Args:
            batch: The batch.
            session_id: Its session.
            send: What runs it.
        """
        for attempt in range(_ATTEMPTS):
            leaves = batch.leaves.values()
            new = [one for one in leaves if self._key(session_id, one.digest) not in self._stored]
            try:
                answer = self._send(batch, session_id, new, send)
            except PerSQLError as error:
                self._forget(session_id, batch)
                is_last = attempt == _ATTEMPTS - 1
                if is_last or not isinstance(error, StatementError) or not self._is_missing(error):
                    raise
            else:
                self._remember(session_id, batch.leaves)
                return answer
        raise AssertionError

    def _send(self, batch: Batch, session_id: str, new: Sequence[Leaf], send: Send) -> Answer:
        room = _STATEMENTS - 1 - len(batch.statements)
        pages = list(_pages(new))
        along = pages.pop() if pages and len(pages[-1]) <= room else []
        for page in pages:
            send(Batch(*self._store(session_id, page)), False)
        first = self._store(session_id, along)
        count = sum(leaf.count for leaf in batch.leaves.values())
        if len(along) < count:
            first.append(contents.require_parts(self._tables, session_id, batch.leaves, count))
        answer = send(Batch(*first, *batch.statements), True)
        return Answer(answer.results[len(first) :], answer.is_ambiguous)

    def _store(self, session_id: str, page: Sequence[tuple[Leaf, int]]) -> list[Statement]:
        return [
            contents.store_part(self._tables, session_id, leaf.digest, place, leaf.part(place))
            for leaf, place in page
        ]

    def _is_missing(self, error: StatementError) -> bool:
        return f"{self._tables.prefix}contents.session_id" in str(error)

    def _remember(self, session_id: str, digests: Mapping[str, object]) -> None:
        if len(self._stored) > _REMEMBERED:
            self._stored.clear()
        self._stored.update({self._key(session_id, digest): None for digest in digests})

    def _forget(self, session_id: str, batch: Batch) -> None:
        for digest in batch.leaves:
            self._stored.pop(self._key(session_id, digest), None)

    # -- reading -------------------------------------------------------------------------------

    def fill(
        self, batch: Batch, answer: Answer, session_id: str, send: Send
    ) -> tuple[Answer, bool]:
        """Put the leaves of rows that were read in their places.

        Rows of which one is missing, or isn't what it was, are left as they are: they can't be
        read then.

        Returns:
            The answer with the rows whole, and whether any isn't.
        """
        found = [*_rows_with_leaves(answer)]
        if not found:
            return answer, False
        wanted: dict[str, int] = {}
        for _, _, row, columns in found:
            for column in columns:
                wanted |= listed(row[column])
        results, is_whole = list(answer.results), True
        brought: list[Row] = []
        if batch.parts is not None:
            brought, results[batch.parts] = results[batch.parts], []
        leaves = self.read(wanted, session_id, send, brought)
        for result, place, row, columns in found:
            if results[result] is answer.results[result]:
                results[result] = list(answer.results[result])
            try:
                whole = {column: filled(row[column], leaves) for column in columns}
            except KeyError:
                is_whole = False
            else:
                results[result][place] = {**row, **whole}
        return Answer(results, answer.is_ambiguous), not is_whole

    def read(
        self,
        wanted: Mapping[str, int],
        session_id: str,
        send: Send,
        brought: Sequence[Row] = (),
    ) -> dict[str, list[str]]:
        """Return the parts of leaves by their digests; those that aren't as they were are left out.

        Args:
            wanted: The sizes of the leaves, by their digests.
            session_id: The session.
            send: What asks the database.
            brought: Parts that were read already.
        """
        parts: dict[str, dict[int, str]] = {}
        _add(brought, parts)
        missing = {one: size for one, size in wanted.items() if _size(parts.get(one)) != size}
        for digests, first, last in _requests(missing):
            if first and _size(parts.get(digests[0])) == missing[digests[0]]:
                continue
            batch = Batch()
            handle = batch.ask(contents.read_parts(self._tables, session_id, digests, first, last))
            _add(send(batch, False)[handle], parts)
        leaves = {one: [text for _, text in sorted(found.items())] for one, found in parts.items()}
        whole = {one: texts for one, texts in leaves.items() if is_leaf(one, texts)}
        self._remember(session_id, whole)
        return whole


def _pages(leaves: Sequence[Leaf]) -> Iterator[list[tuple[Leaf, int]]]:
    """Yield the parts of leaves, as many at a time as one request sends."""
    page: list[tuple[Leaf, int]] = []
    size = 0
    for leaf, place in ((one, place) for one in leaves for place in range(one.count)):
        part = min(PART_BYTES, leaf.size)
        if page and (size + part > REQUEST_BYTES or len(page) == _PARTS_PER_REQUEST):
            yield page
            page, size = [], 0
        page.append((leaf, place))
        size += part
    if page:
        yield page


def _requests(missing: Mapping[str, int]) -> Iterator[tuple[list[str], int, int]]:
    """Yield which leaves to read together, and their parts' first place and the one behind."""
    together: list[str] = []
    total, step = 0, REQUEST_BYTES // PART_BYTES
    for digest, size in missing.items():
        if size > REQUEST_BYTES:
            # A part of text that isn't ASCII may be a quarter of what it could be.
            for first in range(0, 4 * size // PART_BYTES + 1, step):
                yield [digest], first, first + step
            continue
        if together and total + size > REQUEST_BYTES:
            yield together, 0, MAX_ID
            together, total = [], 0
        together.append(digest)
        total += size
    if together:
        yield together, 0, MAX_ID


def _rows_with_leaves(answer: Answer) -> Iterator[tuple[int, int, Row, list[str]]]:
    for result, rows in enumerate(answer.results):
        present = [one for one in _COLUMNS if rows and one in rows[0]]
        if not any(has_leaves(row[one]) for one in present for row in rows):  # as a rule
            continue
        for place, row in enumerate(rows):
            columns = [one for one in present if has_leaves(row[one])]
            if columns:
                yield result, place, row, columns


def _add(rows: Sequence[Row], parts: dict[str, dict[int, str]]) -> None:
    for row in rows:
        if isinstance(row["data"], str):  # else it is lost, as if it weren't there
            parts.setdefault(row["digest"], {})[int(row["place"])] = row["data"]


def _size(parts: Mapping[int, str] | None) -> int:
    return sum(len(part.encode()) for part in parts.values()) if parts else 0
