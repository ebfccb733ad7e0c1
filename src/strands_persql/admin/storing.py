"""Sessions of any source, stored in a database: each whole, or not at all."""

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

from strands_persql.admin.access import Access
from strands_persql.admin.large_lines import cant_be_read, without_large_content
from strands_persql.admin.lines import (
    TABLES,
    Existing,
    Kind,
    Line,
    SessionGoneError,
    SessionLines,
    TransferReport,
    digest_of,
    is_unreadable,
)
from strands_persql.admin.pending_session import STAGED_KINDS, PendingSession
from strands_persql.admin.reading import DatabaseSession, read_together
from strands_persql.databases.protocol import Statement
from strands_persql.errors import (
    AlreadyExistsError,
    InvalidDataError,
    StatementError,
    TooLargeError,
)
from strands_persql.gateway.batch import Answer, Batch
from strands_persql.runtime.ids import check_id
from strands_persql.tables import archiving, contents, deleting, reading, retention
from strands_persql.tables.large_content import Skeleton

REQUEST_BYTES = 4_000_000
"""Bytes of lines that one request stores; a larger session takes several, and is staged."""

_STATEMENT_BYTES = 1_000_000
_STATEMENTS = 95  # of one request, within 100
_TOGETHER = 20  # sessions that one request compares with what is there, likewise
_READ_ORDER: tuple[Kind, ...] = ("session", "agent", "multi_agent", "message", "checkpoint")
_STAGED_AT_ONCE = 5_000  # messages that one request deletes


class DatabaseSink:
    """Stores sessions in a database.

    Nobody sees a part of a session: a small one is stored in one transaction. The messages of a
    larger one are kept under an id that no session has, until they are all there.

    Args:
        access: The database; its tables are made where they are missing.
        existing: What becomes of a session whose id is taken by another one. One that is there
            already, and the same, is left as it is.
    """

    def __init__(self, access: Access, existing: Existing = "refuse") -> None:
        """Initialize without asking the database for anything."""
        self._access = access
        self._existing = existing
        self._waiting: list[PendingSession] = []
        self._statements_waiting = 0
        access.setup()

    def store(self, session: SessionLines, report: TransferReport) -> None:
        """Take a session, and store it with others of its size, or at once where it is large.

        Raises:
            AlreadyExistsError: If its id is taken and may not be.
            InvalidDataError: If a line isn't what it should be.
            TooLargeError: If no row of the database can hold one.
        """
        if sum(one.size for one in self._waiting) > REQUEST_BYTES // 2:
            self.flush(report)
        pending = PendingSession(check_id("session", session.session_id))
        try:
            if not self._read(session.lines(), pending, report):
                return
            statements = pending.statements(_STATEMENT_BYTES)
            is_full = len(self._waiting) == _TOGETHER
            if is_full or self._statements_waiting + statements > _STATEMENTS:
                self.flush(report)
            self._waiting.append(pending)
            self._statements_waiting += statements
            if pending.is_begun:
                self.flush(report)
        except BaseException:
            if pending.is_begun:
                drop_staged(self._access, pending.staged_id)
            raise

    def _read(self, lines: Iterator[Line], pending: PendingSession, report: TransferReport) -> bool:
        """Read a session, staging it where it is large, and return whether to store it."""
        for line in lines:
            self._check_size(line, pending.session_id)
            bare = without_large_content(line)
            pending.add(Line(line.kind, bare.text))
            pending.unreadable += cant_be_read(line)
            is_large = pending.size > REQUEST_BYTES
            if not bare.leaves and not is_large:
                continue
            if not pending.is_begun and self._is_settled(lines, pending, report):
                return False
            if bare.leaves:
                self._store_leaves(pending, bare)
            if is_large:
                self._stage(pending)
        return True

    def flush(self, report: TransferReport) -> None:
        """Store what was taken and isn't stored yet."""
        waiting, self._waiting, self._statements_waiting = self._waiting, [], 0
        if not waiting:
            return
        found = self._find([one.session_id for one in waiting])
        new: list[PendingSession] = []
        others: list[PendingSession] = []
        for session, row in zip(waiting, found, strict=True):
            (others if row["is_there"] or row["has_rows"] else new).append(session)
        if new:
            self._store_all(new, report)
        if others:
            self._store_others(others, report)

    def finish(self) -> None:
        """Do nothing: a database has no end."""

    def _check_size(self, line: Line, session_id: str) -> None:
        limit = self._access.codec.max_bytes
        if len(line.text) * 4 <= limit:
            return
        size = len(line.text.encode())
        if size > limit:
            raise TooLargeError(
                f"a {line.kind.replace('_', '-')} of session {session_id!r} takes {size} bytes,"
                f" and this database takes at most {limit}; nothing of the session was stored",
                size=size,
                limit=limit,
                session_id=session_id,
            )

    # -- large sessions ------------------------------------------------------------------------

    def _is_settled(
        self, rest: Iterator[Line], pending: PendingSession, report: TransferReport
    ) -> bool:
        """Whether a large session need not be stored; the rest of its lines is read then."""
        if self._existing == "replace":  # to compare would use up lines that come only once
            return False
        (found,) = self._find([pending.session_id])
        if not (found["is_there"] or found["has_rows"]):
            return False
        ours = DatabaseSession(self._access, pending.session_id)
        self._keeps(ours, chain(_lines_of(pending), rest), report)
        return True

    def _store_leaves(self, pending: PendingSession, line: Skeleton) -> None:
        pending.contents |= {digest: leaf.count for digest, leaf in line.leaves.items()}
        batch = Batch()
        batch.bring(line)
        self._access.run(batch, writes=True, session_id=pending.staged_id)

    def _stage(self, pending: PendingSession) -> None:
        statements = []
        for kind in STAGED_KINDS:
            statements += [
                archiving.stage_lines(
                    self._access.tables,
                    TABLES[kind],
                    pending.session_id,
                    pending.write_id,
                    **_array(portion),
                )
                for portion in _portions(pending.lines[kind])
            ]
            pending.staged[kind] += len(pending.lines[kind])  # before: an answer may be lost
        self._send(Batch(*statements), [pending])
        pending.size = 0
        for kind in STAGED_KINDS:
            pending.lines[kind].clear()

    # -- sessions that are complete ------------------------------------------------------------

    def _store_others(self, sessions: Sequence[PendingSession], report: TransferReport) -> None:
        """Store sessions whose ids are taken, where they may."""
        there = read_together(self._access, [one.session_id for one in sessions])
        for session in sessions:
            if session.is_staged and self._existing != "replace":  # it has come meanwhile
                raise _taken(session.session_id)
            ours = there[session.session_id]
            if session.is_staged or not self._keeps(ours, _lines_of(session), report):
                self._store_all([session], report, replaces=True)
            elif session.contents:
                drop_staged(self._access, session.staged_id)

    def _find(self, session_ids: list[str]) -> Sequence[dict[str, object]]:
        rows = self._access.rows(archiving.find_sessions(self._access.tables, session_ids))
        by_id = {row["session_id"]: dict(row) for row in rows}
        return [by_id[one] for one in session_ids]

    def _keeps(self, ours: DatabaseSession, lines: Iterable[Line], report: TransferReport) -> bool:
        """Whether what is there stays: it is the same, or is to be skipped.

        Raises:
            AlreadyExistsError: If it is another one, and may not be replaced.
        """
        session_id, theirs = ours.session_id, _bare_digest(lines)
        if _digest_if_there(ours) == theirs:
            report.unchanged.append(session_id)
        elif self._existing == "skip":
            report.skipped.append(session_id)
        elif self._existing == "refuse":
            raise _taken(session_id)
        else:
            return False
        return True

    def _store_all(
        self, sessions: Sequence[PendingSession], report: TransferReport, *, replaces: bool = False
    ) -> None:
        batch = Batch()
        tables = self._access.tables
        stored = []
        for session in sessions:
            if replaces:
                batch.run(*deleting.erase_session(tables, session.session_id, session.write_id))
            batch.run(*self._statements(session))
            if session.contents:
                batch.run(
                    contents.require_parts(
                        tables,
                        session.session_id,
                        session.contents,
                        sum(session.contents.values()),
                        write_id=session.write_id,
                    )
                )
            stored.append(
                batch.ask(reading.read_creating_write(tables, "sessions", session.session_id))
            )
        answer = self._send(batch, sessions)
        for session, handle in zip(sessions, stored, strict=True):
            row = answer.first(handle)
            if row is None or row["write_id"] != session.write_id:
                raise _taken(session.session_id)
            report.sessions += 1
            report.messages += session.count("message")
            report.checkpoints += session.count("checkpoint")
            report.unreadable += session.unreadable
            if replaces:
                report.replaced.append(session.session_id)

    def _statements(self, session: PendingSession) -> Iterator[Statement]:
        tables = self._access.tables
        if session.contents:
            yield from contents.take_staged(
                tables, session.session_id, session.staged_id, session.write_id
            )
        if session.is_staged:
            yield from archiving.take_staged(tables, session.session_id, session.write_id)
        if session.is_behind:
            lines = _array(session.lines["agent"])["lines"]
            yield archiving.store_behind(tables, session.session_id, session.write_id, lines)
        for kind, table in TABLES.items():
            for portion in _portions(session.lines[kind]):
                yield archiving.store_lines(
                    tables, table, session.session_id, session.write_id, **_array(portion)
                )
        if session.expires:
            yield from retention.take_over(tables, session.session_id)

    def _send(self, batch: Batch, sessions: Sequence[PendingSession]) -> Answer:
        try:
            return self._access.run(batch, writes=True, session_id=sessions[0].session_id)
        except StatementError as error:
            raise _explained(error, sessions) from error


def _lines_of(session: PendingSession) -> Iterator[Line]:
    for kind in _READ_ORDER:
        for text in session.lines[kind]:
            yield Line(kind, text)


def _digest_if_there(session: DatabaseSession) -> str | None:
    try:
        return _bare_digest(session.bare_lines())
    except SessionGoneError:
        return None


def _bare_digest(lines: Iterable[Line]) -> str:
    """Return the digest of lines without their large content, which the rest of them names."""
    return digest_of(Line(one.kind, without_large_content(one).text) for one in lines).hex


def _portions(lines: Sequence[str]) -> Iterator[Sequence[str]]:
    """Yield as many lines at a time as one statement stores."""
    first = size = 0
    for index, line in enumerate(lines):
        if size and size + len(line) > _STATEMENT_BYTES:
            yield lines[first:index]
            first, size = index, 0
        size += len(line)
    if first < len(lines):
        yield lines[first:]


def _array(lines: Sequence[str]) -> dict[str, Any]:
    """Return lines as a JSON array, and the texts that some carry in hex by that."""
    unreadable = {}
    for line in lines:
        if is_unreadable(Line("message", line)):
            carried = json.loads(line)["unreadable"]
            unreadable[carried] = bytes.fromhex(carried).decode(errors="replace")
    return {
        "lines": f"[{','.join(lines)}]",
        "unreadable": json.dumps(unreadable) if unreadable else None,
    }


def _taken(session_id: str) -> AlreadyExistsError:
    return AlreadyExistsError(
        f"session {session_id!r} is there already, and isn't the same; skip or replace what is"
        " there, or delete it first",
        session_id=session_id,
    )


def _explained(error: StatementError, sessions: Sequence[PendingSession]) -> Exception:
    """Return what a refused statement says of the lines that it was made of."""
    if not any(word in str(error).lower() for word in ("malformed", "constraint", "json")):
        return error
    names = ", ".join(repr(one.session_id) for one in sessions)
    return InvalidDataError(
        f"a line of session {names} isn't what it should be ({error}); nothing of it was stored",
        session_id=sessions[0].session_id,
    )


def drop_staged(access: Access, staged: str) -> int:
    """Delete what an import has left under an id that no session has.

    Returns:
        How many messages that were.
    """
    count = 0
    while True:
        batch = Batch(contents.drop(access.tables, staged))
        deleted = [
            batch.ask(one) for one in archiving.drop_staged(access.tables, staged, _STAGED_AT_ONCE)
        ]
        answer = access.run(batch, writes=True)
        messages, checkpoints = (len(answer[one]) for one in deleted)
        count += messages
        if max(messages, checkpoints) < _STAGED_AT_ONCE:
            return count
