"""What can go wrong, one class for each thing a handler would do.

All derive from Strands' ``SessionException``. In the middle of a turn Strands wraps what a hook
raises; `persql_error` finds it::

    PerSQLError
    ├── ConflictError          another writer was first: open the session again
    ├── NotFoundError          the session, agent or message isn't there: create it, or fix the id
    ├── AlreadyExistsError     it is there: read it instead of creating it
    ├── InvalidDataError       JSON can't hold the value: fix what is stored
    ├── TooLargeError          beyond what a row may hold: store less, or elsewhere
    ├── CorruptRowError        a stored row can't be read: repair or delete that row
    ├── SchemaError            tables are missing: let someone who may create them do it
    └── DatabaseError          the database could not be asked
        ├── DatabaseOpenError       it can't be opened or was closed: fix the path, name or address
        ├── UnavailableError        tried until the budget ran out, nothing was written: try later
        ├── OutcomeUnknownError     the write may have been applied: write again or re-read
        ├── AccessDeniedError       token, role, balance or approval: fix the access
        └── StatementError          the database refused the SQL: report it
            └── BadAnswerError      what it answered isn't a result: check what answers there
"""

from typing import Any

from strands.types.exceptions import SessionException


class PerSQLError(SessionException):
    """The root of everything this library raises of its own.

    Attributes:
        session_id: The session that the call was about, or None.
        agent_id: The agent (or multi-agent) that the call was about, or None.
    """

    def __init__(
        self, message: str, *, session_id: str | None = None, agent_id: str | None = None
    ) -> None:
        """Initialize with what happened and to whom.

        Args:
            message: What happened and what to do.
            session_id: The session that the call was about.
            agent_id: The agent that the call was about.
        """
        super().__init__(message)
        self.session_id = session_id
        self.agent_id = agent_id

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle with all attributes, for errors cross process pools."""
        return _rebuild, (type(self), self.args, self.__dict__)


def persql_error(error: BaseException | None) -> PerSQLError | None:
    """Return the error of this package that an error is, or was caused by.

    What a hook raises in the middle of a turn, Strands wraps in its ``EventLoopException``, and
    others may wrap that again. Where the model, a tool or the network failed, there is none.

    Args:
        error: What an agent's call raised.

    Returns:
        The first error of this package on the way to the cause, or None if there is none.

    Examples:
        >>> try:
        ...     agent("Hello.")
        ... except Exception as error:
        ...     if isinstance(persql_error(error), UnavailableError):
        ...         ...  # the database is away: try again later
        ...     raise
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, PerSQLError):
            return error
        seen.add(id(error))
        error = getattr(error, "original_exception", None) or error.__cause__
    return None


def _rebuild(cls: type[PerSQLError], args: tuple[Any, ...], state: dict[str, Any]) -> PerSQLError:
    error = cls.__new__(cls)
    error.args = args
    error.__dict__.update(state)
    return error


class ConflictError(PerSQLError):
    """Another writer came first, and what both wrote can't or may not be merged.

    Nothing of the refused write is stored. A manager that raised it writes nothing more.

    Attributes:
        expected_version: The version that the writer had loaded, or None where messages conflict.
        found_version: The version in the database, or None where messages conflict.
        ours: The refused value, as it would have been stored: an agent's content, a message, a
            multi-agent's state; a list of messages where messages conflict.
        found: What is in the database instead, of the same kind; an empty list where the
            conflicting messages weren't read.
    """

    def __init__(
        self,
        message: str,
        *,
        session_id: str | None = None,
        agent_id: str | None = None,
        expected_version: int | None = None,
        found_version: int | None = None,
        ours: Any = None,
        found: Any = None,
    ) -> None:
        """Initialize with both sides of the conflict."""
        super().__init__(message, session_id=session_id, agent_id=agent_id)
        self.expected_version = expected_version
        self.found_version = found_version
        self.ours = ours
        self.found = found


class NotFoundError(PerSQLError):
    """The session, agent, message or multi-agent isn't in the database."""


class AlreadyExistsError(PerSQLError):
    """What was to be created exists; it was left as it is."""


class InvalidDataError(PerSQLError):
    """A value that JSON can't hold, such as a set, or too deep; nothing was written."""


class TooLargeError(PerSQLError):
    """A row beyond the database's limit; nothing was sent.

    Attributes:
        size: The row's size in bytes.
        limit: The most bytes that the database takes in a row.
    """

    def __init__(self, message: str, *, size: int, limit: int, **context: Any) -> None:
        """Initialize with the size and its limit."""
        super().__init__(message, **context)
        self.size = size
        self.limit = limit


class CorruptRowError(PerSQLError):
    """A stored row isn't JSON or not of its shape; other rows stay readable.

    Attributes:
        table: The table that the row is in.
        key: The row's primary key.
    """

    def __init__(self, message: str, *, table: str, key: tuple[Any, ...], **context: Any) -> None:
        """Initialize with the row's place."""
        super().__init__(message, **context)
        self.table = table
        self.key = key


class SchemaError(PerSQLError):
    """The tables are missing or old, and this access may not create or alter them.

    Attributes:
        sql: The statements for someone who may run them.
    """

    def __init__(self, message: str, *, sql: str, **context: Any) -> None:
        """Initialize with the statements to run."""
        super().__init__(message, **context)
        self.sql = sql


class DatabaseError(PerSQLError):
    """The database could not be asked, or refused.

    Attributes:
        status: The HTTP status, or None where there was none.
        kind: The service's word for the failure (``errorDetail.kind``), or None.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        kind: str | None = None,
        session_id: str | None = None,
        agent_id: str | None = None,
    ) -> None:
        """Initialize with the service's own words."""
        super().__init__(message, session_id=session_id, agent_id=agent_id)
        self.status = status
        self.kind = kind


class DatabaseOpenError(DatabaseError):
    """A database can't be opened, isn't there, or was closed."""


class UnavailableError(DatabaseError):
    """The database was out of reach until the time budget ended; nothing was written."""


class OutcomeUnknownError(DatabaseError):
    """The answer to a write was lost: it may have been applied or not.

    Writing the same again through the same manager or object is safe: a write that has been
    applied recognizes itself.
    """


class AccessDeniedError(DatabaseError):
    """The token, its role, the balance or an approval rule doesn't allow it."""


class StatementError(DatabaseError):
    """The database refused a statement."""


class BadAnswerError(StatementError):
    """What the database answered isn't the results that it was asked for.

    A write may have been applied all the same.

    Attributes:
        may_have_applied: True.
    """

    may_have_applied = True

    def __init__(self, message: str, *, kind: str | None = "wrong_shape", **context: Any) -> None:
        """Initialize with what is wrong with the answer."""
        super().__init__(message, kind=kind, **context)
