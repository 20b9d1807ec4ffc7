import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from marc.rewards import RetentionConfig
from marc.training.advantages import group_advantages, group_retention, zero_variance_fraction

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
