"""A database as an administrator asks it: tables are read as they are found."""

from typing import Any

from strands_persql.databases.protocol import Database, Statement
from strands_persql.errors import NotFoundError
from strands_persql.gateway.batch import Answer, Batch, Row
from strands_persql.gateway.gateway import Gateway
from strands_persql.gateway.retry import RetryPolicy, policy_of
from strands_persql.gateway.stats import Counters, Stats
from strands_persql.tables import found, migrations
from strands_persql.tables.codec import RowCodec
from strands_persql.tables.found import FoundTables
from strands_persql.tables.large_content import LIST_OF_OBJECT, filled, listed
from strands_persql.tables.tables import Tables


class Access:
    """Reads and writes the tables of one prefix past every cache.

    Reading neither creates nor alters a table: those that are missing have no rows, and those of
    0.1 are read as they are.

    Args:
        database: The database.
        table_prefix: What the tables' names begin with.
        retry: How long failed requests are tried again, or None for the default policy.
        owner: Whose sessions, or None for all.
    """

    def __init__(
        self,
        database: Database,
        table_prefix: str = "strands_",
        retry: RetryPolicy | None = None,
        owner: str | None = None,
    ) -> None:
        """Initialize without asking the database for anything."""
        self.database = database
        self.tables = Tables(table_prefix, owner)
        self._counters = Counters()
        self.gateway = Gateway(database, self.tables, policy_of(retry), self._counters)
        self.codec = RowCodec(self.tables, self.gateway.max_row_bytes)
        self._found: FoundTables | None = None

    def stats(self) -> Stats:
        """Return what has been counted so far."""
        return self._counters.read()

    @property
    def found(self) -> FoundTables:
        """The tables as they were when an operation began."""
        if self._found is None:
            batch = Batch(*migrations.describe(self.tables))
            described = self.gateway.run(batch).results
            self._found = FoundTables(self.tables.prefix, described, self.tables.owner)
        return self._found

    def begin(self) -> None:
        """Begin an operation: tables that weren't complete are looked at again."""
        if self._found is not None and not self._found.are_current:
            self._found = None

    def missing(self) -> list[str]:
        """Return the SQL that the tables need to be as this version has them."""
        batch = Batch(*migrations.describe(self.tables))
        indexes = batch.ask(found.list_indexes(self.tables))
        answer = self.run(batch)
        have = {f"CREATE INDEX IF NOT EXISTS {row['name']} " for row in answer[indexes]}
        changes = migrations.changes(self.tables, answer.results[:indexes])
        return [sql for sql in changes if not any(sql.startswith(one) for one in have)]

    def setup(self) -> None:
        """Create the tables that aren't there, and bring older ones up to date.

        Raises:
            SchemaError: If this access may not do that.
        """
        if self._found is None or not self._found.are_current:
            self.gateway.setup()
            self._found = None

    def rows(self, statement: Statement, **context: Any) -> list[Row]:
        """Run a statement that reads."""
        batch = Batch()
        handle = batch.ask(statement)
        return self.run(batch, **context)[handle]

    def run(self, batch: Batch, *, writes: bool = False, **context: Any) -> Answer:
        """Run a batch in one transaction and one round trip; rows come without large content."""
        return self.gateway.run(batch, writes=writes, is_raw=True, **context)

    def whole(self, text: Any, session_id: str) -> Any:
        """Return JSON with its large content put back in; as it is where some of that is lost."""
        wanted = listed(text) if isinstance(text, str) and LIST_OF_OBJECT in text else {}
        if not wanted:
            return text
        try:
            return filled(text, self.gateway.read_contents(session_id, wanted))
        except KeyError:
            return text

    def whole_row(self, row: Row, session_id: str) -> Row:
        """Return a row with its large content put back in, as `whole` does."""
        columns = [one for one in ("data", "view") if one in row]
        return {**row, **{one: self.whole(row[one], session_id) for one in columns}}


def no_session(session_id: str) -> NotFoundError:
    """Return the error for a session that isn't there."""
    return NotFoundError(f"session {session_id!r} does not exist", session_id=session_id)


def no_agent(session_id: str, agent_id: str) -> NotFoundError:
    """Return the error for an agent that isn't there."""
    return NotFoundError(
        f"agent {agent_id!r} does not exist in session {session_id!r}",
        session_id=session_id,
        agent_id=agent_id,
    )
