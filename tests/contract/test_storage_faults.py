"""Storages where requests and answers are lost, doubled and late, and rows are altered."""

import pickle
import re
from collections.abc import Callable

import pytest

from strands_persql import LocalDatabase, RetryPolicy, errors
from strands_persql.errors import CorruptRowError, OutcomeUnknownError, UnavailableError
from strands_persql.testing import Fault, FaultyDatabase
from tests.storages import (
    LATEST,
    PerSQLStorage,
    StorageConflictError,
    StorageError,
    immutable,
    parts,
    run,
    snapshot,
    storage_of,
    text_of,
)
from tests.support.backends import FAST, NEVER, Backend

FAULTS: list[Fault] = ["lost_request", "lost_answer", "duplicate", "delayed_duplicate", "locked"]
TEXTS = {
    "in its row": [text_of(100, n) for n in range(4)],
    "in a part": [text_of(9_000) + text_of(3_000 * n, 1) for n in range(4)],
    "in many parts": [text_of(600_000, n) for n in range(4)],
}


def faulty(backend: Backend, faults: list[Fault | None], retry: RetryPolicy) -> PerSQLStorage:
    """Make a storage whose requests go wrong, once its tables are there."""
    storage_of(backend).setup()
    return PerSQLStorage(FaultyDatabase(backend.plain, faults), retry=retry)


@pytest.mark.parametrize("kind", TEXTS)
@pytest.mark.parametrize("fault", FAULTS)
def test_each_save_is_applied_once(backend: Backend, fault: Fault, kind: str) -> None:
    """Whatever befalls each request once, every save is applied once, in order."""
    storage = faulty(backend, [fault, None] * 20, FAST)

    for text in TEXTS[kind]:
        run(storage.write("k", text.encode()))

    assert run(storage_of(backend).read("k")) == TEXTS[kind][-1].encode()
    row = backend.raw("SELECT version, pieces FROM strands_objects")[0]
    assert row["version"] == len(TEXTS[kind])
    assert set(re.findall(r'\["(\w[^"]*)"', row["pieces"])) == parts(backend).keys()


@pytest.mark.parametrize("kind", TEXTS)
def test_a_lost_answer_is_settled_by_the_next_save(backend: Backend, kind: str) -> None:
    """A save of which it isn't known whether it was applied is no conflict for the next one."""
    first, second, third, fourth = (text.encode() for text in TEXTS[kind])
    storage = faulty(backend, [None, "lost_answer", "lost_request", None], NEVER)
    run(storage.write("k", first))

    with pytest.raises(OutcomeUnknownError) as raised:
        run(storage.write("k", second))
    assert isinstance(raised.value, StorageError)
    with pytest.raises(UnavailableError):
        run(storage.write("k", third))
    run(storage.write("k", third))
    run(storage.write("k", fourth))

    assert run(storage_of(backend).read("k")) == fourth


def test_another_writers_save_is_not_taken_for_the_lost_one(backend: Backend) -> None:
    """Where another one has saved after a lost answer, the next save is refused."""
    storage = faulty(backend, [None, "lost_answer"], NEVER)
    run(storage.write("k", b"1"))
    with pytest.raises(OutcomeUnknownError):
        run(storage.write("k", b"2"))
    other = storage_of(backend)
    assert run(other.read("k")) == b"2"
    run(other.write("k", b"theirs"))

    with pytest.raises(StorageConflictError):
        run(storage.write("k", b"3"))

    assert run(other.read("k")) == b"theirs"


def test_a_late_copy_of_a_save_changes_nothing(backend: Backend) -> None:
    """A copy of a request that arrives after other saves and deletions does nothing."""
    storage_of(backend).setup()
    late = FaultyDatabase(backend.plain, ["delayed_duplicate"] * 4, duplicate_after=1_000)
    storage, other = PerSQLStorage(late, retry=FAST), storage_of(backend)
    large = text_of(30_000)
    run(storage.write("k", b"1"))
    run(storage.write("k", large.encode()))
    run(storage.write("k", (large + text_of(9_000, 1)).encode()))
    run(storage.delete("k"))
    run(other.write("k", b"new"))

    late.deliver_late()

    assert run(other.view().read("k")) == b"new"
    run(other.delete("k"))
    late.deliver_late()
    assert run(other.list()) == []
    assert parts(backend) == {}


def test_what_was_deleted_stays_deleted(backend: Backend) -> None:
    """A late copy of a creation doesn't bring back what was deleted since."""
    storage_of(backend).setup()
    late = FaultyDatabase(backend.plain, ["delayed_duplicate"] * 2, duplicate_after=1_000)
    storage = PerSQLStorage(late, retry=FAST)
    run(storage.write("a/1", b"1"))
    run(storage.write("a/2", text_of(20_000).encode()))
    run(storage_of(backend).delete("a/1"))
    run(storage_of(backend).delete_prefix("a/"))

    late.deliver_late()

    assert run(storage_of(backend).list()) == []


@pytest.mark.parametrize("size", [1, 20_000])
def test_a_late_copy_of_a_refused_creation_creates_nothing(backend: Backend, size: int) -> None:
    """A creation that was refused isn't made up for once the value that was there is deleted."""
    storage_of(backend).setup()
    late = FaultyDatabase(backend.plain, [None, "delayed_duplicate"], duplicate_after=1_000)
    storage, other = PerSQLStorage(late, retry=FAST), storage_of(backend)
    assert run(storage.read(LATEST)) is None
    run(other.write(LATEST, snapshot([1])))
    with pytest.raises(StorageConflictError):
        run(storage.write(LATEST, text_of(size).encode()))
    run(other.delete(LATEST))

    late.deliver_late()

    assert run(other.list()) == []
    assert parts(backend) == {}


def test_a_text_that_moved_on_is_written_anew(backend: Backend) -> None:
    """Where another value has added to a shared part, a save makes a part of its own."""
    first, second = storage_of(backend), storage_of(backend)
    before = snapshot(range(30))
    run(first.write(immutable(0), before))
    run(first.write(LATEST, snapshot(range(31))))
    run(second.read(LATEST))
    run(second.write(immutable(1), snapshot(range(40))))

    run(first.write(immutable(2), snapshot([*range(31), *range(50, 60)])))

    fresh = storage_of(backend)
    assert run(fresh.read(immutable(0))) == before
    assert run(fresh.read(immutable(1))) == snapshot(range(40))
    assert run(fresh.read(immutable(2))) == snapshot([*range(31), *range(50, 60)])


def test_a_part_that_another_process_has_added_to_is_left_to_it(backend: Backend) -> None:
    """A save that finds its part longer than it was makes another one, in one request more."""
    first, second = storage_of(backend), storage_of(backend)
    run(first.write(LATEST, snapshot(range(40))))
    run(second.read(LATEST))
    run(second.write(immutable(1), snapshot(range(60))))
    backend.database.reset()

    run(first.write(LATEST, snapshot([*range(40), *range(70, 95)])))

    assert backend.database.round_trips == 2
    for batch in backend.database.log:
        assert sum(len(str(one)) for each in batch for one in each.get("params", ())) < 16_000
    fresh = storage_of(backend)
    assert run(fresh.read(LATEST)) == snapshot([*range(40), *range(70, 95)])
    assert run(fresh.read(immutable(1))) == snapshot(range(60))


@pytest.mark.parametrize("is_there", [True, False])
@pytest.mark.parametrize("key", [LATEST, immutable(2)])
def test_a_save_on_what_others_have_deleted_refers_to_nothing_of_it(
    backend: Backend, key: str, is_there: bool
) -> None:
    """Where what a snapshot shares its text with is gone, it is written whole."""
    storage, data = storage_of(backend), snapshot(range(60))
    if is_there:
        run(storage.write(key, snapshot([1])))
    run(storage.write(immutable(1), data))
    run(storage_of(backend).delete(immutable(1)))

    run(storage.write(key, data))

    assert run(storage_of(backend).read(key)) == data


def test_what_was_sent_ahead_and_is_gone_is_sent_again() -> None:
    """A large save whose parts somebody deletes before it refers to them is applied whole."""
    data = text_of(5_000_000).encode()
    with LocalDatabase() as local:
        PerSQLStorage(local).setup()

        def delete(call: int) -> Fault | None:
            if call == 1:  # between what is sent ahead and what refers to it
                local.query("DELETE FROM strands_parts")
            return None

        storage = PerSQLStorage(FaultyDatabase(local, delete))
        run(storage.write("k", data))

        assert run(PerSQLStorage(local).read("k")) == data


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM strands_parts",
        "UPDATE strands_parts SET data = substr(data, 1, 9)",
        "UPDATE strands_parts SET data = upper(data)",
        "UPDATE strands_objects SET pieces = 'nonsense' WHERE key = 'bad'",
        "UPDATE strands_objects SET pieces = '{}' WHERE key = 'bad'",
        "UPDATE strands_objects SET pieces = '[7]' WHERE key = 'bad'",
        "UPDATE strands_objects SET digest = '' WHERE key = 'bad'",
        "UPDATE strands_objects SET encoding = 'rot13' WHERE key = 'bad'",
        "UPDATE strands_objects SET encoding = 'base64' WHERE key = 'bad'",
    ],
)
def test_a_damaged_value_is_named_and_others_are_read(backend: Backend, damage: str) -> None:
    """A value that isn't what was stored is never returned; it is named, and can be replaced."""
    storage = storage_of(backend)
    run(storage.write("bad", text_of(20_000).encode()))
    run(storage.write("good", b"fine"))
    backend.raw(damage)
    fresh = storage_of(backend)

    with pytest.raises(CorruptRowError, match="'bad'") as raised:
        run(fresh.read("bad"))
    assert isinstance(raised.value, StorageError)
    assert raised.value.key == ("bad",)
    assert run(fresh.read("good")) == b"fine"
    run(fresh.write("bad", b"new"))
    assert run(fresh.read("bad")) == b"new"


def test_a_value_that_changes_while_its_parts_are_read_is_read_again() -> None:
    """A large value is read whole, of one save, also where it is replaced meanwhile."""
    texts = [text_of(4_600_000, n) for n in range(2)]
    with LocalDatabase() as local:
        writer = PerSQLStorage(local)
        run(writer.write("k", texts[0].encode()))

        def replace(call: int) -> Fault | None:
            if call == 1:  # after the first page
                run(writer.write("k", texts[1].encode()))
            return None

        reader = PerSQLStorage(FaultyDatabase(local, replace))

        assert run(reader.read("k")) == texts[1].encode()


def _fails(error: Exception) -> Callable[[int], Fault | None]:
    def fail(_: int) -> Fault | None:
        raise error

    return fail


@pytest.mark.parametrize(
    ("cause", "kind"),
    [
        (ConnectionRefusedError("no"), errors.UnavailableError),
        (ConnectionResetError("lost"), errors.OutcomeUnknownError),
        (PermissionError("denied"), errors.PerSQLError),
        (ZeroDivisionError("a bug"), errors.StatementError),
    ],
)
def test_whatever_goes_wrong_is_a_storage_error(cause: Exception, kind: type[Exception]) -> None:
    """Each error is one of Strands' and one of ours, and says what was to be done."""
    with LocalDatabase() as local:
        storage = PerSQLStorage(FaultyDatabase(local, _fails(cause)), retry=NEVER)

        with pytest.raises(StorageError, match="Failed to write 'k'") as raised:
            run(storage.write("k", b"v"))
        assert isinstance(raised.value, kind)
        for call in (storage.read("k"), storage.list("k"), storage.delete_prefix("k")):
            with pytest.raises(StorageError, match="'k'"):
                run(call)


def test_a_closed_database_is_named() -> None:
    """A database that was closed is an error of opening, and of storing."""
    local = LocalDatabase()
    storage = PerSQLStorage(local, retry=NEVER)
    local.close()

    with pytest.raises(errors.DatabaseOpenError) as raised:
        run(storage.read("k"))
    assert isinstance(raised.value, StorageError)


def test_each_error_of_ours_is_one_of_strands_too() -> None:
    """Whichever of our errors a storage meets, it raises one that is of both kinds, and pickles."""
    from strands_persql.snapshots.errors import storage_errors  # noqa: PLC0415 - inner

    kinds = [one for one in vars(errors).values() if isinstance(one, type)]
    found = [one for one in kinds if issubclass(one, errors.PerSQLError)]
    for kind in found:
        met = kind.__new__(kind)
        met.args, met.session_id = ("said",), "s"
        with pytest.raises(kind, match="Failed to do it: said") as raised, storage_errors("do it"):
            raise met
        copy = pickle.loads(pickle.dumps(raised.value))  # noqa: S301 - our own
        assert isinstance(copy, StorageError)
        assert isinstance(copy, kind)
        assert (copy.session_id, raised.value.__cause__) == ("s", met)
    assert len(found) >= 14
