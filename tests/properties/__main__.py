"""The state machine over real agents, at any size; a small one is run every day.

By hand::

    python -m tests.properties --examples 500 --steps 30 --writers 2 --commit turn --seed 1
"""

import argparse
import logging
import sys

import hypothesis
from hypothesis.stateful import run_state_machine_as_test

from tests.contract.agents import COMMITS
from tests.properties.agents import machine


def main() -> None:
    """Run what the arguments say; what is wrong is raised, as the shortest steps that show it."""
    parser = argparse.ArgumentParser(prog="python -m tests.properties", description=__doc__)
    parser.add_argument("--examples", type=int, default=100)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--writers", type=int, default=2, choices=[1, 2, 3])
    parser.add_argument("--commit", choices=COMMITS, default="message")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    logging.disable(logging.CRITICAL)
    settings = hypothesis.settings(
        max_examples=asked.examples,
        stateful_step_count=asked.steps,
        deadline=None,
        database=None,
        report_multiple_bugs=False,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    found = hypothesis.seed(asked.seed)(machine(asked.commit, asked.writers))
    run_state_machine_as_test(found, settings=settings)
    sys.stdout.write(f"{asked.examples} runs of {asked.steps} steps: nothing is wrong\n")


if __name__ == "__main__":
    main()
