"""Which sessions there are, who is in them, and what they hold."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Literal, TypeAlias, TypeVar

from strands_persql.admin.access import Access, no_session
from strands_persql.errors import CorruptRowError
from strands_persql.gateway.batch import Batch, Row
from strands_persql.persistence.view import View
from strands_persql.runtime.ids import AgentKey, check_id
from strands_persql.runtime.owners import owner_of
from strands_persql.tables import catalogue, reading
from strands_persql.tables.cells import number_in, text_in

_T = TypeVar("_T")

Order: TypeAlias = Literal["id", "activity"]
"""By id, or the latest activity first."""

SESSIONS_A_PAGE = 40
"""Sessions of a page where nothing else is said: fewer than 200 rows are read for it."""

MEASURED_TOGETHER = 50
"""Sessions whose messages one request counts."""


@dataclass(frozen=True)
class Page(Generic[_T]):
    """A part of a list.

    Attributes:
        items: What is in it.
        next: What to give as ``after`` to go on behind it, or None at the end.
    """

    items: list[_T]
    next: str | None


@dataclass(frozen=True)
class Tokens:
    """Tokens that models have counted, as far as messages say.

    Attributes:
        input: Those sent to models.
        output: Those that models made.
        total: Both.
        cache_read: Those of the input that were read from a provider's cache.
        cache_write: Those of the input that were written to it.
    """

    input: int = 0
    output: int = 0
    total: int = 0
    cache_read: int = 0
    cache_write: int = 0

    def __add__(self, other: "Tokens") -> "Tokens":
        """Return the sum."""
        return Tokens(
            self.input + other.input,
            self.output + other.output,
            self.total + other.total,
            self.cache_read + other.cache_read,
            self.cache_write + other.cache_write,
        )


@dataclass(frozen=True)
class Contents:
    """What was counted in messages.

    Attributes:
        messages: How many there are.
        turns: How many turns they are of; messages of 0.1 are of none.
        bytes: The size of their JSON.
        writes: How often their rows were written.
        tokens: What models have used.
    """

    messages: int = 0
    turns: int = 0
    bytes: int = 0
    writes: int = 0
    tokens: Tokens = field(default_factory=Tokens)

    def __add__(self, other: "Contents") -> "Contents":
        """Return the sum."""
        return Contents(
            self.messages + other.messages,
            self.turns + other.turns,
            self.bytes + other.bytes,
            self.writes + other.writes,
            self.tokens + other.tokens,
        )


@dataclass(frozen=True)
class SessionSummary:
    """A session in the catalogue.

    Attributes:
        session_id: The session.
        created_at: When it was created, by the clock of who did.
        active_at: When anything was last stored in it.
        agents: How many agents it has.
        multi_agents: How many graphs and swarms it has.
        expires_in: In how many seconds it expires, by the database's clock, if nothing happens in
            it, or None for never; 0 or less where it has expired and wasn't swept yet.
        owner: Whose it is, or None where it has no owner.
        contents: What its messages hold, where that was asked for.
    """

    session_id: str
    created_at: str
    active_at: str
    agents: int
    multi_agents: int
    expires_in: int | None = None
    owner: str | None = None
    contents: Contents | None = None


@dataclass(frozen=True)
class AgentSummary:
    """An agent in the catalogue.

    Attributes:
        agent_id: The agent.
        created_at: When it was created, by the clock of who did.
        active_at: When anything was last stored of it.
        version: Its row's version.
        newest_id: The id of its newest message, or None where it has none.
        view: What it works with.
        state: Its state, or None where its row can't be read.
        conversation_manager: Its conversation manager's state, or None likewise.
        waits: Whether it waits for the answer to an interrupt.
        contents: What its messages hold, where that was asked for.
    """

    agent_id: str
    created_at: str
    active_at: str
    version: int
    newest_id: int | None
    view: View
    state: dict[str, Any] | None
    conversation_manager: dict[str, Any] | None
    waits: bool
    contents: Contents | None = None


@dataclass(frozen=True)
class MultiAgentSummary:
    """A graph or swarm in the catalogue.

    Attributes:
        multi_agent_id: Its id.
        version: 1 when it was created, and one more for each update.
        created_at: When it was created, in ISO format.
        updated_at: When it was last updated.
        state: Its state, as Strands restores it, or None where it can't be read.
    """

    multi_agent_id: str
    version: int
    created_at: str
    updated_at: str
    state: dict[str, Any] | None


def list_sessions(
    access: Access,
    *,
    limit: int = SESSIONS_A_PAGE,
    after: str | None = None,
    starts_with: str = "",
    order: Order = "id",
    counts: bool = False,
) -> Page[SessionSummary]:
    """List sessions page by page.

    Args:
        access: The database.
        limit: The most to return.
        after: `Page.next` of the page before, or None for the first one.
        starts_with: What the ids begin with.
        order: In which order. By activity, each page reads the row of every session and agent.
        counts: Whether to count messages and tokens, which reads all messages of these sessions.

    Raises:
        ValueError: If an argument is out of its range.
    """
    if limit < 1:
        raise ValueError(f"limit={limit} | must be 1 or more")
    if order == "id":
        statement = catalogue.list_sessions(
            access.found, after=after or "", starts_with=starts_with, limit=limit + 1
        )
    else:
        statement = catalogue.list_active_sessions(
            access.found, before=_place(after), starts_with=starts_with, limit=limit + 1
        )
    found = [_session(row, access.tables.owner) for row in access.rows(statement)]
    items = found[:limit]
    if counts:
        contents = count_contents(access, [one.session_id for one in items])
        items = [
            replace(one, contents=sum(contents[one.session_id].values(), Contents()))
            for one in items
        ]
    return Page(items, _next(items[-1], order) if len(found) > limit else None)


def _agents_of(row: Row) -> tuple[Any, Any]:
    return row["agents"], row["active_at"]


def _place(after: str | None) -> tuple[str, str] | None:
    if after is None:
        return None
    time, separator, session_id = after.partition(" ")
    if not separator:
        raise ValueError(f"after={after!r} | must be Page.next of a page in the order of activity")
    return time, session_id


def _next(last: SessionSummary, order: Order) -> str:
    return last.session_id if order == "id" else f"{last.active_at} {last.session_id}"


def _session(row: Row, owner: str | None) -> SessionSummary:
    agents, latest = json.loads(row["of_agents"]) if "of_agents" in row else _agents_of(row)
    active_at = text_in(latest) or text_in(row["updated_at"])
    return SessionSummary(
        row["session_id"],
        text_in(row["created_at"]),
        active_at,
        number_in(agents),
        number_in(row["multi_agents"]),
        None if row["expires_in"] is None else number_in(row["expires_in"]),
        owner=owner_of(text_in(row["session_id"])) if owner is None else owner,
    )


def list_agents(access: Access, session_id: str, *, counts: bool = False) -> list[AgentSummary]:
    """List a session's agents.

    Args:
        access: The database.
        session_id: The session.
        counts: Whether to count messages and tokens, which reads all messages of the session.

    Raises:
        NotFoundError: If the session isn't there.
    """
    check_id("session", session_id)
    found = access.found
    batch = Batch()
    session = batch.ask(reading.read_creating_write(found, "sessions", session_id))
    agents = batch.ask(catalogue.list_agents(found, session_id))
    answer = access.run(batch, session_id=session_id)
    if answer.first(session) is None and not answer[agents]:
        raise no_session(session_id)
    contents = count_contents(access, [session_id])[session_id] if counts else None
    summaries = []
    for row in answer[agents]:
        summary = _agent(access, session_id, access.whole_row(row, session_id))
        if contents is not None:
            summary = replace(summary, contents=contents.get(summary.agent_id, Contents()))
        summaries.append(summary)
    return summaries


def _agent(access: Access, session_id: str, row: Row) -> AgentSummary:
    key = AgentKey(session_id, row["agent_id"])
    try:
        fields: Mapping[str, Any] = access.codec.read_agent_fields(key, row["data"])
    except CorruptRowError:
        fields = {}
    internal = _dict(fields.get("_internal_state")) or {}
    interrupts = _dict(internal.get("interrupt_state")) or {}
    return AgentSummary(
        key.agent_id,
        text_in(row["created_at"]),
        text_in(row["active_at"]),
        number_in(row["version"]),
        None if row["newest_id"] is None else number_in(row["newest_id"]),
        view_of(row["view"], row["window_start"]),
        _dict(fields.get("state")),
        _dict(fields.get("conversation_manager_state")),
        bool(interrupts.get("activated")) or bool(internal.get("waiting")),
    )


def _dict(value: Any) -> dict[str, Any] | None:
    return value if isinstance(value, dict) else None


def view_of(head: Any, start: Any) -> View:
    """Return the view that a row has, as far as it can be read."""
    first = number_in(start)
    try:
        return View.of(head, first)
    except ValueError:
        return View(first, is_explicit=False)


def list_multi_agents(access: Access, session_id: str) -> list[MultiAgentSummary]:
    """List a session's graphs and swarms."""
    summaries = []
    for row in access.rows(catalogue.list_multi_agents(access.found, session_id)):
        key = AgentKey(session_id, row["multi_agent_id"])
        try:
            data = access.whole(row["data"], session_id)
            state: dict[str, Any] | None = access.codec.read_multi_agent(key, data)
        except CorruptRowError:
            state = None
        summaries.append(
            MultiAgentSummary(
                key.agent_id,
                number_in(row["version"]),
                text_in(row["created_at"]),
                text_in(row["updated_at"]),
                state,
            )
        )
    return summaries


def count_contents(access: Access, session_ids: Sequence[str]) -> dict[str, dict[str, Contents]]:
    """Count what the messages of sessions hold, by session and agent."""
    contents: dict[str, dict[str, Contents]] = {one: {} for one in session_ids}
    for some in portions(session_ids):
        for row in access.rows(catalogue.measure_sessions(access.found, some)):
            # A damaged index may bring what wasn't asked for.
            contents.setdefault(row["session_id"], {})[row["agent_id"]] = contents_of(row)
    return contents


def portions(session_ids: Sequence[str]) -> Iterator[Sequence[str]]:
    """Yield as many sessions at a time as one request counts."""
    for first in range(0, len(session_ids), MEASURED_TOGETHER):
        yield session_ids[first : first + MEASURED_TOGETHER]


def contents_of(row: Row) -> Contents:
    """Return what `measure_sessions` has counted."""
    tokens = Tokens(
        number_in(row["input_tokens"]),
        number_in(row["output_tokens"]),
        number_in(row["total_tokens"]),
        number_in(row["cache_read_tokens"]),
        number_in(row["cache_write_tokens"]),
    )
    return Contents(
        number_in(row["messages"]),
        number_in(row["turns"]),
        number_in(row["bytes"]),
        number_in(row["writes"]),
        tokens,
    )


def describe_view(view: View) -> list[Any]:
    """Return what an agent works with before its window, as JSON has it."""
    return [json.loads(one) if isinstance(one, str) else list(one) for one in view.head]
