"""Parity with transformers where nothing is compressed; and where something is, one result whatever the way to it."""

import copy
from contextlib import contextmanager
from unittest import mock

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny_inputs import answered, first_logits, noise, video_inputs
from tiny_models import of, stock_processor
from transformers import AutoModel, DynamicCache

from marc import load_model
from marc.compression.merge import compress

NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
EVENTS = [[0, 0, 0, 1, 1, 2, 2, 2]]
SECONDS = [[0.0, 1.0, 2.0, 30.0, 31.0, 90.0, 91.0, 92.0]]
LAYOUTS = [
    {"layout": "frames", "target_frames": 1},
    {"layout": "frames", "target_frames": 3, "window": 2, "ratio": 0.5},
    {"layout": "events"},
    {"layout": "events", "merge": "weighted", "visual_tokens": 5},
    {"target_frames": None},
]


SHOWN = {
    "texts": ["What?", "And what is it that comes after all of that?"],
    "pictures": ["<image> and <image>?", "<image> What is it?"],
    "videos": ["<video> and <video>?", "<video>!"],
    "all of them": ["<video> and <image>?", "Who?", "<image> <video>!"],
}


@pytest.mark.parametrize("attention", [None, "eager"])
@pytest.mark.parametrize("shown", SHOWN)
def test_turned_off_equals_transformers_bit_for_bit(tiny, stock, shown, attention):
    """What is asked, where its tokens stand, logits and answers."""
    model, processor = tiny("grid", target_frames=None)
    texts = SHOWN[shown]
    videos = [noise(8 - 2 * index, index) for index in range("".join(texts).count("<video>"))]
    images = [noise(1, 5, width=56 - 28 * (index % 2))[0] for index in range("".join(texts).count("<image>"))]
    inputs, theirs = (
        video_inputs(each, texts, videos, images=images or None) for each in (processor, stock_processor(processor))
    )
    assert inputs.keys() == theirs.keys() and all(torch.equal(inputs[name], theirs[name]) for name in inputs)
    positions, expected = (
        each.model.get_rope_index(**{name: value for name, value in inputs.items() if "pixel" not in name})
        for each in (model, stock)
    )
    assert all(torch.equal(*both) for both in zip(positions, expected, strict=True))
    if attention is not None:
        model.set_attn_implementation(attention)
        stock.set_attn_implementation(attention)
    assert torch.equal(first_logits(model, inputs), first_logits(stock, inputs))
    assert all(map(torch.equal, answered(model, inputs), answered(stock, inputs)))
    stock.set_attn_implementation("sdpa")


@pytest.mark.parametrize("compression", [{"layout": "events", "visual_tokens": 5}, {"target_frames": None}])
def test_which_tokens_show_something_need_not_be_said(tiny, compression):
    model, processor = tiny(**compression)
    inputs = video_inputs(
        processor, ["<image> or <video> What?", "<video>!"], [noise(16, 1), noise(4, 2)], images=[noise(1, 5)[0]]
    )
    untold = {name: value for name, value in inputs.items() if name != "mm_token_type_ids"}
    assert torch.equal(first_logits(model, untold), first_logits(model, inputs))
    assert all(map(torch.equal, answered(model, untold), answered(model, inputs)))


@of("qwen3_vl", "qwen3_5")
@pytest.mark.parametrize("compression", [{"target_frames": None}, {"visual_tokens": 4 * 16}])
def test_where_nothing_merges_times_are_transformers(tiny, stock, compression):
    """Told or not: in the prompt, and in what is made of it."""
    model, processor = tiny(**compression)
    expected = video_inputs(stock_processor(processor), ["<video> What?"], [noise(8, 1)])
    logits = first_logits(stock, expected)
    for seconds in (None, [[0.25, 1.25, 2.25, 3.25]]):
        inputs = video_inputs(processor, ["<video> What?"], [noise(8, 1)], video_seconds=seconds)
        assert torch.equal(inputs["input_ids"], expected["input_ids"])
        assert torch.equal(first_logits(model, inputs), logits)


@pytest.mark.parametrize("compression", LAYOUTS)
def test_placeholders_match_the_features(tiny, compression):
    model, processor = tiny(**compression)
    inputs = video_inputs(processor, ["<video> What?"], [noise(16, 0)], video_events=EVENTS)
    placeholders = int((inputs["input_ids"] == processor.video_token_id).sum())
    features = model.encode_video(**inputs)["video"].pooler_output
    assert placeholders == len(features[0]) == (8 * 16 if not model.compression.enabled else placeholders)
    assert first_logits(model, inputs).isfinite().all()


def test_features_are_the_compressed_tower_output(tiny):
    model, processor = tiny(layout="events")
    inputs = video_inputs(processor, ["<video>?"], [noise(16, 3)], video_events=EVENTS)
    with torch.no_grad():
        tower = model.model.visual(inputs["pixel_values_videos"], inputs["video_grid_thw"]).pooler_output
    expected = compress(tower.unflatten(0, (8, 16)), model.compression, events=EVENTS[0], size=(4, 4))
    got = model.encode_video(**inputs)["video"]
    torch.testing.assert_close(got.pooler_output[0], expected.flat)
    assert got.members[0].tolist() == EVENTS[0]


@pytest.mark.parametrize("compression", LAYOUTS)
def test_a_padded_batch_equals_its_rows(tiny, compression):
    model, processor = tiny(**compression)
    texts = ["<video> What is it?", "Two of them: <video> <video> – which is first, and why is that so?"]
    videos = [noise(16, 1), noise(8, 2), noise(4, 3, width=28)]
    events = [EVENTS[0], [0, 0, 1, 1], [0, 1]]
    together = video_inputs(processor, texts, videos, video_events=events)
    options = {"max_new_tokens": 4, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}
    batch = model.generate(**together, **options)
    for row, (text, own) in enumerate(zip(texts, [slice(0, 1), slice(1, 3)], strict=True)):
        alone = video_inputs(processor, [text], videos[own], video_events=events[own])
        single = model.generate(**alone, **options)
        for ours, theirs in zip(batch.logits, single.logits, strict=True):
            torch.testing.assert_close(ours[row], theirs[0], atol=2e-4, rtol=2e-4)


@of("qwen2_5_vl")
def test_a_batch_may_hold_more_videos_than_a_prompt_has_tokens(tiny):
    model, processor = tiny(visual_tokens=1)
    inputs = video_inputs(processor, ["<video>"] * 40, [noise(2, 1)] * 40)
    assert inputs["input_ids"].shape[1] < 40
    del inputs["second_per_grid_ts"]
    assert first_logits(model, inputs).isfinite().all()


@pytest.mark.parametrize("text_after_video", ["published", "grid"])
@pytest.mark.parametrize("compression", LAYOUTS)
def test_generation_and_log_probabilities_agree(tiny, compression, text_after_video):
    """Positions of generated tokens: with a cache, step by step, and in one pass over prompt and completion."""
    model, processor = tiny(text_after_video, **compression)
    inputs = video_inputs(processor, ["<video> What?"], [noise(16, 4)], video_events=EVENTS, video_seconds=SECONDS)
    out = model.generate(**inputs, max_new_tokens=8, do_sample=False, output_logits=True, return_dict_in_generate=True)
    generated = len(out.logits)
    whole = dict(inputs)
    whole["input_ids"] = out.sequences
    whole["attention_mask"] = torch.ones_like(out.sequences)
    whole["mm_token_type_ids"] = torch.nn.functional.pad(inputs["mm_token_type_ids"], (0, generated))
    one_pass = first_logits(model, whole)[0, -generated - 1 : -1]
    torch.testing.assert_close(torch.stack(out.logits)[:, 0], one_pass, atol=2e-4, rtol=2e-4)


@contextmanager
def positions_read(model):
    """Collects where the last token stands in each call of the language model, ``[3, B]``."""
    read = []

    def keep(_, args, kwargs):
        read.append((kwargs["position_ids"] if "position_ids" in kwargs else args[1])[..., -1])

    hook = model.model.language_model.rotary_emb.register_forward_pre_hook(keep, with_kwargs=True)
    yield read
    hook.remove()


@pytest.mark.parametrize("seconds", [SECONDS, None])
@pytest.mark.parametrize("compression", LAYOUTS)
def test_any_way_of_generating_goes_on_at_the_same_positions(tiny, compression, seconds):
    """With a cache, without one, by a loop of one's own that counts on from `rope_deltas`, and in one pass."""
    model, processor = tiny(**compression)
    inputs = video_inputs(processor, ["<video> What?", "<video> Why is that so?"], [noise(16, 4), noise(16, 5)],
                          video_events=EVENTS * 2, video_seconds=seconds and seconds * 2)  # fmt: skip
    options = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False}
    with positions_read(model) as expected:
        tokens = model.generate(**inputs, **options)
    with positions_read(model) as uncached:
        assert torch.equal(model.generate(**inputs, **options, use_cache=False), tokens)
    prompt, rows = inputs["input_ids"].shape[1], dict(inputs)
    with positions_read(model) as by_hand, torch.no_grad():
        cache = DynamicCache(config=model.config.get_text_config(decoder=True))
        for place in range(prompt, prompt + 4):
            model(**rows, past_key_values=cache)
            present = rows["attention_mask"]
            rows = {
                "input_ids": tokens[:, place, None],
                "attention_mask": torch.nn.functional.pad(present, (0, 1), value=1),
                "position_ids": (present.sum(1, keepdim=True) + model.model.rope_deltas).expand(3, -1, -1),
            }
    longer = {"attention_mask": 1, "mm_token_type_ids": 0}
    whole = dict(inputs) | {"input_ids": tokens}
    whole |= {name: torch.nn.functional.pad(inputs[name], (0, 4), value=value) for name, value in longer.items()}
    del whole["pixel_values_videos"]
    one_pass = model.model.get_rope_index(**whole)[0][..., prompt - 1 : -1]
    assert torch.equal(torch.stack(expected, -1), one_pass)
    assert torch.equal(torch.stack(uncached, -1), one_pass)
    assert torch.equal(torch.stack(by_hand, -1), one_pass)


@pytest.mark.parametrize("compression", [{"layout": "events", "visual_tokens": 32}, {"layout": "frames"}])
def test_without_events_model_and_processor_follow_the_plans_rule(tiny, compression):
    """Each temporal grid by itself in the event layout; one event in the other."""
    model, processor = tiny(**compression)
    own = [list(range(8))] if compression["layout"] == "events" else [[0] * 8]
    inputs = video_inputs(processor, ["<video> What?"], [noise(16, 4)])
    told = video_inputs(processor, ["<video> What?"], [noise(16, 4)], video_events=own)
    assert inputs["input_ids"].tolist() == told["input_ids"].tolist()
    assert torch.equal(first_logits(model, inputs), first_logits(model, told))
    members = model.encode_video(**inputs)["video"].members[0].tolist()
    assert members == (own[0] if compression["layout"] == "events" else [0] * 8)


def test_encoding_once_serves_many_questions(tiny):
    model, processor = tiny()
    inputs = video_inputs(processor, ["<video> What?"], [noise(16, 1)], video_events=EVENTS)
    features = model.encode_video(**inputs)
    kept = features["video"].pooler_output[0].clone()
    rest = {key: value for key, value in inputs.items() if key != "pixel_values_videos"}
    expected = model.generate(**inputs, max_new_tokens=5, do_sample=False)
    with mock.patch.object(model.model.visual, "forward", side_effect=AssertionError("the tower ran again")):
        for _ in range(2):
            again = model.generate(**rest, mm_encoder_outputs=features, max_new_tokens=5, do_sample=False)
            assert torch.equal(again, expected)
            many = {"max_new_tokens": 2, "do_sample": True, "num_return_sequences": 3}
            assert len(model.generate(**rest, mm_encoder_outputs=features, **many)) == 3
    assert torch.equal(features["video"].pooler_output[0], kept)
    assert len(features["video"].pooler_output) == 1


def test_generating_several_sequences_reads_every_video_once(tiny):
    model, processor = tiny()
    inputs = video_inputs(processor, ["<video> What?", "<video> Why?"], [noise(16, 1), noise(8, 2)])
    with mock.patch.object(model.model.visual, "forward", wraps=model.model.visual.forward) as tower:
        assert len(model.generate(**inputs, max_new_tokens=2, do_sample=True, num_return_sequences=4)) == 8
    assert tower.call_count == 2, "once for each video"


@pytest.mark.parametrize("compression", [{"visual_tokens": 8}, {"layout": "frames", "tower_layer": 1}])
def test_beams_of_a_batch_are_those_of_its_rows(tiny, compression):
    model, processor = tiny(**compression)
    texts, videos = ["<video> What?", "<image> Who <video> is <video>?"], [noise(16, 1), noise(8, 2), noise(4, 3)]
    images, options = [noise(1, 5)[0]], {"num_beams": 3, "num_return_sequences": 2, "max_new_tokens": 5}
    together, *alone = (
        model.generate(**inputs, **options, output_scores=True, return_dict_in_generate=True)
        for inputs in (
            video_inputs(processor, texts, videos, images=images),
            video_inputs(processor, texts[:1], videos[:1]),
            video_inputs(processor, texts[1:], videos[1:], images=images),
        )
    )
    expected = torch.cat([each.sequences_scores for each in alone])
    torch.testing.assert_close(together.sequences_scores, expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(together.sequences[:, -5:], torch.cat([each.sequences[:, -5:] for each in alone]))


def test_images_are_never_compressed(tiny, stock):
    model, processor = tiny(visual_tokens=1)
    inputs = video_inputs(processor, ["<image> What?"], [], images=[noise(1, 1)[0]])
    assert int((inputs["input_ids"] == processor.image_token_id).sum()) == 16
    assert torch.equal(first_logits(model, inputs), first_logits(stock, inputs))


@pytest.mark.parametrize("layout", ["frames", "events"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_reach_every_parameter(tiny, checkpointing, layout):
    model, processor = tiny(layout=layout)
    model = copy.deepcopy(model).train()
    if checkpointing:
        model.gradient_checkpointing_enable()
    inputs = video_inputs(processor, ["<video> What?"], [noise(16, 1)], video_events=EVENTS)
    model(**inputs, labels=inputs["input_ids"]).loss.backward()
    still = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not still


def test_checkpointing_changes_no_gradient(tiny):
    gradients = []
    for checkpointing in (False, True):
        model, processor = tiny()
        model.train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        inputs = video_inputs(processor, ["<video> What?"], [noise(8, 1)])
        model(**inputs, labels=inputs["input_ids"]).loss.backward()
        gradients.append([p.grad for p in model.parameters()])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, checkpointed)


def test_bfloat16_is_near_float32(tiny):
    model, processor = tiny()
    inputs = video_inputs(processor, ["<video> What?"], [noise(16, 1)], video_events=EVENTS)
    full = first_logits(model, inputs)
    half = first_logits(copy.deepcopy(model).bfloat16(), inputs)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), full, atol=0.05, rtol=0.05)


def test_lora_trains_the_language_model_only(tiny):
    model, processor = tiny()
    adapted = get_peft_model(copy.deepcopy(model), LoraConfig(target_modules=model.family.language_linears, r=2))
    inputs = video_inputs(processor, ["<video> What?"], [noise(8, 1)])
    torch.testing.assert_close(first_logits(adapted, inputs), first_logits(model, inputs))
    adapted(**inputs, labels=inputs["input_ids"]).loss.backward()
    trained = {name for name, p in adapted.named_parameters() if p.grad is not None}
    assert all("language_model" in name and "lora" in name for name in trained)
    layers = {name.split(".layers.")[1].split(".lora")[0] for name in trained}
    linears = {
        name
        for name, module in model.model.language_model.layers.named_modules()
        if isinstance(module, torch.nn.Linear) and module.out_features > 8
    }
    assert layers == linears, "every layer's, but for a recurrent layer's gates, a number for each head"


@NEEDS_GPU
@pytest.mark.parametrize("attention", [None, "sdpa", "flash_attention_2"])
def test_on_a_gpu_it_equals_the_cpu(tiny, attention):
    if attention == "flash_attention_2":
        pytest.importorskip("flash_attn")
    model, processor = tiny()
    inputs = video_inputs(processor, ["<video> What?"], [noise(16, 1)], video_events=EVENTS)
    expected = first_logits(model, inputs)
    model = copy.deepcopy(model).to("cuda", torch.bfloat16)
    if attention is not None:
        model.set_attn_implementation(attention)
    torch.testing.assert_close(first_logits(model, inputs.to("cuda")).float().cpu(), expected, atol=0.05, rtol=0.05)


@NEEDS_GPU
@pytest.mark.parametrize(
    "compression",
    [
        *LAYOUTS,
        {"layout": "frames", "tower_layer": 1},
        {"layout": "frames", "tower_layer": ((1, 4),)},
        {"layout": "events", "tower_layer": 1, "duplicates": 0.1},
        {"layout": "events", "tower_chunk": 16},
        {"target_frames": None, "tower_chunk": 16},
    ],
)
def test_on_a_gpu_every_merge_equals_the_cpus(tiny, compression):
    model, processor = tiny(**compression)
    half_still = np.concatenate([noise(8, 1), np.repeat(noise(1, 2), 8, axis=0)])
    inputs = video_inputs(
        processor, ["<image> or <video>, what?"], [half_still], images=[noise(1, 5)[0]], video_events=EVENTS
    )
    expected = first_logits(model, inputs)
    moved = first_logits(copy.deepcopy(model).to("cuda"), inputs.to("cuda"))
    torch.testing.assert_close(moved.cpu(), expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("device_map", [{"": "cpu"}, pytest.param("auto", marks=NEEDS_GPU)])
def test_device_map(tiny, tmp_path, device_map):
    model, processor = tiny()
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    placed, _ = load_model(tmp_path, device="cpu", device_map=device_map)
    inputs = video_inputs(processor, ["<video> What?"], [noise(16, 1)], video_events=EVENTS)
    options = {"max_new_tokens": 3, "do_sample": False}
    expected = model.generate(**inputs, **options)
    assert torch.equal(placed.generate(**inputs.to(placed.device), **options).cpu(), expected)


def test_the_inner_model_loads_on_its_own(tiny, tmp_path):
    model, processor = tiny()
    model.save_pretrained(tmp_path)
    inner, report = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert type(inner) is model.family.ours.load("model")
    assert not report["missing_keys"]
    inputs = video_inputs(processor, ["<video> What?"], [noise(8, 1)])
    with torch.no_grad():
        assert torch.equal(inner(**inputs).last_hidden_state, model.model(**inputs).last_hidden_state)
