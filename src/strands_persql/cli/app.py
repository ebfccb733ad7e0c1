"""The commands of ``strands-persql``."""

import importlib.metadata
from typing import Annotated

import typer

from strands_persql.cli import going_back, keeping, looking, moving, showing

app = typer.Typer(
    name="strands-persql",
    help="Sessions of Strands agents: find them, read them, move them, look after them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="The sessions are in a file (--local FILE) or hosted (--database NS/DB, with the token"
    " in PERSQL_TOKEN and, where it isn't the usual one, the address in PERSQL_API_URL). Exit"
    " codes: 0 done, 1 failed, 2 wrong usage, 3 not there, 4 check found something, 5 there"
    " already.",
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"strands-persql {importlib.metadata.version('strands-persql')}")
        raise typer.Exit


@app.callback()
def start(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Sessions of Strands agents: find them, read them, move them, look after them."""


for part in (looking, showing, going_back, moving, keeping):
    part.register(app)
