"""A value as pieces in order: text, and ranges of texts that are in the database."""

import json
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple, TypeAlias

OWN = ""
"""The name of the text in the value's own row, where parts have names."""

SHORT = 8
"""A range of so few characters is kept as text, which takes no more room."""


class Range(NamedTuple):
    """Some characters of a part, or of the row's own text."""

    part: str
    first: int
    size: int

    @property
    def end(self) -> int:
        """The place after its last character."""
        return self.first + self.size


Piece: TypeAlias = Range | str
Pieces: TypeAlias = tuple[Piece, ...]


def length(piece: Piece) -> int:
    """Return the number of a piece's characters."""
    return len(piece) if isinstance(piece, str) else piece.size


def to_json(pieces: Iterable[Piece]) -> str:
    """Return pieces as a row has them."""
    return json.dumps(list(pieces), ensure_ascii=False, separators=(",", ":"))


def from_json(text: str) -> Pieces:
    """Return the pieces of a row.

    Raises:
        ValueError: If they are not pieces.
    """
    found = json.loads(text)
    if not isinstance(found, list):
        raise ValueError("its pieces are not a list")  # noqa: TRY004 - it is data, not a type
    return tuple(_piece(one) for one in found)


def _piece(value: object) -> Piece:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and [type(one) for one in value] == [str, int, int]:
        return Range(*value)
    raise ValueError(f"{value!r} is not a piece")


def parts_of(pieces: Iterable[Piece]) -> set[str]:
    """Return the names of the parts that pieces refer to."""
    return {one.part for one in pieces if isinstance(one, Range) and one.part != OWN}


def joined(pieces: Iterable[Piece]) -> Pieces:
    """Return pieces with neighbours made one where they can be, and without empty ones."""
    found: list[Piece] = []
    for piece in pieces:
        last = found[-1] if found else None
        if not length(piece):
            continue
        if isinstance(piece, str) and isinstance(last, str):
            found[-1] = last + piece
        elif (
            isinstance(piece, Range)
            and isinstance(last, Range)
            and (last.part, last.end) == (piece.part, piece.first)
        ):
            found[-1] = Range(last.part, last.first, last.size + piece.size)
        else:
            found.append(piece)
    return tuple(found)


class Ruler:
    """Finds the pieces that some characters of a value are.

    Args:
        pieces: The value's pieces.
        text: Its text.
    """

    def __init__(self, pieces: Sequence[Piece], text: str) -> None:
        """Measure the pieces."""
        self._pieces = pieces
        self._text = text
        self._starts = [0, *accumulate(map(length, pieces))]

    def cut(self, first: int, size: int) -> list[Piece]:
        """Return the pieces of some characters; of a short range, its text."""
        found: list[Piece] = []
        place, end = first, first + size
        index = bisect_right(self._starts, first) - 1
        while place < end:
            piece, start = self._pieces[index], self._starts[index]
            until = min(end, self._starts[index + 1])
            if isinstance(piece, str) or until - place <= SHORT:
                found.append(self._text[place:until])
            else:
                found.append(Range(piece.part, piece.first + place - start, until - place))
            place, index = until, index + 1
        return found


def assembled(pieces: Sequence[Piece], own: str, texts: Mapping[int, str]) -> str:
    """Return the text that pieces are.

    Args:
        pieces: The pieces.
        own: The row's own text.
        texts: The texts of ranges of parts, by their places among the pieces.

    Raises:
        ValueError: If one of them is missing, or not as long as it should be.
    """
    found: list[str] = []
    for place, piece in enumerate(pieces):
        if isinstance(piece, str):
            found.append(piece)
            continue
        text = own[piece.first : piece.end] if piece.part == OWN else texts.get(place)
        if text is None:
            raise ValueError(f"its part {piece.part!r} is missing")
        if len(text) != piece.size:
            raise ValueError(f"its part {piece.part or 'in the row'!r} has not the text it had")
        found.append(text)
    return "".join(found)
