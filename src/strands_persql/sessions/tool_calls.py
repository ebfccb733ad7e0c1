"""Messages as an agent has them in memory: what they are known by, and which belong together."""

from collections.abc import Iterable, Iterator, Sequence

from strands.tools._tool_helpers import generate_missing_tool_result_content
from strands.types.content import Message


def mark(message: Message) -> str | int:
    """Give what a message is known by: Strands' mark, which copies keep, or its identity."""
    tracking_id = message.get("tracking_id")
    return tracking_id if isinstance(tracking_id, str) else id(message)


def places(messages: Sequence[Message], wanted: Iterable[Message]) -> Iterator[int]:
    """Give where messages stand, passing over those that don't."""
    for one in wanted:
        known_by = mark(one)
        yield from (index for index, each in enumerate(messages) if mark(each) == known_by)


def called(message: Message) -> set[str]:
    """Give the ids of the tool calls in a message."""
    return {block["toolUse"]["toolUseId"] for block in message["content"] if "toolUse" in block}


def answered(message: Message) -> set[str]:
    """Give the ids of the tool calls that a message answers."""
    blocks = message["content"]
    return {block["toolResult"]["toolUseId"] for block in blocks if "toolResult" in block}


def stands_in(message: Message, calls: Message) -> bool:
    """Tell whether a message is what Strands puts where nobody has answered tool calls."""
    ids = called(calls)
    if not ids or answered(message) != ids or len(message["content"]) != len(ids):
        return False
    answers = sorted(message["content"], key=lambda block: block["toolResult"]["toolUseId"])
    return answers == generate_missing_tool_result_content(sorted(ids))


def continues(latest: Message, message: Message, messages: Sequence[Message]) -> bool:
    """Tell whether a message is the latest one with more content, which it has replaced."""
    tracking_id = message.get("tracking_id")
    if tracking_id is None or latest is message or latest.get("tracking_id") != tracking_id:
        return False
    return not any(one is latest for one in messages[-2:])
