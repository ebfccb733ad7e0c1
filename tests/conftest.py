"""What all tests share: databases, Hypothesis' profiles, and a sentence for each test."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

pytest.register_assert_rewrite(
    "strands_persql.testing.conformance",
    "tests.contract.agents",
    "tests.contract.stopped",
    "tests.properties.agents",
    "tests.support",
)

from tests.engine.fixtures import (  # noqa: E402 - after the modules that assert are known
    database_name,
    engine,
    engine_process,
    fault_proxy,
)
from tests.support import backends  # noqa: E402 - likewise
from tests.support.backends import Backend  # noqa: E402 - likewise

# Who starts the tests in the background may have them ignore Ctrl+C, and so would the programs that
# some tests start and end with it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

__all__ = ["database_name", "engine", "engine_process", "fault_proxy"]

_COMMON: dict[str, Any] = {
    "deadline": None,
    "database": None,
    "suppress_health_check": [hypothesis.HealthCheck.too_slow],
}
hypothesis.settings.register_profile(
    "default", derandomize=True, max_examples=60, stateful_step_count=20, **_COMMON
)
hypothesis.settings.register_profile(
    "nightly", max_examples=2_000, stateful_step_count=50, print_blob=True, **_COMMON
)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Ask for the sentence that says what each test holds."""
    silent = sorted(
        item.nodeid.partition("[")[0]
        for item in items
        if isinstance(item, pytest.Function) and not (item.function.__doc__ or "").strip()
    )
    if silent:
        raise pytest.UsageError(
            "each test says in a docstring of one sentence what holds; these don't: "
            + ", ".join(dict.fromkeys(silent))
        )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that takes a ``backend`` on all kinds, or on those that its mark names."""
    if "backend" in metafunc.fixturenames:
        mark = metafunc.definition.get_closest_marker("backends")
        metafunc.parametrize(
            "backend", backends.KINDS if mark is None else mark.args, indirect=True
        )


@pytest.fixture
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    """An empty database of the kind that the test is run on."""
    options: dict[str, Any] = {}
    if request.param == "http":
        options["engine"] = request.getfixturevalue("engine")
        options["name"] = request.getfixturevalue("database_name")
    with backends.opened(request.param, tmp_path, **options) as opened:
        yield opened
