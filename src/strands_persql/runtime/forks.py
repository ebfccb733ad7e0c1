"""Locks that another thread held when the process forked, replaced in the child."""

import os
import weakref
from typing import Protocol


class Forked(Protocol):
    """Something that has locks, or work for threads that a child doesn't have."""

    def after_fork(self) -> None:
        """Start again in the child of a fork, where no other thread exists yet."""


_known: "weakref.WeakSet[Forked]" = weakref.WeakSet()


def renew_after_fork(one: Forked) -> None:
    """Have `Forked.after_fork` called in children, for as long as the object lives."""
    _known.add(one)


def _after_fork() -> None:
    for one in list(_known):
        one.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
