"""Owners: nobody sees or changes another one's sessions, whatever the ids."""

import io
import re
from collections.abc import Sequence
from typing import Any

import pytest

from strands_persql import (
    Checkpoint,
    LocalDatabase,
    PerSQLSessionManager,
    PerSQLSessionRepository,
    SessionCache,
    Statement,
)
from strands_persql.admin import SessionAdmin
from strands_persql.testing import CountingDatabase, InterceptingDatabase
from tests.contract.owners import (
    ADMIN,
    ATTEMPTS,
    HARMLESS,
    MANAGER,
    REPOSITORY,
    SCOPE,
    TABLES,
    WORDS,
    Attempt,
    alices,
    methods,
    opened,
    rows_of_others,
    tells,
    tried,
)
from tests.support.backends import FAST, Backend
from tests.support.backends import opened as opened_backend
from tests.support.conversation import said, session, session_agent, session_message

IDS = ["x", f"{SCOPE}x", "@bob~x", "%", "X", "@alice~", "import", "x\U0010ffff"]


def checkpoint_of(repository: PerSQLSessionRepository) -> Any:
    """Return Alice's checkpoint, which has leaked."""
    (checkpoint,) = repository.for_owner("alice").list_checkpoints("x")
    return checkpoint


@pytest.mark.guarantee(number=23)
def test_every_public_method_is_tried() -> None:
    """A method that is new is tried by the attacker, or said to be about no session."""
    for cls, tries in (
        (PerSQLSessionRepository, REPOSITORY),
        (PerSQLSessionManager, MANAGER),
        (SessionAdmin, ADMIN),
    ):
        assert methods(cls) - HARMLESS.keys() == tries.keys()


@pytest.mark.guarantee(number=23)
@pytest.mark.parametrize("is_warm", [False, True], ids=["cold", "warm"])
def test_an_attacker_neither_sees_nor_touches_anything(backend: Backend, is_warm: bool) -> None:
    """Whatever Bob calls with whatever ids tells nothing of Alice's session and leaves it."""
    repository = backend.repository(max_staleness=3600.0)
    alices(repository)
    checkpoint, before = checkpoint_of(repository), rows_of_others(backend)
    assert all(before.values())
    for name, call in ATTEMPTS.items():
        for session_id in IDS:
            if is_warm:
                alice = repository.for_owner("alice")
                assert alice.read_session("x") is not None
                assert alice.list_messages("x", "a")
            else:
                repository = backend.repository()
            bob = repository.for_owner("bob")
            found = tried(call, Attempt(bob, session_id, checkpoint))
            assert not tells(found), (name, session_id)
        assert rows_of_others(backend) == before, name
    assert said(
        opened(PerSQLSessionManager("x", repository=repository.for_owner("alice"))).messages
    )


def outcomes(name: str, owner: str) -> list[Any]:
    """Return how a call ends for an owner where Alice has a session and where not, and her rows."""
    leaked = Checkpoint("x", "a", "0123456789abcdef", "", "", 1)
    found: list[Any] = []
    for has_alice in (True, False):
        with opened_backend("memory") as backend:
            repository = backend.repository()
            repository.setup()
            if has_alice:
                alices(repository)
            before = rows_of_others(backend)
            attempts = [Attempt(repository.for_owner(owner), one, leaked) for one in IDS]
            ends = [masked(tried(ATTEMPTS[name], one)) for one in attempts]
            found += [ends, rows_of_others(backend) == before]
    return found


def masked(found: Any) -> str:
    """Return an answer without what is made anew each time: ids, times and addresses."""
    text = f"{type(found).__name__} {found!r}"
    return re.sub(r"\d{4}-\d\d-\d\dT[\d:.+]+|[0-9a-f-]{16,}|tmp\w+|0x[0-9a-f]+", "#", text)


@pytest.mark.guarantee(number=23)
@pytest.mark.parametrize("name", ATTEMPTS)
def test_an_attacker_learns_nothing_of_what_is_there(name: str) -> None:
    """Each call ends for Bob as it does where Alice has no session; for her it doesn't."""
    with_alice, is_untouched, without, _ = outcomes(name, "bob")
    assert with_alice == without
    assert is_untouched
    with_alice, is_untouched, without, _ = outcomes(name, "alice")
    assert with_alice != without or not is_untouched


@pytest.mark.guarantee(number=23)
@pytest.mark.parametrize("name", sorted(ATTEMPTS.keys() - {"repository.for_owner"}))
def test_each_statement_names_its_owner(name: str) -> None:
    """No statement on sessions is sent without the owner's scope among its values."""
    sent: list[Statement] = []

    def note(statements: Sequence[Statement]) -> None:
        sent.extend(statements)

    with LocalDatabase() as plain:
        database = InterceptingDatabase(plain, before=note)
        repository = PerSQLSessionRepository(database, retry=FAST)
        alices(repository)
        checkpoint = checkpoint_of(repository)
        sent.clear()
        bob = repository.for_owner("bob")
        for session_id in IDS[:3]:
            tried(ATTEMPTS[name], Attempt(bob, session_id, checkpoint))
    about_sessions = [one for one in sent if is_about_sessions(one["sql"])]
    assert about_sessions
    assert [one for one in about_sessions if "@bob~" not in str(one.get("params"))] == []


def is_about_sessions(sql: str) -> bool:
    """Whether a statement reads or writes rows of sessions, and isn't about tables."""
    names = "|".join([*TABLES, "message_search", "search_new", "search_changed"])
    makes_index = sql.startswith(("CREATE", "INSERT INTO strands_search_new")) or "rank) V" in sql
    return re.search(rf"strands_({names})\b", sql) is not None and not makes_index


def test_two_owners_may_use_the_same_id(backend: Backend) -> None:
    """Each has a session of its own under it, and one's deletion leaves the other's."""
    repository = backend.repository(max_staleness=3600.0)
    for owner in ("alice", "bob"):
        manager = PerSQLSessionManager("x", repository=repository, owner=owner)
        opened(manager, "Hello.")(f"I am {owner}")
    for owner in ("alice", "bob"):
        manager = PerSQLSessionManager("x", backend.database, owner=owner, retry=FAST)
        assert said(opened(manager).messages) == [f"I am {owner}", "Hello."]
        assert manager.session.session_id == manager.session_id == "x"
    repository.for_owner("bob").delete_session("x")
    alice = repository.for_owner("alice")
    assert [one.session_id for one in alice.list_sessions()] == ["x"]
    assert len(alice.list_messages("x", "a")) == 2
    assert repository.for_owner("bob").list_sessions() == []


@pytest.mark.guarantee(number=23)
@pytest.mark.parametrize(
    ("owner", "other"),
    [
        ("al", "alice"),
        ("alice", "Alice"),
        ("a~b", "a"),
        ("@a", "a"),
        ("a%7Eb", "a~b"),
        ("a/b", "a"),
    ],
)
def test_no_owner_is_within_another(owner: str, other: str, backend: Backend) -> None:
    """Whatever owners are called, none sees another's sessions."""
    repository = backend.repository()
    ids = ["x", "b~x", "~x", f"@{other}~x", f"{other}~x", "@~x"]
    for session_id in ids:
        repository.for_owner(owner).create_session(session(session_id))
    assert repository.for_owner(other).list_sessions() == []
    assert SessionAdmin(backend.database, owner=other).list_sessions().items == []
    found = repository.for_owner(owner).list_sessions()
    assert [one.session_id for one in found] == sorted(ids)
    assert [repository.for_owner(other).read_session(one) for one in ids] == [None] * len(ids)
    for one in ids:
        repository.for_owner(other).create_session(session(one))
        assert repository.for_owner(owner).read_session(one) is not None


@pytest.mark.parametrize("owner", ["", None, 7, "a\0", "\ud800"])
def test_an_owner_is_text(owner: Any) -> None:
    """What can't be an owner is refused before anything is sent; no owner at all isn't one."""
    with LocalDatabase() as database:
        repository = PerSQLSessionRepository(database)
        with pytest.raises(ValueError, match="owner="):
            repository.for_owner(owner)
        if owner is not None:
            with pytest.raises(ValueError, match="owner="):
                PerSQLSessionRepository(database, owner=owner)
            with pytest.raises(ValueError, match="owner="):
                PerSQLSessionManager("x", database, owner=owner)
            with pytest.raises(ValueError, match="owner="):
                SessionAdmin(database, owner=owner)


def test_a_narrowed_repository_is_not_widened() -> None:
    """It can't be made another owner's, by a manager neither; its own again it may."""
    with LocalDatabase() as database:
        alice = PerSQLSessionRepository(database, owner="alice")
        assert alice.for_owner("alice").owner == alice.as_read_only().owner == "alice"
        with pytest.raises(ValueError, match="another owner's"):
            alice.for_owner("bob")
        with pytest.raises(ValueError, match="another owner's"):
            PerSQLSessionManager("x", repository=alice, owner="bob")
        assert "owner='alice'" in repr(alice)
        assert "owner='alice'" in repr(SessionAdmin(database, owner="alice"))


def test_who_may_see_all_sees_whose_they_are(backend: Backend) -> None:
    """Without an owner each session has its id in the database, and the catalogue says whose."""
    repository = backend.repository()
    repository.create_session(session("plain"))
    repository.for_owner("al~ice").create_session(session("x"))
    repository.for_owner("al~ice").create_agent("x", session_agent())
    found = SessionAdmin(backend.database).list_sessions().items
    assert [(one.session_id, one.owner) for one in found] == [
        ("@al%7Eice~x", "al~ice"),
        ("plain", None),
    ]
    assert repository.read_session("@al%7Eice~x") is not None
    repository.create_message("@al%7Eice~x", "a", session_message("from the operator", 0))
    assert len(repository.for_owner("al~ice").list_messages("x", "a")) == 1
    own = SessionAdmin(backend.database, owner="al~ice").list_sessions().items
    assert [(one.session_id, one.owner) for one in own] == [("x", "al~ice")]


def test_the_cache_serves_each_owner_its_own() -> None:
    """Repositories of owners are made anew for each request, and find what the last one left."""
    with LocalDatabase() as plain:
        counted = CountingDatabase(plain)
        cache = SessionCache()
        repository = PerSQLSessionRepository(counted, cache=cache, max_staleness=3600.0)
        for owner in ("alice", "bob"):
            opened(PerSQLSessionManager("x", repository=repository, owner=owner), "Hi.")(owner)
        counted.reset()
        for owner in ("alice", "bob"):
            manager = PerSQLSessionManager("x", repository=repository, owner=owner)
            assert said(opened(manager).messages) == [owner, "Hi."]
        assert counted.round_trips == 0
        cache.forget("x")
        assert cache.current_bytes == 0


@pytest.mark.backends("file", "http")
def test_an_owner_costs_no_round_trip_and_no_row(backend: Backend) -> None:
    """A turn of an owner's is the same requests, with as many rows written."""
    written = []
    for options in ({}, {"owner": "alice"}):
        repository = backend.repository(**options)  # type: ignore[arg-type]
        agent = opened(PerSQLSessionManager("x", repository=repository), "one", "two")
        agent("hello")
        before = repository.stats()
        agent("again")
        after = repository.stats()
        written.append(
            (
                after.round_trips - before.round_trips,
                after.rows_written - before.rows_written,
            )
        )
    assert written[0] == written[1]


def test_an_archive_of_an_owner_is_not_bound_to_it(backend: Backend) -> None:
    """It has the ids that the owner knows, so it restores a session of any owner's, or of none."""
    repository = backend.repository()
    alices(repository)
    repository.delete_session("x")  # nobody's
    target = io.BytesIO()
    SessionAdmin(backend.database, owner="alice").export_archive(target)
    assert SCOPE not in target.getvalue().decode()
    for owner in ("carol", None):
        admin = SessionAdmin(backend.database, owner=owner)
        assert admin.import_archive(io.BytesIO(target.getvalue())).sessions == 1
        again = io.BytesIO()
        admin.export_archive(again, ["x"])
        assert again.getvalue() == target.getvalue()


def test_an_archive_of_all_restores_whose_they_are(backend: Backend) -> None:
    """A copy of all sessions has the owners too."""
    alices(backend.repository())
    with LocalDatabase() as other:
        SessionAdmin(other).copy_from(SessionAdmin(backend.database))
        alice = PerSQLSessionRepository(other, owner="alice")
        assert WORDS in str(alice.list_messages("x", "a"))
        assert alice.read_session("x").session_id == "x"  # type: ignore[union-attr]
