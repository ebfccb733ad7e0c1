"""Rows that the hosted database reads and writes: bounded by the view, not by the history."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from strands import Agent

from strands_persql.testing import ToolCall
from tests.contract.agents import (
    Options,
    Scene,
    both,
    edit,
    needs,
    pin,
    sliding,
    unmanaged,
)
from tests.engine.engine import Engine
from tests.support import backends
from tests.support.backends import Backend
from tests.support.conversation import said

HISTORY = 10_000
TURN = 48
"""The most rows that a tool turn may read."""


@pytest.fixture
def backend(engine: Engine, database_name: str) -> Iterator[Backend]:
    """A database on the engine, which tells what it reads."""
    with backends.opened("http", engine=engine, name=database_name) as opened:
        yield opened


def fill(scene: Scene, number: int) -> None:
    """Put messages behind those of a session that nobody has open, past every manager."""
    backend = scene.backend
    rows = backend.raw("SELECT * FROM strands_messages ORDER BY message_id LIMIT 2")
    for parity, row in enumerate(rows):
        data = "json_set(json_set(data, '$.message_id', i), '$.message.content[0].text', 'm' || i)"
        made = {
            "message_id": "i",
            "data": f"json_remove({data}, '$.message.tracking_id')",
            "write_id": "'fill-' || i",
            "turn": "'fill-' || (i / 2)",
        }
        columns = ", ".join(row)
        values = ", ".join(made.get(column, column) for column in row)
        backend.raw(
            f"INSERT INTO strands_messages ({columns}) WITH RECURSIVE n(i) AS"
            f" (SELECT CAST(? AS INTEGER) UNION ALL SELECT i + 2 FROM n WHERE i < {number})"
            f" SELECT {values} FROM n, strands_messages WHERE message_id = ?",
            int(rows[-1]["message_id"]) + 1 + parity,
            row["message_id"],
        )
    backend.raw("UPDATE strands_agents SET version = version + 1, epoch = epoch + 1")


def windowed(agent: Agent) -> None:
    """Work with a window."""
    agent("q")


def pinned(agent: Agent) -> None:
    """Work with pins before the window."""
    for index in (0, 5, 100):
        pin(agent.messages, index)
    agent("q")


def edited(agent: Agent) -> None:
    """Work with a window in which messages were edited, dropped and put in."""
    agent("q")
    edit(agent.messages, 3)
    del agent.messages[6:8]
    agent.messages.insert(0, {"role": "user", "content": [{"text": "put in"}]})
    agent("q")


def summed_up(agent: Agent) -> None:
    """Work behind a summary of nearly all of it."""
    agent.messages[:-30] = [{"role": "user", "content": [{"text": "the summary"}]}]
    agent("q")


VIEWS: dict[str, tuple[Options, Callable[[Agent], None]]] = {
    "a window": (sliding(40), windowed),
    "pins": (sliding(40), pinned),
    "edits": (sliding(40), edited),
    "a summary": (unmanaged, summed_up),
}


def opened(scene: Scene, view: str) -> Any:
    """Give a repository and an agent with a view of a long history."""
    if view == "pins":
        needs("pinned messages")
    first = scene.open()
    first("hello")
    fill(scene, HISTORY)
    agent = scene.open()
    assert len(agent.messages) == HISTORY + 2
    VIEWS[view][1](agent)
    return agent


def test_an_open_reads_each_message_once(backend: Backend) -> None:
    """A restore that takes several requests reads no message twice."""
    scene = Scene(backend, "message", unmanaged)
    scene.open()("hello")
    fill(scene, 5_000)
    repository = backend.repository()

    agent = scene.open(manager=backend.manager(repository=repository))

    assert len(agent.messages) == 5_002
    assert repository.stats().rows_read <= 5_002 + 40


@both
@pytest.mark.parametrize("view", VIEWS)
def test_rows_read_beyond_a_long_history(backend: Backend, commit: str, view: str) -> None:
    """A turn and an open read a few rows beyond 10,000 messages, whatever the view is made of."""
    scene = Scene(backend, commit, VIEWS[view][0])
    agent = opened(scene, view)
    size = len(agent.messages)
    assert size < 100
    repository = backend.repository()
    manager = backend.manager(repository=repository, commit=commit)
    fresh = scene.open(manager=manager)
    assert said(fresh.messages) == said(agent.messages)
    opening = repository.stats()
    assert opening.rows_read <= 3 * size + 20
    fresh("warm up")
    for _ in range(3):
        before = repository.stats()
        fresh.model = scene.model(ToolCall("count"), "done")
        fresh("go")
        spent = repository.stats() - before
        assert spent.rows_read <= TURN
        assert spent.rows_written <= 6  # the agent's row once more where the window moves
    assert said(scene.open().messages) == said(fresh.messages)


@both
def test_a_window_that_trims_costs_nothing(backend: Backend, commit: str) -> None:
    """A tool turn whose window trims asks no more of the database than one without a window."""
    spent = []
    for number, make in enumerate((unmanaged, sliding(4))):
        scene = Scene(backend, commit, make, session_id=f"s{number}")
        repository = backend.repository()
        manager = backend.manager(scene.session_id, repository=repository, commit=commit)
        agent = scene.open(manager=manager)
        for turn in range(4):
            agent(f"q{turn}")
        before = repository.stats()
        agent.model = scene.model(ToolCall("count"), "done")
        agent("go")
        spent.append(repository.stats() - before)
        scene.check(agent)
    usual, trimming = spent
    assert trimming.round_trips <= usual.round_trips == (4 if commit == "message" else 1)
    assert usual.rows_written == 5
    assert trimming.rows_written <= usual.rows_written + 1  # the agent's row once more
    assert trimming.rows_read <= TURN


@both
def test_an_edit_writes_one_row(backend: Backend, commit: str) -> None:
    """A turn that stores an edit of one older message writes one row more than without."""
    scene = Scene(backend, commit, sliding(40))
    repository = backend.repository()
    agent = scene.open(manager=backend.manager(repository=repository, commit=commit))
    for number in range(4):
        agent(f"q{number}")
    written = []
    for edits in ((), (0,)):
        edit(agent.messages, *edits)
        before = repository.stats()
        agent("go")
        written.append((repository.stats() - before).rows_written)
    assert written[1] <= written[0] + 2
    scene.check(agent)


@both
def test_a_deletion_of_many_messages_is_one_round_trip(backend: Backend, commit: str) -> None:
    """Beginning anew beyond 10,000 messages costs what a turn costs, and an open is small then."""
    scene = Scene(backend, commit, sliding(40))
    agent = opened(scene, "a window")
    agent.messages.clear()
    backend.database.reset()
    agent("anew")
    assert backend.database.round_trips <= 2
    repository = backend.repository()
    fresh = scene.open(manager=backend.manager(repository=repository, commit=commit))
    assert said(fresh.messages) == said(agent.messages)
    assert len(fresh.messages) == 2
    assert repository.stats().rows_read <= 30
