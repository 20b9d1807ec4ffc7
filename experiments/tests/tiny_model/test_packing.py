"""A packed sequence gives each question what it would get alone in the model's own forward."""

import numpy as np
import pytest
import torch

from experiments.tiny_model.bank import FeatureBank, event_layout, full_layout
from experiments.tiny_model.initialisation import build_world_model
from experiments.tiny_model.packing import IGNORED, Packed, Packer, packed_hidden, packed_positions
from experiments.tiny_model.recipe import TrainSettings
from marc.model import MarcForConditionalGeneration, MarcProcessor
from marc.world.questions import draw_questions
from marc.world.scenes import sample_video

LAYOUTS = ("events", "full")


@pytest.fixture(scope="module")
def tiny() -> tuple[MarcForConditionalGeneration, MarcProcessor]:
    return build_world_model(TrainSettings())


def packed_batch(processor: MarcProcessor, layout: str, style: str = "short") -> Packed:
    rng = np.random.default_rng(0)
    videos = [sample_video("easy", "train", 0, index) for index in range(4)]
    bank = FeatureBank(torch.randn(768, 2, 8, 4, 128, generator=torch.Generator().manual_seed(0)))
    tokens, pace = bank.videos(videos, rng), torch.tensor([1.0, 0.5, 2.0, 1.3])
    if layout == "events":
        lengths = [[event.grids for event in video.events] for video in videos]
        visual = event_layout(tokens, lengths, pace, rng, budget=4)
    else:
        visual = full_layout(tokens, pace)
    return Packer(processor).pack([draw_questions(video, rng, 3) for video in videos], visual, style)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_packed_question_is_as_if_alone(
    tiny: tuple[MarcForConditionalGeneration, MarcProcessor], layout: str
) -> None:
    model, processor = tiny
    packed = packed_batch(processor, layout)
    text = model.model.language_model
    with torch.no_grad():
        hidden = packed_hidden(model, packed, jump=False)
        positions = packed_positions(packed, jump=False)
        opening, length = len(packed.opening), packed.questions.shape[2]
        for video, question in ((0, 0), (1, 2), (3, 1)):
            real = torch.arange(packed.prefix)[torch.cat((torch.ones(opening) > 0, packed.visual.valid[video]))]
            used = int(packed.lengths[video, question])
            begin = packed.prefix + question * length
            alone = torch.cat(
                (
                    text.embed_tokens(packed.opening),
                    packed.visual.features[video][packed.visual.valid[video]],
                    text.embed_tokens(packed.questions[video, question, :used]),
                )
            )
            places = torch.cat((real, torch.arange(begin, begin + used)))
            output = text(inputs_embeds=alone[None], position_ids=positions[:, video : video + 1, places])
            torch.testing.assert_close(
                output.last_hidden_state[0, -used:], hidden[video, question, :used], atol=1e-4, rtol=1e-4
            )


def test_labels_are_the_completion_and_nothing_else(tiny: tuple[MarcForConditionalGeneration, MarcProcessor]) -> None:
    processor = tiny[1]
    packed = packed_batch(processor, "events", style="video-r1")
    for ids, labels in zip(packed.questions.flatten(0, 1), packed.labels.flatten(0, 1), strict=True):
        said = processor.tokenizer.decode(labels[labels != IGNORED])
        assert said.startswith("<think>") and said.endswith("</answer><|im_end|>")
        assert processor.tokenizer.decode(ids).count(said) == 1


@pytest.mark.parametrize("jump", [False, True])
def test_positions_are_the_models_own(tiny: tuple[MarcForConditionalGeneration, MarcProcessor], jump: bool) -> None:
    """The full layout at one second per grid against the model's `get_rope_index`."""
    model, processor = tiny
    packed = packed_batch(processor, "full")
    used, start = int(packed.lengths[0, 0]), int(packed.prompts[0, 0])
    video = torch.full((packed.visual.features.shape[1],), model.config.video_token_id)
    ids = torch.cat((packed.opening, video, packed.questions[0, 0, : start if jump else used]))[None]
    model.config.compression = model.compression.from_dict({"target_frames": None})
    positions, delta = model.model.get_rope_index(
        ids,
        mm_token_type_ids=2 * (ids == model.config.video_token_id).int(),
        video_grid_thw=torch.tensor([[32, 4, 4]]),
        second_per_grid_ts=torch.tensor([1.0]),
    )
    ours = packed_positions(packed, jump=jump)[:, 0, : packed.prefix + used]
    assert torch.equal(ours[:, : ids.shape[1]], positions[:, 0])
    if jump:
        generated = torch.arange(ids.shape[1], packed.prefix + used) + delta[0]
        assert torch.equal(ours[0, ids.shape[1] :], generated)
