"""What always holds where two writers' messages are merged in one list."""

import hypothesis.strategies as st
from hypothesis import given

from strands_persql.sessions.weaving import in_order, weave

BASE = range(8)  # what both began with
OURS, THEIRS = range(10, 14), range(20, 24)  # what each may have added


@st.composite
def sides(draw: st.DrawFn) -> tuple[list[int], list[int], list[int]]:
    """Make a sequence, and what two sides made of it: dropped, moved and added items."""
    base = draw(st.lists(st.sampled_from(BASE), unique=True))
    made = [base]
    for own in (OURS, THEIRS):
        kept = draw(st.lists(st.sampled_from(base), unique=True)) if base else []
        added = draw(st.lists(st.sampled_from(own), unique=True))
        in_place = [one for one in base if one in kept] if draw(st.booleans()) else kept
        made.append(
            draw(st.permutations([*in_place, *added]))
            if draw(st.booleans())
            else [*in_place, *added]
        )
    return made[0], list(made[1]), list(made[2])


def without(items: list[int], *others: list[int]) -> list[int]:
    """Give the items that are in none of the others."""
    return [one for one in items if not any(one in other for other in others)]


@given(sides())
def test_who_changed_nothing_takes_what_the_other_made(
    made: tuple[list[int], list[int], list[int]],
) -> None:
    """Without a change on one side the merge is the other side."""
    base, ours, theirs = made
    assert weave(base, base, theirs) == theirs
    assert weave(base, ours, base) == ours


@given(sides())
def test_drops_and_additions_of_both_are_kept(
    made: tuple[list[int], list[int], list[int]],
) -> None:
    """What either dropped is gone, what either added is there, and each item once."""
    base, ours, theirs = made
    woven = weave(base, ours, theirs)
    kept = [one for one in base if one in ours and one in theirs]
    assert sorted(woven) == sorted([*kept, *without(ours, base), *without(theirs, base)])


@given(sides())
def test_theirs_are_in_their_order(made: tuple[list[int], list[int], list[int]]) -> None:
    """What is left of theirs has their order, unless they changed nothing."""
    base, ours, theirs = made
    if theirs == base:
        return
    woven = weave(base, ours, theirs)
    assert [one for one in woven if one in theirs] == [one for one in theirs if one in woven]


@given(sides())
def test_in_order_moves_nothing_but_what_has_a_place(
    made: tuple[list[int], list[int], list[int]],
) -> None:
    """Items with places are sorted where both sides had them so; others stay where they are."""
    base, ours, theirs = made

    def place(one: int) -> int | None:
        return one if one % 3 else None

    woven = weave(base, ours, theirs)
    ordered = in_order(woven, ours, theirs, place=place)
    assert sorted(ordered) == sorted(woven)
    assert [one for one in ordered if place(one) is None] == [
        one for one in woven if place(one) is None
    ]
    assert [place(one) is None for one in ordered] == [place(one) is None for one in woven]
    sorted_sides = all(
        (found := [one for one in side if place(one)]) == sorted(found) for side in (ours, theirs)
    )
    if sorted_sides:
        found = [one for one in ordered if place(one)]
        assert found == sorted(found)
    else:
        assert ordered == woven
