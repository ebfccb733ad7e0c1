"""An agent's messages in memory, told apart by their places, and the rows that they are."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import is_
from typing import Any, TypeAlias, cast

from strands.types.content import Message
from strands.types.session import SessionMessage

from strands_persql.persistence.cached import StoredMessage
from strands_persql.runtime.containers import copy_containers
from strands_persql.sessions.tool_calls import is_placeholder
from strands_persql.sessions.upstream import tracking_id
from strands_persql.tables.tables import RowData

REMEMBERED = 10_000
"""Messages that an agent no longer works with and that are recognized when they come back."""


class HistoryEntry:
    """A message that was said: it has a row, or is pending.

    Attributes:
        record: Strands' record of it; its message is the object in the agent's memory.
        copy: What the message was when it was last stored or read, or None where it was dropped.
        write_id: The write that stores it, or nothing for rows of 0.1.
        turn: Its turn.
        message_id: Its place in the history, or None while it is pending.
        version: Its row's version.
        claim: The claim on its row.
        data: Its row's JSON while it is pending.
        was_in_memory: Whether the agent has had it: only then can it have dropped it.
    """

    __slots__ = (
        "claim", "copy", "data", "digest", "mark", "message_id", "record", "turn", "version",
        "was_in_memory", "write_id",
    )  # fmt: skip

    def __init__(self, record: SessionMessage, write_id: str, turn: str) -> None:
        """Begin with a message that is pending."""
        self.record: SessionMessage | None = record
        self.copy: Any = copy_containers(record.to_message())
        self.write_id = write_id
        self.turn = turn
        self.message_id: int | None = None
        self.version = 1
        self.claim = ""
        self.data = ""
        self.was_in_memory = True
        self.mark = tracking_id(record.to_message())
        self.digest = b""

    @classmethod
    def stored(cls, record: SessionMessage | None, row: StoredMessage) -> "HistoryEntry":
        """Return a message that has a row; without a record where the row can't be read."""
        entry = cls.__new__(cls)
        entry.record, entry.copy, entry.mark = record, None, None
        if record is not None:
            message = record.to_message()
            entry.copy, entry.mark = copy_containers(message), tracking_id(message)
        entry.message_id, entry.version, entry.write_id, entry.turn, entry.claim, _, _ = row
        entry.data, entry.digest, entry.was_in_memory = "", b"", True
        return entry

    @property
    def key(self) -> str:
        """What tells its row apart, wherever it moves."""
        return self.write_id or f"#{self.message_id}"

    @property
    def message(self) -> Message | None:
        """The object in the agent's memory, or None where it has left it."""
        record = self.record
        if record is None:
            return None
        return record.message if record.redact_message is None else record.redact_message

    @property
    def row(self) -> RowData:
        """What its row will have, while it is pending."""
        assert self.record is not None
        return RowData(self.data, self.record.created_at, self.record.updated_at)

    def store_at(self, message_id: int) -> None:
        """Note where it was stored."""
        self.message_id, self.data = message_id, ""
        if self.record is not None:
            self.record.message_id = message_id

    def redact(self, redacted: Message) -> None:
        """Give it the content that takes its place, for good."""
        self.take_object(redacted)  # it may have been forgotten
        assert self.record is not None
        self.record.redact_message = redacted

    def take_object(self, message: Message) -> None:
        """Take another object for it, in its place in memory."""
        record = self.record
        if record is None:
            record = self.record = SessionMessage.from_message(message, self.message_id or 0)
        if record.redact_message is not None:
            record.redact_message = message
        record.message = message

    @property
    def is_redacted(self) -> bool:
        """Whether another content has taken its place for good."""
        return self.record is not None and self.record.redact_message is not None

    @property
    def is_edited(self) -> bool:
        """Whether it isn't what was last stored or read of it."""
        return self.copy is not None and self.message is not None and self.copy != self.message

    def forget(self) -> None:
        """Keep no more than it takes to recognize the message when it comes back.

        An edit is yet to be stored then, and what comes back may be older than a redaction.
        """
        if self.record is not None and not self.is_redacted and not self.is_edited:
            self.digest = digest(self.copy)
            self.record = self.copy = None


class ViewEntry:
    """A message that an agent works with and no one said: a summary, or one put in by hand.

    Attributes:
        message: The object in the agent's memory, or None where it can't be read.
        copy: What it was when it was last stored or read.
        json: Its JSON as it is in the view.
    """

    __slots__ = ("copy", "json", "mark", "message")

    def __init__(self, message: Message | None, text: str = "") -> None:
        """Take a message."""
        self.message = message
        self.copy = copy_containers(message)
        self.json = text
        self.mark = None if message is None else tracking_id(message)

    def take_object(self, message: Message) -> None:
        """Take another object for it, in its place in memory."""
        self.message = message


class PlaceholderEntry(ViewEntry):
    """A result that Strands has made up for a call that nobody answered: it is in no view."""

    __slots__ = ()


Entry: TypeAlias = HistoryEntry | ViewEntry


def replace_content(message: Message, content: Message) -> None:
    """Give an object in an agent's memory another content, in its place."""
    replaced, new = cast("dict[str, Any]", message), dict(content)
    replaced.clear()
    replaced.update(new)


def digest(message: Any) -> bytes:
    """Return what a message's content is recognized by."""
    text = json.dumps(message, sort_keys=True, default=repr)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


class Memory:
    """What an agent has in memory, as it was last seen.

    Attributes:
        entries: What its messages are, in their order.
    """

    def __init__(self) -> None:
        """Begin empty."""
        self.entries: list[Entry] = []
        self._objects: list[Message] = []

    def place(self, entries: Iterable[Entry], messages: Iterable[Message]) -> None:
        """Take entries for what is in memory now."""
        self.entries, self._objects = list(entries), list(messages)

    def recognize(
        self,
        messages: Sequence[Message],
        pending: Sequence[HistoryEntry],
        others: Callable[[], Sequence[Entry]],
    ) -> list[Entry]:
        """Return what messages are: entries of memory, other known ones, or new ones of the view.

        Args:
            messages: The agent's messages.
            pending: Messages that were said since.
            others: Returns messages that left memory, and may be back.
        """
        first = self._first_kept(messages)
        kept = [] if first is None else self.entries[first:]
        more = messages[len(kept) :]
        if not more and not first:
            return kept
        said = pending[-len(more) :] if more else []
        if len(said) == len(more) and all(
            one.message is message for one, message in zip(said, more, strict=True)
        ):
            found: list[Entry] = list(said)
        else:
            rest = self.entries if first is None else self.entries[:first]
            free = set(map(id, kept))
            candidates = [
                one for one in dict.fromkeys([*others(), *rest, *pending]) if id(one) not in free
            ]
            found = _recognize_each(more, candidates, kept)
        entries = [*kept, *found]
        self.place(entries, messages)
        return entries

    def _first_kept(self, messages: Sequence[Message]) -> int | None:
        """Return from which entry on memory is as it was, but for more at its end, or None."""
        objects = self._objects
        if not objects or not messages:
            return None
        first = next((i for i, one in enumerate(objects) if one is messages[0]), None)
        if first is None or len(messages) < len(objects) - first:
            return None
        rest = objects[first:] if first else objects
        return first if all(map(is_, rest, messages)) else None


def _recognize_each(
    messages: Sequence[Message], candidates: Sequence[Entry], before: Sequence[Entry]
) -> list[Entry]:
    index = _Index(candidates)
    # From the end, for memory loses its first messages as a rule; one object may be said twice.
    found = [index.take(message) for message in reversed(messages)][::-1]
    entries: list[Entry] = []
    previous = before[-1].message if before else None
    for message, entry in zip(messages, found, strict=True):
        known = entry or index.take_equal(message)
        if known is not None:
            _return(known, message)
        elif previous is not None and is_placeholder(message, previous):
            known = PlaceholderEntry(message)
        else:
            known = ViewEntry(message)
        entries.append(known)
        previous = message
    return entries


def _return(entry: Entry, message: Message) -> None:
    """Note that an object in memory is an entry's message."""
    if entry.message is message:
        return
    was_dropped = isinstance(entry, HistoryEntry) and entry.copy is None
    if isinstance(entry, HistoryEntry) and entry.is_redacted and entry.message is not None:
        message["content"] = copy_containers(entry.message["content"])  # whatever it was before
    entry.take_object(message)
    if was_dropped and isinstance(entry, HistoryEntry):
        entry.copy = copy_containers(message) if entry.digest == digest(message) else {}


class _Index:
    """Finds entries by their object, then by Strands' mark, then by their content."""

    def __init__(self, candidates: Sequence[Entry]) -> None:
        self._by_object: dict[int, list[Entry]] = defaultdict(list)
        self._by_mark: dict[str, list[Entry]] = defaultdict(list)
        self._by_content: dict[bytes, list[Entry]] | None = None
        self._candidates = candidates
        self._taken: set[int] = set()
        for entry in candidates:
            if entry.message is not None:
                self._by_object[id(entry.message)].append(entry)
            if entry.mark is not None:
                self._by_mark[entry.mark].append(entry)

    def take(self, message: Message) -> Entry | None:
        """Return the last free entry that is this object, or has its mark."""
        mark = tracking_id(message)
        found = self._last_free(self._by_object.get(id(message), []))
        if found is None and mark is not None:
            found = self._last_free(self._by_mark.get(mark, []))
        return found

    def take_equal(self, message: Message) -> Entry | None:
        """Return a free entry of the same content: the message was replaced by a copy."""
        if self._by_content is None:
            self._by_content = defaultdict(list)
            for entry in self._candidates:
                if id(entry) not in self._taken:
                    self._by_content[_content(entry)].append(entry)
        return self._last_free(self._by_content.get(digest(message), []))

    def _last_free(self, entries: list[Entry]) -> Entry | None:
        while entries:
            entry = entries.pop()
            if id(entry) not in self._taken:
                self._taken.add(id(entry))
                return entry
        return None


def _content(entry: Entry) -> bytes:
    if isinstance(entry, HistoryEntry) and entry.copy is None:
        return entry.digest
    return digest(entry.copy)


def edited(entries: Sequence[Entry], messages: Sequence[Message]) -> Iterator[Entry]:
    """Yield the entries whose messages are not what they were."""
    copies = [entry.copy for entry in entries]
    if copies == list(messages):
        return
    for entry, message in zip(entries, messages, strict=True):
        if entry.copy != message:
            yield entry
