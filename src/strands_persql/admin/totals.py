"""What sessions hold in all, and when it came."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from strands_persql.admin.access import Access, no_session
from strands_persql.admin.catalogue import (
    MEASURED_TOGETHER,
    Contents,
    SessionSummary,
    contents_of,
    list_sessions,
)
from strands_persql.gateway.batch import Batch, Row
from strands_persql.tables import catalogue


@dataclass
class Totals:
    """What a database's sessions hold in all.

    Attributes:
        sessions: How many there are.
        agents: How many agents are in them.
        contents: What their messages hold.
        other_bytes: The size of the JSON of all rows but messages.
        rows: How many rows there are.
        writes: How often rows were written, as their versions say: what a hosted database bills.
        days: Messages and turns by the day on which they were stored.
        tools: Calls by the tool's name.
        largest: The sessions with the most bytes in messages, the largest first.
    """

    sessions: int = 0
    agents: int = 0
    contents: Contents = field(default_factory=Contents)
    other_bytes: int = 0
    rows: int = 0
    writes: int = 0
    days: dict[str, tuple[int, int]] = field(default_factory=dict)
    tools: dict[str, int] = field(default_factory=dict)
    largest: list[SessionSummary] = field(default_factory=list)


_LARGEST = 10


def measure(
    access: Access,
    *,
    session_id: str | None = None,
    starts_with: str = "",
    progress: Callable[[int], None] | None = None,
) -> Totals:
    """Count what sessions hold, reading all of their messages.

    Args:
        access: The database.
        session_id: One session, or None for all.
        starts_with: What the ids of the sessions begin with.
        progress: Called with the number of sessions so far.

    Raises:
        NotFoundError: If the session isn't there.
    """
    totals, after, wanted = Totals(), None, starts_with if session_id is None else session_id
    while True:
        page = list_sessions(access, limit=MEASURED_TOGETHER, after=after, starts_with=wanted)
        some = [one for one in page.items if session_id in (None, one.session_id)]
        _measure_some(access, some, totals)
        if progress is not None:
            progress(totals.sessions)
        after = page.next
        if after is None or session_id is not None:
            break
    if session_id is not None and not totals.sessions:
        raise no_session(session_id)
    return totals


def _measure_some(access: Access, sessions: Sequence[SessionSummary], totals: Totals) -> None:
    if not sessions:
        return
    ids = [one.session_id for one in sessions]
    batch = Batch()
    asked = [
        batch.ask(statement(access.found, ids))
        for statement in (
            catalogue.measure_sessions,
            catalogue.measure_states,
            catalogue.measure_days,
            catalogue.measure_tools,
        )
    ]
    answer = access.run(batch)
    messages, states, days, tools = (answer[handle] for handle in asked)
    by_session: dict[str, Contents] = dict.fromkeys(ids, Contents())
    for row in messages:
        known = by_session.get(row["session_id"], Contents())  # a damaged index brings others too
        by_session[row["session_id"]] = known + contents_of(row)
    measured = [
        replace(one, contents=by_session.get(one.session_id, Contents())) for one in sessions
    ]
    _add_sizes(totals, measured, states[0])
    _add_activity(totals, days, tools)


def _add_sizes(totals: Totals, sessions: Sequence[SessionSummary], states: Row) -> None:
    in_all = sum((one.contents for one in sessions if one.contents is not None), Contents())
    totals.sessions += len(sessions)
    totals.agents += sum(one.agents for one in sessions)
    totals.contents += in_all
    totals.other_bytes += int(states["bytes"])
    totals.rows += int(states["n"]) + in_all.messages
    totals.writes += int(states["writes"]) + in_all.writes
    totals.largest = sorted([*totals.largest, *sessions], key=_size, reverse=True)[:_LARGEST]


def _add_activity(totals: Totals, days: Sequence[Row], tools: Sequence[Row]) -> None:
    for row in days:
        known = totals.days.get(row["day"] or "", (0, 0))
        totals.days[row["day"] or ""] = (
            known[0] + int(row["messages"]),
            known[1] + int(row["turns"]),
        )
    for row in tools:
        totals.tools[str(row["tool"])] = totals.tools.get(str(row["tool"]), 0) + int(row["calls"])


def _size(session: SessionSummary) -> int:
    return session.contents.bytes if session.contents is not None else 0
