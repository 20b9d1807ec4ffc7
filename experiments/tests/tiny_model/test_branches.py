"""Packed completions against the model's own forward, one sequence at a time."""

import pytest
import torch

from experiments.ablation.pool import STYLE
from experiments.ablation.settings import BUDGETS
from experiments.ablation.views import remembered_events, whole_video
from experiments.tiny_model.branches import Completions, completion_logits, prompts_only, sample
from experiments.tiny_model.packing import prompt
from marc.data.prompts import chat_messages
from marc.model.modeling import CompressedVideoFeatures
from marc.world.renderer import render_video
from marc.world.scenes import sample_video


@pytest.fixture
def drawn(tiny, batch):
    model, processor = tiny
    completions = sample(
        model,
        prompts_only(batch.packed),
        group=3,
        length=5,
        end=processor.tokenizer.eos_token_id,
        never=torch.tensor([0]),
        generator=torch.Generator().manual_seed(0),
    )
    return batch, completions


def unshared_logits(tiny, batch, video: int, place: int, tokens: list[int]) -> torch.Tensor:
    """The same by `MarcForConditionalGeneration.forward` on one prompt with one completion."""
    model, processor = tiny
    pool_video = sample_video("easy", "train", 3, batch.videos[video])
    compression = BUDGETS[batch.budget]
    plan = whole_video(remembered_events(pool_video, render_video(pool_video)), compression)
    visual = batch.packed.visual
    features = visual.features[video][visual.valid[video]]
    text = processor.apply_chat_template(
        chat_messages(prompt(batch.rows[video][place], STYLE)), add_generation_prompt=True
    )
    expanded = text.replace(processor.video_token, processor.video_token * len(features))
    inputs = processor.tokenizer(expanded, return_tensors="pt")
    ids = torch.cat((inputs["input_ids"], torch.tensor([tokens])), dim=1)
    before, model.compression = model.compression, compression
    shared_out = compression.enabled and len(plan.events) <= len(features)
    shares = torch.tensor([cells_of(visual, video, plan)]) if shared_out else None
    logits = model(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        mm_token_type_ids=2 * (ids == model.config.video_token_id).int(),
        video_grid_thw=torch.tensor([[len(plan.grid_events), 4, 4]]),
        video_grid_events=torch.tensor([plan.grid_events.tolist()]),
        video_grid_seconds=torch.tensor([plan.seconds[::2].tolist()], dtype=torch.float64),
        video_event_shares=shares,
        mm_encoder_outputs={"video": CompressedVideoFeatures(pooler_output=(features,))},
    ).logits
    model.compression = before
    return logits[0, -len(tokens) - 1 : -1].float()


def cells_of(visual, video: int, plan) -> list[int]:
    """Tokens of each event, read off the positions: those of one event stand at one time."""
    times = visual.positions[video, visual.valid[video], 0].tolist()
    counts = [times.count(time) for time in dict.fromkeys(times)]
    assert len(counts) == len(plan.events)
    return counts


@torch.no_grad()
def test_logits_are_those_of_the_unshared_forward(tiny, drawn):
    batch, completions = drawn
    logits = completion_logits(tiny[0], prompts_only(batch.packed), completions)
    for video, place, member in ((0, 0, 0), (1, 3, 2), (2, 1, 1)):
        length = int(completions.mask[video, place, member].sum())
        tokens = completions.tokens[video, place, member, :length].tolist()
        expected = unshared_logits(tiny, batch, video, place, tokens)
        assert torch.allclose(logits[video, place, member, :length], expected, atol=2e-3), (video, place, member)


def test_completions_end_at_the_end_token(tiny, drawn):
    _, completions = drawn
    end = tiny[1].tokenizer.eos_token_id
    for tokens, mask in zip(completions.tokens.flatten(0, 2), completions.mask.flatten(0, 2), strict=True):
        kept = tokens[mask].tolist()
        assert mask.tolist() == sorted(mask.tolist(), reverse=True) and end not in kept[:-1]
        assert len(kept) == len(tokens) or kept[-1] == end


def test_samples_follow_the_probabilities(tiny, batch):
    """The first token's frequencies over many draws; a forbidden token is never drawn."""
    model, processor = tiny
    packed = prompts_only(batch.packed)
    draw = {"group": 400, "length": 1, "end": processor.tokenizer.eos_token_id}
    free = sample(model, packed, never=torch.tensor([0]), generator=torch.Generator().manual_seed(1), **draw)
    with torch.no_grad():
        logits = completion_logits(model, packed, Completions(free.tokens[:, :, :1], free.mask[:, :, :1]))
    probabilities = logits.softmax(-1)[:, :, 0, 0]
    counts = torch.zeros_like(probabilities).scatter_add_(2, free.tokens[..., 0], torch.ones(free.tokens.shape[:3]))
    assert (counts / 400 - probabilities).abs().max() < 0.12
    likeliest = int(probabilities[0, 0].argmax())
    other = sample(model, packed, never=torch.tensor([likeliest]), generator=torch.Generator().manual_seed(1), **draw)
    assert not (other.tokens == likeliest).any()
