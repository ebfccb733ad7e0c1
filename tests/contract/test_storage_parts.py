"""What is sent and kept of values that have much in common, and what goes with them."""

import re
import tracemalloc

import pytest

from strands_persql import SessionCache
from strands_persql.snapshots.planning import OWN_MOST, PART_MOST, PIECES_MOST
from strands_persql.testing import CountingDatabase
from tests.storages import (
    LATEST,
    PerSQLStorage,
    StorageError,
    immutable,
    parts,
    run,
    snapshot,
    storage_of,
    text_of,
)
from tests.support.backends import Backend


def sent(backend: Backend) -> int:
    """Return the characters of all parameters that were sent since the last reset."""
    return sum(
        len(str(value))
        for batch in backend.database.log
        for statement in batch
        for value in statement.get("params", ())
    )


def written(storage: PerSQLStorage, key: str, data: bytes, backend: Backend) -> int:
    """Save a value in one round trip, and return the characters that were sent for it."""
    backend.database.reset()
    run(storage.write(key, data))
    assert backend.database.round_trips == 1
    return sent(backend)


def stored_text(backend: Backend) -> int:
    """Return the characters in the database, of rows and parts."""
    rows = backend.raw("SELECT length(data) + length(pieces) AS size FROM strands_objects")
    return sum(int(row["size"]) for row in rows) + sum(parts(backend).values())


class TestSaves:
    """What a save of a value that is known sends."""

    def test_a_growing_snapshot_sends_what_is_new(self, backend: Backend) -> None:
        """Each save sends the new message and little more, though its time changes at the start."""
        storage = storage_of(backend)
        numbers = list(range(60))
        run(storage.write(LATEST, snapshot(numbers, time=0)))
        for time in range(1, 40):
            numbers.append(60 + time)
            data = snapshot(numbers, time=time, turn=time)
            assert written(storage, LATEST, data, backend) < 1_500

        assert run(storage_of(backend).read(LATEST)) == data

    @pytest.mark.parametrize(
        "change",
        [
            lambda numbers: numbers[5:],
            lambda numbers: [*numbers[:20], 999, *numbers[20:]],
            lambda numbers: [*numbers[:20], *numbers[25:], 999],
            lambda numbers: [*numbers[30:], *numbers[:30]],
            lambda numbers: [numbers[0], 999, *numbers[40:]],
            lambda numbers: numbers,
        ],
        ids=["trimmed", "put in", "taken out", "moved", "summarized", "the same"],
    )
    def test_what_is_known_is_not_sent_again(self, backend: Backend, change: object) -> None:
        """Wherever in a snapshot something changes, what it had before isn't sent again."""
        assert callable(change)
        storage, numbers = storage_of(backend), list(range(60))
        run(storage.write(LATEST, snapshot(numbers, time=1)))
        data = snapshot(change(numbers), time=2)

        assert written(storage, LATEST, data, backend) < 1_500
        assert run(storage_of(backend).read(LATEST)) == data

    def test_a_restored_snapshot_is_built_upon(self, backend: Backend) -> None:
        """A process that has read a snapshot sends what is new of the next one."""
        run(storage_of(backend).write(LATEST, snapshot(range(60))))
        storage = storage_of(backend)
        run(storage.read(LATEST))

        assert written(storage, LATEST, snapshot(range(61)), backend) < 1_500

    def test_what_is_not_known_is_sent_whole(self, backend: Backend) -> None:
        """Without a cache each save sends everything, is applied, and leaves no part behind."""
        storage = storage_of(backend, cache=SessionCache(0))
        storage.setup()
        for count in (60, 61, 62):
            data = snapshot(range(count))
            assert written(storage, LATEST, data, backend) >= len(data)

        assert run(storage_of(backend).read(LATEST)) == data
        assert sum(parts(backend).values()) <= len(data)

    def test_edits_all_over_are_gathered(self, backend: Backend) -> None:
        """However often a value is edited, its pieces and its parts stay bounded."""
        storage, text = storage_of(backend), text_of(150_000)
        for number in range(120):
            place = number * 7_919 % len(text)
            text = f"{text[:place]}{text_of(80, number)}{text[place + 80 :]}"
            run(storage.write("k", text.encode()))

        assert run(storage_of(backend).read("k")) == text.encode()
        pieces = backend.raw("SELECT pieces FROM strands_objects")[0]["pieces"]
        assert len(re.findall(r"\[\"", pieces)) <= PIECES_MOST + len(text) // PART_MOST + 1
        assert sum(parts(backend).values()) <= 4 * len(text)

    def test_a_window_that_moves_leaves_nothing_behind(self, backend: Backend) -> None:
        """A value that drops at its start what it gains at its end keeps a bounded size."""
        storage = storage_of(backend)
        for first in range(0, 600, 4):
            run(storage.write(LATEST, snapshot(range(first, first + 40), time=first)))

        assert run(storage_of(backend).read(LATEST)) == snapshot(range(596, 636), time=596)
        assert stored_text(backend) <= 4 * PART_MOST
        run(storage.delete(LATEST))
        assert parts(backend) == {}

    def test_what_little_is_kept_of_much_moves_on(self, backend: Backend) -> None:
        """Where a little of each text is kept for good, as pins are, the rest is given up."""
        storage, pins = storage_of(backend), ""
        for number in range(14):
            text = pins + text_of(60_000, number)
            run(storage.write("k", text.encode()))
            pins = text[: len(pins) + 500]

        assert run(storage_of(backend).read("k")) == text.encode()
        assert sum(parts(backend).values()) <= 3 * len(text) + 3 * PART_MOST

    def test_a_small_value_is_in_its_row(self, backend: Backend) -> None:
        """A value of a few thousand characters has no part."""
        storage = storage_of(backend)
        run(storage.write("k", text_of(OWN_MOST).encode()))

        assert parts(backend) == {}
        assert run(storage_of(backend).read("k")) == text_of(OWN_MOST).encode()


class TestSharing:
    """Snapshots of one agent."""

    def test_immutable_snapshots_share_their_text(self, backend: Backend) -> None:
        """What snapshots have in common is sent once and stored once."""
        storage, up = storage_of(backend), 0
        storage.setup()
        for number in range(1, 41):
            data = snapshot(range(3 * number), time=number)
            up += written(storage, immutable(number), data, backend)
            up += written(storage, LATEST, data, backend)

        fresh = storage_of(backend)
        for number in range(1, 41):
            data = snapshot(range(3 * number), time=number)
            assert run(fresh.read(immutable(number))) == data
        assert run(fresh.read(LATEST)) == data
        assert up < 3 * len(data)
        assert stored_text(backend) < 2 * len(data)

    @pytest.mark.parametrize("order", [1, -1], ids=["oldest first", "newest first"])
    def test_text_goes_with_the_last_snapshot_that_has_it(
        self, backend: Backend, order: int
    ) -> None:
        """Whichever snapshot is deleted, the others stay whole, and nothing stays of them all."""
        storage = storage_of(backend)
        data = {
            immutable(number): snapshot(range(40 * number, 40 * number + 200), time=number)
            for number in range(8)
        }
        for key, value in data.items():
            run(storage.write(key, value))
            run(storage.write(LATEST, value))
        fresh = storage_of(backend)
        run(fresh.delete(LATEST))
        for key in list(data)[::order]:
            run(fresh.delete(key))
            del data[key]
            reader = storage_of(backend)
            assert {one: run(reader.read(one)) for one in data} == data
        assert parts(backend) == {}

    def test_a_snapshot_keeps_what_the_latest_drops(self, backend: Backend) -> None:
        """What an older snapshot refers to stays, when the latest one no longer does."""
        storage, before = storage_of(backend), snapshot(range(200))
        run(storage.write(LATEST, before))
        run(storage.write(immutable(1), before))
        for number in range(3):
            run(storage.write(LATEST, snapshot([number])))

        assert run(storage_of(backend).read(immutable(1))) == before

    def test_other_values_share_nothing(self, backend: Backend) -> None:
        """Values that are no snapshots have parts of their own."""
        storage, data = storage_of(backend), text_of(30_000).encode()
        run(storage.write("memory/a.md", data))
        run(storage.write("memory/b.md", data))
        run(storage.delete("memory/a.md"))

        assert run(storage_of(backend).read("memory/b.md")) == data


class TestReading:
    """What reads ask for."""

    def test_a_restore_is_one_request(self, backend: Backend) -> None:
        """A value of any usual size is read in one round trip."""
        run(storage_of(backend).write(LATEST, snapshot(range(2_000))))
        storage = storage_of(backend)
        backend.database.reset()

        assert run(storage.read(LATEST)) == snapshot(range(2_000))
        assert backend.database.round_trips == 1

    def test_an_unchanged_value_is_read_again_by_one_small_request(self, backend: Backend) -> None:
        """A value that is remembered isn't sent again, and what others saved is seen."""
        storage, data = storage_of(backend), text_of(100_000).encode()
        run(storage.write("k", data))
        backend.database.reset()
        assert run(storage.view().read("k")) == data
        assert backend.database.round_trips == 1
        _, texts = backend.plain.batch(backend.database.log[0], transaction=True)
        assert list(texts["data"]) == []

        run(storage_of(backend).write("k", b"changed"))

        assert run(storage.read("k")) == b"changed"

    def test_none_is_asked_within_max_staleness(self, backend: Backend) -> None:
        """Within ``max_staleness`` a remembered value is read without a request."""
        time = 0.0
        storage = storage_of(backend, max_staleness=5.0, clock=lambda: time)
        run(storage.write("k", b"v"))
        backend.database.reset()
        time = 4.9
        assert run(storage.read("k")) == b"v"
        assert (backend.database.round_trips, storage.stats().hits) == (0, 1)
        time = 5.1
        assert run(storage.read("k")) == b"v"
        assert (backend.database.round_trips, storage.stats().unchanged) == (1, 1)

    def test_a_cache_is_shared_with_sessions_and_kept_within_its_limit(
        self, backend: Backend
    ) -> None:
        """Values and sessions of the same name don't meet in one cache."""
        cache = SessionCache(100_000)
        storage = storage_of(backend, cache=cache)
        backend.manager("k", repository=backend.repository(cache=cache))
        for number in range(20):
            run(storage.write(f"k{number or ''}", text_of(20_000, number).encode()))

        assert cache.current_bytes <= 100_000
        assert run(storage.read("k")) == text_of(20_000, 0).encode()

    def test_a_large_value_is_read_in_pages(self, backend: Backend) -> None:
        """A value beyond what one request should carry is written and read in several."""
        storage, data = storage_of(backend), text_of(9_000_000).encode()
        run(storage.write("k", data))
        backend.database.reset()

        assert run(storage_of(backend).read("k")) == data
        assert 2 <= backend.database.round_trips <= 4
        run(storage.write("k", data + b"more"))
        assert run(storage_of(backend).read("k")) == data + b"more"


class TestManyKeys:
    """Listing and deleting."""

    def test_keys_are_listed_in_pages(self, backend: Backend, monkeypatch: object) -> None:
        """A listing goes on where its page ends, and keys may be taken one by one."""
        assert isinstance(monkeypatch, pytest.MonkeyPatch)
        monkeypatch.setattr("strands_persql.snapshots.store.KEYS_PER_REQUEST", 3)
        storage = storage_of(backend)
        keys = [f"a/{number}" for number in range(9)]
        for key in [*keys, "b"]:
            run(storage.write(key, b""))
        backend.database.reset()

        assert run(storage.list("a/")) == keys
        assert backend.database.round_trips == 4

        async def taken() -> list[str]:
            return [key async for key in storage.namespace("a").keys("")]

        assert run(taken()) == [str(number) for number in range(9)]

    def test_a_listing_keeps_its_order_while_keys_come_and_go(self, backend: Backend) -> None:
        """Keys that stay are listed once each, whatever is written and deleted meanwhile."""
        storage = storage_of(backend)
        rows = "INSERT INTO strands_objects (key, write_id, saved_by) WITH RECURSIVE n(i) AS"
        storage.setup()
        backend.raw(
            f"{rows} (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 11999)"
            " SELECT printf('k%05d', i), printf('w%05d', i), printf('w%05d', i) FROM n"
        )

        async def listed() -> list[str]:
            found: list[str] = []
            async for key in storage.keys("k"):
                found.append(key)
                if len(found) == 5_000:
                    await storage.delete("k04999")
                    await storage.delete("k05000")
                    await storage.write("k04998x", b"behind")
            return found

        found = run(listed())
        assert found == [f"k{n:05}" for n in range(12_000) if n != 5_000]

    def test_a_prefix_is_deleted_at_once(self, backend: Backend) -> None:
        """All values under a prefix go in a few requests, and others stay."""
        storage = storage_of(backend)
        for number in range(20):
            run(storage.write(f"a/{number}", text_of(10_000 * (number % 2), number).encode()))
        run(storage.write("ab", text_of(20_000).encode()))
        backend.database.reset()

        assert run(storage.namespace("a").delete_prefix("")) == 20
        assert backend.database.round_trips == 2
        assert run(storage.list()) == ["ab"]
        assert run(storage_of(backend).read("ab")) == text_of(20_000).encode()
        assert len(parts(backend)) == 1
        assert run(storage.delete_prefix("a/")) == 0
        run(storage.write("a/1", b"new"))
        assert run(storage.read("a/1")) == b"new"

    def test_a_large_prefix_is_deleted_in_pages(
        self, backend: Backend, monkeypatch: object
    ) -> None:
        """More values than one request deletes go in several, with all their text."""
        assert isinstance(monkeypatch, pytest.MonkeyPatch)
        monkeypatch.setattr("strands_persql.snapshots.store.DELETED_PER_REQUEST", 4)
        storage = storage_of(backend)
        for count in (3, 4, 8, 9):
            for number in range(count):
                run(storage.write(f"a/{number}", text_of(9_000).encode()))
            assert run(storage.delete_prefix("a/")) == count
            assert (run(storage.list()), parts(backend)) == ([], {})

    def test_older_snapshots_are_deleted_alone(self, backend: Backend) -> None:
        """The immutable snapshots of an agent can be deleted, and the latest one stays whole."""
        storage = storage_of(backend)
        for number in range(6):
            data = snapshot(range(50 * number, 50 * number + 100))
            run(storage.write(immutable(number), data))
            run(storage.write(LATEST, data))

        assert run(storage.delete_prefix(immutable(0).rpartition("/")[0] + "/")) == 6

        assert run(storage_of(backend).read(LATEST)) == data
        assert stored_text(backend) < 3 * len(data)

    @pytest.mark.parametrize("session_id", ["", "a/b", "..", "."])
    def test_what_is_no_session_is_not_deleted(self, backend: Backend, session_id: str) -> None:
        """An id that would mean other sessions is refused."""
        storage = storage_of(backend)
        run(storage.write("session/s/x", b""))

        with pytest.raises(StorageError):
            run(storage.delete_session(session_id))
        assert run(storage.list()) == ["session/s/x"]


class TestSweep:
    """What a save that died half-way leaves."""

    def test_a_refused_large_save_leaves_nothing(self, backend: Backend) -> None:
        """What was sent ahead of a save that was refused is taken back."""
        first, second = storage_of(backend), storage_of(backend)
        run(first.write("k", b"1"))
        run(second.read("k"))
        run(first.write("k", b"2"))

        with pytest.raises(StorageError):
            run(second.write("k", text_of(5_000_000).encode()))
        assert parts(backend) == {}

    def test_what_nothing_refers_to_is_swept(self, backend: Backend, monkeypatch: object) -> None:
        """A sweep deletes old text that no value refers to, and nothing else."""
        assert isinstance(monkeypatch, pytest.MonkeyPatch)
        monkeypatch.setattr("strands_persql.snapshots.store._SWEPT_PER_REQUEST", 2)
        storage, data = storage_of(backend), snapshot(range(100))
        run(storage.write(LATEST, data))
        run(storage.write("k", text_of(20_000).encode()))
        kept = parts(backend)
        for number in range(5):
            backend.raw(
                "INSERT INTO strands_parts (pool, part, data, stored_at) VALUES (?, ?, 'x', ?)",
                ["k", "session/s/scopes/agent/a/snapshots/", "zz"][number % 3],
                f"lost{number}",
                1_000,
            )

        assert run(storage.sweep()) == 5
        assert parts(backend) == kept
        assert run(storage.sweep(older_than=0)) == 0
        assert run(storage_of(backend).read(LATEST)) == data

    def test_what_is_under_way_is_not_swept(self, backend: Backend) -> None:
        """Text that was stored lately stays, for the save that needs it may be under way."""
        storage = storage_of(backend)
        run(storage.write("k", text_of(20_000).encode()))
        backend.raw("DELETE FROM strands_objects")

        assert run(storage.sweep()) == 0
        assert run(storage.sweep(older_than=-1)) == 1


def test_requests_keep_to_the_services_limits(backend: Backend) -> None:
    """No batch has over 100 statements, no statement over 100 parameters, 100 KB or 2 MB."""
    database = CountingDatabase(backend.plain)
    storage = PerSQLStorage(database)
    for size in (10, 100_000, 7_000_000):
        run(storage.write("k", (text_of(size) + "漢" * size).encode()))
    for number in range(120):
        run(storage.write(f"{LATEST}/{number}", text_of(9_000, number).encode()))
    run(storage.delete_prefix(""))

    assert max(map(len, database.log)) <= 100
    for batch in database.log:
        for statement in batch:
            values = statement.get("params", ())
            assert len(values) <= 100
            assert len(statement["sql"]) < 3_000
            assert sum(len(str(value).encode()) for value in values) < 1_100_000


def test_a_large_value_takes_a_bounded_multiple_of_its_size(backend: Backend) -> None:
    """While a value of some MB is written and read, memory holds a few times its size."""
    data = bytes(range(256)) * 32_000
    tracemalloc.start()
    try:
        run(storage_of(backend, cache=SessionCache(0)).write("k", data))
        assert run(storage_of(backend, cache=SessionCache(0)).read("k")) == data
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 12 * len(data)
