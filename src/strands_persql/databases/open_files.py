"""The open databases of this process, which a fork must not find in the middle of something."""

import os
import threading
import weakref
from typing import Protocol


class Forking(Protocol):
    """A database that is told of forks."""

    def _before_fork(self) -> None: ...

    def _after_fork_in_parent(self) -> None: ...

    def _after_fork_in_child(self, parent: int) -> None: ...


_open: "weakref.WeakSet[Forking]" = weakref.WeakSet()
_lock = threading.Lock()
_forking: list[Forking] = []
_parent = 0


def tell_of_forks(database: Forking) -> None:
    """Tell a database of forks, for as long as it lives."""
    with _lock:
        _open.add(database)


def _before_fork() -> None:
    global _parent  # noqa: PLW0603 - the hooks of os.register_at_fork take no arguments
    _lock.acquire()
    _parent = os.getpid()
    _forking.extend(_open)
    for database in _forking:
        database._before_fork()  # noqa: SLF001 - this package's own


def _after_fork_in_parent() -> None:
    for database in _forking:
        database._after_fork_in_parent()  # noqa: SLF001 - this package's own
    _forking.clear()
    _lock.release()


def _after_fork_in_child() -> None:
    for database in _forking:
        database._after_fork_in_child(_parent)  # noqa: SLF001 - this package's own
    _forking.clear()
    _lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )
