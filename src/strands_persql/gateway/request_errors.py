"""What callers are told of requests that failed, whichever way they did."""

from typing import Any

from strands_persql.databases.failures import Cause, Failure
from strands_persql.errors import (
    AccessDeniedError,
    DatabaseError,
    DatabaseOpenError,
    NotFoundError,
    OutcomeUnknownError,
    PerSQLError,
    StatementError,
    UnavailableError,
)


class SessionExpiredError(NotFoundError):
    """A session that is there and has expired, which is as if it weren't there."""


class SchemaMissingError(Exception):
    """The database lacks tables, or has those of an earlier version.

    Attributes:
        error: What it said.
        is_ambiguous: Whether an earlier try may have been applied.
    """

    def __init__(self, error: Exception, is_ambiguous: bool) -> None:
        """Initialize."""
        super().__init__(str(error))
        self.error = error
        self.is_ambiguous = is_ambiguous


def translate(
    error: Exception, failures: list[Failure], writes: bool, context: dict[str, Any]
) -> Exception:
    """Return what a caller is told of a request that has failed.

    Args:
        error: What the last try raised.
        failures: What the tries were, as far as the database was asked.
        writes: Whether the request writes.
        context: ``session_id`` and ``agent_id``.
    """
    if not failures or isinstance(error, PerSQLError):
        return error
    last = failures[-1]
    unknown = writes and any(failure.may_have_applied for failure in failures)
    if last.cause is Cause.SCHEMA:
        return SchemaMissingError(error, unknown)
    if last.cause is Cause.REFUSED:
        return SessionExpiredError(
            f"session {context['session_id']!r} has expired: nothing was written. Open it again to"
            " begin anew",
            **context,
        )
    where = f"session {context['session_id']!r}" if context["session_id"] else "the database"
    if context["agent_id"]:
        where += f", agent {context['agent_id']!r}"
    said = f"{type(error).__name__}: {error}"
    tries = "one try" if len(failures) == 1 else f"{len(failures)} tries"
    details: dict[str, Any] = {"status": last.status, "kind": last.kind, **context}
    kind, text = _ERRORS[last.cause]
    if unknown:
        kind, text = (
            OutcomeUnknownError,
            (
                "whether a write for {where} was applied isn't known after {tries} ({said})."
                " Write again: a write that was applied is recognized"
            ),
        )
    elif last.cause is Cause.ACCESS:
        text = f"{text}. {_ACCESS.get(last.status, _ACCESS[None])}"
    return kind(text.format(where=where, said=said, tries=tries), **details)


_ERRORS: dict[Cause, tuple[type[DatabaseError], str]] = {
    Cause.TRANSIENT: (
        UnavailableError,
        (
            "the database could not be reached for {where} in {tries} ({said}); nothing was"
            " written. Try later, or allow more time with RetryPolicy(budget=...)"
        ),
    ),
    Cause.ACCESS: (
        AccessDeniedError,
        "the database refused access for {where} ({said})",
    ),
    Cause.ADDRESS: (
        DatabaseOpenError,
        (
            "the database can't be used for {where} ({said}). Check its name and address, and that"
            " neither it nor its client was closed"
        ),
    ),
    Cause.STATEMENT: (
        StatementError,
        "the database refused a request for {where} ({said})",
    ),
}


_ACCESS = {
    401: "The token isn't known: check that it is whole, for this service, and not revoked",
    402: "The namespace's balance is used up: top it up",
    403: "The token is known and may not do this: check its namespace, role and scope",
    None: "Check that this access may write: the token's role and scope, or the file's rights",
}
