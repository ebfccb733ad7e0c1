"""``setup``, ``check``, ``delete`` and ``erase``: looking after what is stored."""

from dataclasses import asdict
from typing import Annotated

import typer
from rich.text import Text

from strands_persql.admin import Erasure, Finding, SessionAdmin
from strands_persql.cli.commands import OneOrAll, command
from strands_persql.cli.connection import Place
from strands_persql.cli.markdown import Indented
from strands_persql.cli.output import FOUND_DAMAGE, NOT_FOUND, Output
from strands_persql.cli.wording import counted, one_line, size
from strands_persql.errors import SchemaError

_ROWS = {
    "messages": ("message", "messages"),
    "agents": ("agent", "agents"),
    "multi_agents": ("graph or swarm", "graphs and swarms"),
    "checkpoints": ("checkpoint", "checkpoints"),
    "contents": ("part of large content", "parts of large content"),
    "objects": ("value of storages", "values of storages"),
    "parts": ("part of such values", "parts of such values"),
}
"""What the rows of the tables are called."""

_Sessions = Annotated[list[str], typer.Argument(help="The sessions.", show_default=False)]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    command(app, "setup")(setup)
    command(app, "check", asks=True)(check)
    command(app, "delete", asks=True)(delete)
    command(app, "erase", asks=True)(erase)
    command(app, "sweep", asks=True)(sweep)


def setup(
    where: Place,
    output: Output,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the SQL, and run nothing.")
    ] = False,
    search: Annotated[
        bool | None,
        typer.Option(
            "--search/--no-search",
            help="Make the full-text index of messages too, or remove it.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Create the tables, or bring those of earlier versions up to date.

    Needed only where those who use the sessions may not create tables, and for searching.

    Examples:
    [bold]strands-persql setup --local agents.db[/bold]

    [bold]strands-persql setup --dry-run --database acme/state > tables.sql[/bold]
    """
    with where.open(creates=not dry_run) as admin:
        missing = admin.missing_sql()
        if not dry_run:
            try:
                admin.setup(search=search)
            except SchemaError as error:
                output.note(error.sql)
                raise
    if output.json:
        output.document({"sql": missing, "was_run": bool(missing) and not dry_run})
    elif dry_run:
        for sql in missing:
            typer.echo(f"{sql};")
    else:
        done = "were made or brought up to date" if missing else "are as they should be"
        output.say(f"The tables {where.prefix}* in {where} {done}.")
        if search is not None:
            output.say(f"The index of messages {'is up to date' if search else 'is removed'}.")


def check(
    where: Place,
    output: Output,
    session: OneOrAll = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Repair what can be, after it was named.")
    ] = False,
) -> None:
    """Read everything, and name what isn't as it should be.

    Nothing is changed without --repair. The exit code is 4 where anything is left.

    Examples:
    [bold]strands-persql check --local agents.db[/bold]

    [bold]strands-persql check user-42 --repair --local agents.db[/bold]
    """
    with where.open() as admin:
        found = _found(admin, output, session)
        repairs = sum(one.repair is not None for one in found)
        if not output.json:
            _print(output, found, repair=repair)
        repaired = 0
        left = found
        if repair and repairs:
            output.confirm(f"Do these {counted(repairs, 'repair')}?")
            repaired = admin.repair(found)
            left = _found(admin, output, session)
    if output.json:
        output.document(
            {
                "findings": [_document(one) for one in found],
                "repaired": repaired,
                "left": [_document(one) for one in left],
            }
        )
    elif repaired:
        output.say(
            f"{counted(repaired, 'repair')} done;"
            f" {counted(len(left), 'thing') + ' left' if left else 'nothing is left'}."
        )
    if left:
        raise typer.Exit(FOUND_DAMAGE)


def _found(admin: SessionAdmin, output: Output, session: str | None) -> list[Finding]:
    with output.progress("checking") as tell:
        return list(admin.check(session, progress=tell))


def _document(finding: Finding) -> dict[str, object]:
    names = ("kind", "session_id", "agent_id", "message_id", "what", "repair")
    return {name: getattr(finding, name) for name in names}


def _print(output: Output, found: list[Finding], *, repair: bool) -> None:
    console = output.console
    if not found:
        console.print("Everything is as it should be.")
    for one in found:
        place = " / ".join(one_line(part) for part in (one.session_id, one.agent_id) if part)
        if one.message_id is not None:
            place += f" / message {one.message_id}"
        console.print(Text.assemble((place, "bold"), f"  {one.kind.replace('_', ' ')}"))
        console.print(Indented(Text(one_line(one.what)), 2))
        if one.repair is not None:
            console.print(Indented(Text(f"repair: {one_line(one.repair)}", style="green"), 2))
    if found and not repair:
        repairs = sum(one.repair is not None for one in found)
        hint = f"; --repair does {counted(repairs, 'repair')}" if repairs else ""
        console.print(f"{counted(len(found), 'thing')} found{hint}.")


def delete(where: Place, output: Output, sessions: _Sessions) -> None:
    """Delete sessions with all that is in them.

    Rows of a file may be read from its free pages until they are used again: erase leaves nothing.

    Examples:
    [bold]strands-persql delete user-42 --local agents.db[/bold]
    """
    _remove(where, output, sessions, "delete", purges=False)


def erase(where: Place, output: Output, sessions: _Sessions) -> None:
    """Delete sessions so that no byte of them is left, and say what they were.

    A local file is rewritten, which takes longer the larger it is.

    Examples:
    [bold]strands-persql erase user-42 --yes --local agents.db[/bold]
    """
    _remove(where, output, sessions, "erase", purges=True)


def sweep(where: Place, output: Output) -> None:
    """Remove the sessions that have expired.

    Nobody is given a session that has expired, swept or not. Writers may go on meanwhile.

    Examples:
    [bold]strands-persql sweep --yes --local agents.db[/bold]
    """
    output.confirm(f"Remove the sessions that have expired from {where}, for good?")
    with where.open() as admin, output.progress("sweeping") as tell:
        swept = admin.sweep(progress=tell)
    if output.json:
        output.document(asdict(swept))
    else:
        output.say(
            f"{counted(swept.sessions, 'session')} of {swept.looked_at} had expired and"
            f" {'is' if swept.sessions == 1 else 'are'} gone, with"
            f" {counted(swept.messages, 'message')}."
        )
        if swept.parts:
            output.say(f"{counted(swept.parts, 'part')} of content that was never used went too.")


def _remove(where: Place, output: Output, sessions: list[str], verb: str, *, purges: bool) -> None:
    names = ", ".join(one_line(one, 40) for one in sessions)
    output.confirm(f"{verb.capitalize()} {names} in {where}, for good?")
    with where.open() as admin:
        erased = [admin.erase(one, purge=purges) for one in sessions]
    if output.json:
        output.document({"sessions": [asdict(one) for one in erased]})
    else:
        for one in erased:
            _tell(output, one, purges=purges)
    if not all(one.was_there for one in erased):
        raise typer.Exit(NOT_FOUND)


def _tell(output: Output, erased: Erasure, *, purges: bool) -> None:
    name = one_line(erased.session_id)
    if not erased.was_there:
        output.note(f"Session {name} is not there.")
        return
    rows = ", ".join(
        counted(count, *_ROWS[table])
        for table, count in erased.rows.items()
        if table in _ROWS and count
    )
    output.say(f"{name} is gone, with {rows or 'nothing in it'}: {size(erased.bytes)}.")
    if purges and erased.is_purged is None:
        output.say(
            "Its service overwrites its pages in its own time: nothing more can be done from here."
        )
    elif purges and not erased.is_purged:
        output.say(
            "Another process keeps the file busy, so that what was erased may still be in it: run"
            " this again."
        )
