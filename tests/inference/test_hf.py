"""Shared prefixes and static keys and values: the same answers as one question at a time with nothing shared."""

import copy
from dataclasses import replace
from unittest import mock

import pytest
import torch
from tiny_models import each_with, feature_width
from tiny_prompts import QUESTIONS, prompt, shown
from transformers import CompileConfig

from marc.compression.plan import plan_video
from marc.inference.hf import STATIC_LENGTHS, HFBackend, complete
from marc.inference.listening import Listener
from marc.inference.stages import StageClock
from marc.types import GenerationOptions

COMPRESSIONS = ({"layout": "frames"}, {"layout": "events", "visual_tokens": 3}, {"target_frames": None})


def encoded(backend, seed: int):
    video = shown(backend.processor, seed, events=(0, 0, 1, 2))
    backend.encode([video])
    return video


def prompts(backend, video, questions=QUESTIONS):
    return [prompt(backend.processor, question, [video]) for question in questions]


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
@each_with("compression", *COMPRESSIONS)
def test_questions_about_one_video_are_answered_as_one_by_one(tiny, first_logits, compression, static):
    alone = HFBackend(*tiny(**compression))
    asked = prompts(alone, encoded(alone, 1))
    options = GenerationOptions(max_new_tokens=6, static=False)
    expected = [alone.generate([each], options)[0] for each in asked]
    one_by_one = torch.cat(first_logits)
    first_logits.clear()
    shared = HFBackend(alone.model, alone.processor)
    got = shared.generate(asked, GenerationOptions(max_new_tokens=6, static=static))
    assert got == expected
    torch.testing.assert_close(first_logits[0][:3], one_by_one, atol=1e-4, rtol=1e-4)
    again = shared.generate(asked, GenerationOptions(max_new_tokens=6, static=static))
    assert again == expected


@each_with("questions", QUESTIONS[:1] * 3, QUESTIONS)
def test_what_they_begin_with_is_read_once(tiny, questions):
    backend = HFBackend(*tiny(target_frames=None))
    asked = prompts(backend, encoded(backend, 1), questions)
    language_model = backend.model.model.language_model
    with mock.patch.object(language_model, "forward", wraps=language_model.forward) as run:
        backend.generate(asked, GenerationOptions(max_new_tokens=2))
    read = [tuple(call.kwargs["inputs_embeds"].shape[:2]) for call in run.call_args_list]
    lengths = [len(each.expanded(backend.model)) for each in asked]
    (rows, prefix), (all_rows, rest), step = read
    assert (rows, all_rows, step) == (1, 3, (3, 1))
    assert prefix > 64
    assert prefix + rest == max(lengths)
    if len(set(questions)) == 1:
        assert rest == 1


@pytest.mark.parametrize("static", [False, True])
def test_different_videos_go_in_one_padded_batch(tiny, static):
    backend = HFBackend(*tiny(layout="events", visual_tokens=3))
    videos = [encoded(backend, seed) for seed in (1, 2, 3)]
    asked = [prompt(backend.processor, *pair) for pair in zip(QUESTIONS, [[video] for video in videos], strict=True)]
    options = GenerationOptions(max_new_tokens=6, static=static)
    assert backend.generate(asked, options) == [backend.generate([each], options)[0] for each in asked]


@pytest.mark.parametrize("static", [False, True])
def test_prompts_of_several_budgets_are_answered_each_at_its_own(tiny, static):
    backend = HFBackend(*tiny(layout="events", visual_tokens=3))
    other = replace(backend.compression, visual_tokens=8)
    videos = [shown(backend.processor, 1, own, events=(0, 0, 1, 2)) for own in (backend.compression, other)]
    backend.encode(videos)
    small, large = (prompts(backend, video, QUESTIONS[:2]) for video in videos)
    mixed = [small[0], large[0], prompt(backend.processor, "What?"), small[1], large[1]]
    options = GenerationOptions(max_new_tokens=6, static=static)
    alone = [backend.generate([each], options)[0] for each in mixed]
    heard = [[] for _ in mixed]
    assert backend.generate(mixed, options, listeners=[Listener(pieces.append) for pieces in heard]) == alone
    texts = backend.processor.batch_decode(alone, skip_special_tokens=True)
    assert ["".join(pieces) for pieces in heard] == texts
    greedy = backend.greedy(mixed, options)
    assert [list(output.tokens) for output in greedy] == alone
    sure = [backend.greedy([each], options)[0].logprobs[0] for each in mixed]
    assert [output.logprobs[0] for output in greedy] == pytest.approx(sure, abs=1e-5)
    assert len({round(each, 5) for each in sure}) == len(mixed), "else their order would not show"


def test_a_prompt_without_a_video_goes_with_the_others(tiny):
    backend = HFBackend(*tiny(layout="events", visual_tokens=3))
    asked = [prompt(backend.processor, "What?"), *prompts(backend, encoded(backend, 1), QUESTIONS[:2])]
    with mock.patch("marc.inference.hf.complete", wraps=complete) as generation:
        together = backend.generate(asked, GenerationOptions(max_new_tokens=3))
    assert generation.call_count == 1 and len(together) == 3


def test_samples_at_several_budgets_are_those_of_each_alone(tiny):
    backend = HFBackend(*tiny(layout="events", visual_tokens=3))
    other = replace(backend.compression, visual_tokens=8)
    videos = [shown(backend.processor, 1, own) for own in (backend.compression, other)]
    backend.encode(videos)
    asked = [prompts(backend, video, QUESTIONS[:1])[0] for video in videos]
    options = GenerationOptions(max_new_tokens=4, temperature=1.0, seed=3)
    assert backend.sample(asked, options, 2) == [backend.sample([each], options, 2)[0] for each in asked]


def tensors_of(cache) -> tuple[int, ...]:
    """Where a cache keeps keys and values, or the states of recurrent layers."""
    kept = [
        (layer.keys, layer.values) if hasattr(layer, "keys") else (layer.conv_states[0], layer.recurrent_states[0])
        for layer in cache.layers
    ]
    return tuple(tensor.data_ptr() for both in kept for tensor in both)


def test_static_tensors_stay_where_they_are(tiny):
    backend = HFBackend(*tiny(layout="events", visual_tokens=3))
    together = prompts(backend, encoded(backend, 1))
    options = GenerationOptions(max_new_tokens=6, static=True)
    places = {1: set(), 4: set()}
    for each in together:
        for asked in ([each], together):
            backend.generate(asked, options)
            rows = 1 if len(asked) == 1 else 4
            places[rows].add(tensors_of(backend._static[rows].cache))
    assert [len(kept) for kept in places.values()] == [1, 1], "neither number of rows takes the other's place"
    backend.generate(together[:1], GenerationOptions(max_new_tokens=STATIC_LENGTHS + 1, static=True))
    assert [backend._static[rows].room for rows in (1, 4)] == [2 * STATIC_LENGTHS, STATIC_LENGTHS]


@pytest.mark.parametrize("static", [False, True])
def test_videos_are_planned_for_the_prompt_alone(tiny, static):
    backend = HFBackend(*tiny(layout="events", visual_tokens=3))
    asked = prompts(backend, encoded(backend, 1))[:1]
    planned = []
    for new_tokens in (2, 20):
        with mock.patch("marc.model.modeling.plan_video", wraps=plan_video) as plan:
            backend.generate(asked, GenerationOptions(max_new_tokens=new_tokens, static=static))
        planned.append(plan.call_count)
    assert planned[0] == planned[1] > 0


def test_flash_attention_would_break_the_graph(tiny):
    backend = HFBackend(*tiny(layout="events", visual_tokens=3))
    asked = prompts(backend, encoded(backend, 1))[:1]
    config = backend.model.config.get_text_config(decoder=True)
    with (
        mock.patch.object(config, "_attn_implementation_internal", "flash_attention_2"),
        pytest.raises(ValueError, match="attn_implementation='sdpa'"),
    ):
        backend.generate(asked, GenerationOptions(static=True))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_one_graph_serves_prompts_of_different_lengths(tiny):
    """Compiled with a backend that runs the captured graph as it is: what is counted is how often it is captured."""
    config = CompileConfig(backend="eager")
    config._compile_all_devices = True
    compiled = HFBackend(*tiny(layout="events", visual_tokens=3), config)
    plain = HFBackend(compiled.model, compiled.processor)
    options = GenerationOptions(max_new_tokens=6, static=True)
    captured = []
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    for each in prompts(plain, encoded(plain, 1)):
        expected = plain.generate([each], GenerationOptions(max_new_tokens=6, static=False))
        assert compiled.generate([each], options) == expected
        captured.append(torch._dynamo.utils.counters["stats"]["unique_graphs"] - before)
    assert captured == [1, 1, 1]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("together", [False, True])
def test_on_a_gpu_compiled_decoding_answers_as_plain_decoding_does(tiny, together):
    model, processor = tiny(layout="events", visual_tokens=3)
    backend = HFBackend(copy.deepcopy(model).to("cuda"), processor)
    asked = prompts(backend, encoded(backend, 1))
    batches = [asked] if together else [[each] for each in asked]
    options = [GenerationOptions(max_new_tokens=6, static=static) for static in (False, True)]
    plain, compiled = ([backend.generate(batch, how) for batch in batches] for how in options)
    assert compiled == plain


def test_a_sample_follows_from_its_seed(tiny):
    backend = HFBackend(*tiny(layout="events"))
    asked = prompts(backend, encoded(backend, 1))

    def outputs(seed):
        return backend.generate(asked, GenerationOptions(8, temperature=1.0, seed=seed))

    assert outputs(1) == outputs(1) != outputs(2)


@pytest.mark.parametrize("in_turns", [False, True], ids=["generate", "converse"])
def test_a_checkpoints_penalty_on_what_was_said_holds_unless_another_is_given(tiny, in_turns, monkeypatch):
    backend = HFBackend(*tiny(layout="events"))
    video = encoded(backend, 0)
    (asked,) = prompts(backend, video, QUESTIONS[:1])

    def answer(penalty: float | None) -> list[int]:
        options = GenerationOptions(8, repetition_penalty=penalty)
        return backend.converse().generate(asked, options) if in_turns else backend.generate([asked], options)[0]

    plain = answer(None)
    assert answer(1.0) == plain != answer(50.0)
    monkeypatch.setattr(backend.model.generation_config, "repetition_penalty", 50.0)
    assert answer(1.0) == plain != answer(None) == answer(50.0)


def test_stages_are_timed_apart(tiny):
    backend = HFBackend(*tiny(layout="events"))
    clock, video = StageClock(), shown(backend.processor, 1)
    backend.encode([video], clock)
    backend.generate(prompts(backend, video), GenerationOptions(max_new_tokens=2), clock)
    assert set(clock.seconds) == {"vision_tower", "compression", "prefill", "decode"}
    assert min(clock.seconds.values()) > 0


def test_encoding_gives_up_the_pixels_and_is_done_once(tiny):
    backend = HFBackend(*tiny(layout="events"))
    video = encoded(backend, 1)
    before = video.features
    assert video.patches.pixels is None and before.shape == (video.tokens, feature_width(backend.model))
    backend.encode([video])
    assert video.features is before


def test_the_budget_is_the_models_and_the_processors(tiny):
    backend = HFBackend(*tiny(layout="events"))
    other = tiny(layout="frames")[0].compression
    backend.compression = other
    assert backend.compression == backend.model.compression == backend.processor.compression == other
