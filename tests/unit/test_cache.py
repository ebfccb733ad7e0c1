"""The cache: bounded, true, and never locked while somebody waits for the network."""

import gc
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest

from strands_persql import PerSQLSessionRepository, SessionCache
from strands_persql.testing import InterceptingDatabase, ManualClock
from tests.support.backends import Backend
from tests.support.conversation import listed, session, session_agent, session_message, stored
from tests.support.racing import Gate, beside, race

pytestmark = pytest.mark.backends("memory")


class Held:
    """A session whose reads can be held up on their way back from the database.

    Attributes:
        repository: What reads it.
    """

    def __init__(self, backend: Backend, **options: Any) -> None:
        stored(backend, "zero")
        self._backend = backend
        self._database = InterceptingDatabase(backend.database)
        options.setdefault("cache", SessionCache())
        self.repository = backend.repository(self._database, **options)

    @contextmanager
    def slow_open(self, session_id: str = "s") -> Iterator[None]:
        """Open the session: the database has answered, and the answer comes when this is left."""
        gate = Gate()
        self._database.after = lambda *_: gate.wait()
        with beside(lambda: self.repository.read_session(session_id)):
            gate.reached()
            self._database.after = None
            try:
                yield
            finally:
                gate.open()

    def elsewhere(self, text: str) -> None:
        """Let another process append a message."""
        repository = self._backend.repository()
        repository.create_message("s", "a", session_message(text, len(listed(repository))))

    def round_trips(self, read: Callable[[], object]) -> int:
        """Count what a read asks the database for."""
        self._backend.database.reset()
        read()
        return self._backend.database.round_trips

    def reading(self) -> int:
        """Count what it takes to read the agent."""
        return self.round_trips(lambda: self.repository.read_agent("s", "a"))


def test_what_was_read_is_kept(backend: Backend) -> None:
    """A read's result is what the cache gives from then on."""
    held = Held(backend)
    held.repository.read_session("s")
    assert held.reading() == 0
    assert listed(held.repository) == ["zero"]
    assert held.round_trips(lambda: held.repository.read_agent("other", "a")) == 1


def test_nothing_found_is_not_kept(backend: Backend) -> None:
    """A session that isn't there any more is dropped, and its absence isn't remembered."""
    held = Held(backend)
    held.repository.read_session("s")
    backend.repository().delete_session("s")
    assert held.repository.read_session("s") is None
    assert held.repository.cache.current_bytes == 0
    backend.repository().create_session(session())
    assert held.repository.read_session("s") is not None


def test_a_write_outdates_the_reads_that_began_before_it(backend: Backend) -> None:
    """What a slow read brings after a write is not put back."""
    held = Held(backend)
    held.repository.read_session("s")
    with held.slow_open():
        held.repository.create_message("s", "a", session_message("one", 1))
    assert listed(held.repository) == ["zero", "one"]


@pytest.mark.parametrize("forget", [lambda c: c.forget("s"), lambda c: c.clear()])
def test_forgetting_outdates_the_reads_that_began_before(
    backend: Backend, forget: Callable[[SessionCache], None]
) -> None:
    """What was forgotten isn't brought back by a read that began before."""
    held = Held(backend)
    with held.slow_open():
        forget(held.repository.cache)
    assert held.repository.cache.current_bytes == 0
    assert held.reading() == 1


def test_an_outdated_read_leaves_nothing_older_than_itself(backend: Backend) -> None:
    """Where a read that saw others' writes can't be kept, what lacks them isn't either."""
    held = Held(backend)
    held.repository.read_session("s")
    held.elsewhere("one")
    with held.slow_open():
        held.repository.update_agent("s", session_agent(n=1))
    assert listed(held.repository) == ["zero", "one"]


def test_a_write_of_another_session_leaves_a_read_alone(backend: Backend) -> None:
    """Reads are outdated by writes of their own session only."""
    held = Held(backend)
    with held.slow_open():
        held.repository.create_session(session("other"))
        held.repository.cache.forget("other")
    assert held.reading() == 0


def test_a_read_that_wrote_outdates_the_others(backend: Backend) -> None:
    """An agent that is created while its session is read isn't missing afterwards.

    That holds for a clock too which doesn't tell the one from the other.
    """
    held = Held(backend, clock=ManualClock())
    with held.slow_open():
        backend.agent(manager=backend.manager(repository=held.repository), agent_id="b")
    assert held.round_trips(lambda: held.repository.read_agent("s", "b")) == 0
    assert held.repository.read_agent("s", "b") is not None


def test_a_write_that_isnt_sure_drops_the_entry(backend: Backend) -> None:
    """Where a change can't be told, nothing is remembered."""
    held = Held(backend)
    held.repository.read_session("s")
    held.elsewhere("one")
    held.repository.create_message("s", "a", session_message("two", 2))
    assert listed(held.repository) == ["zero", "one", "two"]


def test_the_least_recently_used_goes_first(backend: Backend) -> None:
    """What was looked at last is kept longest."""
    size = size_of_a_session(backend)
    repository = backend.repository(cache=SessionCache(max_bytes=3 * size + size // 2))
    for name in "abc":
        repository.read_session(name)
    repository.read_agent("a", "a")
    repository.read_session("d")
    backend.database.reset()
    cached = []
    for name in "cad":
        repository.read_agent(name, "a")
        cached.append(backend.database.round_trips)
    assert cached == [0, 0, 0]
    assert repository.stats().evictions == 1
    repository.read_agent("b", "a")
    assert backend.database.round_trips == 1


def size_of_a_session(backend: Backend) -> int:
    """Store four sessions of one size, and give the bytes that the cache counts for one."""
    for name in "abcd":
        stored(backend, "x" * 1_000, session_id=name)
    repository = backend.repository()
    repository.read_session("a")
    return repository.cache.current_bytes


def test_bytes_stay_within_their_limit(backend: Backend) -> None:
    """Whatever goes in, no more than the limit is held, and what is too large isn't."""
    repository = stored(backend, "x" * 10_000, session_id="large")
    for number in range(7):
        stored(backend, *["x" * 100 * number] * number, session_id=f"s{number}")
    limited = backend.repository(cache=SessionCache(max_bytes=5_000))
    for number in range(50):
        limited.read_session(f"s{number % 7}")
        assert limited.cache.current_bytes <= 5_000
    assert limited.cache.current_bytes > 0
    limited.cache.clear()
    limited.read_session("large")
    assert limited.cache.current_bytes == 0
    assert limited.list_messages("large", "a") == repository.list_messages("large", "a")


def test_a_grown_entry_replaces_itself(backend: Backend) -> None:
    """A new version counts in place of the old one."""
    held = Held(backend)
    held.repository.read_session("s")
    for text in ("x" * 1_000, "y" * 4_000):
        held.repository.create_message(
            "s", "a", session_message(text, len(listed(held.repository)))
        )
        fresh = backend.repository()
        fresh.read_session("s")
        assert held.repository.cache.current_bytes == fresh.cache.current_bytes
    assert held.reading() == 0


def test_a_grown_entry_doesnt_count_twice(backend: Backend) -> None:
    """While room is made for an entry's new version, its old one takes none."""
    size = size_of_a_session(backend)
    repository = backend.repository(cache=SessionCache(max_bytes=2 * size + size // 2))
    for name in "ab":
        repository.read_session(name)
    repository.create_message("b", "a", session_message("small", 1))
    backend.database.reset()
    assert [len(repository.list_messages(name, "a")) for name in "ab"] == [1, 2]
    assert (backend.database.round_trips, repository.stats().evictions) == (0, 0)


def test_no_room_is_no_cache(backend: Backend) -> None:
    """With 0 bytes nothing is kept; less than that is refused."""
    held = Held(backend, cache=SessionCache(max_bytes=0))
    held.repository.read_session("s")
    assert held.repository.cache.current_bytes == 0
    assert held.reading() == 1
    with pytest.raises(ValueError, match="max_bytes"):
        SessionCache(max_bytes=-1)


def test_reads_that_have_ended_leave_nothing_behind(backend: Backend) -> None:
    """A cache that served many sessions holds no book-keeping of them."""
    repository = PerSQLSessionRepository(backend.plain, cache=SessionCache(max_bytes=1_000))

    def read_many(first: int) -> None:
        for number in range(first, first + 500):
            assert repository.read_session(f"{number:0200}") is None
        gc.collect()

    read_many(0)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        read_many(500)
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < 500 * 100


def test_threads_agree(backend: Backend) -> None:
    """Threads that read, write and evict at once leave the byte count true."""
    repository = backend.repository(cache=SessionCache(max_bytes=8_000))
    for number in range(5):
        stored(backend, "x" * 300 * number, session_id=f"s{number}")

    def work(seed: int) -> None:
        for number in range(60):
            name = f"s{(number * seed) % 5}"
            repository.read_session(name)
            if number % 3 == 0:
                repository.update_agent(name, session_agent(**{f"k{seed}": "y" * number}))
            elif number % 7 == 0:
                repository.cache.forget(name)
            assert repository.cache.current_bytes <= 8_000

    assert race([partial(work, seed) for seed in (1, 3, 7, 9)]) == [None] * 4
    kept = repository.cache.current_bytes
    for number in range(5):
        repository.cache.forget(f"s{number}")
    assert kept > 0
    assert repository.cache.current_bytes == 0


def test_a_slow_read_doesnt_replace_what_was_read_after_it(backend: Backend) -> None:
    """Of two reads the one that asked later is kept, whichever is answered first."""
    held = Held(backend)
    with held.slow_open():
        held.elsewhere("one")
        held.repository.read_session("s")
    assert listed(held.repository) == ["zero", "one"]
