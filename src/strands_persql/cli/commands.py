"""What commands share: the options that each has, and what becomes of errors."""

import functools
import inspect
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from strands_persql.cli.connection import Place, WrongUsageError
from strands_persql.cli.output import EXISTS, FAILED, NOT_FOUND, USAGE, Output
from strands_persql.errors import AlreadyExistsError, NotFoundError, PerSQLError

_LOCAL = typer.Option("--local", "-l", metavar="FILE", help="An SQLite file.", show_default=False)
_DATABASE = typer.Option(
    "--database",
    "-d",
    metavar="NS/DB",
    help="A hosted database; its token comes from PERSQL_TOKEN. Default: PERSQL_DATABASE.",
    show_default=False,
)
_PREFIX = typer.Option("--prefix", metavar="NAME", help="What the tables' names begin with.")
_OWNER = typer.Option(
    "--owner",
    metavar="NAME",
    help="Only this owner's sessions, under the ids that the owner knows.",
    show_default=False,
)
_JSON = typer.Option("--json", help="Print one JSON document.", show_default=False)
_YES = typer.Option("--yes", "-y", help="Ask nothing before it is done.", show_default=False)

_COMMON: dict[str, tuple[Any, Any]] = {
    "local": (Annotated[Path | None, _LOCAL], None),
    "database": (Annotated[str | None, _DATABASE], None),
    "prefix": (Annotated[str, _PREFIX], "strands_"),
    "owner": (Annotated[str | None, _OWNER], None),
    "json": (Annotated[bool, _JSON], False),
}
_PLACE = ("local", "database", "prefix", "owner")
_ASKING: dict[str, tuple[Any, Any]] = {"yes": (Annotated[bool, _YES], False), **_COMMON}

OneOrAll = Annotated[str | None, typer.Argument(help="One session, or all.", show_default=False)]

Command = Callable[..., None]


def command(app: typer.Typer, name: str, *, asks: bool = False) -> Callable[[Command], Command]:
    """Register a function as a command that works on a database.

    Its first two parameters are the place and the output; the options that say which these are
    come behind its own.

    Args:
        app: Where to register it.
        name: What it is called.
        asks: Whether it asks before it does something, unless it is told not to.
    """
    options = _ASKING if asks else _COMMON

    def register(function: Command) -> Command:
        # Typer reads a command's options from its signature.
        own = list(inspect.signature(function).parameters.values())[2:]
        common = [
            inspect.Parameter(one, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
            for one, (kind, default) in options.items()
        ]

        @functools.wraps(function)
        def run(**values: Any) -> None:
            where = Place(*(values.pop(one) for one in _PLACE))
            output = Output(json=values.pop("json"), yes=values.pop("yes", False))
            _guarded(output, lambda: function(where.chosen(), output, **values))

        parameters = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in own] + common
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {one.name: one.annotation for one in parameters}
        app.command(name, help=_help(inspect.getdoc(function) or ""))(run)
        return function

    return register


def _help(text: str) -> str:
    """Return a docstring whose paragraphs fill the line, however wide that is; examples stay."""
    return "\n\n".join(
        one if one.startswith(("Examples:", "[bold]")) else " ".join(one.split())
        for one in text.split("\n\n")
    )


def _guarded(output: Output, call: Callable[[], None]) -> None:
    """Run a command; errors become a sentence and an exit code."""
    try:
        call()
    except BrokenPipeError:  # whoever reads has seen enough
        output.discard()
    except WrongUsageError as error:
        raise output.fail(error, USAGE) from error
    except NotFoundError as error:
        raise output.fail(error, NOT_FOUND) from error
    except AlreadyExistsError as error:
        raise output.fail(error, EXISTS) from error
    except (PerSQLError, sqlite3.Error, OSError, ValueError) as error:
        raise output.fail(error, FAILED) from error
