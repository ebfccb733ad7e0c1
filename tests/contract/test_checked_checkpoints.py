"""Checks of checkpoints, and of histories of which truncations have removed a part."""

import io
from typing import Any

import pytest
from strands import Agent

from strands_persql import LocalDatabase
from strands_persql.admin import SessionAdmin
from strands_persql.testing import ToolCall
from tests.contract.agents import Scene, manager_of, memory, unmanaged
from tests.contract.test_archives import exported
from tests.contract.test_checks import found, kinds, repaired
from tests.support.backends import Backend
from tests.support.conversation import said


def talked(backend: Backend) -> tuple[Scene, Agent, list[Any]]:
    """Let an agent have three turns, with a checkpoint behind each."""
    scene = Scene(backend, make=unmanaged)
    agent = scene.open(ToolCall("count"), "counted")
    points = []
    for text in ("one", "two", "three"):
        agent(text)
        points.append(manager_of(agent).checkpoint(agent, f"after {text}"))
    return scene, agent, points


def test_nothing_is_found_of_whole_checkpoints(backend: Backend) -> None:
    """Whatever has become of what they refer to: trims, moves, rewinds, redactions."""
    scene, agent, points = talked(backend)
    manager_of(agent).rewind(agent, points[0])
    agent("another way")
    other = scene.open()
    other("beside")
    agent.messages[0]["content"] = [{"text": "edited"}]
    agent("on")
    assert found(backend) == []


@pytest.mark.parametrize("is_continued", [False, True])
def test_a_turn_of_which_a_part_was_truncated_is_no_hole(
    backend: Backend, is_continued: bool
) -> None:
    """The gap is known, also after the turn has moved and in a copy; another gap is a hole."""
    scene, agent, _ = talked(backend)
    agent.model = scene.model(ToolCall("count"), "a bad answer", "a better answer", "and more")
    agent("count again")
    manager = manager_of(agent)
    manager.rewind(agent, agent.messages[-4])
    agent(None)
    assert manager.truncate(agent) == 3
    ids = [row["message_id"] for row in scene.rows()]
    assert ids != [*range(len(ids))]
    if is_continued:
        scene.open()("beside")
        manager.rewind(agent, agent.messages[-2])
        agent(None)
    assert found(backend) == []
    fresh = scene.open()
    assert said(fresh.messages)[:-1] == said(agent.messages)[: len(fresh.messages) - 1]

    with LocalDatabase() as copy:
        admin = SessionAdmin(copy)
        admin.import_archive(io.BytesIO(exported(backend)))
        assert [*admin.check()] == []
    backend.repository().fork_session("s", "fork")
    assert found(backend) == []
    backend.raw("DELETE FROM strands_messages WHERE session_id = 's' AND message_id = 1")
    assert ("hole", 0) in kinds(found(backend))


@pytest.mark.parametrize(
    ("column", "value"), [("data", "{torn"), ("view", "3"), ("turns", '["x"]'), ("newest_id", "x")]
)
def test_a_checkpoint_that_cant_be_read_is_deleted(
    backend: Backend, column: str, value: Any
) -> None:
    """It is named, and goes, alone."""
    scene, agent, points = talked(backend)
    backend.raw(
        f"UPDATE strands_checkpoints SET {column} = ? WHERE checkpoint_id = ?",
        value,
        points[1].checkpoint_id,
    )
    (finding,) = found(backend)
    assert (finding.kind, finding.agent_id) == ("checkpoint", "a")
    assert points[1].checkpoint_id in finding.what
    assert f"its column '{column}' is misshapen" in finding.what
    assert finding.repair == "delete the checkpoint"
    assert repaired(backend) == []
    assert manager_of(agent).checkpoints(agent) == [points[0], points[2]]
    scene.check(agent)


def test_a_checkpoint_that_has_lost_messages(backend: Backend) -> None:
    """It is named with what is missing of it; those that have theirs stay."""
    _, agent, points = talked(backend)
    backend.raw("DELETE FROM strands_messages WHERE message_id >= 6")
    backend.raw("UPDATE strands_agents SET window_start = 0")

    (finding,) = found(backend)

    assert finding.what == (
        f"checkpoint '{points[2].checkpoint_id}' (after three) refers to the messages 6 to 7 of"
        " then, and not all of that is there"
    )
    assert repaired(backend) == []
    assert manager_of(agent).checkpoints(agent) == points[:2]


def test_what_an_agent_went_back_behind_cant_be_read(backend: Backend) -> None:
    """It is forgotten, and nothing else changes."""
    scene, agent, _ = talked(backend)
    manager_of(agent).rewind(agent, 1)
    held = memory(agent)
    backend.raw("UPDATE strands_checkpoints SET rewound = '{torn' WHERE checkpoint_id = ''")

    assert kinds(found(backend)) == [("checkpoint", None)]
    assert repaired(backend) == []
    assert memory(scene.open()) == held
    assert backend.repository().truncate_session("s", "a") == 0


def test_many_checkpoints_are_read_page_by_page(backend: Backend) -> None:
    """Each of them is looked at."""
    talked(backend)
    backend.raw(
        "INSERT INTO strands_checkpoints (session_id, agent_id, checkpoint_id, data, version,"
        " label, view, turns, newest_id) WITH RECURSIVE n(i) AS"
        " (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 600)"
        " SELECT session_id, agent_id, checkpoint_id || i, data, version, label, view, turns,"
        " newest_id FROM strands_checkpoints CROSS JOIN n WHERE label = 'after one'"
    )
    assert found(backend) == []
    backend.raw("UPDATE strands_checkpoints SET view = '3'")
    assert len(found(backend)) == 603
