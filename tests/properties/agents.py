"""Real agents of one session, alone or beside another writer, in any order of what they may do."""

import itertools
import re
from collections import Counter
from collections.abc import Callable
from typing import Any, ClassVar

import hypothesis.strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from strands import Agent
from strands.hooks import HookRegistry, MessageAddedEvent
from strands.types.content import Message, Messages

from strands_persql import LocalDatabase, PerSQLSessionManager, RetryPolicy
from strands_persql.testing import Fault, FaultyDatabase, Redact, Reply, ToolCall
from tests.contract.agents import (
    FEATURES,
    OVERFLOW,
    Options,
    Scene,
    alike,
    answers,
    is_for_summary,
    memory,
    outcome,
    paying,
    pin,
    sliding,
    summarizing,
    unmanaged,
)
from tests.support.backends import Backend

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

writers = st.integers(0, 1)
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
        self.failed, self.settled, self.snapshot = False, True, None
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


class Agents(RuleBasedStateMachine):
    """One session, its writers, and what must hold after each step."""

    commit: ClassVar[str] = "message"
    number: ClassVar[int] = 1
    retry: ClassVar[RetryPolicy] = PATIENT

    def __init__(self) -> None:
        super().__init__()
        self.local = LocalDatabase()
        self.backend = Backend(self.local)
        self.pay, self.paid = paying()
        self.acknowledged: list[str] = []
        self.wrong: list[str] = []
        self.waiting: list[Any] | None = None  # the interrupts that nobody has answered yet
        self.writers: list[Writer] = []

    @initialize(management=st.sampled_from(sorted(MANAGEMENT)))
    def start(self, management: str) -> None:
        """All open the session."""
        make = MANAGEMENT[management]
        self.managed = management

        def options() -> dict[str, Any]:
            made = make()
            return {**made, "tools": [*made["tools"], self.pay]}

        self.scene = Scene(self.backend, self.commit, options)
        self.writers = [Writer(self, number) for number in range(self.number)]

    def teardown(self) -> None:
        """Let what is late arrive, and look once more."""
        for writer in self.writers:
            writer.database.deliver_late()
        if self.writers:
            self.rows_are_right()
        self.local.close()

    # -- what happens ------------------------------------------------------------------------

    def free(self) -> list[Writer]:
        """Give the writers whose agents take prompts."""
        return [one for one in self.writers if not one.waits]

    def stale(self) -> list[Writer]:
        """Give the writers who wait for an answer that somebody else has been given."""
        known = {one.id for one in self.waiting or ()}
        return [one for one in self.writers if one.waits and set(one.interrupts) != known]

    def _free(self, number: int) -> Writer:
        return _pick(self.free(), number)

    def _turn(self, writer: Writer, *replies: Reply, prompt: Any = "", new: bool = True) -> str:
        """Let a writer's agent have a turn, and tell how it ended."""
        script = self.scene.script(*replies)
        writer.agent.model = self.scene.model(
            replying=lambda messages: self._asked(writer, messages, script)
        )
        prompt = writer.name() if new else prompt
        writer.failed = False
        how = "failed"
        try:
            how = outcome(lambda: writer.agent(prompt))
        except Exception as error:
            if "overloaded" not in str(error):
                raise
            writer.failed = True
        if how == "done" or writer.failed:
            self.acknowledge(writer)
        writer.settled = how == "done" or (writer.failed and not writer.dead)
        if writer.settled:
            self._check_restored(writer)
        writer.faults = []
        return how

    def _asked(
        self, writer: Writer, messages: Messages, script: Callable[[Messages], Reply]
    ) -> Reply:
        reply = script(messages)
        # A window that moves before a call moves in a new process, too, when that calls its model.
        moves = self.managed == "a window in the turn" or is_for_summary(messages)
        if self.commit == "message" and not self.waiting and not moves:
            fresh = self.scene.open()
            if alike(fresh.messages) != alike(messages):
                self.wrong.append(f"{writer.number} was asked {messages}, not {fresh.messages}")
        return reply

    def _check_restored(self, writer: Writer) -> None:
        if self.waiting or writer.waits:
            return
        fresh = self.scene.open()
        if memory(fresh)["messages"] != memory(writer.agent)["messages"]:
            self.wrong.append(
                f"{writer.number} holds {writer.agent.messages}, not {fresh.messages}"
            )
        if fresh.state.get() != writer.agent.state.get():
            self.wrong.append(f"state {writer.agent.state.get()}, not {fresh.state.get()}")
        if self.number == 1 and memory(fresh) != memory(writer.agent):
            self.wrong.append(f"{memory(writer.agent)} is not {memory(fresh)}")

    def acknowledge(self, writer: Writer) -> None:
        """Take note that all that a writer has said is stored."""
        known = set(self.acknowledged)
        self.acknowledged += [name for name in writer.said if name and name not in known]

    @precondition(lambda self: self.free())
    @rule(number=writers, tools=st.integers(0, 3), together=st.booleans(), faults=faults)
    def turn(self, number: int, tools: int, together: bool, faults: list[Fault | None]) -> None:
        """A turn, with tools or without, whatever befalls its requests."""
        writer = self._free(number)
        calls = [ToolCall("count", {}, writer.name()) for _ in range(tools)]
        writer.faults = list(faults)
        replies: list[Reply] = [calls] if together and calls else [*calls]
        self._turn(writer, *replies, writer.name())

    @precondition(lambda self: self.free())
    @rule(number=writers, again=st.booleans())
    def failing_turn(self, number: int, again: bool) -> None:
        """A turn whose model fails, at once or when a tool has run."""
        writer = self._free(number)
        replies: list[Reply] = [ToolCall("count", {}, writer.name())] if again else []
        self._turn(writer, *replies, DOWN)

    @precondition(lambda self: any(one.failed for one in self.free()))
    @rule(number=writers)
    def retry_turn(self, number: int) -> None:
        """The model is asked again, without a prompt, after it failed."""
        writer = _pick([one for one in self.free() if one.failed], number)
        self._turn(writer, writer.name(), prompt=None, new=False)

    @precondition(lambda self: self.free())
    @rule(number=writers)
    def guarded_turn(self, number: int) -> None:
        """A turn whose prompt is redacted."""
        writer = self._free(number)
        name = writer.name()
        guarded = Redact(f"[gone] {name}", writer.name())
        self._turn(writer, guarded, prompt=f"SECRET {name}", new=False)

    @precondition(lambda self: self.free() and self.managed == "summaries")
    @rule(number=writers)
    def summarized_turn(self, number: int) -> None:
        """A turn whose model overflows at first."""
        writer = self._free(number)
        overflows = [OVERFLOW] * (len(writer.agent.messages) > 4)
        self._turn(writer, *overflows, writer.name())

    # -- what an application does --------------------------------------------------------------

    @precondition(lambda self: self.free())
    @rule(
        number=writers,
        how=st.sampled_from(["edit", "drop", "insert", "clear", "pin", "mark", "copy"]),
        place=places,
        sync=st.booleans(),
    )
    def change(self, number: int, how: str, place: int, sync: bool) -> None:
        """An application changes an agent's messages between two turns."""
        writer = self._free(number)
        messages = writer.agent.messages
        plain = [n for n, one in enumerate(messages) if "text" in one["content"][0]]
        if writer.failed or not plain:
            return
        index = plain[place % len(plain)]
        self._change(writer, how, index)
        writer.settled = False
        if sync:
            manager: Any = writer.agent._session_manager
            manager.sync_agent(writer.agent)
            writer.settled = True
            self._check_restored(writer)

    def _change(self, writer: Writer, how: str, index: int) -> None:
        agent = writer.agent
        messages = agent.messages
        if how == "edit":
            messages[index]["content"][0]["text"] += " (edited)"
        elif how == "drop" and _pairs(messages[index : index + 2]):
            del messages[index : index + 2]
        elif how == "insert":
            messages.insert(index, {"role": "user", "content": [{"text": "put in"}]})
        elif how == "clear":
            messages.clear()
        elif how == "pin" and FEATURES["pinned messages"]:
            pin(messages, index)
        elif how == "mark":
            messages[index].setdefault("metadata", {})["custom"] = {"seen": True}
        elif how == "copy":
            agent.messages = [dict(one) for one in messages]  # type: ignore[misc]

    @precondition(lambda self: self.free())
    @rule(number=writers)
    def take_snapshot(self, number: int) -> None:
        """A point is kept to go back to."""
        writer = self._free(number)
        writer.snapshot = writer.agent.take_snapshot(preset="session")

    @precondition(lambda self: any(one.snapshot for one in self.free()))
    @rule(number=writers)
    def rewind(self, number: int) -> None:
        """An agent goes back to a point that was kept, and has a turn."""
        writer = _pick([one for one in self.free() if one.snapshot], number)
        writer.agent.load_snapshot(writer.snapshot)
        self._turn(writer, writer.name())

    # -- turns that wait -----------------------------------------------------------------------

    @precondition(lambda self: self.waiting is None and self.free())
    @rule(number=writers)
    def interrupted_turn(self, number: int) -> None:
        """A turn that stops, to ask a human."""
        writer = self._free(number)
        self._turn(writer, ToolCall("pay", {"amount": 1}, writer.name()))
        self.waiting = list(writer.interrupts.values())

    @precondition(lambda self: bool(self.waiting))
    @rule(number=writers)
    def answer(self, number: int) -> None:
        """A human answers, in a process that knows of the question."""
        known = {one.id for one in self.waiting or ()}
        knowing = [one for one in self.writers if set(one.interrupts) == known]
        if not knowing:
            return
        writer, before = _pick(knowing, number), len(self.paid)
        prompt = answers(self.waiting, f"human {before}")
        self.waiting = None
        self._turn(writer, writer.name(), prompt=prompt, new=False)
        if len(self.paid) != before + 1:
            self.wrong.append("an answer had no effect")

    @precondition(lambda self: self.stale())
    @rule(number=writers)
    def answer_late(self, number: int) -> None:
        """Who answers what has been answered is refused, and opens the session again."""
        writer, before = _pick(self.stale(), number), list(self.paid)
        prompt = answers(list(writer.interrupts.values()), "late")
        how = outcome(lambda: writer.agent(prompt))
        if how != "ConflictError" or self.paid != before:
            self.wrong.append(f"a late answer was {how}, and paid by {self.paid}")
        writer.agent = writer.open()

    # -- processes -----------------------------------------------------------------------------

    @rule(number=writers, orderly=st.booleans())
    def restart(self, number: int, orderly: bool) -> None:
        """A process ends, with its manager closed or not, and another one takes its place."""
        writer = _pick(self.writers, number)
        if orderly:
            manager: Any = writer.agent._session_manager
            manager.close()
        writer.agent = writer.open()

    @precondition(lambda self: self.free())
    @rule(number=writers, after=st.integers(0, 2))
    def kill(self, number: int, after: int) -> None:
        """A process is killed in the middle of a turn."""
        writer = self._free(number)
        replies: list[Reply] = [ToolCall("count", {}, writer.name()) for _ in range(after)]
        script = self.scene.script(*replies, writer.name())
        left = itertools.count()

        def reply(messages: Messages) -> Reply:
            answer = self._asked(writer, messages, script)
            if next(left) == after:
                writer.dead = True
            return answer

        writer.agent.model = self.scene.model(replying=reply)
        outcome(lambda: writer.agent(writer.name()))
        writer.agent = writer.open()

    @rule(number=writers)
    def stragglers_arrive(self, number: int) -> None:
        """What is late arrives."""
        _pick(self.writers, number).database.deliver_late()

    # -- what must hold ------------------------------------------------------------------------

    @invariant()
    def nothing_is_wrong(self) -> None:
        """Nothing that was looked at while it happened was wrong, or invalid for a model."""
        assert self.wrong == []
        if self.writers:
            assert self.scene.invalid == []

    @invariant()
    def rows_are_right(self) -> None:
        """What was acknowledged is there once, each turn is whole, and no secret is left."""
        if not self.writers:
            return
        rows = self.scene.rows() if self._has_tables() else []
        names = [name for row in rows if (name := named(row["message"]))]
        assert [name for name, number in Counter(names).items() if number > 1] == []
        assert [name for name in self.acknowledged if name not in names] == []
        for number in range(self.number):
            own = [name for name in names if f"w{number}." in name]
            told = [name for name in self.acknowledged if f"w{number}." in name]
            assert [name for name in own if name in set(told)] == told
        turns = [turn for turn, _ in self.scene.turns()] if rows else []
        assert len(turns) == len(set(turns))
        assert "SECRET" not in str([row["message"] for row in rows])

    def _has_tables(self) -> bool:
        found = self.backend.raw("SELECT 1 FROM sqlite_master WHERE name = 'strands_messages'")
        return bool(found)


def _pick(these: list[Writer], number: int) -> Writer:
    return these[number % len(these)]


def _pairs(messages: Messages) -> bool:
    return all("text" in message["content"][0] for message in messages)
