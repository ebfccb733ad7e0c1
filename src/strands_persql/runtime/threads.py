"""Blocking calls from coroutines: off the event loop, in order, in a bounded number of threads."""

import asyncio
import contextvars
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from strands_persql.runtime.forks import renew_after_fork

_T = TypeVar("_T")

MAX_THREADS = 128
"""Threads of this process that wait for databases on behalf of coroutines, as many as the
connections of one client; each is started when it is first needed."""


class _Threads:
    """The threads of this process, started when they are first needed."""

    def __init__(self) -> None:
        self.after_fork()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Forget the parent's threads: a child has none of them."""
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None

    def submit(self, call: Callable[[], None]) -> bool:
        """Have a thread call, and return whether one will: none does at the interpreter's end."""
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(MAX_THREADS, thread_name_prefix="strands-persql")
            try:
                self._pool.submit(call)
            except RuntimeError:
                return False
        return True


_threads = _Threads()


async def in_thread(call: Callable[..., _T], *args: Any, **kwargs: Any) -> _T:
    """Call in a thread and await it; once begun it is finished, even if that is cancelled."""
    return await Queue().run(lambda: call(*args, **kwargs))


def on_fresh_stack(call: Callable[[], _T]) -> _T:
    """Call in a new thread, whose stack has all the room that a thread can have."""
    future: Future[_T] = Future()
    thread = threading.Thread(target=_settle, args=(future, call), daemon=True)
    thread.start()
    return future.result()


class Queue:
    """Runs calls one after the other, in the order in which they were asked for."""

    def __init__(self) -> None:
        """Start with nothing to do; a thread is taken only while there is."""
        self.after_fork()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Forget what waited for the parent's threads."""
        self._lock = threading.Lock()
        self._waiting: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._busy = False

    @property
    def is_idle(self) -> bool:
        """Whether nothing is running or waiting."""
        return not self._busy

    async def run(self, call: Callable[[], _T]) -> _T:
        """Await a call's turn and its end.

        A cancelled awaiter doesn't stop the call: it keeps its place, and what is asked for
        after it comes after it.
        """
        context = contextvars.copy_context()
        future: Future[_T] = Future()
        with self._lock:
            self._waiting.append((lambda: context.run(call), future))
            starts, self._busy = not self._busy, True
        # Python gives no more threads once its main thread has ended: the loop must wait then.
        if starts and not _threads.submit(self._work):
            self._work()
        return await asyncio.shield(asyncio.wrap_future(future))

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._busy = False
                    return
                call, future = self._waiting.popleft()
            _settle(future, call)


def _settle(future: "Future[_T]", call: Callable[[], _T]) -> None:
    try:
        future.set_result(call())
    except BaseException as error:  # noqa: BLE001 - it is the awaiter's to handle
        future.set_exception(error)
