"""The temporal reward against its equation, as Video-R1's training code has it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marc.rewards import TemporalConfig, temporal_reward

accuracies = st.lists(st.sampled_from([0.0, 0.05, 0.1, 0.3, 0.67, 1.0]), min_size=1, max_size=8)
VIDEO_R1 = TemporalConfig(alpha=0.3)


@given(accuracies, accuracies)
def test_the_equation(own, shuffled):
    helped = sum(own) * len(shuffled) >= 0.8 * sum(shuffled) * len(own)
    near = abs(sum(own) * len(shuffled) - 0.8 * sum(shuffled) * len(own)) < 1e-9
    expected = [0.3 if helped and accuracy > 0.1 else 0.0 for accuracy in own]
    assert near or temporal_reward(own, shuffled, VIDEO_R1) == expected


@pytest.mark.parametrize(
    ("own", "shuffled", "expected"),
    [
        ([1, 1, 1, 0], [1, 1, 1, 0], [0.3, 0.3, 0.3, 0]),  # as good shuffled: still at least 0.8 of it
        ([1, 0, 0, 0], [1, 0], [0, 0, 0, 0]),
        ([0, 0], [0], [0, 0]),  # nobody is right, nobody is paid
        ([0.1, 0.2], [0], [0, 0.3]),
    ],
)
def test_cases(own, shuffled, expected):
    assert temporal_reward(own, shuffled, VIDEO_R1) == expected


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="temporal_alpha and temporal_ratio must be at least 0"):
        TemporalConfig(alpha=-1)
    with pytest.raises(ValueError, match="at least one answer"):
        temporal_reward([], [1.0], VIDEO_R1)
