"""Checkpoints: kept in one round trip, listed, and gone with their session."""

from typing import Any

import pytest
from strands import ToolContext, tool

from strands_persql import LocalDatabase, PerSQLSessionManager, PerSQLSessionRepository
from strands_persql.errors import AccessDeniedError, ConflictError, CorruptRowError
from strands_persql.testing import FaultyDatabase, InterceptingDatabase, Redact, ToolCall
from tests.contract.agents import Scene, both, manager_of, memory, outcome, sliding, unmanaged
from tests.support.backends import NEVER, Backend


def kept(backend: Backend) -> list[dict[str, Any]]:
    """Return the rows of all checkpoints."""
    return backend.raw("SELECT * FROM strands_checkpoints WHERE checkpoint_id <> '' ORDER BY 1, 2")


@both
def test_a_checkpoint_is_one_round_trip(backend: Backend, commit: str) -> None:
    """What has changed is stored with the checkpoint, in one request and no message of the past."""
    scene = Scene(backend, commit, unmanaged)
    agent = scene.open(ToolCall("count"))
    agent("one")
    manager = manager_of(agent)
    manager.checkpoint(agent)  # the first one makes the table where it isn't there
    agent.state.set("mood", "good")
    agent.messages[0]["metadata"] = {"custom": {"seen": True}}
    seen = len(backend.database.log)
    made = manager.checkpoint(agent, "a label")
    assert len(backend.database.log) == seen + 1
    assert (made.session_id, made.agent_id, made.label, made.messages) == ("s", "a", "a label", 4)
    scene.check(agent)
    seen = len(backend.database.log)
    manager.checkpoint(agent)
    assert len(backend.database.log) == seen + 1
    assert "one" not in str(backend.database.log[seen:])


def test_checkpoints_are_listed_in_their_order(backend: Backend) -> None:
    """All who open the session see its checkpoints, the oldest first, each agent its own."""
    scene = Scene(backend, make=unmanaged)
    agent = scene.open()
    manager = manager_of(agent)
    assert manager.checkpoints(agent) == []
    made = []
    for number in range(5):
        made.append(manager.checkpoint(agent, str(number)))
        if number % 2:
            agent(f"q{number}")
    other = Scene(backend, make=unmanaged, agent_id="b").open()
    own = manager_of(other).checkpoint(other)
    assert manager.checkpoints(agent) == made
    fresh = scene.open()
    assert manager_of(fresh).checkpoints(fresh) == made
    assert backend.repository().list_checkpoints("s") == [*made, own]
    assert backend.repository().list_checkpoints("s", "b") == [own]
    assert backend.repository().list_checkpoints("other") == []


def test_a_checkpoint_holds_no_message(backend: Backend) -> None:
    """No word of a message is in a checkpoint, so that a redaction leaves none behind."""
    scene = Scene(backend, make=sliding(6))
    agent = scene.open()
    agent("one")
    manager_of(agent).checkpoint(agent)
    agent.model = scene.model(Redact("[gone]", "Sorry."))
    agent("SECRET")
    manager_of(agent).checkpoint(agent)
    rows = kept(backend)
    assert len(rows) == 2
    assert "one" not in str(rows)
    assert "SECRET" not in str(rows)


def test_a_checkpoint_in_the_middle_of_a_turn(backend: Backend) -> None:
    """A tool may keep one: what the turn has stored so far is part of it."""
    made = []

    @tool(context=True)
    def keep(tool_context: ToolContext) -> str:
        """Keep a checkpoint."""
        agent = tool_context.agent
        made.append(manager_of(agent).checkpoint(agent))
        return "kept"

    for commit in ("message", "turn"):
        scene = Scene(backend, commit, lambda: {"tools": [keep]}, session_id=commit)
        agent = scene.open(ToolCall("keep"))
        agent("Go.")
        assert made[-1].messages == 2
        scene.check(agent)
        scene.check_rows()


@pytest.mark.backends("memory", "http")
def test_a_checkpoint_has_what_its_maker_knew(backend: Backend) -> None:
    """What others said that the agent hasn't seen is no part of its checkpoint."""
    scene = Scene(backend, make=unmanaged)
    agent = scene.open()
    agent("one")
    scene.open()("another one")
    made = manager_of(agent).checkpoint(agent)
    assert made.messages == 2


@pytest.mark.backends("memory", "http")
def test_a_checkpoint_beside_another_writer(backend: Backend) -> None:
    """A race is merged as ever, and the checkpoint has what both said."""
    scene = Scene(backend, make=unmanaged)
    agent = scene.open()
    agent("one")
    other = scene.open()
    other.state.set("theirs", 1)
    other("two")
    agent.state.set("ours", 1)
    made = manager_of(agent).checkpoint(agent)
    assert made.messages == 4
    assert kept(backend)[0]["data"].count('"theirs":1') == 1
    scene.check(agent)


@pytest.mark.backends("memory", "http")
def test_a_checkpoint_of_a_refused_writer(backend: Backend) -> None:
    """Under "raise" a writer that others came before keeps nothing, and is fenced off."""
    scene = Scene(backend, make=unmanaged)
    agent = scene.open(conflict="raise")
    agent("one")
    other = scene.open()
    other.state.set("theirs", 1)
    other("two")
    with pytest.raises(ConflictError):
        manager_of(agent).checkpoint(agent)
    assert kept(backend) == []
    with pytest.raises(ConflictError):
        manager_of(agent).checkpoint(agent)


def test_a_manager_that_only_reads_keeps_none(backend: Backend) -> None:
    """Who may only read lists checkpoints, and is refused one of its own."""
    scene = Scene(backend, make=unmanaged)
    agent = scene.open()
    made = manager_of(agent).checkpoint(agent)
    reader = PerSQLSessionManager("s", backend.database, read_only=True)
    fresh = scene.open(manager=reader)
    assert reader.checkpoints(fresh) == [made]
    with pytest.raises(AccessDeniedError, match="read only"):
        reader.checkpoint(fresh)
    assert len(kept(backend)) == 1


def test_checkpoints_are_deleted_with_their_session(backend: Backend) -> None:
    """A deleted session leaves no checkpoint to one that is made anew."""
    scene = Scene(backend, make=unmanaged)
    agent = scene.open()
    manager_of(agent).checkpoint(agent)
    backend.repository().delete_session("s")
    assert kept(backend) == []
    again = scene.open()
    assert manager_of(again).checkpoints(again) == []


@pytest.mark.backends("memory")
@pytest.mark.parametrize(
    "fault", ["lost_request", "lost_answer", "duplicate", "delayed_duplicate", "locked"]
)
@pytest.mark.parametrize("is_patient", [True, False])
def test_a_checkpoint_is_kept_once(backend: Backend, fault: Any, is_patient: bool) -> None:
    """Whatever befalls its request, a checkpoint is there once, or its maker is told."""
    faults: list[Any] = []
    faulty = FaultyDatabase(backend.database, lambda _: faults.pop(0) if faults else None)
    options = {} if is_patient else {"retry": NEVER}
    manager = backend.manager(repository=backend.repository(faulty, **options))
    scene = Scene(backend, make=unmanaged)
    agent = scene.open(manager=manager)
    agent("one")
    agent.state.set("n", 1)
    faults.append(fault)
    how = outcome(lambda: manager.checkpoint(agent, "label"))
    agent("two")
    faulty.deliver_late()
    made = [row["label"] for row in kept(backend)]
    assert made == ["label"] if how == "done" else len(made) <= 1
    scene.check(agent)


@pytest.mark.backends("memory")
def test_a_database_without_the_table(backend: Backend) -> None:
    """The table is made when it is first needed, and until then nothing asks for it."""
    scene = Scene(backend, make=unmanaged)
    agent = scene.open()
    backend.raw("DROP TABLE strands_checkpoints")
    seen = len(backend.database.log)
    agent("one")
    scene.check(agent)
    assert "checkpoints" not in str(backend.database.log[seen:])
    manager_of(agent).checkpoint(agent)
    assert len(kept(backend)) == 1


def test_tables_of_version_1_get_the_table() -> None:
    """Setup adds the table to a database of a version that had none."""
    with LocalDatabase() as database:
        repository = PerSQLSessionRepository(database)
        repository.setup()
        database.query("DROP TABLE strands_checkpoints")
        repository.setup()
        assert database.query("SELECT * FROM strands_checkpoints")["data"] == []


def test_a_list_brings_no_message_and_no_state(backend: Backend) -> None:
    """It says what each checkpoint is called, and nothing of what it holds."""
    scene = Scene(backend, make=unmanaged)
    agent = scene.open()
    agent("apples")
    agent.state.set("fruit", "pears")
    agent.messages.insert(0, {"role": "assistant", "content": [{"text": "a plum, summed up"}]})
    agent.messages.insert(0, {"role": "user", "content": [{"text": "which fruit?"}]})
    brought: list[Any] = []
    database = InterceptingDatabase(
        backend.database, after=lambda _, results: brought.append(str(results))
    )
    manager_of(agent).checkpoint(agent, "here")
    (listed,) = backend.repository(database).list_checkpoints("s")
    assert (listed.label, listed.messages) == ("here", 4)
    assert not any(word in str(brought) for word in ("apples", "pears", "plum"))


# -- rows that can't be read -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("data", "{torn"),
        ("data", "[]"),
        ("view", "3"),
        ("view", '[["a",1]]'),
        ("turns", "[[0]]"),
        ("turns", '["x"]'),
        ("rewound", "{"),
        ("newest_id", "many"),
    ],
)
def test_a_checkpoint_that_cant_be_read(
    backend: Backend, column: str, value: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It costs itself alone: it is named, and the others are listed and gone back to."""
    scene = Scene(backend, make=unmanaged)
    agent = scene.open()
    manager, points = manager_of(agent), []
    for text in ("one", "two"):
        agent(text)
        points.append((manager.checkpoint(agent, text), memory(agent)))
    agent("three")
    (torn, _), (whole, held) = points
    backend.raw(
        f"UPDATE strands_checkpoints SET {column} = ? WHERE checkpoint_id = ?",
        value,
        torn.checkpoint_id,
    )
    before = backend.dump()

    assert manager.checkpoints(agent) == [whole]
    place = f"key=<('s', 'a', '{torn.checkpoint_id}')>"
    assert f"table=<strands_checkpoints>, {place} | " in caplog.text
    repository = backend.repository()
    for call in (
        lambda: manager.rewind(agent, torn),
        lambda: repository.rewind_session("s", "a", torn.checkpoint_id),
        lambda: repository.fork_session("s", "copy", at=torn),
        lambda: repository.fork_session("s", "copy", at=torn.checkpoint_id),
    ):
        with pytest.raises(CorruptRowError, match=f"its column '{column}' is misshapen") as caught:
            call()
        assert caught.value.table == "strands_checkpoints"
        assert caught.value.key == ("s", "a", torn.checkpoint_id)
    assert backend.dump() == before
    manager.rewind(agent, whole)
    assert memory(agent) == held
    scene.check(agent)
    repository.truncate_session("s", "a")
    assert scene.transcript() == ["one", "answer 1", "two", "answer 2"]


def test_what_was_rewound_cant_be_read(backend: Backend) -> None:
    """Who goes back again writes it anew."""
    scene = Scene(backend, make=unmanaged)
    agent = scene.open()
    agent("one")
    agent("two")
    manager_of(agent).rewind(agent, 1)
    for torn in ("{torn", "3", '["x"]', '[["a"]]'):
        backend.raw("UPDATE strands_checkpoints SET rewound = ? WHERE checkpoint_id = ''", torn)
        agent("on")
        manager_of(agent).checkpoint(agent)
        manager_of(agent).rewind(agent, 1)
        assert backend.repository().truncate_session("s", "a") == 2
        agent = scene.open()
        agent("and on")
        manager_of(agent).rewind(agent, 1)
        scene.check(agent)
