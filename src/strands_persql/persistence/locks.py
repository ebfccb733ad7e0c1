"""One writer of an agent at a time in this process: racing each other would be a waste."""

import threading
import weakref

from strands_persql.runtime.forks import renew_after_fork
from strands_persql.runtime.ids import AgentKey


class AgentLocks:
    """The locks of agents that are being written."""

    def __init__(self) -> None:
        """Begin without any."""
        self.after_fork()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Forget the writers of the parent process."""
        self._locks: weakref.WeakValueDictionary[AgentKey, AgentLock] = (
            weakref.WeakValueDictionary()
        )
        self._lock = threading.Lock()

    def of(self, key: AgentKey) -> "AgentLock":
        """Return the lock of all who write an agent in this process."""
        with self._lock:
            return self._locks.setdefault(key, AgentLock())


class AgentLock:
    """A lock that exists while it is held or awaited; its holder may take it again."""

    def __init__(self) -> None:
        """Begin unlocked."""
        self.after_fork()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Begin unlocked: no thread of the parent holds it here."""
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        """Wait for it."""
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        """Release it."""
        self.release()

    def release(self) -> None:
        """Let others have it."""
        self._lock.release()

    def try_acquire(self) -> bool:
        """Take it if nobody else has it, without waiting."""
        return self._lock.acquire(blocking=False)
