"""Tie groups and letters: what shares a letter was not told apart, and nothing else."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given, settings
from hypothesis import strategies as st

from subspace.statistics.ties import letters_of, tie_groups


def test_a_chain_overlaps() -> None:
    groups = tie_groups(("a", "b", "c"), {frozenset("ac")})
    assert groups == (("a", "b"), ("b", "c"))
    assert letters_of(groups, ("a", "b", "c")) == {"a": "a", "b": "ab", "c": "b"}


def test_all_alike_and_all_apart() -> None:
    arms = ("a", "b", "c", "d")
    pairs = {frozenset(pair) for pair in combinations(arms, 2)}
    assert tie_groups(arms, set()) == (arms,)
    assert tie_groups(arms, pairs) == (("a",), ("b",), ("c",), ("d",))


def test_many_groups_have_letters_of_their_own() -> None:
    arms = tuple(f"arm{index}" for index in range(60))
    letters = letters_of([(arm,) for arm in arms], arms)
    assert len(set(letters.values())) == 60
    assert (letters["arm0"], letters["arm26"], letters["arm52"]) == ("a", "A", "a2")


@settings(max_examples=80, deadline=None)
@given(st.integers(2, 9), st.data())
def test_groups_say_exactly_what_was_told_apart(size: int, data: st.DataObject) -> None:
    arms = tuple("abcdefghi"[:size])
    pairs = [frozenset(pair) for pair in combinations(arms, 2)]
    apart = set(data.draw(st.lists(st.sampled_from(pairs), unique=True)))
    groups = tie_groups(arms, apart)
    for pair in pairs:
        assert any(pair <= set(group) for group in groups) == (pair not in apart)
    for group in groups:
        # maximal: no other arm could join
        assert not any(
            all(frozenset((arm, member)) not in apart for member in group) for arm in arms if arm not in group
        )
        assert list(group) == sorted(group)
    assert list(groups) == sorted(groups)
    assert {arm for group in groups for arm in group} == set(arms)
