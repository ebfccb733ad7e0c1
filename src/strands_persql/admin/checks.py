"""Whether all rows can be read and belong together, session by session."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from strands_persql.admin.access import Access
from strands_persql.admin.catalogue import view_of
from strands_persql.admin.check_checkpoints import CheckpointCheck
from strands_persql.admin.check_history import HistoryCheck, is_counter
from strands_persql.admin.check_view import ViewCheck
from strands_persql.admin.findings import Finding, FindingKind
from strands_persql.admin.reading import place_of
from strands_persql.databases.protocol import Statement
from strands_persql.errors import CorruptRowError
from strands_persql.gateway.batch import Batch, Row
from strands_persql.persistence.view import View
from strands_persql.runtime.clock import now
from strands_persql.runtime.ids import AgentKey
from strands_persql.tables import archive_lines, archiving, checking, repairing
from strands_persql.tables.cells import number_in, text_in

_TOGETHER = 20  # sessions whose beginnings one request reads
_FIRST_PAGE_ROWS = 250
_PAGE_ROWS = 2_000
_PAGE_BYTES = 2_000_000


@dataclass(frozen=True)
class CheckProgress:
    """How far a check is.

    Attributes:
        session_id: The session that it is at.
        sessions: How many sessions it has read.
        messages: How many messages.
    """

    session_id: str
    sessions: int
    messages: int


def check(
    access: Access,
    session_id: str | None = None,
    progress: Callable[[CheckProgress], None] | None = None,
) -> Iterator[Finding]:
    """Read everything, and yield what isn't as it should be.

    Writers may go on meanwhile: a session of theirs is read over several requests, and what is
    found in it is worth a second look.

    Args:
        access: The database.
        session_id: One session, or None for all.
        progress: Called after each session, and each page of a long one.
    """
    counted = _Counted(progress)
    for ids in _portions(access, session_id):
        batch = Batch()
        asked = [[batch.ask(one) for one in _beginning(access, each, len(ids))] for each in ids]
        answer = access.run(batch)
        for each, handles in zip(ids, asked, strict=True):
            rows = [answer[handle] for handle in handles]
            imported = archiving.session_of_staged(text_in(each))
            if imported is not None:
                yield _unfinished_import(each, imported)
            elif any(rows):
                yield from _SessionCheck(access, each, counted).run(*rows)
            counted.session(each)


def _portions(access: Access, session_id: str | None) -> Iterator[list[str]]:
    if session_id is not None:
        yield [session_id]
        return
    after = ""
    while True:
        statement = checking.list_all_ids(access.found, after=after, limit=_TOGETHER)
        ids = [row["session_id"] for row in access.rows(statement)]
        if ids:
            yield ids
        if len(ids) < _TOGETHER:
            return
        after = ids[-1]


def _beginning(access: Access, session_id: str, sessions: int) -> list[Statement]:
    found = access.found
    return [
        checking.read_session_row(found, session_id),
        checking.read_agent_rows(found, session_id),
        checking.read_multi_agent_rows(found, session_id),
        archive_lines.read_last_message(found, session_id),
        checking.read_message_rows(
            found, session_id, after=("", -1), rows=_FIRST_PAGE_ROWS, size=_PAGE_BYTES // sessions
        ),
    ]


class _Counted:
    """Counts what was read, and tells."""

    def __init__(self, tell: Callable[[CheckProgress], None] | None) -> None:
        self._tell = tell
        self._sessions = self._messages = 0

    def session(self, session_id: str) -> None:
        self._sessions += 1
        self.messages(session_id, 0)

    def messages(self, session_id: str, count: int) -> None:
        self._messages += count
        if self._tell is not None:
            self._tell(CheckProgress(session_id, self._sessions, self._messages))


def _unfinished_import(staged: str, session_id: str) -> Finding:
    return Finding(
        "unfinished_import",
        staged,
        None,
        None,
        f"an import of session {session_id!r} was interrupted, or is under way",
        "delete the messages that it has left; make sure that it isn't under way",
    )


class _SessionCheck:
    """Checks one session."""

    def __init__(self, access: Access, session_id: str, counted: _Counted) -> None:
        self._access, self._session_id, self._counted = access, session_id, counted
        self._agents: dict[str, View] = {}
        self._gaps: dict[str, frozenset[tuple[Any, ...]]] = {}
        self._views: dict[str, ViewCheck] = {}

    def run(
        self,
        session: Sequence[Row],
        agents: Sequence[Row],
        multi_agents: Sequence[Row],
        last: Sequence[Row],
        messages: Sequence[Row],
    ) -> Iterator[Finding]:
        yield from self._session(session, agents)
        for row in agents:
            yield from self._agent(row)
        for row in multi_agents:
            yield from self._multi_agent(row)
        yield from self._messages(messages, place_of(last[0]) if last else ("", -1))
        for view in self._views.values():
            yield from view.end()
        for row in agents:
            if row["last_checkpoint"] is not None:
                key = AgentKey(self._session_id, row["agent_id"])
                yield from CheckpointCheck(self._access, key, row["last_checkpoint"]).run()

    # -- the session and its agents ------------------------------------------------------------

    def _session(self, rows: Sequence[Row], agents: Sequence[Row]) -> Iterator[Finding]:
        if not rows:
            yield self._no_session(agents)
            return
        (row,) = rows
        yield from self._counter("sessions", row["counter"], {"session_id": self._session_id})
        try:
            self._access.codec.read_session(self._session_id, row["data"])
        except CorruptRowError as error:
            data = self._session_data(
                text_in(row["created_at"]) or now(), text_in(row["updated_at"]) or now()
            )
            statement = repairing.replace_data(
                self._access.tables,
                "sessions",
                {"session_id": self._session_id},
                found=row["data"],
                data=data,
            )
            yield self._finding(
                "unreadable", str(error), "create the row again; nothing is lost", statement
            )

    def _no_session(self, agents: Sequence[Row]) -> Finding:
        time = min(filter(None, (text_in(row["created_at"]) for row in agents)), default=now())
        statement = repairing.create_missing_session(
            self._access.tables, self._session_id, self._session_data(time, time), time
        )
        what = "agents or messages are there without their session"
        return self._finding("orphan", what, "create the session", statement)

    def _session_data(self, created_at: str, updated_at: str) -> str:
        return json.dumps(
            {
                "session_id": self._session_id,
                "session_type": "AGENT",
                "created_at": created_at,
                "updated_at": updated_at,
            },
            ensure_ascii=False,
        )

    def _agent(self, row: Row) -> Iterator[Finding]:
        key = AgentKey(self._session_id, row["agent_id"])
        yield from self._counter("agents", row["counter"], key.context)
        yield from self._counter("agents", row["epoch_counter"], key.context, "epoch")
        view, start = row["view"], row["window_start"]
        whole = self._access.whole(view, self._session_id)
        self._agents[key.agent_id] = view_of(whole, start)
        self._gaps[key.agent_id] = _gaps_in(row["gaps"])
        self._views[key.agent_id] = ViewCheck(self._access.tables, key, whole, start, stored=view)
        try:
            codec = self._access.codec
            data = self._access.whole(row["data"], self._session_id)
            codec.agent_of(key, codec.read_agent_fields(key, data))
        except CorruptRowError as error:
            statement = repairing.delete_row(
                self._access.tables, "agents", key.context, row["data"]
            )
            yield self._finding(
                "unreadable",
                str(error),
                "delete the agent's row: its state is lost, and the next agent of that id begins"
                " with all of its messages",
                statement,
                agent_id=key.agent_id,
            )

    def _multi_agent(self, row: Row) -> Iterator[Finding]:
        key = AgentKey(self._session_id, row["multi_agent_id"])
        yield from self._counter("multi_agents", row["counter"], key.context)
        try:
            data = self._access.whole(row["data"], self._session_id)
            self._access.codec.read_multi_agent(key, data)
        except CorruptRowError as error:
            statement = repairing.delete_row(
                self._access.tables, "multi_agents", key.context, row["data"]
            )
            repair = "delete the row: the graph or swarm of that id starts again"
            yield self._finding("unreadable", str(error), repair, statement, agent_id=key.agent_id)

    def _counter(
        self, table: str, counter: str, key: dict[str, Any], column: str = "version"
    ) -> Iterator[Finding]:
        least = 1 if column == "version" else 0
        if is_counter(counter, least):
            return
        statement = repairing.reset_counter(self._access.tables, table, key, column)
        yield self._finding(
            "counter",
            f"{column} of a row of {table} is not a number from {least} on",
            f"set it to {least}",
            statement,
            agent_id=key.get("agent_id"),
        )

    def _finding(
        self,
        kind: FindingKind,
        what: str,
        repair: str,
        statement: Statement,
        agent_id: str | None = None,
    ) -> Finding:
        return Finding(kind, self._session_id, agent_id, None, what, repair, (statement,))

    # -- messages ------------------------------------------------------------------------------

    def _messages(self, page: Sequence[Row], end: tuple[str, int]) -> Iterator[Finding]:
        history: HistoryCheck | None = None
        agent_id: str | None = None
        while page:
            for row in page:
                if row["agent_id"] != agent_id:
                    yield from () if history is None else history.end()
                    agent_id = row["agent_id"]
                    history = HistoryCheck(
                        self._access,
                        AgentKey(self._session_id, agent_id),
                        self._agents.get(agent_id, View()),
                        self._gaps.get(agent_id, frozenset()),
                    )
                    yield from self._owner(agent_id, number_in(row["message_id"]))
                assert history is not None
                yield from history.message(row)
                if agent_id in self._views:
                    self._views[agent_id].message(number_in(row["message_id"]))
            self._counted.messages(self._session_id, len(page))
            page = () if place_of(page[-1]) >= end else self._next_page(page)
        yield from () if history is None else history.end()

    def _owner(self, agent_id: str, message_id: int) -> Iterator[Finding]:
        if agent_id in self._agents:
            return
        what = (
            f"messages of agent {agent_id!r} are there without it; the next agent of that id takes"
            " them up, and erasing the session deletes them"
        )
        yield Finding("orphan", self._session_id, agent_id, message_id, what)

    def _next_page(self, page: Sequence[Row]) -> Sequence[Row]:
        mean = 1 + sum(len(row["data"] or "") for row in page) // len(page)
        statement = checking.read_message_rows(
            self._access.found,
            self._session_id,
            after=place_of(page[-1]),
            rows=max(64, min(_PAGE_ROWS, _PAGE_BYTES // mean)),
            size=_PAGE_BYTES,
        )
        return self._access.rows(statement, session_id=self._session_id)


def _gaps_in(gaps: str | None) -> frozenset[tuple[Any, ...]]:
    """Return where truncations have left gaps: the write before each, and the step over it."""
    found = [one for one in json.loads(gaps or "[]") if isinstance(one, list)]
    return frozenset((text_in(one[0]), one[1]) for one in found if len(one) == 2)  # noqa: PLR2004
