"""Sessions: made once, read, listed, deleted with all that is in them."""

import pytest
from strands.types.exceptions import SessionException

from strands_persql.errors import AlreadyExistsError, NotFoundError
from tests.support.backends import Backend
from tests.support.conversation import Team, session, session_agent, session_message, stored


def test_a_created_session_is_read_as_it_was(backend: Backend) -> None:
    """What one repository creates another reads, field by field."""
    made = session()
    assert backend.repository().create_session(made) == made
    assert backend.repository(backend.reopen()).read_session("s") == made


def test_a_missing_session_is_none(backend: Backend) -> None:
    """Reading a session that isn't there gives None, also when others are."""
    repository = backend.repository()
    assert repository.read_session("s") is None
    repository.create_session(session("other"))
    assert repository.read_session("s") is None


@pytest.mark.guarantee(number=10)
def test_a_missing_session_is_found_as_soon_as_it_is_there(backend: Backend) -> None:
    """That a session wasn't there is never remembered."""
    repository = backend.repository(max_staleness=1000)
    assert repository.read_session("s") is None
    backend.repository().create_session(session())
    assert repository.read_session("s") is not None


@pytest.mark.guarantee(number=11)
def test_creating_a_session_twice_raises_and_resets_nothing(backend: Backend) -> None:
    """A second creation raises, in the same repository and in another, and changes no row."""
    repository = stored(backend, "hello", n=1)
    before = backend.dump()
    for one in (repository, backend.repository()):
        with pytest.raises(AlreadyExistsError, match="'s' already exists"):
            one.create_session(session())
    assert backend.dump() == before


def test_deleting_a_session_leaves_no_row_of_it(backend: Backend) -> None:
    """A deleted session is gone with its agents, messages and multi-agents, and no other is."""
    repository = stored(backend, "hello")
    repository.create_multi_agent("s", Team())
    stored(backend, "kept", session_id="s2")
    repository.delete_session("s")
    assert repository.read_session("s") is None
    remaining = [row["session_id"] for rows in backend.dump().values() for row in rows]
    assert remaining == ["s2", "s2", "s2"]


def test_a_deleted_session_is_gone_from_memory_too(backend: Backend) -> None:
    """Nothing of a deleted session is read from the cache of the repository that deleted it."""
    repository = stored(backend, "hello")
    repository.read_session("s")
    repository.delete_session("s")
    assert repository.read_agent("s", "a") is None
    assert repository.read_message("s", "a", 0) is None
    with pytest.raises(NotFoundError):
        repository.list_messages("s", "a")


def test_deleting_a_missing_session_raises(backend: Backend) -> None:
    """Deleting what isn't there raises, as does deleting it a second time."""
    repository = stored(backend)
    with pytest.raises(SessionException, match="does not exist"):
        repository.delete_session("other")
    repository.delete_session("s")
    with pytest.raises(NotFoundError):
        repository.delete_session("s")


def test_a_session_can_be_made_anew_after_deletion(backend: Backend) -> None:
    """A session of a deleted one's id begins empty."""
    repository = stored(backend, "old", n=1)
    repository.delete_session("s")
    repository.create_session(session())
    assert repository.read_agent("s", "a") is None
    repository.create_agent("s", session_agent())
    assert repository.list_messages("s", "a") == []


def test_sessions_are_listed_in_the_order_of_their_ids(backend: Backend) -> None:
    """All sessions are listed, by id, whatever the order of their making."""
    repository = backend.repository()
    for session_id in ("b", "a", "c"):
        repository.create_session(session(session_id))
    assert [one.session_id for one in repository.list_sessions()] == ["a", "b", "c"]


def test_sessions_are_listed_page_by_page(backend: Backend) -> None:
    """A page begins behind the id that it is given and is no longer than its limit."""
    repository = backend.repository()
    for number in range(5):
        repository.create_session(session(f"s{number}"))
    page = repository.list_sessions(limit=2, after="s1")
    assert [one.session_id for one in page] == ["s2", "s3"]
    assert repository.list_sessions(after="s4") == []


def test_sessions_are_listed_by_how_their_ids_begin(backend: Backend) -> None:
    """Only ids that begin so are listed; SQL's wildcards mean themselves."""
    repository = backend.repository()
    for session_id in ("u_1", "ux1", "u%1", "U_1", "üu_"):
        repository.create_session(session(session_id))
    found = [one.session_id for one in repository.list_sessions(starts_with="u_")]
    assert found == ["u_1"]
    assert [one.session_id for one in repository.list_sessions(starts_with="ü")] == ["üu_"]


def test_no_sessions_are_an_empty_list(backend: Backend) -> None:
    """Listing a database without tables gives an empty list."""
    assert backend.repository().list_sessions() == []


def test_sessions_of_like_names_keep_apart(backend: Backend) -> None:
    """Ids that differ by case, by an end or by a wildcard are different sessions."""
    names = ["s", "S", "s1", "s%", "s_", "ß", "s' OR 1=1 --", "*"]
    for name in names:
        stored(backend, f"of {name}", session_id=name)
    backend.repository().delete_session("s%")
    backend.repository().delete_session("S")
    repository = backend.repository()
    left = [name for name in names if name not in ("s%", "S")]
    assert {one.session_id for one in repository.list_sessions()} == set(left)
    for name in left:
        assert repository.read_message(name, "a", 0) is not None


def test_two_prefixes_are_two_sets_of_tables(backend: Backend) -> None:
    """Sessions under one table prefix aren't seen under another."""
    stored(backend, "hello")
    other = backend.repository(table_prefix="mine_")
    assert other.read_session("s") is None
    other.create_session(session())
    other.create_agent("s", session_agent())
    other.create_message("s", "a", session_message("mine", 0))
    other.delete_session("s")
    assert len(backend.dump()["messages"]) == 1
    assert backend.raw("SELECT * FROM mine_messages") == []


def test_rows_can_be_read_by_the_published_query(backend: Backend) -> None:
    """The query of strands-persql 0.1's description works on our tables."""
    stored(backend, "hello", "there")
    rows = backend.raw(
        "SELECT message_id, json_extract(data,'$.message.role') AS role, created_at"
        " FROM strands_messages WHERE session_id = ? ORDER BY message_id",
        "s",
    )
    assert [(row["message_id"], row["role"]) for row in rows] == [(0, "user"), (1, "user")]
    assert all("T" in row["created_at"] for row in rows)
