"""Whatever agents, applications, processes and networks do, memory, rows and models agree."""

import logging
import os
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
from hypothesis.stateful import run_state_machine_as_test

from tests.contract.agents import COMMITS
from tests.properties.agents import machine

_DAILY: dict[str, Any] = {
    "max_examples": 8,
    "stateful_step_count": 10,
    "report_multiple_bugs": False,
}
"""A few seconds in all; the nightly profile takes its own numbers."""


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Let nobody write down the failures that are scripted, which are many."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("commit", COMMITS)
@pytest.mark.parametrize("writers", [1, 2])
@pytest.mark.timeout(0)
def test_agents(commit: str, writers: int) -> None:
    """No sequence of steps that Hypothesis tries breaks what must hold after each of them."""
    nightly = os.environ.get("HYPOTHESIS_PROFILE", "default") != "default"
    settings = hypothesis.settings(**{} if nightly else _DAILY)
    run_state_machine_as_test(machine(commit, writers), settings=settings)
