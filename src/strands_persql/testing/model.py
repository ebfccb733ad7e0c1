"""A model that answers from a script."""

import asyncio
import copy
import json
import threading
import uuid
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeAlias, cast

from strands.models.model import Model
from strands.types.content import Messages
from strands.types.streaming import StreamEvent
from strands.types.tools import ToolSpec


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
        text: What replaces the user's message.
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
        record_calls: Whether to keep what each call was given, which grows with each turn.

    Attributes:
        calls: The messages that each call was given, as they were then.
    """

    def __init__(
        self,
        replies: Iterable[Reply] | Callable[[Messages], Reply],
        *,
        delay: float = 0.0,
        record_calls: bool = True,
    ) -> None:
        if isinstance(replies, (str, Mapping)):
            raise TypeError("replies is a list of answers, or a function: put one answer in a list")
        self.calls: list[Messages] = []
        self._replies = replies if callable(replies) else iter(replies)
        self._delay = delay
        self._record_calls = record_calls
        self._answered = 0
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

        Args:
            output_model: Not looked at.
            prompt: Not looked at.
            system_prompt: Not looked at.
            **kwargs: Not looked at.

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
            if self._record_calls:
                self.calls.append(copy.deepcopy(messages))
            if callable(self._replies):
                return self._replies(messages)
            try:
                reply = next(self._replies)
            except StopIteration:
                raise RuntimeError(
                    f"the script ended after {self._answered} answers and the agent asks for"
                    " another: give ScriptedModel more replies"
                ) from None
            self._answered += 1
            return reply


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
