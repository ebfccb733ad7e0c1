"""Judges what agents of the torture had in memory: what was shown, opened, dropped and edited."""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tests.concurrency.journal import TOKEN, Entry

Journals = Mapping[int, Sequence[Entry]]

EDIT = re.compile(r"(\bw\d+\.\d+\.u) \(edit (\d+)\)")


def dropped_by_any(journals: Journals) -> set[str]:
    """Give all tokens that somebody has dropped from the memory of all, or may have.

    A writer whose call never ended may have dropped all that it held.
    """
    found: set[str] = set()
    for entries in journals.values():
        held: set[str] = set()
        open_call = False
        for entry in [*entries, {"kind": "started", "held": []}]:
            kind = entry["kind"]
            if kind == "turn":
                open_call = True
            elif kind == "shown":
                held |= set(entry["tokens"])
            elif kind == "changed":
                found |= set(entry["dropped"])
                held |= set(entry["loaded"])
            elif kind == "held":
                found |= held - set(entry["tokens"])
                held, open_call = set(entry["tokens"]), False
            elif kind == "started":
                found |= held if open_call else set()
                held, open_call = set(entry.get("held") or ()), False
    return found


def _certain(entries: Sequence[Entry], how: str) -> Iterator[tuple[Entry, float | None]]:
    """Give each change of a kind, and the time at which it was known to be stored, or None."""
    waiting: list[Entry] = []
    for entry in entries:
        kind = entry["kind"]
        if kind == "changed" and entry["how"] == how:
            waiting.append(entry)
        elif kind == "held":
            yield from ((one, entry["at"]) for one in waiting)
            waiting = []
        elif kind in ("started", "crashed"):
            yield from ((one, None) for one in waiting)
            waiting = []
    yield from ((one, None) for one in waiting)


def _changes(journals: Journals) -> Iterator[Entry]:
    for entries in journals.values():
        yield from (entry for entry in entries if entry["kind"] == "changed")


def wrong_drops(journals: Journals) -> Iterator[str]:
    """Find models that were shown what had been dropped before they were asked."""
    back = {name for entry in _changes(journals) for name in entry["revived"]}
    gone = {
        name: at
        for entries in journals.values()
        for entry, at in _certain(entries, "drop")
        if at is not None
        for name in entry["dropped"]
        if name not in back
    }
    for number, entries in journals.items():
        for entry in entries:
            if entry["kind"] == "shown":
                for name in entry["tokens"]:
                    if gone.get(name, float("inf")) < entry["since"]:
                        yield f"writer {number} was shown {name}, which had been dropped"


def wrong_edits(journals: Journals, rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Find rows that don't say what their writer's latest edit says, or that say more than one."""
    loaded = {name for entry in _changes(journals) for name in entry["loaded"]}
    least: Counter[str] = Counter()
    most: Counter[str] = Counter()
    for entries in journals.values():
        for entry, at in _certain(entries, "edit"):
            for name in entry["edits"]:
                most[name] += 1
                least[name] = least[name] if at is None else most[name]
    for row in rows:
        said = set(EDIT.findall(row["data"]))
        for name in set(TOKEN.findall(row["data"])) & set(most) - loaded:
            edits = {int(number) for edited, number in said if edited == name}
            latest = max(edits, default=0)
            if not least[name] <= latest <= most[name] or len(edits) > 1:
                yield (
                    f"{name} has the edits {sorted(edits)} of {most[name]}, {least[name]} of them"
                    " acknowledged"
                )


def wrong_answers(journals: Journals) -> Iterator[str]:
    """Find interrupts whose tools ran for more than one answer."""
    runs = Counter(
        entry["interrupt"]
        for entries in journals.values()
        for entry in entries
        if entry["kind"] == "approved"
    )
    for name, number in runs.items():
        if number > 1:
            yield f"{name} was approved {number} times"


def wrong_opens(
    journals: Journals, settled: Mapping[str, float], dropped: set[str]
) -> Iterator[str]:
    """Find models that were asked with something else than who opened the session then was given.

    Args:
        journals: What writers wrote down.
        settled: Since when each token's turn has been stored whole.
        dropped: What somebody may have dropped.
    """
    for number, entries in journals.items():
        for entry in entries:
            if entry["kind"] == "shown" and entry.get("fresh") is not None:
                shown, fresh, since = entry["tokens"], entry["fresh"], entry["since"]
                old = {name for name, time in settled.items() if time < since} - dropped
                for name in sorted(old & set(fresh) - set(shown)):
                    yield f"writer {number} wasn't shown {name}, which a new process was given"
                for name in sorted(old & set(shown) - set(fresh)):
                    yield f"writer {number} was shown {name}, which a new process wasn't given"
                both = old & set(fresh) & set(shown)
                if [one for one in shown if one in both] != [one for one in fresh if one in both]:
                    yield f"writer {number} was shown another order than a new process"


def wrong_rest(rest: Entry) -> Iterator[str]:
    """Find what is wrong at rest: an agent that had a turn, and one that was opened after it.

    Args:
        rest: What the agent ``held``, what was ``restored``, what its model was ``asked`` with and
            what it had been given when it was ``opened``: messages as JSON makes them.
    """
    if rest["restored"] != rest["held"]:
        yield f"at rest {_short(rest['restored'])} is restored, not {_short(rest['held'])}"
    if _without_made_up(rest["asked"][:-1], rest["opened"]) != rest["opened"]:
        yield f"at rest a model is asked {_short(rest['asked'])}, not {_short(rest['opened'])}"
    if rest["unpaired"]:
        yield f"at rest a model is shown half of {rest['unpaired']}"
    places = defaultdict(list)
    for place, message in enumerate(rest["held"]):
        for name in dict.fromkeys(TOKEN.findall(json.dumps(message))):
            places[name].append(place)
    for name, found in places.items():
        if len(found) > 1:
            yield f"at rest {name} is in memory {len(found)} times"


def _without_made_up(asked: list[Any], opened: list[Any]) -> list[Any]:
    """Return what a model is asked without the results that Strands puts behind a last call."""
    calls = any("toolUse" in block for message in opened[-1:] for block in message["content"])
    return asked[:-1] if calls and len(asked) == len(opened) + 1 else asked


def _short(messages: Sequence[Any]) -> list[str]:
    return [" ".join(TOKEN.findall(json.dumps(one))) or json.dumps(one)[:40] for one in messages]
