"""What it takes to test an agent without a model and without a network.

`ScriptedModel` answers from a script. `CountingDatabase` counts the round trips of the database
that it wraps, `FaultyDatabase` loses, repeats and delays them. Both go around any database, each
other included::

    database = CountingDatabase(LocalDatabase())
    model = ScriptedModel([ToolCall("weather", {"city": "Oslo"}), "It rains in Oslo."])
    agent = Agent(model=model, session_manager=PerSQLSessionManager("user-42", database))
"""

import asyncio
import contextlib
import copy
import inspect
import itertools
import json
import sqlite3
import threading
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn, TypeAlias, TypeVar, cast, get_args

from strands.models.model import Model
from strands.types.content import Messages
from strands.types.streaming import StreamEvent
from strands.types.tools import ToolSpec

from strands_persql.databases.protocol import Database, Result, Statement, Value

__all__ = [
    "CountingDatabase",
    "Fault",
    "FaultyDatabase",
    "Redact",
    "Reply",
    "ScriptedModel",
    "ToolCall",
]

_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class ToolCall:
    """A reply in which the model asks for a tool.

    Attributes:
        name: The tool's name.
        input: The tool's arguments.
        id: The call's id; None makes one that no other call has.
    """

    name: str
    input: Mapping[str, Any] = field(default_factory=dict)
    id: str | None = None


@dataclass(frozen=True)
class Redact:
    """A reply of a guardrail: the user's message is replaced, in the agent and in its session.

    Attributes:
        text: What stands in the user's message from now on.
        reply: What the model answers.
    """

    text: str
    reply: str = "I can't talk about that."


Reply: TypeAlias = str | ToolCall | Redact | BaseException | Sequence[str | ToolCall]
"""One answer: a text, a tool call, several of them in one message, a redaction, or an error."""


class ScriptedModel(Model):
    """A model that answers from a script.

    Args:
        replies: The answers in their order, or a function that gets the messages and gives the
            answer to them.
        delay: How long, in seconds, each answer takes.

    Attributes:
        calls: The messages that each call was given, as they were then.
    """

    def __init__(
        self, replies: Iterable[Reply] | Callable[[Messages], Reply], *, delay: float = 0.0
    ) -> None:
        if isinstance(replies, (str, Mapping)):
            raise TypeError("replies is a list of answers, or a function: put one answer in a list")
        self.calls: list[Messages] = []
        self._replies = replies if callable(replies) else iter(replies)
        self._delay = delay
        self._config: dict[str, Any] = {"model_id": "scripted"}
        self._lock = threading.Lock()

    def update_config(self, **model_config: Any) -> None:
        """Change what `get_config` gives; the script stays as it is.

        Args:
            **model_config: What to set.
        """
        self._config.update(model_config)

    def get_config(self) -> dict[str, Any]:
        """Give the configuration, which nothing here acts upon."""
        return self._config

    def structured_output(
        self, output_model: Any, prompt: Messages, system_prompt: str | None = None, **kwargs: Any
    ) -> NoReturn:
        """Refuse: a script has no structured output.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError(
            "ScriptedModel has no structured_output: script a ToolCall named after the output model"
        )

    async def stream(
        self,
        messages: Messages,
        tool_specs: list[ToolSpec] | None = None,
        system_prompt: str | None = None,
        **kwargs: Any,
    ) -> AsyncGenerator[StreamEvent, None]:
        """Give the script's next answer.

        Args:
            messages: The conversation so far.
            tool_specs: Taken and not used, as all that follows.
            system_prompt: Not used.
            **kwargs: Not used.

        Yields:
            The events of one model message.

        Raises:
            RuntimeError: The script has no more answers.
            BaseException: What the script holds for this call.
        """
        reply = self._next_reply(messages)
        if self._delay:
            await asyncio.sleep(self._delay)
        if isinstance(reply, BaseException):
            raise reply
        for event in _events(reply):
            yield event

    def _next_reply(self, messages: Messages) -> Reply:
        with self._lock:
            self.calls.append(copy.deepcopy(messages))
            if callable(self._replies):
                return self._replies(messages)
            try:
                return next(self._replies)
            except StopIteration:
                raise RuntimeError(
                    f"the script ended after {len(self.calls) - 1} answers and the agent asks for"
                    " another: give ScriptedModel more replies"
                ) from None


def _events(reply: str | ToolCall | Redact | Sequence[str | ToolCall]) -> Iterable[StreamEvent]:
    blocks: Sequence[str | ToolCall]
    if isinstance(reply, Redact):
        blocks, stop_reason = [reply.reply], "guardrail_intervened"
    else:
        blocks = [reply] if isinstance(reply, (str, ToolCall)) else reply
        asks = any(isinstance(block, ToolCall) for block in blocks)
        stop_reason = "tool_use" if asks else "end_turn"
    yield {"messageStart": {"role": "assistant"}}
    for block in blocks:
        yield from _block_events(block)
    yield cast("StreamEvent", {"messageStop": {"stopReason": stop_reason}})
    if isinstance(reply, Redact):
        yield {"redactContent": {"redactUserContentMessage": reply.text}}
    yield {
        "metadata": {
            "usage": {"inputTokens": 0, "outputTokens": 0, "totalTokens": 0},
            "metrics": {"latencyMs": 0},
        }
    }


def _block_events(block: str | ToolCall) -> Iterable[StreamEvent]:
    if isinstance(block, ToolCall):
        tool_id = block.id or f"tooluse_{uuid.uuid4().hex}"
        arguments = json.dumps(dict(block.input))
        yield {
            "contentBlockStart": {"start": {"toolUse": {"name": block.name, "toolUseId": tool_id}}}
        }
        yield {"contentBlockDelta": {"delta": {"toolUse": {"input": arguments}}}}
    else:
        yield {"contentBlockStart": {"start": {}}}
        yield {"contentBlockDelta": {"delta": {"text": block}}}
    yield {"contentBlockStop": {}}


class _WrappedDatabase:
    """A database around another one; what it does with a round trip is up to `_pass_on`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()

    @property
    def max_row_bytes(self) -> int | None:
        """The wrapped database's limit on a row, in bytes, or None."""
        limit: int | None = getattr(self._database, "max_row_bytes", None)
        return limit

    def query(
        self, sql: str, params: Sequence[Value] = (), /, *, idempotency_key: str | None = None
    ) -> Result:
        """Run one statement on the wrapped database.

        Args:
            sql: The statement.
            params: Its parameters.
            idempotency_key: Handed on to a database that takes it.

        Returns:
            The wrapped database's result.
        """
        params = tuple(params)
        options = _options(self._database.query, idempotency_key)
        return self._pass_on(
            [{"sql": sql, "params": params}],
            lambda: self._database.query(sql, params, **options),
        )

    def batch(
        self,
        statements: Sequence[Statement],
        /,
        *,
        transaction: bool = False,
        idempotency_key: str | None = None,
    ) -> Sequence[Result]:
        """Run statements on the wrapped database.

        Args:
            statements: The statements.
            transaction: Whether they stand or fall together.
            idempotency_key: Handed on to a database that takes it.

        Returns:
            The wrapped database's results.
        """
        copies: list[Statement] = [
            {"sql": each["sql"], "params": tuple(each.get("params", ()))} for each in statements
        ]
        options = _options(self._database.batch, idempotency_key)
        return self._pass_on(
            copies,
            lambda: self._database.batch(copies, transaction=transaction, **options),
        )

    def close(self) -> None:
        """Close the wrapped database, if it can be closed."""
        close = getattr(self._database, "close", None)
        if close is not None:
            close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._database!r})"

    def _pass_on(self, statements: list[Statement], send: Callable[[], _Answer]) -> _Answer:
        raise NotImplementedError


def _options(method: Callable[..., Any], idempotency_key: str | None) -> dict[str, Any]:
    if idempotency_key is None:
        return {}
    try:
        parameters = inspect.signature(method).parameters
    except (TypeError, ValueError):
        return {}
    takes_any = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
    taken = takes_any or "idempotency_key" in parameters
    return {"idempotency_key": idempotency_key} if taken else {}


class CountingDatabase(_WrappedDatabase):
    """A database that counts what it is asked, and may take its time.

    Args:
        database: What it goes around.
        latency: How long, in seconds, each round trip takes beyond the database's own time.

    Attributes:
        round_trips: How many calls there were, those that failed included.
        log: The statements of each call, in the order of the calls.
        latency: As given; may be changed at any time.
    """

    def __init__(self, database: Database, *, latency: float = 0.0) -> None:
        super().__init__(database)
        self.latency = latency
        self.round_trips = 0
        self.log: list[list[Statement]] = []

    def reset(self) -> None:
        """Forget what has been counted."""
        with self._lock:
            self.round_trips = 0
            self.log = []

    def _pass_on(self, statements: list[Statement], send: Callable[[], _Answer]) -> _Answer:
        with self._lock:
            self.round_trips += 1
            self.log.append(statements)
        if self.latency:
            time.sleep(self.latency)
        return send()


Fault: TypeAlias = Literal[
    "lost_request", "lost_answer", "duplicate", "delayed_duplicate", "locked"
]
"""What can befall a round trip; see `FaultyDatabase`."""


class FaultyDatabase(_WrappedDatabase):
    """A database whose round trips go wrong, each in the way that it is told.

    - ``"lost_request"``: nothing runs; raises `ConnectionRefusedError`.
    - ``"lost_answer"``: it runs, its answer is lost; raises `ConnectionResetError`.
    - ``"duplicate"``: it runs twice, and the second answer is given.
    - ``"delayed_duplicate"``: it runs, and a copy of it arrives `duplicate_after` calls later.
    - ``"locked"``: nothing runs; raises the `sqlite3.OperationalError` of a locked database.

    Args:
        database: What it goes around.
        faults: The fault of each call in turn, None for a call that goes well; calls after the
            last go well. Or a function that gets the call's number, from 0, and gives its fault.
        duplicate_after: How many calls later a delayed duplicate arrives: 1 is just before the
            next one.

    Attributes:
        injected: The number of each call that went wrong, and its fault.
    """

    def __init__(
        self,
        database: Database,
        faults: Iterable[Fault | None] | Callable[[int], Fault | None],
        *,
        duplicate_after: int = 1,
    ) -> None:
        super().__init__(database)
        if isinstance(faults, str):
            raise TypeError(f"faults is a list or a function: give [{faults!r}] for the first call")
        if duplicate_after < 1:
            raise ValueError(f"duplicate_after is 1 or more calls, not {duplicate_after}")
        self.injected: list[tuple[int, Fault]] = []
        self._faults = faults if callable(faults) else iter(faults)
        self._duplicate_after = duplicate_after
        self._calls = itertools.count()
        self._late: list[tuple[int, Callable[[], object]]] = []

    def deliver_late(self) -> None:
        """Let the delayed duplicates arrive that are still under way."""
        with self._lock:
            late, self._late = self._late, []
        _deliver(late)

    def _pass_on(self, statements: list[Statement], send: Callable[[], _Answer]) -> _Answer:
        with self._lock:
            call = next(self._calls)
            fault = self._next_fault(call)
            due = [each for each in self._late if each[0] <= call]
            self._late = [each for each in self._late if each[0] > call]
            if fault == "delayed_duplicate":
                self._late.append((call + self._duplicate_after, send))
        _deliver(due)
        if fault == "lost_request":
            raise ConnectionRefusedError("the request was lost on its way to the database")
        if fault == "locked":
            raise sqlite3.OperationalError("database is locked")
        answer = send()
        if fault == "lost_answer":
            raise ConnectionResetError("the database's answer was lost on its way back")
        return send() if fault == "duplicate" else answer

    def _next_fault(self, call: int) -> Fault | None:
        fault = self._faults(call) if callable(self._faults) else next(self._faults, None)
        if fault is None:
            return None
        if fault not in get_args(Fault):
            raise ValueError(f"{fault!r} is no fault; there are {', '.join(get_args(Fault))}")
        self.injected.append((call, fault))
        return fault


def _deliver(late: list[tuple[int, Callable[[], object]]]) -> None:
    for _, send in late:
        # Nobody waits for this answer: whether it succeeds or fails, nobody hears of it.
        with contextlib.suppress(Exception):
            send()
