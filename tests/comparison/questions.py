"""What is asked of each store, on what a user would feel."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from strands import Agent, tool

from strands_persql.testing import Reply, ScriptedModel, ToolCall
from tests.comparison.cases import is_restored, possible_cases
from tests.comparison.stores import Place
from tests.contract.agents import answers, paying, step, unmanaged
from tests.support.conversation import count, said

MEGABYTE = 1_000_000
DOCUMENT = b"%PDF" + bytes(5 * MEGABYTE)
LOCAL = "-"
"""Shown for round trips where there is no network."""

WRITER_TURNS = 5


@dataclass(frozen=True)
class Question:
    """A column of the table.

    Attributes:
        head: What is above it.
        ask: Gives a store's answer, in a place of its own.
    """

    head: str
    ask: Callable[[Place], str]


def _open(place: Place, *replies: Reply, **options: Any) -> Agent:
    return Agent(
        model=ScriptedModel(replies or (lambda _: "y" * 500), record_calls=False),
        agent_id="a",
        session_manager=place.open_manager("s"),
        callback_handler=None,
        **{**unmanaged(), **options},
    )


def two_writers(place: Place) -> str:
    """Let two open one session and take turns; tell what a third finds of what was stored.

    Only turns that ended without an error count as stored.
    """
    writers = {who: _open(place) for who in ("one", "two")}
    for who, agent in writers.items():
        agent.state.set(who, "was here")
    stored: list[str] = []
    refused = 0
    for number in range(WRITER_TURNS):
        for who, agent in writers.items():
            asked, replied = f"from {who}, {number}", f"to {who}, {number}"
            agent.model = ScriptedModel([replied])
            try:
                agent(asked)
            except Exception:  # noqa: BLE001 - each store has an error of its own
                refused += 1
            else:
                stored += [asked, replied]
    found = _open(place)
    kept = [text for text in stored if text in said(found.messages)]
    answer = f"{len(kept)} of {len(stored)}; {len(found.state.get())} of {len(writers)}"
    return answer + (f" ({refused} turns refused)" if refused else "")


def overlapping_turns(place: Place) -> str:
    """Let a turn take place while another one waits for its tool; tell what a third finds."""
    two = _open(place)

    @tool
    def wait() -> str:
        """Wait, while somebody else has a turn."""
        two("from two")
        return "waited"

    one = _open(place, ToolCall("wait"), "to one", tools=[wait])
    two.model = ScriptedModel(["to two"])
    try:
        one("from one")
    except Exception:  # noqa: BLE001 - each store has an error of its own
        return "refused"
    found = said(_open(place).messages)
    turns = [["from one", "call wait", "result waited", "to one"], ["from two", "to two"]]
    return "whole" if found in (turns[0] + turns[1], turns[1] + turns[0]) else "torn"


def restored(place: Place) -> str:
    """Tell how many of the cases are restored as they were."""
    wrong = not_restored(place)
    cases = len(possible_cases())
    return f"{cases - len(wrong)} of {cases}"


def not_restored(place: Place) -> list[str]:
    """Give the names of the cases that aren't restored as they were."""
    cases = enumerate(possible_cases())
    return [case.name for number, case in cases if not is_restored(case, place, f"s{number}")]


def _round_trips(place: Place, act: Callable[[], object]) -> str:
    before, _ = place.asked()
    act()
    return str(place.asked()[0] - before) if place.remote else LOCAL


def opening(place: Place) -> str:
    """Count the round trips of opening a session of 200 messages."""
    _talk(place)
    return _round_trips(place, lambda: _open(place))


def plain_turn(place: Place) -> str:
    """Count the round trips of a turn of two messages."""
    agent = _open(place)
    agent("hello")
    return _round_trips(place, lambda: agent("hello again"))


def tool_turn(place: Place) -> str:
    """Count the round trips of a turn that calls a tool five times, and changes the state."""
    agent = _open(place)
    agent("hello")
    agent.model = ScriptedModel([*[ToolCall("count")] * 5, "done"])
    return _round_trips(place, lambda: agent("count to five"))


def _talk(place: Place) -> Agent:
    agent = _open(place)
    for number in range(100):
        agent(f"{number} " + "x" * 500)
    return agent


def sent(place: Place) -> str:
    """Tell how much is sent, or written, for a talk of 200 messages."""
    _talk(place)
    return _megabytes(place.asked()[1])


def big_content(place: Place) -> str:
    """Tell what becomes of a document of 5 MB, and how much it and the next ten turns send."""
    agent = _open(place)
    document: Any = {"document": {"format": "pdf", "name": "paper", "source": {"bytes": DOCUMENT}}}
    before = place.asked()[1]
    try:
        agent([{"text": "Read this."}, document])
    except Exception:  # noqa: BLE001 - each store has an error of its own
        return "refused"
    for _ in range(10):
        agent("And what else?")
    size = place.asked()[1] - before
    kept = [block for one in _open(place).messages for block in one["content"]]
    if document not in kept:
        return "lost"
    return _megabytes(size)


def answered_twice(place: Place) -> str:
    """Let two processes answer one interrupt; tell how often the tool pays."""
    pay, paid = paying()
    tools = {"tools": [pay, step, count]}
    stopped = _open(place, ToolCall("pay", {"amount": 5}), **tools)("Pay 5.")
    for agent in [_open(place, "done", **tools) for _ in range(2)]:
        with contextlib.suppress(Exception):  # refused is what it should be
            agent(answers(stopped.interrupts, "Ada"))
    return {1: "once", 2: "twice"}.get(len(paid), str(len(paid)))


def _megabytes(size: int) -> str:
    return f"{size / MEGABYTE:.1f} MB"


QUESTIONS = (
    Question("two writers: messages; states that remain", two_writers),
    Question("turns that overlap", overlapping_turns),
    Question("restored as it was", restored),
    Question("open 200 messages", opening),
    Question("plain turn", plain_turn),
    Question("5-tool turn", tool_turn),
    Question("sent for 200 messages", sent),
    Question("a 5 MB document and 10 turns", big_content),
    Question("an interrupt answered twice pays", answered_twice),
)
