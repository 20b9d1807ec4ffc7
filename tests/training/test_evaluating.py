"""Accuracy at several budgets during training: that of asking row by row, and nothing else changes."""

from pathlib import Path

import pytest
import torch
import yaml
from tiny_supervised import make_trainer as make_supervised
from tiny_training import make_trainer

from marc.compression.config import parse_budget
from marc.inference.hf import HFBackend
from marc.inference.prompts import Prompt
from marc.inference.video_input import VideoInput
from marc.training import CGRPOConfig, to_dataset
from marc.training.evaluating import summed_accuracy
from marc.training.inputs import tokenize_prompt, visual_sources
from marc.training.run import run_grpo, run_sft
from marc.types import GenerationOptions

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
BUDGETS = ["events", "tokens:2", "full"]
EVALUATED = {"eval_budgets": BUDGETS, "eval_strategy": "steps", "eval_steps": 1, "eval_new_tokens": 5}


@pytest.fixture
def trainer(files, rows, tmp_path, monkeypatch):
    """One whose answers with every token are right: the solutions are what its random weights say then."""
    monkeypatch.setattr("marc.training.evaluating.accuracy_reward", is_said)
    trainer = make_trainer(files, rows, tmp_path)
    asked = [dict(row) for row in to_dataset(rows, files, style="plain")]
    said = answers_one_by_one(trainer, asked, "full")
    for row, answer in zip(asked, said, strict=True):
        row["solution"] = answer
    trainer.eval_dataset = asked
    return trainer


def is_said(answers, solutions, problem_types):
    assert problem_types == ["free-form"] * len(answers)
    return [float(answer == solution) for answer, solution in zip(answers, solutions, strict=True)]


def answers_one_by_one(trainer, rows, budget):
    backend = HFBackend(trainer.model, trainer.processing_class)
    own, texts = backend.compression, []
    for row in rows:
        patches = [trainer._reader.read(source) for source in visual_sources(row["prompt"])]
        shown = tuple(VideoInput.of(each, backend.processor, parse_budget(budget, own)) for each in patches)
        backend.encode(shown)
        ids = tuple(tokenize_prompt(backend.processor, row["prompt"]))
        (output,) = backend.generate([Prompt(ids, shown)], GenerationOptions(5))
        texts.append(backend.processor.decode(output, skip_special_tokens=True))
    return texts


def test_the_accuracy_is_that_of_asking_row_by_row(trainer):
    backend, rows = HFBackend(trainer.model, trainer.processing_class), trainer.eval_dataset
    before, state = backend.compression, torch.get_rng_state()
    sums = summed_accuracy(backend, trainer._reader, rows, BUDGETS, GenerationOptions(5))
    assert torch.equal(torch.get_rng_state(), state) and backend.compression == before
    columns = [[row[name] for row in rows] for name in ("solution", "problem_type")]
    for budget in BUDGETS:
        assert sums[budget] == sum(is_said(answers_one_by_one(trainer, rows, budget), *columns))
    assert sums["full"] == len(rows), "what was answered is right"
    assert summed_accuracy(backend, trainer._reader, rows, BUDGETS, GenerationOptions(5)) == sums


def test_each_budget_has_its_own_tokens(trainer, monkeypatch):
    seen, generate = [], HFBackend.generate

    def noted(self, prompts, *others):
        seen.append([sum(each.tokens for each in prompt.inputs) for prompt in prompts])
        return generate(self, prompts, *others)

    monkeypatch.setattr(HFBackend, "generate", noted)
    backend = HFBackend(trainer.model, trainer.processing_class)
    summed_accuracy(backend, trainer._reader, trainer.eval_dataset, ["tokens:2", "full"], GenerationOptions(5))
    few, all_of_them = seen
    assert max(few) <= 2 < min(all_of_them)


@pytest.mark.parametrize("make", [make_trainer, make_supervised])
def test_training_with_it_is_training_without_it(make, files, rows, tmp_path):
    """Losses are equal, and each evaluation is logged under its budget's name."""
    losses, accuracies = [], []
    for options in ({}, EVALUATED):
        kwargs = {"eval_dataset": to_dataset(rows, files, style="plain")} if options else {}
        trained = make(files, rows, tmp_path / str(len(losses)), kwargs=kwargs, **options)
        trained.train()
        losses.append([each["loss"] for each in trained.state.log_history if "loss" in each])
        accuracies.append([each for each in trained.state.log_history if "eval_accuracy/full" in each])
    assert losses[0] == losses[1] and not accuracies[0]
    assert len(accuracies[1]) == 2
    assert all(f"eval_accuracy/{budget}" in each for each in accuracies[1] for budget in BUDGETS)


def test_the_best_checkpoint_can_be_chosen_by_a_budget(files, rows, tmp_path):
    chosen = {"metric_for_best_model": "accuracy/events", "save_strategy": "steps"}
    kwargs = {"eval_dataset": to_dataset(rows, files, style="plain")}
    trained = make_trainer(files, rows, tmp_path, kwargs=kwargs, save_steps=1, **EVALUATED, **chosen)
    trained.train()
    assert trained.state.best_metric is not None and trained.state.best_global_step in (1, 2)


def test_it_asks_greedily_whatever_the_mode_and_training_goes_on(trainer):
    trainer.args.eval_budgets, trainer.args.eval_new_tokens = ["full"], 5
    trainer.model.train()
    assert trainer.evaluate() == {"eval_accuracy/full": 1.0}
    assert trainer.model.training
    assert trainer.evaluate(trainer.eval_dataset[:1], metric_key_prefix="test") == {"test_accuracy/full": 1.0}


def test_wrong_options_are_refused(tmp_path):
    folder = str(tmp_path)
    for options, message in [
        ({"eval_budgets": ["many"], "eval_strategy": "steps"}, "unknown budget 'many'"),
        ({"eval_budgets": ["full"]}, "set eval_strategy to steps or epoch"),
        ({**EVALUATED, "eval_new_tokens": 0}, "eval_new_tokens must be at least 1"),
    ]:
        with pytest.raises(ValueError, match=message):
            CGRPOConfig(folder, bf16=False, use_cpu=True, **options)


@pytest.mark.parametrize("run", [run_grpo, run_sft])
def test_a_recipe_evaluates_on_videos_that_training_does_not_see(run, tmp_path):
    kind = "grpo" if run is run_grpo else "sft"
    recipe = {
        **yaml.safe_load((CONFIGS / f"{kind}_world.yaml").read_text()),
        **{"output_dir": str(tmp_path), "world_videos": 2, "world_questions": 2, "max_steps": 1, "save_steps": 1},
        **{"eval_budgets": ["events"], "eval_strategy": "steps", "eval_steps": 1, "eval_videos": 1},
        **{"per_device_train_batch_size": 8 if kind == "grpo" else 1, "eval_new_tokens": 60},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    run(["--config", str(tmp_path / "recipe.yaml")])
    logs = yaml.safe_load((tmp_path / "checkpoint-1" / "trainer_state.json").read_text())["log_history"]
    (found,) = [each["eval_accuracy/events"] for each in logs if "eval_accuracy/events" in each]
    assert 0 <= found <= 1


def test_rows_without_budgets_and_budgets_without_rows_are_refused(tmp_path):
    recipe = ["--config", str(CONFIGS / "sft_world.yaml"), "--output_dir", str(tmp_path)]
    with pytest.raises(ValueError, match="eval_rows: at which budgets they are asked is eval_budgets"):
        run_sft([*recipe, "--eval_rows", "rows.json"])
