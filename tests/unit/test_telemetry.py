"""OpenTelemetry spans and counters, and the repository's own counts."""

import gc
import re
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler, SamplingResult
from opentelemetry.trace import SpanKind, StatusCode

from strands_persql import (
    LocalDatabase,
    PerSQLSessionManager,
    PerSQLSessionRepository,
    RestClient,
    Result,
    RetryPolicy,
    SessionCache,
    Statement,
    Stats,
)
from strands_persql.errors import PerSQLError, SchemaError
from strands_persql.testing import CountingDatabase, FaultyDatabase, InterceptingDatabase, ToolCall
from tests.engine.engine import Engine
from tests.support.backends import FAST, NEVER, Backend
from tests.support.conversation import count, session, session_agent, session_message, stored

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.backends("memory")


@pytest.fixture(autouse=True)
def _tables(request: pytest.FixtureRequest) -> None:
    if "backend" in request.fixturenames:
        request.getfixturevalue("backend").repository().setup()


class Switchable(Sampler):
    """Records spans while it is on; a process can't take its provider of them back."""

    def __init__(self) -> None:
        self.on = False

    def should_sample(self, *args: Any, **kwargs: Any) -> SamplingResult:
        return (ALWAYS_ON if self.on else ALWAYS_OFF).should_sample(*args, **kwargs)

    def get_description(self) -> str:
        return "Switchable"


class Listener:
    """An application that has configured OpenTelemetry for its process, as it is done once."""

    def __init__(self) -> None:
        self._exporter, self._reader = InMemorySpanExporter(), InMemoryMetricReader()
        self.sampler = Switchable()
        tracers = TracerProvider(sampler=self.sampler)
        tracers.add_span_processor(SimpleSpanProcessor(self._exporter))
        trace.set_tracer_provider(tracers)
        metrics.set_meter_provider(MeterProvider([self._reader]))
        self._before: Counter[str] = Counter()

    def reset(self) -> None:
        """Forget what was heard."""
        self._exporter.clear()
        self._before = self._totals()

    @property
    def spans(self) -> list[ReadableSpan]:
        """The spans that have ended, but for those of Strands itself."""
        return [
            span
            for span in self._exporter.get_finished_spans()
            if span.instrumentation_scope is not None
            and span.instrumentation_scope.name in ("strands_persql", "somebody")
        ]

    def counts(self) -> Counter[str]:
        """Give what the counters have counted."""
        return self._totals() - self._before

    def metrics(self) -> dict[str, Any]:
        """Give the library's metrics by name, as the SDK has collected them."""
        data = self._reader.get_metrics_data()
        return {
            metric.name: metric
            for resource in ([] if data is None else data.resource_metrics)
            for scope in resource.scope_metrics
            if scope.scope.name == "strands_persql"
            for metric in scope.metrics
        }

    def durations(self, namespace: str) -> list[tuple[Mapping[str, Any], int]]:
        """Give the attributes and counts of one database's durations."""
        points = self.metrics()["db.client.operation.duration"].data.data_points
        return [
            (point.attributes, point.count)
            for point in points
            if point.attributes.get("db.namespace") == namespace
        ]

    def _totals(self) -> Counter[str]:
        totals: Counter[str] = Counter()
        for name, metric in self.metrics().items():
            points = metric.data.data_points
            totals[name.removeprefix("strands_persql.")] = sum(
                getattr(point, "value", 0) for point in points
            )
        return totals


@pytest.fixture(scope="session")
def listener() -> Listener:
    """The one listener of a test run."""
    return Listener()


@pytest.fixture
def heard(listener: Listener, _tables: None) -> Iterator[Listener]:
    """What the library tells during one test."""
    listener.sampler.on = True
    listener.reset()
    yield listener
    listener.sampler.on = False


def attributes(span: ReadableSpan) -> Mapping[str, Any]:
    """Give a span's attributes."""
    return span.attributes or {}


# -- spans -----------------------------------------------------------------------------------------


def test_each_round_trip_is_a_span(backend: Backend, heard: Listener) -> None:
    """A tool turn has as many spans as requests, each with session, agent and batch size."""
    agent = backend.agent([ToolCall("count"), "one"], tools=[count])
    backend.database.reset()
    heard.reset()
    agent("go")
    assert len(heard.spans) == backend.database.round_trips == 4
    for span, batch in zip(heard.spans, backend.database.log, strict=True):
        assert (span.name, span.kind) == ("BATCH :memory:", SpanKind.CLIENT)
        assert attributes(span) == {
            "db.system.name": "sqlite",
            "db.namespace": ":memory:",
            "db.operation.name": "BATCH",
            "db.operation.batch.size": len(batch),
            "session.id": "s",
            "gen_ai.agent.id": "a",
            "strands_persql.attempt": 1,
            "strands_persql.rows_read": 0,
            "strands_persql.rows_written": attributes(span)["strands_persql.rows_written"],
            "strands_persql.cost_usd": 0,
        }
        assert span.status.status_code is not StatusCode.ERROR


def test_a_clients_own_spans_lie_within_ours(backend: Backend, heard: Listener) -> None:
    """While a request is under way its span is the current one, in the database's thread too."""
    tracer = trace.get_tracer("somebody")
    traced = InterceptingDatabase(backend.plain, before=lambda _: tracer.start_span("inner").end())
    manager = backend.manager(repository=backend.repository(traced))
    agent = backend.agent(["hi"], manager=manager)
    heard.reset()
    with tracer.start_as_current_span("the application's"):
        agent("hello")
    by_id = {span.context.span_id: span for span in heard.spans if span.context}
    inner = [span for span in heard.spans if span.name == "inner"]
    assert len(inner) == 2
    for span in inner:
        assert span.parent is not None
        ours = by_id[span.parent.span_id]
        assert ours.name == "BATCH :memory:"
        assert span.context is not None
        assert ours.context is not None
    assert len({one.context.trace_id for one in heard.spans if one.context}) == 1


@pytest.mark.parametrize("fault", ["lost_request", "lost_answer", "locked"])
def test_a_failure_is_recorded_by_its_class(backend: Backend, heard: Listener, fault: Any) -> None:
    """A failed round trip's span is an error with its class, and without the error's text."""
    repository = backend.repository(FaultyDatabase(backend.database, [fault]), retry=NEVER)
    with pytest.raises(PerSQLError):
        repository.create_session(session())
    (span,) = heard.spans
    assert span.status.status_code is StatusCode.ERROR
    assert not span.status.description
    assert span.events == ()
    names = {
        "lost_request": "ConnectionRefusedError",
        "lost_answer": "ConnectionResetError",
        "locked": "OperationalError",
    }
    assert attributes(span)["error.type"] == names[fault]
    assert "database" not in str(attributes(span))


def test_nothing_that_is_stored_is_told(backend: Backend, heard: Listener) -> None:
    """No span, failed or not, has text of messages, state or SQL."""
    faulty = FaultyDatabase(backend.database, lambda n: "lost_answer" if n % 3 == 2 else None)
    manager = backend.manager(repository=backend.repository(faulty))
    agent = backend.agent(["SECRET"], manager=manager)
    agent.state.set("SECRET", "SECRET")
    agent("SECRET")
    assert any(span.status.status_code is StatusCode.ERROR for span in heard.spans)
    told = " ".join(span.to_json() for span in heard.spans)
    assert "SECRET" not in told
    assert "INSERT" not in told


def test_each_try_is_a_span(backend: Backend, heard: Listener) -> None:
    """Requests that are repeated have a span each, the failed ones and the one that went well."""
    faulty = FaultyDatabase(backend.database, ["lost_answer", "lost_request"])
    backend.repository(faulty, retry=FAST).create_session(session())
    statuses = [span.status.status_code is StatusCode.ERROR for span in heard.spans]
    attempts = [attributes(span)["strands_persql.attempt"] for span in heard.spans]
    assert (statuses, attempts) == ([True, True, False], [1, 2, 3])


def test_a_span_tells_what_its_request_cost(
    engine: Engine, database_name: str, heard: Listener
) -> None:
    """Rows read and written and the price are on the span, where the service tells them."""
    with RestClient(engine.token(), base_url=engine.base_url) as client:
        repository = PerSQLSessionRepository(client.database(database_name))
        repository.setup()
        heard.reset()
        repository.create_session(session())
        (span,) = heard.spans
        stats = repository.stats()
    told = attributes(span)
    assert told["strands_persql.rows_written"] >= 1
    assert 0 < told["strands_persql.cost_usd"] < stats.cost_usd < 0.001
    assert told["strands_persql.rows_read"] >= 0


def test_a_hosted_database_is_told_apart(
    engine: Engine, database_name: str, heard: Listener
) -> None:
    """A hosted database's spans and durations name PerSQL, the database, its server and port."""
    with RestClient(engine.token(), base_url=engine.base_url) as client:
        repository = PerSQLSessionRepository(client.database(database_name))
        repository.setup()
        heard.reset()
        repository.read_session("s")
    (span,) = heard.spans
    host, port = engine.base_url.removeprefix("http://").split(":")
    expected = {
        "db.system.name": "persql",
        "db.namespace": database_name,
        "db.operation.name": "BATCH SELECT",
        "server.address": host,
        "server.port": int(port),
    }
    assert span.name == f"BATCH SELECT {database_name}"
    assert expected.items() <= attributes(span).items()
    assert expected in [told for told, _ in heard.durations(database_name)]


def test_a_refusal_is_told_by_its_status(
    engine: Engine, database_name: str, heard: Listener
) -> None:
    """What the service answers a request that it refuses is on the span and its duration."""
    with RestClient("psql_live_wrong", base_url=engine.base_url) as client:
        repository = PerSQLSessionRepository(client.database(database_name), retry=NEVER)
        with pytest.raises(PerSQLError):
            repository.read_session("s")
    (span,) = heard.spans
    assert attributes(span)["db.response.status_code"] == "401"
    (told, number) = heard.durations(database_name)[-1]
    assert (told["db.response.status_code"], number) == ("401", 1)
    assert told["error.type"] == attributes(span)["error.type"]


def test_a_database_of_ones_own_says_what_it_is(heard: Listener) -> None:
    """Attributes that a database has of its own are on its spans; without any it is another SQL."""

    class Own(InterceptingDatabase):
        telemetry_attributes: Mapping[str, str | int] = {
            "db.system.name": "d1",
            "db.namespace": "x",
        }

    class Silent:
        def __init__(self, database: LocalDatabase) -> None:
            self.query, self.batch = database.query, database.batch

    with LocalDatabase() as database:
        for one, expected in (
            (Own(database), ("d1", "x")),
            (Silent(database), ("other_sql", None)),
        ):
            heard.reset()
            PerSQLSessionRepository(one).read_session("s")
            assert {
                (attributes(span)["db.system.name"], attributes(span).get("db.namespace"))
                for span in heard.spans
            } == {expected}


def test_a_new_database_has_no_error_spans(tmp_path: Path, heard: Listener) -> None:
    """Missing tables are made: the request that missed them is marked, and is no error."""
    with LocalDatabase(tmp_path / "new.db") as database:
        PerSQLSessionRepository(database).create_session(session())
    assert [span.status.status_code for span in heard.spans] == [StatusCode.UNSET] * 4
    marks = [attributes(span).get("strands_persql.tables_missing") for span in heard.spans]
    assert marks == [True, None, None, None]
    assert not any("error.type" in told for told, _ in heard.durations(database.path))


def test_tables_that_cant_be_made_are_an_error_span(tmp_path: Path, heard: Listener) -> None:
    """Where missing tables can't be made, the refusal is an error, by SQLite's name for it."""
    path = tmp_path / "new.db"
    with LocalDatabase(path):
        pass

    def refuse(statements: Sequence[Statement]) -> None:
        if "CREATE TABLE" in statements[0]["sql"]:
            raise sqlite3.OperationalError("attempt to write a readonly database")

    with LocalDatabase(path) as database:
        repository = PerSQLSessionRepository(InterceptingDatabase(database, before=refuse))
        with pytest.raises(SchemaError):
            repository.create_session(session())
    assert [span.status.status_code is StatusCode.ERROR for span in heard.spans] == [
        *(False, False, True)
    ]


# -- durations -------------------------------------------------------------------------------------


def test_durations_are_a_histogram(tmp_path: Path, heard: Listener) -> None:
    """Each request is in the histogram, in seconds and the conventions' buckets, by operation."""
    with LocalDatabase(tmp_path / "durations.db") as database:
        counting = CountingDatabase(database, latency=0.02)
        repository = PerSQLSessionRepository(counting)
        repository.create_session(session())
        repository.read_session("other")
        found = {told["db.operation.name"]: n for told, n in heard.durations(database.path)}
    assert sum(found.values()) == counting.round_trips
    assert found["BATCH SELECT"] >= 1
    histogram = heard.metrics()["db.client.operation.duration"]
    (point, *_) = [
        one
        for one in histogram.data.data_points
        if one.attributes.get("db.namespace") == database.path
    ]
    assert histogram.unit == "s"
    assert point.explicit_bounds == (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10)
    assert 0.02 <= point.min < point.max < 5


# -- counters --------------------------------------------------------------------------------------


def busy(backend: Backend) -> PerSQLSessionRepository:
    """Let a repository do some of everything that is counted."""
    faulty = FaultyDatabase(backend.database, lambda n: "lost_request" if n == 5 else None)
    repository = backend.repository(faulty, cache=SessionCache(max_bytes=6_000))
    repository.create_session(session("big"))
    repository.create_agent("big", session_agent(text="x" * 8_000))
    repository.read_session("big")
    for number in range(3):
        repository.create_session(session(f"s{number}"))
        repository.create_agent(f"s{number}", session_agent(n=number))
        repository.create_message(f"s{number}", "a", session_message("x" * 2_000, 0))
        repository.read_session(f"s{number}")
        repository.read_session(f"s{number}")
        repository.list_messages(f"s{number}", "a")
    stale: Any = backend.repository().read_agent("s0", "a")
    current: Any = repository.read_agent("s0", "a")
    backend.repository().update_agent("s0", stale)
    repository.update_agent("s0", current)
    return repository


def test_counters_agree_with_the_stats(backend: Backend, heard: Listener) -> None:
    """The counters that OpenTelemetry is given are those of ``repository.stats()``."""
    backend.database.reset()
    stats = busy(backend).stats()
    told = heard.counts()
    assert told["retries"] == stats.retries == 1
    assert told["conflicts"] == stats.conflicts == 1
    assert told["evictions"] == stats.evictions > 0
    assert told["hits"] >= stats.hits > 0
    assert told["misses"] >= stats.misses > 0
    assert told["unchanged"] == stats.unchanged > 0
    assert told["oversized"] == stats.oversized > 0
    assert told["rows_written"] >= stats.rows_written > 0
    assert told["round_trips"] == backend.database.round_trips + stats.retries


def test_what_is_counted_is_what_was_done(backend: Backend) -> None:
    """Round trips, hits, misses, retries, conflicts and evictions are each step's own."""
    stored(backend, "zero", n=0)
    repository, other = backend.repository(), backend.repository()
    steps: list[tuple[Any, Stats]] = [
        (lambda: repository.read_session("s"), Stats(round_trips=1, misses=1)),
        (lambda: repository.read_agent("s", "a"), Stats(hits=1)),
        (lambda: repository.read_message("s", "a", 0), Stats(hits=1)),
        (lambda: repository.list_messages("s", "a"), Stats(hits=1)),
        (lambda: repository.read_session("s"), Stats(round_trips=1, unchanged=1)),
        (lambda: other.create_message("s", "a", session_message("one", 1)), Stats()),
        (lambda: repository.read_session("s"), Stats(round_trips=1, misses=1)),
        (lambda: repository.read_session("s"), Stats(round_trips=1, unchanged=1)),
        (lambda: repository.update_agent("s", session_agent(n=1)), Stats(round_trips=1)),
        (repository.cache.clear, Stats()),
        (lambda: repository.read_message("s", "a", 0), Stats(round_trips=1, misses=1)),
        (lambda: repository.list_messages("s", "a"), Stats(round_trips=1, misses=1)),
        (lambda: repository.list_messages("s", "a"), Stats(hits=1)),
    ]
    for number, (step, expected) in enumerate(steps):
        before = repository.stats()
        step()
        counted = repository.stats() - before
        names = (
            *("round_trips", "hits", "unchanged", "misses"),
            *("retries", "conflicts", "evictions", "oversized"),
        )
        assert (number, [getattr(counted, name) for name in names]) == (
            number,
            [getattr(expected, name) for name in names],
        )


def test_a_conflict_is_counted_with_its_round_trip(backend: Backend) -> None:
    """A lost race is one conflict and one more round trip, and no retry."""
    stored(backend, n=0)
    repository = backend.repository()
    held: Any = repository.read_agent("s", "a")
    backend.repository().update_agent("s", session_agent(m=1))
    before = repository.stats()
    repository.update_agent("s", held)
    counted = repository.stats() - before
    assert (counted.conflicts, counted.round_trips, counted.retries) == (1, 2, 0)


def test_rows_and_cost_are_those_of_the_service(engine: Engine, database_name: str) -> None:
    """What the service says of rows and price is added up, read for read and write for write."""
    with RestClient(engine.token(), base_url=engine.base_url) as client:
        database = client.database(database_name)
        results: list[Result] = []

        def listen(_: Sequence[Statement], answer: Sequence[Result]) -> None:
            results.extend(answer)

        PerSQLSessionRepository(database).setup()
        repository = PerSQLSessionRepository(InterceptingDatabase(database, after=listen))
        manager = PerSQLSessionManager("s", repository=repository)
        Backend(database).agent(["hi"], manager=manager)("hello")
    stats = repository.stats()
    assert stats.rows_read == sum(one["rows_read"] for one in results) > 0
    assert stats.rows_written == sum(one["rows_written"] for one in results) > 0
    assert stats.cost_usd == pytest.approx(sum(one["meta"].get("costUsd", 0) for one in results))
    assert stats.round_trips == sum(1 for one in results if one["meta"])


def test_what_is_held_is_a_level(backend: Backend) -> None:
    """``cached_bytes`` is a level: it says what is held now, and is nothing after ``clear``."""
    repository = busy(backend)
    repository.read_session("s1")
    assert 0 < repository.stats().cached_bytes <= 6_000
    later = repository.stats() - Stats(cached_bytes=1)
    assert later.cached_bytes == repository.stats().cached_bytes
    repository.cache.clear()
    assert repository.stats().cached_bytes == 0


def test_counters_have_units_and_databases(backend: Backend, heard: Listener) -> None:
    """Metrics have the units that their page says, and those of requests say of which database."""
    busy(backend)
    page = (ROOT / "docs" / "how-to" / "observability.md").read_text(encoding="utf-8")
    told = {name: metric.unit for name, metric in heard.metrics().items()}
    assert len(told) >= 12  # rows read and costs are told by hosted databases alone
    assert told.items() <= set(re.findall(r"^\| `([\w.]+)` \| \w+, `(\S+)`", page, re.MULTILINE))
    for name in ("round_trips", "conflicts", "hits", "oversized"):
        points = heard.metrics()[f"strands_persql.{name}"].data.data_points
        assert {"db.system.name": "sqlite", "db.namespace": ":memory:"} in [
            point.attributes for point in points
        ]


def test_what_caches_hold_is_told(backend: Backend, heard: Listener) -> None:
    """What all caches of the process hold, and may hold, is read when metrics are collected."""

    def told() -> list[int]:
        gc.collect()
        levels = [
            heard.metrics()[f"strands_persql.{name}"] for name in ("cache_limit", "cached_bytes")
        ]
        return [point.value for level in levels for point in level.data.data_points]

    stored(backend, "zero")
    repository = backend.repository(cache=SessionCache(max_bytes=10**12))
    repository.read_session("s")
    size = repository.stats().cached_bytes
    limit, held = told()
    assert limit >= 10**12
    repository.cache.clear()
    assert told()[1] == held - size < held


@pytest.mark.parametrize(
    ("max_bytes", "expected"), [(0, (0, 3, 0)), (2_000, (0, 3, 0)), (6_000, (3, 0, 2))]
)
def test_a_full_cache_and_none_are_told_apart(
    backend: Backend, max_bytes: int, expected: tuple[int, int, int]
) -> None:
    """Sessions that never fit are counted as that, those that made room for others as evictions."""
    for number in range(3):
        stored(backend, "x" * 4_000, session_id=f"s{number}")
    repository = backend.repository(cache=SessionCache(max_bytes=max_bytes))
    for number in range(3):
        repository.read_session(f"s{number}")
        repository.list_messages(f"s{number}", "a")
    stats = repository.stats()
    oversized = stats.oversized // 2  # each is read twice where it isn't kept
    assert (stats.hits, oversized, stats.evictions) == expected


# -- retries are logged ----------------------------------------------------------------------------


def test_retries_are_logged_before_the_wait(
    backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    """Before each wait a warning has the attempt, the wait, the error's class and escaped ids."""
    logged: list[list[str]] = []

    def sleep(_: float) -> None:
        logged.append([record.getMessage() for record in caplog.records])

    faulty = FaultyDatabase(backend.database, ["lost_answer", "locked"])
    repository = backend.repository(faulty, retry=RetryPolicy(sleep=sleep, first_wait=0.001))
    repository.read_session("s\nERROR \x1b[2J")
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert [len(lines) for lines in logged] == [1, 2]
    pattern = (
        r"session_id=<s ERROR \\x1b\[2J>, agent_id=<None>, attempt=<{}>, error=<{}>, wait_s=<0\.00>"
        r" \| a request failed and is tried again after the wait"
    )
    for line, attempt, error in zip(
        logged[-1], (1, 2), ("ConnectionResetError", "OperationalError"), strict=True
    ):
        assert re.fullmatch(pattern.format(attempt, error), line)


def test_what_isnt_tried_again_isnt_logged_as_that(
    backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    """A failure that is raised, and tables that are made, log no retry."""
    repository = backend.repository(FaultyDatabase(backend.database, ["locked"]), retry=NEVER)
    with pytest.raises(PerSQLError):
        repository.read_session("s")
    with LocalDatabase() as database:
        PerSQLSessionRepository(database).create_session(session())
    assert caplog.records == []


# -- with and without an SDK -----------------------------------------------------------------------


def in_a_process(*lines: str) -> str:
    """Run a conversation in a process of its own, and give all that it says."""
    program = [
        "import sys",
        "from strands_persql import LocalDatabase, PerSQLSessionRepository",
        "from strands.types.session import Session, SessionType",
        *lines,
        "PerSQLSessionRepository(LocalDatabase()).create_session(Session('s', SessionType.AGENT))",
    ]
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", "\n".join(program)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return ran.stdout + ran.stderr


def test_without_an_sdk_nothing_is_told() -> None:
    """Where nobody has configured OpenTelemetry, nothing is printed and nothing recorded."""
    assert in_a_process() == ""


def test_a_provider_that_comes_later_is_told() -> None:
    """An application may configure OpenTelemetry after it has imported the library."""
    told = in_a_process(
        "from opentelemetry import trace",
        "from opentelemetry.sdk.trace import TracerProvider",
        "from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor",
        "provider = TracerProvider()",
        "provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter()))",
        "trace.set_tracer_provider(provider)",
    )
    assert told.count('"name": "BATCH :memory:"') >= 2


def test_without_a_listener_all_works_the_same() -> None:
    """A round trip that nobody hears of is done, and repeated, as any other."""
    with LocalDatabase() as database:
        repository = PerSQLSessionRepository(
            FaultyDatabase(database, [None, None, None, "lost_answer"]),
            retry=RetryPolicy(first_wait=0.001),
        )
        repository.create_session(session())
        repository.create_agent("s", session_agent())
        assert repository.stats().retries == 1
