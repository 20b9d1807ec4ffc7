"""What the parts of a step are counted from, and that a recipe's own numbers go in."""

from pathlib import Path

import pytest

from benchmarks.counters import Ceilings, Product, Work
from benchmarks.step_estimate import Costs, Step, main, parts, step_of

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
ONE = Ceilings(flops=1.0, bandwidth=1.0)


def work(flops: float, moved: float = 0.0) -> Work:
    return Work([Product(flops, moved)])


COSTS = Costs(tower=work(10), prefill=work(5), decode=work(1, 3), sequence=work(7), host=4.0)
STEP = Step(8, 1, trains_tower=True, computed_again=True, has_reference=True, answer_tokens=100, is_spread=True)
READING = 5 + 8 * (7 - 5)
"""The prompt once, and eight answers behind it."""


def test_parts_follow_from_what_is_counted():
    found = parts(STEP, COSTS, ONE)
    slow = 10 + 5 + 100 * 8  # eight rows of one operation each take longer than bytes or Python
    assert found["answers"] == (slow, slow)
    assert found["log-probabilities of the reference"] == (READING, READING)
    assert found["language model with gradients"] == (4 * READING + 5, 4 * READING + 5)
    assert found["vision tower with gradients"] == (4 * 10, 4 * 10)


def test_python_counts_in_transformers_alone():
    fast = Ceilings(flops=1e9, bandwidth=1e9)
    with_python, without = parts(STEP, COSTS, fast)["answers"]
    assert with_python == pytest.approx(400) and without < 1e-5


def test_what_a_recipe_leaves_out_costs_nothing():
    step = Step(8, 1, trains_tower=False, computed_again=False, has_reference=False, answer_tokens=1, is_spread=False)
    found = parts(step, COSTS, ONE)
    assert found["vision tower with gradients"] == found["log-probabilities of the reference"] == (0, 0)
    assert found["language model with gradients"] == (3 * READING, 3 * READING)


def test_a_recipe_says_its_own_numbers():
    step, name, compression, frames = step_of(str(CONFIGS / "grpo_3b_full.yaml"), 256)
    assert (step.rows, step.prompts) == (8, 1)
    assert step.trains_tower and step.computed_again and step.has_reference and step.is_spread
    assert (name, frames, compression.layout) == ("3b", 64, "frames")
    assert not step_of(str(CONFIGS / "grpo_3b_lora.yaml"), 256)[0].trains_tower


def test_the_table_is_printed(tmp_path, capsys):
    recipe = (CONFIGS / "grpo_3b_lora.yaml").read_text().replace("Qwen/Qwen2.5-VL-3B-Instruct", "scaled")
    (tmp_path / "recipe.yaml").write_text(recipe)
    main([str(tmp_path / "recipe.yaml"), "--answer-tokens", "8"])
    assert "| answers |" in capsys.readouterr().out
