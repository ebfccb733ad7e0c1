"""What a context manager of Strands has taken out of a message, kept in the message's row."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

FIELD = "stash"
"""The field of a message's row that has it, by the references that took its place."""

_REFERENCES = re.compile(r"\[refs?: ([^\]]+)\]")  # as Strands writes them


def own_references(message: Mapping[str, Any]) -> list[str]:
    """Return the references in a message to content that was taken out of it.

    A message may quote another one's references: what these lead to is in the other one's row.
    """
    owners = {message.get("tracking_id")}
    texts: list[Any] = []
    for block in message["content"]:
        texts.append(block.get("text"))
        if result := block.get("toolResult"):
            owners.add(result["toolUseId"])
            texts += [item.get("text") for item in result["content"]]
    return [one for one in _named(texts) if one.rpartition("_")[0] in owners]


def _named(texts: Sequence[Any]) -> Iterator[str]:
    for text in texts:
        if isinstance(text, str):
            for names in _REFERENCES.findall(text):
                yield from names.split(", ")
