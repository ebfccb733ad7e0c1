"""A transcript as it is told: turns, and messages with each call beside its result."""

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

from strands_persql.admin import TranscriptEntry
from strands_persql.cli.wording import size
from strands_persql.persistence.view import View

PartKind: TypeAlias = Literal["text", "call", "reasoning", "media", "other"]

_MEDIA = ("image", "document", "video", "audio")


@dataclass(frozen=True)
class Part:
    """A block of a message.

    Attributes:
        kind: What it is.
        text: What it says, or a sentence on what it is.
        name: The tool's name, where it is a call.
        value: The block itself, or a call's input.
        results: What a call has given.
        is_answered: Whether a call has a result.
        is_error: Whether the result is an error's.
    """

    kind: PartKind
    text: str = ""
    name: str = ""
    value: Any = None
    results: Sequence["Part"] = ()
    is_answered: bool = False
    is_error: bool = False


@dataclass(frozen=True)
class Said:
    """A message as it is told, together with the results of its calls.

    Attributes:
        entry: The message.
        parts: Its blocks.
        last_id: The id of the message with its results, or its own.
        in_view: Whether the agent works with it.
        begins_turn: Whether a turn begins with it.
        turn_began_at: When its turn began.
    """

    entry: TranscriptEntry
    parts: Sequence[Part]
    last_id: int
    in_view: bool
    begins_turn: bool
    turn_began_at: str


def tell(entries: Iterable[TranscriptEntry], view: View) -> Iterator[Said]:
    """Tell messages in order, results beside their calls.

    Args:
        entries: The messages; one with calls is told once the next one is known.
        view: What the agent works with.
    """
    teller = _Teller(view)
    waiting: TranscriptEntry | None = None
    for entry in entries:
        rest: TranscriptEntry | None = entry
        if waiting is not None:
            answers = _results(waiting, entry)
            yield teller.said(waiting, answers, entry.message_id if answers else None)
            waiting, rest = None, _without(entry, answers)
        if rest is not None and _calls(rest):
            waiting = rest
        elif rest is not None:
            yield teller.said(rest)
    if waiting is not None:
        yield teller.said(waiting)


class _Teller:
    """Tells messages, and knows which turn it is at."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._turn: str | None = None
        self._began_at = ""

    def said(
        self,
        entry: TranscriptEntry,
        answers: Mapping[str, Mapping[str, Any]] | None = None,
        last_id: int | None = None,
    ) -> Said:
        begins, self._turn = entry.turn != self._turn, entry.turn
        if begins:
            self._began_at = entry.created_at
        return Said(
            entry,
            [_part(block, answers or {}) for block in blocks_of(entry.message)],
            entry.message_id if last_id is None else last_id,
            entry.message_id in self._view,
            begins,
            self._began_at,
        )


def role_of(entry: TranscriptEntry) -> str:
    """Return who has said a message."""
    return "unreadable" if entry.message is None else str(entry.message["role"])


def blocks_of(message: Any) -> list[Mapping[str, Any]]:
    """Return a message's blocks."""
    return list((message or {}).get("content") or [])


def _calls(entry: TranscriptEntry) -> set[str]:
    blocks = blocks_of(entry.message)
    return {block["toolUse"]["toolUseId"] for block in blocks if "toolUse" in block}


def _results(calls: TranscriptEntry, answers: TranscriptEntry) -> dict[str, Mapping[str, Any]]:
    """Return the results in a message of the calls in the one before, by the calls' ids."""
    called = _calls(calls)
    found = (block["toolResult"] for block in blocks_of(answers.message) if "toolResult" in block)
    return {one["toolUseId"]: one for one in found if one["toolUseId"] in called}


def _without(entry: TranscriptEntry, answers: Mapping[str, Any]) -> TranscriptEntry | None:
    """Return what a message has besides results that were told, or None where that is nothing."""
    if not answers or entry.message is None:
        return entry
    others = [
        block
        for block in blocks_of(entry.message)
        if block.get("toolResult", {}).get("toolUseId") not in answers
    ]
    rest: Any = {**entry.message, "content": others}
    return replace(entry, message=rest) if others else None


def _part(block: Mapping[str, Any], answers: Mapping[str, Mapping[str, Any]]) -> Part:
    if "text" in block:
        return Part("text", str(block["text"]))
    if "toolUse" in block:
        return _call(block["toolUse"], answers)
    if "toolResult" in block:
        return _lone_result(block["toolResult"])
    if "reasoningContent" in block:
        reasoning = block["reasoningContent"].get("reasoningText", {}).get("text")
        return Part("reasoning", str(reasoning or "(kept from reading by the provider)"))
    if "citationsContent" in block:
        content = block["citationsContent"].get("content") or []
        return Part("text", "".join(str(one.get("text", "")) for one in content))
    return media_of(block)


def _call(use: Mapping[str, Any], answers: Mapping[str, Mapping[str, Any]]) -> Part:
    result = answers.get(use["toolUseId"])
    return Part(
        "call",
        name=str(use.get("name", "")),
        value=use.get("input"),
        results=() if result is None else _result_parts(result),
        is_answered=result is not None,
        is_error=result is not None and result.get("status") == "error",
    )


def _lone_result(result: Mapping[str, Any]) -> Part:
    return Part(
        "call",
        name="(a call before)",
        results=_result_parts(result),
        is_answered=True,
        is_error=result.get("status") == "error",
    )


def _result_parts(result: Mapping[str, Any]) -> list[Part]:
    parts = []
    for block in result.get("content") or []:
        if "text" in block:
            parts.append(Part("text", str(block["text"])))
        elif "json" in block:
            parts.append(Part("other", value=block["json"]))
        else:
            parts.append(media_of(block))
    return parts


def media_of(block: Mapping[str, Any]) -> Part:
    """Return an image, a document or the like with a sentence on what it is."""
    for kind in _MEDIA:
        if kind in block and isinstance(block[kind], dict):
            return Part("media", _media_words(kind, block[kind]), name=kind, value=block[kind])
    names = ", ".join(sorted(block)) or "nothing"
    return Part("other", f"({names})", value=dict(block))


def _media_words(kind: str, media: Mapping[str, Any]) -> str:
    words = [str(media.get("format") or ""), kind]
    if media.get("name"):
        words.append(f"“{media['name']}”")
    source = media.get("source") or {}
    content = source.get("bytes")
    if isinstance(content, bytes):
        dimensions = _dimensions(content)
        words += [f"{dimensions[0]}x{dimensions[1]}"] if dimensions else []
        return f"{' '.join(filter(None, words))}, {size(len(content))}"
    location = source.get("location") or {}
    if location.get("uri"):
        return f"{' '.join(filter(None, words))} at {location['uri']}"
    return " ".join(filter(None, words))


def _dimensions(content: bytes) -> tuple[int, int] | None:
    """Return an image's width and height, where it begins as PNG and GIF do."""
    if content[:8] == b"\x89PNG\r\n\x1a\n" and len(content) >= 24:  # noqa: PLR2004
        width, height = struct.unpack(">II", content[16:24])
        return width, height
    if content[:6] in (b"GIF87a", b"GIF89a") and len(content) >= 10:  # noqa: PLR2004
        width, height = struct.unpack("<HH", content[6:10])
        return width, height
    return None
