"""Processes that have an agent of one session, as the state machine over real agents has them."""

import itertools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import hypothesis.strategies as st
from strands import Agent
from strands.hooks import HookRegistry, MessageAddedEvent
from strands.types.content import Message, Messages

from strands_persql import PerSQLSessionManager, RetryPolicy
from strands_persql.testing import Fault, FaultyDatabase
from tests.contract.agents import (
    Options,
    sliding,
    summarizing,
    unmanaged,
)

if TYPE_CHECKING:
    from tests.properties.agents import Agents

FAULTS: tuple[Fault, ...] = (
    "lost_request",
    "lost_answer",
    "duplicate",
    "delayed_duplicate",
    "locked",
)
PATIENT = RetryPolicy(budget=0.05, sleep=lambda _: None)
IMPATIENT = RetryPolicy(budget=0.0, sleep=lambda _: None)
MANAGEMENT: dict[str, Options] = {
    "none": unmanaged,
    "a window": sliding(6),
    "a small window": sliding(3),
    "a window in the turn": sliding(4, per_turn=True),
    "summaries": summarizing(),
}
DOWN = RuntimeError("overloaded")


@dataclass(frozen=True)
class Rest:
    """What becomes of a turn that stopped.

    Attributes:
        goes_on: Whether somebody goes on with it at once.
        others: Whether others have a turn before.
        elsewhere: Whether a new process does.
        twice: Whether another one tries, too.
    """

    goes_on: bool
    others: bool
    elsewhere: bool
    twice: bool


rests = st.builds(Rest, st.booleans(), st.booleans(), st.booleans(), st.booleans())
writers = st.integers(0, 2)
places = st.integers(0, 11)
faults = st.lists(st.sampled_from([None, None, *FAULTS]), max_size=4)


def named(message: Message) -> str:
    """Give the name of a message that was said, or "" of one that never was."""
    for block in message["content"]:
        if "toolUse" in block:
            return f"call {block['toolUse']['toolUseId']}"
        if "toolResult" in block:
            return f"result {block['toolResult']['toolUseId']}"
    found = re.search(r"\bw\d\.\d+\b", str(message["content"]))
    return found.group() if found else ""


class Writer:
    """A process that has an agent of the session, until it ends or is killed.

    Args:
        world: The session.
        number: The process's number.
    """

    def __init__(self, world: "Agents", number: int) -> None:
        self.world, self.number = world, number
        self.faults: list[Fault | None] = []
        self.dead = False
        self.failed = False  # whether its latest turn can be asked again without a prompt
        self.broke_off = False  # whether a fault has ended its latest turn
        self.settled = True  # whether all that it holds is in the database
        self.said: list[str] = []  # by this life of its agent, whether stored or not
        self.snapshot: Any = None
        self._numbers = itertools.count()
        self.database = FaultyDatabase(world.backend.database, self._fault, duplicate_after=3)
        self.agent = self.open()

    def _fault(self, _: int) -> Fault | None:
        if self.dead:
            return "lost_request"
        return self.faults.pop(0) if self.faults else None

    def manager(self) -> PerSQLSessionManager:
        """Open the session in this process."""
        repository = self.world.backend.repository(self.database, retry=self.world.retry)
        return self.world.backend.manager(repository=repository, commit=self.world.commit)

    def open(self) -> Agent:
        """Open the session and restore its agent, in a new process."""
        self.dead, self.faults, self.said = False, [], []
        self.failed = self.broke_off = False
        self.settled, self.snapshot = True, None
        return self.world.scene.open(manager=self.manager(), hooks=[self])

    def register_hooks(self, registry: HookRegistry, **_: Any) -> None:
        """Listen behind the session manager: what it has returned from is stored."""
        registry.add_callback(MessageAddedEvent, self._heard)

    def _heard(self, event: MessageAddedEvent) -> None:
        if self.dead:
            return
        name = named(event.message)
        self.said.append(name)
        ends = event.message["role"] == "assistant" and "call" not in name
        if self.world.commit == "message" and not ends:
            self.world.acknowledge(self)

    def name(self) -> str:
        """Name a message that is about to be said."""
        return f"w{self.number}.{next(self._numbers)}"

    @property
    def waits(self) -> bool:
        """Whether its agent takes nothing but answers."""
        return self.agent._interrupt_state.activated

    @property
    def interrupts(self) -> dict[str, Any]:
        """What its agent waits for, by ids."""
        return self.agent._interrupt_state.interrupts


def results_in(message: Message) -> int:
    blocks = [block["toolResult"] for block in message["content"] if "toolResult" in block]
    return sum(block["content"][0].get("text", "").isdigit() for block in blocks)


def pick(these: list[Writer], number: int) -> Writer:
    return these[number % len(these)]


def are_plain(messages: Messages) -> bool:
    return all("text" in message["content"][0] for message in messages)
