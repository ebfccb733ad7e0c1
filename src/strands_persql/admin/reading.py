"""Sessions of a database, read as lines."""

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from strands_persql.admin.access import Access, no_session
from strands_persql.admin.large_lines import has_lost_content
from strands_persql.admin.lines import HistoryChangedError, Line, SessionGoneError, SessionLines
from strands_persql.databases.protocol import Statement
from strands_persql.gateway.batch import Answer, Batch, Handle, Row
from strands_persql.tables import archive_lines
from strands_persql.tables.cells import number_in, text_in

PAGE_BYTES = 2_000_000
"""Bytes of messages that one statement reads, but for a single message that is larger."""

_PAGE_ROWS = 4_000
_FIRST_PAGE_ROWS = 250
_TOGETHER = 20
"""Sessions whose beginnings one request reads."""

_START = ("", -1)


class DatabaseSource:
    """Sessions of a database.

    A session is read as it was at one moment: messages that are appended meanwhile are left out,
    and if others change or move it is read again.

    Args:
        access: The database.
        session_ids: Which sessions, or None for all.
        starts_with: What their ids begin with, where all are asked for.
        after: The id that the list begins behind, where all are asked for.
    """

    def __init__(
        self,
        access: Access,
        session_ids: Collection[str] | None = None,
        *,
        starts_with: str = "",
        after: str = "",
    ) -> None:
        """Initialize without asking the database for anything."""
        self._access = access
        self._wanted = None if session_ids is None else sorted(set(session_ids))
        self._starts_with = starts_with
        self._after = after

    @property
    def fraction(self) -> float | None:
        """None: how many sessions there are isn't known."""
        return None

    def sessions(self) -> Iterator[SessionLines]:
        """Go through the sessions in the order of their ids.

        Raises:
            NotFoundError: If one that was asked for by its id isn't there.
        """
        for ids in self._portions():
            beginnings = _read_beginnings(self._access, ids, PAGE_BYTES // len(ids))
            for session_id, beginning in zip(ids, beginnings, strict=True):
                if beginning is not None:
                    yield DatabaseSession(self._access, session_id, beginning)
                elif self._wanted is not None:
                    raise no_session(session_id)

    def _portions(self) -> Iterator[Sequence[str]]:
        if self._wanted is not None:
            for first in range(0, len(self._wanted), _TOGETHER):
                yield self._wanted[first : first + _TOGETHER]
            return
        after = self._after
        while True:
            statement = archive_lines.list_session_ids(
                self._access.found, after=after, starts_with=self._starts_with, limit=_TOGETHER
            )
            ids = [row["session_id"] for row in self._access.rows(statement)]
            if ids:
                yield ids
            if len(ids) < _TOGETHER:
                return
            after = ids[-1]


@dataclass(frozen=True)
class _Beginning:
    """A session's rows but its messages, and the first of these, as they were at one moment.

    Attributes:
        head: The lines of the session, its agents and its multi-agents.
        agents: Its agents.
        end: Agent and id of the last message, or None where there is none.
        messages: The first page of messages.
        last_checkpoint: Agent and id of the last checkpoint, or None where there is none.
    """

    head: list[Line]
    agents: dict[str, "_Agent"]
    end: tuple[str, int] | None
    messages: list[Row]
    last_checkpoint: tuple[str, str] | None

    def ends_with(self, row: Row) -> bool:
        """Whether there was no message behind one."""
        return self.end is None or place_of(row) >= self.end


class _Agent(NamedTuple):
    """An agent when the beginning of its session was read.

    Attributes:
        write_id: The write that created it.
        epoch: Its history's version.
        newest_id: Its newest message.
        version: Its row's version.
    """

    write_id: str
    epoch: int
    newest_id: int
    version: int

    def has_made(self, checkpoint: Row) -> bool:
        """Whether a checkpoint may have been made by then."""
        return (
            number_in(checkpoint["version"]) <= self.version
            and number_in(checkpoint["newest_id"]) <= self.newest_id
        )


class DatabaseSession:
    """A session of a database.

    Args:
        access: The database.
        session_id: The session.
        beginning: What was read of it already, or None.
    """

    def __init__(
        self, access: Access, session_id: str, beginning: _Beginning | None = None
    ) -> None:
        """Initialize without asking the database for anything."""
        self._access = access
        self._session_id = session_id
        self._beginning = beginning
        self._has_lost = False

    @property
    def session_id(self) -> str:
        """The session."""
        return self._session_id

    def lines(self) -> Iterator[Line]:
        """Read the session's lines, each with its large content.

        Raises:
            HistoryChangedError: If stored messages changed or moved meanwhile.
            SessionGoneError: If it isn't there.
        """
        for line in self.bare_lines():
            whole = Line(line.kind, self._access.whole(line.text, self._session_id))
            if has_lost_content(whole) and not self._has_lost:
                self._has_lost = True  # it isn't read again for what is lost for good
                raise HistoryChangedError(
                    f"content of session {self._session_id!r} changed while it was read; try again",
                    session_id=self._session_id,
                )
            yield whole

    def bare_lines(self) -> Iterator[Line]:
        """Read the session's lines without their large content.

        Raises:
            HistoryChangedError: If stored messages changed or moved meanwhile.
            SessionGoneError: If it isn't there.
        """
        beginning, self._beginning = self._beginning, None
        if beginning is None:
            (beginning,) = _read_beginnings(self._access, [self._session_id], PAGE_BYTES)
        if beginning is None:
            raise SessionGoneError(
                f"session {self._session_id!r} is no longer there", session_id=self._session_id
            )
        yield from beginning.head
        page = beginning.messages
        newer: Collection[str] = ()
        while page:
            yield from _lines_of(page, beginning, newer)
            if beginning.ends_with(page[-1]):
                break
            page, newer = self._next_page(page, beginning)
        if beginning.last_checkpoint is not None:
            yield from self._checkpoints(beginning, beginning.last_checkpoint)

    def _checkpoints(self, beginning: _Beginning, last: tuple[str, str]) -> Iterator[Line]:
        """Read the checkpoints that were there when the beginning was read."""
        after = ("", "")
        while after < last:
            found, batch = self._access.found, Batch()
            states = batch.ask(archive_lines.read_agent_states(found, self._session_id))
            checkpoints = batch.ask(
                archive_lines.read_checkpoint_lines(
                    found, self._session_id, after=after, rows=_PAGE_ROWS, size=PAGE_BYTES
                )
            )
            answer = self._access.run(batch, session_id=self._session_id)
            self._check_same(answer[states], beginning)
            if not answer[checkpoints]:
                return
            for row in answer[checkpoints]:
                agent = beginning.agents.get(row["agent_id"])
                after = (row["agent_id"], row["checkpoint_id"])
                if after <= last and (agent is None or agent.has_made(row)):
                    yield Line("checkpoint", text_in(row["line"]))

    def _next_page(
        self, page: Sequence[Row], beginning: _Beginning
    ) -> tuple[list[Row], Collection[str]]:
        """Read the next page, and which agents have been created since the beginning was read."""
        found, batch = self._access.found, Batch()
        states = batch.ask(archive_lines.read_agent_states(found, self._session_id))
        messages = batch.ask(
            archive_lines.read_message_lines(
                found,
                self._session_id,
                after=place_of(page[-1]),
                rows=rows_within(page),
                size=PAGE_BYTES,
            )
        )
        answer = self._access.run(batch, session_id=self._session_id)
        return answer[messages], self._check_same(answer[states], beginning)

    def _check_same(self, states: Sequence[Row], beginning: _Beginning) -> Collection[str]:
        """Return which agents have been created since the beginning was read.

        Raises:
            HistoryChangedError: If stored messages of the others have changed.
        """
        now = {row["agent_id"]: (row["write_id"], number_in(row["epoch"])) for row in states}
        for agent_id, agent in beginning.agents.items():
            if now.pop(agent_id, None) != (agent.write_id, agent.epoch):
                raise HistoryChangedError(
                    f"stored messages of agent {agent_id!r} in session {self._session_id!r} change"
                    " whenever they are read; try again when nobody writes to it",
                    session_id=self._session_id,
                    agent_id=agent_id,
                )
        return now.keys()


def place_of(row: Row) -> tuple[str, int]:
    """Return a message's agent and id."""
    return row["agent_id"], number_in(row["message_id"])


def rows_within(page: Sequence[Row]) -> int:
    """Return how many rows the next page may have, given what this one's lines are like."""
    mean = 1 + sum(len(text_in(row["line"])) for row in page) // len(page)
    return max(64, min(_PAGE_ROWS, PAGE_BYTES // mean))


def _lines_of(page: Sequence[Row], beginning: _Beginning, newer: Collection[str]) -> Iterator[Line]:
    """Yield a page's messages but for those that were stored since the beginning was read."""
    agent_id, newest = None, None
    for row in page:
        if row["agent_id"] != agent_id:
            agent_id = row["agent_id"]
            known = beginning.agents.get(agent_id)
            newest = None if known is None else known.newest_id
        # Messages of no agent at all are nobody's to append to: they are part of the session.
        if agent_id not in newer and (newest is None or row["message_id"] <= newest):
            yield Line("message", text_in(row["line"]))


def read_together(access: Access, session_ids: Sequence[str]) -> dict[str, DatabaseSession]:
    """Return sessions whose beginnings were read in one request, whether they are there or not."""
    beginnings = _read_beginnings(access, session_ids, PAGE_BYTES // len(session_ids))
    return {
        one: DatabaseSession(access, one, beginning)
        for one, beginning in zip(session_ids, beginnings, strict=True)
    }


def _read_beginnings(
    access: Access, session_ids: Sequence[str], limit: int
) -> list[_Beginning | None]:
    """Read the beginnings of sessions, each None where it isn't there."""
    batch = Batch()
    asked = [
        [batch.ask(one) for one in _beginning_of(access, session_id, limit)]
        for session_id in session_ids
    ]
    answer = access.run(batch)
    return [_beginning(answer, *handles) for handles in asked]


def _beginning_of(access: Access, session_id: str, limit: int) -> list[Statement]:
    found = access.found
    return [
        archive_lines.read_session_line(found, session_id),
        archive_lines.read_agent_lines(found, session_id),
        archive_lines.read_multi_agent_lines(found, session_id),
        archive_lines.read_last_message(found, session_id),
        archive_lines.read_message_lines(
            found, session_id, after=_START, rows=_FIRST_PAGE_ROWS, size=limit
        ),
    ]


def _beginning(
    answer: Answer,
    session: Handle,
    agents: Handle,
    multi_agents: Handle,
    end: Handle,
    messages: Handle,
) -> _Beginning | None:
    row = answer.first(session)
    if row is None:
        return None
    head = [Line("session", text_in(row["line"]))]
    head += [Line("agent", text_in(one["line"])) for one in answer[agents]]
    head += [Line("multi_agent", text_in(one["line"])) for one in answer[multi_agents]]
    known = {
        one["agent_id"]: _Agent(
            one["write_id"],
            number_in(one["epoch"]),
            number_in(one["newest_id"]),
            number_in(one["version"]),
        )
        for one in answer[agents]
    }
    last, checkpoint = answer.first(end), row["last_checkpoint"]
    return _Beginning(
        head,
        known,
        None if last is None else place_of(last),
        answer[messages],
        None if checkpoint is None else tuple(json.loads(checkpoint)),
    )
