"""Saves that build on what is no longer the latest, and managers that share a storage."""

import json
import pickle

import pytest
from strands import Agent

from strands_persql.errors import ConflictError, PerSQLError
from tests.storages import (
    LATEST,
    PerSQLStorage,
    StorageConflictError,
    StorageError,
    agent_of,
    immutable,
    run,
    snapshot,
    storage_of,
    text_of,
)
from tests.support.backends import Backend

SIZES = [10, 30_000]


def said(agent: Agent) -> list[str]:
    """Return what an agent's messages say."""
    return [message["content"][0]["text"] for message in agent.messages]


@pytest.mark.parametrize("size", SIZES)
def test_a_save_on_what_was_replaced_is_refused(backend: Backend, size: int) -> None:
    """Who builds on a value that another one has replaced is told both versions and the key."""
    text = text_of(size)
    first, second = storage_of(backend), storage_of(backend)
    run(first.write(LATEST, text.encode()))
    run(second.read(LATEST))
    run(first.write(LATEST, (text + "first").encode()))

    with pytest.raises(StorageConflictError, match=r"storage\.view|on_conflict") as raised:
        run(second.write(LATEST, (text + "second").encode()))

    error = raised.value
    assert isinstance(error, ConflictError)
    assert isinstance(error, StorageError)
    assert (error.key, error.session_id, error.agent_id) == (LATEST, "s", "a")
    assert (error.expected_version, error.found_version) == (1, 2)
    assert run(storage_of(backend).read(LATEST)) == (text + "first").encode()


def test_a_refused_writer_stays_refused_until_it_reads_again(backend: Backend) -> None:
    """What was refused once is refused again, and goes on from what is read then."""
    first, second = storage_of(backend), storage_of(backend)
    run(first.write("k", b"1"))
    run(second.read("k"))
    run(first.write("k", b"2"))
    for _ in range(2):
        with pytest.raises(StorageConflictError):
            run(second.write("k", b"mine"))

    assert run(second.read("k")) == b"2"
    run(second.write("k", b"3"))

    assert run(first.read("k")) == b"3"


def test_what_was_missing_and_is_there_now_is_not_overwritten(backend: Backend) -> None:
    """Who has found nothing under a key creates its value, and no one else's is lost."""
    first, second = storage_of(backend), storage_of(backend)
    assert run(first.read("k")) is None
    assert run(second.read("k")) is None
    run(first.write("k", b"first"))

    with pytest.raises(StorageConflictError, match="was created") as raised:
        run(second.write("k", b"second"))

    assert (raised.value.expected_version, raised.value.found_version) == (None, 1)
    assert run(second.view().read("k")) == b"first"


def test_what_was_deleted_is_not_brought_back(backend: Backend) -> None:
    """A save on a value that another one has deleted is refused."""
    first, second = storage_of(backend), storage_of(backend)
    run(first.write("k", b"1"))
    run(second.read("k"))
    run(first.delete("k"))

    with pytest.raises(StorageConflictError, match="was deleted") as raised:
        run(second.write("k", b"2"))

    assert raised.value.found_version is None
    assert run(first.read("k")) is None


def test_a_value_of_the_same_name_is_another_one(backend: Backend) -> None:
    """A value that was deleted and made anew isn't taken for the one that was read."""
    first, second = storage_of(backend), storage_of(backend)
    run(first.write("k", b"1"))
    run(second.read("k"))
    run(first.delete("k"))
    run(first.write("k", b"new"))

    with pytest.raises(StorageConflictError):
        run(second.write("k", b"2"))


def test_what_was_never_seen_is_simply_written(backend: Backend) -> None:
    """A key that this storage has neither read nor saved is written, whatever is there."""
    run(storage_of(backend).write("k", text_of(50_000).encode()))

    run(storage_of(backend).write("k", b"short"))

    assert run(storage_of(backend).read("k")) == b"short"


def test_the_same_value_is_no_conflict(backend: Backend) -> None:
    """Two who save the same value have nothing to lose."""
    first, second = storage_of(backend), storage_of(backend)
    run(first.write("k", b"1"))
    run(second.read("k"))
    run(first.write("k", b"2"))

    run(second.write("k", b"2"))
    run(second.write("k", b"3"))

    assert run(first.read("k")) == b"3"


@pytest.mark.parametrize("size", SIZES)
def test_the_last_one_wins_where_that_is_asked_for(backend: Backend, size: int) -> None:
    """With ``on_conflict="overwrite"`` a save takes the place of whatever is there."""
    text = text_of(size)
    first = storage_of(backend, on_conflict="overwrite")
    second = storage_of(backend, on_conflict="overwrite")
    run(first.write("k", text.encode()))
    run(second.read("k"))
    run(first.write("k", (text + "first").encode()))
    run(second.write("k", (text + "second").encode()))
    run(first.delete("k"))
    run(second.write("k", (text + "third").encode()))

    assert run(first.read("k")) == (text + "third").encode()


def test_views_are_told_apart(backend: Backend) -> None:
    """Two views of one storage are two writers, though they share its cache."""
    storage = storage_of(backend)
    run(storage.write("k", b"1"))
    first, second = storage.view(), storage.view()
    run(first.read("k"))
    run(second.read("k"))
    run(first.write("k", b"2"))

    with pytest.raises(StorageConflictError):
        run(second.write("k", b"3"))
    run(first.write("k", b"4"))

    assert run(storage.read("k")) == b"4"


def test_a_namespace_sees_what_its_storage_has_seen(backend: Backend) -> None:
    """A storage and its namespaces are one writer."""
    storage = storage_of(backend)
    scoped = storage.namespace("a")
    run(storage.write("a/k", b"1"))
    run(scoped.write("k", b"2"))

    run(storage.write("a/k", b"3"))

    assert run(scoped.read("k")) == b"3"


def test_errors_cross_process_pools(backend: Backend) -> None:
    """A conflict survives pickling, with all that it says."""
    first, second = storage_of(backend), storage_of(backend)
    run(first.write("k", b"1"))
    run(second.read("k"))
    run(first.write("k", b"2"))
    with pytest.raises(StorageConflictError) as raised:
        run(second.write("k", b"3"))

    copy = pickle.loads(pickle.dumps(raised.value))  # noqa: S301 - our own

    assert type(copy) is StorageConflictError
    assert (str(copy), copy.key, copy.found_version) == (str(raised.value), "k", 2)


class TestManagers:
    """Snapshot managers of one session."""

    def test_two_with_views_are_told_apart(self, backend: Backend) -> None:
        """The second of two agents that were restored from one snapshot is refused, and told."""
        storage = storage_of(backend)
        agent_of(storage.view(), "Hello.")("hi")
        first, second = agent_of(storage.view(), "One."), agent_of(storage.view(), "Two.")
        first("one?")

        with pytest.raises(StorageConflictError):
            second("two?")

        assert said(agent_of(storage.view())) == ["hi", "Hello.", "one?", "One."]

    def test_two_that_share_a_storage_are_told_by_their_messages(self, backend: Backend) -> None:
        """Where both have restored through one object, the one that is behind is refused."""
        storage = storage_of(backend)
        agent_of(storage, "Hello.")("hi")
        first, second = agent_of(storage, "One.", "More."), agent_of(storage, "Two.")
        first("one?")

        with pytest.raises(StorageConflictError, match=r"storage\.view\(\)") as raised:
            second("two?")
        first("more?")

        assert isinstance(raised.value, PerSQLError)
        assert (raised.value.session_id, raised.value.agent_id) == ("s", "a")
        assert said(agent_of(storage))[2:] == ["one?", "One.", "more?", "More."]

    def test_two_that_begin_a_session_through_one_storage(self, backend: Backend) -> None:
        """Of two that have found no session, one begins it and the other is refused."""
        storage = storage_of(backend)
        first, second = agent_of(storage, "One."), agent_of(storage, "Two.")
        first("one?")

        with pytest.raises(StorageConflictError):
            second("two?")

    def test_one_after_the_other_share_a_storage(self, backend: Backend) -> None:
        """Managers that come one after the other, as requests do, may share a storage."""
        storage = storage_of(backend)
        for number in range(4):
            agent_of(storage, f"Answer {number}.")(f"{number}?")

        assert len(agent_of(storage).messages) == 8

    def test_one_alone_may_do_as_it_likes(self, backend: Backend) -> None:
        """A manager with a storage of its own may drop messages, and begin anew."""
        storage = storage_of(backend)
        agent = agent_of(storage, "One.", "Two.", "Three.")
        agent("one?")
        del agent.messages[-2:]
        agent("two?")
        agent.messages.clear()
        agent("three?")

        assert said(agent_of(storage_of(backend))) == ["three?", "Three."]

    def test_going_back_is_no_conflict(self, backend: Backend) -> None:
        """Also where others have read the latest snapshot, going back to an older one is taken."""
        storage = storage_of(backend)
        before, after = snapshot([1, 2]), snapshot([1, 2, 3, 4])
        run(storage.write(immutable(1), before))
        run(storage.write(LATEST, after))
        run(storage.read(LATEST))
        run(storage.read(LATEST))
        run(storage.write(LATEST, snapshot([1, 2, 3, 4, 5])))
        with pytest.raises(StorageConflictError):
            run(storage.write(LATEST, snapshot([1, 2, 6])))

        run(storage.read(immutable(1)))
        run(storage.write(LATEST, snapshot([1, 2, 6])))

        stored = json.loads(run(storage.view().read(LATEST)) or b"")
        assert len(stored["data"]["messages"]) == 3

    def test_what_is_no_snapshot_is_not_looked_into(self, backend: Backend) -> None:
        """Values without messages are taken from whoever has the latest one."""
        storage = storage_of(backend)
        for value in (b"1", b"{}", b'{"data": {"messages": 3}}', b"[" * 9_000, b"\xff"):
            run(storage.read("k"))
            run(storage.read("k"))
            run(storage.write("k", value))

        assert run(storage.read("k")) == b"\xff"

    def test_another_process_between_is_noticed_before_the_messages_are(
        self, backend: Backend
    ) -> None:
        """A writer in another process is met by version, whatever the messages say."""
        here, elsewhere = storage_of(backend), PerSQLStorage(backend.reopen())
        run(here.write(LATEST, snapshot([1])))
        run(here.read(LATEST))
        run(elsewhere.read(LATEST))
        run(elsewhere.write(LATEST, snapshot([1, 2])))

        with pytest.raises(StorageConflictError) as raised:
            run(here.write(LATEST, snapshot([1, 3])))

        assert raised.value.found_version == 2
