"""Checkpoints, and what agents went back behind, in archives and copies of databases."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from strands import Agent

from strands_persql import LocalDatabase
from strands_persql.admin import SessionAdmin, reading, storing
from strands_persql.errors import InvalidDataError
from tests.contract.agents import Scene, manager_of, memory, sliding, unmanaged
from tests.contract.test_archives import Interrupted, exported, keeper, lines
from tests.support.backends import Backend


@pytest.fixture
def other() -> Iterator[LocalDatabase]:
    """A database to move to."""
    with LocalDatabase() as database:
        yield database


def talked(backend: Backend, session_id: str = "s") -> tuple[Agent, list[tuple[str, Any]]]:
    """Let an agent keep checkpoints, go back, and work with a part of what it said."""
    scene = Scene(backend, make=sliding(6), session_id=session_id)
    agent = scene.open()
    manager, points = manager_of(agent), []
    for number in range(6):
        agent(f"q{number}")
        agent.state.set("number", number)
        if number % 2:
            points.append((manager.checkpoint(agent, f"at {number}").checkpoint_id, memory(agent)))
    manager.rewind(agent, points[1][0])
    agent("another way")
    return agent, points


def of(backend: Backend, session_id: str = "s") -> Scene:
    """Return the session as new processes open it."""
    return Scene(backend, make=sliding(6), session_id=session_id)


def test_an_archive_has_the_checkpoints(backend: Backend) -> None:
    """They come back with their labels and their order, and are gone back to as they were."""
    agent, points = talked(backend)
    listed = backend.repository().list_checkpoints("s")
    held, archive = memory(agent), exported(backend)
    backend.repository().delete_session("s")

    report = keeper(backend).import_archive(io.BytesIO(archive))

    assert (report.sessions, report.checkpoints) == (1, 3)
    assert backend.repository().list_checkpoints("s") == listed
    again = of(backend).open()
    assert memory(again) == held
    for checkpoint_id, then in points:
        manager_of(again).rewind(again, checkpoint_id)
        assert memory(again) == then
        of(backend).check(again)
    assert [*keeper(backend).check()] == []


def test_what_was_gone_back_behind_comes_along(backend: Backend, other: LocalDatabase) -> None:
    """A truncation removes from the copy what it removes from the original."""
    talked(backend)
    archive = exported(backend)
    report = SessionAdmin(other).import_archive(io.BytesIO(archive))
    assert report.checkpoints == 3
    copy = Backend(other)
    removed = backend.repository().truncate_session("s", "a")
    assert removed > 0
    assert copy.repository().truncate_session("s", "a") == removed
    assert of(copy).transcript() == of(backend).transcript()
    assert [one.label for one in copy.repository().list_checkpoints("s")] == [
        one.label for one in backend.repository().list_checkpoints("s")
    ]


def test_the_same_session_is_known_again(backend: Backend, other: LocalDatabase) -> None:
    """An import that is repeated changes nothing; a checkpoint more makes another session."""
    agent, _ = talked(backend)
    archive = exported(backend)
    again = io.BytesIO()
    admin = SessionAdmin(other)
    admin.import_archive(io.BytesIO(archive))
    admin.export_archive(again)
    assert again.getvalue() == archive
    assert admin.import_archive(io.BytesIO(archive)).unchanged == ["s"]
    assert admin.copy_from(keeper(backend)).unchanged == ["s"]
    manager_of(agent).checkpoint(agent, "one more")
    assert admin.copy_from(keeper(backend), existing="skip").skipped == ["s"]
    report = admin.copy_from(keeper(backend), existing="replace")
    assert (report.replaced, report.checkpoints) == (["s"], 4)


@pytest.fixture
def small_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every session take many requests, out and in."""
    monkeypatch.setattr(storing, "REQUEST_BYTES", 2_000)
    monkeypatch.setattr(storing, "_STATEMENT_BYTES", 700)
    monkeypatch.setattr(storing, "_STAGED_AT_ONCE", 3)
    monkeypatch.setattr(reading, "PAGE_BYTES", 1_000)
    monkeypatch.setattr(reading, "_FIRST_PAGE_ROWS", 3)


@pytest.mark.usefixtures("small_requests")
def test_many_checkpoints_take_many_requests(backend: Backend, other: LocalDatabase) -> None:
    """However they are cut, they come back the same, and nothing is left over."""
    scene = Scene(backend, make=unmanaged)
    agent = scene.open()
    for number in range(12):
        agent(f"q{number}")
        agent.state.set("long", "x" * 200)
        manager_of(agent).checkpoint(agent, f"at {number}")
    archive = exported(backend)
    backend.database.reset()
    assert exported(backend) == archive
    assert backend.database.round_trips > 6

    admin, again = SessionAdmin(other), io.BytesIO()
    report = admin.import_archive(io.BytesIO(archive))
    admin.export_archive(again)

    assert again.getvalue() == archive
    assert report.checkpoints == 12
    assert [*admin.check()] == []
    copy = Scene(Backend(other), make=unmanaged)
    fresh = copy.open()
    assert memory(fresh) == memory(agent)
    cut = archive[: archive.index(b'"label":"at 9"')]
    admin.erase("s")
    with pytest.raises(InvalidDataError, match="cut short"):
        admin.import_archive(io.BytesIO(cut))
    left = Backend(other).dump()
    assert not any(left[table] for table in left if not table.endswith("deletions"))


@pytest.mark.usefixtures("small_requests")
def test_a_checkpoint_that_is_made_meanwhile_is_left_out(backend: Backend) -> None:
    """An archive has the checkpoints of the moment that it has the session of."""
    agent, _ = talked(backend)
    before = exported(backend)

    def keep() -> None:
        agent("late")
        manager_of(agent).checkpoint(agent, "late")

    target = io.BytesIO()
    SessionAdmin(Interrupted(backend.database, 4, keep)).export_archive(target)

    assert target.getvalue() == before


def test_an_archive_of_version_1_is_read(backend: Backend, other: LocalDatabase) -> None:
    """It has no checkpoints, and its last lines don't count them."""
    scene = Scene(backend, make=unmanaged)
    agent = scene.open()
    agent("hello")
    head, *rest = lines(exported(backend))
    old = [{**head, "version": 1}, *({**one} for one in rest)]
    for one in old:
        one.pop("checkpoints", None)
    parts = exported(backend).decode().splitlines()
    text = [json.dumps(old[0]), *parts[1:-2], *map(json.dumps, old[-2:])]

    report = SessionAdmin(other).import_archive(io.BytesIO("\n".join([*text, ""]).encode()))

    assert (report.sessions, report.messages, report.checkpoints) == (1, 2, 0)
    assert SessionAdmin(other).import_archive(io.BytesIO(exported(backend))).unchanged == ["s"]


def test_an_interrupted_export_of_version_1_begins_anew(backend: Backend, tmp_path: Path) -> None:
    """What an earlier version has begun isn't continued in another format."""
    talked(backend)
    whole = exported(backend)
    (tmp_path / "all.jsonl.part").write_bytes(whole.replace(b'"version":2}', b'"version":1}', 1))

    keeper(backend).export_archive(tmp_path / "all.jsonl", resume=True)

    assert (tmp_path / "all.jsonl").read_bytes() == whole


def test_a_folder_has_no_place_for_them(backend: Backend, tmp_path: Path) -> None:
    """The report says how many were left out."""
    talked(backend)
    report = keeper(backend).export_directory(tmp_path)
    assert (report.sessions, report.checkpoints, report.left_out) == (1, 0, 3)


def test_a_checkpoint_that_cant_be_read_is_carried_along(
    backend: Backend, other: LocalDatabase
) -> None:
    """Whatever is in its row goes through, and the others can be gone back to."""
    _, points = talked(backend)
    (torn, _), (whole, held), _ = points
    backend.raw(
        "UPDATE strands_checkpoints SET data = ?, turns = ? WHERE checkpoint_id = ?",
        "{torn",
        "[[",
        torn,
    )
    archive, again = exported(backend), io.BytesIO()

    report = SessionAdmin(other).import_archive(io.BytesIO(archive))
    SessionAdmin(other).export_archive(again)

    assert (report.checkpoints, report.unreadable) == (3, 1)
    assert again.getvalue() == archive
    agent = of(Backend(other)).open()
    manager_of(agent).rewind(agent, whole)
    assert memory(agent) == held


def test_large_content_of_checkpoints_comes_along(backend: Backend, other: LocalDatabase) -> None:
    """What a checkpoint alone refers to is there after an import."""
    scene = Scene(backend, make=unmanaged)
    agent = scene.open()
    agent.state.set("large", "x" * 400_000)
    agent("one")
    checkpoint, held = manager_of(agent).checkpoint(agent), memory(agent)
    agent.state.set("large", "small")
    agent("two")

    SessionAdmin(other).import_archive(io.BytesIO(exported(backend)))

    fresh = Scene(Backend(other), make=unmanaged).open()
    manager_of(fresh).rewind(fresh, checkpoint.checkpoint_id)
    assert memory(fresh) == held
