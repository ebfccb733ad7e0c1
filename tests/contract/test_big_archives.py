"""Large content in archives, folders, transcripts, checks and erasures: it goes along."""

import io
from pathlib import Path

import pytest

from strands_persql import LocalDatabase
from strands_persql.admin import SessionAdmin
from strands_persql.errors import AlreadyExistsError
from strands_persql.testing import CountingDatabase, InterceptingDatabase
from tests.contract.test_archives import exported, keeper
from tests.contract.test_big_content import (
    blocks_of,
    contents,
    image,
    message,
    reopened,
    replaced,
    text,
)
from tests.support.backends import NEVER, Backend
from tests.support.conversation import Team, session_message, stored


def lived_in(backend: Backend, session_id: str = "s") -> None:
    """Store a session with large content in each kind of row."""
    repository = stored(backend, session_id=session_id, file=text(500_000))
    repository.create_multi_agent(session_id, Team(result=text(400_000)))
    for number, blocks in enumerate([[image(1_500_000)], [{"text": "small"}], [image(1_500_000)]]):
        repository.create_message(session_id, "a", message(*blocks, message_id=number))
    repository.create_message(session_id, "a", message({"text": text(9_000_000)}, message_id=3))


def same(one: Backend, other: LocalDatabase) -> bool:
    """Whether another database has the same rows, but for writes and times."""
    sql = "SELECT session_id, data FROM strands_{} ORDER BY 1, 2"
    tables = ("sessions", "agents", "multi_agents", "messages")
    told = [one.raw(sql.format(table)) for table in tables]
    counted = "SELECT session_id, digest, place, data, uses FROM strands_contents ORDER BY 1, 2, 3"
    return [*told, one.raw(counted)] == [
        [dict(row) for row in other.query(each)["data"]]
        for each in [*(sql.format(table) for table in tables), counted]
    ]


def test_an_archive_has_the_large_content(backend: Backend) -> None:
    """What is imported elsewhere has all content, stored once and counted as before."""
    lived_in(backend)

    archive = exported(backend)

    assert text(9_000_000).encode() in archive
    with LocalDatabase() as other:
        report = SessionAdmin(other).import_archive(io.BytesIO(archive))
        assert (report.sessions, report.messages, report.unreadable) == (1, 4, 0)
        assert same(backend, other)
        assert exported(Backend(other)) == archive


@pytest.mark.parametrize("existing", ["refuse", "skip", "replace"])
def test_the_same_session_is_left_as_it_is(backend: Backend, existing: str) -> None:
    """A session whose large content is the same is the same; another one is told apart."""
    lived_in(backend)
    archive = exported(backend)
    before = backend.dump()

    report = keeper(backend).import_archive(io.BytesIO(archive), existing=existing)  # type: ignore[arg-type]

    assert report.unchanged == ["s"]
    assert backend.dump() == before
    replaced(reopened(backend), 0, image(1_500_000, "other"))
    if existing == "refuse":
        with pytest.raises(AlreadyExistsError):
            keeper(backend).import_archive(io.BytesIO(archive))
        return
    keeper(backend).import_archive(io.BytesIO(archive), existing=existing)  # type: ignore[arg-type]
    expected = image(1_500_000, "other" if existing == "skip" else "")
    assert blocks_of(reopened(backend)) == [expected]
    assert len(contents(backend)) == (5 if existing == "skip" else 4)


def test_an_import_that_fails_leaves_no_content(backend: Backend) -> None:
    """Content that was sent ahead of a session that isn't stored is deleted."""
    lived_in(backend)
    archive = exported(backend)
    broken = archive.replace(b'"sha256":"', b'"sha256":"0', 1)
    with LocalDatabase() as other:
        admin = SessionAdmin(other)

        with pytest.raises(Exception, match="isn't what was exported"):
            admin.import_archive(io.BytesIO(broken))

        assert other.query("SELECT * FROM strands_contents")["data"] == []
        assert other.query("SELECT * FROM strands_messages")["data"] == []


def test_lost_content_is_carried_as_lost(backend: Backend) -> None:
    """A row whose content is lost stands in no other's way, and is counted as unreadable."""
    lived_in(backend)
    backend.raw("DELETE FROM strands_contents WHERE uses = 2")

    archive = io.BytesIO()
    report = keeper(backend).export_archive(archive)

    assert report.unreadable == 2
    with LocalDatabase() as other:
        report = SessionAdmin(other).import_archive(io.BytesIO(archive.getvalue()))
        assert (report.messages, report.unreadable) == (4, 2)
        assert blocks_of(reopened(Backend(other)), 3) == [{"text": text(9_000_000)}]


def test_content_that_goes_while_it_is_exported_is_read_anew(backend: Backend) -> None:
    """An edit between the rows and their content makes the export read the session again."""
    lived_in(backend)
    writer = reopened(backend)
    edits = [0]

    def edit(statements: object) -> None:
        if edits and "strands_contents" in str(statements):
            replaced(writer, edits.pop(), {"text": "changed"})
            replaced(writer, 2, {"text": "changed too"})

    archive = io.BytesIO()
    report = SessionAdmin(InterceptingDatabase(backend.plain, before=edit)).export_archive(archive)

    assert not edits
    assert report.unreadable == 0
    assert b'"changed too"' in archive.getvalue()


def test_folders_have_the_large_content(backend: Backend, tmp_path: Path) -> None:
    """Strands' own folders take it whole, and give it back."""
    lived_in(backend)

    keeper(backend).export_directory(tmp_path / "all")

    with LocalDatabase() as other:
        SessionAdmin(other).import_directory(tmp_path / "all")
        fresh = reopened(Backend(other))
        assert blocks_of(fresh) == [image(1_500_000)]
        assert blocks_of(fresh, 3) == [{"text": text(9_000_000)}]
        agent = fresh.read_agent("s", "a")
        assert agent is not None
        assert agent.state == {"file": text(500_000)}


def test_a_transcript_has_the_large_content(backend: Backend) -> None:
    """What was said is shown whole, and what an agent remembers."""
    lived_in(backend)
    admin = keeper(backend)

    entries = admin.transcript("s", "a").items
    (agent,) = admin.list_agents("s")

    assert [entry.problem for entry in entries] == [None] * 4
    assert entries[0].message is not None
    assert entries[0].message["content"] == [image(1_500_000)]
    assert agent.state == {"file": text(500_000)}


def test_a_check_finds_what_is_missing(backend: Backend) -> None:
    """Rows whose content is missing or was altered are found; others are fine."""
    lived_in(backend)
    admin = keeper(backend)
    assert list(admin.check()) == []
    backend.raw("UPDATE strands_contents SET data = 'x' WHERE uses = 2")
    backend.raw("DELETE FROM strands_contents WHERE place = 5")

    found = list(admin.check())

    assert [(one.kind, one.message_id) for one in found] == [
        ("unreadable", 0),
        ("unreadable", 2),
        ("unreadable", 3),
    ]
    assert all("missing or was altered" in one.what for one in found)
    assert admin.repair(found) == 3
    assert list(admin.check()) == []
    assert contents(backend) == [(1, 1), (1, 1)]


def test_a_repair_keeps_the_content(backend: Backend) -> None:
    """A message with large content that is repaired has it still."""
    lived_in(backend)
    backend.raw("UPDATE strands_messages SET data = json_set(data, '$.message_id', 9)")
    admin = keeper(backend)

    assert admin.repair(list(admin.check())) == 4

    assert list(admin.check()) == []
    assert blocks_of(reopened(backend)) == [image(1_500_000)]
    assert (2, 2) in [*contents(backend), (2, 2)]


def test_an_erasure_takes_all_content(backend: Backend) -> None:
    """Nothing of an erased session is left, what interrupted imports left of it included."""
    lived_in(backend)
    archive = exported(backend)
    admin = keeper(backend)
    admin.erase("s")
    assert all(not rows for rows in backend.dump().values())
    database = CountingDatabase(backend.plain)

    def die(statements: object) -> None:
        if "SET session_id" in str(statements) or "DELETE" in str(statements):
            raise OSError("the process died here")

    dying = SessionAdmin(InterceptingDatabase(database, before=die), retry=NEVER)
    with pytest.raises(Exception, match="died here"):
        dying.import_archive(io.BytesIO(archive))
    assert contents(backend) != []

    admin.erase("s")

    assert all(not rows for rows in backend.dump().values())
    stored(backend).create_message("s", "a", session_message("anew", 0))
