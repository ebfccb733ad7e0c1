"""Sweeps: what has expired is removed, some at a time, and nothing else."""

import io
from collections.abc import Sequence
from typing import Any

import pytest

from strands_persql import LocalDatabase, Statement
from strands_persql.admin import SessionAdmin, Sweep
from strands_persql.errors import NotFoundError
from strands_persql.testing import FaultyDatabase, InterceptingDatabase
from tests.contract.test_retention import KEPT, age, filled
from tests.support.backends import FAST, Backend
from tests.support.conversation import said, stored, user


def ids(backend: Backend) -> list[str]:
    """Give the sessions whose rows are there."""
    return [row["session_id"] for row in backend.dump()["sessions"]]


@pytest.mark.guarantee(number=22)
def test_a_sweep_removes_what_has_expired_and_nothing_else(backend: Backend) -> None:
    """Rows of expired sessions go from every table; others stay as they are, page by page."""
    for number in range(5):
        manager = backend.manager(f"old {number}", expires_after=KEPT)
        backend.agent(manager=manager, messages=[user(str(one)) for one in range(number)])
    filled(backend)
    age(backend, KEPT + 5)
    stored(backend, "for ever", session_id="for ever")
    for name in ("a young one", "zz young"):
        manager = backend.manager(name, expires_after=KEPT)
        backend.agent(manager=manager, messages=[user("young")])
    kept = ["a young one", "for ever", "zz young"]
    before = {
        table: [row for row in rows if row["session_id"] in kept]
        for table, rows in backend.dump().items()
    }
    seen: list[Sweep] = []
    admin = SessionAdmin(backend.plain)
    listed = {one.session_id: one.expires_in for one in admin.list_sessions().items}
    assert listed["for ever"] is None
    assert listed["s"] is not None
    assert listed["zz young"] is not None
    assert listed["s"] <= 0 < listed["zz young"] <= KEPT + 1
    assert admin.sweep(page_size=2, progress=seen.append) == Sweep(9, 6, 11) == seen[-1]
    assert len(seen) == 5
    assert backend.dump() == before
    assert admin.sweep() == Sweep(3, 0, 0)


def test_requests_of_a_sweep_are_bounded(backend: Backend) -> None:
    """No request deletes more than a page of messages a session, however many there are."""
    filled(backend)
    backend.agent(
        manager=backend.manager("long", expires_after=KEPT),
        messages=[user(str(number)) for number in range(45)],
    )
    age(backend, KEPT + 5)
    deleted: list[int] = []

    def count(statements: Sequence[Statement], results: Sequence[Any]) -> None:
        rows = [
            len(result["data"])
            for one, result in zip(statements, results, strict=True)
            if "RETURNING" in one["sql"]
        ]
        deleted.extend(rows)
        assert len(statements) <= 100

    swept = SessionAdmin(InterceptingDatabase(backend.plain, after=count)).sweep(page_size=10)
    assert swept == Sweep(2, 2, 46)
    assert max(deleted) == 10


def test_a_sweep_goes_on_where_another_was_interrupted(backend: Backend) -> None:
    """A session of which a dead sweep has left a part is nobody's, and goes with the next."""
    backend.agent(
        manager=backend.manager(expires_after=KEPT),
        messages=[user(str(number)) for number in range(9)],
    )
    age(backend, KEPT + 5)

    def die(_: Sequence[Statement]) -> None:
        if len(backend.dump()["messages"]) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        SessionAdmin(InterceptingDatabase(backend.plain, before=die)).sweep(page_size=2)
    assert len(backend.dump()["messages"]) == 5
    assert backend.repository().read_session("s") is None
    assert SessionAdmin(backend.plain).sweep() == Sweep(1, 1, 5)
    assert not any(backend.dump().values())


@pytest.mark.parametrize("fault", ["lost_request", "lost_answer", "duplicate", "delayed_duplicate"])
def test_a_sweep_that_is_repeated_removes_no_new_session(backend: Backend, fault: Any) -> None:
    """Lost, doubled and late requests of a sweep leave a session alone that was made anew."""
    filled(backend)
    age(backend, KEPT + 5)
    faulty = FaultyDatabase(backend.plain, lambda call: fault if call % 2 else None)
    SessionAdmin(faulty, retry=FAST).sweep(page_size=1)
    assert not any(backend.dump().values())
    agent = backend.agent(["hello"], manager=backend.manager(expires_after=KEPT))
    agent("hi")
    faulty.deliver_late()
    assert said(backend.agent(manager=backend.manager()).messages) == ["hi", "hello"]


def test_a_writer_beside_a_sweep_keeps_its_session_or_is_told(backend: Backend) -> None:
    """Whoever writes in time stays; whoever is too late is refused, wherever the sweep is."""
    filled(backend)
    early = backend.agent(["in time"], manager=backend.manager())
    age(backend, KEPT - 5)

    def write(_: Sequence[Statement]) -> None:
        sweeping.before = None
        early("hi")

    sweeping = InterceptingDatabase(backend.plain, before=write)
    age(backend, 1)
    assert SessionAdmin(sweeping).sweep().sessions == 0
    late = backend.agent(["too late"], manager=backend.manager())
    age(backend, KEPT + 5)

    def write_late(statements: Sequence[Statement]) -> None:
        if any("DELETE" in one["sql"] for one in statements):
            with pytest.raises(NotFoundError):
                late("hi")

    assert (
        SessionAdmin(InterceptingDatabase(backend.plain, before=write_late)).sweep().sessions == 1
    )
    assert not any(backend.dump().values())


def test_an_archive_keeps_how_long_a_session_is_kept(backend: Backend) -> None:
    """Moved, a session expires when it would have, and activity keeps it; expired ones stay out."""
    filled(backend)
    manager = backend.manager("old", expires_after=KEPT // 2)
    backend.agent(manager=manager)
    age(backend, KEPT - 20)
    source, archive = SessionAdmin(backend.plain), io.BytesIO()
    assert source.export_archive(archive).sessions == 1
    with pytest.raises(NotFoundError):
        source.export_archive(io.BytesIO(), ["old"])
    with LocalDatabase() as database:
        moved = Backend(database)
        for _ in range(2):
            archive.seek(0)
            report = SessionAdmin(database).import_archive(archive)
        assert report.unchanged == ["s"]
        age(moved, 15)
        moved.agent(["ok"], manager=moved.manager())("still here")
        age(moved, KEPT - 5)
        assert moved.repository().read_session("s") is not None
        age(moved, 10)
        assert moved.repository().read_session("s") is None


def test_a_page_holds_something(backend: Backend) -> None:
    """An empty page is refused before anything is asked."""
    with pytest.raises(ValueError, match="page_size"):
        SessionAdmin(backend.database).sweep(page_size=0)
    assert backend.database.round_trips == 0
