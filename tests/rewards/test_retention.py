import pytest
from hypothesis import given
from hypothesis import strategies as st

from marc.rewards import RetentionConfig, retention_ratio, retention_reward

unit = st.floats(0, 1)


@given(st.lists(unit, min_size=1, max_size=8), st.floats(0.01, 1), st.floats(0, 2), st.floats(0, 1))
def test_the_equations(accuracies, a_full, alpha, tau):
    eta = sum(accuracies) / len(accuracies) / a_full
    r_c = alpha * max(0, eta - tau)
    expected = [r_c if accuracy > 0.1 else 0 for accuracy in accuracies]
    assert retention_reward(accuracies, a_full, alpha=alpha, tau=tau) == pytest.approx(expected)
    graded = RetentionConfig(alpha=alpha, tau=tau, retention_credit="accuracy")
    shares = [term * accuracy for term, accuracy in zip(expected, accuracies, strict=True)]
    assert retention_reward(accuracies, a_full, config=graded) == pytest.approx(shares)


def test_only_correct_answers_are_paid():
    assert retention_reward([1, 0, 1, 0], 0.5) == pytest.approx([0.12, 0, 0.12, 0])
    assert retention_reward([1, 0, 0, 0], 0.5) == [0, 0, 0, 0]  # eta = 0.5 < tau


def test_a_teacher_that_knows_nothing():
    assert retention_reward([1, 0], 0.0) == [0, 0]
    saturate = RetentionConfig(eta_max=1.0, zero_teacher="saturate")
    assert retention_reward([1, 0], 0.0, config=saturate) == pytest.approx([0.12, 0])
    assert retention_reward([0, 0], 0.0, config=saturate) == [0, 0]


def test_a_student_that_beats_its_teacher():
    assert retention_ratio([1.0], 0.125) == 8
    assert retention_reward([1.0], 0.125) == pytest.approx([2.22])
    assert retention_reward([1.0], 0.125, config=RetentionConfig(eta_max=1.0)) == pytest.approx([0.12])


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"alpha": -1}, "alpha"),
        ({"tau": -0.1}, "tau"),
        ({"eta_max": 0.5}, "eta_max"),
        ({"zero_teacher": "skip"}, "zero_teacher"),
        ({"zero_teacher": "saturate"}, "eta_max"),
        ({"correct_above": 1.0}, "correct_above"),
        ({"retention_credit": "half"}, "retention_credit"),
    ],
)
def test_wrong_options_are_named(options, named):
    with pytest.raises(ValueError, match=named):
        RetentionConfig(**options)


@pytest.mark.parametrize(("accuracies", "a_full"), [([], 0.5), ([1.2], 0.5), ([1.0], -0.1), ([float("nan")], 0.5)])
def test_values_outside_the_unit_interval_are_refused(accuracies, a_full):
    with pytest.raises(ValueError, match="accuracies"):
        retention_reward(accuracies, a_full)
