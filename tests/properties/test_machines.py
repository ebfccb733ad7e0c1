"""State machines that Hypothesis drives."""

import hypothesis
import pytest
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

from tests.properties.machines import AgainstAModel, ImpatientWriters, StaleWriters
from tests.properties.managers import WarmAgents


@pytest.mark.parametrize(
    "machine",
    [AgainstAModel, StaleWriters, ImpatientWriters, WarmAgents],
    ids=lambda machine: machine.__name__,
)
@pytest.mark.timeout(0)
def test_machine(machine: type[RuleBasedStateMachine]) -> None:
    """No sequence of calls and faults that Hypothesis tries breaks what must always hold."""
    examples = 3 * hypothesis.settings().max_examples
    run_state_machine_as_test(machine, settings=hypothesis.settings(max_examples=examples))
