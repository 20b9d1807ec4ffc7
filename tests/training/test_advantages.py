import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from marc.rewards import RetentionConfig
from marc.training.advantages import group_advantages, group_brevity, group_retention, zero_variance_fraction

accuracy = st.floats(0, 1, allow_nan=False).map(lambda value: round(value, 3))
CONFIG = RetentionConfig(alpha=0.5, tau=0.6)


@given(st.lists(accuracy, min_size=4, max_size=4), accuracy)
def test_retention_follows_the_equations(accuracies, a_full):
    terms, ratios = group_retention(torch.tensor(accuracies), torch.full((4,), a_full), 4, CONFIG)
    teacher = torch.tensor(a_full).item()
    eta = sum(torch.tensor(accuracies).tolist()) / 4 / teacher if teacher else 0.0
    r_c = 0.5 * max(0.0, eta - 0.6)
    for value, term in zip(accuracies, terms.tolist(), strict=True):
        assert math.isclose(term, r_c if value > 0.1 else 0.0, rel_tol=1e-4, abs_tol=1e-5) or abs(value - 0.1) < 1e-6
    assert math.isclose(ratios.item(), eta, rel_tol=1e-4, abs_tol=1e-5)


def test_rows_without_a_teacher_and_ungraded_completions():
    nan = math.nan
    terms, ratios = group_retention(
        torch.tensor([1.0, 0.0, 1.0, nan, nan, nan]), torch.tensor([nan, nan, 0.5, 0.5, 1.0, 1.0]), 2, CONFIG
    )
    assert terms[:2].isnan().all() and terms[3:].isnan().all()
    assert math.isclose(terms[2].item(), 0.5 * (2 - 0.6), rel_tol=1e-6)
    assert [ratio if ratio == ratio else None for ratio in ratios.tolist()] == [None, 2.0, None]


def test_scales_and_zero_variance():
    rewards = torch.tensor([1.0, 0.0, 2.0, 2.0])
    assert group_advantages(rewards, 2, "none").tolist() == [0.5, -0.5, 0.0, 0.0]
    expected = 0.5 / (rewards.std() + 1e-4)
    torch.testing.assert_close(group_advantages(rewards, 2, "batch")[0], expected)
    torch.testing.assert_close(group_advantages(rewards, 2, "group")[0], torch.tensor(0.5 / (0.5**0.5 + 1e-4)))
    assert zero_variance_fraction(rewards, 2) == 0.5


def test_brevity_pays_by_hand_where_all_are_right():
    """Three groups of four: all right, one wrong, one that could not be graded."""
    accuracies = torch.tensor([1.0, 0.5, 1.0, 0.2, 1.0, 1.0, 1.0, 0.1, 1.0, 1.0, 1.0, math.nan])
    lengths = torch.tensor([4, 8, 8, 12, 4, 40, 40, 40, 4, 4, 4, 40])
    gains = group_brevity(accuracies, lengths, 4, correct_above=0.1)
    torch.testing.assert_close(gains, torch.tensor([1 / 3, 0, 0, -1 / 3, *[0.0] * 8]))
    assert (group_brevity(torch.ones(4), torch.zeros(4), 4, 0.1) == 0).all(), "nobody said anything"


@given(st.lists(st.integers(1, 800), min_size=8, max_size=8))
def test_brevity_is_bounded_and_moves_nothing_on_average(lengths):
    gains = group_brevity(torch.ones(8), torch.tensor(lengths), 4, 0.1).view(2, 4)
    assert gains.abs().max() < 1
    torch.testing.assert_close(gains.sum(1), torch.zeros(2), atol=1e-6, rtol=0)
    order = torch.tensor(lengths).view(2, 4)
    assert ((order[:, :, None] < order[:, None, :]) <= (gains[:, :, None] > gains[:, None, :])).all()


def test_a_token_less_is_not_a_whole_advantage():
    """Answers are a token apart: a cost of 0.006 a token after scaling by the group, and brevity."""
    lengths = torch.tensor([20, 20, 20, 21])
    cost = group_advantages(1 - 0.006 * lengths, 4, "group")
    assert cost.abs().max() > 1.4, "as much as being right or wrong"
    assert (0.1 * group_brevity(torch.ones(4), lengths, 4, 0.1)).abs().max() < 0.004
    right = torch.tensor([0.0, 0.0, 1.0, 1.0])  # two guesses without reasoning, two that reasoned
    lengths = torch.tensor([4, 4, 21, 21])
    plain, costly = (group_advantages(right - each * lengths, 4, "none") for each in (0.0, 0.06))
    assert plain[3] > 0 > costly[3], "a cost of length turns reasoning into a loss"
    assert (group_brevity(right, lengths, 4, 0.1) == 0).all()
