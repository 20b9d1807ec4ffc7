"""The recipes read, mistakes in them are named, and the rates do what they say."""

from pathlib import Path

import pytest

from experiments.tiny_model.recipe import Phase, TrainSettings, read_settings

CONFIGS = Path(__file__).parents[3] / "configs"


@pytest.mark.parametrize("name", ["world_tiny", "world_text_only", "world_qwen3_vl", "world_deep_tower"])
def test_a_recipe_reads(name: str) -> None:
    settings = read_settings(CONFIGS / f"{name}.yaml")
    assert settings.phases and settings.phases[-1].max_events == 4
    last = settings.phases[-1]
    assert last.until is None and last.rate_at(last.steps) == 0.0


def test_rates_fall_within_a_phase() -> None:
    phase = Phase(10, {"events": 1.0}, {"plain": 1.0}, rate=0.8, final_rate=0.2)
    assert [phase.rate_at(step) for step in (0, 5, 10)] == pytest.approx([0.8, 0.5, 0.2])
    assert Phase(10, {"events": 1.0}, {"plain": 1.0}, rate=0.8).rate_at(9) == 0.8


def test_mistakes_are_named(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("sede: 1\nphases: []\n", encoding="utf-8")
    with pytest.raises(ValueError, match="sede"):
        read_settings(recipe)
    with pytest.raises(ValueError, match="family must be one of qwen2_5_vl, qwen3_vl, got 'gpt'"):
        TrainSettings(family="gpt")
    with pytest.raises(ValueError, match="tower_blocks must be at least 2, got 1"):
        TrainSettings(tower_blocks=1)
    with pytest.raises(ValueError, match="layouts must sum to 1"):
        Phase(1, {"events": 0.5}, {"plain": 1.0})
    with pytest.raises(ValueError, match="smell"):
        Phase(1, {"events": 1.0}, {"plain": 1.0}, kinds=("smell",))
    with pytest.raises(ValueError, match="until"):
        Phase(1, {"events": 1.0}, {"plain": 1.0}, until=90)
