"""Running commands as a person would, without a process of their own."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from strands_persql import Database, LocalDatabase, RestClient
from strands_persql.cli.app import app
from tests.engine.engine import Engine
from tests.support.backends import Backend


@dataclass(frozen=True)
class Ran:
    """What a command has done."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass
class Terminal:
    """A shell in which commands work on one database, reached through a pipe."""

    options: list[str]
    environment: dict[str, str] = field(default_factory=dict)

    def run(self, *arguments: str, stdin: str | None = None) -> Ran:
        """Run a command on the database."""
        return self.run_plain(*arguments, *self.options, stdin=stdin)

    def run_plain(self, *arguments: str, stdin: str | None = None) -> Ran:
        """Run a command as it is given."""
        blank = {"PERSQL_TOKEN": "", "PERSQL_DATABASE": "", "PERSQL_API_URL": "", "COLUMNS": "80"}
        result = CliRunner().invoke(
            app, [*arguments], input=stdin, env={**blank, **self.environment}
        )
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Ran(result.exit_code, result.stdout, result.stderr)


Place = tuple[Terminal, Backend]
"""A shell, and the database that its commands work on."""


@contextmanager
def on_a_file(folder: Path) -> Iterator[tuple[Terminal, Backend]]:
    """A shell beside a file."""
    path = folder / "agents.db"
    with LocalDatabase(path) as database:
        yield Terminal(["--local", str(path)]), Backend(database)


@contextmanager
def on_the_engine(engine: Engine, name: str) -> Iterator[tuple[Terminal, Backend]]:
    """A shell that knows of a hosted database."""
    token = engine.token()
    environment = {"PERSQL_TOKEN": token, "PERSQL_API_URL": engine.base_url}
    with RestClient(token, base_url=engine.base_url) as client:
        database: Database = client.database(name)
        yield Terminal(["--database", name], environment), Backend(database)
