"""Fixtures for tests on the real engine; a conftest imports them by name."""

import os
import uuid
from collections.abc import Iterator

import pytest

from .engine import Engine, find_engine
from .proxy import FaultProxy


def require_engine() -> None:
    """Skip without the engine, saying why; fail where STRANDS_PERSQL_REQUIRE_ENGINE is 1."""
    found = find_engine()
    if isinstance(found, str):
        if os.environ.get("STRANDS_PERSQL_REQUIRE_ENGINE") == "1":
            pytest.fail(found, pytrace=False)
        pytest.skip(found)


@pytest.fixture(scope="session")
def engine_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """The one engine of a test run."""
    require_engine()
    with Engine(tmp_path_factory.mktemp("engine")) as started:
        yield started


@pytest.fixture
def engine(engine_process: Engine) -> Engine:
    """The engine, running: a test that killed it leaves it to be started again here."""
    return engine_process.start()


@pytest.fixture
def fault_proxy(engine: Engine) -> Iterator[FaultProxy]:
    """A proxy before the engine; it passes everything until its `script` is set."""
    with FaultProxy(engine.base_url) as proxy:
        yield proxy


@pytest.fixture
def database_name() -> str:
    """The name of a database that no other test uses."""
    return f"acme/t-{uuid.uuid4().hex[:12]}"
