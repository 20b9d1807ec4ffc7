"""The arena's model: what it begins with, what a batch is, and that a killed run goes on as if it had not been."""

from dataclasses import replace
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pytest
import torch

from experiments.arena import model, train
from experiments.arena.batches import ArenaBatches
from experiments.arena.ideal import ideal_table
from experiments.arena.model import build_arena_model, spoken_words, words_of_cells
from experiments.arena.settings import CURRICULUM, LOOKED_UP, ArenaPhase, ArenaSettings
from experiments.arena.tower import HEADS, draw_grids
from experiments.tiny_model.packed_questions import pack_questions, target_logits
from experiments.tiny_model.tower import colours_of
from experiments.tiny_model.train import LanguageModelTraining, Outcome
from marc.compression import CompressionConfig
from marc.inference.hf import HFBackend
from marc.inference.video_input import VideoInput, VisualPatches
from marc.model.loading import load_model
from marc.world.arena.questions import ARENA_KINDS
from marc.world.arena.scenes import ArenaLimits, sample_arena
from marc.world.frames import draw_frames

LIMITS = ArenaLimits(events=2, grids=3, rows=4, columns=8)
SMALL = ArenaSettings(
    tower_steps=1,
    word_steps=1,
    tower_cells=64,
    warmup=1,
    checkpoint_every=1,
    evaluate_every=100,
    log_every=1,
    phases=(
        ArenaPhase(LIMITS, steps=2, videos=1, questions=4),
        ArenaPhase(replace(LIMITS, grids=4), steps=2, videos=2, questions=3),
    ),
)


@pytest.fixture(scope="module")
def built() -> tuple[Any, Any]:
    return build_arena_model(SMALL)


@pytest.fixture(scope="module")
def batches(built: tuple[Any, Any]) -> ArenaBatches:
    untrained, processor = built
    return ArenaBatches(untrained.model.visual, colours_of(processor), seed=0)


def test_every_answer_of_the_tower_is_a_word(built: tuple[Any, Any]) -> None:
    words = spoken_words(built[1].tokenizer)
    assert set(words) == set(HEADS)
    ids = [index for some in words.values() for index in some if index is not None]
    assert len(set(ids)) == len(ids) - 1, "cells that hold nothing, and plates, say the same"
    assert words["light"].count(None) == 2


def test_what_the_tower_should_say_can_be_told_apart(built: tuple[Any, Any]) -> None:
    words = words_of_cells(*built)
    labels = draw_grids(np.random.default_rng(0), 1500).labels
    loss, accuracies = words(words.targets(labels), labels)
    assert loss < 1e-6
    assert 0.7 < accuracies.pop("thing") < 0.95, "plates pass for nothing"
    assert min(accuracies.values()) > 0.97


def test_the_language_model_begins_with_what_the_tower_says(built: tuple[Any, Any]) -> None:
    table = built[0].model.language_model.embed_tokens.weight
    spoken = spoken_words(built[1].tokenizer)
    for vectors, ids in zip(words_of_cells(*built).vectors, spoken.values(), strict=True):
        for vector, index in zip(vectors, ids, strict=False):
            if index is not None:
                assert torch.cosine_similarity(vector, table[index], dim=0) > 0.6, index


def test_what_follows_a_description_resembles_it(built: tuple[Any, Any]) -> None:
    """Behind "teal striped star" the first layer brings all three words, each more than any other of the same sort."""
    text, tokenizer = built[0].model.language_model, built[1].tokenizer
    ids = tokenizer("Anything else. teal striped star:", return_tensors="pt")["input_ids"]
    attention = text.layers[0].self_attn
    brought = []
    handle = attention.register_forward_hook(lambda module, args, output: brought.append(output[0][0, -1].detach()))
    text(input_ids=ids, position_ids=torch.arange(ids.shape[1]).expand(3, 1, -1))
    handle.remove()
    for kind, word in (("tint", "teal"), ("pattern", "striped"), ("thing", "star")):
        spoken = [index for index in spoken_words(tokenizer)[kind] if index is not None]
        alike = torch.cosine_similarity(brought[0], text.embed_tokens.weight[spoken], dim=1)
        assert tokenizer.decode(spoken[int(alike.argmax())]).strip() == word


def test_a_layout_is_what_the_engine_reads(built: tuple[Any, Any], batches: ArenaBatches) -> None:
    untrained, processor = built
    video = sample_arena("train", 0, 3, ArenaLimits(events=2, grids=3))
    ours = batches.lay_out(video)
    backend = HFBackend(untrained, processor)
    whole = CompressionConfig(target_frames=None)
    shown = VideoInput.of(VisualPatches.of_frames(processor, draw_frames(video), None), processor, whole)
    backend.encode([shown])
    assert shown.features is not None
    assert torch.allclose(ours.features, shown.features, atol=1e-4)
    assert len(ours.positions) == len(ours.features) == video.frame_count // 2 * 128


def test_a_step_asks_about_everything(built: tuple[Any, Any], batches: ArenaBatches) -> None:
    asked = batches.batch(0, SMALL.phases[0], {})
    assert asked.questions == batches.batch(0, SMALL.phases[0], {}).questions
    assert len(asked.shown) == 1 and len(asked.questions[0]) == 4
    only = batches.batch(
        0, replace(SMALL.phases[0], choices=0.0), dict.fromkeys(ARENA_KINDS, 0.0) | {"actor shape": 1.0}
    )
    assert {question.kind for question in only.questions[0]} == {"actor shape"}
    early = batches.batch(0, CURRICULUM[0], {})
    assert {question.kind for some in early.questions for question in some} <= set(LOOKED_UP)
    untrained, processor = built
    packed = pack_questions(untrained, processor, asked)
    outcome = Outcome.of(asked, packed, target_logits(untrained, packed))
    assert outcome.loss > 0 and set(outcome.losses) == set(outcome.accuracies)


def test_a_killed_run_goes_on_as_if_it_had_not_been(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(model, "FIT_CELLS", 2000)
    train.train_arena(replace(SMALL, phases=()), tmp_path / "begun")
    copytree(tmp_path / "begun", tmp_path / "killed")
    monkeypatch.setattr(train, "VALIDATION_VIDEOS", 1)
    train.train_arena(SMALL, tmp_path / "begun")

    class KilledError(Exception):
        pass

    save = LanguageModelTraining._save

    def killed(self: LanguageModelTraining) -> None:
        save(self)
        if self.progress.step == 2:
            raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(LanguageModelTraining, "_save", killed)
        with pytest.raises(KilledError):
            train.train_arena(SMALL, tmp_path / "killed")
    train.train_arena(SMALL, tmp_path / "killed")
    one, two = (torch.load(tmp_path / name / "language_model.pt")["model"] for name in ("begun", "killed"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert (tmp_path / "begun" / "model" / "model.safetensors").exists()


def test_a_deeper_tower_comes_before_the_same_language_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "FIT_CELLS", 2000)
    train.train_arena(replace(SMALL, phases=(), layers=5), tmp_path / "source")
    deeper, taught = replace(SMALL, tower_blocks=4), list[torch.Tensor]()
    speak = model.speak_in_words

    def record(*arguments: Any, **options: Any) -> float:
        taught.extend(arguments[2].vectors)
        return speak(*arguments, **options)

    monkeypatch.setattr(train, "speak_in_words", record)
    monkeypatch.setattr(train, "SAID", 10.0)  # a step does not teach a tower to speak
    train.deepen(tmp_path / "source" / "model", deeper, tmp_path / "deep")
    known = words_of_cells(*build_arena_model(replace(SMALL, layers=5))).vectors
    assert all(torch.equal(own, other) for own, other in zip(taught, known, strict=True)), "what the old tower said"
    before, after = (load_model(str(tmp_path / name / "model"), device="cpu")[0] for name in ("source", "deep"))
    assert [len(each.model.visual.blocks) for each in (before, after)] == [2, 4]
    same, own = (each.model.language_model.state_dict() for each in (before, after))
    assert all(torch.equal(same[name], own[name]) for name in same)
    with pytest.raises(ValueError, match="other tower_blocks"):
        train.deepen(tmp_path / "source" / "model", replace(deeper, tower_blocks=3), tmp_path / "deep")


@pytest.mark.parametrize(("source", "seed"), [("experiments/arena/trained", 1), ("tiny", 0)])
def test_who_does_not_know_the_words_gets_no_deeper_tower(source: str, seed: int, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=f"{source}: its tower does not say the words of the level arena as seed {seed}"
    ):
        train.deepen(Path(source), replace(SMALL, seed=seed, tower_blocks=4), tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_trained_tower_says_its_words() -> None:
    trained = load_model("experiments/arena/trained", device="cpu", dtype="float32")
    assert model.unsaid(*trained, words_of_cells(*build_arena_model(ArenaSettings()))) < 0.05


def test_a_folder_of_another_recipe_is_refused(tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text('{"seed": 1, "layers": 6, "tower_steps": 1, "word_steps": 1}')
    with pytest.raises(ValueError, match="other seed"):
        train.train_arena(SMALL, tmp_path)


def test_the_curriculum_ends_with_the_level() -> None:
    assert CURRICULUM[-1].limits == ArenaLimits()
    assert CURRICULUM[-1].rate_at(CURRICULUM[-1].steps) == 0
    assert np.all(np.diff([phase.limits.grids for phase in CURRICULUM]) >= 0)


def test_the_table_of_the_ideal_reader() -> None:
    table = ideal_table(2, 8, 0)
    rows = dict(line.strip("| ").split(" | ", 1) for line in table.split("\n\n")[0].splitlines())
    assert rows["every token"] == "1.000 | 1.000 | 1.000 | 1.000"
    lowest, *_, highest = map(float, rows["random"].split(" | "))
    assert lowest < highest < 1
