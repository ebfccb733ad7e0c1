"""Judges a session by its tables alone and its writers' journals of what was acknowledged.

It knows nothing of how the library works, only what must hold: see `check`.
"""

import json
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, TypeAlias

from strands_persql import Value
from tests.concurrency.journal import SECRET, TOKEN, Entry, writer_of
from tests.concurrency.views import (
    dropped_by_any,
    wrong_answers,
    wrong_drops,
    wrong_edits,
    wrong_opens,
    wrong_rest,
)

Row: TypeAlias = Mapping[str, Any]
Query: TypeAlias = Callable[[str, Sequence[Value]], Sequence[Row]]
Kind: TypeAlias = Literal[
    "bad row",
    "message lost",
    "message doubled",
    "message unknown",
    "write doubled",
    "order",
    "turn torn",
    "turn halved",
    "result apart",
    "increment lost",
    "increment invented",
    "redaction lost",
    "version",
    "creation time",
    "window",
    "history",
    "memory",
    "drop lost",
    "edit lost",
    "answered twice",
    "crash",
]

_PAGE = 1_000


@dataclass(frozen=True)
class Violation:
    """Something that must hold and doesn't."""

    kind: Kind
    what: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.what}"


@dataclass(frozen=True)
class Tables:
    """The rows of one agent and its session, the messages in the order of their ids."""

    sessions: Sequence[Row]
    agents: Sequence[Row]
    messages: Sequence[Row]


def read_tables(query: Query, session_id: str, agent_id: str, newest: int | None = None) -> Tables:
    """Read the rows as they stand, at rest: messages come in several reads.

    Args:
        query: Runs a SELECT.
        session_id: The session.
        agent_id: The agent.
        newest: How many messages to read from the end on, or None for all of them.
    """
    key = (session_id, agent_id)
    messages: list[Row] = []
    if newest is not None:
        messages += query(
            "SELECT * FROM strands_messages WHERE session_id = ? AND agent_id = ?"
            f" ORDER BY message_id DESC LIMIT {newest}",
            key,
        )[::-1]
    else:
        while True:
            after = messages[-1]["message_id"] if messages else -1
            page = query(
                "SELECT * FROM strands_messages WHERE session_id = ? AND agent_id = ?"
                f" AND message_id > ? ORDER BY message_id LIMIT {_PAGE}",
                (*key, after),
            )
            messages += page
            if len(page) < _PAGE:
                break
    return Tables(
        query("SELECT * FROM strands_sessions WHERE session_id = ?", (session_id,)),
        query("SELECT * FROM strands_agents WHERE session_id = ? AND agent_id = ?", key),
        messages,
    )


def check(
    tables: Tables,
    journals: Mapping[int, Sequence[Entry]],
    *,
    commit: Literal["message", "turn"] = "message",
    rest: Entry | None = None,
) -> list[Violation]:
    """Give everything that is wrong.

    What must hold:

    - Every acknowledged message is there once; no message and no write is there twice,
      acknowledged or not; there is none that nobody wrote.
    - Each writer's messages stand in the order in which it wrote them.
    - Each turn is one block; a tool's result stands right behind its call; with ``turn``
      commits, a turn is there whole or not at all, unless the writer was told of a failure.
    - Every acknowledged increment is in the agent's state, and none that wasn't tried.
    - Redacted text is nowhere.
    - The agent's version has grown by one at least for each acknowledged change, its row
      remembers no write twice, and the time of its creation is that of its data.
    - Rows are sound: JSON of the right shape, and ids that agree.
    - What a model was shown is the history as it was, without gaps or repetitions, but for what
      somebody has dropped; what was dropped isn't shown again; an edit stands.
    - Who opens the session while a model is asked is given what it is asked with.
    - An interrupt is answered once.
    - At rest, what is restored is what the agent held that had the last turn.

    Args:
        tables: The rows.
        journals: Each writer's journal, by its number.
        commit: How the writers committed.
        rest: What was seen at rest, when all was over.
    """
    case = _Case(tables, {number: _Writer(number, of) for number, of in journals.items()})
    rules = [
        check_rows(tables),
        check_blocks(tables.messages),
        _check_presence(case),
        _check_order(case),
        _check_turns(case, whole=commit == "turn"),
        _check_counters(case),
        _check_redactions(case),
        _check_versions(case),
        _check_history(case),
        _check_memory(case, rest),
        _check_crashes(case),
    ]
    return [violation for rule in rules for violation in rule]


@dataclass
class _Turn:
    tokens: list[str]
    secret: str | None
    failed: bool = False


@dataclass
class _Writer:
    """A journal, read once."""

    number: int
    entries: Sequence[Entry]
    turns: list[_Turn] = field(default_factory=list)
    order: dict[str, int] = field(default_factory=dict)  # of each token that was tried
    run: dict[str, int] = field(default_factory=dict)  # in which of the writer's lives
    acknowledged: dict[str, float] = field(default_factory=dict)  # and when
    changes: int = 0  # acknowledgements that had increments in them

    def __post_init__(self) -> None:
        run = ran = 0
        for entry in self.entries:
            kind = entry["kind"]
            if kind == "started":
                run, ran = run + 1, 0
            elif kind == "turn":
                self.turns.append(_Turn(entry["tokens"], entry["secret"]))
                for name in entry["tokens"]:
                    self.order[name], self.run[name] = len(self.order), run
            elif kind == "ran":
                ran += 1
            elif kind == "acknowledged":
                self.acknowledged.update(dict.fromkeys(entry["tokens"], entry["at"]))
                self.changes += ran > 0
                ran = 0
            elif kind in ("failed", "crashed") and self.turns:
                self.turns[-1].failed = True


@dataclass
class _Case:
    tables: Tables
    writers: Mapping[int, _Writer]

    @cached_property
    def places(self) -> dict[str, list[int]]:
        """Where each token stands: indexes of messages."""
        found: dict[str, list[int]] = defaultdict(list)
        for index, row in enumerate(self.tables.messages):
            for name in tokens_of(row):
                found[name].append(index)
        return dict(found)

    @cached_property
    def journals(self) -> dict[int, Sequence[Entry]]:
        """Each writer's journal, by its number."""
        return {number: writer.entries for number, writer in self.writers.items()}

    @cached_property
    def moved(self) -> set[str]:
        """What writers said in turns that others have gone on with, and moved behind theirs."""
        last: dict[str, int] = {}
        for row in self.tables.messages:
            last.update((row["turn"], writer_of(name)) for name in tokens_of(row))
        return {
            name
            for name, places in self.places.items()
            for turn in [self.tables.messages[places[-1]]["turn"]]
            if turn and last.get(turn) != writer_of(name)
        }

    @cached_property
    def dropped(self) -> set[str]:
        """What somebody may have dropped from memory, for all."""
        return dropped_by_any(self.journals)


# -- the rules -----------------------------------------------------------------------------------


def check_rows(tables: Tables) -> Iterator[Violation]:
    """Check that each row is sound in itself, and that there is one session and one agent."""
    for name, rows in (("session", tables.sessions), ("agent", tables.agents)):
        if len(rows) != 1:
            yield Violation("bad row", f"there are {len(rows)} rows of the {name}")
    for row in (*tables.sessions, *tables.agents):
        if not isinstance(_json(row), dict):
            yield Violation("bad row", f"this is no JSON object: {row['data']!r}")
    for row in tables.messages:
        where, data = f"message {row['message_id']}", _json(row)
        if not isinstance(data, dict) or not isinstance(data.get("message"), dict):
            yield Violation("bad row", f"{where} is no message: {row['data']!r}")
        elif data.get("message_id") != row["message_id"]:
            yield Violation("bad row", f"{where} says that it is {data.get('message_id')!r}")
        elif row["version"] < 1:
            yield Violation("bad row", f"{where} has version {row['version']}")


def check_blocks(messages: Sequence[Row]) -> Iterator[Violation]:
    """Check what must hold for any stretch of the messages, at any moment."""
    seen: set[str] = set()
    for before, row in zip([None, *messages], messages, strict=False):
        turn, where = row["turn"], f"message {row['message_id']}"
        if turn and turn in seen and (before is None or before["turn"] != turn):
            yield Violation("turn torn", f"{where} is of turn {turn}, which had ended before it")
        seen.add(turn)
        called = set() if before is None or before["turn"] != turn else _calls(before)
        # Results that Strands makes up for calls without one have no token.
        if before is not None and TOKEN.search(row["data"]) and _real_results(row) - called:
            lost = ", ".join(sorted(_real_results(row) - called))
            yield Violation("result apart", f"{where} has the result of {lost} without the call")
    for write_id, count in Counter(row["write_id"] for row in messages).items():
        if write_id and count > 1:
            yield Violation("write doubled", f"write {write_id} stored {count} messages")
    for name, count in Counter(name for row in messages for name in tokens_of(row)).items():
        if count > 1:
            yield Violation("message doubled", f"{name} is there {count} times")


def _check_presence(case: _Case) -> Iterator[Violation]:
    for writer in case.writers.values():
        for name in writer.acknowledged:
            if name not in case.places:
                yield Violation("message lost", f"{name} was acknowledged and isn't there")
    for name in case.places:
        writer_is = case.writers.get(writer_of(name))
        if writer_is is None or name not in writer_is.order:
            yield Violation("message unknown", f"nobody wrote {name}")


def _check_order(case: _Case) -> Iterator[Violation]:
    # What was never acknowledged may come late, after the death of its writer: a request that was
    # held up on its way. Between two lives of a writer only the acknowledged have an order.
    newest: dict[tuple[int, int | None], tuple[int, str]] = {}
    for name in sorted(case.places, key=lambda name: (case.places[name][0], _order(case, name))):
        writer = case.writers.get(writer_of(name))
        if writer is None or name not in writer.order or name in case.moved:
            continue
        chains: list[int | None] = [writer.run[name]]
        if name in writer.acknowledged:
            chains.append(None)
        for chain in chains:
            last = newest.get((writer.number, chain), (-1, ""))
            if last[0] > writer.order[name]:
                yield Violation("order", f"{name} stands behind {last[1]}")
                break
            newest[writer.number, chain] = (writer.order[name], name)


def _order(case: _Case, name: str) -> int:
    writer = case.writers.get(writer_of(name))
    return -1 if writer is None else writer.order.get(name, -1)


def _check_turns(case: _Case, *, whole: bool) -> Iterator[Violation]:
    for writer in case.writers.values():
        for turn in writer.turns:
            there = [name for name in turn.tokens if name in case.places]
            ids = {case.tables.messages[case.places[name][0]]["turn"] for name in there}
            first = turn.tokens[0]
            if not turn.failed and len(ids) > 1:
                yield Violation("turn torn", f"the turn of {first} is {len(ids)} turns")
            if there != turn.tokens[: len(there)]:
                gone = next(name for name in turn.tokens if name not in there)
                yield Violation("turn torn", f"{gone} is missing before {there[-1]}")
            elif whole and not turn.failed and there and there != turn.tokens:
                yield Violation("turn halved", f"the turn of {first} ends with {there[-1]}")


def _check_counters(case: _Case) -> Iterator[Violation]:
    final = _state(case.tables)
    for writer in case.writers.values():
        # What is certain, what isn't yet acknowledged, and all that was ever tried.
        certain, pending, tried = [0, 0], 0, 0
        for entry in (*writer.entries, {"kind": "end", "counted": counted(final, writer.number)}):
            kind, when = entry["kind"], f"writer {writer.number}, {entry['kind']}"
            if kind == "ran":
                pending, tried = pending + 1, tried + 1
            if kind not in ("started", "acknowledged", "end"):
                continue
            if kind != "acknowledged":
                pending = 0
            for place, (value, least) in enumerate(zip(entry["counted"], certain, strict=True)):
                if value < least + pending:
                    yield Violation(
                        "increment lost",
                        f"{when}: {value} where {least + pending} were counted"
                        f" ({'own key' if place == 0 else 'nested key'})",
                    )
                if value > tried:
                    yield Violation("increment invented", f"{when}: {value} of {tried} tried")
            certain, pending = list(entry["counted"]), 0


def _check_redactions(case: _Case) -> Iterator[Violation]:
    secrets = {
        secret
        for writer in case.writers.values()
        for entry in writer.entries
        if entry["kind"] == "redacted"
        for secret in entry["secrets"]
    }
    for row in (*case.tables.messages, *case.tables.agents):
        for secret in SECRET.findall(row["data"]):
            if secret in secrets:
                yield Violation("redaction lost", f"{secret} is still there")


def _check_versions(case: _Case) -> Iterator[Violation]:
    changes = sum(writer.changes for writer in case.writers.values())
    for row in case.tables.agents:
        if row["version"] < changes + 1:
            yield Violation(
                "version", f"version {row['version']} after {changes} acknowledged changes"
            )
        writes = row["writes"].split()
        if len(set(writes)) != len(writes):
            yield Violation("version", f"a write is remembered twice: {row['writes']}")
        if len(writes) > row["version"] - 1:
            yield Violation("version", f"{len(writes)} writes made version {row['version']}")
        data = _json(row)
        if not isinstance(data, dict):
            continue
        if data.get("created_at") != row["created_at"]:
            yield Violation(
                "creation time", f"{row['created_at']} in the row, {data.get('created_at')} inside"
            )
        newest = max((one["message_id"] for one in case.tables.messages), default=-1)
        if (row["window_start"] or 0) > newest + 1:
            yield Violation("window", f"it begins at {row['window_start']}, behind {newest}")


def _check_history(case: _Case) -> Iterator[Violation]:
    settled = _settled(case)
    for writer in case.writers.values():
        own: list[str] = []  # in their order, for so they were acknowledged
        for entry in writer.entries:
            if entry["kind"] == "acknowledged":
                own += entry["tokens"]
            elif entry["kind"] == "shown":
                yield from _check_shown(case, writer, entry, own)
                yield from _check_freshness(case, entry, settled)


def _check_shown(
    case: _Case, writer: _Writer, entry: Entry, own: Sequence[str]
) -> Iterator[Violation]:
    shown: list[str] = entry["tokens"]
    when = f"the model call of {shown[-1:]}"
    for name, count in Counter(shown).items():
        if count > 1:
            yield Violation("history", f"{when} was shown {name} {count} times")
    for name in entry["unpaired"]:
        yield Violation("history", f"{when} was shown half of {name}")
    run = max((writer.run[name] for name in shown if name in writer.run), default=0)
    mine = (
        [
            writer.order[name]
            for name in shown
            if name not in case.moved
            and (name in writer.acknowledged or writer.run.get(name) == run)
        ]
        if run
        else []
    )
    if mine != sorted(mine):
        yield Violation("history", f"{when} was shown its writer's messages out of order")
    if mine:
        start = bisect_right(own, min(mine), key=lambda name: writer.order[name])
        for name in set(own[start:]) - set(shown) - case.dropped:
            yield Violation("history", f"{when} wasn't shown {name}, which its writer had stored")


def _check_freshness(case: _Case, entry: Entry, settled: Sequence[float]) -> Iterator[Violation]:
    shown = set(entry["tokens"])
    places = [case.places[name][0] for name in shown if name in case.places]
    if not places:
        return
    for place in range(min(places), max(places)):
        if settled[place] < entry["since"]:
            for name in tokens_of(case.tables.messages[place]) - shown - case.dropped:
                yield Violation(
                    "history",
                    f"the model call of {entry['tokens'][-1:]} wasn't shown {name},"
                    " which was stored before it began",
                )


def _settled(case: _Case) -> list[float]:
    """Tell of each message since when it, and the turn that it is of, were acknowledged whole.

    A turn without its answer may go on, and moves behind others when it does: out of the window
    that a model is shown, and into it again. It is never settled.
    """
    times: dict[str, float] = {}
    for writer in case.writers.values():
        times |= writer.acknowledged
    ended: dict[str, float] = defaultdict(float)
    for row in case.tables.messages:
        for name in tokens_of(row):
            ended[row["turn"]] = max(ended[row["turn"]], times.get(name, float("inf")))
    answered = {row["turn"]: ".a" in row["data"] for row in case.tables.messages}
    ended.update((turn, float("inf")) for turn, is_answered in answered.items() if not is_answered)
    return [ended[row["turn"]] for row in case.tables.messages]


def _check_memory(case: _Case, rest: Entry | None) -> Iterator[Violation]:
    settled = {
        name: time
        for row, time in zip(case.tables.messages, _settled(case), strict=True)
        for name in tokens_of(row)
    }
    for what in wrong_opens(case.journals, settled, case.dropped):
        yield Violation("memory", what)
    for what in wrong_drops(case.journals):
        yield Violation("drop lost", what)
    for what in wrong_edits(case.journals, case.tables.messages):
        yield Violation("edit lost", what)
    for what in wrong_answers(case.journals):
        yield Violation("answered twice", what)
    if rest is not None:
        for what in wrong_rest(rest):
            yield Violation("memory", what)


def _check_crashes(case: _Case) -> Iterator[Violation]:
    for writer in case.writers.values():
        for entry in writer.entries:
            if entry["kind"] == "crashed":
                yield Violation("crash", f"writer {writer.number}: {entry['error']}")


# -- what rows hold --------------------------------------------------------------------------------


def tokens_of(row: Row) -> set[str]:
    """Give the tokens in a message; its text may stand there twice, before and after redaction."""
    return set(TOKEN.findall(row["data"]))


def counted(state: Mapping[str, Any], writer: int) -> list[int]:
    """Give a writer's two counters: one under its own key, one within the key that all share."""
    own = state.get(f"w{writer}") or {}
    shared = (state.get("shared") or {}).get("by") or {}
    return [own.get("count", 0), shared.get(f"w{writer}", 0)]


def _state(tables: Tables) -> Mapping[str, Any]:
    for row in tables.agents:
        data = _json(row)
        if isinstance(data, dict) and isinstance(data.get("state"), dict):
            return dict(data["state"])
    return {}


def _json(row: Row) -> Any:
    try:
        return json.loads(row["data"])
    except (TypeError, ValueError):
        return None


def _content(row: Row) -> list[dict[str, Any]]:
    data = _json(row)
    if not isinstance(data, dict):
        return []
    message = data.get("redact_message") or data.get("message") or {}
    return list(message.get("content") or [])


def _calls(row: Row) -> set[str]:
    return {block["toolUse"]["toolUseId"] for block in _content(row) if "toolUse" in block}


def _real_results(row: Row) -> set[str]:
    return {
        block["toolResult"]["toolUseId"]
        for block in _content(row)
        if "toolResult" in block and TOKEN.search(json.dumps(block["toolResult"]["content"]))
    }
