"""Ways in which an agent's memory changes, and whether a restore brings each of them back.

A case has turns with an agent and gives the agent back. Then another manager opens the session, as
a new process would, and what it restores is compared with what the agent holds.
"""

import contextlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from strands import Agent
from strands.agent.conversation_manager import SlidingWindowConversationManager
from strands.types.content import Messages
from strands.types.exceptions import EventLoopException

from strands_persql.testing import Redact, Reply, ScriptedModel, ToolCall
from tests.comparison.stores import Place
from tests.contract.agents import (
    FEATURES,
    OVERFLOW,
    Options,
    edit,
    is_for_summary,
    mark,
    memory,
    paying,
    pin,
    sliding,
    step,
    summarizing,
    unmanaged,
)
from tests.support.conversation import user


class Talk:
    """A session that a case has turns in.

    Args:
        place: Where the session is.
        session_id: The session.
        options: Makes the agent's options, anew for each agent.
    """

    def __init__(self, place: Place, session_id: str, options: Options) -> None:
        self._place = place
        self._session_id = session_id
        self._options = options
        self._numbers = iter(range(1_000))

    def open(self, *replies: Reply) -> Agent:
        """Open the session as a new process would, with a model that gives these replies first."""
        return Agent(
            model=self.model(*replies),
            agent_id="a",
            session_manager=self._place.open_manager(self._session_id),
            callback_handler=None,
            **self._options(),
        )

    def model(self, *replies: Reply) -> ScriptedModel:
        """Make a model that gives these replies, then others, and a summary where it is asked."""
        rest = iter(replies)

        def reply(messages: Messages) -> Reply:
            number = next(self._numbers)
            if is_for_summary(messages):
                return f"summary {number}"
            return next(rest, f"answer {number}")

        model = ScriptedModel(reply, record_calls=False)
        model.update_config(context_window_limit=100_000)
        return model


@dataclass(frozen=True)
class Case:
    """A way in which an agent's memory changes.

    Attributes:
        name: What happens, in words.
        play: Has the turns, and gives the agent.
        options: Makes the agent's options.
        needs: What Strands must have; see `tests.contract.agents.FEATURES`.
    """

    name: str
    play: Callable[[Talk], Agent]
    options: Options
    needs: str | None = None


def is_restored(case: Case, place: Place, session_id: str) -> bool:
    """Whether the agent that a new process opens holds what the case's agent holds."""
    talk = Talk(place, session_id, case.options)
    live = case.play(talk)
    return _comparable(talk.open()) == _comparable(live)


def possible_cases() -> list[Case]:
    """Give the cases that the installed Strands knows of."""
    return [case for case in CASES if case.needs is None or FEATURES[case.needs]]


def _comparable(agent: Agent) -> str:
    return json.dumps(memory(agent), sort_keys=True)


def _turns(talk: Talk, count: int, replies: Iterable[Reply] = ()) -> Agent:
    agent = talk.open(*replies)
    for number in range(count):
        agent(f"q{number}")
    return agent


def _several(count: int, *replies: Reply) -> Callable[[Talk], Agent]:
    return lambda talk: _turns(talk, count, replies)


def _changed(change: Callable[[Agent], object]) -> Callable[[Talk], Agent]:
    def play(talk: Talk) -> Agent:
        agent = _turns(talk, 3, ["a0", ToolCall("step"), "a1", "a2"])
        change(agent)
        agent("q3")
        return agent

    return play


def _truncated(talk: Talk) -> Agent:
    words = {"note": "word " * 400}
    agent = talk.open("hello", ToolCall("step", words), OVERFLOW, "done")
    agent("hi")
    agent("go")
    return agent


def _pinned_in_the_middle(talk: Talk) -> Agent:
    agent = _turns(talk, 2, ["a0", ToolCall("step"), "a1"])
    pin(agent.messages, 2)
    agent.conversation_manager = SlidingWindowConversationManager(4)
    for number in range(2, 6):
        agent(f"q{number}")
    return agent


def _unpinned(talk: Talk) -> Agent:
    agent = _turns(talk, 5)
    del agent.messages[0]["metadata"]
    agent("q5")
    return agent


def _compressed(talk: Talk) -> Agent:
    agent = talk.open("a0", ToolCall("step"), "a1", "a2", ToolCall("step"), "a3", "a4")
    agent.model.update_config(context_window_limit=100)
    for number in range(5):
        agent(f"q{number} " + "word " * 60)
    return agent


def _offloaded(talk: Talk) -> Agent:
    agent = talk.open()
    for number in range(6):
        agent.model = talk.model(ToolCall("step", {"note": f"{number} " + "word " * 2_000}))
        agent.model.update_config(context_window_limit=4_000)
        agent(f"q{number} " + "question " * 20)
    return agent


def _rewound(talk: Talk) -> Agent:
    agent = _turns(talk, 1)
    early = agent.take_snapshot(preset="session")
    agent("q1")
    agent.load_snapshot(early)
    agent("q2")
    return agent


def _stopped(talk: Talk) -> Agent:
    agent = _turns(talk, 1)
    agent.model = talk.model(ToolCall("pay", {"amount": 5}))
    assert agent("Pay 5.").interrupts
    return agent


def _failed(talk: Talk) -> Agent:
    agent = talk.open("a0", ToolCall("step"), ConnectionError("the model is away"))
    agent("q0")
    with contextlib.suppress(EventLoopException):
        agent("q1")
    return agent


def _paying() -> dict[str, Any]:
    return {**unmanaged(), "tools": [paying()[0]]}


def _managed(mode: str) -> Options:
    return lambda: {"context_manager": mode, "tools": [step]}


_LONG: tuple[Reply, ...] = ("a0", *[ToolCall("step")] * 6, "done")
_AGENTIC: tuple[Reply, ...] = (
    *("a0", "a1", "a2", "a3"),
    ToolCall("pin_context", {"select": [2]}),
    ToolCall("summarize_context", {"keep_recent": 2, "summary_ratio": 0.5}),
    "a4",
    ToolCall("truncate_context", {"keep_recent": 2}),
)

PINS, MANAGERS, CHECKPOINTS = "pinned messages", "context managers", "checkpoints"

CASES = (
    Case("a talk with tools and a state", _several(3, "a", ToolCall("count")), unmanaged),
    Case("a sliding window", _several(6), sliding(4)),
    Case("a window that moves within a turn", _several(3, *_LONG), sliding(4, per_turn=True)),
    Case("a turn longer than its window", _several(2, *_LONG), sliding(5)),
    Case("a tool's result that is truncated", _truncated, sliding()),
    Case("an overflow that drops", _several(4, "a", "b", ToolCall("step"), OVERFLOW), sliding(20)),
    Case("a summary", _several(4, "a0", "a1", "a2", OVERFLOW), summarizing()),
    Case(
        "a summary of a summary",
        _several(6, "a0", "a1", "a2", OVERFLOW, "a3", "a4", OVERFLOW),
        summarizing(),
    ),
    Case(
        "a summary in the middle of a turn",
        _several(2, "a0", *[ToolCall("step")] * 4, OVERFLOW, ToolCall("count")),
        summarizing(summary_ratio=0.8),
    ),
    Case("pins at the start", _several(8), sliding(6, pin_first=1), PINS),
    Case("a pin in the middle", _pinned_in_the_middle, sliding(4), PINS),
    Case(
        "pins and a summary",
        _several(4, "a0", "a1", "a2", OVERFLOW),
        summarizing(pin_first=1),
        PINS,
    ),
    Case("a pin that is taken off", _unpinned, sliding(4, pin_first=1), PINS),
    Case(
        "proactive compression",
        _compressed,
        summarizing(proactive_compression={"compression_threshold": 0.5}),
    ),
    Case('`context_manager="auto"`', _offloaded, _managed("auto"), MANAGERS),
    Case('`context_manager="agentic"`', _several(6, *_AGENTIC), _managed("agentic"), MANAGERS),
    Case("a message that is edited", _changed(lambda agent: edit(agent.messages, 0)), unmanaged),
    Case("a message that is marked", _changed(lambda agent: mark(agent.messages, 4)), unmanaged),
    Case(
        "messages that are removed",
        _changed(lambda agent: agent.messages.__delitem__(slice(2, 6))),
        unmanaged,
    ),
    Case(
        "a message that is put in",
        _changed(lambda agent: agent.messages.insert(0, user("put in"))),
        unmanaged,
    ),
    Case("a rewind", _rewound, unmanaged, CHECKPOINTS),
    Case("a redaction", _several(2, "a0", Redact("[redacted]")), unmanaged),
    Case("an interrupt that waits", _stopped, _paying),
    Case("a turn that failed", _failed, unmanaged),
)
"""Each of them ends with the agent at rest, so that every store had the chance to save."""
