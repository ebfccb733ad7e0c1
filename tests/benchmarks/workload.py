"""What is measured: agents that work, the systems that store them, and the places that count."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from strands import Agent, ToolContext, tool
from strands.agent.conversation_manager import (
    NullConversationManager,
    SlidingWindowConversationManager,
)
from strands.session.repository_session_manager import RepositorySessionManager
from strands.session.session_manager import SessionManager
from strands.types.content import Messages

from strands_persql import (
    Database,
    PerSQLSessionManager,
    PerSQLSessionRepository,
)
from strands_persql.testing import CountingDatabase, Reply, ScriptedModel, ToolCall
from tests.benchmarks.baseline import BaselineSessionManager
from tests.engine.engine import Engine
from tests.engine.proxy import FaultProxy
from tests.support.backends import Address

USD_PER_REQUEST = 0.50e-6
USD_PER_ROW_READ = 0.005e-6
USD_PER_ROW_WRITTEN = 2.00e-6

AGENT_ID = "assistant"
TIME = "2026-01-01T00:00:00+00:00"

_T = TypeVar("_T")


# -- agents that work ------------------------------------------------------------------------------


@tool(context=True)
def note(text: str, tool_context: ToolContext) -> str:
    """Note something down, in the agent's state.

    Args:
        text: What.
    """
    notes = tool_context.agent.state.get("notes") or 0
    tool_context.agent.state.set("notes", notes + 1)
    return f"noted: {text}"


def reply(messages: Messages) -> Reply:
    """Call as many tools, one after the other, as the last prompt has words "note"."""
    calls = 0
    for message in reversed(messages):
        text = "".join(block.get("text", "") for block in message["content"])
        if message["role"] == "user" and text:
            wanted = text.count("note")
            return ToolCall("note", {"text": "x" * 100}) if calls < wanted else "Done. " + "y" * 200
        calls += any("toolUse" in block for block in message["content"])
    return "There is nothing to do."


def new_agent(manager: SessionManager | None, *, window: int | None = None) -> Agent:
    """Make an agent, with a sliding window if its size is given."""
    return Agent(
        model=ScriptedModel(reply, record_calls=False),  # a record would cost time
        agent_id=AGENT_ID,
        tools=[note],
        session_manager=manager,
        conversation_manager=NullConversationManager()
        if window is None
        else SlidingWindowConversationManager(window_size=window),
        callback_handler=None,
    )


def take_turn(agent: Agent, tools: int = 0) -> None:
    """Have a turn of 2 messages, and 2 more for each tool, each of which changes the state."""
    agent("Please " + "note " * tools + "what I say. " + "z" * 200)


# -- what stores them ------------------------------------------------------------------------------


class System(Protocol):
    """Makes a session's manager, as a process does that has just begun."""

    def __call__(self, session_id: str, database: Database) -> RepositorySessionManager: ...


def ours(commit: Literal["message", "turn"]) -> System:
    """Give this package under one of its two ways to commit."""

    def manager(session_id: str, database: Database) -> RepositorySessionManager:
        return PerSQLSessionManager(session_id, database, commit=commit)

    return manager


SYSTEMS: dict[str, System] = {
    "baseline": BaselineSessionManager,
    "message": ours("message"),
    "turn": ours("turn"),
}


def make_tables(system: str, database: Database) -> None:
    """Make the tables, which is done once and not a part of any step."""
    if system == "baseline":
        BaselineSessionManager("first", database)
    else:
        PerSQLSessionRepository(database).setup()


def seed(database: Database, session_id: str, count: int, size: int = 400) -> None:
    """Write a history of messages into a session whose agent has none, past every manager."""
    data = (
        """'{"message":{"role":"' || CASE i % 2 WHEN 0 THEN 'user' ELSE 'assistant' END"""
        """ || '","content":[{"text":"' || ? || i || '"}]},"message_id":' || i"""
        """ || ',"redact_message":null,"created_at":"' || ? || '","updated_at":"' || ? || '"}'"""
    )
    for first in range(0, count, 10_000):
        last = min(first + 10_000, count) - 1
        database.query(
            "INSERT INTO strands_messages"
            " (session_id, agent_id, message_id, data, created_at, updated_at)"
            f" WITH RECURSIVE n(i) AS (SELECT {first} UNION ALL SELECT i + 1 FROM n"
            f" WHERE i < {last}) SELECT ?, ?, i, {data}, ?, ? FROM n",
            [session_id, AGENT_ID, "x" * size, TIME, TIME, TIME, TIME],
        )


# -- where it is counted ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Cost:
    """What a step has asked of the database; on a file only its round trips are known."""

    round_trips: int
    rows_read: int = 0
    rows_written: int = 0
    bytes_up: int = 0
    bytes_down: int = 0

    @property
    def usd(self) -> float:
        """What it costs at the published prices."""
        return (
            self.round_trips * USD_PER_REQUEST
            + self.rows_read * USD_PER_ROW_READ
            + self.rows_written * USD_PER_ROW_WRITTEN
        )

    def __truediv__(self, turns: int) -> "Cost":
        """Give the mean of several turns, rounded up."""
        return Cost(
            *(
                -(-total // turns)
                for total in (
                    self.round_trips,
                    self.rows_read,
                    self.rows_written,
                    self.bytes_up,
                    self.bytes_down,
                )
            )
        )


class Place:
    """A database, and what counts there: its round trips, and on the wire everything."""

    def __init__(self, database: Database, proxy: FaultProxy | None = None) -> None:
        self.database = CountingDatabase(database)
        self._proxy = proxy

    def measure(self, act: Callable[[], _T]) -> tuple[_T, Cost]:
        """Do something, and count what it asks of the database."""
        self.database.reset()
        if self._proxy is None:
            result = act()
            return result, Cost(self.database.round_trips)
        self._proxy.reset()
        result = act()
        answers = [json.loads(body)["meta"] for r in self._proxy.requests for _, body in r.answers]
        return result, Cost(
            self._proxy.count,
            sum(meta["rowsRead"] for meta in answers),
            sum(meta["rowsWritten"] for meta in answers),
            self._proxy.bytes_up,
            self._proxy.bytes_down,
        )


@contextmanager
def file_place(path: Path) -> Iterator[Place]:
    """Open a file to count on."""
    with Address(str(path)).open() as database:
        yield Place(database)


@contextmanager
def wire_place(engine: Engine, name: str) -> Iterator[Place]:
    """Open a database on the engine to count on."""
    with (
        FaultProxy(engine.base_url) as proxy,
        Address(proxy.base_url, name, engine.token()).open() as database,
    ):
        yield Place(database, proxy)


# -- the steps -------------------------------------------------------------------------------------

NEW = "open a new session, first agent"
RESTORE = "open a session that exists, restore its agent"
REOPEN = "open it again in this process, unchanged"
REOPEN_STALE = "the same within `max_staleness`"
FIRST_TURN = "first plain turn after a restore (2 messages)"
PLAIN_TURN = "plain turn (2 messages)"
TOOL_TURN = "tool turn, state changed (4 messages)"
TRIMMED_TURN = "the same while a sliding window trims"
LONG_TURN = "turn with 5 tool calls (12 messages)"
UPDATE_AGENT = "`update_agent` on its own"
UPDATE_MESSAGE = "`update_message` on its own"

STEPS = (
    NEW,
    RESTORE,
    REOPEN,
    REOPEN_STALE,
    FIRST_TURN,
    PLAIN_TURN,
    TOOL_TURN,
    TRIMMED_TURN,
    LONG_TURN,
    UPDATE_AGENT,
    UPDATE_MESSAGE,
)


def measure_steps(system: str, place: Place, *, history: int = 20) -> dict[str, Cost]:
    """Take each step once and count what it asks of the database."""
    make, database = SYSTEMS[system], place.database
    make_tables(system, database)
    costs: dict[str, Cost] = {}

    def step(name: str, act: Callable[[], _T]) -> _T:
        result, costs[name] = place.measure(act)
        return result

    step(NEW, lambda: new_agent(make("steps", database)))
    seed(database, "steps", history)
    manager = make("steps", database)
    agent = new_agent(manager)
    assert len(agent.messages) == history
    agent = step(RESTORE, lambda: new_agent(make("steps", database)))
    step(FIRST_TURN, lambda: take_turn(agent))
    step(PLAIN_TURN, lambda: take_turn(agent))
    step(TOOL_TURN, lambda: take_turn(agent, tools=1))
    step(LONG_TURN, lambda: take_turn(agent, tools=5))
    _measure_reopening(system, place, step)
    _measure_updates(make("steps", database), step)

    trimming = new_agent(make("trimmed", database), window=8)
    for _ in range(4):
        take_turn(trimming, tools=1)
    step(TRIMMED_TURN, lambda: take_turn(trimming, tools=1))
    return costs


def _measure_reopening(system: str, place: Place, step: Callable[[str, Any], Any]) -> None:
    if system == "baseline":  # which remembers nothing, so that every opening is like the first
        for name in (REOPEN, REOPEN_STALE):
            step(name, lambda: new_agent(BaselineSessionManager("steps", place.database)))
        return
    for name, max_staleness in ((REOPEN, 0.0), (REOPEN_STALE, 60.0)):
        repository = PerSQLSessionRepository(place.database, max_staleness=max_staleness)
        new_agent(PerSQLSessionManager("steps", repository=repository))
        step(name, partial(_open_again, "steps", repository))


def _open_again(session_id: str, repository: PerSQLSessionRepository) -> Agent:
    return new_agent(PerSQLSessionManager(session_id, repository=repository))


def _measure_updates(manager: RepositorySessionManager, step: Callable[[str, Any], Any]) -> None:
    repository = manager.session_repository
    agent = repository.read_agent("steps", AGENT_ID)
    message = repository.list_messages("steps", AGENT_ID)[-1]
    assert agent is not None
    agent.state["mood"] = "good"
    message.redact_message = {"role": "assistant", "content": [{"text": "(redacted)"}]}
    step(UPDATE_AGENT, lambda: repository.update_agent("steps", agent))
    step(UPDATE_MESSAGE, lambda: repository.update_message("steps", AGENT_ID, message))


def measure_tool_turns(
    system: str, place: Place, history: int, *, window: int | None = None, turns: int = 5
) -> Cost:
    """Give the mean cost of a tool turn beyond a history of so many messages."""
    make, session_id = SYSTEMS[system], f"after-{history}-{window}"
    make_tables(system, place.database)
    new_agent(make(session_id, place.database), window=window)
    seed(place.database, session_id, history)
    agent = new_agent(make(session_id, place.database), window=window)
    assert len(agent.messages) == history
    take_turn(agent, tools=1)

    def work() -> None:
        for _ in range(turns):
            take_turn(agent, tools=1)

    return place.measure(work)[1] / turns


def measure_reopening(place: Place, history: int) -> Cost:
    """Give the cost of opening a session again that nobody has changed."""
    repository = PerSQLSessionRepository(place.database)
    repository.setup()
    _open_again("reopened", repository)
    seed(place.database, "reopened", history)
    _open_again("reopened", repository)
    agent, cost = place.measure(partial(_open_again, "reopened", repository))
    assert len(agent.messages) == history
    return cost
