"""Searching messages by what they say."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from strands_persql import LocalDatabase, MessageHit, PerSQLSessionRepository, RetryPolicy
from strands_persql.admin import SessionAdmin
from strands_persql.errors import AccessDeniedError, SchemaError
from strands_persql.testing import FaultyDatabase, Redact, Reply, ToolCall
from tests.engine.engine import Engine
from tests.support.backends import FAST, Backend, opened
from tests.support.conversation import (
    count,
    session,
    session_agent,
    session_message,
    stored,
    user,
)
from tests.support.racing import race

HERON = '{"message": {"role": "user", "content": [{"text": "a heron"}]}}'


def found(searchable: Any, query: str, **options: Any) -> list[tuple[str, int]]:
    """Return which messages of which sessions a search finds, by their ids."""
    hits = searchable.search(query, **options)
    return sorted((one.session_id, one.message_id) for one in hits)


def contents(backend: Backend) -> str:
    """Return all that the index has."""
    return str(backend.raw("SELECT content FROM strands_message_search"))


def test_messages_are_found_by_beginnings_of_words(backend: Backend) -> None:
    """All words of a query, or beginnings of words, must be there; case and accents don't count."""
    repository = backend.repository(search=True)
    stored(backend, "Enable dark mode in the Café's settings.", "Deploy to production; dark ends.")
    assert found(repository, "DARK mode") == [("s", 0)]
    assert found(repository, "cafe setting") == [("s", 0)]
    assert found(repository, "dark") == [("s", 0), ("s", 1)]
    assert found(repository, "dark absent") == []
    assert found(repository, "the dark in a mode") == [("s", 0)]
    assert found(repository, "the") == [("s", 0)]
    assert found(repository, "da") == []  # too short for the beginning of a word
    for nothing in ("", "!?", '"', " * "):
        assert found(repository, nothing) == []
    for odd in ('mode" OR content : *', "dark*", "scope : s73", "NOT dark", "(dark", "dark -mode"):
        assert found(repository, odd) in ([], [("s", 0)], [("s", 0), ("s", 1)])


def test_the_best_comes_first_with_a_snippet(backend: Backend) -> None:
    """Hits are ranked by BM25, scored between 0 and 1, and quote what was found, briefly."""
    repository = backend.repository(search=True)
    noise = "all work and no play " * 200
    stored(backend, *["nothing of it"] * 8, f"{noise} falcon {noise}", "falcon falcon, the falcon")
    hits = repository.search("falcon")
    assert [one.message_id for one in hits] == [9, 8]
    assert 1 > hits[0].score > hits[1].score > 0
    assert all("falcon" in one.snippet and len(one.snippet) <= 400 for one in hits)
    assert isinstance(hits[0], MessageHit)
    assert (hits[0].session_id, hits[0].agent_id, hits[0].role) == ("s", "a", "user")
    assert hits[0].created_at.startswith("20")
    assert [one.message_id for one in repository.search("falcon", limit=1)] == [9]


def test_a_search_may_be_within_a_session_or_an_agent(backend: Backend) -> None:
    """Sessions and agents that aren't asked for are left out, whatever their ids are."""
    repository = backend.repository(search=True)
    for session_id in ("s", "s2", "@x~s", "S", "73"):
        stored(backend, "a falcon", session_id=session_id)
    repository.create_agent("s", session_agent("b"))
    repository.create_message("s", "b", session_message("another falcon", 7))
    assert len(found(repository, "falcon")) == 6
    assert found(repository, "falcon", session_id="s") == [("s", 0), ("s", 7)]
    assert found(repository, "falcon", session_id="s", agent_id="b") == [("s", 7)]
    assert found(repository, "falcon", session_id="@x~s") == [("@x~s", 0)]
    assert found(repository, "falcon", session_id="nowhere") == []


@pytest.mark.parametrize(
    "options", [{"limit": 0}, {"limit": 1_001}, {"session_id": ""}, {"agent_id": "a"}]
)
def test_wrong_arguments_are_refused(options: dict[str, Any]) -> None:
    """A limit out of range, an odd id and an agent without a session are errors."""
    with LocalDatabase() as database:
        repository = PerSQLSessionRepository(database, search=True)
        with pytest.raises(ValueError, match=next(iter(options))):
            repository.search("x", **options)


def test_what_an_agent_says_is_found(backend: Backend) -> None:
    """Prompts, answers and results of tools are found as soon as they are stored, by any writer."""
    repository = backend.repository(search=True)
    repository.setup()
    replies: list[Reply] = ["A falcon is a bird.", ToolCall("count"), "counted"]
    agent = backend.agent(replies, tools=[count])  # of a repository without an index
    agent("What is a falcon?")
    assert [one.role for one in repository.search("falcon bird")] == ["assistant"]
    assert len(repository.search("falcon")) == 2
    agent("count the owls")
    assert found(repository, "owls") == [("s", 2)]
    assert found(repository, "1") == [("s", 4)]  # the tool's result


@pytest.mark.parametrize("is_shared", [True, False], ids=["by it", "by another"])
def test_what_is_deleted_redacted_or_edited_leaves(backend: Backend, is_shared: bool) -> None:
    """It isn't found from then on, and the index doesn't have it, at the next search at last."""
    repository = backend.repository(search=True)
    stored(backend, "the falcon flies", "the owl sleeps", "a heron fishes")
    stored(backend, "another falcon", session_id="t")
    assert len(found(repository, "falcon")) == 2
    writer = repository if is_shared else backend.repository()
    writer.read_session("s")
    messages = writer.list_messages("s", "a")
    messages[0].redact_message = user("[redacted]")
    writer.update_message("s", "a", messages[0])
    if is_shared:
        assert "falcon flies" not in contents(backend)
    messages[1].message = user("the owl hunts")
    writer.update_message("s", "a", messages[1])
    assert found(repository, "falcon") == [("t", 0)]
    assert found(repository, "owl sleeps") == []
    assert found(repository, "owl hunts") == [("s", 1)]
    writer.delete_session("s")
    if is_shared:
        assert "heron" not in contents(backend)
    assert found(repository, "heron") == []
    assert "another falcon" in contents(backend)
    assert not any(word in contents(backend) for word in ("flies", "owl", "heron"))


def test_a_guardrails_redaction_leaves_at_once(backend: Backend) -> None:
    """A manager on a repository with the index takes the words out with the redaction."""
    repository = backend.repository(search=True)
    manager = backend.manager(repository=repository)
    agent = backend.agent(["fine", Redact("[gone]", "Sorry.")], manager=manager)
    agent("the falcon lands")
    assert len(repository.search("falcon")) == 1
    agent("my card is 4000 1234")
    assert "4000" not in contents(backend)
    assert found(repository, "4000") == []
    assert found(repository, "gone") != []


def test_what_was_rewound_or_truncated_leaves(backend: Backend) -> None:
    """What an agent has gone back behind isn't found; once truncated it isn't there either."""
    repository = backend.repository(search=True)
    manager = backend.manager(repository=repository)
    agent = backend.agent(["a falcon", "an owl"], manager=manager)
    agent("one")
    agent("two")
    assert len(repository.search("owl")) == 1
    manager.rewind(agent, 1)
    assert repository.search("owl") == []
    assert len(repository.search("falcon")) == 1
    repository.truncate_session("s", "a")
    assert "owl" not in contents(backend)
    assert repository.search("owl") == []
    assert len(repository.search("falcon")) == 1


def test_what_has_expired_leaves(backend: Backend) -> None:
    """An expired session isn't found; once swept it isn't there either."""
    repository = backend.repository(search=True)
    stored(backend, "a falcon")
    stored(backend, "a falcon", session_id="t")
    assert len(repository.search("falcon")) == 2
    repository.set_expiry("s", 1)
    for table, column in (("sessions", "expires_at"), ("agents", "stored_at")):
        backend.raw(f"UPDATE strands_{table} SET {column} = 1 WHERE session_id = 's'")
    backend.raw("UPDATE strands_messages SET stored_at = 1 WHERE session_id = 's'")
    assert found(repository, "falcon") == [("t", 0)]
    assert SessionAdmin(backend.database).sweep().sessions == 1
    assert len(backend.raw("SELECT 1 FROM strands_message_search")) == 1
    assert found(repository, "falcon") == [("t", 0)]


def test_messages_that_move_are_found_where_they_are(backend: Backend) -> None:
    """A message that another id was given is found under that one, once."""
    repository = backend.repository(search=True)
    stored(backend, "a falcon", "an owl")
    assert found(repository, "falcon") == [("s", 0)]
    backend.raw("UPDATE strands_messages SET message_id = 9 WHERE message_id = 0")
    assert found(repository, "falcon") == [("s", 9)]
    backend.raw("UPDATE strands_messages SET message_id = -1 - message_id")
    backend.raw("UPDATE strands_messages SET message_id = -1 - message_id")
    assert found(repository, "falcon") == [("s", 9)]
    assert len(backend.raw("SELECT 1 FROM strands_message_search")) == 2


def test_forks_and_imports_are_found(backend: Backend) -> None:
    """Copies that the database makes itself are messages like any others."""
    repository = backend.repository(search=True)
    stored(backend, "a falcon")
    repository.setup()
    repository.fork_session("s", "copy")
    with LocalDatabase() as other:
        stored(Backend(other), "an imported falcon", session_id="t")
        SessionAdmin(backend.database).copy_from(SessionAdmin(other))
    assert found(repository, "falcon") == [("copy", 0), ("s", 0), ("t", 0)]


def test_what_was_there_before_is_indexed_in_bounded_requests(backend: Backend) -> None:
    """Making the index takes several requests where there is much, and may be interrupted."""
    stored(backend, *[f"falcon number{n}" for n in range(3)])
    with pytest.raises(SchemaError, match="search=True"):
        backend.repository().search("falcon")
    for first in range(3, 1_203, 100):
        rows = ", ".join(f"('s', 'a', {n}, '{HERON}')" for n in range(first, first + 100))
        backend.raw(
            f"INSERT INTO strands_messages (session_id, agent_id, message_id, data) VALUES {rows}"
        )
    calls: list[str | None] = [None] * 6 + ["lost_request"]
    faulty: Any = FaultyDatabase(backend.plain, calls)  # type: ignore[arg-type]
    interrupted = PerSQLSessionRepository(faulty, retry=RetryPolicy.never(), search=True)
    with pytest.raises(Exception, match="could not be reached"):
        interrupted.setup()
    counted = "SELECT count(*) AS n FROM strands_message_search"
    assert 0 < backend.raw(counted)[0]["n"] < 1_203
    repository = backend.repository(search=True)
    repository.setup()
    assert backend.raw(counted)[0]["n"] == 1_203
    assert len(repository.search("falcon", limit=1_000)) == 3
    assert len(repository.search("heron", limit=1_000)) == 1_000
    repository.setup()
    assert backend.raw(counted)[0]["n"] == 1_203


def test_rows_that_cannot_be_read_stop_nothing(backend: Backend) -> None:
    """Odd rows are indexed by what they say, or not at all, and the others are found."""
    repository = backend.repository(search=True)
    stored(backend, "a falcon", "an owl")
    repository.setup()
    for number, data in enumerate(("{not json", "[]", '{"message": 7}', "null", "")):
        backend.raw(
            "INSERT INTO strands_messages (session_id, agent_id, message_id, data)"
            " VALUES ('s', 'a', ?, ?)",
            10 + number,
            data,
        )
    backend.raw("UPDATE strands_messages SET data = '{' WHERE message_id = 1")
    for number, odd in enumerate(("'abc'", "1.5", "-3", "x'00ff'")):
        backend.raw(f"INSERT INTO strands_search_changed VALUES ('s', 'a', {odd})")
        backend.raw(f"INSERT INTO strands_search_new VALUES ('s', 'b{number}', {odd})")
    assert found(repository, "falcon") == [("s", 0)]
    assert found(repository, "owl") == []
    repository.delete_session("s")
    assert found(repository, "falcon") == []


def test_a_search_is_one_request_where_nothing_is_new(backend: Backend) -> None:
    """It reads alone then, and takes one more where messages were stored since."""
    repository = backend.repository(search=True)
    stored(backend, "a falcon")
    repository.setup()
    before = repository.stats()
    repository.search("falcon")
    after = repository.stats()
    assert after.round_trips - before.round_trips == 1
    assert after.rows_written == before.rows_written
    repository.create_message("s", "a", session_message("a new falcon", 1))
    before = repository.stats()
    assert len(repository.search("falcon")) == 2
    assert repository.stats().round_trips - before.round_trips == 2


def test_a_reader_finds_what_is_indexed(backend: Backend) -> None:
    """Read-only access searches, and finds nothing that has changed since it was indexed."""
    repository = backend.repository(search=True)
    stored(backend, "a falcon", "an owl")
    repository.setup()
    reader = backend.repository(read_only=True)
    assert found(reader, "falcon") == [("s", 0)]
    stored(backend, "a new falcon", session_id="t")
    backend.raw("UPDATE strands_messages SET version = 2, data = '{}' WHERE message_id = 1")
    assert found(reader, "falcon") == [("s", 0)]
    assert found(reader, "owl") == []
    assert len(found(repository, "falcon")) == 2


def test_an_owner_finds_its_own(backend: Backend) -> None:
    """Neither hits nor what waits to be indexed are another owner's."""
    repository = backend.repository(search=True)
    for owner in ("alice", "bob", "al"):
        narrowed = repository.for_owner(owner)
        narrowed.create_session(session())
        narrowed.create_agent("s", session_agent())
        narrowed.create_message("s", "a", session_message(f"the falcon of {owner}", 0))
    repository.setup()
    for owner in ("alice", "bob", "al"):
        narrowed = repository.for_owner(owner)
        (hit,) = narrowed.search("falcon")
        assert (hit.session_id, hit.snippet) == ("s", f"the falcon of {owner}")
        assert found(narrowed, "falcon", session_id="s", agent_id="a") == [("s", 0)]
        assert narrowed.search("falcon", session_id="@bob~s") == []
        assert SessionAdmin(backend.database, owner=owner).search("falcon") == [hit]
    assert len(repository.search("falcon")) == 3
    repository.for_owner("bob").create_message("s", "a", session_message("a heron", 1))
    assert repository.for_owner("alice").search("heron") == []
    assert backend.raw("SELECT session_id FROM strands_search_new") == [{"session_id": "@bob~s"}]


def test_the_index_is_removed_and_made_again(backend: Backend) -> None:
    """Without it nothing is noted any more, and searching says how to have it."""
    stored(backend, "a falcon")
    admin = SessionAdmin(backend.database)
    admin.setup(search=True)
    assert len(admin.search("falcon")) == 1
    with pytest.raises(ValueError, match="all owners"):
        SessionAdmin(backend.database, owner="alice").setup(search=False)
    admin.setup(search=False)
    assert backend.raw("SELECT name FROM sqlite_master WHERE name LIKE '%search%'") == []
    assert (
        backend.raw("SELECT name FROM sqlite_master WHERE name LIKE '%message!_%' ESCAPE '!'") == []
    )
    stored(backend, "another falcon", session_id="t")
    with pytest.raises(SchemaError, match="no index"):
        admin.search("falcon")
    assert len(backend.repository(search=True).search("falcon")) == 2


def test_erasing_leaves_no_word_in_the_index(tmp_path: Path) -> None:
    """After an erasure the file has no word of the session, in the index's own pages neither."""
    with opened("file", tmp_path) as backend:
        repository = backend.repository(search=True)
        stored(backend, "quicksilver falcon", session_id="gone")
        stored(backend, "an owl")
        assert len(repository.search("quicksilver")) == 1
        SessionAdmin(backend.database).erase("gone")
        assert repository.search("quicksilver") == []
        assert len(repository.search("owl")) == 1
    left = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"quicksilver" not in left
    assert b"owl" in left


def test_a_token_that_may_not_write(engine: Engine, database_name: str) -> None:
    """It searches what is indexed; making the index is refused."""
    with (
        opened("http", engine=engine, name=database_name) as backend,
        opened("http", engine=engine, name=database_name, role="readonly") as reader,
    ):
        stored(backend, "a falcon")
        with pytest.raises((SchemaError, AccessDeniedError)):
            reader.repository(search=True).search("falcon")
        backend.repository(search=True).setup()
        stored(backend, "a new falcon", session_id="t")
        assert found(reader.repository(), "falcon") == [("s", 0)]


def test_a_lost_answer_indexes_nothing_twice(backend: Backend) -> None:
    """A request that indexes may be sent twice."""
    backend.repository(search=True).setup()
    stored(backend, "an owl")
    faulty = FaultyDatabase(backend.plain, [None, "lost_answer", "duplicate"])
    repository = PerSQLSessionRepository(faulty, retry=FAST)
    assert len(repository.search("owl")) == 1
    assert len(faulty.injected) == 2
    assert len(backend.raw("SELECT 1 FROM strands_message_search")) == 1


@pytest.mark.backends("file", "http")
def test_writers_race_with_searches(backend: Backend) -> None:
    """However writers and searches fall together, the index ends with each message once."""
    backend.repository(search=True).setup()
    for name in ("s", "t"):
        stored(backend, "a falcon", session_id=name)

    def write(name: str) -> None:
        repository = backend.repository(backend.connect(), search=name == "s")
        repository.read_session(name)
        for number in range(1, 25):
            repository.create_message(name, "a", session_message(f"falcon {number}", number))
            if number % 5 == 0:
                message = repository.list_messages(name, "a")[number - 3]
                message.redact_message = user("[redacted]")
                repository.update_message(name, "a", message)

    def look() -> None:
        repository = backend.repository(backend.connect())
        for _ in range(12):
            hits = repository.search("falcon", limit=1_000)
            places = [(one.session_id, one.message_id) for one in hits]
            assert len(places) == len(set(places))

    outcomes = race([partial(write, "s"), partial(write, "t"), look, look])
    assert outcomes == [None] * 4
    assert len(backend.repository().search("falcon", limit=1_000)) == 2 * (25 - 4)
    rows = backend.raw("SELECT session_id, message_id FROM strands_message_search")
    assert len(rows) == len({(one["session_id"], one["message_id"]) for one in rows}) == 50
