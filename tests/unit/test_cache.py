"""The cache: bounded, true, and never locked while somebody waits for the network."""

import threading
import time
from collections.abc import Callable

import pytest

from strands_persql import SessionCache
from strands_persql.persistence.cached import SessionSnapshot


def snapshot(data: str = "{}", size: int = 0) -> SessionSnapshot:
    """Make a session, just looked at, that takes at least so many bytes."""
    return SessionSnapshot(data + " " * size, {}, {}, time.monotonic())


def put(cache: SessionCache, session_id: str, found: SessionSnapshot | None) -> None:
    """Keep what a read has found."""
    cache.end_read(cache.begin_read(session_id), found)


def test_what_was_read_is_kept() -> None:
    """A read's result is what the cache gives from then on."""
    cache, entry = SessionCache(), snapshot()
    put(cache, "s", entry)
    assert cache.get("s") is entry
    assert cache.get("other") is None


def test_nothing_found_is_not_kept() -> None:
    """A session that isn't there any more is dropped, and its absence isn't remembered."""
    cache = SessionCache()
    put(cache, "s", snapshot())
    put(cache, "s", None)
    assert cache.get("s") is None
    assert cache.current_bytes == 0


def test_a_write_outdates_the_reads_that_began_before_it() -> None:
    """What a slow read brings after a write is not put back."""
    cache = SessionCache()
    put(cache, "s", snapshot("old"))
    slow, newer = cache.begin_read("s"), snapshot("new")
    cache.written("s", lambda _: newer)
    cache.end_read(slow, snapshot("old"))
    assert cache.get("s") is newer


@pytest.mark.parametrize("forget", [lambda c: c.forget("s"), lambda c: c.clear()])
def test_forgetting_outdates_the_reads_that_began_before(
    forget: Callable[[SessionCache], None],
) -> None:
    """What was forgotten isn't brought back by a read that began before."""
    cache = SessionCache()
    slow = cache.begin_read("s")
    forget(cache)
    cache.end_read(slow, snapshot())
    assert cache.get("s") is None


def test_an_outdated_read_leaves_nothing_older_than_itself() -> None:
    """Where a read that saw others' writes can't be kept, what lacks them isn't either."""
    cache = SessionCache()
    put(cache, "s", snapshot("old"))
    slow = cache.begin_read("s")
    cache.written("s", lambda entry: entry)
    cache.end_read(slow, snapshot("new"))
    assert cache.get("s") is None


def test_a_write_of_another_session_leaves_a_read_alone() -> None:
    """Reads are outdated by writes of their own session only."""
    cache = SessionCache()
    read = cache.begin_read("s")
    cache.forget("other")
    cache.end_read(read, snapshot())
    assert cache.get("s") is not None


def test_a_read_that_wrote_outdates_the_others() -> None:
    """Of two reads at once, the one that wrote stands."""
    cache = SessionCache()
    slow, writing, newer = cache.begin_read("s"), cache.begin_read("s"), snapshot("new")
    cache.end_read(writing, newer, wrote=True)
    cache.end_read(slow, snapshot("old"))
    assert cache.get("s") is newer


def test_a_write_that_isnt_sure_drops_the_entry() -> None:
    """Where a change can't be told, nothing is remembered."""
    cache = SessionCache()
    put(cache, "s", snapshot())
    cache.written("s", lambda _: None)
    assert cache.get("s") is None


def test_the_least_recently_used_goes_first() -> None:
    """What was looked at last is kept longest."""
    cache = SessionCache(max_bytes=3 * snapshot(size=1_000).size)
    for name in "abc":
        put(cache, name, snapshot(size=1_000))
    cache.get("a")
    put(cache, "d", snapshot(size=1_000))
    assert [name for name in "abcd" if cache.get(name)] == ["a", "c", "d"]
    assert cache.counters.read().evictions == 1


def test_bytes_stay_within_their_limit() -> None:
    """Whatever goes in, no more than the limit is held, and what is too large isn't."""
    cache = SessionCache(max_bytes=5_000)
    for number in range(100):
        put(cache, f"s{number % 7}", snapshot(size=number * 60))
        assert cache.current_bytes <= 5_000
    put(cache, "s", snapshot(size=10_000))
    assert cache.get("s") is None


def test_a_grown_entry_replaces_itself() -> None:
    """A new version counts in place of the old one."""
    cache = SessionCache(max_bytes=10_000)
    for size in (1_000, 4_000, 2_000):
        put(cache, "s", snapshot(size=size))
        assert cache.current_bytes == snapshot(size=size).size


def test_no_room_is_no_cache() -> None:
    """With 0 bytes nothing is kept; less than that is refused."""
    cache = SessionCache(max_bytes=0)
    put(cache, "s", snapshot())
    assert cache.get("s") is None
    with pytest.raises(ValueError, match="max_bytes"):
        SessionCache(max_bytes=-1)


def test_reads_that_have_ended_leave_nothing_behind() -> None:
    """A cache that served many sessions holds no book-keeping of them."""
    cache = SessionCache(max_bytes=1_000)
    for number in range(100):
        put(cache, f"s{number}", None)
    assert cache._reads == {}


def test_threads_agree() -> None:
    """Threads that read, write and evict at once leave the byte count true."""
    cache = SessionCache(max_bytes=20_000)

    def work(seed: int) -> None:
        for number in range(200):
            name = f"s{(number * seed) % 11}"
            put(cache, name, snapshot(size=number % 13 * 100))
            if number % 3:
                cache.written(name, lambda entry: entry)
            else:
                cache.forget(name)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in (1, 3, 5, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    kept = [entry for n in range(11) if (entry := cache.get(f"s{n}"))]
    assert cache.current_bytes == sum(entry.size for entry in kept) <= 20_000


def test_a_slow_read_doesnt_replace_what_was_read_after_it() -> None:
    """Of two reads the one that asked later is kept, whichever is answered first."""
    cache = SessionCache()
    slow, older = cache.begin_read("s"), snapshot("1")
    newer = snapshot("2")
    put(cache, "s", newer)
    cache.end_read(slow, older)
    assert cache.get("s") == newer
