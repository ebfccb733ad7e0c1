"""Folders of Strands' own managers: in and out, byte for byte, and restored as they would be."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError  # type: ignore[import-untyped]
from strands import ToolContext, tool
from strands.agent.conversation_manager import NullConversationManager
from strands.session.file_session_manager import FileSessionManager
from strands.session.s3_session_manager import S3SessionManager

from strands_persql import AlreadyExistsError, InvalidDataError, NotFoundError
from strands_persql.admin import SessionAdmin
from strands_persql.testing import ToolCall
from tests.contract.lived_in import LIVES, memory, new_agent, pinned, plain, trimmed
from tests.support.backends import FAST, Backend
from tests.support.conversation import Team, session_agent, stored

lives = pytest.mark.parametrize("life", LIVES)


def keeper(backend: Backend) -> SessionAdmin:
    """Look after a backend's sessions."""
    return SessionAdmin(backend.database, retry=FAST)


def tree(folder: Path) -> dict[str, bytes | None]:
    """Give all that is in a folder: its files by their paths, and None for a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


@lives
def test_a_folder_comes_back_byte_for_byte(backend: Backend, tmp_path: Path, life: str) -> None:
    """What Strands has written, imported and exported again, is the same in every file."""
    LIVES[life][0](FileSessionManager("s", str(tmp_path / "in")))

    keeper(backend).import_directory(tmp_path / "in")
    keeper(backend).export_directory(tmp_path / "out")

    assert tree(tmp_path / "out") == tree(tmp_path / "in")


@lives
def test_a_folder_is_restored_as_strands_restores_it(
    backend: Backend, tmp_path: Path, life: str
) -> None:
    """An agent that goes on in the database holds what it would hold over the folder."""
    live, conversation_manager = LIVES[life]
    live(FileSessionManager("s", str(tmp_path)))
    keeper(backend).import_directory(tmp_path)

    theirs = new_agent(FileSessionManager("s", str(tmp_path)), ["on"], conversation_manager())
    ours = new_agent(backend.manager("s"), ["on"], conversation_manager())

    assert memory(ours) == memory(theirs)
    for agent in (ours, theirs):
        agent("and?")
    again = new_agent(backend.manager("s"), [], conversation_manager())
    assert memory(again)["messages"] == memory(theirs)["messages"]


@lives
def test_strands_restores_what_was_live(backend: Backend, tmp_path: Path, life: str) -> None:
    """A session of ours, exported, is restored by Strands as it was; its order is kept."""
    live, conversation_manager = LIVES[life]
    agent = live(backend.manager("s"))

    report = keeper(backend).export_directory(tmp_path)

    theirs = new_agent(FileSessionManager("s", str(tmp_path)), ["on"], conversation_manager())
    assert memory(theirs) == memory(agent)
    assert report.rearranged == []
    theirs("and?")


def test_strands_restores_what_only_views_can_say(backend: Backend, tmp_path: Path) -> None:
    """Where an agent works with other messages than the last ones, these are put last, and said."""
    agent = pinned(backend.manager("s"))

    report = keeper(backend).export_directory(tmp_path)

    theirs = new_agent(FileSessionManager("s", str(tmp_path)), ["on"])
    assert memory(theirs)["messages"] == memory(agent)["messages"]
    assert report.rearranged == [("s", "a")]
    theirs("and?")
    assert len(new_agent(FileSessionManager("s", str(tmp_path)), []).messages) == 9


def test_an_interrupt_goes_on_after_a_move(backend: Backend, tmp_path: Path) -> None:
    """An agent that waits for an answer waits on both sides, and takes it."""

    @tool(context=True)
    def ask(tool_context: ToolContext) -> str:
        """Ask the user."""
        answer: str = tool_context.interrupt("sure", reason="really?")
        return answer

    def agent(manager: Any) -> Any:
        made = new_agent(manager, [ToolCall("ask")] if first else ["thanks"])
        made.tool_registry.register_tool(ask)
        return made

    first = True
    agent(FileSessionManager("s", str(tmp_path / "in")))("go")
    first = False
    keeper(backend).import_directory(tmp_path / "in")
    keeper(backend).export_directory(tmp_path / "out")
    assert tree(tmp_path / "out") == tree(tmp_path / "in")

    for manager in (backend.manager("s"), FileSessionManager("s", str(tmp_path / "out"))):
        again = agent(manager)
        (interrupt,) = again._interrupt_state.interrupts.values()
        answer: Any = {"interruptResponse": {"interruptId": interrupt.id, "response": "yes"}}
        assert str(again([answer])).strip() == "thanks"


def test_numbers_and_names_of_all_kinds_come_back(backend: Backend, tmp_path: Path) -> None:
    """NaN, bytes, dicts that look like envelopes, and ids of any letters are kept."""
    manager = FileSessionManager("s ö'\"", str(tmp_path / "in"))
    state: dict[str, Any] = {
        "nan": math.nan,
        "tiny": 5e-324,
        "large": 2**70,
        "ours": {"__persql__": "float", "data": "nan"},
    }
    manager.create_agent("s ö'\"", session_agent(**state))
    manager.create_multi_agent("s ö'\"", Team(n=math.inf))

    keeper(backend).import_directory(tmp_path / "in")
    keeper(backend).export_directory(tmp_path / "out")

    assert tree(tmp_path / "out") == tree(tmp_path / "in")
    found = backend.repository().read_agent("s ö'\"", "a")
    assert found is not None
    assert math.isnan(found.state["nan"])
    assert found.state["large"] == 2**70


class Bucket:
    """What `S3SessionManager` asks of a bucket."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    def client(self, **_: Any) -> "Bucket":
        return self

    def head_object(self, Bucket: str, Key: str) -> None:  # noqa: N803 - the names of S3
        if Key not in self.objects:
            raise ClientError({"Error": {"Code": "404"}}, "HeadObject")

    def get_object(self, Bucket: str, Key: str) -> dict[str, Any]:  # noqa: N803
        if Key not in self.objects:
            raise ClientError({"Error": {"Code": "NoSuchKey"}}, "GetObject")
        body = self.objects[Key]
        return {"Body": type("Body", (), {"read": lambda _: body})()}

    def put_object(self, Bucket: str, Key: str, Body: bytes, **_: Any) -> None:  # noqa: N803
        self.objects[Key] = Body

    def get_paginator(self, _: str) -> "Bucket":
        return self

    def paginate(self, Bucket: str, Prefix: str) -> list[dict[str, Any]]:  # noqa: N803
        return [{"Contents": [{"Key": key} for key in self.objects if key.startswith(Prefix)]}]


def bucket_manager(bucket: Bucket) -> S3SessionManager:
    """Open a session in a bucket."""
    session: Any = bucket
    return S3SessionManager("s", "b", prefix="all", boto_session=session)


@lives
def test_a_bucket_on_disk_is_restored_as_strands_restores_it(
    backend: Backend, tmp_path: Path, life: str
) -> None:
    """Objects of a bucket, copied to disk, are imported; what is exported is read from a bucket."""
    bucket, (live, conversation_manager) = Bucket(), LIVES[life]
    live(bucket_manager(bucket))
    for key, body in bucket.objects.items():
        path = tmp_path / "in" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
    theirs = new_agent(bucket_manager(bucket), [], conversation_manager())

    keeper(backend).import_directory(tmp_path / "in" / "all")
    keeper(backend).export_directory(tmp_path / "out" / "all")

    ours = new_agent(backend.manager("s"), [], conversation_manager())
    assert memory(ours) == memory(theirs)
    copied = tree(tmp_path / "out")
    assert {key: body for key, body in copied.items() if body is not None} == bucket.objects


def test_a_single_session_is_taken_by_its_folder(backend: Backend, tmp_path: Path) -> None:
    """The folder of one session is enough, and ids choose among several."""
    for name in ("r", "s", "t"):
        new_agent(FileSessionManager(name, str(tmp_path)), ["hi"])("hello")

    one = keeper(backend).import_directory(tmp_path / "session_r")
    two = keeper(backend).import_directory(tmp_path, ["s"])

    assert (one.sessions, two.sessions) == (1, 1)
    assert [each.session_id for each in keeper(backend).list_sessions().items] == ["r", "s"]
    with pytest.raises(NotFoundError, match="'x' is not in"):
        keeper(backend).import_directory(tmp_path, ["x"])
    with pytest.raises(NotFoundError, match="isn't there"):
        keeper(backend).import_directory(tmp_path / "nowhere")


def test_an_import_of_a_folder_can_be_repeated(backend: Backend, tmp_path: Path) -> None:
    """What is there already and the same is left as it is; what has moved on is refused."""
    trimmed(FileSessionManager("s", str(tmp_path)))
    keeper(backend).import_directory(tmp_path)

    assert keeper(backend).import_directory(tmp_path).unchanged == ["s"]
    new_agent(backend.manager("s"), ["hi"], LIVES["trimmed"][1]())("on")
    with pytest.raises(AlreadyExistsError):
        keeper(backend).import_directory(tmp_path)


@pytest.mark.parametrize("existing", ["refuse", "skip", "replace"])
def test_a_folder_is_not_overwritten_unless_that_is_asked_for(
    backend: Backend, tmp_path: Path, existing: Any
) -> None:
    """A session's folder that isn't the same is refused, skipped or replaced as a whole."""
    target = tmp_path / "out"
    repository = stored(backend, "zero")
    keeper(backend).export_directory(target)
    assert keeper(backend).export_directory(target).unchanged == ["s"]
    before = tree(target)
    repository.delete_session("s")
    stored(backend, "one", "two")

    if existing == "refuse":
        with pytest.raises(AlreadyExistsError, match="isn't the same"):
            keeper(backend).export_directory(target)
    else:
        keeper(backend).export_directory(target, existing=existing)

    assert (tree(target) == before) is (existing != "replace")
    assert [path.name for path in target.iterdir()] == ["session_s"]


def _torn(folder: Path) -> None:
    (folder / "messages" / "message_0.json").write_text("{torn")


def _no_object(folder: Path) -> None:
    (folder / "agent.json").write_text("[1]")


def _linked(folder: Path) -> None:
    file = folder / "messages" / "message_0.json"
    shutil.move(file, folder / "elsewhere.json")
    file.symlink_to(folder / "elsewhere.json")


@pytest.mark.parametrize("damage", [_torn, _no_object, _linked])
def test_a_file_that_cannot_be_read_is_named(
    backend: Backend, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    """A damaged file, or a link to elsewhere, stops its session, and nothing of it is stored."""
    plain(FileSessionManager("s", str(tmp_path)))
    damage(tmp_path / "session_s" / "agents" / "agent_a")

    with pytest.raises(InvalidDataError, match=r"\.json can't be read"):
        keeper(backend).import_directory(tmp_path)

    assert keeper(backend).list_sessions().items == []


def test_other_files_are_passed_over(backend: Backend, tmp_path: Path) -> None:
    """What Strands doesn't read in a folder isn't imported."""
    plain(FileSessionManager("s", str(tmp_path)))
    messages = tmp_path / "session_s" / "agents" / "agent_a" / "messages"
    (messages / ".strands_x.tmp").write_text("{")
    (messages / "notes.txt").write_text("mine")
    (tmp_path / "session_file").write_text("no folder")

    assert keeper(backend).import_directory(tmp_path).sessions == 1


def test_rows_that_no_folder_can_hold_are_an_error(backend: Backend, tmp_path: Path) -> None:
    """A row that can't be read, or that has no agent, is named, and no folder is left."""
    stored(backend, "zero", "one")
    backend.raw("UPDATE strands_messages SET data = '{torn' WHERE message_id = 0")
    with pytest.raises(InvalidDataError, match="repair it first"):
        keeper(backend).export_directory(tmp_path / "out")

    backend.raw("DELETE FROM strands_messages WHERE message_id = 0")
    backend.raw("DELETE FROM strands_agents")
    with pytest.raises(InvalidDataError, match="'a' that isn't there"):
        keeper(backend).export_directory(tmp_path / "out")

    assert [*(tmp_path / "out").iterdir()] == []


def test_an_agent_without_a_conversation_manager_is_exported(
    backend: Backend, tmp_path: Path
) -> None:
    """A record that says nothing of removed messages is written as it is."""
    stored(backend, "zero", n=1)

    keeper(backend).export_directory(tmp_path)

    agent = json.loads((tmp_path / "session_s/agents/agent_a/agent.json").read_text())
    assert (agent["state"], agent["conversation_manager_state"]) == ({"n": 1}, {})
    assert NullConversationManager().removed_message_count == 0
