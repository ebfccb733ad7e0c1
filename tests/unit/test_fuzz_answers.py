"""The fuzzer over answers, small; `python -m tests.fuzz.answers --runs N` is it at any size."""

import pytest

from strands_persql.databases.results import rows_of, usage_of
from tests.fuzz.answers import ODD, Fuzz
from tests.hosted.test_rest import ROW, Connect, answering

__all__ = ["answering"]


@pytest.mark.parametrize("seed", [1, 2])
def test_whatever_is_answered_comes_of_it_as_a_result_or_an_error_of_ours(seed: int) -> None:
    """Of 2,000 odd answers each is a sound result or a typed error, and all ends come up."""
    fuzz = Fuzz(seed)
    for number in range(2_000):
        fuzz.run(number)
    assert {"results", "rows", "BadAnswerError", "wrong_shape statement"} <= fuzz.ends.keys()
    assert len(fuzz.ends) > 10


@pytest.mark.parametrize("place", ["beside", "within"])
@pytest.mark.parametrize("odd", ODD, ids=lambda one: repr(one)[:20])
def test_an_odd_meta_changes_nothing_but_the_statistics(
    answering: Connect, place: str, odd: object
) -> None:
    """Whatever stands in the place of meta or its numbers, the rows are what they were."""
    for meta in (odd, {"rowsRead": odd, "costUsd": odd}):
        result = {**ROW, "rowsRead": odd, "rowsWritten": odd}
        body = (
            {"data": result, "meta": meta}
            if place == "beside"
            else {"data": result | {"meta": meta}}
        )
        read = answering({"success": True, **body}).query("SELECT 1")
        assert rows_of(read) == [{"a": 1}]
        assert all(value >= 0 for value in usage_of([read, {"data": [], "meta": meta}]).values())
