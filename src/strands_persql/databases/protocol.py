"""What the rest of the library asks of a database: two methods, satisfied by SDK handles too."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeAlias

from typing_extensions import NotRequired, Required, TypedDict

Value: TypeAlias = str | int | float | None
"""What may be bound to a ``?``: JSON scalars, for the hosted database is reached by JSON."""

Result: TypeAlias = Mapping[str, Any]
"""One statement's result: ``data`` is a list of rows, each a dict by column name.

Ours also carry ``columns``, ``rows_read``, ``rows_written`` and, from the hosted service, ``meta``.
"""


class Statement(TypedDict, total=False):
    """One SQL statement of a batch, with its positional parameters."""

    sql: Required[str]
    params: NotRequired[Sequence[Value]]


class Database(Protocol):
    """A SQLite database that can be asked, near or far.

    `LocalDatabase`, `RestDatabase` and the handles of the ``persql`` SDK satisfy it, and so may
    a class of your own. Its methods are called from several threads at once. It may also have
    ``max_row_bytes``, ``telemetry_attributes``: what tells it apart in OpenTelemetry's spans
    and metrics, such as ``db.system.name`` and ``db.namespace``, and `LocalDatabase.check_tables`,
    which is called once before anything else.
    """

    def query(self, sql: str, params: Sequence[Value] = ..., /) -> Result:
        """Run one statement, committed by itself.

        Args:
            sql: The statement, with ``?`` for each value.
            params: The values, at most 100.

        Returns:
            Its result.
        """
        ...

    def batch(
        self, statements: Sequence[Statement], /, *, transaction: bool = ...
    ) -> Sequence[Result]:
        """Run up to 100 statements in one round trip, in one transaction where asked.

        Args:
            statements: What to run, in order.
            transaction: Whether to apply all of them or none.

        Returns:
            One result a statement, in their order.
        """
        ...
