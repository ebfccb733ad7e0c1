"""A session that was read and isn't stored yet."""

import json
from dataclasses import dataclass, field

from strands_persql.admin.lines import TABLES, Kind, Line
from strands_persql.runtime.ids import new_id
from strands_persql.tables import archiving

STAGED_KINDS: tuple[Kind, ...] = ("message", "checkpoint")
"""The lines of which a large session has too many for one request."""

_BEHIND = (',"rewound":', ',"gaps":')


@dataclass
class PendingSession:
    """A session that was read and isn't stored yet.

    Attributes:
        session_id: The session.
        write_id: The write that creates it.
        lines: Its lines by kind.
        size: The size of its messages and checkpoints among them.
        staged: By kind how many of these are in the database already, where nobody reads them.
        contents: How many parts its large contents have, by their digests: they are in the
            database already, where the staged messages are.
        unreadable: Rows that can't be read.
    """

    session_id: str
    write_id: str = field(default_factory=new_id)
    lines: dict[Kind, list[str]] = field(default_factory=lambda: {kind: [] for kind in TABLES})
    size: int = 0
    staged: dict[Kind, int] = field(default_factory=lambda: dict.fromkeys(STAGED_KINDS, 0))
    contents: dict[str, int] = field(default_factory=dict)
    unreadable: int = 0

    def add(self, line: Line) -> None:
        """Take a line."""
        self.lines[line.kind].append(line.text)
        self.size += len(line.text) if line.kind in STAGED_KINDS else 0

    @property
    def is_staged(self) -> bool:
        """Whether lines of it are in the database already."""
        return any(self.staged.values())

    @property
    def is_begun(self) -> bool:
        """Whether something of it is in the database already."""
        return self.is_staged or bool(self.contents)

    def statements(self, size: int) -> int:
        """Return how many statements store it, at the most, each with lines of some size."""
        portions = sum(
            1 + 2 * sum(map(len, lines)) // size for lines in self.lines.values() if lines
        )
        taken = 2 * self.is_staged + 3 * bool(self.contents)
        return portions + taken + self.is_behind + 2 * self.expires + 1

    @property
    def is_behind(self) -> bool:
        """Whether its agents' lines say what those have gone back behind."""
        return any(name in line for line in self.lines["agent"] for name in _BEHIND)

    @property
    def expires(self) -> bool:
        """Whether it expires."""
        return any(json.loads(line).get("expires_after") for line in self.lines["session"])

    @property
    def staged_id(self) -> str:
        """The id under which they are there."""
        return archiving.staged_id(self.session_id, self.write_id)

    def count(self, kind: Kind) -> int:
        """Return how many lines of a kind it has."""
        return self.staged.get(kind, 0) + len(self.lines[kind])
