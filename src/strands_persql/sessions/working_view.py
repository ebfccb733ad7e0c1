"""What an agent works with: its messages in memory, beside the view of its row."""

import logging
from collections.abc import Collection, Sequence
from operator import is_
from typing import Any

from strands.types.content import Message

from strands_persql.persistence.changes import MergeBase
from strands_persql.persistence.view import View
from strands_persql.runtime.containers import copy_containers
from strands_persql.runtime.ids import AgentKey
from strands_persql.sessions import upstream
from strands_persql.sessions.content import waiting_turns
from strands_persql.sessions.history import (
    Entry,
    HistoryEntry,
    Memory,
    PlaceholderEntry,
    ViewEntry,
    replace_content,
)
from strands_persql.sessions.known_history import KnownHistory
from strands_persql.sessions.pending import PendingChanges
from strands_persql.sessions.stand_ins import StandIn, with_missing, with_stand_ins
from strands_persql.sessions.tool_calls import has_valid_tool_use
from strands_persql.sessions.turns import Turns
from strands_persql.sessions.weaving import in_order, weave
from strands_persql.tables.encoding import to_json

logger = logging.getLogger("strands_persql")


class WorkingView:
    """Keeps an agent's memory and its row's view consistent, whoever changes either.

    Args:
        key: The agent.
        view: The row's view, as it was opened.
        history: What is known of the agent's history.
        pending: What is to be stored.
        turns: The agent's own turns.

    Attributes:
        is_out_of_order: Whether others' messages came behind the turn under way, so that memory
            isn't in the order of the rows until that turn continues.
    """

    def __init__(
        self,
        key: AgentKey,
        view: View,
        history: KnownHistory,
        pending: PendingChanges,
        turns: Turns,
    ) -> None:
        """Begin with an agent that has nothing in memory yet."""
        self.is_out_of_order = False
        self._key = key
        self._history = history
        self._pending = pending
        self._turns = turns
        self._stored = history.entries_of(view)  # what the row's view has
        self._agreed: list[Entry] = []  # what the row's view and the agent's memory agree on
        self._stand_ins: dict[Entry, Entry] = {}  # by the first one that can't be read
        self._memory = Memory()

    # -- opening -------------------------------------------------------------------------------

    def restore(self, agent: Any, base: MergeBase, prepended: Sequence[Message]) -> None:
        """Put what the row's view has into an agent's memory.

        Args:
            agent: The agent.
            base: Its row.
            prepended: What its conversation manager puts first: rows of earlier versions don't
                say it themselves.
        """
        waiting = list(waiting_turns(base.content))
        entries = _without_turns(self._stored, waiting[:-1])
        if waiting:  # Strands continues with the last
            others = set(_without_turns(entries, waiting[-1:]))
            entries = _put_last(entries, [one for one in entries if one not in others])
        self._agreed = list(entries)
        if not base.view.is_explicit:
            entries = [*map(ViewEntry, prepended), *entries]
        agent.messages = []
        self._fill(agent, entries)

    def adopt(self, agent: Any) -> None:
        """Take an agent's messages for those that it was created with."""
        for entry, message in zip(self._stored, agent.messages, strict=True):
            entry.take_object(message)
            entry.copy = copy_containers(message)
        self._memory.place(self._stored, agent.messages)
        self._agreed = list(self._stored)

    @property
    def stored(self) -> Sequence[Entry]:
        """What the row's view has."""
        return self._stored

    # -- what the agent has --------------------------------------------------------------------

    def in_memory(self, agent: Any) -> list[Entry]:
        """Return what the agent has in memory."""
        if upstream.is_stateful(agent):
            return self._memory.entries
        return self._memory.recognize(
            agent.messages,
            self._pending.messages,
            lambda: [*self._agreed, *self._stored, *self._history.dropped.values()],
        )

    def shown(self, entries: Sequence[Entry]) -> list[Entry]:
        """Return what is in memory, of what has or will have a place in the view."""
        return _without_placeholders(with_missing(entries, self._stored, self._stand_ins))

    def left_edited(self) -> list[HistoryEntry]:
        """Return what has left memory since that was stored, with an edit that wasn't."""
        entries = self._memory.entries
        if entries[: len(self._agreed)] == self._agreed:  # as a rule
            return []
        in_memory = set(entries)
        left = [one for one in self._agreed if one not in in_memory]
        return [one for one in left if isinstance(one, HistoryEntry) and one.is_edited]

    def replaces(self, message: Message, agent: Any) -> bool:
        """Whether a message has taken the last one's place in memory, with more content."""
        last = next(reversed(self._pending.messages or self._memory.entries), None)
        mark = upstream.tracking_id(message)
        if last is None or mark is None or last.mark != mark or last.message is message:
            return False
        in_memory = iter(reversed(agent.messages))
        if all(one is not message for one in in_memory):
            return False
        before = next(in_memory, None)
        return before is None or upstream.tracking_id(before) != mark

    def take_redaction(self, redacted: Message, agent: Any) -> tuple[list[HistoryEntry], Message]:
        """Return what an agent has redacted, and the object that holds the new content.

        That is a message each time that it was said, or the latest one where it is not known.

        Args:
            redacted: The message with its new content.
            agent: The agent.
        """
        entries = self.in_memory(agent)
        said = [one for one in entries if isinstance(one, HistoryEntry)]
        found = next((one for one in said if one.message is redacted), None)
        latest = self._pending.latest
        if found is None and latest is not None:
            is_in_memory = any(one.message is redacted for one in entries)
            if not (is_in_memory and latest in said):
                # It has taken the place of the message that was said last, or is to do so.
                found = latest
                redacted = self._take_place(latest, redacted, entries, agent)
        if found is None:
            return [], redacted
        return list(dict.fromkeys([found, *self._said_as(found.message, said)])), redacted

    def _take_place(
        self, entry: HistoryEntry, redacted: Message, entries: Sequence[Entry], agent: Any
    ) -> Message:
        """Have a message hold an entry's new content; return the object that does in memory."""
        if entry.message is not None and all(one.message is not redacted for one in entries):
            replace_content(entry.message, redacted)
            redacted = entry.message
        taken = [entry if one.message is redacted else one for one in entries]
        self._memory.place(taken, agent.messages)
        return redacted

    def _said_as(
        self, message: Message | None, in_memory: Sequence[HistoryEntry]
    ) -> list[HistoryEntry]:
        """Return all messages that are one object: a prompt may be said again."""
        if message is None:
            return []
        known = [*in_memory, *self._history.entries, *self._pending.messages]
        return [one for one in known if one.message is message]

    # -- what its row is to have ---------------------------------------------------------------

    def is_as_stored(
        self, shown: Sequence[Entry], added: Sequence[HistoryEntry], view: View
    ) -> bool:
        """Whether memory has what the row's view has and what is added to it, no more, no less.

        Args:
            shown: What `shown` returned.
            added: The messages that are about to be appended.
            view: The row's view.
        """
        has_all_extras = self._encode_extras(shown, view)
        in_memory = [one for one in added if one.was_in_memory]
        return has_all_extras and list(shown) == [*self._agreed, *in_memory]

    def wanted(
        self,
        shown: Sequence[Entry],
        added: Sequence[HistoryEntry],
        moving: Collection[HistoryEntry],
    ) -> list[Entry]:
        """Return what the row's view is to have.

        Args:
            shown: What `shown` returned.
            added: The messages that are about to be appended.
            moving: The messages that move to the end, or are appended there, in their order.
        """
        stored, said = _parted(shown)
        unseen = [one for one in added if not one.was_in_memory]
        return [*_put_last(self._woven(stored, self._stored), moving), *said, *unseen]

    def _encode_extras(self, entries: Sequence[Entry], view: View) -> bool:
        """Encode messages that are in the view alone; return whether the row's view has them."""
        extras = [one for one in entries if isinstance(one, ViewEntry)]
        for entry in extras:
            if not entry.json or entry.copy != entry.message:
                entry.json = to_json(entry.message, "message", **self._key.context)
                entry.copy = copy_containers(entry.message)
                self._history.note_extra(entry)
        return {one.json for one in extras} <= set(view.head)

    # -- what was stored -----------------------------------------------------------------------

    def note_appended(self, entries: Sequence[HistoryEntry]) -> None:
        """Note that messages have rows now, at the view's end."""
        self._stored += entries
        self._agreed += [one for one in entries if one.was_in_memory]

    def note_stored(self, wanted: list[Entry] | None, shown: list[Entry] | None) -> None:
        """Note that the row has what it was to have.

        Args:
            wanted: What its view has now, or None for as it was.
            shown: What the agent had in memory, or None where that wasn't stored.
        """
        if wanted is not None:
            self._stored = wanted
        if shown is not None:
            self._agree_on(shown)

    def _agree_on(self, shown: list[Entry]) -> None:
        before, self._agreed = self._agreed, shown
        if len(shown) >= len(before) and before == shown[: len(before)]:
            return
        # What is in the view and not in memory may be shown again; a redaction is yet to be stored.
        kept = {*shown, *self._stored, *self._memory.entries, *self._pending.redacted}
        for entry in before:
            if isinstance(entry, HistoryEntry) and entry not in kept:
                self._leave(entry)
        for entry in shown:
            if isinstance(entry, HistoryEntry):
                self._history.return_to_memory(entry)

    # -- bringing in what others have stored ---------------------------------------------------

    def read_again(self, view: View) -> None:
        """Take the row's view as it is after messages have moved."""
        self._stored = self._history.entries_of(view)

    def weave(self, agent: Any, base: MergeBase) -> None:
        """Bring the agent's memory in line with the row's view, and keep what is its own."""
        theirs = self._history.entries_of(base.view)
        stored, said = _parted(self.shown(self.in_memory(agent)))
        self._stored = theirs
        merged = self._with_turn_last([*self._woven(stored, theirs), *said])
        target = _without_turns(merged, self._others_waiting(base))
        if upstream.is_stateful(agent):  # the conversation is the model server's
            self._agreed = list(theirs)
            return
        self._fill(agent, target)
        hidden = {one for one in merged if one.message is not None} - set(self._memory.entries)
        self._agree_on([one for one in theirs if one not in hidden])
        logger.debug(
            "session_id=<%s>, agent_id=<%s>, messages=<%d> | merged another writer's messages",
            *self._key,
            len(target),
        )

    def bring_back(self, agent: Any, entries: Sequence[HistoryEntry]) -> None:
        """Put messages that others have dropped behind those that an agent has in memory."""
        self._fill(agent, [*self.shown(self.in_memory(agent)), *entries])

    def let_go(self, gone: Sequence[HistoryEntry]) -> None:
        """Forget messages that are in the view no more, unless they are still worked with."""
        kept = {*self._memory.entries, *self._pending.redacted}
        for entry in gone:
            if entry in kept:
                self._history.add(entry)
            else:
                self._leave(entry)

    def _leave(self, entry: HistoryEntry) -> None:
        if entry.is_edited and entry not in self._pending.edited:
            self._pending.edited.append(entry)
        self._history.leave_memory(entry)

    def _others_waiting(self, base: MergeBase) -> list[str]:
        """Return the turns that others may still continue, once one has been answered.

        Their calls have no results yet, and none is made up: they are shown when they go on.
        """
        own = self._turns.own_ids
        return [one for one in waiting_turns(base.content) if one not in own]

    def _woven(self, ours: Sequence[Entry], theirs: Sequence[Entry]) -> list[Entry]:
        """Merge what the agent has in memory with what others made of the row's view.

        Of the turn under way others drop nothing: it is not over.
        """
        turn = self._turns.current if self._turns.goes_on else None
        own = set(() if turn is None else turn.entries) & set(ours)
        base = set(self._agreed) - own
        # Others may have dropped what was kept while its turn was under way; what has come back
        # to memory is another matter.
        kept = [one for one in ours if isinstance(one, HistoryEntry) and one not in own]
        base.update(one for one in kept if not self._history.is_dropped(one))
        base -= self._gone_on(theirs)
        ordered = [one for one in dict.fromkeys([*self._agreed, *kept]) if one in base]
        return in_order(weave(ordered, ours, theirs), ours, theirs, place=_place_of)

    def _gone_on(self, theirs: Sequence[Entry]) -> set[Entry]:
        """Return what others have of turns that they have gone on with since.

        Such a turn is said anew, whole: what we have dropped of it comes back with the rest.
        """
        agreed, said = set(self._agreed), [one for one in theirs if isinstance(one, HistoryEntry)]
        new = {one.turn for one in said if one not in agreed} - {""}
        return {one for one in said if one.turn in new}

    def _with_turn_last(self, entries: list[Entry]) -> list[Entry]:
        """Return entries with those of the turn under way at the end.

        Strands continues with the last message, which must be the agent's own. Rows of others that
        came behind it are before it once it continues.
        """
        turn = self._turns.current
        if turn is None or not self._turns.goes_on:
            return entries
        own = set(turn.entries)
        ordered = _put_last(entries, turn.entries)
        has_all = own <= {*self._pending.messages, *self._stored}
        self.is_out_of_order = ordered != entries or not has_all
        return ordered

    def _fill(self, agent: Any, entries: Sequence[Entry]) -> None:
        """Put entries into an agent's memory, each tool call followed by its result."""
        filled = with_stand_ins(entries)
        self._stand_ins = {one.first: one for one in filled if isinstance(one, StandIn)}
        messages = [_message_of(one) for one in filled]
        if not has_valid_tool_use(messages):
            filled = _with_valid_tool_use(filled)
            messages = [_message_of(one) for one in filled]
        if len(messages) != len(agent.messages) or not all(map(is_, messages, agent.messages)):
            agent.messages[:] = messages
        self._memory.place(filled, agent.messages)


def _with_valid_tool_use(entries: Sequence[Entry]) -> list[Entry]:
    """Return entries as Strands repairs their messages: each tool call followed by its result."""
    places: dict[int, list[Entry]] = {}
    before = []
    for entry in entries:
        message = _message_of(entry)
        before.append((entry, message["content"]))
        places.setdefault(id(message), []).append(entry)
    messages = upstream.with_valid_tool_use([_message_of(one) for one in entries])
    for entry, content in before:
        if _message_of(entry)["content"] is not content:  # repaired: no edit of the agent's
            entry.copy = copy_containers(entry.message)
    repaired: list[Entry] = []
    for index, message in enumerate(messages):
        found = places.get(id(message))
        if not found:
            upstream.mark_placeholder(message, messages[index - 1])
        repaired.append(found.pop(0) if found else PlaceholderEntry(message))
    return repaired


def _without_placeholders(entries: Sequence[Entry]) -> list[Entry]:
    return [one for one in entries if not isinstance(one, PlaceholderEntry)]


def _without_turns(entries: Sequence[Entry], turns: Sequence[str]) -> list[Entry]:
    if not turns:
        return list(entries)
    return [one for one in entries if not isinstance(one, HistoryEntry) or one.turn not in turns]


def _put_last(entries: Sequence[Entry], last: Collection[Entry]) -> list[Entry]:
    """Return entries with some of them at the end, in their own order.

    Others may have left a part of a turn in another place.
    """
    moved, there = set(last), set(entries)
    rest = [one for one in entries if one not in moved]
    return [*rest, *(one for one in last if one in there)]


def _parted(shown: Sequence[Entry]) -> tuple[list[Entry], list[Entry]]:
    """Return what has a place in the view, and what is pending."""
    said = [one for one in shown if isinstance(one, HistoryEntry) and one.message_id is None]
    pending = set(said)
    return [one for one in shown if one not in pending], list(said)


def _place_of(entry: Entry) -> int | None:
    return entry.message_id if isinstance(entry, HistoryEntry) else None


def _message_of(entry: Entry) -> Message:
    assert entry.message is not None
    return entry.message
