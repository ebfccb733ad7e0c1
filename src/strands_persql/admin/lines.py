"""Sessions as lines, in between where they come from and where they go.

Each line is a JSON object with its ``type`` first: the session's own line, those of its agents and
multi-agents, those of its messages in the order of agent and id, and those of its checkpoints.
"""

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol, TypeAlias

from strands_persql.errors import PerSQLError

FORMAT_VERSION = 2
"""The version of the archive's format that is written."""

READ_VERSIONS = (1, 2)
"""The versions that are read. Version 1 has no checkpoints."""

Kind: TypeAlias = Literal["session", "agent", "multi_agent", "message", "checkpoint"]

TABLES: dict[Kind, str] = {
    "message": "messages",
    "agent": "agents",
    "multi_agent": "multi_agents",
    "checkpoint": "checkpoints",
    "session": "sessions",
}
"""The table of each kind of line, in the order in which an import stores them."""

Existing: TypeAlias = Literal["refuse", "skip", "replace"]
"""What becomes of a session whose id is taken by another one: an error, nothing, or its end."""


class Line(NamedTuple):
    """A line of a session: its kind, and its JSON."""

    kind: Kind
    text: str


class SessionLines(Protocol):
    """A session to be read, as often as it takes."""

    @property
    def session_id(self) -> str:
        """The session."""

    def lines(self) -> Iterator[Line]:
        """Read its lines.

        Raises:
            HistoryChangedError: If it changed while it was read.
            SessionGoneError: If it is no longer there.
        """


class SessionSource(Protocol):
    """Where sessions come from."""

    def sessions(self) -> Iterator[SessionLines]:
        """Go through the sessions in the order of their ids."""

    @property
    def fraction(self) -> float | None:
        """How much of it has been read, from 0 to 1, or None where nobody knows."""


class SessionSink(Protocol):
    """Where sessions go: each whole, or not at all."""

    def store(self, session: SessionLines, report: "TransferReport") -> None:
        """Take a session."""

    def flush(self, report: "TransferReport") -> None:
        """Store what was taken and isn't stored yet."""

    def finish(self) -> None:
        """Note that there are no more sessions."""


class HistoryChangedError(PerSQLError):
    """A session's stored messages changed while they were read; reading again may help."""


class SessionGoneError(PerSQLError):
    """A session was deleted before it was read."""


@dataclass
class TransferReport:
    """What an export, an import or a copy has done.

    Attributes:
        sessions: Sessions that were stored.
        messages: Messages that were stored.
        checkpoints: Checkpoints that were stored.
        unchanged: Sessions that were there already, and the same.
        skipped: Sessions left alone because their ids were taken.
        replaced: Sessions that took the place of others.
        unreadable: Rows that can't be read, carried along as they are.
        rearranged: Agents whose messages are in another order, because the format can't say what
            they work with in any other way.
        left_out: Checkpoints that were left out, because the format has none.
    """

    sessions: int = 0
    messages: int = 0
    checkpoints: int = 0
    unchanged: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    unreadable: int = 0
    rearranged: list[tuple[str, str]] = field(default_factory=list)
    left_out: int = 0


@dataclass(frozen=True)
class Progress:
    """How far an export, an import or a copy is.

    Attributes:
        session_id: The session that it is at.
        sessions: Sessions so far.
        messages: Messages so far.
        fraction: How much has been read, from 0 to 1, or None where nobody knows.
    """

    session_id: str
    sessions: int
    messages: int
    fraction: float | None


OnProgress: TypeAlias = Callable[[Progress], None]

_ATTEMPTS = 5
_REPORTED_EVERY = 1_000  # messages


def transfer(
    source: SessionSource, sink: SessionSink, progress: OnProgress | None = None
) -> TransferReport:
    """Bring all sessions of a source into a sink; those before an error are stored.

    Raises:
        HistoryChangedError: If a session's history changed each time that it was read.
        PerSQLError: As source and sink say.
    """
    report, watch = TransferReport(), _Watch(source, progress)
    try:
        for session in source.sessions():
            watch.begin(session.session_id)
            with contextlib.suppress(SessionGoneError):
                _store(_Watched(session, watch), sink, report)
            watch.end()
    except PerSQLError:
        sink.flush(report)
        raise
    sink.flush(report)
    sink.finish()
    return report


def _store(session: SessionLines, sink: SessionSink, report: TransferReport) -> None:
    # A sink leaves nothing of a session that it could not read to its end.
    for _ in range(_ATTEMPTS - 1):
        with contextlib.suppress(HistoryChangedError):
            sink.store(session, report)
            return
    sink.store(session, report)


class _Watch:
    """Counts what passes, and tells."""

    def __init__(self, source: SessionSource, tell: OnProgress | None) -> None:
        self._source, self._tell = source, tell
        self._session_id = ""
        self._sessions = self._messages = 0

    def begin(self, session_id: str) -> None:
        self._session_id = session_id

    def message(self) -> None:
        self._messages += 1
        if self._messages % _REPORTED_EVERY == 0:
            self._report()

    def end(self) -> None:
        self._sessions += 1
        self._report()

    def _report(self) -> None:
        if self._tell is not None:
            self._tell(
                Progress(self._session_id, self._sessions, self._messages, self._source.fraction)
            )


class _Watched:
    """A session whose messages are counted as they are read."""

    def __init__(self, session: SessionLines, watch: _Watch) -> None:
        self._session, self._watch = session, watch

    @property
    def session_id(self) -> str:
        return self._session.session_id

    def lines(self) -> Iterator[Line]:
        for line in self._session.lines():
            if line.kind == "message":
                self._watch.message()
            yield line


class Digest:
    """The SHA-256 of lines with their ends, and how many there are of each kind."""

    def __init__(self) -> None:
        """Begin with none."""
        self._hash = hashlib.sha256()
        self.counts: dict[Kind, int] = dict.fromkeys(TABLES, 0)

    def add(self, line: Line) -> bytes:
        """Take a line, and return it as it is in a file."""
        data = f"{line.text}\n".encode()
        self._hash.update(data)
        self.counts[line.kind] += 1
        return data

    @property
    def hex(self) -> str:
        """The digest so far."""
        return self._hash.hexdigest()

    def end_of(self, session_id: str) -> str:
        """Return the line that ends a session in an archive."""
        return as_json(
            {
                "type": "end_of_session",
                "session_id": session_id,
                "agents": self.counts["agent"],
                "multi_agents": self.counts["multi_agent"],
                "messages": self.counts["message"],
                "checkpoints": self.counts["checkpoint"],
                "sha256": self.hex,
            }
        )


def digest_of(lines: Iterable[Line]) -> Digest:
    """Return the digest of lines."""
    digest = Digest()
    for line in lines:
        digest.add(line)
    return digest


def as_json(value: object) -> str:
    """Return a value as a line's JSON."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def is_unreadable(line: Line) -> bool:
    """Whether a line carries a row that can't be read."""
    return line.text.rfind(',"unreadable":"') != -1 and "unreadable" in json.loads(line.text)
