"""How Hypothesis drives our state machines."""

import hypothesis
import hypothesis.strategies as st
import pytest
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

from tests.support.faults import EVERY_FAULT

_settings = hypothesis.settings()

faults = st.sampled_from([None, None, *EVERY_FAULT])
writers = st.integers(0, 1)

# As long as an ordinary test may take, and longer where the profile wants more.
limited = pytest.mark.timeout(
    2 * _settings.max_examples * max(1, _settings.stateful_step_count // 20)
)


def run(machine: type[RuleBasedStateMachine], *, examples: int = 3, steps: int = 1) -> None:
    """Look for a sequence of rules that breaks a machine.

    Args:
        machine: What holds after each rule.
        examples: How many times the profile's number of sequences are tried.
        steps: How many times the profile's number of rules a sequence may have.
    """
    more = hypothesis.settings(
        max_examples=examples * _settings.max_examples,
        stateful_step_count=steps * _settings.stateful_step_count,
    )
    run_state_machine_as_test(machine, settings=more)
