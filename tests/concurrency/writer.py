"""One writer of the torture: a real agent, called again and again, and what it was told."""

import contextlib
import itertools
import logging
import random
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from strands import Agent, tool
from strands.agent.conversation_manager import (
    ConversationManager,
    SlidingWindowConversationManager,
    SummarizingConversationManager,
)
from strands.hooks import HookProvider, HookRegistry, MessageAddedEvent
from strands.types.content import Message, Messages
from strands.types.exceptions import ContextWindowOverflowException

from strands_persql import (
    ConflictError,
    Database,
    PerSQLSessionManager,
    PerSQLSessionRepository,
    RetryPolicy,
)
from strands_persql.errors import OutcomeUnknownError, UnavailableError
from strands_persql.testing import Fault, FaultyDatabase, Redact, Reply, ScriptedModel, ToolCall
from tests.concurrency.checker import counted
from tests.concurrency.journal import Entry, Journal, read_journal, token, writer_of
from tests.concurrency.memory import Memory, asking, tokens_in, tokens_of
from tests.support.backends import Address

SESSION = "torture"
AGENT = "shared"

_TURNS = {"plain": 40, "tool": 25, "tools": 10, "chain": 5, "redact": 12, "fail": 8}  # weights
_MEMORY = {"retry": 7, "edit": 6, "drop": 5, "pin": 4, "rewind": 4, "overflow": 5, "interrupt": 0}
_INTERRUPTING = 0  # the writer whose turns wait for answers, of which one at a time can
_OUTAGE: tuple[Fault, ...] = ("lost_request", "lost_answer", "locked")
_FAULTS: tuple[Fault, ...] = (*_OUTAGE, "duplicate", "delayed_duplicate")


@dataclass(frozen=True)
class Settings:
    """What all writers of a run are told.

    Attributes:
        folder: Where the file and the journals are.
        operations: Calls of an agent and restarts, over all writers.
        writers: How many processes.
        threads: How many writers each process has; they share its repository.
        commit: When messages are stored.
        on_conflict: What becomes of a lost race.
        faults: Whether the database's round trips go wrong.
        kill: Whether writers are killed.
        kill_every: Seconds between two kills, on average.
        seed: What decides, where chance does.
        window: How many messages an agent keeps in memory.
        management: What keeps an agent's memory short: a window, or summaries.
        memory: Whether writers also change what their agents have in memory, and go on with turns
            that stopped.
        interrupts: Whether turns stop to ask for leave, too.
        limit: Seconds after which writers that aren't at their end are a violation.
        hosted: Where the database is on the engine, or None for a file.
    """

    folder: Path
    operations: int = 400
    writers: int = 4
    threads: int = 1
    commit: Literal["message", "turn"] = "message"
    on_conflict: Literal["merge", "raise"] = "merge"
    faults: bool = False
    kill: bool = False
    kill_every: float = 2.0
    seed: int = 0
    window: int = 40
    management: Literal["window", "summaries"] = "window"
    memory: bool = True
    interrupts: bool = True
    limit: float = 3600.0
    hosted: Address | None = None

    @property
    def file(self) -> Path:
        """The database's file."""
        return self.folder / "torture.db"

    def journal(self, writer: int) -> Path:
        """A writer's journal."""
        return self.folder / f"writer-{writer}.jsonl"


def run_process(settings: Settings, process: int, life: int) -> None:
    """Run the writers of one process until their operations are done.

    Args:
        settings: What they are told.
        process: The process's number.
        life: How often it was started before.
    """
    logging.disable()  # scripted failures are many, and in the journal
    chance = random.Random(f"{settings.seed}-{process}-{life}")  # noqa: S311 - repeatable faults
    first = process * settings.threads
    retry = RetryPolicy(budget=1.0, first_wait=0.002, max_wait=0.03)
    with _open_database(settings, chance) as database:
        repository = PerSQLSessionRepository(
            database, on_conflict=settings.on_conflict, retry=retry
        )
        writers = [Writer(settings, first + n, life, repository) for n in range(settings.threads)]
        threads = [threading.Thread(target=one.work) for one in writers[1:]]
        for thread in threads:
            thread.start()
        writers[0].work()
        for thread in threads:
            thread.join(settings.limit)
        if isinstance(database, FaultyDatabase):
            database.deliver_late()


@contextlib.contextmanager
def _open_database(settings: Settings, chance: random.Random) -> Iterator[Database]:
    if settings.hosted is not None:
        with settings.hosted.open(timeout=0.5) as database:
            yield database
        return
    with Address(str(settings.file)).open(busy_timeout=10.0) as local:
        if settings.faults:
            weather = Weather(chance, _FAULTS, _OUTAGE, longest=150)
            yield FaultyDatabase(local, weather, duplicate_after=chance.randint(1, 4))
        else:
            yield local


def look_at_rest(settings: Settings) -> Entry:
    """Have a turn when nobody else has one, and give what its agent and its model had.

    Args:
        settings: What the writers were told.
    """
    with _open_database(replace(settings, faults=False), random.Random(0)) as database:  # noqa: S311
        writer = Writer(settings, -1, 0, PerSQLSessionRepository(database))
        return writer.rest()


class Weather:
    """Chooses the fault of each round trip: now and then one, and seldom so many that calls fail.

    Args:
        chance: What decides.
        faults: What can happen.
        outage: What can happen when nothing works, for many round trips in a row.
        longest: How many those are at the most.
    """

    def __init__(
        self,
        chance: random.Random,
        faults: Sequence[Any],
        outage: Sequence[Any],
        longest: int,
    ) -> None:
        self._chance, self._faults, self._outage = chance, faults, outage
        self._longest = longest
        self._left = 0

    def __call__(self, _: object) -> Any:
        """Give the fault of the next round trip, or None."""
        if self._left == 0 and self._chance.random() < 0.003:
            self._left = self._chance.randint(2, self._longest)
        if self._left:
            self._left -= 1
            return self._chance.choice(self._outage)
        return self._chance.choice(self._faults) if self._chance.random() < 0.08 else None


class ScriptedError(Exception):
    """What a model raises because the script says so."""


class Writer(HookProvider):
    """Calls an agent, restarts it, and writes down what it was told.

    Args:
        settings: What all writers are told.
        number: The writer's number.
        life: How often its process was started before.
        repository: Where the session is.
    """

    def __init__(
        self, settings: Settings, number: int, life: int, repository: PerSQLSessionRepository
    ) -> None:
        self._settings, self._number, self._repository = settings, number, repository
        self._chance = random.Random(  # noqa: S311 - repeatable
            f"{settings.seed}-{number}-{life}"
        )
        path = settings.journal(number)
        entries = read_journal(path)
        self._journal = Journal(path)
        self._memory = Memory(number, self._journal, self._chance, entries)
        turns = sum(entry["kind"] == "turn" for entry in entries)
        starts = sum(entry["kind"] == "started" for entry in entries)
        self._next_turn = turns
        total = settings.writers * settings.threads
        self._left = settings.operations // total - turns - starts
        self._over = any(entry["kind"] == "finished" for entry in entries)
        self._lock = threading.Lock()
        self._agent: Agent | None = None
        self._manager: PerSQLSessionManager | None = None
        self._model = ScriptedModel(self._reply, record_calls=False)
        self._script: Iterator[Reply] = iter(())
        self._tokens: list[str] = []
        self._acknowledged: set[str] = set()  # of this agent's life
        self._secret: str | None = None
        self._secrets: list[str] = []  # redacted by Strands, and not yet acknowledged
        self._since = 0.0

    def work(self) -> None:
        """Do all operations."""
        if self._over:
            return
        while self._left > 0:
            self._step()
        with contextlib.suppress(Exception):
            self._stop()
        self._journal.write("finished")
        self._journal.close()

    def rest(self) -> Entry:
        """Have a turn alone, and give what was held, asked and restored."""
        self._restart()
        agent = self._agent
        assert agent is not None
        if agent._interrupt_state.activated:
            self._answer(agent)
        opened, asked = plain(agent.messages), ScriptedModel(["fine"])
        agent.model = asked
        agent("all quiet?")
        given = asked.calls[-1]
        self._restart()
        self._journal.close()
        restored = plain(self._agent.messages) if self._agent is not None else []
        return {
            "opened": opened,
            "asked": plain(given),
            "held": plain(agent.messages),
            "restored": restored,
            "unpaired": sorted(_unpaired(given)),
        }

    def _step(self) -> None:
        try:
            if self._agent is None or self._chance.random() < 0.1:
                self._restart()
            elif self._agent._interrupt_state.activated:
                self._answer(self._agent)
            else:
                self._call(self._agent)
        except Exception as error:  # noqa: BLE001 - whatever it is goes into the journal
            self._judge(error)

    def register_hooks(self, registry: HookRegistry, **kwargs: Any) -> None:
        """Listen behind the session manager: when this is called, it has stored the message."""
        if self._settings.commit == "message":
            registry.add_callback(MessageAddedEvent, self._on_message)

    def _on_message(self, event: MessageAddedEvent) -> None:
        # An assistant's message that calls no tool is stored with the turn's end.
        is_final = event.message["role"] == "assistant" and not any(
            "toolUse" in block for block in event.message["content"]
        )
        if not is_final:
            self._acknowledge(event.agent)

    # -- opening and closing -----------------------------------------------------------------------

    def _restart(self) -> None:
        if self._chance.random() < 0.5:
            self._stop()
        self._agent = self._manager = None
        asked = time.monotonic()
        manager = PerSQLSessionManager(
            SESSION, repository=self._repository, commit=self._settings.commit
        )
        agent = self._open(manager, self._model, [self])
        self._since = asked
        self._acknowledged, self._secrets = set(_own(self._number, agent.messages)), []
        self._agent, self._manager = agent, manager
        self._left -= 1
        held = tokens_in(agent.messages)
        self._journal.write("started", counted=self._counted(agent), held=held)

    def _open(
        self, manager: PerSQLSessionManager, model: ScriptedModel, hooks: Sequence[HookProvider]
    ) -> Agent:
        return Agent(
            model=model,
            agent_id=AGENT,
            session_manager=manager,
            conversation_manager=self._manage(),
            tools=[self._make_tool(), asking(self._journal)],
            hooks=list(hooks),
            callback_handler=None,
        )

    def _manage(self) -> ConversationManager:
        if self._settings.management == "summaries":
            return SummarizingConversationManager(summary_ratio=0.5, preserve_recent_messages=6)
        return SlidingWindowConversationManager(window_size=self._settings.window)

    def _stop(self) -> None:
        if self._manager is not None and self._agent is not None:
            self._manager.close()
            self._acknowledge(self._agent)

    # -- a turn --------------------------------------------------------------------------------

    def _call(self, agent: Agent) -> None:
        number, kind = self._next_turn, self._choose(agent)
        self._next_turn += 1
        self._left -= 1
        self._memory.change(kind, agent)
        secret = f"secret-{self._number}-{number}" if kind == "redact" else None
        prompt, script, parts = self._plan(kind, number, secret)
        self._invoke(
            agent, prompt, script, [token(self._number, number, part) for part in parts], secret
        )
        if kind == "retry" and self._agent is agent:
            self._pause()
            self._retry(agent)
        if kind == "interrupt" and self._chance.random() < 0.5:
            self._pause()
            self._answer(agent)

    def _choose(self, agent: Agent) -> str:
        kinds = dict(_TURNS)
        if self._settings.memory:
            kinds |= _MEMORY
            asks = self._settings.interrupts and self._number == _INTERRUPTING
            kinds["interrupt"] = 25 * asks
            summing = self._settings.management == "summaries" and len(agent.messages) > 12
            kinds["overflow"] *= summing
        return self._chance.choices([*kinds], [*kinds.values()])[0]

    def _pause(self) -> None:
        """Let others have their turns."""
        time.sleep(self._chance.expovariate(50))

    def _retry(self, agent: Agent) -> None:
        """Go on with a turn whose model has failed."""
        name = token(self._number, self._next_turn, "a")
        self._next_turn += 1
        self._invoke(agent, None, [f"answer {name}"], [name])

    def _answer(self, agent: Agent) -> None:
        """Answer what the session's agent waits for, whoever made it wait."""
        names = [token(self._number, self._next_turn, part) for part in ("r0", "a")]
        self._next_turn += 1
        self._left -= 1
        prompt = [
            {"interruptResponse": {"interruptId": one, "response": names[0]}}
            for one in agent._interrupt_state.interrupts
        ]
        try:
            self._invoke(agent, prompt, [f"answer {names[1]}"], names)
        except Exception:
            self._agent = self._manager = None  # it may have been answered: open the session again
            raise

    def _invoke(
        self,
        agent: Agent,
        prompt: Any,
        script: Sequence[Reply],
        names: list[str],
        secret: str | None = None,
    ) -> None:
        """Call an agent, and write down what was meant, and what came of it."""
        self._script = iter(script)
        self._tokens = names
        self._journal.write("turn", tokens=self._tokens, secret=secret)
        self._secret = secret
        if self._settings.commit == "message":
            self._since = time.monotonic()
        try:
            agent(prompt)
        except Exception as error:
            scripted = (ScriptedError, ContextWindowOverflowException)
            if not isinstance(getattr(error, "original_exception", error), scripted):
                raise
        self._acknowledge(agent)
        self._journal.write("held", tokens=tokens_in(agent.messages))
        if self._secrets:
            self._journal.write("redacted", secrets=self._secrets)
            self._secrets = []

    def _plan(
        self, kind: str, number: int, secret: str | None
    ) -> tuple[str, list[Reply], list[str]]:
        def name(part: str) -> str:
            return token(self._number, number, part)

        def call(index: int) -> ToolCall:
            return ToolCall(
                "count", {"call": name(f"c{index}")}, f"call-{self._number}-{number}-{index}"
            )

        prompt, answer = f"question {name('u')}", f"answer {name('a')}"
        if kind == "redact":
            guarded = Redact(f"[redacted] {name('u')}", answer)
            return f"{prompt} {secret}", [guarded], ["u", "a"]
        scripts: dict[str, tuple[list[Reply], list[str]]] = {
            "tools": ([[call(0), call(1)], answer], ["u", "c0", "c1", "r0", "r1", "a"]),
            "chain": ([call(0), call(1), answer], ["u", "c0", "r0", "c1", "r1", "a"]),
            "tool": ([call(0), answer], ["u", "c0", "r0", "a"]),
            "fail": ([call(0), ScriptedError("as scripted")], ["u", "c0", "r0"]),
            "retry": ([call(0), ScriptedError("as scripted")], ["u", "c0", "r0"]),
            "interrupt": ([ToolCall("ask", {"call": name("c0")}, call(0).id)], ["u", "c0"]),
            "overflow": ([ContextWindowOverflowException("as scripted"), answer], ["u", "a"]),
        }
        return prompt, *scripts.get(kind, ([answer], ["u", "a"]))

    def _reply(self, messages: Messages) -> Reply:
        if "Please summarize" in str(messages[-1]["content"]):
            return f"summary by writer {self._number}"
        self._show(messages)
        reply = next(self._script)
        if isinstance(reply, Redact) and self._secret is not None:
            self._secrets.append(self._secret)
        return reply

    def _show(self, messages: Messages) -> None:
        """Write down, for some calls, what the model was given."""
        if self._next_turn % 4 == 0 or len(messages) <= 8:
            unpaired = sorted(_unpaired(messages))
            shown = {"tokens": tokens_in(messages), "unpaired": unpaired, "since": self._since}
            if self._settings.commit == "message" and self._chance.random() < 0.3:
                shown["fresh"] = self._fresh()
            self._journal.write("shown", **shown)

    def _fresh(self) -> list[str] | None:
        """Give what a process is given that opens the session now; None if that can't be told."""
        try:
            manager = PerSQLSessionManager(SESSION, repository=self._repository)
            agent = self._open(manager, ScriptedModel([]), [])
        except (UnavailableError, OutcomeUnknownError):
            return None
        return None if agent._interrupt_state.activated else tokens_in(agent.messages)

    def _make_tool(self) -> Any:
        @tool
        def count(call: str) -> str:
            """Count up by one.

            Args:
                call: Names the call.
            """
            return self._count_up(call)

        return count

    def _count_up(self, call: str) -> str:
        """Count under the writer's own key, and under its own within one that all share."""
        agent, key = self._agent, f"w{self._number}"
        assert agent is not None
        with self._lock:  # Strands may run two tools at once
            self._journal.write("ran")
            own = agent.state.get(key) or {}
            agent.state.set(key, {"count": own.get("count", 0) + 1, "last": call})
            shared = agent.state.get("shared") or {}
            by = shared.get("by") or {}
            by[key] = by.get(key, 0) + 1
            agent.state.set("shared", {"by": by, "last": call})
        return call.replace(".c", ".r")

    # -- what came of it -----------------------------------------------------------------------

    def _acknowledge(self, agent: Any) -> None:
        """Write down that all of the writer's messages in the agent's memory are stored."""
        names = []
        for message in reversed(agent.messages):
            own = [name for name in tokens_of(message) if writer_of(name) == self._number]
            if own and own[0] in self._acknowledged:
                break
            names += own[::-1]
        self._acknowledged.update(names)
        self._journal.write("acknowledged", tokens=names[::-1], counted=self._counted(agent))

    def _judge(self, error: Exception) -> None:
        """Write down what went wrong, and go on with the same agent where that may be."""
        cause = getattr(error, "original_exception", error)
        if isinstance(cause, (UnavailableError, OutcomeUnknownError, ConflictError)):
            self._journal.write("failed", error=type(cause).__name__)
            if isinstance(cause, ConflictError) and self._settings.on_conflict == "raise":
                self._agent = self._manager = None
            return
        self._agent = self._manager = None
        self._left -= 1  # so that a writer that can't even start comes to an end
        self._journal.write("crashed", error="".join(traceback.format_exception(error)))

    def _counted(self, agent: Agent) -> list[int]:
        return counted(agent.state.get(), self._number)


def plain(messages: Messages) -> list[Any]:
    """Give the roles and contents of messages."""
    return [{"role": one["role"], "content": one["content"]} for one in messages]


def _unpaired(messages: Messages) -> set[str]:
    """Give the tool calls and results that no result or call stands beside."""
    found: set[str] = set()
    called: set[str] = set()
    for message in [*messages, Message(role="user", content=[])]:
        blocks = message["content"]
        answered = {block["toolResult"]["toolUseId"] for block in blocks if "toolResult" in block}
        found |= called ^ answered
        called = {block["toolUse"]["toolUseId"] for block in blocks if "toolUse" in block}
    return found


def _own(number: int, messages: Messages) -> Iterator[str]:
    names = itertools.chain.from_iterable(map(tokens_of, messages))
    return (name for name in names if writer_of(name) == number)
