"""The fuzzer over stored rows, small; `python -m tests.fuzz.rows --runs N` is it at any size."""

from collections.abc import Iterator

import pytest

from tests.fuzz.rows import TABLES, VALUES, Damage, Fuzz


@pytest.fixture(scope="module")
def fuzz() -> Iterator[Fuzz]:
    """Return a fuzzer with sessions of every kind."""
    made = Fuzz(seed=1)
    yield made
    made.close()


def test_whatever_a_row_is_like_it_costs_that_row(fuzz: Fuzz) -> None:
    """Of 150 odd rows each costs itself alone, is named, and can be replaced and deleted."""
    for number in range(150):
        fuzz.run(number)
    named = TABLES.keys() - {"strands_contents"}  # whose rows are named by those that refer to them
    assert {f"CorruptRowError {table}" for table in named} <= fuzz.ends.keys()


@pytest.mark.parametrize("value", VALUES, ids=lambda one: repr(one)[:25])
def test_whatever_is_in_the_place_of_an_agents_state_and_view(fuzz: Fuzz, value: object) -> None:
    """No value in the columns that an agent is restored from keeps it from going on."""
    for column in ("data", "view"):
        fuzz.damaged(Damage("strands_agents", ("s", "b"), column, value))
