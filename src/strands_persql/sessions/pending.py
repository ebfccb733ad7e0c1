"""What an agent has said or redacted and no commit has stored yet."""

from collections.abc import Sequence

from strands.types.content import Message

from strands_persql.persistence.changes import MAX_BYTES, MAX_MESSAGES
from strands_persql.runtime.containers import copy_containers
from strands_persql.sessions.history import HistoryEntry
from strands_persql.sessions.message_codec import MessageCodec


class PendingChanges:
    """The messages and redactions that the next change sets store, in order.

    Args:
        codec: What encodes messages.
        latest: The message that was said last, or None.

    Attributes:
        messages: The messages to append.
        redacted: The messages whose redactions are to be stored.
        edited: Messages that have left the agent's memory, whose edits are to be stored.
        latest: The message that was said last, stored or not.
        rewound: The ids between which the agent has gone back, or None.
    """

    def __init__(self, codec: MessageCodec, latest: HistoryEntry | None) -> None:
        """Begin with nothing pending."""
        self.messages: list[HistoryEntry] = []
        self.redacted: list[HistoryEntry] = []
        self.edited: list[HistoryEntry] = []
        self.latest = latest
        self.rewound: tuple[int, int] | None = None
        self._codec = codec

    def has_message(self, message: Message) -> bool:
        """Whether a message is among those to append: this very object."""
        return any(one.message is message for one in self.messages)

    def append(self, entry: HistoryEntry) -> None:
        """Take a message that was encoded."""
        self.messages.append(entry)
        self.latest = entry

    def encode(self, entry: HistoryEntry) -> None:
        """Encode a message as its row will have it.

        Raises:
            InvalidDataError: If JSON can't hold it.
            TooLargeError: If no row can hold it.
        """
        assert entry.record is not None
        copy = copy_containers(entry.message)  # first: what changes in between is noticed then
        entry.data, entry.copy = self._codec.encode(entry.record).data, copy

    @property
    def has_any(self) -> bool:
        """Whether there is a message or a redaction to store."""
        return bool(self.messages or self.redacted)

    @property
    def is_full(self) -> bool:
        """Whether there is as much as one transaction stores."""
        size = sum(len(one.data) for one in self.messages)
        return len(self.messages) >= MAX_MESSAGES or size * 2 > MAX_BYTES

    def portion(self) -> list[HistoryEntry]:
        """Return as many messages as one change set takes, encoded as they are now."""
        size = 0
        for index, entry in enumerate(self.messages[:MAX_MESSAGES]):
            if entry.copy != entry.message:
                self.encode(entry)
            size += len(entry.data)
            if index and size > MAX_BYTES:
                return self.messages[:index]
        return self.messages[:MAX_MESSAGES]

    def redact(self, entries: Sequence[HistoryEntry], redacted: Message) -> None:
        """Redact messages, stored ones with the next change set."""
        for entry in entries:
            entry.redact(redacted)
        self.redacted += entries

    def go_back(self, first: int, last: int) -> None:
        """Note between which ids the agent goes back, to be stored with its view."""
        before = self.rewound or (first, last)
        self.rewound = min(first, before[0]), max(last, before[1])

    def note_appended(self, entries: Sequence[HistoryEntry]) -> None:
        """Note that messages have rows now."""
        stored = set(entries)
        self.messages = [one for one in self.messages if one not in stored]
        self.redacted = [
            one for one in self.redacted if one not in stored or one.copy != one.message
        ]

    def note_redacted(self, entry: HistoryEntry) -> None:
        """Note that a message's row has its redaction now."""
        self.redacted = [one for one in self.redacted if one is not entry]

    def note_edited(self, entry: HistoryEntry) -> None:
        """Note that the row of a message that has left memory has its edit now."""
        if entry in self.edited and not entry.is_edited:
            self.edited.remove(entry)
            entry.forget()
