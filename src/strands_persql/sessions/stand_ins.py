"""What is in memory in the place of messages that can't be read."""

from collections.abc import Mapping, Sequence
from typing import cast

from strands.types.content import ContentBlock, Message, Role

from strands_persql.sessions.history import Entry, HistoryEntry, PlaceholderEntry
from strands_persql.sessions.tool_calls import answered_ids, called_ids
from strands_persql.sessions.upstream import mark_message

_TEXT = "[A message that was here can't be read.]"


class StandIn(PlaceholderEntry):
    """A message that stands for some that can't be read.

    Attributes:
        first: The first of these.
    """

    __slots__ = ("first",)

    def __init__(self, message: Message, first: Entry) -> None:
        """Take a message."""
        super().__init__(message)
        self.first = first


def with_stand_ins(entries: Sequence[Entry]) -> list[Entry]:
    """Return the entries that have messages, with stand-ins where the model needs one.

    Roles must take turns, beginning with the user's, and a tool's result must follow its call.
    Only where a message can't be read is anything put in: all else is as it was said.
    """
    shown: list[Entry] = []
    gap: _Gap | None = None
    for entry in entries:
        if entry.message is None:
            gap = gap or _Gap(shown, entry)
            continue
        if gap is not None:
            gap.close(entry.message)
            gap = None
        shown.append(entry)
    if gap is not None and shown:
        gap.take_turns("user")  # whoever goes on is the user
    return shown


class _Gap:
    """A place where messages can't be read.

    Args:
        shown: The entries before it, to which stand-ins are added.
        first: The first entry that can't be read.
    """

    def __init__(self, shown: list[Entry], first: Entry) -> None:
        self._shown = shown
        self._first = first
        self._count = 0

    def close(self, after: Message) -> None:
        """Put in what the message behind the gap needs."""
        before = self._shown[-1].message if self._shown else None
        calls, results = set() if before is None else called_ids(before), answered_ids(after)
        if calls and not calls & results:
            self._put("user", [_result(one) for one in sorted(calls)])
            calls = set()
        if results and not calls:
            self._put("assistant", [{"text": _TEXT}, *(_call(one) for one in sorted(results))])
        self.take_turns(after["role"])

    def take_turns(self, role: Role) -> None:
        """Put in a message where two of a role would follow each other."""
        last = self._shown[-1].message if self._shown else None
        if role == ("assistant" if last is None else last["role"]):
            other: Role = "user" if role == "assistant" else "assistant"
            self._append(other, [{"text": _TEXT}])

    def _put(self, role: Role, content: list[ContentBlock]) -> None:
        self.take_turns(role)
        self._append(role, content)

    def _append(self, role: Role, content: list[ContentBlock]) -> None:
        message: Message = {"role": role, "content": content}
        name = self._first.key if isinstance(self._first, HistoryEntry) else self._first.json
        # The same for each who opens the session.
        mark_message(message, f"{name}/stand-in/{self._count}")
        self._count += 1
        self._shown.append(StandIn(message, self._first))


def _result(tool_use_id: str) -> ContentBlock:
    content = [{"text": _TEXT}]
    result = {"toolUseId": tool_use_id, "status": "error", "content": content}
    return cast("ContentBlock", {"toolResult": result})


def _call(tool_use_id: str) -> ContentBlock:
    return {"toolUse": {"toolUseId": tool_use_id, "name": "unreadable", "input": {}}}


def with_missing(
    entries: Sequence[Entry], stored: Sequence[Entry], stand_ins: Mapping[Entry, Entry]
) -> list[Entry]:
    """Return entries with those of a view that can't be read, in their places.

    They leave the view together with what stands for them in memory, or else with what they stand
    behind.

    Args:
        entries: What is in memory.
        stored: The view.
        stand_ins: What stands for the first one of each gap, where anything does.
    """
    if all(one.message is not None for one in stored):  # as a rule
        return list(entries)
    behind: dict[Entry | None, list[Entry]] = {}
    place: Entry | None = None
    is_gap = False
    for entry in stored:
        if entry.message is not None:
            place = entry
        else:
            place = place if is_gap else stand_ins.get(entry, place)
            behind.setdefault(place, []).append(entry)
        is_gap = entry.message is None
    found = behind.get(None, [])[:]
    for one in entries:
        found += [one, *behind.get(one, ())]
    return found
