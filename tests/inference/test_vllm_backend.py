"""What goes to vLLM, and what is said before it is loaded; its answers are tested where it is installed."""

from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from tiny_models import of

from marc import VideoAssistant
from marc.extras import MissingExtraError
from marc.inference.prompts import Prompt
from marc.inference.video_input import VideoInput, VisualPatches
from marc.inference.vllm_backend import VllmBackend, item_identity
from marc.inference.vllm_items import planned_item
from marc.types import Frames, GenerationOptions

needs_no_vllm = pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed")


@pytest.fixture
def backend(tiny) -> VllmBackend:
    model, processor = tiny()
    return VllmBackend(None, processor, model.config, "tiny")


def video(backend, seed=0, **changes) -> VideoInput:
    rgb = np.random.default_rng(seed).integers(0, 256, (8, 28, 28, 3), np.uint8)
    patches = VisualPatches.of_frames(backend.processor, Frames(rgb, np.arange(8) / 2, "noise"), (0, 0, 1, 1))
    return VideoInput.of(patches, backend.processor, replace(backend.compression, **changes))


@of("qwen2_5_vl", "qwen3_vl")
def test_a_prompt_shows_its_videos_with_what_they_are_known_by(backend):
    first, second = video(backend), video(backend, seed=1, target_frames=None)
    request = backend.request(Prompt((1, 2, 3), (first, second)))
    assert request["prompt_token_ids"] == [1, 2, 3]
    shown, known = request["multi_modal_data"]["video"], request["multi_modal_uuids"]["video"]
    assert known == [item_identity(each) for each in shown]
    assert [each["video_grid_thw"].tolist() for each in shown] == [
        list(each.patches.grid_thw) for each in (first, second)
    ]
    assert backend.request(Prompt((1,))) == {"prompt_token_ids": [1]}


@of("qwen2_5_vl")
def test_equal_pixels_and_equal_plans_are_known_as_one(backend):
    seen = [video(backend), video(backend), video(backend, seed=1), video(backend, visual_tokens=3)]
    same, again, other, smaller = (item_identity(planned_item(each)) for each in seen)
    assert same == again
    assert len({same, other, smaller}) == 3


@of("qwen2_5_vl")
def test_which_grids_merge_is_said_where_the_plan_says_it(backend):
    by_event, by_likeness, whole = video(backend), video(backend, layout="frames"), video(backend, target_frames=None)
    backend.encode([by_event, by_likeness, whole])
    assert by_event.members.tolist() == [0, 0, 1, 1]
    assert by_likeness.members is None and whole.members is None
    assert isinstance(by_event.patches.pixels, torch.Tensor)


@of("qwen2_5_vl")
def test_what_vllm_cannot_do_is_refused(backend):
    with pytest.raises(ValueError, match="leave static_cache out"):
        backend.sampling(GenerationOptions(static=True))
    with pytest.raises(ValueError, match="vLLM chooses its attention by itself"):
        VllmBackend.from_pretrained("tiny", attn_implementation="sdpa")


@of("qwen2_5_vl")
def test_weights_are_told_apart_by_their_files(tiny, tmp_path):
    model, processor = tiny()
    prints = []
    for number in range(2):
        model.save_pretrained(tmp_path / str(number))
        prints.append(VllmBackend(None, processor, model.config, str(tmp_path / str(number))).fingerprint())
        with torch.no_grad():
            model.lm_head.weight += 1
    assert len({*prints}) == 2


@needs_no_vllm
def test_without_vllm_the_extra_is_named():
    with pytest.raises(MissingExtraError, match=r"vllm is not installed.*setup_vllm\.sh"):
        VideoAssistant.from_pretrained(backend="vllm", memory=None)
