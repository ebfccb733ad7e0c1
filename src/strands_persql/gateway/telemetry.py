"""OpenTelemetry's spans and metrics of a database client, silent where no SDK is configured.

Names are those of OpenTelemetry's conventions for databases; what they don't name begins with
``strands_persql.``. Nothing here holds text of messages, state, SQL, parameters or tokens.
"""

import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType

from opentelemetry import context, metrics, trace

from strands_persql.databases.failures import Cause, Failure
from strands_persql.databases.protocol import Statement

Attributes = Mapping[str, str | int]

_SCOPE = "strands_persql"
_DURATION_BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10)  # those of the conventions
_VERB = re.compile(r"\s*(\w+)")

_tracer = trace.get_tracer(_SCOPE)
_meter = metrics.get_meter(_SCOPE)

_duration = _meter.create_histogram(
    "db.client.operation.duration",
    unit="s",
    description="Duration of database client operations.",
    explicit_bucket_boundaries_advisory=_DURATION_BUCKETS,
)
_counters = {
    name: _meter.create_counter(f"strands_persql.{name}", unit=unit, description=description)
    for name, unit, description in (
        ("round_trips", "{request}", "Requests sent to the database, retries included"),
        ("retries", "{request}", "Requests that retried one after a transient failure"),
        ("conflicts", "{conflict}", "Conditional writes that another writer's came before"),
        ("hits", "{read}", "Reads answered from memory"),
        ("unchanged", "{read}", "Reads of which one request said that memory is up to date"),
        ("misses", "{read}", "Reads that brought something from the database"),
        ("evictions", "{entry}", "Sessions and values dropped from memory for its limit"),
        ("oversized", "{entry}", "Sessions and values larger than the limit, so never kept"),
        ("rows_read", "{row}", "Rows that the database read, where it tells"),
        ("rows_written", "{row}", "Rows that the database wrote, where it tells"),
        ("cost_usd", "{USD}", "What the requests cost, where the service tells"),
    )
}


def attributes_of(database: object) -> Attributes:
    """Return what tells a database apart from others, by the names of the conventions."""
    told: Attributes | None = getattr(database, "telemetry_attributes", None)
    if told is not None:
        return {**told}
    is_sdk = type(database).__module__.partition(".")[0] == "persql"
    return {"db.system.name": "persql" if is_sdk else "other_sql"}


def count(name: str, amount: float = 1, attributes: Attributes | None = None) -> None:
    """Add to a counter, where somebody listens."""
    if amount and name in _counters:
        _counters[name].add(amount, attributes)


def observe_bytes(name: str, description: str, read: Callable[[], int]) -> None:
    """Let a number of bytes be read whenever metrics are collected."""

    def observed(_: metrics.CallbackOptions) -> Iterable[metrics.Observation]:
        return (metrics.Observation(read()),)

    _meter.create_observable_up_down_counter(
        f"strands_persql.{name}", [observed], unit="By", description=description
    )


class Telemetry:
    """Spans and metrics of one database.

    Args:
        database: The database.
    """

    def __init__(self, database: object) -> None:
        """Note what tells it apart."""
        self._attributes = attributes_of(database)
        self._target = self._attributes.get("db.namespace")
        self._operations: dict[str, tuple[str, Attributes]] = {}

    def count(self, name: str, amount: float = 1) -> None:
        """Add to a counter of this database."""
        count(name, amount, self._attributes)

    def operation(self, statements: Sequence[Statement], *, writes: bool) -> tuple[str, Attributes]:
        """Return the name of a request's span, and the attributes that its metrics have too."""
        if len(statements) == 1:
            verb = _VERB.match(statements[0]["sql"])
            name = verb[1].upper() if verb else "BATCH"
        else:
            name = "BATCH" if writes else "BATCH SELECT"
        if name not in self._operations:
            span_name = f"{name} {self._target}" if self._target else name
            self._operations[name] = span_name, {**self._attributes, "db.operation.name": name}
        return self._operations[name]


class RoundTrip:
    """One request to the database: a span, and a duration in the histogram.

    Args:
        telemetry: The database's.
        statements: What is sent.
        writes: Whether any of them may change something.
        attempt: 1 for the first try of a request, one more for each further one.
        may_lack_tables: Whether missing tables are no failure, for they are made then.
        session_id: The session that it is about.
        agent_id: The agent that it is about.
    """

    def __init__(
        self,
        telemetry: Telemetry,
        statements: Sequence[Statement],
        *,
        writes: bool,
        attempt: int,
        may_lack_tables: bool,
        session_id: str | None,
        agent_id: str | None,
    ) -> None:
        """Begin."""
        name, self._attributes = telemetry.operation(statements, writes=writes)
        self._span = _tracer.start_span(
            name, kind=trace.SpanKind.CLIENT, attributes=self._attributes
        )
        self._may_lack_tables = may_lack_tables
        self._token: object = None
        self._error: dict[str, str] | None = None
        if self._span.is_recording():
            self._span.set_attribute("strands_persql.attempt", attempt)
            if len(statements) > 1:
                self._span.set_attribute("db.operation.batch.size", len(statements))
            if session_id is not None:
                self._span.set_attribute("session.id", session_id)
            if agent_id is not None:
                self._span.set_attribute("gen_ai.agent.id", agent_id)

    def __enter__(self) -> "RoundTrip":
        """Make it the current span, that a client's own spans lie within it."""
        if self._span.is_recording():
            self._token = context.attach(trace.set_span_in_context(self._span))
        self._began = time.perf_counter()
        return self

    def used(self, usage: Mapping[str, float]) -> None:
        """Note what the request has cost."""
        if self._span.is_recording():
            self._span.set_attributes({f"strands_persql.{k}": v for k, v in usage.items()})

    def failed(self, error: Exception, failure: Failure) -> None:
        """Note a failure by its class and code, for its text may quote what was stored."""
        if self._may_lack_tables and failure.cause is Cause.SCHEMA:
            self._error = {}
            if self._span.is_recording():
                self._span.set_attribute("strands_persql.tables_missing", True)
            return
        self._error = {"error.type": failure.kind or type(error).__name__}
        code = failure.status or getattr(error, "sqlite_errorname", None)
        if code is not None:
            self._error["db.response.status_code"] = str(code)

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End it."""
        took = time.perf_counter() - self._began
        if exc_type is not None and self._error is None:
            self._error = {"error.type": exc_type.__name__}
        attributes = self._attributes
        if self._error:
            attributes = {**attributes, **self._error}
            self._span.set_attributes(self._error)
            self._span.set_status(trace.StatusCode.ERROR)
        _duration.record(took, attributes)
        if self._token is not None:
            context.detach(self._token)  # type: ignore[arg-type]
        self._span.end()
