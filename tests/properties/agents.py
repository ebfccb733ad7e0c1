"""Real agents of one session, alone or beside another writer, in any order of what they may do."""

import copy
import itertools
from collections import Counter
from collections.abc import Callable
from typing import Any, ClassVar, cast

import hypothesis.strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from strands.types.content import Messages

from strands_persql import LocalDatabase
from strands_persql.testing import Fault, Redact, Reply, ToolCall
from tests.contract.agents import (
    FEATURES,
    OVERFLOW,
    Scene,
    alike,
    answers,
    content,
    contents,
    is_for_summary,
    memory,
    outcome,
    paying,
    pin,
)
from tests.properties.writers import (
    DOWN,
    IMPATIENT,
    MANAGEMENT,
    PATIENT,
    Rest,
    Writer,
    are_plain,
    faults,
    named,
    pick,
    places,
    rests,
    results_in,
    writers,
)
from tests.support.backends import Backend


class Agents(RuleBasedStateMachine):
    """One session, its writers, and what must hold after each step."""

    commit: ClassVar[str] = "message"
    number: ClassVar[int] = 1

    def __init__(self) -> None:
        super().__init__()
        self.local = LocalDatabase()
        self.backend = Backend(self.local)
        self.retry = PATIENT
        self.pay, self.paid = paying()
        self.acknowledged: list[str] = []
        self.wrong: list[str] = []
        self.waiting: list[Any] | None = None  # the interrupts that nobody has answered yet
        self.writers: list[Writer] = []
        self.checkpoints: list[Any] = []
        self.again: Counter[str] = Counter()  # how often a prompt was said once more

    @initialize(management=st.sampled_from(sorted(MANAGEMENT)), patient=st.booleans())
    def start(self, management: str, patient: bool) -> None:
        """All open the session."""
        make = MANAGEMENT[management]
        self.managed = management
        self.retry = PATIENT if patient else IMPATIENT

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
        return pick(self.free(), number)

    def _turn(
        self,
        writer: Writer,
        *replies: Reply,
        prompt: Any = "",
        new: bool = True,
        replying: Callable[[Messages], Reply] | None = None,
        alone: bool = True,
    ) -> str:
        """Let a writer's agent have a turn, and tell how it ended."""
        script = replying or self.scene.script(*replies)
        writer.agent.model = self.scene.model(
            replying=lambda messages: self._asked(writer, messages, script)
        )
        prompt = writer.name() if new else prompt
        writer.failed = writer.broke_off = False
        how, begun = "failed", self._begin(writer)
        try:
            how = outcome(lambda: writer.agent(prompt))
        except Exception as error:
            if "overloaded" not in str(error):
                raise
            writer.failed = True
        if how == "done" or writer.failed:
            self.acknowledge(writer)
        writer.settled = how == "done" or (writer.failed and not writer.dead)
        writer.broke_off = not writer.settled and how != "ConflictError"
        if writer.settled:
            self._check_restored(writer, alone=alone)
            self._check_kept(writer, begun)
        writer.faults = []
        return how

    def _begin(self, writer: Writer) -> tuple[list[Any], int, int]:
        held = [content(message) for message in writer.agent.messages]
        return held, len(self.scene.said), writer.agent.state.get("n") or 0

    def _check_kept(self, writer: Writer, begun: tuple[list[Any], int, int]) -> None:
        """Check that a turn that nobody else had a part in has left what it found, and said."""
        if self.number > 1:
            return
        held, place, counted = begun
        spoken = [message for message, _ in self.scene.said[place:]]
        kept = [*held, *map(content, spoken)]
        if self.managed == "none" and contents(writer.agent.messages) != kept:
            self.wrong.append(f"{writer.agent.messages} is left of {kept}")
        runs = sum(results_in(message) for message in spoken)
        if (writer.agent.state.get("n") or 0) != counted + runs:
            self.wrong.append(f"{writer.agent.state.get()} after {counted} and {runs} more")

    def _asked(
        self, writer: Writer, messages: Messages, script: Callable[[Messages], Reply]
    ) -> Reply:
        asked = alike(messages)
        # A window that moves before a call moves in a new process, too, when that calls its model.
        moves = self.managed == "a window in the turn" or is_for_summary(messages)
        if self.commit == "message" and not self.waiting and not moves:
            fresh = self.scene.open()
            if alike(fresh.messages) != asked:
                self.wrong.append(f"{writer.number} was asked {messages}, not {fresh.messages}")
        return script(messages)

    def _check_restored(self, writer: Writer, *, alone: bool = True) -> None:
        if self.waiting or writer.waits:
            return
        fresh = self.scene.open()
        restored, held = memory(fresh)["messages"], memory(writer.agent)["messages"]
        if not alone:  # what others have said meanwhile is brought in when its next turn begins
            restored = [one for one in restored if one in held]
        if restored != held and (alone or self.managed == "none"):
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

    @precondition(lambda self: len(self.free()) > 1)
    @rule(number=writers, tool=st.booleans(), twice=st.booleans())
    def overlapping_turns(self, number: int, tool: bool, twice: bool) -> None:
        """A turn of one writer that begins and ends while another's is under way."""
        outer = self._free(number)
        inner = next(one for one in self.free() if one is not outer)
        said_then: list[Reply] = [ToolCall("count", {}, outer.name()), outer.name()]
        replies = iter(said_then[1 - tool :])
        left = iter([True] * (1 + twice))

        def reply(_: Messages) -> Reply:
            if next(left, False):
                self._turn(inner, inner.name())
            return next(replies)

        self._turn(outer, prompt=outer.name(), new=False, replying=reply, alone=False)

    @precondition(lambda self: self.free())
    @rule(number=writers, tool=st.booleans(), then=rests)
    def failing_turn(self, number: int, tool: bool, then: Rest) -> None:
        """A turn whose model fails, at once or when a tool has run, and that may go on."""
        writer = self._free(number)
        replies: list[Reply] = [ToolCall("count", {}, writer.name())] if tool else []
        self._turn(writer, *replies, DOWN)
        if then.goes_on and not self.waiting:
            self._go_on(writer, None, then)

    @precondition(lambda self: any(one.failed for one in self.free()))
    @rule(number=writers)
    def retry_turn(self, number: int) -> None:
        """The model is asked again, without a prompt, after it failed."""
        writer = pick([one for one in self.free() if one.failed], number)
        self._turn(writer, writer.name(), prompt=None, new=False)

    @precondition(lambda self: any(one.broke_off for one in self.free()))
    @rule(number=writers, faults=faults)
    def go_on_after_a_fault(self, number: int, faults: list[Fault | None]) -> None:
        """An agent goes on, without a prompt, with a turn that a fault has broken off."""
        writer = pick([one for one in self.free() if one.broke_off], number)
        if writer.agent.messages:
            writer.faults = list(faults)
            self._turn(writer, writer.name(), prompt=None, new=False)

    @precondition(lambda self: self.free())
    @rule(number=writers, place=places, copied=st.booleans(), sync=st.booleans())
    def say_again(self, number: int, place: int, copied: bool, sync: bool) -> None:
        """A prompt is said once more, as the same object, though copies may be in its place."""
        writer = self._free(number)
        agent = writer.agent
        prompts = [one for one in agent.messages if one["role"] == "user" and are_plain([one])]
        if not prompts or (agent.messages and "toolUse" in str(agent.messages[-1])):
            return
        again = prompts[place % len(prompts)]
        if copied:
            agent.messages = copy.deepcopy(agent.messages)
        if sync:
            cast("Any", agent._session_manager).sync_agent(agent)
        rows, before = [row["message"] for row in self.scene.rows()], len(self.scene.said)
        self.again[named(again)] += 1
        self._turn(writer, f"said again {before}", prompt=[again], new=False)
        more = [row["message"] for row in self.scene.rows()]
        if writer.settled and len(more) < len(rows) + len(self.scene.said) - before:
            self.wrong.append(f"{again} was said again, and isn't there: {more}")

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
            held = contents(writer.agent.messages)
            manager.sync_agent(writer.agent)
            writer.settled = True
            self._check_restored(writer, alone=self.number == 1)
            if self.number == 1 and contents(writer.agent.messages) != held:
                self.wrong.append(f"{writer.agent.messages} is left of {held}")

    def _change(self, writer: Writer, how: str, index: int) -> None:
        agent = writer.agent
        messages = agent.messages
        if how == "edit" and "[gone]" not in messages[index]["content"][0]["text"]:
            messages[index]["content"][0]["text"] += " (edited)"
        elif how == "drop" and are_plain(messages[index : index + 2]):
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
        writer = pick([one for one in self.free() if one.snapshot], number)
        writer.agent.load_snapshot(writer.snapshot)
        self._turn(writer, writer.name())

    @precondition(lambda self: self.free())
    @rule(number=writers)
    def keep_checkpoint(self, number: int) -> None:
        """A checkpoint is kept, which any process may go back to."""
        writer = self._free(number)
        if writer.failed:
            return
        manager: Any = writer.agent._session_manager
        self.checkpoints.append(manager.checkpoint(writer.agent))
        writer.settled = True
        if self.number == 1:  # else others may have said what isn't known here yet
            self._check_restored(writer)

    @precondition(lambda self: self.waiting is None and self.free() and self.checkpoints)
    @rule(number=writers, place=places, faults=faults, turn=st.booleans())
    def go_back(self, number: int, place: int, faults: list[Fault | None], turn: bool) -> None:
        """An agent goes back to a checkpoint, whoever kept it."""
        writer = self._free(number)
        checkpoint = self.checkpoints[place % len(self.checkpoints)]
        self._go_back(writer, checkpoint, faults, turn=turn)

    @precondition(lambda self: self.waiting is None and self.free())
    @rule(number=writers, turns=st.integers(1, 3), faults=faults, turn=st.booleans())
    def go_back_by_turns(
        self, number: int, turns: int, faults: list[Fault | None], turn: bool
    ) -> None:
        """An agent drops its latest turns."""
        writer = self._free(number)
        try:
            self._go_back(writer, turns, faults, turn=turn)
        except ValueError as error:
            assert "must be a number of turns" in str(error)  # noqa: PT017 - it has fewer
            writer.faults = []

    def _go_back(self, writer: Writer, to: Any, faults: list[Fault | None], *, turn: bool) -> None:
        manager: Any = writer.agent._session_manager
        writer.faults, writer.failed = list(faults), False
        how = outcome(lambda: manager.rewind(writer.agent, to))
        writer.faults, writer.settled = [], how == "done"
        if writer.settled and self.number == 1:
            self._check_restored(writer)
        if turn:
            self._turn(writer, writer.name())

    # -- turns that wait -----------------------------------------------------------------------

    @precondition(lambda self: self.waiting is None and self.free())
    @rule(number=writers, then=rests)
    def interrupted_turn(self, number: int, then: Rest) -> None:
        """A turn that stops, to ask a human, and that may go on at once."""
        writer = self._free(number)
        self._turn(writer, ToolCall("pay", {"amount": 1}, writer.name()))
        self.waiting = list(writer.interrupts.values())
        if then.goes_on:
            before = len(self.paid)
            self._go_on(writer, answers(self.waiting, f"human {before}"), then)
            if len(self.paid) != before + 1:
                self.wrong.append("an answer had no effect")

    def _go_on(self, writer: Writer, prompt: Any, then: Rest) -> None:
        """Go on with a turn that stopped, here or elsewhere, after others, and tried twice."""
        # Where a small window of others has dropped what waits, nothing is left to go on with.
        roomy = self.managed in ("none", "a window", "summaries")
        others = [one for one in self.free() if one is not writer and roomy]
        if then.others and others:
            self._turn(others[0], others[0].name())
        if then.elsewhere:
            writer.agent = writer.open()
        second = Writer(self, writer.number) if then.twice else None
        self.waiting = None
        self._turn(writer, writer.name(), prompt=prompt, new=False)
        if second is not None:
            self._refuse(second, prompt)

    def _refuse(self, writer: Writer, prompt: Any) -> None:
        """Assert that a writer who goes on with what has gone on is refused."""
        before = list(self.paid)
        writer.agent.model = self.scene.model("said twice")
        how = outcome(lambda: writer.agent(prompt))
        if how != "ConflictError" or self.paid != before:
            self.wrong.append(f"a second answer was {how}, and paid by {self.paid}")

    @precondition(lambda self: bool(self.waiting))
    @rule(number=writers)
    def answer(self, number: int) -> None:
        """A human answers, in a process that knows of the question."""
        known = {one.id for one in self.waiting or ()}
        knowing = [one for one in self.writers if set(one.interrupts) == known]
        if not knowing:
            return
        writer, before = pick(knowing, number), len(self.paid)
        prompt = answers(self.waiting, f"human {before}")
        self.waiting = None
        self._turn(writer, writer.name(), prompt=prompt, new=False)
        if len(self.paid) != before + 1:
            self.wrong.append("an answer had no effect")

    @precondition(lambda self: self.waiting is None and self.free())
    @rule(number=writers, elsewhere=st.booleans(), other=st.booleans())
    def two_interrupts(self, number: int, elsewhere: bool, other: bool) -> None:
        """Two calls of one message ask a human, are answered one by one, and each of them once."""
        writer = self._free(number)
        pays = [ToolCall("pay", {"amount": n}, writer.name()) for n in range(2)]
        self._turn(writer, pays)
        first, second = writer.interrupts.values()
        before, self.waiting = len(self.paid), [first, second]
        self._go_on(writer, answers([first], "one"), Rest(True, other, elsewhere, False))
        self.waiting = [second]
        self._refuse(writer, answers([first], "again"))
        self._go_on(writer, answers([second], "two"), Rest(True, other, elsewhere, True))
        if self.paid[before:] != ["one", "two"]:
            self.wrong.append(f"two answers paid by {self.paid[before:]}")

    @precondition(lambda self: self.stale())
    @rule(number=writers, then=st.sampled_from(["opens again", "saves", "closes", "goes on"]))
    def answer_late(self, number: int, then: str) -> None:
        """Who answers what has been answered is refused, and takes nothing back."""
        writer = pick(self.stale(), number)
        manager: Any = writer.agent._session_manager
        self._refuse(writer, answers(list(writer.interrupts.values()), "late"))
        if then == "saves":
            manager.sync_agent(writer.agent)
        elif then == "closes":
            manager.close()
        fresh = self.scene.open()
        if {*fresh._interrupt_state.interrupts} != {one.id for one in self.waiting or ()}:
            self.wrong.append(f"who was refused waits for {fresh._interrupt_state.interrupts}")
        if then == "goes on" and not writer.waits:
            self._turn(writer, writer.name())
        elif then != "saves":
            writer.agent = writer.open()

    # -- processes -----------------------------------------------------------------------------

    @rule(number=writers, orderly=st.booleans())
    def restart(self, number: int, orderly: bool) -> None:
        """A process ends, with its manager closed or not, and another one takes its place."""
        writer = pick(self.writers, number)
        if orderly:
            manager: Any = writer.agent._session_manager
            manager.close()
        writer.agent = writer.open()
        if set(writer.interrupts) != {one.id for one in self.waiting or ()}:
            self.wrong.append(f"a new process waits for {writer.interrupts}, not {self.waiting}")

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
        pick(self.writers, number).database.deliver_late()

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
        doubled = Counter(names) - Counter(dict.fromkeys(names, 1)) - self.again
        assert not doubled
        assert [name for name in self.acknowledged if name not in names] == []
        for number in range(self.number):
            own = dict.fromkeys(name for name in names if f"w{number}." in name)
            told = [name for name in self.acknowledged if f"w{number}." in name]
            assert [name for name in own if name in set(told)] == told
        turns = [turn for turn, _ in self.scene.turns()] if rows else []
        assert len(turns) == len(set(turns))
        assert "SECRET" not in str([row["message"] for row in rows])

    def _has_tables(self) -> bool:
        found = self.backend.raw("SELECT 1 FROM sqlite_master WHERE name = 'strands_messages'")
        return bool(found)


def machine(commit: str, number: int) -> type[Agents]:
    """Make the state machine of so many writers."""
    name = f"Agents{number}{commit.title()}"
    return type(name, (Agents,), {"commit": commit, "number": number})
