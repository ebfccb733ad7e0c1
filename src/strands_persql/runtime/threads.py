"""Blocking calls from coroutines: off the event loop, in order, in a bounded number of threads."""

import asyncio
import contextlib
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
        self._waiting: deque[Callable[[], None]] = deque()
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
        loop = asyncio.get_running_loop()
        awaited: asyncio.Future[_T] = loop.create_future()
        context = contextvars.copy_context()
        with self._lock:
            self._waiting.append(lambda: _report(awaited, loop, lambda: context.run(call)))
            starts, self._busy = not self._busy, True
        # Python gives no more threads once its main thread has ended: the loop must wait then.
        if starts and not _threads.submit(self._work):
            self._work()
        return await awaited

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._busy = False
                    return
                call = self._waiting.popleft()
            call()


def _report(
    awaited: "asyncio.Future[_T]", loop: asyncio.AbstractEventLoop, call: Callable[[], _T]
) -> None:
    """Call, and have the loop hand the outcome to whoever still awaits it."""
    outcome: Future[_T] = Future()
    _settle(outcome, call)
    with contextlib.suppress(RuntimeError):  # a loop that was closed has nobody who waits
        loop.call_soon_threadsafe(_hand_over, outcome, awaited)


def _hand_over(outcome: "Future[_T]", awaited: "asyncio.Future[_T]") -> None:
    if awaited.done():  # cancelled
        return
    error = outcome.exception()
    if error is None:
        awaited.set_result(outcome.result())
    else:
        awaited.set_exception(error)


def _settle(future: "Future[_T]", call: Callable[[], _T]) -> None:
    try:
        future.set_result(call())
    except BaseException as error:  # noqa: BLE001 - it is the awaiter's to handle
        future.set_exception(error)
