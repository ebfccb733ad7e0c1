"""What a three-way merge always holds."""

import copy
import json
from typing import Any

import hypothesis.strategies as st
from hypothesis import given

from strands_persql.persistence.merge import merge, same

scalars = (
    st.none() | st.booleans() | st.integers(-2, 2) | st.floats(-1, 1) | st.text("ab", max_size=2)
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("xyz"), inner, max_size=3)
    ),
    max_leaves=6,
)
states = st.dictionaries(st.sampled_from("abc"), values, max_size=3)


def leaves(state: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """Give what is no object by its path."""
    found: dict[tuple[str, ...], Any] = {}
    for key, value in state.items():
        if isinstance(value, dict) and value:
            found.update(leaves(value, (*path, key)))
        else:
            where = (*path, key)
            found[where] = value
    return found


@given(states, states)
def test_without_a_change_of_ours_what_was_found_stands(base: Any, found: Any) -> None:
    """Who changed nothing takes over what is there."""
    merged, contested = merge(base, found, copy.deepcopy(base))
    assert same(merged, found)
    assert contested == []


@given(states, states)
def test_without_a_change_of_theirs_ours_stands(base: Any, ours: Any) -> None:
    """Where nobody came between, what we want is what is stored."""
    merged, contested = merge(base, copy.deepcopy(base), ours)
    assert same(merged, ours)
    assert contested == []


@given(states, states)
def test_the_same_change_on_both_sides_is_no_contest(base: Any, ours: Any) -> None:
    """Two writers that did the same agree."""
    merged, contested = merge(base, copy.deepcopy(ours), ours)
    assert same(merged, ours)
    assert contested == []


@given(states, states, states)
def test_our_changes_always_stand(base: Any, found: Any, ours: Any) -> None:
    """Each value that we changed or added is in the merge, whatever the other side did."""
    merged, _ = merge(base, found, ours)
    before, after, kept = leaves(base), leaves(ours), leaves(merged)
    for path, value in after.items():
        changed = path not in before or not same(before[path], value)
        if changed and not isinstance(value, dict):
            assert same(kept[path], value)


@given(states, states, states)
def test_our_deletions_always_stand(base: Any, found: Any, ours: Any) -> None:
    """A key that we deleted is gone, whatever the other side made of it."""
    merged, _ = merge(base, found, ours)
    assert not [key for key in base if key not in ours and key in merged]


@given(states, states, states)
def test_what_we_left_alone_is_theirs(base: Any, found: Any, ours: Any) -> None:
    """A key that only the other side changed, added or deleted is as the other side has it."""
    merged, _ = merge(base, found, ours)
    for key in {*base, *found, *ours}:
        untouched = (key in base) == (key in ours) and same(base.get(key), ours.get(key))
        if untouched:
            assert (key in merged) == (key in found)
            assert same(merged.get(key), found.get(key))


@given(states, states, states)
def test_a_contest_is_where_both_changed_and_differ(base: Any, found: Any, ours: Any) -> None:
    """No contest is reported where one side alone changed something."""
    _, contested = merge(base, found, ours)
    for path in contested:
        key = path.split(".")[0]
        assert not same(base.get(key), ours.get(key)) or (key in base) != (key in ours)
        assert not same(base.get(key), found.get(key)) or (key in base) != (key in found)


@given(states, states, states)
def test_merging_again_changes_nothing(base: Any, found: Any, ours: Any) -> None:
    """A merge that is found applied gives itself."""
    merged, _ = merge(base, found, ours)
    again, contested = merge(merged, merged, copy.deepcopy(merged))
    assert same(again, merged)
    assert contested == []


@given(states, states, states)
def test_inputs_are_left_as_they_are(base: Any, found: Any, ours: Any) -> None:
    """A merge changes none of the three."""
    before = copy.deepcopy((base, found, ours))
    merge(base, found, ours)
    assert same(list(before), [base, found, ours])


@given(values, values)
def test_sameness_is_that_of_json(one: Any, other: Any) -> None:
    """Values are the same if their JSON is, apart from the order of keys and the sign of 0."""

    def text(value: Any) -> str:
        return json.dumps(value, sort_keys=True).replace("-0.0", "0.0")

    assert same(one, other) == (text(one) == text(other))
