"""Rewards are found by the names that recipes write."""

import pytest

from marc.rewards import accuracy_reward, format_reward
from marc.rewards.named import find_reward


def test_ours_have_short_names():
    assert find_reward("accuracy") is accuracy_reward and find_reward("format") is format_reward


def test_others_are_imported(tmp_path, monkeypatch):
    (tmp_path / "my_rewards.py").write_text(
        "LIMIT = 3\ndef short(completions, **columns):\n    return [float(len(one) <= LIMIT) for one in completions]\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert find_reward("my_rewards:short")(completions=["yes", "never"]) == [1.0, 0.0]
    with pytest.raises(ValueError, match="'my_rewards:LIMIT' is no function"):
        find_reward("my_rewards:LIMIT")


@pytest.mark.parametrize(
    "name", ["", "acuracy", "my_rewards", ":f", "m:", "no_such_module:f", "json:no_such_function"]
)
def test_what_is_none_is_named(name):
    with pytest.raises(ValueError, match=r"^rewards: '"):
        find_reward(name)
