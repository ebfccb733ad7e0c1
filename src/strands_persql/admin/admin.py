"""Sessions as their keeper sees them: found, read, moved, checked and erased."""

from collections.abc import Callable, Iterable, Iterator

from strands_persql.admin import catalogue, checks, erasure, findings, sweeping, totals, transcript
from strands_persql.admin.access import Access
from strands_persql.admin.catalogue import (
    AgentSummary,
    MultiAgentSummary,
    Order,
    Page,
    SessionSummary,
)
from strands_persql.admin.checks import CheckProgress
from strands_persql.admin.erasure import Erasure
from strands_persql.admin.findings import Finding
from strands_persql.admin.moving import MovesSessions
from strands_persql.admin.sweeping import Sweep
from strands_persql.admin.totals import Totals
from strands_persql.admin.transcript import TranscriptEntry
from strands_persql.databases.protocol import Database
from strands_persql.gateway.retry import RetryPolicy
from strands_persql.gateway.stats import Stats
from strands_persql.persistence.message_index import MessageHit, MessageIndex


class SessionAdmin(MovesSessions):
    """Looks after the sessions of one database, past every cache.

    Reading creates and alters no table, and needs no more than a token that may read. Tables of
    strands-persql 0.1 are read as they are.

    Args:
        database: Where the sessions are: `LocalDatabase`, `RestDatabase`, or a handle of the
            persql SDK.
        table_prefix: What the tables' names begin with.
        retry: How long failed requests are tried again, or None for the default policy.
        owner: Whose sessions to look after, under the ids that the owner knows them by: nobody
            else's can be seen or changed. None for all, each under its id in the database.

    Examples:
        >>> from strands_persql import LocalDatabase
        >>> admin = SessionAdmin(LocalDatabase("agents.db"))
        >>> admin.export_archive("agents.jsonl").sessions
        3
    """

    def __init__(
        self,
        database: Database,
        *,
        table_prefix: str = "strands_",
        retry: RetryPolicy | None = None,
        owner: str | None = None,
    ) -> None:
        """Initialize without asking the database for anything."""
        self._tables = Access(database, table_prefix, retry, owner)

    def __repr__(self) -> str:
        """Name the database, the tables and the owner."""
        access, tables = self._tables, self._tables.tables
        of_owner = "" if tables.owner is None else f", owner={tables.owner!r}"
        return f"SessionAdmin({access.database!r}, table_prefix={tables.prefix!r}{of_owner})"

    @property
    def _access(self) -> Access:
        """The database, for an operation that begins."""
        self._tables.begin()
        return self._tables

    def stats(self) -> Stats:
        """Return what has been counted since this object was made."""
        return self._access.stats()

    # -- tables --------------------------------------------------------------------------------

    def setup(self, *, search: bool | None = None) -> None:
        """Create the tables that aren't there, and bring older ones up to date.

        Args:
            search: True to make the full-text index of messages too, False to remove it, None to
                leave that as it is.

        Raises:
            SchemaError: If this access may not do that; the error has the SQL for who may.
            ValueError: If the index, which is all owners', is to be removed for one of them.
        """
        access = self._access
        if search is False and access.tables.owner is not None:
            raise ValueError("search=False | the index is all owners': remove it without an owner")
        access.setup()
        index = MessageIndex(access.gateway, access.tables)
        if search:
            index.setup()
        elif search is not None:
            index.remove()

    def missing_sql(self) -> list[str]:
        """Return the SQL that `setup` would run: nothing where the tables are as they should be."""
        return self._access.missing()

    # -- looking up ----------------------------------------------------------------------------

    def list_sessions(
        self,
        *,
        limit: int = catalogue.SESSIONS_A_PAGE,
        after: str | None = None,
        starts_with: str = "",
        order: Order = "id",
        counts: bool = False,
    ) -> Page[SessionSummary]:
        """List sessions page by page.

        Args:
            limit: The most to return.
            after: `Page.next` of the page before, or None for the first one.
            starts_with: What the ids begin with.
            order: ``"id"``, or ``"activity"`` for the latest first, for which each page reads the
                row of every session and agent.
            counts: Whether to count messages and tokens: all messages of the page's sessions are
                read for it.

        Raises:
            ValueError: If an argument is out of its range.
        """
        return catalogue.list_sessions(
            self._access,
            limit=limit,
            after=after,
            starts_with=starts_with,
            order=order,
            counts=counts,
        )

    def list_agents(self, session_id: str, *, counts: bool = False) -> list[AgentSummary]:
        """List a session's agents, with their states and what they work with.

        Args:
            session_id: The session.
            counts: Whether to count messages and tokens: all messages of the session are read
                for it.

        Raises:
            NotFoundError: If the session isn't there.
        """
        return catalogue.list_agents(self._access, session_id, counts=counts)

    def list_multi_agents(self, session_id: str) -> list[MultiAgentSummary]:
        """List a session's graphs and swarms."""
        return catalogue.list_multi_agents(self._access, session_id)

    def transcript(
        self,
        session_id: str,
        agent_id: str,
        *,
        limit: int = 100,
        after: str | int | None = None,
        newest_first: bool = False,
    ) -> Page[TranscriptEntry]:
        """Read what was said, one page at a time; a row that can't be read says so.

        Args:
            session_id: The session.
            agent_id: The agent.
            limit: The most messages to return.
            after: `Page.next` of the page before, or a message's id: the page begins behind it,
                in the direction of reading.
            newest_first: Whether to read from the end.

        Raises:
            NotFoundError: If the agent isn't there.
            ValueError: If an argument is out of its range.
        """
        return transcript.read_transcript(
            self._access, session_id, agent_id, limit=limit, after=after, newest_first=newest_first
        )

    def search(
        self,
        query: str,
        *,
        session_id: str | None = None,
        agent_id: str | None = None,
        limit: int = 20,
    ) -> list[MessageHit]:
        """Find messages that have all words of a query, or words that begin so, the best first.

        Args:
            query: The words.
            session_id: The session to look in, or None for all.
            agent_id: The agent whose messages to look at, or None for all of the session's.
            limit: The most to return.

        Raises:
            SchemaError: If there is no index: `setup` makes one.
            ValueError: If the limit isn't from 1 to 1,000, or an agent is given without a session.
        """
        access = self._access
        index = MessageIndex(access.gateway, access.tables)
        return index.search(query, session_id=session_id, agent_id=agent_id, limit=limit)

    def measure(
        self,
        session_id: str | None = None,
        *,
        starts_with: str = "",
        progress: Callable[[int], None] | None = None,
    ) -> Totals:
        """Count messages, bytes, writes, tokens, calls of tools and activity by day.

        All messages are read for it, some sessions at a time.

        Args:
            session_id: One session, or None for all.
            starts_with: What the ids of the sessions begin with.
            progress: Called with the number of sessions so far.

        Raises:
            NotFoundError: If the session isn't there.
        """
        return totals.measure(
            self._access, session_id=session_id, starts_with=starts_with, progress=progress
        )

    # -- looking after -------------------------------------------------------------------------

    def check(
        self,
        session_id: str | None = None,
        *,
        progress: Callable[[CheckProgress], None] | None = None,
    ) -> Iterator[Finding]:
        """Read everything, and yield what isn't as it should be, and what `repair` would do.

        Args:
            session_id: One session, or None for all.
            progress: Called from time to time.
        """
        return checks.check(self._access, session_id, progress)

    def repair(self, found: Iterable[Finding]) -> int:
        """Repair what a check has found, each thing by itself.

        What has changed since is left as it is. Managers and caches notice the others.

        Returns:
            How many repairs were made: check again to be sure.
        """
        return findings.repair(self._access, found)

    def sweep(
        self,
        *,
        page_size: int = sweeping.PAGE_SIZE,
        progress: Callable[[Sweep], None] | None = None,
    ) -> Sweep:
        """Remove sessions that have expired, beside writers, in requests of bounded size.

        Args:
            page_size: Messages of a session that one request deletes, or sessions that it looks at.
            progress: Called as it goes on.

        Raises:
            ValueError: If the page is empty.
        """
        return sweeping.sweep(self._access, page_size=page_size, progress=progress)

    def erase(self, session_id: str, *, purge: bool = True) -> Erasure:
        """Delete all that there is of a session, and purge a local file of what it leaves.

        The file is rewritten, so this takes longer the larger it is. Caches of other
        processes hold the session until they look.

        Args:
            session_id: The session.
            purge: Whether to purge the file. Without it, pages that are free now may hold what
                was in them.

        Returns:
            What was there.
        """
        return erasure.erase(self._access, session_id, purge=purge)
