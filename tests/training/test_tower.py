"""Training of the tower to merge early: the error against its equation, and what a run changes and keeps."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_training import FAMILIES, TWO_STEPS, train_and_name_the_moved

from marc import load_model
from marc.data.rows import TrainingRow
from marc.model import CompressionConfig
from marc.model.tiny import EMBEDDED_FAMILY, build_tiny
from marc.model.tower import TowerOutput
from marc.training import TowerConfig, TowerTrainer, to_videos
from marc.training.budgets import LayerMix
from marc.training.run import _require_cuts, run_tower
from marc.training.tower import tower_error

ROOT = Path(__file__).resolve().parents[2]
INSIDE = CompressionConfig(tower_layer=1)


def make_tower_trainer(files, rows, tmp_path, *, family=EMBEDDED_FAMILY, compression=INSIDE, held_out=None, **options):
    model, processor = build_tiny(family=family, compression=compression)
    return TowerTrainer(
        model=model,
        args=TowerConfig(str(tmp_path / "run"), **{**TWO_STEPS, "per_device_train_batch_size": 2, **options}),
        train_dataset=to_videos(rows, files),
        eval_dataset=None if held_out is None else to_videos(held_out, files),
        processing_class=processor,
    )


def merged(tokens: np.ndarray, weights: np.ndarray) -> TowerOutput:
    """What a tower gives that has put grids together with these weights ``[S, T]``."""
    members, counts = weights.argmax(0), (weights > 0).sum(1)
    return TowerOutput(*(torch.tensor(each) for each in (tokens, members, counts, weights)))


def every_grid(tokens: np.ndarray) -> TowerOutput:
    return merged(tokens, np.eye(len(tokens)))


def weights_of(lengths: list[int], rng: np.random.Generator) -> np.ndarray:
    """Of runs of grids that merge, each its own."""
    weights, first = np.zeros((len(lengths), sum(lengths))), 0
    for index, length in enumerate(lengths):
        weights[index, first : first + length] = rng.dirichlet(np.ones(length))
        first += length
    return weights


RUNS = st.lists(st.integers(1, 4), min_size=1, max_size=4)


@given(st.lists(RUNS, min_size=1, max_size=3), st.integers(0, 99), st.sampled_from([np.float32, np.float64]))
def test_the_error_is_that_of_the_equation(videos, seed, dtype):
    """``sum |s - t|^2 / sum |t|^2``, loop by loop."""
    rng = np.random.default_rng(seed)
    ours, theirs, distance, size = [], [], 0.0, 0.0
    for lengths in videos:
        weights = weights_of(lengths, rng)
        whole = rng.normal(size=(sum(lengths), 3, 5)).astype(dtype)
        own = rng.normal(size=(len(lengths), 3, 5)).astype(dtype)
        for index in range(len(lengths)):
            wanted = sum(weights[index, grid] * whole[grid] for grid in range(len(whole)))
            distance += ((own[index] - wanted) ** 2).sum()
            size += (wanted**2).sum()
        ours.append(merged(own, weights))
        theirs.append(every_grid(whole))
    assert tower_error(ours, theirs).item() == pytest.approx(distance / size, rel=1e-4)


@given(RUNS, st.integers(0, 99), st.floats(1e-3, 1e3))
def test_the_mean_has_no_error_and_scale_does_not_matter(lengths, seed, scale):
    rng = np.random.default_rng(seed)
    whole, weights = rng.normal(size=(sum(lengths), 2, 4)), weights_of(lengths, rng)
    means = np.einsum("st,tpw->spw", weights, whole)
    assert tower_error([merged(means, weights)], [every_grid(whole)]).item() < 1e-10
    other = means + rng.normal(size=means.shape)
    errors = [tower_error([merged(s * other, weights)], [every_grid(s * whole)]).item() for s in (1.0, scale)]
    assert errors[0] == pytest.approx(errors[1], rel=1e-3) and errors[0] > 0


def test_a_video_without_features_is_no_division_by_zero():
    nothing = np.zeros((2, 2, 4))
    assert tower_error([every_grid(nothing)], [every_grid(nothing)]).item() == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_two_steps_move_the_tower_and_nothing_else(family, files, rows, tmp_path):
    """All of it: DeepStack's streams, too."""
    trainer = make_tower_trainer(files, rows, tmp_path, family=family, tower_layers={"1": 1.0})
    before = {name: weight.clone() for name, weight in trainer._policy.state_dict().items()}
    moved = train_and_name_the_moved(trainer)
    assert moved == {name for name, _ in trainer.model.named_parameters()}
    for name, weight in trainer._policy.state_dict().items():
        is_towers = ".visual." in name
        assert is_towers or torch.equal(weight, before[name]), name


@pytest.mark.parametrize("layout", ["events", "frames"])
def test_the_error_at_the_start(layout, files, rows, tmp_path):
    """Nothing where nothing merges inside, bit by bit; something where grids do."""
    compression = CompressionConfig(layout, tower_layer=1)
    trainer = make_tower_trainer(files, rows, tmp_path, compression=compression)
    videos = trainer.data_collator(list(trainer.train_dataset))["videos"]
    nowhere, inside = trainer._errors(trainer.model, videos, ["none", "1"], compression)
    assert nowhere == 0 < inside


def test_training_lowers_the_error_and_is_kept(files, rows, tmp_path):
    """And the checkpoint is a model with the trained tower, which merges where it was told to."""
    compression = CompressionConfig(tower_layer=1, target_frames=2)
    trainer = make_tower_trainer(
        files,
        rows,
        tmp_path,
        compression=compression,
        max_steps=40,
        save_strategy="steps",
        save_steps=40,
        learning_rate=3e-3,
    )
    trainer.train()
    errors = [row["tower_error/1"] for row in trainer.state.log_history if "tower_error/1" in row]
    assert errors[-1] < 0.7 * errors[0]
    model, processor = load_model(tmp_path / "run" / "checkpoint-40", device="cpu")
    assert model.compression == processor.compression == compression
    trained = dict(trainer.model.visual.named_parameters())
    assert all(torch.equal(weight, trained[name]) for name, weight in model.model.visual.named_parameters())


def test_a_resumed_run_ends_with_the_same_weights(files, rows, tmp_path):
    """The teacher is the tower before training, also after resuming."""
    options = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4, "tower_layers": {"1": 1, "none": 1}}
    ends = []
    for resume in (None, str(tmp_path / "run" / "checkpoint-2")):
        trainer = make_tower_trainer(files, rows, tmp_path, **options)
        trainer.train(resume_from_checkpoint=resume)
        ends.append((trainer.model.state_dict(), [row["loss"] for row in trainer.state.log_history if "loss" in row]))
    assert ends[0][1] == ends[1][1] and len(ends[0][1]) == 4
    assert all(torch.equal(weight, ends[1][0][name]) for name, weight in ends[0][0].items())


def test_an_evaluation_is_the_mean_over_all_places(files, rows, tmp_path):
    places = {"1": 0.9, "none": 0.1}
    trainer = make_tower_trainer(files, rows, tmp_path, tower_layers=places, held_out=rows)
    trainer.train()
    whole = trainer.evaluate()["eval_loss"]
    alone = []
    for name in places:
        trainer._places = LayerMix({name: 1.0, "2": 0.0})
        alone.append(trainer.evaluate()["eval_loss"])
    assert not any("tower_error/1" in row for row in trainer.state.log_history if "eval_loss" in row)
    assert whole == pytest.approx(sum(alone) / 2, rel=1e-5) and alone[0] != alone[1]


def test_a_video_that_cannot_be_read(files, rows, tmp_path):
    """Is left out if so wanted, and a step of such ones alone has gradients of zero."""
    bad = [dataclasses.replace(rows[0], path="broken.mp4")]
    with pytest.raises(ValueError, match=r"problem_id 0: .*broken\.mp4"):
        make_tower_trainer(files, bad, tmp_path).train()
    trainer = make_tower_trainer(files, bad, tmp_path, bad_video="skip", weight_decay=0.0, tower_layers={"1": 1.0})
    before = {name: weight.clone() for name, weight in trainer.model.state_dict().items()}
    trainer.train()
    assert all(torch.equal(weight, before[name]) for name, weight in trainer.model.state_dict().items())
    with pytest.raises(ValueError, match=r"evaluation row with problem_id 0: .*broken\.mp4"):
        make_tower_trainer(files, rows, tmp_path, bad_video="skip", held_out=bad)
    mixed = make_tower_trainer(files, [*bad, rows[0]], tmp_path, bad_video="skip", tower_layers={"1": 1.0})
    alone = make_tower_trainer(files, rows[:1], tmp_path, tower_layers={"1": 1.0})
    losses = [
        each.compute_loss(each.model, each.data_collator(list(each.train_dataset))).item() for each in (mixed, alone)
    ]
    assert losses[0] == losses[1] > 0


def test_a_video_is_trained_on_once_however_many_questions_name_it(files, rows, mixed_rows):
    dataset = to_videos([*rows, *mixed_rows, rows[0]], files)
    assert list(dataset["problem_id"]) == ["0", "1", "10"]  # 0.mp4 with cuts, 1.mp4, 0.mp4 without
    with pytest.raises(ValueError, match="no videos"):
        to_videos(mixed_rows[1:3], files)


@pytest.mark.parametrize("name", ["0", "-1", "half", "", "4:2,8:4", "1.5", "4:", "true"])
def test_other_places_are_refused(name):
    with pytest.raises(ValueError, match="tower_layers: a place"):
        LayerMix({name: 1.0})


@pytest.mark.parametrize("layer", [3, ((4, 2), (8, 1))])
def test_the_models_own_place_and_none(layer):
    mix = LayerMix.of(layer)
    assert {mix.at(name, CompressionConfig()).tower_layer for name in mix.shares} == {None, layer}
    assert [mix.draw(0, step) for step in range(50)] == [mix.draw(0, step) for step in range(50)]
    assert {mix.draw(0, step) for step in range(50)} == set(mix.shares)


@pytest.mark.parametrize(
    ("options", "compression", "message"),
    [
        ({}, CompressionConfig(), "tower_layer: after which block"),
        ({"tower_layers": {"1": 9.0, "7": 1.0}}, INSIDE, "tower_layers 7: that is not inside the vision tower of 2"),
        ({"tower_layers": {"none": 1.0, "1": 0.0}}, INSIDE, "tower_layer 1 is where the model would merge"),
        ({"tower_layers": {"none": 1.0}}, CompressionConfig(), "no step merges anywhere"),
        ({"budgets": {"holitom": 1.0}}, INSIDE, "the layout holitom works behind it"),
        ({"budgets": {"full": 1.0, "events": 0.0}}, INSIDE, "every token of a video remains"),
        ({}, CompressionConfig(tower_layer=1, target_frames=None), "every token of a video remains"),
        ({"freeze_tower": True}, INSIDE, "freeze_tower: it is the tower that is trained"),
        ({"tower_layers": {"1": -1.0}}, INSIDE, "share of the place '1'"),
        ({"eval_budgets": ["full"], "eval_strategy": "steps", "eval_steps": 1}, INSIDE, "eval_budgets: nothing is"),
        ({"push_to_hub": True}, INSIDE, "push_to_hub: the trained tower"),
        ({"keep_visuals": 2, "dataloader_num_workers": 1}, INSIDE, "keep_visuals needs dataloader_num_workers=0"),
    ],
)
def test_what_cannot_be_is_refused_by_name(options, compression, message, files, rows, tmp_path):
    with pytest.raises(ValueError, match=message):
        make_tower_trainer(files, rows, tmp_path, compression=compression, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"gradient_checkpointing": True},
        {"dataloader_num_workers": 1},
        {"bf16": True},
        {"budgets": {"events": 0.5, "full": 0.5}, "max_steps": 4},
        {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 1},
    ],
    ids=lambda options: ", ".join(options),
)
def test_options_of_transformers_work(options, files, rows, tmp_path):
    trainer = make_tower_trainer(files, rows, tmp_path, **{"tower_layers": {"1": 1.0}, **options})
    trainer.train()
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    assert len(losses) == trainer.args.max_steps and max(losses) > 0


def test_checkpointing_and_chunks_change_nothing(files, rows, tmp_path):
    """Nor does a schedule of one stage, which is a place by another name."""
    ends = []
    for number, (chunk, layer, options) in enumerate(
        [(8192, 1, {}), (8, 1, {}), (8192, 1, {"gradient_checkpointing": True}), (8192, {1: 1}, {})]
    ):
        compression = CompressionConfig(tower_layer=layer, tower_chunk=chunk)
        name = "1" if layer == 1 else "1:1"
        trainer = make_tower_trainer(
            files, rows, tmp_path / str(number), compression=compression, tower_layers={name: 1.0}, **options
        )
        trainer.train()
        ends.append([row["loss"] for row in trainer.state.log_history if "loss" in row])
    assert all(losses == pytest.approx(ends[0], rel=1e-4) for losses in ends[1:]), ends


def test_of_videos_without_cuts_nothing_merges_in_the_event_layout(caplog):
    cut = TrainingRow("1", "What?", "free-form", "seven", path="a.mp4", cuts=(1.0,))
    uncut = TrainingRow("2", "What?", "free-form", "seven", path="b.mp4")
    events, frames = [CompressionConfig("events")], [CompressionConfig("events"), CompressionConfig("frames")]
    with pytest.raises(ValueError, match=r"1 of 1 videos have no cuts.*`marc data cuts` finds cuts"):
        _require_cuts([uncut], events)
    _require_cuts([uncut], frames)
    assert not caplog.records
    _require_cuts([cut, uncut], events)
    assert "1 of 2 videos have no cuts" in caplog.text


@pytest.mark.parametrize("options", [["--lora_rank", "4"], ["--load_in_4bit", "true"], ["--style", "plain"]])
def test_a_recipe_has_no_options_of_other_trainings(options, tmp_path):
    with pytest.raises(ValueError, match="it is the vision tower alone that is trained"):
        run_tower(["--output_dir", str(tmp_path), "--bf16", "false", "--tower_layer", "1", *options])


def test_a_recipe_looks_at_held_out_videos(tmp_path, capsys):
    recipe = [
        "--config",
        str(ROOT / "configs" / "tower_world.yaml"),
        "--output_dir",
        str(tmp_path),
        "--max_steps",
        "2",
    ]
    small = ["--world_videos", "4", "--eval_videos", "2", "--save_strategy", "no"]
    run_tower([*recipe, *small, "--eval_strategy", "steps", "--eval_steps", "1"])
    assert "'eval_loss'" in capsys.readouterr().out
    with pytest.raises(ValueError, match="eval_rows needs an eval_strategy"):
        run_tower([*recipe, *small, "--eval_rows", "rows.json"])


def test_places_may_be_written_as_on_a_command_line():
    config = TowerConfig("unused", tower_layers=json.dumps({8: 1, "None": 1}), use_cpu=True, bf16=False)
    assert dict(config.layer_mix.shares) == {"8": 1, "none": 1}
