"""OpenTelemetry spans and counters by the API that Strands installs; silent without an SDK."""

from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry import metrics, trace

_SCOPE = "strands_persql"
_tracer = trace.get_tracer(_SCOPE)
_meter = metrics.get_meter(_SCOPE)

_counters = {
    name: _meter.create_counter(f"strands_persql.{name}", description=description)
    for name, description in {
        "round_trips": "Requests sent to the database, retries included",
        "retries": "Requests that repeated one that failed in passing",
        "conflicts": "Conditional writes that another writer's came before",
        "hits": "Reads answered from memory",
        "misses": "Reads that the database was asked for",
        "evictions": "Sessions dropped from memory to stay within its limit",
    }.items()
}


def count(name: str, amount: int = 1) -> None:
    """Add to a counter, where somebody listens."""
    if amount and name in _counters:
        _counters[name].add(amount)


@contextmanager
def round_trip(
    session_id: str | None, agent_id: str | None, statements: int
) -> Iterator[trace.Span]:
    """Trace one request to the database; a failure is recorded by its class, without its text."""
    attributes: dict[str, str | int] = {
        "db.system.name": "sqlite",
        "db.operation.batch.size": statements,
    }
    if session_id is not None:
        attributes["session.id"] = session_id
    if agent_id is not None:
        attributes["gen_ai.agent.id"] = agent_id
    with _tracer.start_as_current_span(
        "strands_persql.round_trip",
        kind=trace.SpanKind.CLIENT,
        attributes=attributes,
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        try:
            yield span
        except BaseException as error:
            span.set_attribute("error.type", type(error).__name__)
            span.set_status(trace.StatusCode.ERROR)
            raise
