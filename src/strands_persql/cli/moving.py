"""``export``, ``import`` and ``migrate``: sessions move out, in, and between databases."""

import sys
from collections.abc import Iterator
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from strands_persql.admin import TransferReport
from strands_persql.admin.lines import Existing
from strands_persql.cli.commands import command
from strands_persql.cli.connection import Place, WrongUsageError
from strands_persql.cli.output import Output
from strands_persql.cli.wording import counted, one_line

_STREAM = Path("-")


class Taken(str, Enum):
    """What becomes of a session whose id is taken by another one."""

    REFUSE = "refuse"
    SKIP = "skip"
    REPLACE = "replace"


_Sessions = Annotated[
    list[str] | None,
    typer.Option("--session", "-s", metavar="ID", help="Only this one; may be given again."),
]
_StartsWith = Annotated[
    str, typer.Option("--starts-with", metavar="TEXT", help="Only sessions whose ids begin so.")
]
_Taken = Annotated[
    Taken,
    typer.Option("--existing", help="What becomes of a session whose id another one has."),
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    command(app, "export", asks=True)(export)
    command(app, "import", asks=True)(import_)
    command(app, "migrate", asks=True)(migrate)


def export(
    where: Place,
    output: Output,
    target: Annotated[
        Path, typer.Argument(help="The archive's file, or - for a pipe.", show_default=False)
    ],
    sessions: _Sessions = None,
    starts_with: _StartsWith = "",
    folder: Annotated[
        bool, typer.Option("--folder", help="Write a folder that FileSessionManager reads.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an export that was interrupted.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a file of this name.")
    ] = False,
    existing: _Taken = Taken.REFUSE,
) -> None:
    """Write sessions to an archive of JSON Lines, or to a folder of Strands.

    Examples:
    [bold]strands-persql export all.jsonl --local agents.db[/bold]

    [bold]strands-persql export - -s user-42 --local agents.db | gzip > user-42.jsonl.gz[/bold]

    [bold]strands-persql export sessions/ --folder --database acme/state[/bold]
    """
    if overwrite and target.exists():
        output.confirm(f"Replace {target}?")
    if folder and existing is Taken.REPLACE:
        output.confirm(f"Replace sessions that are in {target} and aren't the same?")
    with where.open() as admin, output.progress("exporting") as tell:
        if folder:
            report = admin.export_directory(
                target,
                sessions or None,
                starts_with=starts_with,
                existing=existing.value,
                progress=tell,
            )
        else:
            report = admin.export_archive(
                sys.stdout.buffer if target == _STREAM else target,
                sessions or None,
                starts_with=starts_with,
                overwrite=overwrite,
                resume=resume,
                progress=tell,
            )
    if target != _STREAM:
        _report(output, report, f"to {target}")


def import_(
    where: Place,
    output: Output,
    source: Annotated[
        Path,
        typer.Argument(
            help="An archive, - for a pipe, or a folder of FileSessionManager or of a bucket.",
            show_default=False,
        ),
    ],
    sessions: _Sessions = None,
    existing: _Taken = Taken.REFUSE,
) -> None:
    """Store sessions of an archive or a folder, each whole and checked, or not at all.

    It can be run again after an interrupt: what is there already, and the same, stays as it is.

    Examples:
    [bold]strands-persql import all.jsonl --local agents.db[/bold]

    [bold]strands-persql import ~/.strands/sessions --database acme/state[/bold]
    """
    if existing is Taken.REPLACE:
        output.confirm(f"Replace sessions in {where} that aren't the same as in {source}?")
    taken: Existing = existing.value
    if sessions and not source.is_dir():
        raise WrongUsageError("--session chooses from a folder; an archive is taken whole")
    with where.open(creates=True) as admin, output.progress("importing") as tell:
        if source.is_dir():
            report = admin.import_directory(source, sessions or None, existing=taken, progress=tell)
        else:
            archive = sys.stdin.buffer if source == _STREAM else source
            report = admin.import_archive(archive, existing=taken, progress=tell)
    _report(output, report, f"to {where}")


def migrate(
    where: Place,
    output: Output,
    from_local: Annotated[
        Path | None,
        typer.Option("--from-local", metavar="FILE", help="From this SQLite file."),
    ] = None,
    from_database: Annotated[
        str | None,
        typer.Option("--from-database", metavar="NS/DB", help="From this hosted database."),
    ] = None,
    from_prefix: Annotated[
        str, typer.Option("--from-prefix", metavar="NAME", help="From tables of this prefix.")
    ] = "strands_",
    from_owner: Annotated[
        str | None,
        typer.Option("--from-owner", metavar="NAME", help="From this owner's sessions."),
    ] = None,
    sessions: _Sessions = None,
    starts_with: _StartsWith = "",
    existing: _Taken = Taken.REFUSE,
) -> None:
    """Copy sessions from another database, from tables of another prefix, or to an owner.

    Tables of strands-persql 0.1 are read as they are, and stay as they are. It can be run again
    after an interrupt.

    Examples:
    [bold]strands-persql migrate --from-local agents.db --database acme/state[/bold]

    [bold]strands-persql migrate --from-prefix strands_ --prefix strands1_ --local agents.db[/bold]

    [bold]strands-persql migrate --session user-42 --owner ada --local agents.db[/bold]
    """
    source = Place(from_local, from_database, from_prefix, from_owner)
    if from_local is None and from_database is None:
        source = Place(where.local, where.database, from_prefix, from_owner)
    if source.chosen() == where:
        raise WrongUsageError(
            "that copies the tables onto themselves: give another --prefix or --owner"
        )
    if existing is Taken.REPLACE:
        output.confirm(f"Replace sessions in {where} that aren't the same?")
    with (
        source.open() as old,
        where.open(creates=True) as admin,
        output.progress("copying") as tell,
    ):
        report = admin.copy_from(
            old,
            sessions or None,
            starts_with=starts_with,
            existing=existing.value,
            progress=tell,
        )
    _report(output, report, f"from {source} to {where}")


def _report(output: Output, report: TransferReport, where: str) -> None:
    if output.json:
        output.document(asdict(report))
        return
    for line in _lines(report, where):
        output.say(line)


def _lines(report: TransferReport, where: str) -> Iterator[str]:
    if report.sessions or not report.unchanged:
        held = [counted(report.messages, "message")]
        if report.checkpoints:
            held.append(counted(report.checkpoints, "checkpoint"))
        yield f"{counted(report.sessions, 'session')} with {' and '.join(held)} {where}"
    if report.replaced:
        yield (f"{counted(len(report.replaced), 'session')} replaced: {_some(report.replaced)}")
    if report.unchanged:
        yield f"{counted(len(report.unchanged), 'session')} there already, and the same"
    if report.skipped:
        yield (
            f"{counted(len(report.skipped), 'session')} skipped, for their ids are taken:"
            f" {_some(report.skipped)}"
        )
    if report.unreadable:
        yield f"{counted(report.unreadable, 'row')} that can't be read, as they are"
    if report.rearranged:
        agents = [" / ".join(one) for one in report.rearranged]
        yield (f"{counted(len(agents), 'agent')} with messages in another order: {_some(agents)}")
    if report.left_out:
        yield f"{counted(report.left_out, 'checkpoint')} left out: a folder has none"


def _some(names: list[str]) -> str:
    shown = ", ".join(one_line(one, 40) for one in names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"  # noqa: PLR2004
