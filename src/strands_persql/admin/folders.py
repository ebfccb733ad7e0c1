"""Writing folders that Strands' ``FileSessionManager`` restores as this library would."""

import filecmp
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from strands.types.session import encode_bytes_values

from strands_persql.admin.catalogue import view_of
from strands_persql.admin.directory import AGENT, MESSAGE, MULTI_AGENT, SESSION
from strands_persql.admin.lines import Existing, Line, SessionLines, TransferReport
from strands_persql.errors import AlreadyExistsError, InvalidDataError
from strands_persql.persistence.view import View, items_of
from strands_persql.runtime.ids import check_id
from strands_persql.tables.encoding import decoded, decoded_text

_MANAGER = "conversation_manager_state"
_NOT_COMPARED = ("tracking_id", "metadata")  # a summary gets these after it was put in the state


class DirectorySink:
    """Writes sessions as folders, each complete before it has its name.

    Args:
        path: The folder for the sessions; created where it isn't there.
        existing: What becomes of a session whose folder is there already and isn't the same.
    """

    def __init__(self, path: Path, existing: Existing = "refuse") -> None:
        """Create the folder."""
        self._path, self._existing = path, existing
        path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def store(self, session: SessionLines, report: TransferReport) -> None:
        """Write a session.

        Raises:
            AlreadyExistsError: If its folder is there already, isn't the same and may not be
                replaced.
            InvalidDataError: If a row of it can't be read: Strands could not read it either.
        """
        session_id = check_id("session", session.session_id)
        folder = Path(tempfile.mkdtemp(prefix=".strands_persql_", dir=self._path))
        try:
            written, left_out = _SessionFolder(folder, session_id), 0
            for line in session.lines():
                if line.kind == "checkpoint":
                    left_out += 1
                else:
                    written.add(line)
            rearranged = written.finish()
            self._place(folder, session_id, written.messages, report)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        report.rearranged += [(session_id, agent_id) for agent_id in rearranged]
        report.left_out += left_out

    def flush(self, report: TransferReport) -> None:
        """Do nothing: each session is there already."""

    def finish(self) -> None:
        """Do nothing: a folder has no end."""

    def _place(self, folder: Path, session_id: str, messages: int, report: TransferReport) -> None:
        target = self._path / f"{SESSION}{session_id}"
        if not target.exists():
            folder.rename(target)
        elif _are_same(filecmp.dircmp(folder, target, ignore=[])):
            report.unchanged.append(session_id)
            return
        elif self._existing == "skip":
            report.skipped.append(session_id)
            return
        elif self._existing == "refuse":
            raise AlreadyExistsError(
                f"{target} is there already, and isn't the same; skip or replace it, or write to"
                " another folder",
                session_id=session_id,
            )
        else:
            self._replace(folder, target)
            report.replaced.append(session_id)
        report.sessions += 1
        report.messages += messages

    def _replace(self, folder: Path, target: Path) -> None:
        old = Path(tempfile.mkdtemp(prefix=".strands_persql_", dir=self._path))
        try:
            target.rename(old / target.name)
            folder.rename(target)
        finally:
            shutil.rmtree(old, ignore_errors=True)


def _are_same(compared: "filecmp.dircmp[str]") -> bool:
    if compared.left_only or compared.right_only or compared.funny_files:
        return False
    _, different, errors = filecmp.cmpfiles(
        compared.left, compared.right, compared.common_files, shallow=False
    )
    return not different and not errors and all(map(_are_same, compared.subdirs.values()))


@dataclass
class _Agent:
    """An agent whose messages are being written.

    Attributes:
        folder: Its folder.
        fields: Its record.
        view: What it works with.
        updated_at: When its row was last written.
        ids: The ids of its messages so far.
    """

    folder: Path
    fields: dict[str, Any]
    view: View
    updated_at: str
    ids: list[int] = field(default_factory=list)

    def file(self, number: int) -> Path:
        return self.folder / "messages" / f"{MESSAGE}{number}.json"


class _SessionFolder:
    """Writes the files of one session."""

    def __init__(self, path: Path, session_id: str) -> None:
        self._path, self._session_id = path, session_id
        self._agents: dict[str, _Agent] = {}
        self.messages = 0
        for name in ("agents", "multi_agents"):
            (path / name).mkdir(mode=0o700)

    def add(self, line: Line) -> None:
        """Write a line's row, but for agents: their messages come first."""
        row = json.loads(line.text)
        if "unreadable" in row:
            raise InvalidDataError(
                f"a {line.kind} of session {self._session_id!r} can't be read, and a folder can't"
                " hold it: repair it first, or export an archive",
                session_id=self._session_id,
            )
        fields = decoded(row["data"], line.text)
        add: Callable[[Mapping[str, Any], dict[str, Any]], None] = {
            "session": self._add_session,
            "agent": self._add_agent,
            "multi_agent": self._add_multi_agent,
            "message": self._add_message,
        }[line.kind]
        add(row, fields)

    def _add_session(self, row: Mapping[str, Any], fields: dict[str, Any]) -> None:
        _write(self._path / "session.json", fields)

    def _add_agent(self, row: Mapping[str, Any], fields: dict[str, Any]) -> None:
        agent_id = check_id("agent", row["agent_id"])
        folder = self._path / "agents" / f"{AGENT}{agent_id}"
        (folder / "messages").mkdir(mode=0o700, parents=True)
        view = row["view"]
        head = view if isinstance(view, str | None) else json.dumps(view, ensure_ascii=False)
        seen = view_of(head, row["window_start"])
        self._agents[agent_id] = _Agent(folder, fields, seen, row["updated_at"])

    def _add_multi_agent(self, row: Mapping[str, Any], fields: dict[str, Any]) -> None:
        name = check_id("multi_agent", row["multi_agent_id"])
        folder = self._path / "multi_agents" / f"{MULTI_AGENT}{name}"
        folder.mkdir(mode=0o700)
        _write(folder / "multi_agent.json", fields)

    def _add_message(self, row: Mapping[str, Any], fields: dict[str, Any]) -> None:
        agent = self._agents.get(row["agent_id"])
        if agent is None:
            raise InvalidDataError(
                f"session {self._session_id!r} has messages of an agent {row['agent_id']!r} that"
                " isn't there, and a folder can't hold them: repair it first, or export an archive",
                session_id=self._session_id,
            )
        agent.ids.append(int(row["message_id"]))
        _write(agent.file(agent.ids[-1]), fields)
        self.messages += 1

    def finish(self) -> list[str]:
        """Write the agents, and return those whose messages had to be put in another order."""
        rearranged = []
        for agent_id, agent in self._agents.items():
            if agent.view.is_explicit and _arrange(agent):
                rearranged.append(agent_id)
            _write(agent.folder / "agent.json", agent.fields)
        return rearranged


def _arrange(agent: _Agent) -> bool:
    """Have Strands restore what an agent works with, and return whether that changes the order.

    Strands restores a summary of the conversation manager's, and then all messages but the first
    ``removed_message_count``.
    """
    manager = agent.fields.get(_MANAGER)
    if not isinstance(manager, dict) or "removed_message_count" not in manager:
        return False
    items = items_of(agent.view, agent.ids)
    # Strands puts the summary first by itself: it must not be there a second time.
    summary = manager.get("summary_message")
    if summary:
        if items and isinstance(items[0], str) and _is_same(decoded_text(items[0]), summary):
            items = items[1:]
        else:
            manager["summary_message"] = None
    removed = len(agent.ids) - len(items)
    if items == agent.ids[max(removed, 0) :]:
        manager["removed_message_count"] = removed
        return False
    # No count says this: what the agent doesn't work with goes first, in its order.
    shown = {one for one in items if not isinstance(one, str)}
    behind = [one for one in agent.ids if one not in shown]
    manager["removed_message_count"] = len(behind)
    _renumber(agent, [*behind, *items])
    return True


def _is_same(message: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return _content(message) == _content(other)


def _content(message: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in message.items() if key not in _NOT_COMPARED}


def _renumber(agent: _Agent, items: Sequence[int | str]) -> None:
    """Renumber an agent's messages: those of ids, and others that have no row."""
    old = agent.folder / "old"
    (agent.folder / "messages").rename(old)
    (agent.folder / "messages").mkdir(mode=0o700)
    for number, fields in enumerate(_records(items, old, agent.updated_at)):
        _write(agent.file(number), {**fields, "message_id": number})
    shutil.rmtree(old)


def _records(items: Sequence[int | str], folder: Path, time: str) -> Iterator[dict[str, Any]]:
    for item in items:
        if isinstance(item, str):
            yield {
                "message": decoded_text(item),
                "message_id": 0,
                "redact_message": None,
                "created_at": time,
                "updated_at": time,
            }
        else:
            text = (folder / f"{MESSAGE}{item}.json").read_text("utf-8")
            record: dict[str, Any] = json.loads(text)
            yield record


def _write(path: Path, fields: dict[str, Any]) -> None:
    """Write a file as Strands does."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as file:
        json.dump(encode_bytes_values(fields), file, indent=2, ensure_ascii=False)
