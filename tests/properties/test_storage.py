"""Storages against plain dicts: what is read is what was saved, whatever is shared and lost."""

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from unittest.mock import patch

import hypothesis
import hypothesis.strategies as st
import pytest
from hypothesis import given
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from strands_persql import LocalDatabase, RetryPolicy, SessionCache
from strands_persql.errors import OutcomeUnknownError, UnavailableError
from strands_persql.testing import Fault, FaultyDatabase
from tests.storages import PerSQLStorage, StorageConflictError, text_of

_T = TypeVar("_T")
_running: asyncio.AbstractEventLoop

FAST = RetryPolicy(budget=5.0, sleep=lambda _: None)
SMALL: dict[str, Any] = {
    "INLINE": 8,
    "OWN_MOST": 60,
    "SHARED_LEAST": 10,
    "PART_MOST": 200,
    "PORTION": 150,
    "PIECES_MOST": 8,
    "_MERGED": 4,
}
"""Bounds so small that every way in which text is placed is taken."""

LATEST = "s/snapshots/latest"
KEYS = [LATEST, "s/snapshots/history/1", "s/snapshots/history/2", "plain"]
TEXT = text_of(2_000)


@contextmanager
def small_bounds() -> Iterator[None]:
    """Have text placed as if it were large."""
    with (
        patch.multiple("strands_persql.snapshots.planning", **SMALL),
        patch("strands_persql.snapshots.saving._UPLOADED", 3),
    ):
        yield


@pytest.fixture(autouse=True)
def _loop() -> Iterator[None]:
    """Keep one event loop for a test's many calls."""
    global _running  # noqa: PLW0603 - state machines take no fixtures
    _running = asyncio.new_event_loop()
    yield
    _running.close()


def run(work: Coroutine[Any, Any, _T]) -> _T:
    """Run one coroutine to its end."""
    return _running.run_until_complete(work)


def texts() -> st.SearchStrategy[str]:
    """Return texts that have much in common."""
    span = st.tuples(st.integers(0, 1_900), st.integers(0, 300))
    piece = st.one_of(
        span.map(lambda one: TEXT[one[0] : one[0] + one[1]]),
        st.text(alphabet='xyz"\\é漢\U0001f600\n', max_size=12),
    )
    return st.lists(piece, max_size=6).map("".join)


values = st.one_of(
    texts().map(str.encode), st.binary(max_size=40), st.just(b""), st.just(b"a\0b" * 50)
)


@given(old=texts(), new=texts())
def test_differences_are_the_new_text(old: str, new: str) -> None:
    """Copies of the old text and the text between them are the new text, whatever both are."""
    from strands_persql.snapshots.differ import differences  # noqa: PLC0415 - this test alone

    hunks = differences(old, new)

    assert new == "".join(
        hunk if isinstance(hunk, str) else old[hunk.first : hunk.first + hunk.size]
        for hunk in hunks
    )
    assert all(isinstance(hunk, str) or hunk.first + hunk.size <= len(old) for hunk in hunks)


@given(saves=st.lists(st.tuples(st.sampled_from(KEYS), values), max_size=12))
def test_saves_are_read_as_they_were_saved(saves: list[tuple[str, bytes]]) -> None:
    """After any saves each key has its last value, and what nobody refers to is gone."""
    with LocalDatabase() as database, small_bounds():
        storage, model = PerSQLStorage(database), dict[str, bytes]()
        for key, value in saves:
            run(storage.write(key, value))
            model[key] = value
        fresh = PerSQLStorage(database)
        assert {key: run(fresh.read(key)) for key in model} == model
        assert run(storage.sweep(older_than=-1)) == 0
        run(storage.delete_prefix(""))
        assert database.query("SELECT count(*) AS n FROM strands_parts")["data"] == [{"n": 0}]


class Writers(RuleBasedStateMachine):
    """Two processes with faulty connections and two views each, and a dict that has it all."""

    def __init__(self) -> None:
        super().__init__()
        self.bounds = small_bounds()
        self.bounds.__enter__()
        self.database = LocalDatabase()
        self.faults: list[Fault | None] = []
        PerSQLStorage(self.database).setup()
        self.faulty = FaultyDatabase(self.database, lambda _: self._fault(), duplicate_after=3)
        self.model: dict[str, bytes] = {}
        self.views: list[PerSQLStorage] = []
        for cache in (SessionCache(3_000), SessionCache()):
            storage = PerSQLStorage(self.faulty, cache=cache, retry=FAST)
            self.views += [storage, storage.view()]
        # What each view has last read or saved of each key: a value, or None for no value.
        self.known: list[dict[str, bytes | None]] = [{} for _ in self.views]

    def teardown(self) -> None:
        """Close the database."""
        self.database.close()
        self.bounds.__exit__(None, None, None)

    def _fault(self) -> Fault | None:
        return self.faults.pop() if self.faults else None

    @rule(fault=st.sampled_from(["lost_request", "lost_answer", "duplicate", "delayed_duplicate"]))
    def break_next(self, fault: Any) -> None:
        """The next request goes wrong, and is tried again."""
        self.faults.append(fault)

    @rule()
    def deliver_late(self) -> None:
        """Copies of earlier requests arrive."""
        self.faulty.deliver_late()

    @rule(view=st.integers(0, 3), key=st.sampled_from(KEYS), value=values)
    def write(self, view: int, key: str, value: bytes) -> None:
        """A save is applied where its view knows what is there, and refused elsewhere."""
        is_bound, there = key in self.known[view], self.model.get(key)
        is_as_known = there == self.known[view].get(key) or there == value
        try:
            run(self.views[view].write(key, value))
        except StorageConflictError:
            assert is_bound
            assert not is_as_known
        else:
            assert is_as_known or not is_bound
            self.model[key] = self.known[view][key] = value

    @rule(view=st.integers(0, 3), key=st.sampled_from(KEYS))
    def read(self, view: int, key: str) -> None:
        """A read returns what is there now."""
        self.known[view][key] = run(self.views[view].read(key))
        assert self.known[view][key] == self.model.get(key)

    @rule(view=st.integers(0, 3), key=st.sampled_from(KEYS))
    def delete(self, view: int, key: str) -> None:
        """A deletion deletes, whoever has saved meanwhile."""
        run(self.views[view].delete(key))
        self.model.pop(key, None)
        self.known[view][key] = None

    @rule(view=st.integers(0, 3), prefix=st.sampled_from(["s/", "s/snapshots/history/"]))
    def delete_prefix(self, view: int, prefix: str) -> None:
        """A deletion of many deletes those under its prefix."""
        gone = [key for key in self.model if key.startswith(prefix)]
        assert run(self.views[view].delete_prefix(prefix)) == len(gone)
        for key in gone:
            del self.model[key]
        for key in self.known[view]:
            if key.startswith(prefix):
                self.known[view][key] = None

    @invariant()
    def holds(self) -> None:
        """Whoever opens it now finds each value, and as many keys as there are."""
        fresh = PerSQLStorage(self.database, cache=SessionCache(0))
        assert run(fresh.list()) == sorted(self.model)
        assert {key: run(fresh.read(key)) for key in self.model} == self.model


@pytest.mark.timeout(0)
def test_writers_agree_with_a_dict() -> None:
    """Whatever two processes save, read, delete and lose, nothing is lost without an error."""
    examples = 3 * hypothesis.settings().max_examples
    run_state_machine_as_test(Writers, settings=hypothesis.settings(max_examples=examples))


@given(count=st.integers(1, 6), fault=st.sampled_from(["lost_answer", "lost_request"]))
def test_a_save_in_doubt_is_no_conflict_for_its_writer(count: int, fault: Fault) -> None:
    """However often in a row an answer is lost for good, the next save of its writer is taken."""
    with LocalDatabase() as database, small_bounds():
        PerSQLStorage(database).setup()
        faults: list[Fault | None] = [None, *[fault] * count]
        storage = PerSQLStorage(FaultyDatabase(database, faults), retry=RetryPolicy.never())
        run(storage.write("k", TEXT[:150].encode()))
        for number in range(count):
            try:
                run(storage.write("k", TEXT[: 160 + number].encode()))
            except (OutcomeUnknownError, UnavailableError):
                continue
            raise AssertionError("the request was lost")
        run(storage.write("k", b"settled"))

        assert run(PerSQLStorage(database).read("k")) == b"settled"
