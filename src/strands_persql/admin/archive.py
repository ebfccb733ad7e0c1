"""Archives: sessions as JSON Lines in one file.

The first line names the format. Each session is its lines and one that ends it, with their number
and their SHA-256; the last line of all says how many sessions there are.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from strands_persql.admin.large_lines import cant_be_read
from strands_persql.admin.lines import (
    FORMAT_VERSION,
    READ_VERSIONS,
    Digest,
    Kind,
    Line,
    SessionLines,
    TransferReport,
    as_json,
)
from strands_persql.errors import AlreadyExistsError, InvalidDataError
from strands_persql.runtime.ids import check_id

HEADER = as_json({"type": "archive", "format": "strands-persql", "version": FORMAT_VERSION})
PARTIAL = ".part"
"""What is added to an archive's name until it is complete."""

_SPOOLED = 8_000_000  # bytes of a session held in memory where it can't be taken back
_WRITTEN_TOGETHER = 100  # lines
_LARGE = 1_000_000  # bytes of a line that is written by itself
_MESSAGE = '{"type":"message",'


class ArchiveSink:
    """Writes an archive: a session that isn't read to its end leaves nothing in it.

    Args:
        file: Where to write, in binary.
        sessions: How many sessions are there already, where an archive is continued.
    """

    def __init__(self, file: BinaryIO, *, sessions: int = 0) -> None:
        """Begin an archive, or go on with one that has sessions."""
        self._file = file
        self._sessions = sessions
        if not sessions:
            self._write(HEADER)

    def store(self, session: SessionLines, report: TransferReport) -> None:
        """Write a session."""
        # A pipe takes nothing back, so a session is written once all of it has been read.
        digest, unreadable = Digest(), 0
        with tempfile.SpooledTemporaryFile(_SPOOLED) as spool:
            for some in _portions(session.lines()):
                spool.write(b"".join(map(digest.add, some)))
                unreadable += sum(map(cant_be_read, some))
            spool.seek(0)
            shutil.copyfileobj(cast("IO[bytes]", spool), self._file)
        self._write(digest.end_of(session.session_id))
        self._sessions += 1
        report.sessions += 1
        report.messages += digest.counts["message"]
        report.checkpoints += digest.counts["checkpoint"]
        report.unreadable += unreadable

    def flush(self, report: TransferReport) -> None:
        """Hand on what was written."""
        self._file.flush()

    def finish(self) -> None:
        """Write the line that ends the archive."""
        self._write(as_json({"type": "end_of_archive", "sessions": self._sessions}))
        self._file.flush()

    def _write(self, text: str) -> None:
        self._file.write(text.encode())
        self._file.write(b"\n")


def _portions(lines: Iterator[Line]) -> Iterator[list[Line]]:
    some: list[Line] = []
    for line in lines:
        some.append(line)
        if len(some) == _WRITTEN_TOGETHER or len(line.text) > _LARGE:
            yield some
            some = []
    if some:
        yield some


class ArchiveSource:
    """Sessions of an archive, each checked when it has been read to its end.

    Args:
        file: What to read, in binary.
        name: What errors call it.
        size: Its size in bytes, or None where nobody knows.

    Attributes:
        position: How many bytes have been read.
        version: The version of its format.

    Raises:
        InvalidDataError: If it isn't an archive, or one of a version that this library can't read.
    """

    def __init__(self, file: BinaryIO, name: str, size: int | None = None) -> None:
        """Read the first line."""
        self._file, self._name, self._size = file, name, size
        self._number = self.position = 0
        self.version = self._read_header()

    @property
    def fraction(self) -> float | None:
        """How much of the file has been read."""
        return None if not self._size else min(1.0, self.position / self._size)

    def sessions(self) -> Iterator[SessionLines]:
        """Go through the sessions; each is to be read before the next one.

        Raises:
            InvalidDataError: If the archive is cut short, was changed, or isn't one.
        """
        count = 0
        while True:
            text = self._next_line()
            kind, value = self._kind_of(text)
            if kind == "session":
                session = _ArchivedSession(self, self._session_id(value), Line("session", text))
                yield session
                session.skip()
                count += 1
            elif kind == "end_of_archive":
                self._check_end(count, value)
                return
            else:
                raise self.invalid(f"a line of type {kind!r} is outside of a session")

    def next_line_of_session(self) -> tuple[Line | None, Any]:
        """Return the next line of a session, or what ends it."""
        text = self._next_line()
        # Messages are most of the lines: the database takes them apart, and notices what is wrong.
        if text.startswith(_MESSAGE):
            return Line("message", text), None
        kind, value = self._kind_of(text)
        if kind == "end_of_session":
            return None, value
        if kind not in ("agent", "multi_agent", "message", "checkpoint"):
            raise self.invalid(f"a line of type {kind!r} is inside of a session")
        return Line(cast("Kind", kind), text), None

    def invalid(self, what: str) -> InvalidDataError:
        """Return the error for what is wrong at the line that was read last."""
        return InvalidDataError(f"{self._name}, line {self._number}: {what}; nothing of it is used")

    def _next_line(self) -> str:
        data = self._file.readline()
        self._number += 1
        self.position += len(data)
        if not data.endswith(b"\n"):
            raise self.invalid("the archive is cut short: its last line isn't there")
        try:
            return data[:-1].decode()
        except UnicodeDecodeError as error:
            raise self.invalid(f"it is not UTF-8 ({error})") from error

    def _kind_of(self, text: str) -> tuple[str, dict[str, Any]]:
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise self.invalid(f"it is not valid JSON ({error})") from error
        if not isinstance(value, dict) or not isinstance(value.get("type"), str):
            raise self.invalid("it is not a JSON object with a type")
        return value["type"], value

    def _session_id(self, value: dict[str, Any]) -> str:
        try:
            return check_id("session", value.get("session_id"))
        except ValueError as error:
            raise self.invalid(str(error)) from error

    def _read_header(self) -> int:
        kind, value = self._kind_of(self._next_line())
        if kind != "archive" or value.get("format") != "strands-persql":
            raise self.invalid("this is not an archive of strands-persql")
        version = value.get("version")
        if not isinstance(version, int) or version not in READ_VERSIONS:
            raise self.invalid(
                f"the archive has version {version!r} of the format, and this library reads"
                f" {READ_VERSIONS[0]} to {READ_VERSIONS[-1]}: update strands-persql"
            )
        return version

    def _check_end(self, count: int, value: dict[str, Any]) -> None:
        if value.get("sessions") != count:
            raise self.invalid(
                f"the archive was made of {value.get('sessions')!r} sessions and has {count}"
            )
        if self._file.readline():
            raise self.invalid("there is more behind the end of the archive")


class _ArchivedSession:
    """A session of an archive, which can be read once."""

    def __init__(self, archive: ArchiveSource, session_id: str, first: Line) -> None:
        self._archive, self._session_id, self._first = archive, session_id, first
        self._lines: Iterator[Line] | None = None

    @property
    def session_id(self) -> str:
        return self._session_id

    def lines(self) -> Iterator[Line]:
        if self._lines is None:
            self._lines = self._read()
        return self._lines

    def skip(self) -> None:
        """Read what is left, so that the archive is checked and continues after it."""
        for _ in self.lines():
            pass

    def _read(self) -> Iterator[Line]:
        digest = Digest()
        line: Line | None = self._first
        end = None
        while line is not None:
            digest.add(line)
            yield line
            line, end = self._archive.next_line_of_session()
        expected = json.loads(digest.end_of(self._session_id))
        if self._archive.version == 1:
            del expected["checkpoints"]
        if end != expected:
            raise self._archive.invalid(
                f"session {self._session_id!r} isn't what was exported: its lines don't have the"
                " number and the SHA-256 that its last line says"
            )


class ArchiveFile:
    """An archive's file while it is written: it has its name only once it is complete.

    Args:
        path: The archive.
        overwrite: Whether to replace a file of this name.
        resume: Whether to go on with what an interrupted export has left.

    Attributes:
        after: The last session that an interrupted export has written, or nothing.

    Raises:
        AlreadyExistsError: If there is such a file already, or an interrupted export of it.
    """

    def __init__(self, path: Path, *, overwrite: bool = False, resume: bool = False) -> None:
        """Look what is there, and open the file."""
        self._path, self._partial = path, path.with_name(path.name + PARTIAL)
        if path.exists() and not overwrite:
            raise AlreadyExistsError(
                f"{path} is there already; give another name, or overwrite it (overwrite=True, or"
                " --overwrite)"
            )
        if self._partial.exists() and not (overwrite or resume):
            raise AlreadyExistsError(
                f"an export to {path} was interrupted: resume it (resume=True, or --resume), or"
                f" delete {self._partial}"
            )
        self.after = ""
        sessions = end = 0
        if resume and self._partial.exists():
            sessions, self.after, end = _complete_sessions(self._partial)
        flags = os.O_RDWR | os.O_CREAT
        self._file = os.fdopen(os.open(self._partial, flags, 0o600), "r+b")
        self._file.truncate(end)
        self._file.seek(end)
        self.sink = ArchiveSink(self._file, sessions=sessions)

    def complete(self) -> None:
        """Give the file its name, once it is on the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._partial.replace(self._path)

    def close(self) -> None:
        """Close the file; if it isn't complete, it can be resumed."""
        self._file.close()


def _complete_sessions(path: Path) -> tuple[int, str, int]:
    """Return how many whole sessions a file has, the last one's id, and where it ends."""
    count, last, end = 0, "", 0
    with path.open("rb") as file:
        try:
            source = ArchiveSource(file, str(path))
            if source.version != FORMAT_VERSION:
                return 0, "", 0  # by an earlier version: it begins anew
            for session in source.sessions():
                for _ in session.lines():
                    pass
                count, last, end = count + 1, session.session_id, source.position
        except InvalidDataError:
            pass  # it was interrupted here
    return count, last, end
