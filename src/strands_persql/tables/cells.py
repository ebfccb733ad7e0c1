"""What is in the columns of a row: anything, where others than this library have written."""

from collections.abc import Mapping
from typing import Any

_MOST = 2**63
"""What SQLite's whole numbers are below."""


class Cells:
    """Reads the columns of a row, and notes the first one that isn't of its kind.

    Args:
        row: The row.

    Attributes:
        problem: What is wrong with the row, or nothing.
    """

    __slots__ = ("_row", "problem")

    def __init__(self, row: Mapping[str, Any]) -> None:
        """Begin with a row of which nothing is wrong."""
        self._row = row
        self.problem = ""

    def number(self, name: str) -> int:
        """Return the whole number in a column, or 0."""
        value = self._row[name]
        if not _is_whole(value):
            self._note(name)
        return number_in(value)

    def text(self, name: str) -> str:
        """Return the text in a column, or nothing."""
        value = self._row[name]
        if isinstance(value, str):
            return value
        self._note(name)
        return ""

    def _note(self, name: str) -> None:
        self.problem = self.problem or f"its column {name!r} is misshapen"


def number_in(value: Any, default: int = 0) -> int:
    """Return what a column has as a whole number, or a default."""
    return int(value) if _is_whole(value) else default


def text_in(value: Any) -> str:
    """Return what a column has as text, whatever it is."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _is_whole(value: Any) -> bool:
    if isinstance(value, float):
        return value.is_integer() and abs(value) < _MOST
    return isinstance(value, int) and abs(value) < _MOST
