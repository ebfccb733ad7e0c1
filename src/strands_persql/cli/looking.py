"""``list``, ``search`` and ``stats``: which sessions there are, and what they hold."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from enum import Enum
from typing import Annotated, Any

import typer
from rich.console import RenderableType
from rich.text import Text

from strands_persql.admin import AgentSummary, SessionSummary, Totals
from strands_persql.admin.catalogue import SESSIONS_A_PAGE, describe_view
from strands_persql.cli.commands import OneOrAll, command
from strands_persql.cli.connection import Place
from strands_persql.cli.output import Output
from strands_persql.cli.terminal import bars, plain_table, print_all
from strands_persql.cli.wording import counted, moment, number, one_line, remaining, size
from strands_persql.gateway.stats import Stats
from strands_persql.persistence.message_index import MAX_HITS

_DAYS = 14
_TOOLS = 10
_USD_PER_ROW_WRITTEN = 2e-6


class Sort(str, Enum):
    """In which order sessions are listed."""

    ID = "id"
    ACTIVITY = "activity"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    command(app, "list")(list_sessions)
    command(app, "search")(search)
    command(app, "stats")(stats)


def list_sessions(
    where: Place,
    output: Output,
    starts_with: Annotated[
        str, typer.Argument(help="What the ids begin with.", show_default=False)
    ] = "",
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, help="How many at most.")
    ] = SESSIONS_A_PAGE,
    after: Annotated[
        str | None,
        typer.Option("--after", help="Go on behind this one: what the list before ended with."),
    ] = None,
    sort: Annotated[
        Sort, typer.Option("--sort", help="By id, or the latest activity first.")
    ] = Sort.ID,
    counts: Annotated[
        bool, typer.Option("--counts", "-c", help="Count messages and tokens, which reads them.")
    ] = False,
) -> None:
    """List sessions.

    Examples:
    [bold]strands-persql list --local agents.db[/bold]

    [bold]strands-persql list user- --sort activity --counts --database acme/state[/bold]
    """
    with where.open() as admin:
        page = admin.list_sessions(
            limit=limit, after=after, starts_with=starts_with, order=sort.value, counts=counts
        )
    if output.json:
        sessions = [session_document(one) for one in page.items]
        output.document({"sessions": sessions, "next": page.next})
        return
    if not page.items:
        output.note("There are no sessions.")
        return
    with output.pages() as console:
        console.print(_sessions_table(page.items, counts=counts))
        if page.next is not None:
            console.print(
                Text(f"There are more: go on with --after '{one_line(page.next)}'", "dim")
            )


def search(
    where: Place,
    output: Output,
    query: Annotated[str, typer.Argument(help="Words, or beginnings of words.")],
    session: Annotated[
        str | None, typer.Option("--session", "-s", help="In one session, instead of all.")
    ] = None,
    agent: Annotated[
        str | None, typer.Option("--agent", "-a", help="Of one agent of the session.")
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, max=MAX_HITS, help="How many at most.")
    ] = 20,
) -> None:
    """Find messages by what they say, the best first.

    All words must be in a message. It takes an index: setup --search makes it.

    Examples:
    [bold]strands-persql search "seat oslo" --local agents.db[/bold]

    [bold]strands-persql search invoice --session user-42 --database acme/state --json[/bold]
    """
    with where.open() as admin:
        hits = admin.search(query, session_id=session, agent_id=agent, limit=limit)
    if output.json:
        output.document({"hits": [asdict(one) for one in hits]})
        return
    if not hits:
        output.note("No message has these words.")
        return
    table = plain_table("session", "agent", "message", "who", "says", right=("message",))
    for one in hits:
        cells = [one.session_id, one.agent_id, str(one.message_id), one.role, one.snippet]
        table.add_row(*(Text(one_line(cell)) for cell in cells))
    with output.pages() as console:
        console.print(table)


def session_document(session: SessionSummary) -> dict[str, Any]:
    """Return a session as its JSON has it."""
    document = asdict(session)
    if session.contents is None:
        del document["contents"]
    return document


def agent_document(agent: AgentSummary) -> dict[str, Any]:
    """Return an agent as its JSON has it."""
    document = asdict(agent)
    document["view"] = {
        "start": agent.view.start,
        "before": describe_view(agent.view),
        "is_explicit": agent.view.is_explicit,
    }
    if agent.contents is None:
        del document["contents"]
    return document


def _sessions_table(sessions: Sequence[SessionSummary], *, counts: bool) -> RenderableType:
    more = ("messages", "tokens", "size") if counts else ()
    expiry = ("expires",) if any(one.expires_in is not None for one in sessions) else ()
    names = ("session", "agents", "last active", *expiry, *more)
    table = plain_table(*names, right=("agents", *expiry, *more))
    for one in sessions:
        cells = [one_line(one.session_id), str(one.agents), moment(one.active_at)]
        if expiry:
            cells.append("" if one.expires_in is None else remaining(one.expires_in))
        if one.contents is not None:
            tokens = number(one.contents.tokens.total)
            cells += [number(one.contents.messages), tokens, size(one.contents.bytes)]
        table.add_row(*map(Text, cells))
    return table


def stats(
    where: Place,
    output: Output,
    session: OneOrAll = None,
    starts_with: Annotated[
        str, typer.Option("--starts-with", help="What the sessions' ids begin with.")
    ] = "",
) -> None:
    """Show what sessions hold: sizes, tokens, tools, activity by day, and what was written.

    All messages are read for it.

    Examples:
    [bold]strands-persql stats --local agents.db[/bold]

    [bold]strands-persql stats user-42 --local agents.db --json[/bold]
    """
    with where.open() as admin:
        with output.progress("counting") as tell:
            totals = admin.measure(session, starts_with=starts_with, progress=tell)
        used = admin.stats()
    if output.json:
        output.document(_totals_document(totals, used))
        return
    with output.pages() as console:
        print_all(console, _totals(totals, used, console.width))


def _totals_document(totals: Totals, used: Stats) -> dict[str, Any]:
    document = asdict(totals)
    document["days"] = {
        day: {"messages": messages, "turns": turns}
        for day, (messages, turns) in sorted(totals.days.items())
    }
    document["largest"] = [session_document(one) for one in totals.largest]
    document["this_command"] = {
        "round_trips": used.round_trips,
        "rows_read": used.rows_read,
        "cost_usd": used.cost_usd,
    }
    return document


def _totals(totals: Totals, used: Stats, width: int) -> Iterator[RenderableType]:
    yield _heading("What is stored")
    yield from _facts(_stored(totals))
    if totals.contents.tokens.total:
        yield _heading("Tokens")
        yield from _facts(_tokens(totals))
    if totals.days:
        yield _heading("Messages by day")
        yield from bars(_days(totals), min(width, 100))
    if totals.tools:
        yield _heading("Calls of tools")
        yield from bars(_tools(totals), min(width, 100))
    if len(totals.largest) > 1:
        yield _heading("The largest sessions")
        yield from bars(_largest(totals), min(width, 100))
    yield Text()
    yield Text(_spent(used), style="dim")


def _heading(text: str) -> Text:
    return Text(f"\n{text}", style="bold")


def _facts(facts: Sequence[tuple[str, str]]) -> Iterator[Text]:
    label = max(len(name) for name, _ in facts)
    for name, value in facts:
        yield Text.assemble((f"{name:<{label}}  ", "dim"), value)


def _stored(totals: Totals) -> list[tuple[str, str]]:
    contents = totals.contents
    usd = totals.writes * _USD_PER_ROW_WRITTEN
    turns = f" in {counted(contents.turns, 'turn')}" if contents.turns else ""
    return [
        ("sessions", f"{number(totals.sessions)} with {counted(totals.agents, 'agent')}"),
        ("messages", f"{number(contents.messages)}{turns}"),
        ("size", f"{size(contents.bytes + totals.other_bytes)} in {counted(totals.rows, 'row')}"),
        (
            "written",
            f"{counted(totals.writes, 'row')} so far, billed ${usd:.4f} where it is hosted",
        ),
    ]


def _tokens(totals: Totals) -> list[tuple[str, str]]:
    tokens = totals.contents.tokens
    cached = f", {number(tokens.cache_read)} of it from a cache" if tokens.cache_read else ""
    return [
        ("in", f"{number(tokens.input)}{cached}"),
        ("out", number(tokens.output)),
        ("total", number(tokens.total)),
    ]


def _days(totals: Totals) -> list[tuple[str, int, str]]:
    days = sorted(totals.days.items())[-_DAYS:]
    return [
        (one_line(day) or "unknown", messages, f"{number(messages)} in {counted(turns, 'turn')}")
        for day, (messages, turns) in days
    ]


def _tools(totals: Totals) -> list[tuple[str, int, str]]:
    tools = sorted(totals.tools.items(), key=lambda one: (-one[1], one[0]))[:_TOOLS]
    return [(one_line(name, 30), calls, number(calls)) for name, calls in tools]


def _largest(totals: Totals) -> list[tuple[str, int, str]]:
    sizes = [(one, one.contents.bytes if one.contents else 0) for one in totals.largest]
    return [(one_line(one.session_id, 30), count, size(count)) for one, count in sizes]


def _spent(used: Stats) -> str:
    rows = f", {counted(used.rows_read, 'row')} read" if used.rows_read else ""
    cost = f", ${used.cost_usd:.6f}" if used.cost_usd else ""
    return f"This took {counted(used.round_trips, 'round trip')}{rows}{cost}."
