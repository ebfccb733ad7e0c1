"""Merging by example; tests/properties has the laws."""

from typing import Any

import pytest

from strands_persql.persistence.merge import merge, same

CASES: dict[str, tuple[Any, Any, Any, Any, list[str]]] = {
    "both add": ({}, {"a": 1}, {"b": 2}, {"a": 1, "b": 2}, []),
    "both change one key": ({"a": 0}, {"a": 1}, {"a": 2}, {"a": 2}, ["a"]),
    "both change alike": ({"a": 0}, {"a": 1}, {"a": 1}, {"a": 1}, []),
    "theirs deleted": ({"a": 0, "b": 0}, {"b": 0}, {"a": 0, "b": 0}, {"b": 0}, []),
    "ours deleted": ({"a": 0}, {"a": 0}, {}, {}, []),
    "ours deleted, theirs changed": ({"a": 0}, {"a": 1}, {}, {}, ["a"]),
    "ours changed, theirs deleted": ({"a": 0}, {}, {"a": 1}, {"a": 1}, ["a"]),
    "both deleted": ({"a": 0}, {}, {}, {}, []),
    "nested": ({"d": {}}, {"d": {"a": 1}}, {"d": {"b": 2}}, {"d": {"a": 1, "b": 2}}, []),
    "nested contest": (
        {"d": {"e": {"f": 0}}},
        {"d": {"e": {"f": 1}}},
        {"d": {"e": {"f": 2}}},
        {"d": {"e": {"f": 2}}},
        ["d.e.f"],
    ),
    "lists are whole": ({"l": [1]}, {"l": [1, 2]}, {"l": [1, 3]}, {"l": [1, 3]}, ["l"]),
    "both make an object": ({}, {"d": {"a": 1}}, {"d": {"b": 2}}, {"d": {"a": 1, "b": 2}}, []),
    "object becomes scalar": ({"d": {"a": 1}}, {"d": {"a": 2}}, {"d": 3}, {"d": 3}, ["d"]),
    "none is a value": ({"a": None}, {"a": None}, {"a": 1}, {"a": 1}, []),
    "true is not 1": ({"a": 1}, {"a": 1}, {"a": True}, {"a": True}, []),
}


@pytest.mark.parametrize("case", CASES)
def test_examples(case: str) -> None:
    """Each example merges as its name says, with the contested paths named."""
    base, found, ours, expected, contested = CASES[case]
    merged, paths = merge(base, found, ours)
    assert same(merged, expected)
    assert paths == contested


@pytest.mark.parametrize(
    ("one", "other"), [(1, 1.0), (1, True), (0, False), (None, 0), ("", None), ([], {}), ([1], [2])]
)
def test_unlike_values_are_told_apart(one: Any, other: Any) -> None:
    """JSON tells these apart, though Python's ``==`` may not."""
    assert not same(one, other)
    assert not same({"a": [one]}, {"a": [other]})
