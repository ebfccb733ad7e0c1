"""What two texts have in common: the least to send of a new one where the old one is known.

It knows of no format. A change early in a text, as a snapshot's time is, costs that change.
"""

from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

ANCHOR = 32
"""Characters by which a place is found again."""

_LEAST = 48  # characters that are worth a range where the old text goes on
_LEAST_MOVED = 2_000  # the same elsewhere: each range more is sent with all saves to come
_CLOSE = 12  # characters by which what follows in the old text is found again behind new text
_GAPS = (0, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
_SAME_DISTANCE = (8, 16, 24, 32, 48, 64, 96, 128, 192, 256)  # replaced by as many, as a time is
_TRIES = 48  # searches through the old text for one place in the new one
_LONGEST_STEP = 4096
_MOST = 400  # copies of one text; what comes then is sent


class Copy(NamedTuple):
    """Characters that the old text has."""

    first: int
    size: int


Hunk: TypeAlias = Copy | str


def differences(old: str, new: str) -> list[Hunk]:
    """Return a new text as copies of an old one and the text between them, in order."""
    most = min(len(old), len(new))
    prefix = common_prefix(old, 0, new, 0, most)
    suffix = common_suffix(old, len(old), new, len(new), most - prefix)
    texts = _Texts(old, len(old) - suffix, new, len(new) - suffix)
    hunks: list[Hunk] = [Copy(0, prefix), *_forward(texts, prefix)]
    last = hunks[-1]
    assert isinstance(last, Copy)
    end = last.first + last.size
    # Where text is added again and again, each time before the same text, it ends where it did.
    given_back = max(0, end - texts.old_end) if last.first < texts.old_end else 0
    texts = texts.ending_later(min(given_back, suffix))
    hunks += _rest(texts, end, sum(_size(hunk) for hunk in hunks))
    hunks.append(Copy(texts.old_end, len(old) - texts.old_end))
    return [hunk for hunk in hunks if _size(hunk)]


class _Texts(NamedTuple):
    old: str
    old_end: int  # where what both end with begins
    new: str
    end: int

    def ending_later(self, size: int) -> "_Texts":
        return self._replace(old_end=self.old_end + size, end=self.end + size)


def _size(hunk: Hunk) -> int:
    return len(hunk) if isinstance(hunk, str) else hunk.size


def _forward(texts: _Texts, start: int) -> Iterator[Hunk]:
    """Yield what follows what both texts begin with, as far as there are copies."""
    in_old = in_new = start
    for _ in range(_MOST):
        found = _next_copy(texts, in_old, in_new)
        if found is None:
            return
        copy, place = found
        yield texts.new[in_new:place]
        yield copy
        in_old, in_new = copy.first + copy.size, place + copy.size


def _rest(texts: _Texts, in_old: int, in_new: int) -> Iterator[Hunk]:
    """Yield the last hunks: new text, and what has followed in the old one, behind it.

    Where text is added again and again before something that changes, as messages are before an
    agent's state, it stays apart from that.
    """
    for _ in range(_MOST):
        found = _next_close(texts, in_old, in_new)
        if found is None:
            break
        copy, place = found
        yield texts.new[in_new:place]
        yield copy
        in_old, in_new = copy.first + copy.size, place + copy.size
    yield texts.new[in_new : texts.end]


def _next_close(texts: _Texts, in_old: int, in_new: int) -> tuple[Copy, int] | None:
    """Return where a little of the next old text is found in the new one, or None."""
    old, old_end, new, end = texts
    for gap in _GAPS:
        first = in_old + gap
        if first + _CLOSE > old_end:
            return None
        place = new.rfind(old[first : first + _CLOSE], in_new, end)
        if place >= 0:
            back = common_suffix(old, first, new, place, min(gap, place - in_new))
            first, place = first - back, place - back
            most = min(old_end - first, end - place)
            return Copy(first, common_prefix(old, first, new, place, most)), place
    return None


def _next_copy(texts: _Texts, in_old: int, in_new: int) -> tuple[Copy, int] | None:
    """Return the next copy and its place in the new text, or None if there is none."""
    for first, place in _candidates(texts, in_old, in_new):
        before = first - in_old if first >= in_old else first
        back = common_suffix(texts.old, first, texts.new, place, min(before, place - in_new))
        first, place = first - back, place - back  # noqa: PLW2901 - the same place, from its start
        most = min(len(texts.old) - first, texts.end - place)
        count = common_prefix(texts.old, first, texts.new, place, most)
        if count >= (_LEAST if first >= in_old else _LEAST_MOVED):
            return Copy(first, count), place
    return None


def _candidates(texts: _Texts, in_old: int, in_new: int) -> Iterator[tuple[int, int]]:
    """Yield places of the old text and the new one where both may go on alike."""
    old, _, new, end = texts
    for gap in _SAME_DISTANCE:
        first, place = in_old + gap, in_new + gap
        if place + ANCHOR <= end and old[first : first + ANCHOR] == new[place : place + ANCHOR]:
            yield first, place
    place, step = in_new, ANCHOR // 2
    for _ in range(_TRIES):
        if place + _LEAST > end:
            return
        anchor = new[place : place + ANCHOR]
        first = old.find(anchor, in_old)
        if first < 0:
            first = old.find(anchor, 0, in_old + ANCHOR)
        if first >= 0:
            yield first, place
        place, step = place + step, min(2 * step, _LONGEST_STEP)


def common_prefix(one: str, first: int, other: str, second: int, most: int) -> int:
    """Return how many characters two texts have in common from a place of each on."""
    count, size = 0, 64
    while count < most:
        size = min(size, most - count)
        start, begin = first + count, second + count
        if one[start : start + size] == other[begin : begin + size]:
            count, size = count + size, size * 2
        else:
            most, size = count + size - 1, max(1, size // 2)
    return count


def common_suffix(one: str, end: int, other: str, stop: int, most: int) -> int:
    """Return how many characters two texts have in common up to a place of each."""
    count, size = 0, 64
    while count < most:
        size = min(size, most - count)
        start, begin = end - count, stop - count
        if one[start - size : start] == other[begin - size : begin]:
            count, size = count + size, size * 2
        else:
            most, size = count + size - 1, max(1, size // 2)
    return count
