"""Whether one agent's messages are whole, side by side and in order: read one by one."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from strands.types.session import SessionMessage

from strands_persql.admin.access import Access
from strands_persql.admin.findings import Finding
from strands_persql.errors import CorruptRowError
from strands_persql.gateway.batch import Row
from strands_persql.persistence.cached import StoredMessage
from strands_persql.persistence.view import View
from strands_persql.runtime.clock import now
from strands_persql.runtime.ids import AgentKey
from strands_persql.tables import checking, repairing
from strands_persql.tables.cells import number_in, text_in
from strands_persql.tables.codec import fields_of
from strands_persql.tables.encoding import to_json
from strands_persql.tables.large_content import listed, split_large

_LOST = "The result of this call was lost."


@dataclass(frozen=True)
class _Message:
    """What is remembered of the message before.

    Attributes:
        message_id: Its id.
        turn: Its turn.
        calls: The ids of the tools that it calls, or None where it can't be read.
        write_id: The write that stored it.
    """

    message_id: int
    turn: str
    calls: tuple[str, ...] | None
    write_id: str = ""


@dataclass
class _Turn:
    """Where a turn's messages are."""

    first: int
    last: int


class HistoryCheck:
    """Takes an agent's messages in order and tells what is wrong with them.

    Args:
        access: The database.
        key: The agent.
        view: What the agent works with.
        gaps: Where truncations have left gaps: the write before each, and the step over it.
    """

    def __init__(
        self, access: Access, key: AgentKey, view: View, gaps: frozenset[tuple[Any, ...]]
    ) -> None:
        """Begin before the first message."""
        self._access, self._key, self._view, self._gaps = access, key, view, gaps
        self._before: _Message | None = None
        self._before_live: _Message | None = None  # the same, of what the agent is not behind
        self._turns: dict[str, _Turn] = {}
        self._torn: list[tuple[int, int]] = []
        self._answered: set[str] = set()

    def message(self, row: Row) -> Iterator[Finding]:
        """Take the next message."""
        message_id, turn = number_in(row["message_id"]), text_in(row["turn"])
        calls: tuple[str, ...] | None = None
        yield from self._counter(row, message_id)
        try:
            record = self._read(row)
        except CorruptRowError as error:
            yield self._unreadable(row, message_id, str(error))
        else:
            yield from self._numbering(row, message_id)
            calls, results = _tools(record)
            if not row["is_rewound"]:  # else others of its call may have been rewound too
                yield from self._pairs(row, record, turn, results)
        yield from self._place(message_id, turn)
        self._before = _Message(message_id, turn, calls, text_in(row["write_id"]))
        if not row["is_rewound"]:
            self._before_live = self._before

    def end(self) -> Iterator[Finding]:
        """Tell what is known only after the last message."""
        for first, last in _merged(self._torn):
            yield self._interleaved(first, last)

    def _read(self, row: Row) -> SessionMessage:
        data = self._access.whole(row["data"], self._key.session_id)
        message_id = number_in(row["message_id"])
        stored = StoredMessage(message_id, 1, "", text_in(row["turn"]), "", data)
        return self._access.codec.read_message(self._key, stored)

    def _finding(self, kind: Any, message_id: int, what: str) -> Finding:
        return Finding(kind, self._key.session_id, self._key.agent_id, message_id, what)

    def _row_key(self, message_id: int) -> dict[str, Any]:
        return {**self._key.context, "message_id": message_id}

    def _counter(self, row: Row, message_id: int) -> Iterator[Finding]:
        if is_counter(row["counter"], 1):
            return
        reset = repairing.reset_counter(
            self._access.tables, "messages", self._row_key(message_id), "version"
        )
        yield replace(
            self._finding("counter", message_id, "a message's version is not a number from 1 on"),
            repair="set the version to 1",
            statements=(reset, self._mark()),
        )

    def _unreadable(self, row: Row, message_id: int, why: str) -> Finding:
        delete = repairing.delete_row(
            self._access.tables, "messages", self._row_key(message_id), row["data"]
        )
        return replace(
            self._finding("unreadable", message_id, why),
            repair="delete the message's row; export the session first to keep what it holds",
            statements=(delete, self._mark()),
        )

    def _numbering(self, row: Row, message_id: int) -> Iterator[Finding]:
        said = json.loads(row["data"]).get("message_id")
        if said == message_id:
            return
        fields = {**json.loads(row["data"]), "message_id": message_id}
        yield replace(
            self._finding("misnumbered", message_id, f"a message's JSON gives its id as {said!r}"),
            repair=f"set the id in the JSON to {message_id}",
            statements=(self._replace(row, message_id, _compact(fields)), self._mark()),
        )

    def _replace(self, row: Row, message_id: int, data: str) -> Any:
        return repairing.replace_data(
            self._access.tables,
            "messages",
            self._row_key(message_id),
            found=row["data"],
            data=data,
        )

    def _mark(self) -> Any:
        return repairing.mark_repaired(self._access.tables, self._key)

    # -- calls of tools ------------------------------------------------------------------------

    def _pairs(
        self, row: Row, record: SessionMessage, turn: str, results: tuple[str, ...]
    ) -> Iterator[Finding]:
        before = self._before_live or _Message(-1, "", ())
        if before.calls is None:  # nobody knows what it has called
            return
        lost = [one for one in results if one not in before.calls]
        if lost:
            yield self._without_call(row, record, lost)
        self._answered.update(results)
        missing = [one for one in before.calls if one not in results]
        if self._is_truncated(before, record.message_id):
            return
        if missing and before.turn == turn != "":
            yield self._lost_result(before, record.message_id, missing, is_whole=not results)

    def _without_call(self, row: Row, record: SessionMessage, lost: list[str]) -> Finding:
        blocks = record.to_message()["content"]
        if len(lost) == len(blocks) and self._answered.issuperset(lost):
            delete = repairing.delete_row(
                self._access.tables, "messages", self._row_key(record.message_id), row["data"]
            )
            return replace(
                self._finding(
                    "doubled", record.message_id, f"the result {lost[0]!r} is there already"
                ),
                repair="delete the second one",
                statements=(delete, self._mark()),
            )
        finding = self._finding(
            "hole",
            record.message_id,
            f"the call of the result {lost[0]!r} is lost",
        )
        rewritten = split_large(to_json(fields_of(_without_results(record, lost)), "message"))
        if not listed(row["data"]).keys() >= rewritten.leaves.keys():
            return finding  # it takes more than a statement to store what is large
        return replace(
            finding,
            repair="keep what the result says as text, which models take without a call",
            statements=(self._replace(row, record.message_id, rewritten.text), self._mark()),
        )

    def _lost_result(
        self, before: _Message, message_id: int, missing: list[str], *, is_whole: bool
    ) -> Finding:
        finding = self._finding(
            "hole", before.message_id, f"the result of the call {missing[0]!r} is lost"
        )
        if not is_whole or message_id <= before.message_id + 1:
            return finding
        place, time = before.message_id + 1, now()
        record = SessionMessage(
            {"role": "user", "content": [_lost_result(one) for one in missing]},
            place,
            created_at=time,
            updated_at=time,
        )
        insert = repairing.insert_message(
            self._access.tables,
            self._key,
            place,
            data=to_json(fields_of(record), "message"),
            turn=before.turn,
            time=time,
        )
        return replace(
            finding,
            repair=f"store a result that says so, as message {place}",
            statements=(insert, self._mark()),
        )

    # -- turns ---------------------------------------------------------------------------------

    def _is_truncated(self, before: _Message | None, message_id: int) -> bool:
        """Whether what is missing behind a message was deleted by a truncation."""
        return (
            before is not None and (before.write_id, message_id - before.message_id) in self._gaps
        )

    def _place(self, message_id: int, turn: str) -> Iterator[Finding]:
        before, known = self._before, self._turns.get(turn)
        if not turn:
            return
        if known is None:
            self._turns[turn] = _Turn(message_id, message_id)
            return
        if before is not None and before.turn != turn:
            self._torn.append((known.first, message_id))
        # A turn moves as a whole, so its ids stay side by side; a lost result is told by its call.
        elif (
            message_id > known.last + 1
            and not (before and before.calls)
            and not self._is_truncated(before, message_id)
        ):
            yield self._finding(
                "hole",
                known.last,
                f"between the messages {known.last} and {message_id} of one turn"
                f" {message_id - known.last - 1} are lost",
            )
        known.last = message_id

    def _interleaved(self, first: int, last: int) -> Finding:
        finding = self._finding(
            "interleaved_turn",
            first,
            f"from message {first} to {last} turns are mixed with each other",
        )
        if _is_cut(self._view, first, last):
            return finding
        statement = checking.read_turns(self._access.found, self._key, (first, last))
        rows = self._access.rows(statement, **self._key.context)
        found = [(number_in(row["message_id"]), text_in(row["turn"])) for row in rows]
        return replace(
            finding,
            repair="put each turn's messages side by side, a turn that ended later behind",
            statements=repairing.reorder_messages(
                self._access.tables, self._key, found, _side_by_side(found)
            ),
        )


def is_counter(counter: Any, least: int) -> bool:
    """Whether a column, given by its type and value, is a whole number and large enough."""
    kind, _, value = text_in(counter).partition(" ")
    return kind == "integer" and int(value) >= least


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _tools(record: SessionMessage) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the ids of the tools that a message calls, and of those that it answers."""
    blocks: Any = record.to_message()["content"]
    calls = tuple(one["toolUse"]["toolUseId"] for one in blocks if "toolUse" in one)
    results = tuple(one["toolResult"]["toolUseId"] for one in blocks if "toolResult" in one)
    return calls, results


def _lost_result(tool_use_id: str) -> Any:
    result = {"toolUseId": tool_use_id, "status": "error", "content": [{"text": _LOST}]}
    return {"toolResult": result}


def _without_results(record: SessionMessage, lost: list[str]) -> SessionMessage:
    """Return a message in which the content of some results is kept apart."""
    message: Any = record.to_message()
    blocks = [new for block in message["content"] for new in _opened(block, lost)]
    changed: Any = {**message, "content": blocks}
    redacted = None if record.redact_message is None else changed
    return SessionMessage(
        record.message if redacted else changed,
        record.message_id,
        redacted,
        record.created_at,
        record.updated_at,
    )


def _opened(block: Mapping[str, Any], lost: list[str]) -> Iterator[Any]:
    result = block.get("toolResult")
    if result is None or result["toolUseId"] not in lost:
        yield block
        return
    for part in result.get("content", []):
        yield {"text": _compact(part["json"])} if "json" in part else part


def _is_cut(view: View, first: int, last: int) -> bool:
    """Whether a view has a part of a range of ids before its window."""
    ranges = [one for one in view.head if not isinstance(one, str)]
    return any(
        one <= last and first <= other and not (one <= first and last <= other)
        for one, other in ranges
    )


def _merged(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return ranges of ids, those that overlap made one."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], last))
        else:
            merged.append((first, last))
    return merged


def _side_by_side(messages: Sequence[tuple[int, str]]) -> list[int]:
    """Return the new id of each message."""
    last = {turn: message_id for message_id, turn in messages if turn}
    ids = [message_id for message_id, _ in messages]
    ordered = [
        message_id for _, message_id in sorted((last.get(turn, one), one) for one, turn in messages)
    ]
    new = dict(zip(ordered, ids, strict=True))
    return [new[one] for one in ids]
