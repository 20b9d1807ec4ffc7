"""Shared prefixes and static keys and values: the same answers as one question at a time with nothing shared."""

import copy
from unittest import mock

import numpy as np
import pytest
import torch
from tiny_inputs import noise, video_inputs
from transformers import CompileConfig

from marc.compression.plan import plan_video
from marc.inference.hf import STATIC_LENGTHS, EncodedVideo, VideoGenerator
from marc.types import GenerationOptions, VideoInfo

QUESTIONS = ("What?", "What is it that happens at the very end of the video?", "How many things are there?")
COMPRESSIONS = ({"layout": "frames"}, {"layout": "events", "visual_tokens": 3}, {"target_frames": None})


def encoded(model, processor, seed: int) -> EncodedVideo:
    inputs = video_inputs(processor, ["<video>"], [noise(8, seed)], video_events=[[0, 0, 1, 2]])
    features = model.encode_video(**inputs.to(model.device))["video"].pooler_output[0]
    info = VideoInfo("noise", 56, 56, duration=40.0, fps=0.2, frame_count=8, codec="h264")
    return EncodedVideo(
        info, np.arange(8) * 5.0, inputs["video_grid_thw"], (0, 0, 1, 2), None, np.arange(4), features, 64
    )


def chats(processor, questions=QUESTIONS):
    video = {"type": "video"}
    turns = [[{"role": "user", "content": [video, {"type": "text", "text": question}]}] for question in questions]
    return [processor.apply_chat_template(turn, add_generation_prompt=True) for turn in turns]


@pytest.fixture
def first_logits(monkeypatch):
    """What every generation chose its first token from."""
    seen = []

    def record(self, input_ids, scores):
        if self.reached is None:
            seen.append(scores.clone())
            self.reached = self.clock.now()
        return scores

    monkeypatch.setattr("marc.inference.stages.FirstToken.__call__", record)
    return seen


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_questions_about_one_video_are_answered_as_one_by_one(tiny, first_logits, compression, static):
    model, processor = tiny(**compression)
    video = encoded(model, processor, 1)
    alone, options = VideoGenerator(model, processor), GenerationOptions(max_new_tokens=6, static=False)
    expected = [alone([chat], [video], options)[0] for chat in chats(processor)]
    one_by_one = torch.cat(first_logits)
    first_logits.clear()
    shared = VideoGenerator(model, processor)
    got = shared(chats(processor), [video] * 3, GenerationOptions(max_new_tokens=6, static=static))
    assert got == expected
    torch.testing.assert_close(first_logits[0][:3], one_by_one, atol=1e-4, rtol=1e-4)
    again = shared(chats(processor), [video] * 3, GenerationOptions(max_new_tokens=6, static=static))
    assert again == expected


@pytest.mark.parametrize("questions", [QUESTIONS, QUESTIONS[:1] * 3])
def test_what_they_begin_with_is_read_once(tiny, questions):
    model, processor = tiny(target_frames=None)
    video = encoded(model, processor, 1)
    language_model = model.model.language_model
    with mock.patch.object(language_model, "forward", wraps=language_model.forward) as run:
        VideoGenerator(model, processor)(chats(processor, questions), [video] * 3, GenerationOptions(max_new_tokens=2))
    read = [tuple(call.kwargs["inputs_embeds"].shape[:2]) for call in run.call_args_list]
    lengths = [len(processor.tokenizer(chat)["input_ids"]) + 63 for chat in chats(processor, questions)]
    (rows, prefix), (all_rows, rest), step = read
    assert (rows, all_rows, step) == (1, 3, (3, 1))
    assert prefix > 64
    assert prefix + rest == max(lengths)
    if len(set(questions)) == 1:
        assert rest == 1


@pytest.mark.parametrize("static", [False, True])
def test_different_videos_go_in_one_padded_batch(tiny, static):
    model, processor = tiny(layout="events", visual_tokens=3)
    videos = [encoded(model, processor, seed) for seed in (1, 2, 3)]
    options = GenerationOptions(max_new_tokens=6, static=static)
    generate = VideoGenerator(model, processor)
    batch = generate(chats(processor), videos, options)
    assert batch == [
        generate([chat], [video], options)[0] for chat, video in zip(chats(processor), videos, strict=True)
    ]


def test_static_tensors_stay_where_they_are(tiny):
    model, processor = tiny(layout="events", visual_tokens=3)
    video, generate = encoded(model, processor, 1), VideoGenerator(model, processor)
    options = GenerationOptions(max_new_tokens=6, static=True)
    places = {1: set(), 4: set()}
    for chat in chats(processor):
        for asked in ([chat], chats(processor)):
            generate(asked, [video] * len(asked), options)
            rows = 1 if len(asked) == 1 else 4
            places[rows].add(generate._static[rows].cache.layers[0].keys.data_ptr())
    assert [len(kept) for kept in places.values()] == [1, 1], "neither number of rows takes the other's place"
    generate([chats(processor)[0]], [video], GenerationOptions(max_new_tokens=STATIC_LENGTHS + 1, static=True))
    assert [generate._static[rows].room for rows in (1, 4)] == [2 * STATIC_LENGTHS, STATIC_LENGTHS]


@pytest.mark.parametrize("static", [False, True])
def test_videos_are_planned_for_the_prompt_alone(tiny, static):
    model, processor = tiny(layout="events", visual_tokens=3)
    video, generate = encoded(model, processor, 1), VideoGenerator(model, processor)
    planned = []
    for new_tokens in (2, 20):
        with mock.patch("marc.model.qwen2_5_vl.modeling.plan_video", wraps=plan_video) as plan:
            generate(chats(processor)[:1], [video], GenerationOptions(max_new_tokens=new_tokens, static=static))
        planned.append(plan.call_count)
    assert planned[0] == planned[1] > 0


def test_flash_attention_would_break_the_graph(tiny):
    model, processor = tiny(layout="events", visual_tokens=3)
    video, generate = encoded(model, processor, 1), VideoGenerator(model, processor)
    config = model.config.get_text_config(decoder=True)
    with (
        mock.patch.object(config, "_attn_implementation_internal", "flash_attention_2"),
        pytest.raises(ValueError, match="attn_implementation='sdpa'"),
    ):
        generate(chats(processor)[:1], [video], GenerationOptions(static=True))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_one_graph_serves_prompts_of_different_lengths(tiny):
    """Compiled with a backend that runs the captured graph as it is: what is counted is how often it is captured."""
    model, processor = tiny(layout="events", visual_tokens=3)
    video = encoded(model, processor, 1)
    config = CompileConfig(backend="eager")
    config._compile_all_devices = True
    compiled, plain = VideoGenerator(model, processor, config), VideoGenerator(model, processor)
    options = GenerationOptions(max_new_tokens=6, static=True)
    captured = []
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    for chat in chats(processor):
        expected = plain([chat], [video], GenerationOptions(max_new_tokens=6, static=False))
        assert compiled([chat], [video], options) == expected
        captured.append(torch._dynamo.utils.counters["stats"]["unique_graphs"] - before)
    assert captured == [1, 1, 1]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("together", [False, True])
def test_on_a_gpu_compiled_decoding_answers_as_plain_decoding_does(tiny, together):
    model, processor = tiny(layout="events", visual_tokens=3)
    model = copy.deepcopy(model).to("cuda")
    video, generate = encoded(model, processor, 1), VideoGenerator(model, processor)
    batches = [chats(processor)] if together else [[chat] for chat in chats(processor)]
    options = [GenerationOptions(max_new_tokens=6, static=static) for static in (False, True)]
    plain, compiled = ([generate(batch, [video] * len(batch), how) for batch in batches] for how in options)
    assert compiled == plain


def test_a_sample_follows_from_its_seed(tiny):
    model, processor = tiny(layout="events")
    video, generate = encoded(model, processor, 1), VideoGenerator(model, processor)

    def outputs(seed):
        return generate(chats(processor), [video] * 3, GenerationOptions(8, temperature=1.0, seed=seed))

    assert outputs(1) == outputs(1) != outputs(2)
