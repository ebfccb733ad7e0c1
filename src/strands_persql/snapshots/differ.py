"""What two texts have in common: the least to send of a new one where the old one is known.

It knows of no format. A change early in a text, as a snapshot's time is, costs that change.
"""

from collections.abc import Callable, Generator, Iterator
from typing import NamedTuple, TypeAlias

ANCHOR = 32
"""Characters by which a place is found again."""

_LEAST = 48  # characters that are worth a range where the old text goes on
_LEAST_MOVED = 2_000  # the same elsewhere: each range more is sent with all saves to come
_CLOSE = 12  # characters by which what follows in the old text is found again behind new text
_GAPS = (0, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
_SAME_DISTANCE = (8, 16, 24, 32, 48, 64, 96, 128, 192, 256)  # replaced by as many, as a time is
_LONGEST_STEP = 4096
_MOST = 200  # copies of one text; what comes then is sent
_SEARCHED = 100_000_000  # characters of the old text that are looked through in all


class Copy(NamedTuple):
    """Characters that the old text has."""

    first: int
    size: int

    @property
    def end(self) -> int:
        """The place after the last one."""
        return self.first + self.size


Hunk: TypeAlias = Copy | str


def differences(old: str, new: str) -> list[Hunk]:
    """Return a new text as copies of an old one and the text between them, in order."""
    most = min(len(old), len(new))
    prefix = common_prefix(old, 0, new, 0, most)
    suffix = common_suffix(old, len(old), new, len(new), most - prefix)
    differ = _Differ(old, new, suffix)
    hunks: list[Hunk] = [Copy(0, prefix), *differ.forward(prefix)]
    last = hunks[-1]
    assert isinstance(last, Copy)
    if last.first < differ.old_end < last.end:
        # Where text is added again and again before the same text, messages before a state, all
        # that was added stays one: it ends where it did, whatever the next one begins with.
        differ.end_later(last.end - differ.old_end)
    hunks += differ.rest(last.end, sum(map(_size, hunks)))
    hunks.append(Copy(differ.old_end, len(old) - differ.old_end))
    return [hunk for hunk in hunks if _size(hunk)]


def _size(hunk: Hunk) -> int:
    return len(hunk) if isinstance(hunk, str) else hunk.size


class _Differ:
    """Finds the hunks between what two texts begin and end with.

    Args:
        old: The old text.
        new: The new one.
        suffix: How many characters both end with.
    """

    def __init__(self, old: str, new: str, suffix: int) -> None:
        self.old_end = len(old) - suffix
        self._old = old
        self._new = new
        self._end = len(new) - suffix
        self._searched = 0

    def end_later(self, size: int) -> None:
        """Take some characters from what both end with."""
        size = min(size, len(self._old) - self.old_end)
        self.old_end += size
        self._end += size

    def forward(self, start: int) -> Iterator[Hunk]:
        """Yield what follows what both texts begin with, as far as there are copies."""
        yield from self._copies(self._next_copy, start, start)

    def rest(self, in_old: int, in_new: int) -> Iterator[Hunk]:
        """Yield the last hunks: new text, and behind it what has followed in the old one."""
        in_new = yield from self._copies(self._next_close, in_old, in_new)
        yield self._new[in_new : self._end]

    def _copies(
        self, find: Callable[[int, int], tuple[Copy, int] | None], in_old: int, in_new: int
    ) -> Generator[Hunk, None, int]:
        """Yield copies with the new text before each, and return where they end in the new text."""
        for _ in range(_MOST):
            found = find(in_old, in_new)
            if found is None:
                break
            copy, place = found
            yield self._new[in_new:place]
            yield copy
            in_old, in_new = copy.end, place + copy.size
        return in_new

    def _next_copy(self, in_old: int, in_new: int) -> tuple[Copy, int] | None:
        """Return the next copy and its place in the new text, or None if there is none."""
        for found in self._candidates(in_old, in_new):
            goes_on = found[0] >= in_old
            before = found[0] - in_old if goes_on else found[0]
            first, place = self._from_its_start(*found, most=min(before, found[1] - in_new))
            most = min(len(self._old) - first, self._end - place)
            size = common_prefix(self._old, first, self._new, place, most)
            if size >= (_LEAST if goes_on else _LEAST_MOVED):
                return Copy(first, size), place
        return None

    def _candidates(self, in_old: int, in_new: int) -> Iterator[tuple[int, int]]:
        """Yield places of the old text and the new one where both may go on alike."""
        old, new = self._old, self._new
        for gap in _SAME_DISTANCE:
            first, place = in_old + gap, in_new + gap
            if old[first : first + ANCHOR] == new[place : place + ANCHOR]:
                yield first, place
        # Further and further apart: a copy is found from anywhere within it.
        place, step = in_new, ANCHOR // 2
        while place + _LEAST <= self._end and self._searched < _SEARCHED:
            first = self._find(new[place : place + ANCHOR], in_old)
            if first >= 0:
                yield first, place
            place, step = place + step, min(2 * step, _LONGEST_STEP)

    def _find(self, anchor: str, in_old: int) -> int:
        """Return where the old text has an anchor, from a place on or else before it, or -1."""
        first = self._old.find(anchor, in_old)
        self._searched += (first if first >= 0 else len(self._old)) - in_old
        if first < 0:
            first = self._old.find(anchor, 0, in_old + ANCHOR)
            self._searched += first if first >= 0 else in_old
        return first

    def _next_close(self, in_old: int, in_new: int) -> tuple[Copy, int] | None:
        """Return where a little of the next old text is found in the new one, or None."""
        for gap in _GAPS:
            first = in_old + gap
            if first + _CLOSE > self.old_end:
                return None
            place = self._new.rfind(self._old[first : first + _CLOSE], in_new, self._end)
            if place >= 0:
                first, place = self._from_its_start(first, place, most=min(gap, place - in_new))
                most = min(self.old_end - first, self._end - place)
                size = common_prefix(self._old, first, self._new, place, most)
                return Copy(first, size), place
        return None

    def _from_its_start(self, first: int, place: int, *, most: int) -> tuple[int, int]:
        """Return where a copy begins of which one place is known, in both texts."""
        back = common_suffix(self._old, first, self._new, place, most)
        return first - back, place - back


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
