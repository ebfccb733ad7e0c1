"""What a unit of work knows of an agent's history: its rows, their ids, and their turns."""

from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence

from strands_persql.persistence.cached import StoredMessage
from strands_persql.persistence.view import View, build_view, items_of
from strands_persql.runtime.containers import copy_containers
from strands_persql.runtime.ids import AgentKey
from strands_persql.sessions.history import (
    REMEMBERED,
    Entry,
    HistoryEntry,
    ViewEntry,
    replace_content,
)
from strands_persql.sessions.message_codec import MessageCodec
from strands_persql.sessions.tool_calls import is_open
from strands_persql.sessions.upstream import mark_message, tracking_id
from strands_persql.tables.codec import UNREADABLE_EXTRA, RowCodec, warn_of_unreadable_row
from strands_persql.tables.encoding import MissingContentError, decoded_text
from strands_persql.tables.shapes import is_message
from strands_persql.tables.tables import MAX_ID

_OLD_EXTRAS = 100  # which another writer's view may still have


class KnownHistory:
    """The rows of one agent that its unit of work has read or written.

    Args:
        key: The agent.
        codec: What makes errors of rows.
        messages: What decodes its messages.

    Attributes:
        complete_to: Up to this id all messages that the agent works with are known.
        dropped: Messages that left the agent's memory, to be recognized when they come back.
    """

    def __init__(self, key: AgentKey, codec: RowCodec, messages: MessageCodec) -> None:
        """Know nothing."""
        self.complete_to = -1
        self.dropped: OrderedDict[str, HistoryEntry] = OrderedDict()
        self._key = key
        self._codec = codec
        self._messages = messages
        self._entries: dict[str, HistoryEntry] = {}
        self._ids: list[int] = []
        self._loaded: list[tuple[int, int]] = []
        self._extras: dict[str, ViewEntry] = {}

    # -- what was read -------------------------------------------------------------------------

    def load(self, view: View, rows: Sequence[StoredMessage], last_id: int) -> None:
        """Take all rows of a view."""
        self._add(rows)
        self._note_loaded(view)
        self.complete_to = last_id

    def learn(self, rows: Sequence[StoredMessage]) -> None:
        """Take rows that were read besides those that are known."""
        new = []
        for row in rows:
            known = self._entries.get(_key_of(row))
            if known is None:
                new.append(row)
                continue
            self.move(known, row.message_id)
            known.claim = row.claim
            if known.version < row.version or known.message is None:
                self._update(known, row)
        self._add(new)

    def learn_all(
        self, view: View, rows: Sequence[StoredMessage], own_turn: str
    ) -> list[HistoryEntry]:
        """Take all rows that the agent works with, but for those of its own turn.

        Returns:
            The messages that are not among them any more.
        """
        read = {_key_of(row) for row in rows}
        gone = [
            entry
            for key, entry in self._entries.items()
            if key not in read and entry.turn != own_turn
        ]
        for entry in gone:
            del self._entries[entry.key]
            self._remove_id(entry.message_id)
        self.learn(rows)
        self._note_loaded(view)
        return gone

    def note_complete(self, view: View) -> None:
        """Know that all messages that a view has were read by now."""
        self.complete_to = max(self.newest, view.start - 1)

    def _note_loaded(self, view: View) -> None:
        self._loaded = [one for one in view.head if not isinstance(one, str)]
        self._loaded.append((view.start, MAX_ID))

    def _add(self, rows: Sequence[StoredMessage]) -> None:
        for entry in self._decoded(rows):
            if self.dropped:
                self.dropped.pop(entry.key, None)
            self.add(entry)

    def _decoded(self, rows: Sequence[StoredMessage]) -> list[HistoryEntry]:
        """Return rows as entries; one that can't be read costs that one alone."""
        records = self._messages.decode(rows)
        for record, row in zip(records, rows, strict=True):
            if record is not None and not tracking_id(record.to_message()):
                mark_message(record.to_message(), f"{'/'.join(self._key)}/{_key_of(row)}")
        return [HistoryEntry.stored(*each) for each in zip(records, rows, strict=True)]

    def _update(self, entry: HistoryEntry, row: StoredMessage) -> None:
        """Give an entry its row's content, unless an edit of ours is about to replace that.

        An edit beats the text that it was made on; a redaction beats all.
        """
        (fresh,) = self._decoded([row])
        message, is_edited = entry.message, entry.message != entry.copy
        entry.version = row.version
        if message is None or fresh.record is None:
            entry.record, entry.copy = fresh.record, fresh.copy
        elif not is_edited or fresh.record.redact_message is not None:
            replace_content(message, fresh.record.to_message())
            fresh.take_object(message)
            entry.record, entry.copy = fresh.record, copy_containers(message)

    # -- what is known -------------------------------------------------------------------------

    @property
    def entries(self) -> Iterable[HistoryEntry]:
        """The known messages."""
        return self._entries.values()

    @property
    def writes(self) -> frozenset[str]:
        """The keys of the known messages."""
        return frozenset(self._entries)

    @property
    def newest(self) -> int:
        """The highest id that is known to be taken."""
        return max(self._ids[-1] if self._ids else -1, self.complete_to)

    def add(self, entry: HistoryEntry) -> None:
        """Know an entry that has a row."""
        assert entry.message_id is not None
        self._entries[entry.key] = entry
        if not self._ids or entry.message_id > self._ids[-1]:
            self._ids.append(entry.message_id)
        else:
            place = bisect_left(self._ids, entry.message_id)
            if self._ids[place] != entry.message_id:
                self._ids.insert(place, entry.message_id)

    def extend(self, new: Sequence[HistoryEntry], *, has_moved: bool) -> bool:
        """Take messages that were just stored for the end of what is known, if they are that.

        Args:
            new: The messages, which have ids by now.
            has_moved: Whether others of their turn have moved: other writers came between.

        Returns:
            Whether they are: no message of another writer is between.
        """
        first = self.complete_to + 1
        expected = list(range(first, first + len(new)))
        if has_moved or [one.message_id for one in new] != expected:
            return False
        self.complete_to = expected[-1]
        return True

    def know(self, row: StoredMessage) -> HistoryEntry:
        """Know of a row whose content isn't needed, and return its entry."""
        known = self._entries.get(_key_of(row))
        if known is None:
            known = HistoryEntry.stored(None, row)
            self.add(known)
        known.claim = row.claim
        return known

    def last(self) -> HistoryEntry | None:
        """Return the newest known message."""
        return max(self._entries.values(), key=lambda one: one.message_id or 0, default=None)

    def find(self, write_id: str) -> HistoryEntry | None:
        """Return what a write has stored, or None where that isn't known."""
        return self._entries.get(write_id)

    def move(self, entry: HistoryEntry, message_id: int) -> None:
        """Know that a message has another id now."""
        if entry.message_id == message_id:
            return
        self._remove_id(entry.message_id)
        entry.message_id = message_id
        insort(self._ids, message_id)

    def leave_memory(self, entry: HistoryEntry) -> None:
        """Keep of a message that the agent no longer has what it takes to recognize it."""
        entry.forget()
        self.dropped[entry.key] = entry
        if len(self.dropped) > REMEMBERED:
            self._forget_oldest(REMEMBERED // 10)

    def _forget_oldest(self, number: int) -> None:
        """Know no more of messages that left the agent's memory long ago."""
        for _ in range(number):
            key, _ = self.dropped.popitem(last=False)
            self._entries.pop(key, None)
        # Ids between those of a view say where its ranges end; those before all known ones don't.
        lowest = min((one.message_id or 0 for one in self._entries.values()), default=MAX_ID)
        del self._ids[: min(bisect_left(self._ids, lowest), len(self._ids) - 1)]

    def is_dropped(self, entry: HistoryEntry) -> bool:
        """Whether a message has left the agent's memory, until it is stored that it is back."""
        return entry.key in self.dropped

    def return_to_memory(self, entry: HistoryEntry) -> None:
        """Know again a message that has come back to memory."""
        if self.dropped.pop(entry.key, None) is not None and entry.message_id is not None:
            self.add(entry)

    def _remove_id(self, message_id: int | None) -> None:
        if message_id is None:
            return
        place = bisect_left(self._ids, message_id)
        if place < len(self._ids) and self._ids[place] == message_id:
            del self._ids[place]

    # -- views ---------------------------------------------------------------------------------

    def entries_of(self, view: View) -> list[Entry]:
        """Return what a view has, in order."""
        by_id = {entry.message_id: entry for entry in self._entries.values()}
        entries: list[Entry] = []
        for item in items_of(view, self._ids):
            if isinstance(item, str):
                entries.append(self._extra(item))
            elif item in by_id:
                entries.append(by_id[item])
        return entries

    def view_of(
        self, entries: Iterable[Entry], ids: Mapping[HistoryEntry, int], newest: int
    ) -> View:
        """Return the view that has entries in order.

        Args:
            entries: The entries.
            ids: The ids that some will have when the view is stored: pending and moving ones.
            newest: The highest id that is taken then.
        """
        entries = list(entries)
        self._forget_extras([one for one in entries if isinstance(one, ViewEntry)])
        items = [
            entry.json if isinstance(entry, ViewEntry) else ids.get(entry, entry.message_id)
            for entry in entries
        ]
        moved = {entry.message_id for entry in ids} - {None}
        kept = [one for one in self._ids if one not in moved] if moved else self._ids
        known = [*kept, *ids.values()]  # sorted: new ids are beyond all others
        if newest > (known[-1] if known else -1):
            known.append(newest)
        return build_view([one for one in items if one is not None], known, self._loaded)

    def note_extra(self, entry: ViewEntry) -> None:
        """Know a message that is in the view alone, by its JSON."""
        self._extras[entry.json] = entry

    def _forget_extras(self, in_use: Sequence[ViewEntry]) -> None:
        """Know no more of what was in the view alone long ago."""
        if len(self._extras) > 2 * (len(in_use) + _OLD_EXTRAS):
            latest = [*self._extras.items()][-_OLD_EXTRAS:]
            self._extras = {one.json: one for one in in_use} | dict(latest)

    def _extra(self, text: str) -> ViewEntry:
        known = self._extras.get(text)
        if known is not None:
            return known
        try:
            message = decoded_text(text)
        except MissingContentError:
            message = None
        if not is_message(message):
            message, lost = None, self._codec.corrupt_agent(self._key, UNREADABLE_EXTRA)
            warn_of_unreadable_row(lost, "the message is left out")
        entry = self._extras[text] = ViewEntry(message, text)
        return entry

    # -- turns ---------------------------------------------------------------------------------

    def of_turn(self, turn_id: str) -> list[HistoryEntry]:
        """Return a turn's known messages, in order."""
        found = [entry for entry in self._entries.values() if entry.turn == turn_id]
        return sorted(found, key=lambda entry: entry.message_id or 0)

    def stopped_turn(self) -> str:
        """Return the latest turn that has stopped before its end, or else the latest one."""
        latest = ""
        seen: set[str] = set()
        ordered = sorted(self._entries.values(), key=lambda one: one.message_id or 0, reverse=True)
        for entry in ordered:
            if not entry.turn or entry.turn in seen:
                continue
            latest = latest or entry.turn
            seen.add(entry.turn)
            message = entry.message
            if message is not None and is_open(message):
                return entry.turn
        return latest


def _key_of(row: StoredMessage) -> str:
    return row.write_id or f"#{row.message_id}"
