"""What all tests share: the real engine, Hypothesis' profiles, and a sentence for each test."""

import os
from typing import Any

import hypothesis
import pytest

pytest.register_assert_rewrite(
    "tests.contract.agents",
    "tests.contract.helpers",
    "tests.contract.stopped",
    "tests.properties.agents",
    "tests.properties.machines",
)

from tests.engine.fixtures import (  # noqa: E402 - after the modules that assert are known
    database_name,
    engine,
    engine_process,
    fault_proxy,
)

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
