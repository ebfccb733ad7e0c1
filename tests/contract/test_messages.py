"""Messages: their ids, order, pages, bytes and redactions."""

import copy

import pytest
from strands.types.content import Message
from strands.types.exceptions import SessionException
from strands.types.session import SessionMessage

from strands_persql.errors import NotFoundError, OutcomeUnknownError
from strands_persql.testing import FaultyDatabase
from tests.support.backends import NEVER, Backend
from tests.support.conversation import (
    ids_in_database,
    in_database,
    listed,
    said,
    session_agent,
    session_message,
    stored,
    user,
)


def test_a_created_message_is_read_as_it_was(backend: Backend) -> None:
    """A message comes back field by field, here and elsewhere."""
    repository = stored(backend)
    made = session_message("hello", 0)
    repository.create_message("s", "a", made)
    assert repository.read_message("s", "a", 0) == made
    assert backend.repository(backend.reopen()).read_message("s", "a", 0) == made


def test_messages_are_listed_in_order(backend: Backend) -> None:
    """Messages come by their ids, as numbers, beyond the tenth too."""
    texts = [str(number) for number in range(12)]
    repository = stored(backend, *texts)
    assert listed(repository) == texts
    assert in_database(backend) == texts


def test_a_missing_message_is_none(backend: Backend) -> None:
    """Reading a message gives None where it, its agent or its session isn't there."""
    repository = stored(backend, "hello")
    assert repository.read_message("s", "a", 1) is None
    assert repository.read_message("s", "b", 0) is None
    assert repository.read_message("t", "a", 0) is None


def test_an_agent_without_messages_has_an_empty_list(backend: Backend) -> None:
    """No messages are an empty list, from the cache and from the database."""
    repository = stored(backend)
    assert repository.list_messages("s", "a") == []
    assert in_database(backend) == []


def test_listing_messages_of_a_missing_agent_raises(backend: Backend) -> None:
    """There is no list of messages of an agent or a session that isn't there."""
    repository = stored(backend, "hello")
    for session_id, agent_id in (("s", "b"), ("t", "a")):
        with pytest.raises(SessionException, match="does not exist"):
            repository.list_messages(session_id, agent_id)


@pytest.mark.parametrize(
    ("limit", "offset", "expected"),
    [
        (None, 0, "01234"),
        (None, 2, "234"),
        (2, 0, "01"),
        (2, 3, "34"),
        (10, 3, "34"),
        (2, 5, ""),
        (2, 50, ""),
        (None, 50, ""),
        (0, 0, ""),
        (5, 0, "01234"),
    ],
)
def test_pages_are_slices(backend: Backend, limit: int | None, offset: int, expected: str) -> None:
    """``limit`` and ``offset`` cut the list as a slice would, also beyond its end."""
    warm = stored(backend, *"01234")
    warm.read_session("s")
    for repository in (warm, backend.repository()):
        page = repository.list_messages(session_id="s", agent_id="a", limit=limit, offset=offset)
        assert "".join(said(one.to_message() for one in page)) == expected


@pytest.mark.parametrize(("limit", "offset"), [(-1, 0), (None, -1)])
def test_pages_begin_and_end_at_numbers_from_zero_on(
    backend: Backend, limit: int | None, offset: int
) -> None:
    """Negative limits and offsets are refused."""
    repository = stored(backend, "hello")
    with pytest.raises(ValueError, match="must not be negative"):
        repository.list_messages("s", "a", limit, offset)


def test_pages_of_a_window_count_from_the_first_message(backend: Backend) -> None:
    """Offsets count the messages that a conversation manager has removed, as Strands does."""
    repository = stored(backend, *"0123456")
    windowed = session_agent()
    windowed.conversation_manager_state = {"removed_message_count": 3}
    repository.update_agent("s", windowed)
    for one in (repository, backend.repository()):
        one.read_session("s")
        assert [m.message_id for m in one.list_messages("s", "a", offset=3)] == [3, 4, 5, 6]
        assert [m.message_id for m in one.list_messages("s", "a", limit=2, offset=2)] == [2, 3]
        assert [m.message_id for m in one.list_messages("s", "a")] == list(range(7))


def test_a_message_needs_its_agent(backend: Backend) -> None:
    """A message can't be created under what isn't there, and asking costs one round trip."""
    repository = stored(backend)
    for session_id, agent_id in (("s", "b"), ("t", "a")):
        backend.database.reset()
        with pytest.raises(NotFoundError, match="does not exist"):
            repository.create_message(session_id, agent_id, session_message("x", 0))
        assert backend.database.round_trips == 1
    assert backend.dump()["messages"] == []


def test_a_taken_id_gives_way_to_the_next_free_one(backend: Backend) -> None:
    """A message whose id is taken is stored behind all others, and its object says where."""
    repository = stored(backend, "zero", "one")
    late = session_message("late", 0)
    repository.create_message("s", "a", late)
    assert late.message_id == 2
    assert in_database(backend) == ["zero", "one", "late"]
    found = backend.repository().read_message("s", "a", 2)
    assert found is not None
    assert found.message_id == 2


def test_the_same_object_is_stored_once(backend: Backend) -> None:
    """Storing an object again changes nothing, also when others have come behind it."""
    repository = stored(backend)
    made = session_message("once", 0)
    repository.create_message("s", "a", made)
    repository.create_message("s", "a", session_message("next", 1))
    repository.create_message("s", "a", made)
    assert made.message_id == 0
    assert in_database(backend) == ["once", "next"]


def test_a_moved_object_is_stored_once(backend: Backend) -> None:
    """An object that was given another id is known by it when it is stored again."""
    repository = stored(backend, "zero")
    made = session_message("late", 0)
    repository.create_message("s", "a", made)
    repository.create_message("s", "a", made)
    assert (made.message_id, in_database(backend)) == (1, ["zero", "late"])


def test_an_id_may_leave_a_gap(backend: Backend) -> None:
    """A message stands at the id that it asks for, if that is free, and lists stay in order."""
    repository = stored(backend, "zero")
    repository.create_message("s", "a", session_message("five", 5))
    repository.create_message("s", "a", session_message("three", 3))
    assert ids_in_database(backend) == [0, 3, 5]
    assert listed(repository) == ["zero", "three", "five"]


def test_bytes_come_back_as_bytes(backend: Backend) -> None:
    """Images and documents in messages come back as they were."""
    content: Message = {
        "role": "user",
        "content": [
            {"image": {"format": "png", "source": {"bytes": bytes(range(256))}}},
            {"document": {"format": "pdf", "name": "d", "source": {"bytes": b""}}},
        ],
    }
    repository = stored(backend)
    repository.create_message("s", "a", SessionMessage.from_message(content, 0))
    for one in (repository, backend.repository(backend.reopen())):
        found = one.read_message("s", "a", 0)
        assert found is not None
        assert found.message == content


def test_text_with_nul_and_lone_surrogates_comes_back(backend: Backend) -> None:
    """Text that databases are bad at comes back as it was."""
    texts = ["a\0b", "\ud800", "\udfff\ud800 x", "\u2028\u2029", "日本 🎉", "", "\\u0000"]
    repository = stored(backend, *texts)
    assert listed(repository) == texts
    assert in_database(backend) == texts


def test_updating_a_message_replaces_it(backend: Backend) -> None:
    """A redaction is what is read from then on, with the text that it redacts beside it."""
    repository = stored(backend, "secret", "two")
    made = repository.read_message("s", "a", 0)
    assert made is not None
    made.redact_message = user("[gone]")
    repository.update_message("s", "a", made)
    assert listed(repository) == ["[gone]", "two"]
    assert in_database(backend) == ["[gone]", "two"]
    found = backend.repository().read_message("s", "a", 0)
    assert found is not None
    assert found.message["content"] == [{"text": "secret"}]


def test_updating_a_message_keeps_when_it_was_created(backend: Backend) -> None:
    """``created_at`` of a message survives an update by an object made anew."""
    repository = stored(backend, "hello")
    before = repository.read_message("s", "a", 0)
    changed = session_message("changed", 0)
    changed.created_at = "1999-01-01T00:00:00+00:00"
    repository.update_message("s", "a", changed)
    after = backend.repository().read_message("s", "a", 0)
    assert before is not None
    assert after is not None
    assert (after.created_at, said([after.message])) == (before.created_at, ["changed"])
    row = backend.raw("SELECT created_at, version FROM strands_messages")[0]
    assert row == {"created_at": before.created_at, "version": 2}


def test_an_update_sets_created_at_on_its_object(backend: Backend) -> None:
    """The object handed to an update has the stored ``created_at`` afterwards, as Strands does."""
    repository = stored(backend, "hello")
    before = repository.read_message("s", "a", 0)
    changed = session_message("changed", 0)
    changed.created_at = "1999-01-01T00:00:00+00:00"
    repository.update_message("s", "a", changed)
    assert before is not None
    assert changed.created_at == before.created_at


def test_updating_a_missing_message_raises(backend: Backend) -> None:
    """An update of a message that isn't there raises and stores nothing."""
    repository = stored(backend, "hello")
    for session_id, agent_id, message_id in (("s", "a", 1), ("s", "b", 0), ("t", "a", 0)):
        with pytest.raises(SessionException, match="does not exist"):
            repository.update_message(session_id, agent_id, session_message("x", message_id))
    assert in_database(backend) == ["hello"]


def test_messages_given_and_got_are_nobodys_alias(backend: Backend) -> None:
    """Changing a message's dict in place changes nothing that is stored or remembered."""
    repository = stored(backend, "x")
    repository.read_session("s")
    made = session_message("hello", 1)
    repository.create_message("s", "a", made)
    made.message["content"].append({"text": "changed"})
    got = repository.list_messages("s", "a")
    got[1].message["content"].clear()
    got.clear()
    assert listed(repository) == ["x", "hello"]
    assert in_database(backend) == ["x", "hello"]


def test_messages_of_agents_keep_apart(backend: Backend) -> None:
    """Each agent of a session counts its own messages from 0."""
    repository = stored(backend, "of a")
    repository.create_agent("s", session_agent("b"))
    other = session_message("of b", 0)
    repository.create_message("s", "b", other)
    assert other.message_id == 0
    assert (listed(repository), listed(repository, "b")) == (["of a"], ["of b"])


@pytest.mark.guarantee(number=10)
def test_opened_messages_are_read_from_memory(backend: Backend) -> None:
    """After an open, reads of agents and messages cost no round trip."""
    stored(backend, "one", "two")
    repository = backend.repository()
    repository.read_session("s")
    backend.database.reset()
    assert repository.read_agent("s", "a") is not None
    assert listed(repository) == ["one", "two"]
    assert repository.read_message("s", "a", 1) is not None
    assert backend.database.round_trips == 0


def test_a_write_and_a_read_of_it_cost_one_round_trip(backend: Backend) -> None:
    """What was appended is read from memory, where the session was opened before."""
    stored(backend, "one")
    repository = backend.repository()
    repository.read_session("s")
    backend.database.reset()
    repository.create_message("s", "a", session_message("two", 1))
    assert listed(repository) == ["one", "two"]
    assert backend.database.round_trips == 1


def test_a_copy_of_a_message_is_another_one(backend: Backend) -> None:
    """A copied record with other content is stored, for it only looks like one stored before."""
    repository = stored(backend)
    made = session_message("x", 0)
    repository.create_message("s", "a", made)
    copied = copy.deepcopy(made)
    copied.message = user("y")
    repository.create_message("s", "a", copied)
    made.message = user("z")
    repository.create_message("s", "a", made)
    assert in_database(backend) == ["x", "y", "z"]


def test_an_update_whose_answer_was_lost_can_be_repeated(backend: Backend) -> None:
    """Under ``raise`` too an update that was applied recognizes itself when it is repeated."""
    stored(backend, "secret")
    database = FaultyDatabase(backend.database, [None, "lost_answer"])
    strict = backend.repository(database, retry=NEVER, on_conflict="raise")
    message = strict.list_messages("s", "a")[0]
    message.redact_message = user("[gone]")
    with pytest.raises(OutcomeUnknownError):
        strict.update_message("s", "a", message)
    strict.update_message("s", "a", message)
    assert in_database(backend) == ["[gone]"]


def test_an_update_hits_no_other_message_of_its_id(backend: Backend) -> None:
    """An update of a message whose session was made anew leaves the new one's message alone."""
    repository = stored(backend, "old")
    stale = repository.read_message("s", "a", 0)
    assert stale is not None
    backend.repository().delete_session("s")
    stored(backend, "new")
    stale.redact_message = user("[gone]")
    with pytest.raises(NotFoundError):
        repository.update_message("s", "a", stale)
    assert in_database(backend) == ["new"]


def test_an_update_hits_no_message_that_has_moved_to_its_id(backend: Backend) -> None:
    """Where a turn has moved, and another message is where one was read, that one stays."""
    repository = stored(backend, "zero", "one")
    stale = repository.read_message("s", "a", 1)
    assert stale is not None
    for before, after in ((1, 5), (0, 1)):
        backend.raw(
            "UPDATE strands_messages SET message_id = CAST(? AS INTEGER)"
            " WHERE message_id = CAST(? AS INTEGER)",
            after,
            before,
        )
    stale.message = user("changed")
    with pytest.raises(NotFoundError):
        repository.update_message("s", "a", stale)
    assert in_database(backend) == ["zero", "one"]
