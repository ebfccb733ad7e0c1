"""Searching messages by what they say, over an index that is brought up to date before."""

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass

from strands_persql.databases.protocol import Statement
from strands_persql.errors import (
    AccessDeniedError,
    OutcomeUnknownError,
    PerSQLError,
    SchemaError,
    StatementError,
)
from strands_persql.gateway.batch import Batch, Handle, Row
from strands_persql.gateway.gateway import Gateway
from strands_persql.runtime.ids import AgentKey, check_id
from strands_persql.runtime.text import one_line
from strands_persql.tables import message_search
from strands_persql.tables.cells import number_in, text_in
from strands_persql.tables.searching import score_of
from strands_persql.tables.tables import Tables

logger = logging.getLogger("strands_persql")

MAX_HITS = 1_000
_IN_EVERY_MESSAGE = (
    " a an and are as at be but by can do for from had has have he her his i if in is it its me my"
    " no not of on or our she so that the their them they this to was we were what when which who"
    " will with would you your "
)
_AGENTS_TOGETHER = 10  # whose new messages one request indexes, `message_search.WINDOW` of each
_CHANGED_TOGETHER = 500  # messages that were changed or deleted, in one request


@dataclass(frozen=True)
class MessageHit:
    """A message that was found.

    Attributes:
        session_id: Its session.
        agent_id: Its agent.
        message_id: Its id.
        role: Whose message it is: ``"user"`` or ``"assistant"``.
        created_at: When it was said, in ISO format.
        score: How well it matches, between 0 and 1.
        snippet: What it says around the words that were looked for.
    """

    session_id: str
    agent_id: str
    message_id: int
    role: str
    created_at: str
    score: float
    snippet: str


class MessageIndex:
    """The full-text index of the messages of one prefix, or of one owner among them.

    Args:
        gateway: What asks the database.
        tables: Its tables.
        is_kept: Whether the index is made where it is missing, and brought up to date as soon as
            something is deleted or redacted.
    """

    def __init__(self, gateway: Gateway, tables: Tables, *, is_kept: bool = False) -> None:
        """Initialize without asking the database for anything."""
        self._gateway = gateway
        self._tables = tables
        self.is_kept = is_kept

    # -- the index -----------------------------------------------------------------------------

    def is_there(self) -> bool:
        """Whether there is an index."""
        batch = Batch()
        found = batch.ask(message_search.find_index(self._tables))
        return self._gateway.run(batch).first(found) is not None

    def setup(self) -> None:
        """Make the index unless it is there, and index all messages, some of them a request.

        Interrupted, it goes on when it is called again.

        Raises:
            SchemaError: If this access may not do that; the error has the SQL for who may.
        """
        if not self.is_there():
            statements = message_search.create_index(self._tables)
            try:
                self._gateway.run(Batch(*statements), writes=True)
                self._overwrite_deleted()
            except (AccessDeniedError, StatementError) as error:
                raise SchemaError(
                    f"the index {self._tables.prefix}message_search could not be made ({error})."
                    " Let someone whose token may create tables do it, or run the SQL that this"
                    " error has as its attribute sql",
                    sql=_sql(statements),
                ) from error
        self.catch_up()

    def _overwrite_deleted(self) -> None:
        try:
            self._gateway.run(
                Batch(message_search.keep_no_deleted_words(self._tables)), writes=True
            )
        except (StatementError, OutcomeUnknownError):  # SQLite before 3.42 can't
            return

    def remove(self) -> None:
        """Remove the index, if it is there.

        Raises:
            AccessDeniedError: If this access may not do that.
        """
        self._gateway.run(Batch(*message_search.drop_index(self._tables)), writes=True)

    # -- bringing it up to date ----------------------------------------------------------------

    def catch_up(self, session_id: str | None = None) -> None:
        """Index what was stored since, and forget what was changed or deleted.

        Args:
            session_id: The session, or None for all.
        """
        self._up_to_date(session_id)

    def forget_deleted(self, session_id: str) -> None:
        """Forget what was deleted or redacted in a session, where the index is kept.

        Nobody finds it in any case, so a failure is a warning.
        """
        if not self.is_kept:
            return
        try:
            self.catch_up(session_id)
        except PerSQLError as error:
            if not self._is_missing(error):
                logger.warning(
                    "session_id=<%s> | words that were deleted are still in the index (%s); the"
                    " next search takes them out",
                    one_line(session_id),
                    one_line(str(error)),
                )

    def purge(self, session_id: str) -> None:
        """Forget what was deleted in a session, and have the index keep no word of it."""
        if self.is_there():
            self.catch_up(session_id)
            self._gateway.run(Batch(message_search.merge(self._tables)), writes=True)

    def _up_to_date(self, session_id: str | None, statement: Statement | None = None) -> list[Row]:
        """Bring the index up to date, and return what a statement finds then.

        Whoever may not write finds what is indexed, and is as it was.
        """
        rows: list[Row] = []
        indexing: list[Statement] = []
        before: object = None
        while True:
            batch = Batch(*indexing)
            asked = self._ask_pending(batch, session_id)
            found = None if statement is None else batch.ask(statement)
            try:
                answer = self._gateway.run(batch, writes=bool(indexing), session_id=session_id)
            except AccessDeniedError:
                if not indexing or statement is None:
                    raise
                return rows
            rows = [] if found is None else answer[found]
            new, changed = (answer[one] for one in asked)
            indexing = self._indexing(new, changed)
            # What stays, for others have written it, would be asked for again for ever.
            if not indexing or self._gateway.read_only or before == (new, changed):
                return rows
            before = (new, changed)

    def _ask_pending(self, batch: Batch, session_id: str | None) -> tuple[Handle, Handle]:
        return (
            batch.ask(message_search.read_new(self._tables, session_id, _AGENTS_TOGETHER)),
            batch.ask(message_search.read_changed(self._tables, session_id, _CHANGED_TOGETHER)),
        )

    def _indexing(self, new: list[Row], changed: list[Row]) -> list[Statement]:
        keys = [
            (AgentKey(text_in(row["session_id"]), text_in(row["agent_id"])), int(row["message_id"]))
            for row in changed
        ]
        agents = [AgentKey(text_in(row["session_id"]), text_in(row["agent_id"])) for row in new]
        return [
            *(message_search.index_changed(self._tables, keys) if keys else ()),
            *(message_search.index_new(self._tables, agents) if agents else ()),
        ]

    # -- searching -----------------------------------------------------------------------------

    def search(
        self, query: str, *, session_id: str | None, agent_id: str | None, limit: int
    ) -> list[MessageHit]:
        """Find messages that have all words of a query, or words that begin so, the best first.

        Args:
            query: The words.
            session_id: The session to look in, or None for all.
            agent_id: The agent whose messages to look at, or None for all of the session's.
            limit: The most to return.

        Raises:
            SchemaError: If there is no index.
            ValueError: If an argument is out of its range.
        """
        if not 1 <= limit <= MAX_HITS:
            raise ValueError(f"limit={limit} | must be from 1 to {MAX_HITS}")
        if agent_id is not None and session_id is None:
            raise ValueError(f"agent_id={agent_id!r} | say of which session")
        if session_id is not None:
            check_id("session", session_id)
        words = _words(query)
        if not words:
            return []
        statement = message_search.search_messages(
            self._tables, words, session_id=session_id, agent_id=agent_id, limit=limit
        )
        rows = self._with_index(lambda: self._up_to_date(session_id, statement))
        return [_hit(row) for row in rows]

    def _with_index(self, call: Callable[[], list[Row]]) -> list[Row]:
        try:
            return call()
        except PerSQLError as error:
            if not self._is_missing(error):
                raise
            if not self.is_kept or self._gateway.read_only:
                raise SchemaError(
                    f"there is no index {self._tables.prefix}message_search to search in. Make it"
                    " with PerSQLSessionRepository(database, search=True).setup()",
                    sql=_sql(message_search.create_index(self._tables)),
                ) from error
        self.setup()
        return call()

    def _is_missing(self, error: PerSQLError) -> bool:
        prefix = self._tables.prefix
        return any(
            f"no such table: {prefix}{name}" in str(error)
            for name in ("message_search", "search_new", "search_changed")
        )


def _words(query: str) -> list[str]:
    """Return the words to look for, without those that nearly every message has."""
    words = set(re.findall(r"[^\W_]+", query.lower()))
    telling = {one for one in words if f" {one} " not in _IN_EVERY_MESSAGE}
    return sorted(telling or words)


def _sql(statements: list[Statement]) -> str:
    return ";\n".join(one["sql"] for one in statements) + ";"


def _hit(row: Row) -> MessageHit:
    return MessageHit(
        row["session_id"],
        row["agent_id"],
        number_in(row["message_id"]),
        text_in(row["role"]),
        text_in(row["created_at"]),
        score_of(row["score"]),
        text_in(row["snippet"]),
    )
