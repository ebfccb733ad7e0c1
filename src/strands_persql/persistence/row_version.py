"""Which version of which row somebody knows."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from strands_persql.tables.cells import number_in, text_in


@dataclass(frozen=True)
class RowVersion:
    """Which version of which row somebody has read.

    Attributes:
        version: The row's version.
        origin: The write that created it: another one means another row of that key.
        doubted: The id of its reader's own update whose answer was lost, or nothing.
        expires: Whether its session expires, as far as that is known.
    """

    version: int
    origin: str
    doubted: str = ""
    expires: bool = False

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> "RowVersion":
        """Return the version of a row that was read."""
        expires = row.get("expires_after") is not None
        return cls(number_in(row["version"]), text_in(row["write_id"]), expires=expires)

    def is_own(self, row: Mapping[str, Any]) -> bool:
        """Whether a row is what the reader's own update has left whose answer was lost."""
        is_next = number_in(row["version"]) == self.version + 1
        return bool(self.doubted) and is_next and self.doubted in text_in(row["writes"])
