"""The README's comparison is what the program that makes it prints."""

import functools
import re
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.comparison.__main__ import row
from tests.comparison.cases import possible_cases
from tests.comparison.questions import (
    QUESTIONS,
    answered_twice,
    overlapping_turns,
    restored,
    two_writers,
)
from tests.comparison.stores import STORES, Store

README = Path(__file__).parents[2] / "README.md"

_COMES_WITH_US = {"strands.storage"}

each_store = pytest.mark.parametrize(
    "store",
    [
        pytest.param(
            store,
            id=store.name,
            # The others take `make compare`, which runs these as well.
            marks=[] if _COMES_WITH_US.issuperset(store.needs) else pytest.mark.benchmark,
        )
        for store in STORES
    ],
)

measured = functools.cache(row)


def section() -> str:
    """Give the README's section with the comparison."""
    sections = re.split(r"^## ", README.read_text("utf-8"), flags=re.MULTILINE)
    (found,) = (one for one in sections if one.startswith("Compared with"))
    return found


def rows() -> list[list[str]]:
    """Give the table's rows, the head first."""
    return [line.strip("| \n").split(" | ") for line in section().splitlines() if line[:1] == "|"]


@pytest.mark.parametrize("store", STORES[:2], ids=["message", "turn"])
def test_ours_restores_all_and_loses_nothing(store: Store) -> None:
    """With any Strands both writers remain, all cases are restored, and an answer counts once."""
    answers = dict(zip([question.ask for question in QUESTIONS], measured(store)[1:], strict=True))
    cases = len(possible_cases())

    assert answers[two_writers] == "20 of 20; 2 of 2"
    assert answers[overlapping_turns] == "whole"
    assert answers[restored] == f"{cases} of {cases}"
    assert answers[answered_twice] == "once"


@pytest.mark.filterwarnings("ignore")
@each_store
def test_the_table_is_what_is_measured(store: Store) -> None:
    """Each row of the README's table is what the program measures."""
    written_for = re.search(r"strands-agents (\d\S*\d)", section())
    assert written_for
    if version("strands-agents") != written_for[1]:
        pytest.skip(f"the table is of strands-agents {written_for[1]}")
    if store.missing:
        pytest.skip(f"{store.missing} is missing: make compare installs it")

    assert measured(store) in rows()


def test_the_table_has_every_store_and_question() -> None:
    """The README's table has a row for each store and a column for each question."""
    head, _, *others = rows()

    assert head == [question.head for question in QUESTIONS]
    assert [line[0] for line in others] == [store.name for store in STORES]
