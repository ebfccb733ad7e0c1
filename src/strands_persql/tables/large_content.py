"""Large content apart from its row: what leaves a row's JSON for parts, and how it comes back.

A leaf is a string or, where strings aren't all that is large, an array or object. In the row it
is a mark with the leaf's SHA-256; the row begins with a list of all its leaves and their sizes in
bytes. Both are under a key that no other JSON of a row has unescaped, so text is enough to find
them.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

LEAF_CHARACTERS = 262_144
"""From this size on a string leaves its row."""

PART_BYTES = 1_000_000
"""What a part holds at the most."""

MAX_CONTENT_BYTES = 200_000_000
"""The most that a row's JSON may take with all its leaves: bytes are a third more in it."""

LIST_OF_OBJECT = '{"__persql__":{'
"""What the JSON of a row with leaves begins with."""

LIST_OF_ARRAY = '[{"__persql__":{'
"""What a view with leaves begins with."""

_SKELETON_BYTES = 1_000_000
_SMALLER_LEAVES = (32_768, 4_096)  # where many strings are large together
_CONTAINER_CHARACTERS = 65_536
_LISTED = re.compile(r'(?:\{|\[\{)"__persql__":(\{[^{}]*\})\}?,')
_MARK = re.compile(r'\{"__persql__":"part","data":"([0-9a-f]{64})"\}')
# Runs of strings that are short and plain, and a run of a string's characters.
_SHORT_STRINGS = re.compile(r'(?:[^"]*"[^"\\]{0,512}"){1,4096}')
_CHARACTERS = re.compile(r'(?:[^"\\]+|\\.){1,4096}', re.DOTALL)
_BYTES_A_CHARACTER = 4


@dataclass(frozen=True)
class Leaf:
    """A piece of JSON text that is stored apart.

    Attributes:
        text: The text that it is in.
        ends: Where each of its parts ends in it, the first one's beginning before that.
        digest: Its SHA-256 in hex.
        size: Its size in bytes.
    """

    text: str
    ends: Sequence[int]
    digest: str
    size: int

    @classmethod
    def of(cls, text: str, start: int, end: int) -> "Leaf":
        """Return the leaf between two places of a text."""
        is_ascii = text.isascii() or text[start:end].isascii()
        step = PART_BYTES if is_ascii else PART_BYTES // _BYTES_A_CHARACTER
        ends = [*range(start, end, step), end]
        digest, size = hashlib.sha256(), 0
        for first, last in pairwise(ends):
            data = text[first:last].encode()
            digest.update(data)
            size += len(data)
        return cls(text, ends, digest.hexdigest(), size)

    @property
    def count(self) -> int:
        """How many parts it has."""
        return len(self.ends) - 1

    def part(self, place: int) -> str:
        """Return one of its parts."""
        return self.text[self.ends[place] : self.ends[place + 1]]


@dataclass(frozen=True)
class Skeleton:
    """A row's JSON without its leaves, and these by their digests."""

    text: str
    leaves: Mapping[str, Leaf]


def split_large(text: str) -> Skeleton:
    """Take the leaves out of an object's or array's JSON, if it is large."""
    if len(text) < LEAF_CHARACTERS:
        return Skeleton(text, {})
    leaves: dict[str, Leaf] = {}
    skeleton = _without_strings(text, LEAF_CHARACTERS, leaves)
    for least in _SMALLER_LEAVES:
        if _fits(skeleton):
            break
        skeleton = _without_strings(skeleton, least, leaves)
    if not _fits(skeleton):
        skeleton = _without_containers(skeleton, leaves)
    if not leaves:
        return Skeleton(text, {})
    listed = _json({digest: leaf.size for digest, leaf in leaves.items()})
    begins = f'[{{"__persql__":{listed}}}' if text.startswith("[") else f'{{"__persql__":{listed}'
    return Skeleton(f"{begins},{skeleton[1:]}", leaves)


def _fits(skeleton: str) -> bool:
    if len(skeleton) * _BYTES_A_CHARACTER <= _SKELETON_BYTES:
        return True
    return len(skeleton.encode()) <= _SKELETON_BYTES


def _without_strings(text: str, least: int, leaves: dict[str, Leaf]) -> str:
    pieces, done = [], 0
    for start, end in _strings(text, least):
        pieces += [text[done:start], _marked(Leaf.of(text, start, end), leaves)]
        done = end
    return "".join([*pieces, text[done:]]) if pieces else text


def _marked(leaf: Leaf, leaves: dict[str, Leaf]) -> str:
    leaves[leaf.digest] = leaf
    return f'{{"__persql__":"part","data":"{leaf.digest}"}}'


def _strings(text: str, least: int) -> Iterator[tuple[int, int]]:
    """Yield where strings of some length begin and end, but for an object's keys."""
    start = text.find('"')
    while start != -1:
        if run := _SHORT_STRINGS.match(text, start):
            start = text.find('"', run.end())
            continue
        end = start + 1
        while run := _CHARACTERS.match(text, end):
            end = run.end()
        end += 1
        if end - start >= least and text[end : end + 1] != ":":
            yield start, end
        start = text.find('"', end)


def _without_containers(text: str, leaves: dict[str, Leaf]) -> str:
    """Take out the smallest arrays and objects that are large."""
    dumps = _json if not text.isascii() else json.JSONEncoder(separators=(",", ":")).encode

    def shrunk(value: Any) -> Any:
        places = value.items() if isinstance(value, dict) else enumerate(value)
        for place, child in list(places):
            if not isinstance(child, (dict, list)):
                continue
            if len(dumps(child)) > _CONTAINER_CHARACTERS:
                value[place] = shrunk(child)
                inner = dumps(value[place])
                if len(inner) > _CONTAINER_CHARACTERS:
                    value[place] = json.loads(_marked(Leaf.of(inner, 0, len(inner)), leaves))
        return value

    return dumps(shrunk(json.loads(text)))


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


# -- and back --------------------------------------------------------------------------------------


def has_leaves(text: object) -> bool:
    """Whether a row's column is JSON with leaves."""
    return isinstance(text, str) and text.startswith((LIST_OF_OBJECT, LIST_OF_ARRAY))


def listed(text: str) -> dict[str, int]:
    """Return the digests and sizes of the leaves that JSON text lists, wherever it does."""
    found: dict[str, int] = {}
    for one in _LISTED.finditer(text):
        found |= json.loads(one[1])
    return found


def filled(text: str, leaves: Mapping[str, Sequence[str]]) -> str:
    """Return JSON text with its leaves in their places, given the parts of each.

    Raises:
        KeyError: If one isn't given.
    """
    return "".join(_pieces(_LISTED.sub(_without_list, text), leaves))


def _without_list(found: re.Match[str]) -> str:
    return found[0][0]


def _pieces(text: str, leaves: Mapping[str, Sequence[str]]) -> Iterator[str]:
    done = 0
    for mark in _MARK.finditer(text):
        yield text[done : mark.start()]
        done = mark.end()
        parts = leaves[mark[1]]
        if parts[0].startswith('"'):
            yield from parts
        else:  # an array or object may have marks itself
            yield from _pieces("".join(parts), leaves)
    yield text[done:]


def is_leaf(digest: str, parts: Sequence[str]) -> bool:
    """Whether parts are what a digest was made of."""
    found = hashlib.sha256()
    for part in parts:
        found.update(part.encode())
    return found.hexdigest() == digest
