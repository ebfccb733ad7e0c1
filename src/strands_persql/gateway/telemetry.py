"""OpenTelemetry spans and counters by the API that Strands installs; silent without an SDK."""

from collections.abc import Mapping
from types import TracebackType

from opentelemetry import context, metrics, trace

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


class RoundTrip:
    """A span around one request to the database; costs next to nothing where nobody listens.

    Args:
        session_id: The session that it is about.
        agent_id: The agent that it is about.
        statements: How many statements the request has.
    """

    def __init__(self, session_id: str | None, agent_id: str | None, statements: int) -> None:
        """Begin."""
        self._span = _tracer.start_span("strands_persql.round_trip", kind=trace.SpanKind.CLIENT)
        self._token: object = None
        if self._span.is_recording():
            self._span.set_attributes(
                {"db.system.name": "sqlite", "db.operation.batch.size": statements}
            )
            if session_id is not None:
                self._span.set_attribute("session.id", session_id)
            if agent_id is not None:
                self._span.set_attribute("gen_ai.agent.id", agent_id)

    def __enter__(self) -> "RoundTrip":
        """Make it the current span, that a client's own spans lie within it."""
        if self._span.is_recording():
            self._token = context.attach(trace.set_span_in_context(self._span))
        return self

    def used(self, usage: Mapping[str, float]) -> None:
        """Note what the request has cost."""
        if self._span.is_recording():
            self._span.set_attributes({f"strands_persql.{k}": v for k, v in usage.items()})

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End it; a failure is recorded by its class, for its text may quote what was stored."""
        if exc_type is not None:
            self._span.set_attribute("error.type", exc_type.__name__)
            self._span.set_status(trace.StatusCode.ERROR)
        if self._token is not None:
            context.detach(self._token)  # type: ignore[arg-type]
        self._span.end()
