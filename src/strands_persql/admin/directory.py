"""Folders of Strands' ``FileSessionManager``, and buckets of its ``S3SessionManager`` on disk.

Both have one layout: ``session_<id>/session.json``, ``agents/agent_<id>/agent.json``,
``messages/message_<n>.json`` beside it, and ``multi_agents/multi_agent_<id>/multi_agent.json``.
"""

import json
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from strands.types.session import decode_bytes_values

from strands_persql.admin.lines import Line, SessionGoneError, SessionLines, as_json
from strands_persql.errors import InvalidDataError, NotFoundError
from strands_persql.tables.encoding import to_json

SESSION, AGENT, MESSAGE, MULTI_AGENT = "session_", "agent_", "message_", "multi_agent_"
_MESSAGE_FILE = re.compile(rf"{MESSAGE}(\d+)\.json")


class DirectorySource:
    """Sessions of a folder.

    Args:
        path: The folder that holds the sessions, or one that holds a single session.
        session_ids: Which sessions, or None for all.

    Raises:
        NotFoundError: If there is no such folder, or a session isn't in it.
    """

    def __init__(self, path: Path, session_ids: Collection[str] | None = None) -> None:
        """Look which sessions there are."""
        if not path.is_dir():
            raise NotFoundError(f"{path} isn't there, or isn't a folder")
        single = path.name.startswith(SESSION) and (path / "session.json").exists()
        folders = [path] if single else [one for one in path.iterdir() if _is_session(one)]
        found = {one.name.removeprefix(SESSION): one for one in folders}
        for one in sorted(set(session_ids or ()) - found.keys()):
            raise NotFoundError(f"session {one!r} is not in {path}", session_id=one)
        wanted = found.keys() if session_ids is None else set(session_ids)
        self._folders = {one: found[one] for one in sorted(wanted)}
        self._done = 0

    @property
    def fraction(self) -> float | None:
        """How many of the sessions have been read."""
        return self._done / len(self._folders) if self._folders else 1.0

    def sessions(self) -> Iterator[SessionLines]:
        """Go through the sessions in the order of their ids."""
        for session_id, folder in self._folders.items():
            yield _SessionFolder(session_id, folder)
            self._done += 1


def _is_session(path: Path) -> bool:
    return path.name.startswith(SESSION) and path.is_dir() and not path.is_symlink()


class _SessionFolder:
    """A session's folder."""

    def __init__(self, session_id: str, path: Path) -> None:
        self._session_id, self._path = session_id, path

    @property
    def session_id(self) -> str:
        return self._session_id

    def lines(self) -> Iterator[Line]:
        if not (self._path / "session.json").exists():
            raise SessionGoneError(f"{self._path} has no session.json", session_id=self._session_id)
        session = self._read(self._path / "session.json")
        yield self._line("session", {"session_id": self._session_id}, session)
        agents = _parts(self._path / "agents", AGENT, "agent.json")
        for agent_id, path in agents:
            yield self._line("agent", {"agent_id": agent_id}, self._read(path / "agent.json"))
        for agent_id, path in _parts(self._path / "multi_agents", MULTI_AGENT, "multi_agent.json"):
            fields = self._read(path / "multi_agent.json")
            yield self._line("multi_agent", {"multi_agent_id": agent_id}, fields)
        for agent_id, path in agents:
            for number, file in _messages(path / "messages"):
                place = {"agent_id": agent_id, "message_id": number}
                yield self._line("message", place, self._read(file))

    def _read(self, path: Path) -> dict[str, Any]:
        if path.is_symlink():
            raise self._invalid(path, "it is a symbolic link, which Strands doesn't follow either")
        try:
            value = decode_bytes_values(json.loads(path.read_text("utf-8")))
        except (OSError, ValueError, RecursionError) as error:
            raise self._invalid(path, str(error)) from error
        if not isinstance(value, dict):
            raise self._invalid(path, "it is not a JSON object")
        return value

    def _invalid(self, path: Path, why: str) -> InvalidDataError:
        return InvalidDataError(
            f"{path} can't be read: {why}; nothing of session {self._session_id!r} is used",
            session_id=self._session_id,
        )

    def _line(self, kind: Any, place: Mapping[str, Any], fields: Mapping[str, Any]) -> Line:
        head: dict[str, Any] = {"type": kind, **place, "version": 1}
        for name in ("created_at", "updated_at"):
            head[name] = fields[name] if isinstance(fields.get(name), str) else ""
        # Encoded again, because rows can express what JSON can't, such as NaN.
        data = to_json(fields, kind.replace("_", "-"), session_id=self._session_id)
        # Without window and view, an agent works with what its conversation manager has left it.
        rest = _DEFAULTS.get(kind, {})
        return Line(kind, f'{as_json({**head, **rest})[:-1]},"data":{data}}}')


# The columns that files don't have, so that a line is what an export of its row would be.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "session": {"expires_at": None, "expires_after": None},
    "agent": {"epoch": 0, "window_start": None, "view": None},
    "message": {"write_id": "", "turn": "", "claim": ""},
}


def _parts(folder: Path, prefix: str, file: str) -> list[tuple[str, Path]]:
    """Return the agents of a folder, by their ids."""
    if not folder.is_dir():
        return []
    found = [
        (path.name.removeprefix(prefix), path)
        for path in folder.iterdir()
        if path.name.startswith(prefix) and (path / file).exists() and not path.is_symlink()
    ]
    return sorted(found)


def _messages(folder: Path) -> list[tuple[int, Path]]:
    """Return the files of messages, in order."""
    if not folder.is_dir():
        return []
    found = []
    for path in folder.iterdir():
        match = _MESSAGE_FILE.fullmatch(path.name)
        if match is not None:
            found.append((int(match[1]), path))
    return sorted(found)
