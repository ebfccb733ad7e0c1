"""The statements of one round trip, and what they brought back."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NewType

from strands_persql.databases.protocol import Statement
from strands_persql.tables.large_content import Leaf, Skeleton

Row = Mapping[str, Any]
"""A row of a result, by column name."""

Handle = NewType("Handle", int)
"""Under which a statement's rows are found in the answer."""


class Batch:
    """Statements of one transaction, each answered under the handle that `ask` returned.

    Attributes:
        statements: The statements.
        leaves: What is stored apart from the rows that they write, by its digest.
        parts: The handle of the parts that they read, or None.
    """

    def __init__(self, *statements: Statement) -> None:
        """Begin with statements whose rows nobody reads."""
        self.statements = list(statements)
        self.leaves: dict[str, Leaf] = {}
        self.parts: Handle | None = None

    def ask(self, statement: Statement) -> Handle:
        """Add a statement, and return the handle of its rows."""
        self.statements.append(statement)
        return Handle(len(self.statements) - 1)

    def run(self, *statements: Statement) -> None:
        """Add statements whose rows nobody reads."""
        self.statements.extend(statements)

    def bring(self, *skeletons: Skeleton) -> None:
        """Say which rows of these statements have leaves, which must be in the database too."""
        for skeleton in skeletons:
            self.leaves.update(skeleton.leaves)

    def ask_parts(self, statement: Statement) -> None:
        """Add a statement for parts of the leaves of the rows that others read."""
        self.parts = self.ask(statement)


@dataclass(frozen=True)
class Answer:
    """What a round trip brought back.

    Attributes:
        results: The rows of each statement, in order.
        is_ambiguous: Whether an earlier try of this request may have been applied too.
    """

    results: list[list[Row]]
    is_ambiguous: bool = False

    def __getitem__(self, handle: Handle) -> list[Row]:
        """Return a statement's rows."""
        return self.results[handle]

    def first(self, handle: Handle) -> Row | None:
        """Return a statement's first row, or None where it has none."""
        rows = self.results[handle]
        return rows[0] if rows else None
