"""Tool calls and their results in messages."""

from collections.abc import Iterable

from strands.types.content import Message

from strands_persql.sessions.upstream import missing_results


def called_ids(message: Message) -> set[str]:
    """Return the ids of the tool calls in a message."""
    return {block["toolUse"]["toolUseId"] for block in message["content"] if "toolUse" in block}


def answered_ids(message: Message) -> set[str]:
    """Return the ids of the tool calls that a message answers."""
    blocks = message["content"]
    return {block["toolResult"]["toolUseId"] for block in blocks if "toolResult" in block}


def has_valid_tool_use(messages: Iterable[Message]) -> bool:
    """Whether the calls in each message, and no others, are answered by the next one, if any."""
    calls: set[str] = set()
    for message in messages:
        called, answered = set(), set()
        for block in message["content"]:
            if "toolUse" in block:
                called.add(block["toolUse"]["toolUseId"])
            if "toolResult" in block:
                answered.add(block["toolResult"]["toolUseId"])
        if answered != calls:
            return False
        calls = called
    return True


def is_prompt(message: Message) -> bool:
    """Whether a turn may begin with this message."""
    return message["role"] == "user" and not answered_ids(message)


def is_placeholder(message: Message, calls: Message) -> bool:
    """Whether a message is what Strands puts where nobody has answered tool calls."""
    ids = called_ids(calls)
    if not ids or answered_ids(message) != ids or len(message["content"]) != len(ids):
        return False
    answers = sorted(message["content"], key=lambda block: block["toolResult"]["toolUseId"])
    return answers == missing_results(sorted(ids))


def is_open(message: Message) -> bool:
    """Whether a turn that ends with this message has stopped before its end."""
    return message["role"] != "assistant" or bool(called_ids(message))
