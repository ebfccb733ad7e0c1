"""What the proof of agents' memory says often: agents of one session, and what must hold of them.

A `Scene` is one session. Each agent that it opens has a manager and a cache of its own, as another
process would. The scene records what its agents say, so that the rows can be compared with it, and
looks at all that their models are given.
"""

import copy
import inspect
import itertools
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import pytest
from strands import Agent, ToolContext, tool
from strands.agent.conversation_manager import (
    NullConversationManager,
    SlidingWindowConversationManager,
    SummarizingConversationManager,
)
from strands.hooks import HookProvider, HookRegistry, MessageAddedEvent
from strands.tools._tool_helpers import generate_missing_tool_result_content
from strands.types.content import Message, Messages
from strands.types.exceptions import ContextWindowOverflowException

from strands_persql import ConflictError, PerSQLSessionManager
from strands_persql.errors import PerSQLError
from strands_persql.testing import FaultyDatabase, Reply, ScriptedModel, ToolCall
from tests.support.backends import NEVER, Backend
from tests.support.conversation import count, said

COMMITS = ["message", "turn"]
both = pytest.mark.parametrize("commit", COMMITS)

FEATURES = {
    "pinned messages": "pin_first"
    in inspect.signature(SlidingWindowConversationManager).parameters,
    "context managers": "context_manager" in inspect.signature(Agent).parameters,
    "checkpoints": "checkpointing" in inspect.signature(Agent).parameters,
    "tracking ids": "tracking_id" in Message.__annotations__,
    "invocation limits": "limits" in inspect.signature(Agent.__call__).parameters,
}
"""What not every version of Strands has."""

OVERFLOW = ContextWindowOverflowException("too long")

SUMMARIZE = "Please summarize this conversation."

_STAND_IN = cast("Any", generate_missing_tool_result_content(["x"]))[0]["toolResult"]["content"]
STAND_IN: str = _STAND_IN[0]["text"]
"""What Strands puts in the place of a tool's result that is missing."""


def needs(feature: str) -> None:
    """Skip the test where Strands lacks what it is about."""
    if not FEATURES[feature]:
        pytest.skip(f"this version of strands-agents has no {feature}")


class Scene(HookProvider):
    """One session, and the agents that open it.

    Args:
        backend: Where the session is.
        commit: When the agents' managers commit.
        make: Gives the further arguments of an agent, made anew for each.
        session_id: The session.
        agent_id: The agent, which all that are opened are one of.

    Attributes:
        said: Each message that an agent of the scene has said, in order: the dict itself, so that
            it shows what became of it in place, and a copy of it as it was said.
        invalid: What is wrong in what the agents' models were given.
    """

    def __init__(
        self,
        backend: Backend,
        commit: str = "message",
        make: Callable[[], dict[str, Any]] = dict,
        *,
        session_id: str = "s",
        agent_id: str = "a",
    ) -> None:
        self.backend, self.commit, self.make = backend, commit, make
        self.session_id, self.agent_id = session_id, agent_id
        self.said: list[tuple[Message, Message]] = []
        self.invalid: list[str] = []
        self._answers, self._numbers = itertools.count(1), itertools.count(1)
        self._summaries = itertools.count(1)
        self._lock = threading.Lock()

    # -- agents --------------------------------------------------------------------------------

    def open(
        self,
        *replies: Reply,
        manager: PerSQLSessionManager | None = None,
        replying: Callable[[Messages], Reply] | None = None,
        conflict: str = "merge",
        **options: Any,
    ) -> Agent:
        """Open the session as a new process would.

        Args:
            *replies: What the model answers; behind them it answers with texts of its own. Where
                a conversation manager asks for a summary, the model gives one.
            manager: A manager to use in place of a new one.
            replying: Answers in place of ``replies``.
            conflict: The manager's ``on_conflict``.
            **options: Further arguments of the agent, before those that the scene makes.
        """
        if manager is None:
            manager = self.manager(conflict=conflict)
        options = {**self.make(), **options}
        hooks = [self, *options.pop("hooks", [])]
        return Agent(
            model=self.model(*replies, replying=replying),
            session_manager=manager,
            agent_id=self.agent_id,
            hooks=hooks,
            callback_handler=None,
            **options,
        )

    def manager(self, *, conflict: str = "merge", **options: Any) -> PerSQLSessionManager:
        """Open the session alone, without an agent."""
        return self.backend.manager(
            self.session_id, commit=self.commit, on_conflict=conflict, **options
        )

    def model(
        self, *replies: Reply, replying: Callable[[Messages], Reply] | None = None
    ) -> ScriptedModel:
        """Make a model that looks at what it is given, and answers as `open` says."""
        reply = replying or self.script(*replies)

        def look_and_reply(messages: Messages) -> Reply:
            if not is_for_summary(messages):
                self.invalid += invalid(messages)
            return reply(messages)

        model = ScriptedModel(look_and_reply)
        model.update_config(context_window_limit=100_000)
        return model

    def number(self) -> int:
        """Give a number that this scene hasn't given yet."""
        return next(self._numbers)

    def script(self, *replies: Reply) -> Callable[[Messages], Reply]:
        """Make a model's answers: these in order, and then texts that no other answer has."""
        rest = iter(replies)

        def reply(messages: Messages) -> Reply:
            if is_for_summary(messages):
                return f"summary {next(self._summaries)}"
            for one in rest:
                return one
            return f"answer {next(self._answers)}"

        return reply

    def register_hooks(self, registry: HookRegistry, **kwargs: Any) -> None:
        """Listen to what the agents say."""
        registry.add_callback(MessageAddedEvent, self._hear)

    def _hear(self, event: MessageAddedEvent) -> None:
        with self._lock:
            self.said.append((event.message, copy.deepcopy(event.message)))

    # -- what must hold ------------------------------------------------------------------------

    def rows(self) -> list[dict[str, Any]]:
        """Read the rows of the agent's messages: id, turn, version and the message as last said."""
        rows = self.backend.raw(
            "SELECT message_id, turn, version, data FROM strands_messages"
            " WHERE session_id = ? AND agent_id = ? ORDER BY message_id",
            self.session_id,
            self.agent_id,
        )
        return [
            {
                "message_id": int(row["message_id"]),
                "turn": row["turn"],
                "version": int(row["version"]),
                "message": _as_last_said(json.loads(row["data"])),
            }
            for row in rows
        ]

    def transcript(self) -> list[str]:
        """Tell what the rows say."""
        return said([row["message"] for row in self.rows()])

    def turns(self) -> list[tuple[str, list[str]]]:
        """Give the rows' turns in order, and what each says, as blocks of one ``turn`` value."""
        return [
            (turn, said([row["message"] for row in block]))
            for turn, block in itertools.groupby(self.rows(), key=lambda row: str(row["turn"]))
        ]

    def check(self, agent: Agent, **options: Any) -> Agent:
        """Assert that what a new process is given is what the agent holds; give the new agent."""
        assert self.invalid == []
        fresh = self.open(**options)
        assert said(fresh.messages) == said(agent.messages)
        assert memory(fresh) == memory(agent)
        return fresh

    def check_rows(self, *, edited: bool = True) -> None:
        """Assert that all that was said is in the rows, in order, and nothing else.

        Args:
            edited: Whether what became of a message in place must be in its row. If not, the rows
                are compared by roles and tracking ids alone.
        """
        rows = [row["message"] for row in self.rows()]
        with self._lock:
            spoken = [message for message, _ in self.said]
        if edited:
            assert said(rows) == said(spoken)
            assert contents(rows) == contents(spoken)
            return
        keys = ("role", "tracking_id")
        assert [[one.get(key) for key in keys] for one in rows] == [
            [one.get(key) for key in keys] for one in spoken
        ]


class Process:
    """A process that can die: from then on nothing of it reaches the database.

    Args:
        scene: The session that it works with.
    """

    def __init__(self, scene: Scene) -> None:
        self.dead = False
        self._scene = scene
        self._database = FaultyDatabase(
            scene.backend.database, lambda _: "lost_request" if self.dead else None
        )

    def kill(self) -> None:
        """Die."""
        self.dead = True

    def open(self, *replies: Reply, **options: Any) -> Agent:
        """Open the session in this process, which tries nothing again."""
        repository = self._scene.backend.repository(self._database, retry=NEVER)
        manager = self._scene.backend.manager(
            self._scene.session_id, repository=repository, commit=self._scene.commit
        )
        return self._scene.open(*replies, manager=manager, **options)


def _as_last_said(data: dict[str, Any]) -> Message:
    return cast("Message", data.get("redact_message") or data["message"])


def is_for_summary(messages: Messages) -> bool:
    """Whether a model is asked for a summary, not for the conversation's next message."""
    return bool(messages) and said(messages[-1:]) == [SUMMARIZE]


def content(message: Message) -> Any:
    """Give a message's role and content, as JSON makes them."""
    return as_json({"role": message["role"], "content": message["content"]})


def as_json(value: Any) -> Any:
    """Give what JSON makes of a value, with NaN and infinities by their names, to be compared."""
    return json.loads(json.dumps(value, default=repr), parse_constant=str)


def contents(messages: Sequence[Message]) -> list[Any]:
    """Give the roles and contents of messages."""
    return [content(message) for message in messages]


def alike(messages: Sequence[Message]) -> list[Any]:
    """Give the roles and contents of messages, with calls and results named by their order."""
    names: dict[str, str] = {}

    def rename(value: Any) -> Any:
        if isinstance(value, dict):
            return {
                key: names.setdefault(each, f"call {len(names)}")
                if key == "toolUseId"
                else rename(each)
                for key, each in value.items()
            }
        return [rename(each) for each in value] if isinstance(value, list) else value

    return [rename(one) for one in contents(messages)]


def memory(agent: Agent) -> dict[str, Any]:
    """Give all that an agent holds and a restore must bring back, as JSON makes it."""
    held = {
        "messages": agent.messages,
        "state": agent.state.get(),
        "conversation manager": agent.conversation_manager.get_state(),
        "interrupts": agent._interrupt_state.to_dict(),
    }
    return cast("dict[str, Any]", as_json(held))


def calls(agent: Agent) -> list[Messages]:
    """Give what an agent's model was given, call by call, without calls for summaries."""
    assert isinstance(agent.model, ScriptedModel)
    return [each for each in agent.model.calls if not is_for_summary(each)]


def asked(agent: Agent) -> list[str]:
    """Tell what an agent's model was given in its latest call."""
    return said(calls(agent)[-1])


def invalid(messages: Messages) -> list[str]:
    """Tell what a real model would refuse: calls and results that don't pair or are repeated."""
    found: list[str] = []
    seen: set[str] = set()
    called: set[str] = set()
    for message in [*messages, Message(role="user", content=[])]:
        results = [block["toolResult"] for block in message["content"] if "toolResult" in block]
        answered = {result["toolUseId"] for result in results}
        if called ^ answered or len(answered) < len(results):
            found.append(f"calls {sorted(called)} are followed by results {sorted(answered)}")
        uses = [block["toolUse"] for block in message["content"] if "toolUse" in block]
        called = {use["toolUseId"] for use in uses}
        if called & seen:
            found.append(f"calls {sorted(called & seen)} are there twice")
        seen |= called
    return found


def manager_of(agent: Agent) -> PerSQLSessionManager:
    """Give an agent's session manager."""
    manager = agent._session_manager
    assert isinstance(manager, PerSQLSessionManager)
    return manager


# -- errors ----------------------------------------------------------------------------------------


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Give an error and those that it was caused by, or that Strands has wrapped."""
    while error is not None:
        yield error
        error = getattr(error, "original_exception", None) or error.__cause__


def outcome(call: Callable[[], object]) -> str:
    """Call, and tell how it ended: "done", or the name of the library's error that it raised.

    Any other error is raised.
    """
    try:
        call()
    except Exception as error:
        for cause in causes(error):
            if isinstance(cause, PerSQLError):
                return type(cause).__name__
        raise
    return "done"


def refused(call: Callable[[], object]) -> ConflictError:
    """Assert that a call raises a `ConflictError`, wrapped by Strands or not, and give it."""
    try:
        call()
    except Exception as error:
        for cause in causes(error):
            if isinstance(cause, ConflictError):
                return cause
        raise
    pytest.fail("nobody refused it")


def race(racers: Sequence[Callable[[], object]]) -> list[object]:
    """Let all begin at once, each in a thread, and give what each returned or raised."""
    barrier = threading.Barrier(len(racers), timeout=30)
    outcomes: list[object] = [None] * len(racers)

    def run(number: int) -> None:
        barrier.wait()
        try:
            outcomes[number] = racers[number]()
        except Exception as error:  # noqa: BLE001 - the test looks at it
            outcomes[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(racers))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    return outcomes


def fails(call: Callable[[], object], message: str) -> None:
    """Assert that a call raises the error that a script holds."""
    with pytest.raises(Exception, match=message):
        call()


# -- what agents are made with ---------------------------------------------------------------------

Options = Callable[[], dict[str, Any]]


def sliding(window_size: int = 40, **options: Any) -> Options:
    """Give what makes the options of an agent with a sliding window."""
    return lambda: {
        "conversation_manager": SlidingWindowConversationManager(window_size, **options),
        "tools": [step, count],
    }


def summarizing(**options: Any) -> Options:
    """Give what makes the options of an agent whose older messages are summarized."""
    options = {"summary_ratio": 0.5, "preserve_recent_messages": 2, **options}
    return lambda: {
        "conversation_manager": SummarizingConversationManager(**options),
        "tools": [step, count],
    }


def unmanaged() -> dict[str, Any]:
    """Make the options of an agent whose conversation nobody manages."""
    return {"conversation_manager": NullConversationManager(), "tools": [step, count]}


def talk(scene: Scene, agent: Agent, turns: int) -> None:
    """Let an agent have turns, every second of them with tools, and check it after each."""
    for number in range(turns):
        agent.model = scene.model(*[ToolCall("step"), ToolCall("count")] * (number % 2))
        agent(f"q{number}")
        scene.check(agent)
        scene.check_rows()


def mark(messages: Messages, index: int) -> None:
    """Put a mark of the application's into a message's metadata."""
    message = cast("dict[str, Any]", messages[index])
    message.setdefault("metadata", {}).setdefault("custom", {})["seen"] = {"by": ["Ada"]}


def edit(messages: Messages, *indexes: int) -> None:
    """Change what messages say."""
    for index in indexes:
        messages[index]["content"][0]["text"] += ", edited"


def pin(messages: Messages, index: int) -> None:
    """Pin a message as Strands does."""
    from strands.agent.conversation_manager.compression.pin_message import (  # noqa: PLC0415
        pin_message,  # older versions of Strands have none
    )

    pin_message(messages, index)


# -- tools and interrupts --------------------------------------------------------------------------


@tool
def step(note: str = "ok") -> str:
    """Take a step.

    Args:
        note: What the result says.
    """
    return note


def paying() -> tuple[Any, list[str]]:
    """Make a tool that asks a human before it pays, and the list of whom it paid with leave of."""
    paid: list[str] = []

    @tool(context=True)
    def pay(amount: int, tool_context: ToolContext) -> str:
        """Pay.

        Args:
            amount: How much.
        """
        by = tool_context.interrupt("approve", reason=f"pay {amount}?")
        paid.append(by)
        return f"paid {amount}, approved by {by}"

    return pay, paid


def answers(interrupts: Sequence[Any] | None, response: Any) -> list[Any]:
    """Answer interrupts."""
    return [
        {"interruptResponse": {"interruptId": one.id, "response": response}}
        for one in interrupts or ()
    ]


def in_a_small_window(agent: Agent, tokens: int) -> None:
    """Let the agent's model have a context window of so many tokens."""
    agent.model.update_config(context_window_limit=tokens)


def long_talk(scene: Scene, agent: Agent, turns: int = 8) -> None:
    """Let an agent have turns with long results in a small window, and check it after each."""
    for number in range(turns):
        reply = ToolCall("step", {"note": f"{number} " + "word " * 2_000})
        replies: list[Reply] = [reply, f"a{number}"]
        agent.model = scene.model(*replies)
        in_a_small_window(agent, 4_000)
        agent(f"q{number} " + "question " * 20)
        scene.check(agent)
