"""Which database a command is for, and how it is opened."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from strands_persql.admin import SessionAdmin
from strands_persql.databases.local import LocalDatabase
from strands_persql.databases.protocol import Database
from strands_persql.databases.rest import RestClient
from strands_persql.errors import DatabaseOpenError

TOKEN, DATABASE, API_URL = "PERSQL_TOKEN", "PERSQL_DATABASE", "PERSQL_API_URL"
_DEFAULT_API_URL = "https://api.persql.com"


class WrongUsageError(Exception):
    """Arguments or an environment that name nothing to do."""


@dataclass(frozen=True)
class Place:
    """A database, as the command line names it.

    Attributes:
        local: An SQLite file, or None.
        database: A hosted database's name, or None.
        prefix: What the tables' names begin with.
        owner: Whose sessions, or None for all.
    """

    local: Path | None
    database: str | None
    prefix: str
    owner: str | None = None

    def chosen(self) -> "Place":
        """Return the place, with the environment's database where none was given.

        Raises:
            WrongUsageError: If there is none, or two.
        """
        if self.local is not None and self.database is not None:
            raise WrongUsageError("give --local or --database, not both")
        if self.local is not None or self.database is not None:
            return self
        named = os.environ.get(DATABASE)
        if not named:
            raise WrongUsageError(
                f"say where the sessions are: --local FILE, --database NS/DB, or {DATABASE} in the"
                " environment"
            )
        return replace(self, database=named)

    @contextlib.contextmanager
    def open(self, *, creates: bool = False) -> Iterator[SessionAdmin]:
        """Open the database.

        Args:
            creates: Whether a file that isn't there is created.

        Raises:
            DatabaseOpenError: If it can't be opened.
            WrongUsageError: If the environment has no token.
        """
        with contextlib.ExitStack() as stack:
            database: Database
            if self.local is not None:
                if not creates and not self.local.exists():
                    raise DatabaseOpenError(
                        f"{self.local} isn't there; give the name of a database's file"
                    )
                database = stack.enter_context(LocalDatabase(self.local))
            else:
                token = os.environ.get(TOKEN)
                if not token:
                    raise WrongUsageError(
                        f"a hosted database takes a token: set {TOKEN} in the environment"
                    )
                address = os.environ.get(API_URL) or _DEFAULT_API_URL
                client = stack.enter_context(RestClient(token, base_url=address))
                database = client.database(self.database or "")
            yield SessionAdmin(database, table_prefix=self.prefix, owner=self.owner)

    def __str__(self) -> str:
        """Return what the command line called it."""
        return str(self.local or self.database)
