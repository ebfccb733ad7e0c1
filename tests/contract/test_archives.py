"""Archives: what is exported comes back as it was, whole or not at all."""

import io
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from strands.agent.conversation_manager import NullConversationManager

from strands_persql import (
    AlreadyExistsError,
    InvalidDataError,
    LocalDatabase,
    NotFoundError,
    PerSQLSessionManager,
    PerSQLSessionRepository,
    TooLargeError,
)
from strands_persql.admin import SessionAdmin, admin, reading, storing
from strands_persql.admin.lines import HistoryChangedError, Progress
from strands_persql.testing import CountingDatabase, FaultyDatabase
from tests.contract import test_upgrade
from tests.contract.lived_in import LIVES, memory, new_agent, pinned, plain, summarized, trimmed
from tests.support.backends import FAST, Backend
from tests.support.conversation import (
    Team,
    session,
    session_agent,
    session_message,
    stored,
    user,
)


def keeper(backend: Backend, **options: Any) -> SessionAdmin:
    """Look after a backend's sessions."""
    return SessionAdmin(backend.database, retry=FAST, **options)


def exported(backend: Backend, *session_ids: str) -> bytes:
    """Export sessions, or all of them."""
    target = io.BytesIO()
    keeper(backend).export_archive(target, session_ids or None)
    return target.getvalue()


def lines(archive: bytes) -> list[dict[str, Any]]:
    """Read an archive's lines."""
    return [json.loads(line) for line in archive.decode().splitlines()]


@pytest.fixture
def other() -> Iterator[LocalDatabase]:
    """A database to move to."""
    with LocalDatabase() as database:
        yield database


@pytest.mark.parametrize("life", [plain, trimmed, summarized, pinned], ids=lambda one: one.__name__)
def test_an_archive_restores_what_was_live(backend: Backend, life: Any) -> None:
    """An agent restored from an import holds what the live one held, and goes on."""
    live = life(backend.manager("s"))
    archive = exported(backend)
    backend.repository().delete_session("s")

    report = keeper(backend).import_archive(io.BytesIO(archive))

    _, conversation_manager = LIVES.get(life.__name__, (life, NullConversationManager))
    again = new_agent(backend.manager("s"), ["and on"], conversation_manager())
    assert memory(again) == memory(live)
    assert (report.sessions, report.messages) == (1, len(backend.raw(_MESSAGES)))
    again("go on")
    fresh = new_agent(backend.manager("s"), [], conversation_manager())
    assert memory(fresh)["messages"] == memory(again)["messages"]


_MESSAGES = "SELECT message_id FROM strands_messages"


def test_an_import_exports_the_same_bytes(backend: Backend, other: LocalDatabase) -> None:
    """The archive of an import is the archive that was imported, byte for byte."""
    for name, (life, _) in LIVES.items():
        life(backend.manager(name))
    backend.repository().create_multi_agent("plain", Team(n=1))
    archive = exported(backend)
    again = io.BytesIO()

    SessionAdmin(other).import_archive(io.BytesIO(archive))
    SessionAdmin(other).export_archive(again)

    assert again.getvalue() == archive


def test_a_late_copy_of_a_write_is_not_taken_for_one_after_an_import(backend: Backend) -> None:
    """An import is another session than the one that was deleted: its rows have other writes."""
    stored(backend, "zero")
    archive = exported(backend)
    before = backend.raw("SELECT write_id FROM strands_agents")
    backend.repository().delete_session("s")

    keeper(backend).import_archive(io.BytesIO(archive))

    assert backend.raw("SELECT write_id FROM strands_agents") != before


def test_a_cache_notices_that_a_session_was_replaced(backend: Backend) -> None:
    """A warm repository gives what was imported, though its versions are those that it knew."""
    repository = stored(backend, "zero")
    changed = exported(backend).replace(b'"zero"', b'"0000"')
    repository.read_session("s")

    keeper(backend).import_archive(io.BytesIO(_signed(changed)), existing="replace")
    repository.read_session("s")

    assert [one.to_message() for one in repository.list_messages("s", "a")] == [user("0000")]


def _signed(archive: bytes) -> bytes:
    """Make the last line of an archive's only session right again."""
    *head, end, last = archive.splitlines(keepends=True)
    value = json.loads(end)
    from hashlib import sha256  # noqa: PLC0415 - as who makes an archive elsewhere would do it

    value["sha256"] = sha256(b"".join(head[1:])).hexdigest()
    return b"".join([*head, json.dumps(value).encode(), b"\n", last])


def test_an_import_can_be_repeated(backend: Backend) -> None:
    """A session that is there already and the same is left as it is, and that is said."""
    stored(backend, "zero")
    archive = exported(backend)
    before = backend.dump()

    report = keeper(backend).import_archive(io.BytesIO(archive))

    assert (report.unchanged, report.sessions) == (["s"], 0)
    assert backend.dump() == before


def test_a_taken_id_is_refused(backend: Backend) -> None:
    """A session whose id another one has isn't stored; those beside it are."""
    for name in ("r", "s", "t"):
        stored(backend, "zero", session_id=name)
    archive = exported(backend)
    for name in ("r", "s", "t"):
        backend.repository().delete_session(name)
    stored(backend, "another")

    with pytest.raises(AlreadyExistsError, match="'s' is there already"):
        keeper(backend).import_archive(io.BytesIO(archive))

    assert _said(backend, "s") == ["another"]
    assert _said(backend, "r") == ["zero"]


def _said(backend: Backend, session_id: str, agent_id: str = "a") -> list[Any]:
    page = keeper(backend).transcript(session_id, agent_id)
    return [one.message["content"][0].get("text") for one in page.items if one.message]


def test_a_taken_id_can_be_skipped_or_replaced(backend: Backend) -> None:
    """What is there stays, or makes room as a whole, as was asked for."""
    stored(backend, "zero")
    archive = exported(backend)
    backend.repository().create_message("s", "a", session_message("one", 1))

    skipped = keeper(backend).import_archive(io.BytesIO(archive), existing="skip")
    assert (skipped.skipped, _said(backend, "s")) == (["s"], ["zero", "one"])

    replaced = keeper(backend).import_archive(io.BytesIO(archive), existing="replace")
    assert (replaced.replaced, _said(backend, "s")) == (["s"], ["zero"])


def test_rows_without_their_session_are_not_mixed_with_an_import(backend: Backend) -> None:
    """An import doesn't add to what is left of another session, unless it may replace it."""
    stored(backend, "zero")
    archive = exported(backend)
    backend.raw("DELETE FROM strands_sessions")
    backend.raw("DELETE FROM strands_agents")

    with pytest.raises(AlreadyExistsError):
        keeper(backend).import_archive(io.BytesIO(archive))
    keeper(backend).import_archive(io.BytesIO(archive), existing="replace")

    assert _said(backend, "s") == ["zero"]


@pytest.mark.parametrize("cut", [1, 40, 400, 800])
def test_an_archive_that_is_cut_short_is_refused(backend: Backend, cut: int) -> None:
    """Of a session whose lines aren't all there nothing is stored."""
    stored(backend, "zero", "one")
    archive = exported(backend)
    backend.repository().delete_session("s")

    with pytest.raises(InvalidDataError, match="line"):
        keeper(backend).import_archive(io.BytesIO(archive[:-cut]))

    ended = archive[:-cut].count(b"\n") == 6  # the session's last line is there
    assert len(backend.raw(_MESSAGES)) == (2 if ended else 0)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b'"zero"', b'"zer0"', "isn't what was exported"),
        (b'"version":2}\n', b'"version":3}\n', "update strands-persql"),
        (b"strands-persql", b"something-else", "not an archive"),
        (b'"data":{"message"', b'"data":{"message', "isn't what was exported"),
        (b'"sessions":1', b'"sessions":2', "was made of 2 sessions and has 1"),
    ],
)
def test_an_archive_that_was_changed_is_refused(
    backend: Backend, old: bytes, new: bytes, message: str
) -> None:
    """Where a byte differs the session isn't stored, and the line is named."""
    stored(backend, "zero")
    archive = exported(backend)
    assert old in archive

    with pytest.raises(InvalidDataError, match=message):
        keeper(backend).import_archive(io.BytesIO(archive.replace(old, new, 1)))


@pytest.mark.parametrize(
    "text", ["", "{}\n", "no JSON\n", "[1]\n", '{"type":"session"}\n', "\xff\n"]
)
def test_anything_else_is_not_an_archive(backend: Backend, text: str) -> None:
    """Files of other kinds are refused with a sentence."""
    with pytest.raises(InvalidDataError, match="line 1"):
        keeper(backend).import_archive(io.BytesIO(text.encode("latin-1")))


def test_a_session_id_that_no_session_may_have_is_refused(backend: Backend) -> None:
    """An archive can't bring ids in that the library refuses from its callers."""
    stored(backend, "zero")
    archive = exported(backend).replace(b'"session_id":"s"', b'"session_id":"import/s"')

    with pytest.raises(InvalidDataError, match="path separators"):
        keeper(backend).import_archive(io.BytesIO(archive))


def test_lines_made_elsewhere_are_taken(backend: Backend) -> None:
    """An archive that another program wrote, in another order and with defaults left out."""
    message = {"message": user("hi"), "message_id": 0}
    agent = {"agent_id": "a", "state": {"n": 1}, "conversation_manager_state": {}}
    body = [
        {
            "data": {"session_id": "s", "session_type": "AGENT"},
            "session_id": "s",
            "type": "session",
        },
        {"data": agent, "agent_id": "a", "type": "agent", "window_start": 0, "view": []},
        {"data": message, "message_id": 0, "agent_id": "a", "type": "message"},
    ]
    text = [json.dumps(one) for one in body]
    from hashlib import sha256  # noqa: PLC0415 - as who makes an archive elsewhere would do it

    end = {
        "type": "end_of_session",
        "session_id": "s",
        "agents": 1,
        "multi_agents": 0,
        "messages": 1,
        "sha256": sha256("".join(f"{one}\n" for one in text).encode()).hexdigest(),
    }
    head = {"type": "archive", "format": "strands-persql", "version": 1}
    ends = [end, {"type": "end_of_archive", "sessions": 1}]
    archive = "\n".join([json.dumps(head), *text, *map(json.dumps, ends), ""])

    keeper(backend).import_archive(io.BytesIO(archive.encode()))

    repository = backend.repository()
    repository.read_session("s")
    found = repository.read_agent("s", "a")
    assert found is not None
    assert (found.state, _said(backend, "s")) == ({"n": 1}, ["hi"])


def test_a_line_with_a_field_of_another_kind_is_refused(backend: Backend) -> None:
    """A message without an id is no row; nothing of its session is stored."""
    stored(backend, "zero")
    archive = exported(backend).replace(b'"message_id":0,"version"', b'"message_id":null,"version"')
    backend.repository().delete_session("s")

    with pytest.raises(InvalidDataError, match="'s' isn't what it should be"):
        keeper(backend).import_archive(io.BytesIO(_signed(archive)))

    assert backend.raw("SELECT session_id FROM strands_sessions") == []


# -- large sessions ------------------------------------------------------------------------------


@pytest.fixture
def small_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every session take many requests, out and in."""
    monkeypatch.setattr(storing, "REQUEST_BYTES", 2_000)
    monkeypatch.setattr(storing, "_STATEMENT_BYTES", 700)
    monkeypatch.setattr(storing, "_STAGED_AT_ONCE", 3)
    monkeypatch.setattr(reading, "PAGE_BYTES", 1_000)
    monkeypatch.setattr(reading, "_FIRST_PAGE_ROWS", 3)


def test_pages_leave_nothing_out(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """An archive is the same however many requests it takes to read a session."""
    stored(backend, *map(str, range(70)))
    repository = backend.repository()
    repository.create_agent("s", session_agent("b"))
    for number in range(5):
        repository.create_message("s", "b", session_message("x" * 50 * number, number))
    at_once = exported(backend)

    monkeypatch.setattr(reading, "PAGE_BYTES", 1_000)
    monkeypatch.setattr(reading, "_FIRST_PAGE_ROWS", 3)
    backend.database.reset()
    in_pages = exported(backend)

    assert in_pages == at_once
    assert backend.database.round_trips > 10


@pytest.mark.usefixtures("small_requests")
def test_a_large_session_is_stored_in_parts_and_seen_whole(
    backend: Backend, other: LocalDatabase
) -> None:
    """A session that takes many requests comes back the same, and no part of it is left over."""
    stored(backend, *map(str, range(30)))
    archive = exported(backend)
    counted = CountingDatabase(other)

    report = SessionAdmin(counted).import_archive(io.BytesIO(archive))

    again = io.BytesIO()
    SessionAdmin(other).export_archive(again)
    assert again.getvalue() == archive
    assert report.messages == 30
    assert counted.round_trips > 5
    assert [*SessionAdmin(other).check()] == []
    assert SessionAdmin(other).import_archive(io.BytesIO(archive)).unchanged == ["s"]


@pytest.mark.usefixtures("small_requests")
def test_a_large_session_that_is_cut_short_leaves_nothing(
    backend: Backend, other: LocalDatabase
) -> None:
    """What was stored of a session that isn't whole is deleted again."""
    stored(backend, *map(str, range(30)))
    archive = exported(backend)

    with pytest.raises(InvalidDataError):
        SessionAdmin(other).import_archive(io.BytesIO(archive[:-200]))

    assert other.query(_MESSAGES)["data"] == []


@pytest.mark.usefixtures("small_requests")
@pytest.mark.parametrize("existing", ["refuse", "skip", "replace"])
def test_a_large_session_meets_what_is_there(backend: Backend, existing: Any) -> None:
    """A session of many requests is refused, skipped or takes the other one's place."""
    texts = [*map(str, range(30))]
    stored(backend, *texts)
    archive = exported(backend)
    backend.repository().delete_session("s")
    stored(backend, "another")

    if existing == "refuse":
        with pytest.raises(AlreadyExistsError):
            keeper(backend).import_archive(io.BytesIO(archive))
    else:
        keeper(backend).import_archive(io.BytesIO(archive), existing=existing)

    assert _said(backend, "s") == (texts if existing == "replace" else ["another"])
    assert len(backend.raw(_MESSAGES)) == len(_said(backend, "s"))


@pytest.mark.usefixtures("small_requests")
def test_a_session_that_begins_during_its_import_wins(
    backend: Backend, other: LocalDatabase
) -> None:
    """Whoever makes a session of the same id meanwhile keeps it, whole and alone."""
    stored(backend, *map(str, range(30)))
    archive = exported(backend)
    target = SessionAdmin(other)

    def begin(progress: Progress) -> None:
        assert progress.session_id == "s"
        manager = PerSQLSessionManager("s", other)
        new_agent(manager, ["first"])("here")

    class Racing(io.BytesIO):
        def readline(self, size: int | None = -1, /) -> bytes:
            if self.tell() > len(archive) - 900 and not other.query(_SESSIONS)["data"]:
                begin(Progress("s", 0, 0, None))
            return super().readline(size)

    with pytest.raises(AlreadyExistsError):
        target.import_archive(Racing(archive))

    assert len(other.query(_MESSAGES)["data"]) == 2
    assert [*target.check()] == []


_SESSIONS = "SELECT session_id FROM strands_sessions"


@pytest.mark.usefixtures("small_requests")
@pytest.mark.parametrize("fault", ["lost_answer", "duplicate", "delayed_duplicate"])
def test_a_request_that_arrives_twice_stores_once(backend: Backend, fault: Any) -> None:
    """Imports through a network that loses answers and repeats requests are what they should be."""
    stored(backend, *map(str, range(30)))
    stored(backend, "small", session_id="t")
    archive = exported(backend)
    for name in ("s", "t"):
        backend.repository().delete_session(name)
    faulty = FaultyDatabase(backend.plain, lambda call: fault if call % 2 else None)

    SessionAdmin(faulty, retry=FAST).import_archive(io.BytesIO(archive), existing="replace")
    faulty.deliver_late()

    assert exported(backend) == archive
    assert [*keeper(backend).check()] == []


def test_a_deleted_import_is_not_brought_back(backend: Backend) -> None:
    """A late copy of an import's request finds that its session was deleted since."""
    stored(backend, "zero")
    archive = exported(backend)
    backend.repository().delete_session("s")
    keeper(backend).setup()
    faulty = FaultyDatabase(
        backend.plain, itertools.repeat("delayed_duplicate"), duplicate_after=99
    )
    SessionAdmin(faulty, retry=FAST).import_archive(io.BytesIO(archive))
    backend.repository().delete_session("s")

    faulty.deliver_late()

    assert backend.raw(_SESSIONS) == backend.raw(_MESSAGES) == []


# -- writers beside an export ----------------------------------------------------------------------


class Interrupted(CountingDatabase):
    """A database on which something happens between two requests."""

    def __init__(self, database: Any, when: int, what: Any) -> None:
        super().__init__(database)
        self.when, self.what = when, what

    def batch(self, statements: Any, /, **options: Any) -> Any:
        if self.round_trips == self.when:
            self.what()
        return super().batch(statements, **options)


@pytest.mark.usefixtures("small_requests")
def test_what_is_appended_during_an_export_is_left_out(backend: Backend) -> None:
    """An archive has a session as it was at one moment."""
    repository = stored(backend, *map(str, range(30)))
    before = exported(backend)

    def append() -> None:
        repository.create_message("s", "a", session_message("late", 30))
        repository.create_agent("s", session_agent("b"))
        repository.create_message("s", "b", session_message("late", 0))

    target = io.BytesIO()
    SessionAdmin(Interrupted(backend.database, 4, append)).export_archive(target)

    assert target.getvalue() == before


@pytest.mark.usefixtures("small_requests")
def test_what_changes_during_an_export_is_read_again(backend: Backend) -> None:
    """A session whose messages were edited while it was read is read anew, and once."""
    repository = stored(backend, *map(str, range(30)))

    def redact() -> None:
        message = repository.read_message("s", "a", 0)
        assert message is not None
        message.redact_message = user("[gone]")
        repository.update_message("s", "a", message)

    target = io.BytesIO()
    SessionAdmin(Interrupted(backend.database, 4, redact)).export_archive(target)

    assert target.getvalue() == exported(backend)


@pytest.mark.usefixtures("small_requests")
def test_a_session_deleted_during_an_export_is_left_out(backend: Backend) -> None:
    """An archive has no part of a session that was deleted while it was read."""
    repository = stored(backend, *map(str, range(30)))
    stored(backend, "zero", session_id="t")
    target = io.BytesIO()

    SessionAdmin(
        Interrupted(backend.database, 4, lambda: repository.delete_session("s"))
    ).export_archive(target)

    assert [one["session_id"] for one in lines(target.getvalue()) if one["type"] == "session"] == [
        "t"
    ]


@pytest.mark.usefixtures("small_requests")
def test_a_session_that_never_rests_is_an_error(backend: Backend) -> None:
    """Where stored messages change whenever they are read, that is said in the end."""
    stored(backend, *map(str, range(30)))

    class Restless(CountingDatabase):
        def batch(self, statements: Any, /, **options: Any) -> Any:
            backend.raw("UPDATE strands_agents SET epoch = epoch + 1")
            return super().batch(statements, **options)

    with pytest.raises(HistoryChangedError, match="try again when nobody writes to it"):
        SessionAdmin(Restless(backend.database)).export_archive(io.BytesIO())


# -- rows that can't be read, and old ones ---------------------------------------------------------


def test_rows_that_cannot_be_read_are_carried_along(backend: Backend, other: LocalDatabase) -> None:
    """A damaged row comes through an archive as it was, and is counted."""
    stored(backend, "zero", "one")
    backend.raw("UPDATE strands_messages SET data = '{torn ✂' WHERE message_id = 0")
    archive = exported(backend)

    report = SessionAdmin(other).import_archive(io.BytesIO(archive))

    rows = other.query("SELECT data FROM strands_messages ORDER BY message_id")["data"]
    assert rows[0]["data"] == "{torn ✂"
    assert json.loads(rows[1]["data"])["message"] == user("one")
    assert report.unreadable == 1


@test_upgrade.shapes
def test_tables_of_an_earlier_version_are_moved_as_they_are(
    backend: Backend, other: LocalDatabase, shape: str
) -> None:
    """Sessions of 0.1 are exported without altering a table, and restored as they would be."""
    test_upgrade.old(backend, shape, *"0123456789", removed=6)
    columns = "SELECT count(*) AS n FROM pragma_table_info('strands_messages')"
    before = backend.raw(columns)
    archive = exported(backend)
    copied = SessionAdmin(other)

    copied.copy_from(keeper(backend))

    assert backend.raw(columns) == before
    target = io.BytesIO()
    copied.export_archive(target)
    assert target.getvalue() == archive
    moved = backend.agent(manager=PerSQLSessionManager("s", other))
    stayed = backend.agent()
    assert memory(moved) == memory(stayed)
    assert PerSQLSessionRepository(other).read_multi_agent("s", "team") == {"id": "team", "n": 1}


def test_sessions_move_between_prefixes(backend: Backend) -> None:
    """Tables of another prefix take over what was stored under the first."""
    stored(backend, "zero")

    keeper(backend, table_prefix="new_").copy_from(keeper(backend))

    page = keeper(backend, table_prefix="new_").transcript("s", "a")
    assert [one.message for one in page.items] == [user("zero")]


def test_a_database_without_tables_has_nothing_to_export(backend: Backend) -> None:
    """An export reads, and makes no table."""
    archive = lines(exported(backend))

    assert [one["type"] for one in archive] == ["archive", "end_of_archive"]
    assert backend.raw("SELECT name FROM sqlite_master WHERE name LIKE 'strands%'") == []


# -- files, limits and progress --------------------------------------------------------------------


def test_a_file_has_its_name_once_it_is_complete(backend: Backend, tmp_path: Path) -> None:
    """An export that stops leaves a part, which can be gone on with, and never the name."""
    for number in range(50):
        stored(backend, "zero", session_id=f"s{number:02}")
    path = tmp_path / "all.jsonl"

    def stop(progress: Progress) -> None:
        if progress.sessions == 25:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        keeper(backend).export_archive(path, progress=stop)
    part = tmp_path / "all.jsonl.part"
    part.write_bytes(part.read_bytes()[:-30])
    assert not path.exists()
    with pytest.raises(AlreadyExistsError, match="was interrupted"):
        keeper(backend).export_archive(path)

    report = keeper(backend).export_archive(path, resume=True)

    assert path.read_bytes() == exported(backend)
    assert report.sessions == 26
    assert not part.exists()
    assert path.stat().st_mode & 0o077 == 0


def test_a_file_is_not_overwritten_unless_that_is_asked_for(
    backend: Backend, tmp_path: Path
) -> None:
    """A file that is there stays, or is replaced by a complete one."""
    stored(backend, "zero")
    path = tmp_path / "all.jsonl"
    path.write_text("mine")

    with pytest.raises(AlreadyExistsError, match="overwrite"):
        keeper(backend).export_archive(path)
    assert path.read_text() == "mine"
    keeper(backend).export_archive(path, overwrite=True)

    assert path.read_bytes() == exported(backend)


def test_sessions_that_are_asked_for_are_exported(backend: Backend, tmp_path: Path) -> None:
    """An archive has the sessions that were named, or whose ids begin as asked."""
    for name in ("ada-1", "ada-2", "ben-1"):
        stored(backend, "zero", session_id=name)
    target = io.BytesIO()
    keeper(backend).export_archive(target, starts_with="ada-")

    def names(archive: bytes) -> list[str]:
        return [one["session_id"] for one in lines(archive) if one["type"] == "session"]

    assert names(target.getvalue()) == ["ada-1", "ada-2"]
    assert names(exported(backend, "ben-1", "ada-1")) == ["ada-1", "ben-1"]
    with pytest.raises(NotFoundError, match="'cy-1'"):
        keeper(backend).export_archive(tmp_path / "x", ["cy-1"])
    with pytest.raises(NotFoundError, match="isn't there"):
        keeper(backend).import_archive(tmp_path / "nothing")


def test_requests_keep_to_the_services_limits(backend: Backend) -> None:
    """No batch has over 100 statements and no statement over 100 parameters, however it is cut."""
    for number in range(130):
        stored(backend, "x" * number, session_id=f"s{number:03}")
    backend.database.reset()
    archive = exported(backend)
    keeper(backend).import_archive(io.BytesIO(archive), existing="replace")
    keeper(backend, table_prefix="new_").import_archive(io.BytesIO(archive))
    assert [*keeper(backend).check()] == []
    keeper(backend).measure()

    sizes = [len(batch) for batch in backend.database.log]
    assert max(sizes) <= 100
    assert all(
        len(one.get("params", ())) <= 100 and len(one["sql"]) < 100_000
        for batch in backend.database.log
        for one in batch
    )
    assert backend.database.round_trips < 130


def test_a_row_that_no_row_can_hold_is_refused(backend: Backend) -> None:
    """A message beyond the target's limit is an error before anything of its session is stored."""

    class Narrow(CountingDatabase):
        @property
        def max_row_bytes(self) -> int | None:
            return 2_000

    stored(backend, "x" * 3_000)
    archive = exported(backend)
    with LocalDatabase() as local:
        narrow = SessionAdmin(Narrow(local))
        with pytest.raises(TooLargeError, match="nothing of the session"):
            narrow.import_archive(io.BytesIO(archive))
        assert local.query(_MESSAGES)["data"] == []


def test_progress_is_told(backend: Backend, tmp_path: Path) -> None:
    """Whoever asks hears of each session, and how much of a file has been read."""
    for name in ("r", "s"):
        stored(backend, "zero", session_id=name)
    told: list[Progress] = []
    path = tmp_path / "all.jsonl"

    keeper(backend).export_archive(path, progress=told.append)
    assert [(one.session_id, one.sessions, one.messages) for one in told] == [
        ("r", 1, 1),
        ("s", 2, 2),
    ]
    told.clear()
    keeper(backend).import_archive(path, progress=told.append)

    fractions = [one.fraction for one in told]
    assert None not in fractions
    assert fractions == sorted(fractions)  # type: ignore[type-var]


def test_sessions_with_nothing_in_them_are_kept(backend: Backend, other: LocalDatabase) -> None:
    """A session without agents, and an agent without messages, come through."""
    backend.repository().create_session(session("empty"))
    stored(backend, session_id="quiet")
    archive = exported(backend)
    SessionAdmin(other).import_archive(io.BytesIO(archive))
    again = io.BytesIO()
    SessionAdmin(other).export_archive(again)

    assert again.getvalue() == archive


def test_the_keeper_says_what_it_looks_after(other: LocalDatabase) -> None:
    """Its repr names the database and the tables."""
    assert repr(SessionAdmin(other)) == (
        "SessionAdmin(LocalDatabase(':memory:'), table_prefix='strands_')"
    )
    assert admin.SessionAdmin is SessionAdmin
