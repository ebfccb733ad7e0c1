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
from strands_persql.sessions.repository import PerSQLSessionRepository

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
        """Open the database to look after its sessions.

        Args:
            creates: Whether a file that isn't there is created.

        Raises:
            DatabaseOpenError: If it can't be opened.
            WrongUsageError: If the environment has no token.
        """
        with self._database(creates=creates) as database:
            yield self._admin(database)

    @contextlib.contextmanager
    def open_to_write(self) -> Iterator[tuple[SessionAdmin, PerSQLSessionRepository]]:
        """Open the database to change sessions as an application does; raises as `open` does."""
        with self._database(creates=False) as database:
            yield (
                self._admin(database),
                PerSQLSessionRepository(database, table_prefix=self.prefix, owner=self.owner),
            )

    def _admin(self, database: Database) -> SessionAdmin:
        return SessionAdmin(database, table_prefix=self.prefix, owner=self.owner)

    @contextlib.contextmanager
    def _database(self, *, creates: bool) -> Iterator[Database]:
        if self.local is not None:
            if not creates and not self.local.exists():
                raise DatabaseOpenError(
                    f"{self.local} isn't there; give the name of a database's file"
                )
            with LocalDatabase(self.local) as file:
                yield file
            return
        token = os.environ.get(TOKEN)
        if not token:
            raise WrongUsageError(
                f"a hosted database takes a token: set {TOKEN} in the environment"
            )
        address = os.environ.get(API_URL) or _DEFAULT_API_URL
        with RestClient(token, base_url=address) as client:
            yield client.database(self.database or "")

    def __str__(self) -> str:
        """Return what the command line called it."""
        return str(self.local or self.database)
