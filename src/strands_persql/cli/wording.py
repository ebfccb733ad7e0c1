"""Text as a terminal or a page may have it: nothing in it moves a cursor or hides a word."""

import json
import re
from datetime import datetime, timezone
from typing import Any

# Control characters, and those that change the direction of what follows them.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_UNITS = ("bytes", "KB", "MB", "GB", "TB")
_STEP = 1_000


def printable(text: object) -> str:
    """Return text in which characters that a terminal would act upon are seen instead."""
    plain = str(text).replace("\r\n", "\n")
    return _UNSAFE.sub(_visible, plain)


def _visible(match: "re.Match[str]") -> str:
    code = ord(match[0])
    if code < 32:  # noqa: PLR2004 - these have pictures
        return chr(0x2400 + code)
    return f"<U+{code:04X}>"


def one_line(text: object, width: int | None = None) -> str:
    """Return text as one line, cut to a width."""
    line = " ".join(printable(text).split())
    if width is not None and len(line) > width:
        return line[: max(width - 1, 0)] + "…"
    return line


def as_json(value: Any, *, indent: int | None = None) -> str:
    """Return a value as JSON; bytes as Strands encodes them, and anything else as text."""
    return json.dumps(value, ensure_ascii=False, indent=indent, default=_other)


def _other(value: Any) -> Any:
    if isinstance(value, bytes | bytearray):
        return f"({size(len(value))})"
    return str(value)


def size(count: int) -> str:
    """Return a number of bytes in words."""
    amount = float(count)
    for unit in _UNITS:
        if amount < _STEP or unit == _UNITS[-1]:
            shown = f"{amount:.0f}" if unit == "bytes" or amount >= 100 else f"{amount:.1f}"  # noqa: PLR2004
            return f"{shown} {unit}"
        amount /= _STEP
    raise AssertionError("the last unit takes everything")


def number(count: int) -> str:
    """Return a number with its thousands apart."""
    return f"{count:,}"


def counted(count: int, what: str, several: str | None = None) -> str:
    """Return a number of things, in the singular or the plural."""
    return f"{count:,} {what if count == 1 else several or what + 's'}"


def moment(time: str | None, *, seconds: bool = False) -> str:
    """Return a row's time to the minute or second, or what it says where that is no time."""
    found = _parsed(time)
    if found is None:
        return one_line(time or "", 19)
    return found.strftime("%Y-%m-%d %H:%M:%S" if seconds else "%Y-%m-%d %H:%M")


def elapsed(first: str, last: str) -> str:
    """Return the time between two moments, or nothing where it isn't known or below a second."""
    begin, end = _parsed(first), _parsed(last)
    if begin is None or end is None or (end - begin).total_seconds() < 1:
        return ""
    total = int((end - begin).total_seconds())
    minutes, seconds = divmod(total, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


def remaining(seconds: int) -> str:
    """Return in what time something ends, in its largest unit."""
    if seconds <= 0:
        return "expired"
    for unit, length in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= 2 * length or (seconds >= length and unit != "minute"):
            return f"in {counted(seconds // length, unit)}"
    return f"in {counted(seconds, 'second')}"


def _parsed(time: str | None) -> datetime | None:
    try:
        found = datetime.fromisoformat((time or "").replace("Z", "+00:00"))
    except ValueError:
        return None
    return found.astimezone(timezone.utc) if found.tzinfo else found
