"""Faults that befall the very round trip that a test means."""

from typing import Any

from strands_persql import Database
from strands_persql.testing import Fault, FaultyDatabase

EVERY_FAULT: tuple[Fault, ...] = (
    "lost_request",
    "lost_answer",
    "duplicate",
    "delayed_duplicate",
    "locked",
)
UNSURE: tuple[Fault, ...] = ("lost_request", "lost_answer", "locked")
"""The faults that whoever doesn't try again hears of."""


class Switch(FaultyDatabase):
    """A database whose next round trips go wrong as told, and all after them well.

    Attributes:
        next: The faults of the next round trips in turn, None for one that goes well.
        down: The fault of every round trip while it is set.
    """

    def __init__(self, database: Database, **options: Any) -> None:
        self.next: list[Fault | None] = []
        self.down: Fault | None = None
        super().__init__(database, self._choose, **options)

    def _choose(self, _: int) -> Fault | None:
        return self.down or (self.next.pop(0) if self.next else None)
