"""Sharing out, against numbers by hand and what the methods promise."""

from hypothesis import given, settings
from hypothesis import strategies as st

from marc.compression.shares import event_tokens, level


def test_equal_parts_have_the_rest_in_front():
    assert level(14, 4, 10) == [4, 4, 3, 3]
    assert level(99, 4, 10) == [10, 10, 10, 10]


def test_events_are_alike_up_to_a_whole_grid_and_then_the_longest_is_seen_more_often():
    """Events of 2, 6 and 1 grids of 4 tokens."""
    lengths = [2, 6, 1]
    shared = [
        event_tokens(lengths, 4, budget, shares=None, most_grids=99) for budget in (3, 7, 12, 14, 18, 23, 36, 99)
    ]
    assert shared == [
        [1, 1, 1], [3, 2, 2], [4, 4, 4], [4, 6, 4], [4, 10, 4], [7, 12, 4], [8, 24, 4], [8, 24, 4]
    ]  # fmt: skip


def test_the_prompt_may_have_room_for_few_grids():
    assert event_tokens([2, 6, 1], 4, 99, shares=None, most_grids=4) == [4, 8, 4]
    assert event_tokens([2, 6, 1], 4, 99, shares=[4, 8, 4], most_grids=4) == [4, 8, 4]
    assert event_tokens([2, 6, 1], 4, 99, shares=[8, 4, 4], most_grids=4) == [8, 4, 4]


def test_shares_are_kept_and_scaled_and_what_does_not_fit_goes_to_others():
    assert event_tokens([3, 3, 3], 8, 40, shares=[1, 20, 9], most_grids=99) == [1, 20, 9]
    assert event_tokens([3, 3, 3], 8, 15, shares=[1, 20, 9], most_grids=99) == [1, 10, 4]
    assert event_tokens([1, 3, 3], 8, 40, shares=[20, 6, 6], most_grids=99) == [8, 12, 12]


@settings(max_examples=300)
@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(1, 50)), min_size=1, max_size=8),
    st.integers(1, 12),
    st.integers(1, 300),
    st.booleans(),
)
def test_more_budget_takes_nothing_from_anybody(events, cost, budget, shared):
    lengths, shares = zip(*events, strict=True)
    budget = max(budget, len(events))
    few, many = (
        event_tokens(lengths, cost, each, shares=shares if shared else None, most_grids=99)
        for each in (budget, budget + 1)
    )
    room = sum(lengths) * cost
    assert sum(few) == min(budget, room, sum(shares) if shared else room)
    assert all(own <= later for own, later in zip(few, many, strict=True))
    assert sum(many) - sum(few) in (0, 1)
