"""Turns: from a prompt to the end of its invocation, wherever that goes on."""

from dataclasses import dataclass, field

from strands_persql.sessions.history import HistoryEntry


@dataclass
class Turn:
    """A turn of the agent's own.

    Attributes:
        turn_id: Its id, which its rows carry.
        entries: Its messages in order, stored ones and pending ones.
    """

    turn_id: str
    entries: list[HistoryEntry] = field(default_factory=list)

    @property
    def stored(self) -> list[HistoryEntry]:
        """Its messages that have rows, which are side by side."""
        return [entry for entry in self.entries if entry.message_id is not None]

    @property
    def first_id(self) -> int | None:
        """The id of its first message, or None where none is stored."""
        for entry in self.entries:
            if entry.message_id is not None:
                return entry.message_id
        return None

    @property
    def last(self) -> HistoryEntry | None:
        """Its last message that has a row, or None."""
        return next((one for one in reversed(self.entries) if one.message_id is not None), None)
