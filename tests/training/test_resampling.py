"""Groups without variance are drawn again: which rows remain, and what a step then learns from."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_training import GROUP, make_trainer

from marc.rewards import accuracy_reward
from marc.training import CGRPOConfig
from marc.training.resampling import joined, other_prompts, replacements

flags = st.lists(st.booleans(), min_size=1, max_size=8)


@given(flags, flags, st.integers(1, 3))
def test_as_many_groups_as_possible_get_variance_and_none_loses_it(without, fresh, size):
    rows = replacements(without, fresh, size)
    groups = [row // size for row in rows[::size]]
    assert rows == [group * size + i for group in groups for i in range(size)]
    both = [*without, *fresh]
    assert sum(both[group] for group in groups) == max(0, sum(without) - fresh.count(False))
    assert all(group == place for place, group in enumerate(groups) if not without[place]), "what is good stays"
    taken = [group for group in groups if group >= len(without)]
    assert taken == sorted(set(taken)) and not any(both[group] for group in taken)


def batch(rows: int, prompt: int, completion: int, first: int) -> dict:
    """Rows whose ids tell where they come from; the first of each has the longest prompt and answer."""
    here = torch.arange(rows)[:, None]
    before, behind = (
        torch.arange(prompt)[None] >= here % prompt,
        torch.arange(completion)[None] < completion - here % 2,
    )
    ids = 100 * (first + here) + torch.arange(max(prompt, completion))[None]
    return {
        "prompt_ids": torch.where(before, ids[:, :prompt], 7),
        "prompt_mask": before.long(),
        "completion_ids": torch.where(behind, ids[:, :completion], 7),
        "completion_mask": behind.long(),
        "advantages": first + torch.arange(rows, dtype=torch.float32),
        "old_per_token_logps": ids[:, :completion] / -100,
        "sampling_per_token_logps": ids[:, :completion] / -50,
        "importance_sampling_ratio": first + here.float(),
        "teacher_states": ids[:, :completion, None].float().expand(-1, -1, 3),
        "visuals": [(f"video {first + row}",) for row in range(rows)],
        "budgets": ["events"] * rows,
        "num_items_in_batch": torch.tensor(1),
    }


@pytest.mark.parametrize(("prompts", "completions"), [((3, 5), (4, 2)), ((5, 3), (2, 4)), ((3, 3), (2, 2))])
def test_rows_keep_all_that_they_had(prompts, completions):
    own, fresh = (batch(4, prompts[i], completions[i], first=1 + 4 * i) for i in range(2))
    rows = [0, 5, 2, 7]
    result = joined(own, fresh, rows, padding=7)
    assert "num_items_in_batch" not in result
    width = max(prompts)
    assert result["prompt_ids"].shape == (4, width) and result["completion_ids"].shape == (4, max(completions))
    for place, row in enumerate(rows):
        source, index = (own, row) if row < 4 else (fresh, row - 4)
        for kind in ("prompt", "completion"):
            present, before = result[f"{kind}_mask"][place].bool(), source[f"{kind}_mask"][index].bool()
            assert torch.equal(result[f"{kind}_ids"][place][present], source[f"{kind}_ids"][index][before])
            assert (result[f"{kind}_ids"][place][~present] == 7).all()
        assert present.tolist() == sorted(present.tolist(), reverse=True), "completions are padded behind"
        assert result["prompt_mask"][place].tolist() == sorted(result["prompt_mask"][place].tolist())
        for name in ("old_per_token_logps", "teacher_states"):
            assert torch.equal(result[name][place][present], source[name][index][before])
        assert result["advantages"][place] == source["advantages"][index]
        assert result["visuals"][place] == source["visuals"][index]


def test_prompts_follow_from_the_draw_alone():
    assert other_prompts(50, 6, 1, 2, 3) == other_prompts(50, 6, 1, 2, 3) != other_prompts(50, 6, 1, 2, 4)
    assert len(set(other_prompts(6, 6, 0))) == 6 and len(other_prompts(2, 6, 0)) == 6


@pytest.fixture
def trainer(files, mixed_rows, tmp_path):
    """A step of two groups; which of its four prompts get different rewards is told by name."""
    trainer = make_trainer(
        files, mixed_rows, tmp_path, freeze_tower=True, dynamic_sampling=3, per_device_train_batch_size=2 * GROUP
    )
    trainer.model.train()
    trainer.reward_funcs[0] = accuracy_reward
    return trainer


def rewarded(trainer, differing: set[str]) -> list[list[str]]:
    """Has only some prompts' answers be rewarded differently; returns what was asked, draw by draw."""
    asked = []

    def reward(completions, problem_id, **columns):
        asked.append(problem_id[::GROUP])
        return [float(index % GROUP and name in differing) for index, name in enumerate(problem_id)]

    trainer.reward_funcs[1] = reward
    return asked


def first_two(trainer) -> list[dict]:
    return [trainer.train_dataset[i] for i in (0, 1) for _ in range(GROUP)]


def test_a_step_is_filled_with_groups_that_differ(trainer):
    asked = rewarded(trainer, {"10", "13"})
    batch = trainer._generate_and_score_completions(first_two(trainer))
    assert asked[0] == ["10", "11"] and all(len(prompts) == 1 for prompts in asked[1:])
    assert len(asked) == 4 or asked[-1][0] in ("10", "13"), "until one differs, or the bound is met"
    expected = 0.5 / (0.5**0.5 + 1e-4)
    assert batch["advantages"][:GROUP].tolist() == pytest.approx([-expected, expected], rel=1e-4)
    left = asked[-1][0] not in ("10", "13")
    assert (batch["advantages"][GROUP:] == 0).all() == left
    assert batch["num_items_in_batch"] == batch["completion_mask"].sum()
    assert trainer._metrics["train"]["groups/without_variance"] == [0.5]
    assert trainer._metrics["train"]["groups/without_variance_left"] == [0.5 * left]
    assert trainer._metrics["train"]["groups/drawn"] == [len(asked) + 1]
    trainer.current_gradient_accumulation_steps = 1
    trainer._compute_loss(trainer.model, batch).backward()


def test_draws_end_at_the_bound_and_nothing_is_lost(trainer):
    asked = rewarded(trainer, set())
    batch = trainer._generate_and_score_completions(first_two(trainer))
    assert [len(prompts) for prompts in asked] == [2, 2, 2, 2]
    assert (batch["advantages"] == 0).all() and len(batch["visuals"]) == 2 * GROUP


def test_nothing_is_drawn_again_without_need_or_in_evaluation(trainer):
    asked = rewarded(trainer, {"10", "11"})
    trainer._generate_and_score_completions(first_two(trainer))
    assert len(asked) == 1
    asked = rewarded(trainer, set())
    trainer.model.eval()
    trainer._generate_and_score_completions(first_two(trainer))
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dynamic_sampling": -1}, "dynamic_sampling must be at least 0"),
        ({"per_device_train_batch_size": 6, "num_generations": 4, "steps_per_generation": 2}, None),
        ({"per_device_train_batch_size": 6, "num_generations": 4, "generation_batch_size": 12}, None),
        ({"scale_rewards": "batch"}, "joins groups of several draws"),
        ({"reward_coef": 0.0, "distill_coef": 1.0}, "looks at rewards"),
    ],
)
def test_what_does_not_fit_is_refused(options, message, tmp_path):
    given = {"dynamic_sampling": 1, "per_device_train_batch_size": 4, "num_generations": 2, "use_cpu": True, **options}
    if message is None:
        CGRPOConfig(str(tmp_path), bf16=False, **given)
        return
    with pytest.raises(ValueError, match=message):
        CGRPOConfig(str(tmp_path), bf16=False, **given)
