"""A packed sequence gives each question what it would get alone in the model's own forward."""

from functools import partial

import numpy as np
import pytest
import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling

from experiments.tiny_model.bank import FeatureBank, event_layout, full_layout
from experiments.tiny_model.batches import lay_out
from experiments.tiny_model.families import FAMILIES
from experiments.tiny_model.initialisation import build_world_model
from experiments.tiny_model.packed_questions import AskedVideos, PackedQuestions, pack_questions, target_logits
from experiments.tiny_model.recipe import TrainSettings
from experiments.tiny_model.tower import mergers
from marc.inference.prompts import Prompt
from marc.inference.video_input import VideoInput, VisualPatches, at_compression, every_token
from marc.model import CompressedProcessor, CompressedVLM
from marc.model.timestamps import TimestampedModel
from marc.world.frames import draw_frames
from marc.world.questions import draw_questions
from marc.world.scenes import sample_video
from marc.world.texts import completion, prompt_ids

LAYOUTS = ("events", "full")
QUESTIONS = 3


@pytest.fixture(scope="module", params=FAMILIES)
def tiny(request: pytest.FixtureRequest) -> tuple[CompressedVLM, CompressedProcessor]:
    return build_world_model(TrainSettings(family=request.param))


def asked_videos(model: CompressedVLM, layout: str, style: str = "short", *, jump: bool = False) -> AskedVideos:
    rng = np.random.default_rng(0)
    videos = [sample_video("easy", "train", 0, index) for index in range(4)]
    width = model.model.stream_width * len(mergers(model.model.visual))
    bank = FeatureBank(torch.randn(768, 2, 8, 4, width, generator=torch.Generator().manual_seed(0)))
    tokens, pace = bank.videos(videos, rng), torch.tensor([1.0, 0.5, 2.0, 1.3])
    if layout == "events":
        lengths = [[event.grids for event in video.events] for video in videos]
        shown = event_layout(tokens, lengths, pace, rng, budget=4)
    else:
        shown = full_layout(tokens, pace)
    return AskedVideos(shown, [draw_questions(video, rng, QUESTIONS) for video in videos], style, jump)


def only(asked: AskedVideos, video: int, question: int) -> AskedVideos:
    return AskedVideos([asked.shown[video]], [[asked.questions[video][question]]], asked.style, asked.jump)


def logits_alone(model: CompressedVLM, packed: PackedQuestions) -> torch.Tensor:
    """Of a single question: a plain causal forward."""
    return model(
        input_ids=packed.ids,
        attention_mask=torch.ones_like(packed.ids),
        position_ids=packed.positions,
        mm_encoder_outputs={"video": BaseModelOutputWithPooling(pooler_output=packed.features)},
    ).logits[0, packed.predicting]


@torch.no_grad()
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_packed_question_is_as_if_alone(tiny: tuple[CompressedVLM, CompressedProcessor], layout: str) -> None:
    model, processor = tiny
    asked = asked_videos(model, layout)
    pack = partial(pack_questions, model, processor)
    packed = pack(asked)
    visual = sum(len(video.features) for video in asked.shown)
    assert int((packed.ids == model.config.video_token_id).sum()) == visual, "each video stands there once"
    logits = target_logits(model, packed)
    for video, question in ((0, 0), (1, 2), (3, 1)):
        alone = pack(only(asked, video, question))
        mine = packed.owners == video * QUESTIONS + question
        assert torch.equal(packed.targets[mine], alone.targets)
        torch.testing.assert_close(logits[mine], logits_alone(model, alone), atol=1e-4, rtol=1e-4)


def test_targets_are_the_completion_and_nothing_else(tiny: tuple[CompressedVLM, CompressedProcessor]) -> None:
    model, processor = tiny
    asked = asked_videos(model, "events", style="video-r1")
    packed = pack_questions(model, processor, asked)
    questions = [question for row in asked.questions for question in row]
    for number, question in enumerate(questions):
        said = processor.tokenizer.decode(packed.targets[packed.owners == number])
        assert said == completion(question, "video-r1") + "<|im_end|>"
    assert int(packed.owners.max()) + 1 == len(questions)
    counts = packed.per_question(torch.ones(len(packed.targets)))
    assert counts.sum() == len(packed.targets) and counts.min() > 5
    read = packed.ids[0, packed.predicting[1:]]
    inside = packed.owners[1:] == packed.owners[:-1]
    assert torch.equal(read[inside], packed.targets[:-1][inside]), "a target is read before the next one is predicted"


@pytest.mark.parametrize("jump", [False, True])
def test_positions_are_the_models_own(tiny: tuple[CompressedVLM, CompressedProcessor], jump: bool) -> None:
    """The full layout at one second per grid against the model's `get_rope_index`, and transformers' way to go on.

    Where the prompt says the times there is one way only.
    """
    model, processor = tiny
    asked = only(asked_videos(model, "full", jump=jump), 0, 0)
    packed = pack_questions(model, processor, asked)
    [video], [[question]] = asked.shown, asked.questions
    shown = len(processor.video_ids(video.cells, processor.grid_seconds(video.frame_seconds)))
    prompt = len(prompt_ids(processor, question, asked.style)) + shown - 1
    ids = packed.ids[:, : prompt if jump else None]
    times = {} if isinstance(model.model, TimestampedModel) else {"second_per_grid_ts": torch.tensor([1.0])}
    with at_compression(model, every_token(model.compression)):
        positions, delta = model.model.get_rope_index(
            ids,
            mm_token_type_ids=2 * (ids == model.config.video_token_id).int(),
            video_grid_thw=torch.tensor([[32, 4, 4]]),
            **times,
        )
    assert torch.equal(packed.positions[:, 0, : ids.shape[1]], positions[:, 0])
    if jump:
        generated = torch.arange(prompt, packed.ids.shape[1]) + delta[0]
        assert torch.equal(packed.positions[0, 0, prompt:], generated)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_prompt_is_what_the_engine_writes(tiny: tuple[CompressedVLM, CompressedProcessor], layout: str) -> None:
    """Of a video of four events, whose plan has one token for each, and of the same with every token."""
    model, processor = tiny
    video = next(video for index in range(99) if len((video := sample_video("easy", "train", 0, index)).events) == 4)
    question = draw_questions(video, np.random.default_rng(0), 1)[0]
    patches = VisualPatches.of_frames(processor, draw_frames(video), video.event_of_frame[::2])
    compression = model.compression if layout == "events" else every_token(model.compression)
    prompt = Prompt(
        tuple(prompt_ids(processor, question, "short")), (VideoInput.of(patches, processor, compression),)
    ).expanded(model)
    bank = FeatureBank(torch.zeros(768, 1, 8, 4, 128 * len(mergers(model.model.visual))))
    shown = lay_out(bank, [video], layout, np.random.default_rng(0), noisy=False)
    packed = pack_questions(model, processor, AskedVideos(shown, [[question]], "short"))
    assert packed.ids[0, : len(prompt)].tolist() == prompt
