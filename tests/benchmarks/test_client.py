"""What the client costs beside bare urllib3, under load and alone; run by `make bench`."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
import urllib3
from strands import Agent

from strands_persql import PerSQLSessionManager, PerSQLSessionRepository, RestClient
from strands_persql.testing import ScriptedModel
from tests.benchmarks.conftest import Report
from tests.benchmarks.waiting import waiting_service
from tests.engine.engine import Engine

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(600)]

SECONDS, THREADS = 0.1, 100
STATEMENTS: Any = [
    {"sql": "SELECT ? AS a, ? AS b", "params": ["x" * 2000, number]} for number in range(4)
]
BODY = json.dumps({"statements": STATEMENTS, "transaction": True}).encode()


@pytest.fixture(scope="module")
def slow() -> Iterator[str]:
    """The address of a service that takes 100 ms for each request."""
    with waiting_service(SECONDS) as base_url:
        yield base_url


def bare(http: urllib3.PoolManager, base_url: str, **headers: str) -> Callable[[], Any]:
    """Make a call that asks the same with urllib3 alone."""
    url = f"{base_url}/v1/db/acme/bench/batch"
    return lambda: http.request("POST", url, body=BODY, headers=headers, retries=False).json()


def timed(call: Callable[[], Any], requests: int, threads: int) -> tuple[float, float]:
    """Give the seconds that so many calls take from so many threads, and those of the processor."""
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda _: call(), range(threads)))  # so that all connections are there
        began, worked = time.perf_counter(), time.process_time()
        list(pool.map(lambda _: call(), range(requests)))
        return time.perf_counter() - began, time.process_time() - worked


def test_many_threads_wait_as_with_bare_urllib3(slow: str, report: Report) -> None:
    """600 requests from 100 threads take at most 1.3 of what urllib3 alone takes."""
    with RestClient("token", base_url=slow) as client:
        database = client.database("acme/bench")
        with urllib3.PoolManager(maxsize=THREADS, block=True) as http:
            pairs = [
                (
                    timed(lambda: database.batch(STATEMENTS, transaction=True), 600, THREADS),
                    timed(bare(http, slow), 600, THREADS),
                )
                for _ in range(3)
            ]
    ours, theirs = (min(way) for way in zip(*pairs, strict=True))
    report(
        "600 requests of 100 ms from 100 threads / bare urllib3", ours[0] / theirs[0], at_most=1.3
    )


def test_more_threads_ask_more(slow: str, report: Report) -> None:
    """128 threads bring at least 2.5 times the requests a second that 32 bring."""
    with RestClient("token", base_url=slow) as client:
        database = client.database("acme/bench")
        ask = lambda: database.batch(STATEMENTS, transaction=True)  # noqa: E731 - one call
        few, many = (min(timed(ask, 512, threads)[0] for _ in range(2)) for threads in (32, 128))
    report("requests a second from 128 threads / from 32", few / many, at_least=2.5)


def test_the_client_costs_little_over_bare_urllib3(engine: Engine, report: Report) -> None:
    """One thread's requests to the engine take at most 1.3 of what urllib3 alone takes."""
    headers = {"authorization": f"Bearer {engine.token()}", "content-type": "application/json"}
    with (
        urllib3.PoolManager() as http,
        RestClient(engine.token(), base_url=engine.base_url) as client,
    ):
        database = client.database("acme/bench")
        pairs = [
            (
                timed(lambda: database.batch(STATEMENTS, transaction=True), 300, 1),
                timed(bare(http, engine.base_url, **headers), 300, 1),
            )
            for _ in range(5)
        ]
    ours, theirs = (min(way) for way in zip(*pairs, strict=True))
    report("one thread's requests / bare urllib3", ours[0] / theirs[0], at_most=1.3)


def test_many_agents_wait_as_with_bare_urllib3(slow: str, report: Report) -> None:
    """200 agents' plain turns take at most 1.6 of as many urllib3 requests from 100 threads."""
    with RestClient("token", base_url=slow) as client:
        repository = PerSQLSessionRepository(client.database("acme/agents"))
        taken, requests = asyncio.run(turns_at_once(repository, 200))
    with urllib3.PoolManager(maxsize=THREADS, block=True) as http:
        alone = min(timed(bare(http, slow), requests, THREADS)[0] for _ in range(3))
    report("200 agents' turns at 100 ms / as many bare requests", taken / alone, at_most=1.6)


async def turns_at_once(repository: PerSQLSessionRepository, count: int) -> tuple[float, int]:
    """Let so many agents take a plain turn at once; give the best seconds, and the requests."""
    repository.setup()
    makers = ThreadPoolExecutor(128)

    async def make(number: int) -> Agent:
        session = await PerSQLSessionManager.open(f"session-{number}", repository=repository)
        model = ScriptedModel(lambda _: "Hello.")
        agent = partial(Agent, model=model, session_manager=session, callback_handler=None)
        return await asyncio.get_running_loop().run_in_executor(makers, agent)

    agents = await asyncio.gather(*map(make, range(count)))
    times = []
    for _ in range(4):
        before, began = repository.stats(), time.perf_counter()
        await asyncio.gather(*(agent.invoke_async("Hi.") for agent in agents))
        times.append(time.perf_counter() - began)
    makers.shutdown()
    return min(times[1:]), (repository.stats() - before).round_trips
