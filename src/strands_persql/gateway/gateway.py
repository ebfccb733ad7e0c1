"""One round trip: statements out, rows in; retried, counted, and told apart when they fail."""

import copy
import inspect
import logging
import os
import sqlite3
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from strands_persql.databases.failures import Failure, classify
from strands_persql.databases.protocol import Database, Statement
from strands_persql.databases.results import results_of, rows_of, usage_of
from strands_persql.errors import (
    AccessDeniedError,
    PerSQLError,
    SchemaError,
    StatementError,
)
from strands_persql.gateway.batch import Answer, Batch, Row
from strands_persql.gateway.content_transfer import ContentTransfer
from strands_persql.gateway.request_errors import SchemaMissingError, translate
from strands_persql.gateway.retry import RetryPolicy
from strands_persql.gateway.stats import Counters
from strands_persql.gateway.telemetry import RoundTrip, Telemetry
from strands_persql.runtime.text import one_line
from strands_persql.tables import contents, message_search, migrations
from strands_persql.tables.tables import KEYS, Tables

logger = logging.getLogger("strands_persql")

DEFAULT_MAX_ROW_BYTES = 2_000_000
_LOG_WAIT = 1.0  # seconds that a deletion waits for others to be done with a file's log

_Context = dict[str, Any]


class Gateway:
    """Sends batches to a database and makes the tables the first time they are missed.

    Args:
        database: Where the batches go.
        tables: The tables, made where they are missed.
        retry: How long failed requests are tried again.
        counters: What counts.
        read_only: Whether nothing is to be written, tables included.
    """

    def __init__(
        self,
        database: Database,
        tables: Tables,
        retry: RetryPolicy,
        counters: Counters,
        *,
        read_only: bool = False,
    ) -> None:
        """Initialize without asking the database for anything."""
        if not callable(getattr(database, "batch", None)):
            raise TypeError(f"database={database!r} | {_instead(database)}")
        self.database = database
        self.max_row_bytes: int | None = getattr(database, "max_row_bytes", DEFAULT_MAX_ROW_BYTES)
        self.read_only = read_only
        self._tables = tables
        self._retry = retry
        self._counters = counters
        self._telemetry = Telemetry(database)
        self._takes_key = _takes_idempotency_key(database)
        self._contents = ContentTransfer(tables)
        self._check_tables: Callable[..., None] | None = getattr(database, "check_tables", None)

    def run(
        self,
        batch: Batch,
        *,
        writes: bool = False,
        session_id: str | None = None,
        agent_id: str | None = None,
        is_raw: bool = False,
    ) -> Answer:
        """Run a batch in one transaction and one round trip, and again while that may help.

        What is stored apart from its rows is sent ahead and read behind, where it is much.

        Args:
            batch: What to run, at most 100 statements.
            writes: Whether any of them may change something.
            session_id: The session, for errors and traces, and for what is stored apart.
            agent_id: The agent, for errors and traces.
            is_raw: Whether rows are returned as they are, without what is stored apart from them.

        Returns:
            The rows of each statement.

        Raises:
            DatabaseError: As its subclasses say.
            SchemaError: If tables are missing and this access can't create them.
        """
        context: _Context = {"session_id": session_id, "agent_id": agent_id}
        if writes:
            self._check_writable(context)

        def send(one: Batch, does_write: bool) -> Answer:
            return self._run(one, does_write, context)

        is_second = False
        while True:
            if batch.leaves and session_id is not None:
                answer = self._contents.send(batch, session_id, send)
            else:
                answer = send(batch, writes)
            if is_raw or session_id is None:
                return answer
            whole, lacks_any = self._contents.fill(batch, answer, session_id, send)
            # What is missing may have gone between two requests, and the row with it.
            if writes or not lacks_any or is_second:
                return whole
            is_second = True

    def read_contents(self, session_id: str, wanted: Mapping[str, int]) -> dict[str, list[str]]:
        """Return the parts of a session's contents, of those that are as they were.

        Args:
            session_id: The session.
            wanted: The contents' sizes by their digests.
        """
        context: _Context = {"session_id": session_id, "agent_id": None}
        return self._contents.read(
            wanted, session_id, lambda one, _: self._run(one, False, context)
        )

    def _run(self, batch: Batch, writes: bool, context: _Context) -> Answer:
        try:
            return self._send(batch, writes, context, may_lack_tables=True)
        except SchemaMissingError as missing:
            if self.read_only:
                return self._without_tables(batch, missing, context)
            logger.debug("prefix=<%s> | tables missing or old, setting up", self._tables.prefix)
            self.setup()
            try:
                answer = self._send(batch, writes, context)
            except SchemaMissingError as still:
                raise StatementError(
                    f"the tables {self._tables.prefix}* are complete, but the database still"
                    f" reports something missing ({still})",
                    **context,
                ) from still.error
            return Answer(answer.results, answer.is_ambiguous or missing.is_ambiguous)

    def setup(self) -> None:
        """Create the tables that aren't there and bring older ones up to date.

        Raises:
            SchemaError: If this access may not do that.
        """
        context: _Context = {"session_id": None, "agent_id": None}
        self._check_writable(context)
        described = self._send(Batch(*migrations.describe(self._tables)), False, context).results
        changes = migrations.changes(self._tables, described)
        if not changes:
            return None
        try:
            self._send(Batch(*[Statement(sql=sql) for sql in changes]), True, context)
        except (SchemaMissingError, AccessDeniedError, StatementError) as error:
            if "duplicate column name" in str(error):
                return self.setup()  # another process upgraded at the same moment
            raise self._schema_error(error, context, changes) from error

    def of_owner(self, tables: Tables) -> "Gateway":
        """Return a gateway to the same database, for tables narrowed to an owner."""
        other = copy.copy(self)
        other._tables = tables  # noqa: SLF001 - the same class
        other._contents = self._contents.of_owner(tables)  # noqa: SLF001 - the same class
        return other

    def as_read_only(self) -> "Gateway":
        """Return a gateway to the same database that sends nothing that writes."""
        other = copy.copy(self)
        other.read_only = True
        return other

    def _check_writable(self, context: _Context) -> None:
        if self.read_only:
            raise AccessDeniedError(
                "this access is read only (read_only=True): nothing was sent. Write through a"
                " repository or manager that isn't",
                **context,
            )

    def _without_tables(
        self, batch: Batch, missing: "SchemaMissingError", context: _Context
    ) -> Answer:
        """Return no rows where there are no tables.

        Raises:
            SchemaError: If there are, those of an earlier version.
        """
        described = self._send(Batch(*migrations.describe(self._tables)), False, context).results
        if any(described):
            changes = migrations.changes(self._tables, described)
            raise self._schema_error(missing, context, changes) from missing.error
        return Answer([[] for _ in batch.statements])

    def count(self, **counts: float) -> None:
        """Add to the repository's counters."""
        self._counters.add(**counts)
        for name, amount in counts.items():
            self._telemetry.count(name, amount)

    def _send(
        self, batch: Batch, writes: bool, context: _Context, *, may_lack_tables: bool = False
    ) -> Answer:
        options: dict[str, Any] = {"transaction": True}
        if writes and self._takes_key:
            options["idempotency_key"] = uuid.uuid4().hex
        failures: list[Failure] = []

        def attempt() -> list[list[Row]]:
            self.count(round_trips=1)
            with RoundTrip(
                self._telemetry,
                batch.statements,
                writes=writes,
                attempt=len(failures) + 1,
                may_lack_tables=may_lack_tables,
                **context,
            ) as trip:
                return self._ask(batch, options, failures, trip)

        def before_retry(error: BaseException, wait_s: float) -> None:
            self.count(retries=1)
            _log_retry(error, failures, wait_s, context)

        try:
            rows = self._retry.retry_failures(attempt, before_retry)
        except Exception as error:
            raise translate(error, failures, writes, context) from error
        if len(rows) != len(batch.statements):
            raise StatementError(
                f"the database answered {len(rows)} results to {len(batch.statements)} statements",
                **context,
            )
        return Answer(rows, any(failure.may_have_applied for failure in failures))

    def _ask(
        self, batch: Batch, options: dict[str, Any], failures: list[Failure], trip: RoundTrip
    ) -> list[list[Row]]:
        try:
            self._check_once()
            results = self.database.batch(batch.statements, **options)
        except Exception as error:
            failures.append(classify(error))
            trip.failed(error, failures[-1])
            raise
        results = results_of(results)
        usage = usage_of(results)
        self.count(**usage)
        trip.used(usage)
        return [self._tables.owned(rows_of(result)) for result in results]

    def empty_log(self) -> None:
        """Have a file's log forget what was deleted or redacted; others aren't waited for long.

        A hosted database has no log that could be emptied from here.
        """
        empty = getattr(self.database, "checkpoint", None)
        if empty is None:
            return
        try:
            if empty(wait=_LOG_WAIT):
                return
            why = "another process is reading"
        except (TypeError, sqlite3.Error, PerSQLError) as error:  # what was written is written
            why = one_line(str(error))
        logger.warning(
            "database=<%r> | what was deleted is still in the file's log (%s); call checkpoint()"
            " on the database later",
            self.database,
            why,
        )

    def _check_once(self) -> None:
        """See that nothing of somebody else's stands in the place of the tables."""
        if self._check_tables is not None:
            names = [self._tables.prefix + name for name in (*KEYS, "search_new", "search_changed")]
            self._check_tables(
                names,
                indexes=[f"{self._tables.prefix}{name}" for name in ("search", "message_search")],
                triggers=[
                    *contents.triggers(self._tables, KEYS),
                    *message_search.triggers(self._tables),
                ],
            )
            self._check_tables = None

    def _schema_error(
        self, error: Exception, context: _Context, changes: Sequence[str]
    ) -> SchemaError:
        missing = ", ".join(dict.fromkeys(map(migrations.missing, changes)))
        return SchemaError(
            f"the database lacks {missing}, and this access could not add it ({error}). Let someone"
            " whose token may create tables call PerSQLSessionRepository(database,"
            f" table_prefix={self._tables.prefix!r}).setup() once, or run the SQL that this"
            " error has as its attribute sql",
            sql=";\n".join(changes) + ";",
            **context,
        )


def _log_retry(
    error: BaseException, failures: list[Failure], wait_s: float, context: _Context
) -> None:
    # The error's class alone: its text may quote what was stored.
    logger.warning(
        "session_id=<%s>, agent_id=<%s>, attempt=<%d>, error=<%s>, wait_s=<%.2f>"
        " | a request failed and is tried again after the wait",
        *(None if one is None else one_line(one) for one in context.values()),
        len(failures),
        failures[-1].kind or type(error).__name__,
        wait_s,
    )


def _instead(given: Any) -> str:
    """Return what to give in the place of something that isn't a database."""
    if isinstance(given, str | os.PathLike):
        return "must be a database, not a path: give LocalDatabase(path)"
    if callable(getattr(given, "database", None)):
        return 'is a client: give one of its databases, client.database("namespace/name")'
    if hasattr(given, "read_session"):
        return "is a repository: give a database here, or the repository as repository=..."
    return "must be a database: it has no method batch"


def _takes_idempotency_key(database: Database) -> bool:
    try:
        parameters = inspect.signature(database.batch).parameters
    except (TypeError, ValueError):
        return False
    return "idempotency_key" in parameters
