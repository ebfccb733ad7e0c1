"""Large content when requests are lost, processes die and others write: whole, or not at all."""

from collections.abc import Sequence
from functools import partial

import pytest

from strands_persql import PerSQLSessionRepository, Statement
from strands_persql.admin import SessionAdmin
from strands_persql.admin.access import Access
from strands_persql.admin.sweeping import sweep_contents
from strands_persql.errors import NotFoundError, PerSQLError, StatementError
from strands_persql.testing import Fault, InterceptingDatabase
from tests.contract.agents import both
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
from tests.support.conversation import in_database, session_agent, stored
from tests.support.faults import EVERY_FAULT, UNSURE, Switch
from tests.support.racing import race

REQUESTS = 2
"""Requests that the content below takes on its way: one ahead, and the one that stores its row."""

LARGE = text(8_900_000)


@pytest.mark.parametrize("fault", EVERY_FAULT)
@pytest.mark.parametrize("position", range(REQUESTS))
def test_a_write_that_is_tried_again_stores_it_once(
    backend: Backend, fault: Fault, position: int
) -> None:
    """Whichever request of a large write goes wrong, it is stored whole, and once."""
    stored(backend)
    switch = Switch(backend.plain)
    repository = reopened(backend, switch)
    switch.next = [*[None] * position, fault]

    repository.create_message("s", "a", message({"text": LARGE}))

    assert switch.next == []
    assert [text == LARGE for text in in_database(backend)] == [True]
    assert contents(backend) == [(9, 1)]


@both
@pytest.mark.parametrize("fault", UNSURE)
@pytest.mark.parametrize("position", range(REQUESTS))
def test_an_agent_stores_it_with_its_next_write(
    backend: Backend, fault: Fault, position: int, commit: str
) -> None:
    """A message whose write failed between its requests goes out with the next, in order."""
    switch = Switch(backend.plain)
    manager = backend.manager(repository=backend.repository(switch, retry=NEVER), commit=commit)
    agent = backend.agent(["one", "two", "three"], manager=manager)
    agent("zero")
    switch.next = [*[None] * position, fault]

    with pytest.raises(PerSQLError):
        agent(LARGE)
    agent("go on")

    said = in_database(backend)
    assert said.count(LARGE) == 1
    assert said[:3] == ["zero", "one", LARGE]
    assert contents(backend) == [(9, 1)]
    assert backend.agent().messages == agent.messages


def died(backend: Backend) -> PerSQLSessionRepository:
    """Let a process die after it has sent large content, and before it has stored its row."""
    repository = stored(backend)

    def die(statements: Sequence[Statement]) -> None:
        if any("INSERT INTO strands_messages" in one["sql"] for one in statements):
            raise KeyboardInterrupt

    dying = reopened(backend, InterceptingDatabase(backend.plain, before=die))
    with pytest.raises(KeyboardInterrupt):
        dying.create_message("s", "a", message({"text": LARGE}))
    assert contents(backend) == [(8, 0)]
    return repository


def sweep(backend: Backend) -> int:
    """Remove what was left behind."""
    return sweep_contents(Access(backend.plain))


def test_a_process_that_dies_leaves_what_a_sweep_removes(backend: Backend) -> None:
    """Parts that nothing refers to stay for an hour, for they may be under way, and then go."""
    repository = died(backend)
    repository.create_message("s", "a", message(image(900_000)))
    assert in_database(backend) == ["None"]

    assert sweep(backend) == 0
    assert contents(backend) == [(2, 1), (8, 0)]
    backend.raw("UPDATE strands_contents SET stored_at = stored_at - 3601")

    assert sweep(backend) == 8
    assert contents(backend) == [(2, 1)]
    assert sweep(backend) == 0
    assert blocks_of(reopened(backend)) == [image(900_000)]


def test_what_was_left_is_taken_up(backend: Backend) -> None:
    """Whoever writes the same content again uses the parts that a dead process has left."""
    repository = died(backend)

    repository.create_message("s", "a", message({"text": LARGE}))

    assert contents(backend) == [(9, 1)]
    assert blocks_of(reopened(backend)) == [{"text": LARGE}]


def test_a_sweep_goes_through_many_pages(backend: Backend) -> None:
    """Thousands of parts are looked through page by page, and only those left behind go."""
    stored(backend).create_message("s", "a", message(image(900_000)))
    backend.raw(
        "INSERT INTO strands_contents (session_id, digest, place, uses, stored_at)"
        " WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 2499)"
        " SELECT 'r' || (i % 7), printf('%064d', i), 0, i % 2, 0 FROM n"
    )

    assert sweep(backend) == 1250
    assert sum(uses for _, uses in contents(backend)) == 1251


class Between(InterceptingDatabase):
    """A database on which something happens once, right before a large write stores its row."""

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend.plain, before=self._look)
        self.happens: list[object] = []

    def _look(self, statements: Sequence[Statement]) -> None:
        is_last = any("strands_messages" in one["sql"] for one in statements)
        if is_last and self.happens:
            happens = self.happens.pop()
            assert callable(happens)
            happens()


def test_content_that_goes_in_between_is_sent_again(backend: Backend) -> None:
    """A redaction of the same document elsewhere doesn't take it from who is storing it."""
    repository = stored(backend)
    repository.create_message("s", "a", message({"text": LARGE}))
    between = Between(backend)
    writer = reopened(backend, between)
    between.happens.append(lambda: replaced(repository, 0, {"text": "[redacted]"}))

    writer.create_message("s", "a", message({"text": LARGE}, message_id=1))

    assert in_database(backend) == ["[redacted]", LARGE]
    assert contents(backend) == [(9, 1)]


def test_content_that_is_known_and_goes_is_sent_again(backend: Backend) -> None:
    """What isn't sent, for the database had it when it was last seen, is sent if it has gone."""
    repository = stored(backend)
    repository.create_message("s", "a", message(image(900_000)))
    writer = reopened(backend)
    assert blocks_of(writer) == [image(900_000)]
    replaced(repository, 0, {"text": "[redacted]"})

    writer.create_message("s", "a", message(image(900_000), message_id=1))

    assert contents(backend) == [(2, 1)]
    assert blocks_of(reopened(backend), 1) == [image(900_000)]


def test_content_that_never_arrives_stores_no_row(backend: Backend) -> None:
    """Where the parts go each time that they are sent, the write fails and nothing is stored."""
    stored(backend)

    def take_away(statements: Sequence[Statement]) -> None:
        if any("strands_messages" in one["sql"] for one in statements):
            backend.raw("DELETE FROM strands_contents WHERE place = 3")

    repository = reopened(backend)
    broken = backend.repository(InterceptingDatabase(backend.plain, before=take_away))
    assert broken.read_session("s") is not None

    with pytest.raises(StatementError):
        broken.create_message("s", "a", message({"text": LARGE}))

    assert repository.list_messages("s", "a") == []
    assert backend.raw("SELECT * FROM strands_messages") == []


def test_a_session_that_goes_in_between_stays_away(backend: Backend) -> None:
    """A write to a session that is deleted meanwhile is refused, and what it sent is swept."""
    repository = stored(backend)
    between = Between(backend)
    writer = reopened(backend, between)
    between.happens.append(lambda: repository.delete_session("s"))

    with pytest.raises(NotFoundError):
        writer.create_message("s", "a", message({"text": LARGE}))

    assert all(not rows for name, rows in backend.dump().items() if name != "contents")
    backend.raw("UPDATE strands_contents SET stored_at = 0")
    sweep(backend)
    assert contents(backend) == []


def test_two_writers_of_one_document(backend: Backend) -> None:
    """Two writers that store the same document at once have it once, counted twice."""
    stored(backend)
    writers = [reopened(backend) for _ in range(2)]
    records = [message({"text": LARGE}, message_id=number) for number in range(2)]

    outcomes = race(
        [
            partial(one.create_message, "s", "a", record)
            for one, record in zip(writers, records, strict=True)
        ]
    )

    assert outcomes == [None, None]
    assert in_database(backend) == [LARGE, LARGE]
    assert contents(backend) == [(9, 2)]


def test_merged_states_keep_their_content(backend: Backend) -> None:
    """Two writers' large values under different keys are both kept, in one agent's state."""
    stored(backend)
    one, other = reopened(backend), reopened(backend)
    for repository in (one, other):
        assert repository.read_agent("s", "a") is not None

    one.update_agent("s", session_agent(one=text(500_000, "1")))
    other.update_agent("s", session_agent(other=text(500_000, "2")))

    agent = reopened(backend).read_agent("s", "a")
    assert agent is not None
    assert agent.state == {"one": text(500_000, "1"), "other": text(500_000, "2")}
    assert contents(backend) == [(1, 1), (1, 1)]
    assert list(SessionAdmin(backend.plain).check()) == []
