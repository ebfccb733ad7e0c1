"""What a save sends: where each piece of a value goes, given what the database has."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from strands_persql.snapshots.differ import differences
from strands_persql.snapshots.pieces import (
    OWN,
    Piece,
    Pieces,
    Range,
    Ruler,
    joined,
    length,
    parts_of,
)
from strands_persql.snapshots.values import StoredValue

INLINE = 64
"""Text of so few characters is among the pieces themselves, and is sent with each save."""

OWN_MOST = 8_000
"""Characters of a row's own text; what goes beyond moves to a part."""

SHARED_LEAST = 256
"""Characters of another value's own text that are moved to a part rather than sent again."""

PART_MOST = 64_000
"""Characters up to which text is added to a part; a save rewrites that row in the database."""

PORTION = 250_000
"""Characters of a part that is made at once: 1 MB at the most, whatever the characters."""

PIECES_MOST = 64
"""Pieces of a value, beside one for each `PART_MOST` characters: what a read has to gather."""

_MERGED = 17  # pieces that are made one where there are too many
_WASTE = 3  # times a value's size that its parts may have before they are cleared


@dataclass(frozen=True)
class Addition:
    """Text that a save adds to a part.

    Attributes:
        part: The part.
        size: How many characters it has, or None where it is made.
        text: The text.
        takes_own: Whether the base's own text comes first, which the database moves.
    """

    part: str
    size: int | None
    text: str
    takes_own: bool


@dataclass(frozen=True)
class SavePlan:
    """What a save does.

    Attributes:
        pieces: The value's pieces.
        own: The text in its own row, afterwards.
        data: What is sent of that text.
        adds: Whether it is added to what the row has.
        parts: Parts that are made, with their texts.
        addition: What is added to a part, or None.
        part_sizes: How many characters its parts have, as far as that is known.
    """

    pieces: Pieces
    own: str
    data: str
    adds: bool
    parts: Sequence[tuple[str, str]] = ()
    addition: Addition | None = None
    part_sizes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Base:
    """What a save builds on: a value whose text the database has.

    Attributes:
        value: The value.
        is_own: Whether it is the value that is replaced, not another one of its pool.
        may_extend: Whether text may be added to a part of it.
    """

    value: StoredValue
    is_own: bool = True
    may_extend: bool = True


def part_name(write_id: str) -> str:
    """Return what the names of the parts begin with that a save makes.

    Names are sent with each save to come, so they are short; another save's part of the same
    name is told by its write.
    """
    return write_id[:8]


def plan_save(text: str, base: Base | None, write_id: str) -> SavePlan:
    """Return how a text is saved.

    Args:
        text: The text.
        base: What it builds on, or None to send it whole.
        write_id: The save.
    """
    pieces: Pieces = (text,)
    if base is not None:
        pieces = _compacted(_in_common(text, base), text, base.value.part_sizes)
    # What is in another value's row can't be referred to from here: it moves to a part of both.
    own = base.value.own if base is not None and base.is_own else ""
    needed = sum(len(one) for one in pieces if _is_long(one))
    is_foreign = base is not None and not base.is_own
    if len(own) + needed <= OWN_MOST and not (is_foreign and needed + _own_count(pieces)):
        return _kept_in_row(pieces, own, base)
    return _Move(pieces, base, write_id).plan()


def _in_common(text: str, base: Base) -> Pieces:
    """Return the pieces of a text, of which the database has what its base has."""
    value = base.value
    ruler = Ruler(value.pieces, value.text)
    pieces: list[Piece] = []
    for hunk in differences(value.text, text):
        pieces += [hunk] if isinstance(hunk, str) else ruler.cut(*hunk)
    pieces = list(joined(pieces))
    if base.is_own:
        return tuple(pieces)
    return joined(_as_text(value, one, SHARED_LEAST) for one in pieces)


def _as_text(value: StoredValue, piece: Piece, least: int) -> Piece:
    """Return a piece of the row's own text as text, where it is shorter than that."""
    if isinstance(piece, str) or piece.part != OWN or piece.size >= least:
        return piece
    return value.own[piece.first : piece.end]


def _is_long(piece: Piece) -> bool:
    return isinstance(piece, str) and len(piece) > INLINE


def _own_count(pieces: Iterable[Piece]) -> int:
    return sum(one.size for one in pieces if isinstance(one, Range) and one.part == OWN)


# -- in the row ------------------------------------------------------------------------------------


def _kept_in_row(pieces: Pieces, own: str, base: Base | None) -> SavePlan:
    """Return the plan that adds new text to the row's own, and touches no part."""
    placed: list[Piece] = []
    added: list[str] = []
    end = len(own)
    for piece in pieces:
        if isinstance(piece, str) and _is_long(piece):
            placed.append(Range(OWN, end, len(piece)))
            added.append(piece)
            end += len(piece)
        else:
            placed.append(piece)
    data = "".join(added)
    adds = base is not None and base.is_own
    return _plan(placed, base, own=own + data, data=data, adds=adds)


def _plan(
    pieces: Iterable[Piece],
    base: Base | None,
    *,
    own: str = "",
    data: str = "",
    adds: bool = False,
    parts: Sequence[tuple[str, str]] = (),
    addition: Addition | None = None,
    sizes: Mapping[str, int] | None = None,
) -> SavePlan:
    found = joined(pieces)
    named = parts_of(found)
    known = {} if base is None else base.value.part_sizes
    kept = {name: size for name, size in {**known, **(sizes or {})}.items() if name in named}
    return SavePlan(found, own, data, adds, parts, addition, kept)


# -- in parts --------------------------------------------------------------------------------------


class _Move:
    """Moves what is in a row, and what is new, to parts.

    Args:
        pieces: The value's pieces.
        base: What they refer to.
        write_id: The save.
    """

    def __init__(self, pieces: Pieces, base: Base | None, write_id: str) -> None:
        self._name = part_name(write_id)
        self._base = base
        self._own = "" if base is None else base.value.own
        # The database moves the row's own text as it is: not where most of it is no longer used.
        self._takes_own = 2 * _own_count(pieces) >= len(self._own) > 0
        if base is not None and not self._takes_own:
            pieces = joined(_as_text(base.value, one, len(self._own) + 1) for one in pieces)
        self._pieces = pieces
        self._portions: list[tuple[str, str]] = []

    def plan(self) -> SavePlan:
        """Return the plan."""
        pieces = list(joined(self._with_portions()))
        texts = [one for one in pieces if isinstance(one, str) and _is_long(one)]
        text = "".join(texts)
        if not text and not self._takes_own:
            return self._plan(pieces, None)
        gained = len(text) + (len(self._own) if self._takes_own else 0)
        part, size = self._log(gained)
        addition = Addition(part, size, text, self._takes_own)
        placed = list(self._placed(pieces, part, size or 0))
        return self._plan(placed, addition, {part: (size or 0) + gained})

    def _plan(
        self, pieces: list[Piece], addition: Addition | None, sizes: Mapping[str, int] | None = None
    ) -> SavePlan:
        sizes = {**{name: len(text) for name, text in self._portions}, **(sizes or {})}
        return _plan(pieces, self._base, parts=self._portions, addition=addition, sizes=sizes)

    def _with_portions(self) -> Iterator[Piece]:
        """Yield the pieces; what is too large to be added to a part is in parts of its own."""
        for piece in self._pieces:
            if not isinstance(piece, str) or len(piece) <= PART_MOST:
                yield piece
                continue
            for first in range(0, len(piece), PORTION):
                portion = piece[first : first + PORTION]
                name = f"{self._name}.{len(self._portions)}"
                self._portions.append((name, portion))
                yield Range(name, 0, len(portion))

    def _log(self, gained: int) -> tuple[str, int | None]:
        """Return the part to which text is added and its size, or a new one."""
        # From the end, for that is where the newest text is as a rule.
        if self._base is not None and self._base.may_extend:
            sizes = self._base.value.part_sizes
            for piece in reversed(self._base.value.pieces):
                part = piece.part if isinstance(piece, Range) else OWN
                if part in sizes and sizes[part] + gained <= PART_MOST:
                    return part, sizes[part]
        return self._name, None

    def _placed(self, pieces: list[Piece], part: str, end: int) -> Iterator[Piece]:
        """Yield the pieces with their places in the part."""
        first = end
        if self._takes_own:
            end += len(self._own)
        for piece in pieces:
            if isinstance(piece, str) and _is_long(piece):
                yield Range(part, end, len(piece))
                end += len(piece)
            elif isinstance(piece, Range) and piece.part == OWN:
                yield Range(part, first + piece.first, piece.size)
            else:
                yield piece


# -- compaction ------------------------------------------------------------------------------------


def _compacted(pieces: Pieces, text: str, sizes: Mapping[str, int]) -> Pieces:
    """Return pieces of which there are not too many, in parts that are not mostly unused.

    What is made one, or leaves a part, is sent again.
    """
    most = PIECES_MOST + len(text) // PART_MOST
    while len(pieces) > most:
        pieces = _merged(pieces, text)
    parts = parts_of(pieces)
    if sum(sizes.get(part, 0) for part in parts) <= _WASTE * len(text) + 2 * PART_MOST:
        return pieces
    # One part a save: each costs a row, and what is left of it is sent again.
    used = dict.fromkeys(parts, 0)
    for piece in pieces:
        if isinstance(piece, Range) and piece.part in used:
            used[piece.part] += piece.size
    least = min(parts, key=lambda part: (used[part] / max(1, sizes.get(part, 0)), part))
    return pieces if used[least] > OWN_MOST else _cleared(pieces, text, least)


def _merged(pieces: Pieces, text: str) -> Pieces:
    """Return pieces of which those neighbours are made one that have the least text."""
    starts = _starts(pieces)
    first = min(
        range(len(pieces) - _MERGED + 1), key=lambda one: starts[one + _MERGED] - starts[one]
    )
    last = first + _MERGED
    return joined([*pieces[:first], text[starts[first] : starts[last]], *pieces[last:]])


def _cleared(pieces: Pieces, text: str, part: str) -> Pieces:
    """Return pieces that no longer refer to a part."""
    starts = _starts(pieces)
    return joined(
        text[start : start + length(piece)]
        if isinstance(piece, Range) and piece.part == part
        else piece
        for piece, start in zip(pieces, starts, strict=False)
    )


def _starts(pieces: Pieces) -> list[int]:
    return [0, *accumulate(map(length, pieces))]
