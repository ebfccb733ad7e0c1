"""Lines with large content: taken apart for a database, and found where content is lost."""

import json

from strands_persql.admin.lines import Line, is_unreadable
from strands_persql.tables.large_content import (
    LEAF_CHARACTERS,
    Leaf,
    Skeleton,
    has_leaves,
    split_large,
)

_DECODER = json.JSONDecoder()
_APART = ("data", "view")


def without_large_content(line: Line) -> Skeleton:
    """Return a line as a database stores it, and what it stores apart from the line's row.

    The text stays what it is, so that lines of the same rows are the same.
    """
    text = line.text
    if len(text) < LEAF_CHARACTERS or is_unreadable(line):
        return Skeleton(text, {})
    pieces: list[str] = []
    leaves: dict[str, Leaf] = {}
    done = 0
    try:
        for name, start, end in _fields(text):
            value = text[start:end] if name in _APART else ""
            if value[:1] in ("{", "[") and not has_leaves(value):
                skeleton = split_large(value)
                pieces += [text[done:start], skeleton.text]
                leaves.update(skeleton.leaves)
                done = end
    except (IndexError, ValueError, RecursionError):
        return Skeleton(text, {})  # the database says what is wrong with it
    return Skeleton("".join([*pieces, text[done:]]), leaves)


def _fields(text: str) -> list[tuple[str, int, int]]:
    """Return an object's keys, and where the value of each begins and ends."""
    fields = []
    place = _after_spaces(text, text.index("{") + 1)
    while text[place] == '"':
        name, place = _DECODER.raw_decode(text, place)
        start = _after_spaces(text, text.index(":", place) + 1)
        _, end = _DECODER.raw_decode(text, start)
        fields.append((name, start, end))
        place = _after_spaces(text, end)
        place = _after_spaces(text, place + 1) if text[place] == "," else place
    return fields


def _after_spaces(text: str, place: int) -> int:
    while text[place] in " \t\r\n":
        place += 1
    return place


def has_lost_content(line: Line) -> bool:
    """Whether a line carries a row whose content isn't there."""
    return '{"__persql__":"part","data":"' in line.text


def cant_be_read(line: Line) -> bool:
    """Whether a line carries a row that can't be read."""
    return is_unreadable(line) or has_lost_content(line)
