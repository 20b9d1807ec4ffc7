"""What is refused, and names that must not collide."""

from dataclasses import replace

import pytest

from experiments.ablation.settings import ARMS, LAYOUTS, START, AblationSettings, Condition


def test_wrong_settings_are_named():
    with pytest.raises(ValueError, match="seconds must be positive"):
        AblationSettings(seconds=0)
    with pytest.raises(ValueError, match="seeds must be different"):
        AblationSettings(seeds=(1, 1))
    with pytest.raises(ValueError, match="test_videos must be at least 1"):
        AblationSettings(test_videos=0)
    with pytest.raises(ValueError, match="train_questions must be a multiple of the 8"):
        AblationSettings(train_questions=12)
    with pytest.raises(ValueError, match="train_videos must be at least the 8 of a step"):
        AblationSettings(train_videos=7)


def test_arms_have_names_of_their_own_and_shares_of_all_their_time():
    assert len({arm.file_name() for arm in ARMS}) == len(ARMS) == len({arm.key for arm in ARMS})
    assert not {character for arm in ARMS for character in arm.file_name()} & set("/:>")
    assert all(sum(stage.share for stage in arm.stages) == 1 for arm in ARMS)


def test_only_arms_that_train_alike_share_what_is_kept_of_a_stage():
    stages: dict[str, tuple] = {}
    for arm in ARMS:
        for count in range(1, len(arm.stages) + 1):
            what = (arm.group, arm.stages[:count])
            assert stages.setdefault(arm.file_name(count), what) == what


def test_an_arm_is_measured_at_the_layout_that_it_was_trained_at():
    settings = replace(AblationSettings(), retrieved=(2,))
    for arm in (START, *ARMS):
        conditions = settings.conditions(arm)
        layouts = [arm.group] if arm.group in LAYOUTS else LAYOUTS
        expected = [Condition(layout, k) for layout in layouts for k in (None, 2)]
        assert conditions == [Condition("full"), *expected]
