"""Several outputs for a prompt, and the teacher that asks for them, by vLLM."""

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from marc.data.prompts import message_about
from marc.inference import vllm_backend
from marc.inference.prompts import Prompt
from marc.inference.video_input import VideoInput, VisualPatches, every_token
from marc.model.family import vision_token_ids
from marc.types import GenerationOptions
from marc.world.frames import draw_frames
from marc.world.scenes import sample_video

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def prompts(backend) -> list[Prompt]:
    """Two questions about a video."""
    processor, video = backend.processor, sample_video("easy", "test", 0, 0)
    patches = VisualPatches.of_frames(processor, draw_frames(video), video.event_of_frame[::2])
    shown = VideoInput.of(patches, processor, backend.compression)
    texts = [
        processor.apply_chat_template(message_about([("video", "")], question), add_generation_prompt=True)
        for question in ("What happens first?", "How many scenes are there?")
    ]
    return [
        Prompt(tuple(processor.tokenizer(text, add_special_tokens=False)["input_ids"]), (shown,)) for text in texts
    ]


def test_the_greedy_sample_is_what_is_generated(backend, prompts):
    options = GenerationOptions(max_new_tokens=24)
    assert backend.sample(prompts, options, 1) == [[each] for each in backend.generate(prompts, options)]


def test_greedy_outputs_come_with_the_probabilities_of_their_tokens(backend, prompts):
    from vllm import SamplingParams

    options = GenerationOptions(max_new_tokens=24, temperature=1.5, seed=3)
    outputs = backend.greedy(prompts, options)
    assert [output.tokens for output in outputs] == backend.generate(prompts, replace(options, temperature=0.0))
    likeliest = SamplingParams(temperature=0, max_tokens=24, logprobs=3)
    told = backend.engine.generate([backend.request(prompt) for prompt in prompts], likeliest, use_tqdm=False)
    for output, each in zip(outputs, told, strict=True):
        expected = [max(word.logprob for word in words.values()) for words in each.outputs[0].logprobs]
        assert output.logprobs == pytest.approx(expected, abs=1e-4)
    assert [backend.converse().greedy(prompt, options).tokens for prompt in prompts] == [
        output.tokens for output in outputs
    ]


def test_what_is_drawn_for_a_prompt_follows_from_the_seed_alone(backend, prompts):
    options = GenerationOptions(max_new_tokens=40, temperature=2.0, seed=1)
    together = backend.sample(prompts, options, 8)
    assert together == [backend.sample([prompt], options, 8)[0] for prompt in prompts]
    assert all(len({tuple(output) for output in outputs}) > 1 for outputs in together)
    assert backend.sample(prompts, replace(options, seed=2), 8) != together
    with pytest.raises(ValueError, match=r"temperature 2\.5: vLLM draws at 2 at most"):
        backend.sample(prompts, replace(options, temperature=2.5), 8)


def test_no_vision_tokens_are_drawn(backend, prompts, monkeypatch):
    """Tried with those that would be drawn, in their place."""
    options = GenerationOptions(max_new_tokens=24)
    drawn = {token for outputs in backend.sample(prompts, options, 1) for token in outputs[0]}
    assert drawn.isdisjoint(vision_token_ids(backend.processor.tokenizer))
    monkeypatch.setattr(vllm_backend, "vision_token_ids", lambda tokenizer: sorted(drawn))
    assert all(drawn.isdisjoint(outputs[0]) for outputs in backend.sample(prompts, options, 1))


def test_the_teachers_accuracies_are_those_of_the_other_engine(backend, world, tmp_path):
    from marc.data.rows import parse_row
    from marc.training.reader import VisualReader
    from marc.training.teacher import TeacherCache, TeacherGrader, TeacherOptions, teacher_accuracies

    expected = json.loads((world.folder / "taught.json").read_text())
    rows = [parse_row(row) for row in expected["rows"]]
    own, backend.compression = backend.compression, every_token(backend.compression)
    grader = TeacherGrader(
        lambda: nullcontext(backend),
        VisualReader(backend.processor),
        TeacherOptions(samples=1, temperature=0.0, max_new_tokens=expected["new_tokens"]),
        TeacherCache(tmp_path),
        "vllm",
    )
    try:
        taught = [row.a_full for row in teacher_accuracies(rows, Path(world.folder), grader)]
    finally:
        backend.compression = own
    assert taught == pytest.approx(expected["a_full"]) and len(set(taught)) > 1
