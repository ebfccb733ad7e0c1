"""The error of the hosted database's client."""

from typing import Any

OWN_KINDS = frozenset(
    {
        "answer_too_large",
        "approval_required",
        "bad_answer",
        "certificate",
        "closed",
        "connect",
        "connection_lost",
        "redirect",
        "timeout",
        "wrong_shape",
    }
)
"""The kinds that the client gives by itself; the service's `errorDetail.kind` is none of them."""


class RestError(Exception):
    """The hosted database could not be asked, or refused.

    Holds neither the token nor the request nor the answer. Nothing is tried again here.

    Attributes:
        message: What happened.
        status: The HTTP status, or None where there was none.
        kind: The service's `errorDetail.kind`, or one of ours: `connect` (never sent),
            `certificate`, `timeout`, `connection_lost`, `bad_answer` (not PerSQL's JSON),
            `wrong_shape` (PerSQL's JSON, without the results that were asked for),
            `answer_too_large`, `redirect`, `closed`, `approval_required`; None where nobody said.
        retry_after: Seconds to wait, where the service said so.
        may_have_applied: False where the request surely changed nothing.
        detail: What the service's `errorDetail` says, or where an approval is missing its
            `approvalUrl` and `hits`; or an empty dict. Values of more than 1,000 characters are
            left out.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        kind: str | None = None,
        retry_after: float | None = None,
        may_have_applied: bool = False,
        detail: dict[str, Any] | None = None,
    ) -> None:
        """Initialize with what is known of the failure."""
        super().__init__(message)
        self.message = message
        self.status = status
        self.kind = kind
        self.retry_after = retry_after
        self.may_have_applied = may_have_applied
        self.detail = detail or {}

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle with all attributes, for errors cross process pools."""
        return type(self), (self.message,), self.__dict__
