"""commit="turn": a whole turn in one transaction at its end, however it ends."""

from typing import Any

import pytest
from strands.agent.conversation_manager import NullConversationManager

from strands_persql.testing import FaultyDatabase, Reply, ScriptedModel, ToolCall
from tests.support.backends import NEVER, Backend
from tests.support.conversation import (
    count,
    ids_in_database,
    in_database,
    said,
    state_in_database,
    user,
)
from tests.support.faults import Switch


@pytest.mark.guarantee(number=9)
@pytest.mark.guarantee(number=12)
def test_nothing_is_written_before_the_turn_ends(backend: Backend) -> None:
    """While the model is asked no row of the turn is stored, and afterwards all are, at once."""
    seen: list[list[str]] = []

    def replies(_: Any) -> Any:
        seen.append(in_database(backend))
        return ToolCall("count") if len(seen) == 1 else "done"

    agent = backend.agent(manager=backend.manager(commit="turn"), tools=[count])
    agent.model = ScriptedModel(replies)
    backend.database.reset()
    agent("go")
    assert seen == [[], []]
    assert backend.database.round_trips == 1
    assert in_database(backend) == ["go", "call count", "result 1", "done"]
    assert state_in_database(backend) == {"n": 1}


@pytest.mark.guarantee(number=12)
def test_a_turn_that_fails_half_way_is_stored(backend: Backend) -> None:
    """When the model raises, what was said until then is stored all the same."""
    agent = backend.agent(
        [ToolCall("count"), RuntimeError("no model")],
        manager=backend.manager(commit="turn"),
        tools=[count],
    )
    with pytest.raises(Exception, match="no model"):
        agent("go")
    assert in_database(backend) == ["go", "call count", "result 1"]
    assert state_in_database(backend) == {"n": 1}


def test_what_is_outside_a_turn_is_stored_at_once(backend: Backend) -> None:
    """Messages appended and tools called outside an invocation don't wait for one."""
    manager = backend.manager(commit="turn")
    agent = backend.agent(manager=manager, tools=[count])
    manager.append_message(user("one"), agent)
    assert in_database(backend) == ["one"]
    agent.tool.count()
    assert len(in_database(backend)) == len(agent.messages) + 1
    assert state_in_database(backend) == {"n": 1}


@pytest.mark.guarantee(number=12)
def test_a_turn_that_could_not_be_stored_is_flushed_by_close(backend: Backend) -> None:
    """A turn whose write failed raises, is kept, and goes out with ``close``."""
    faulty = Switch(backend.database)
    manager = backend.manager(repository=backend.repository(faulty, retry=NEVER), commit="turn")
    agent = backend.agent(["hi"], manager=manager)
    faulty.down = "lost_request"
    with pytest.raises(Exception, match="nothing was written"):
        agent("hello")
    with pytest.raises(Exception, match="nothing was written"):
        manager.close()
    faulty.down = None
    manager.close()
    manager.close()
    assert in_database(backend) == ["hello", "hi"]


@pytest.mark.guarantee(number=12)
def test_a_failed_turn_goes_out_before_the_next(backend: Backend) -> None:
    """After a lost request the next turn's write carries both turns, in order."""
    faulty = FaultyDatabase(backend.database, [None, None, "lost_request"])
    backend.repository().setup()
    manager = backend.manager(repository=backend.repository(faulty, retry=NEVER), commit="turn")
    agent = backend.agent(["1", "2"], manager=manager)
    with pytest.raises(Exception, match="nothing was written"):
        agent("q1")
    agent("q2")
    assert in_database(backend) == ["q1", "1", "q2", "2"]
    assert ids_in_database(backend) == [0, 1, 2, 3]


@pytest.mark.guarantee(number=12)
def test_a_long_turn_is_stored_in_parts(backend: Backend) -> None:
    """A turn of more messages than a transaction takes is stored whole, in order."""
    replies: list[Reply] = [*[ToolCall("count")] * 60, "done"]
    agent = backend.agent(
        replies,
        manager=backend.manager(commit="turn"),
        tools=[count],
        conversation_manager=NullConversationManager(),
    )
    agent("go")
    texts = in_database(backend)
    assert len(texts) == 122
    assert texts == said(agent.messages)
    assert state_in_database(backend) == {"n": 60}
    assert [each for each in texts if each.startswith("result")] == [
        f"result {number}" for number in range(1, 61)
    ]
