"""What transformers' own tests of these families look at, of our classes with compression off.

For models these are numbers of placeholders that do not fit, shapes of pictures and videos, resized and given
embeddings, saving, training, what comes out beside logits, attention, and every way to generate; for processors
saving, chat templates, names, options, and counts. Where transformers' class can do the same, it is the oracle.

Some kinds of theirs cannot apply. Audio, heads for classification, text models without a tower: we have none.
Pruning, feed-forward chunking and offloading to disk: skipped for these families by transformers itself. Flash
attention, data and tensor parallelism, compiled forward passes, quantised caches: they need a GPU. Published weights
and videos from the internet: tests are offline. Initialisation and numbers of layers: they are the base classes'.
"""

import copy
import inspect

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_inputs import answered, first_logits, noise, video_inputs
from tiny_models import stock_processor
from transformers import DynamicCache
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

BOTH = ["<image> and <video> What?", "<video> Why is that so?"]
GREEDY = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False}


@pytest.fixture(scope="module")
def ours(tiny):
    """A model and its processor, without compression."""
    return tiny("grid", target_frames=None)


@pytest.fixture(scope="module")
def theirs(ours):
    """Transformers' own processor."""
    return stock_processor(ours[1])


@pytest.fixture(autouse=True)
def forgotten(ours):
    """Offsets of an earlier prompt, which transformers' classes keep and take for those of what comes next."""
    ours[0].model.rope_deltas = None


def both(processor):
    """A padded batch of a picture and two videos."""
    return video_inputs(processor, BOTH, [noise(8, 1), noise(4, 2, width=28)], images=[noise(1, 3)[0]])


def texts(processor):
    return video_inputs(processor, ["What is it that happens?", "Why?"], [])


def same(one, other) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


# Models.


@pytest.mark.parametrize("kind", ["image", "video"])
def test_numbers_of_placeholders_that_do_not_fit_are_refused(ours, kind):
    model, processor = ours
    pixels, grids = {"image": ("pixel_values", "image_grid_thw"), "video": ("pixel_values_videos", "video_grid_thw")}[
        kind
    ]
    files = [noise(1 if kind == "image" else 2, seed) for seed in (1, 2)]
    shown = {"images": [file[0] for file in files]} if kind == "image" else {"videos": files}
    two = video_inputs(processor, [f"<{kind}> What?"] * 2, **{"videos": [], **shown})
    assert first_logits(model, two).isfinite().all()
    fewer = {**two, pixels: two[pixels][: len(two[pixels]) // 2], grids: two[grids][:1]}
    with pytest.raises(ValueError, match="do not match"):
        model(**fewer)
    more = {name: value[:1] if name in ("input_ids", "attention_mask", "mm_token_type_ids") else value
            for name, value in two.items()}  # fmt: skip
    with pytest.raises(ValueError, match="do not match"):
        model(**more)


@pytest.mark.parametrize(
    "sizes", [[(2, 28, 28)], [(2, 14, 84), (6, 56, 42)], [(12, 28, 14), (4, 42, 56), (2, 56, 56)]]
)
@pytest.mark.parametrize("apart", [False, True])
def test_videos_and_pictures_of_any_shape(ours, stock, sizes, apart):
    """In a prompt each or all in one."""
    model, processor = ours
    videos = [noise(frames, seed, height=height, width=width) for seed, (frames, height, width) in enumerate(sizes)]
    pieces = ["<image> or <video>?"] * len(sizes)
    inputs = video_inputs(processor, pieces if apart else [" ".join(pieces)], videos, images=[v[0] for v in videos])
    assert torch.equal(first_logits(model, inputs), first_logits(stock, inputs))


def test_resized_embeddings_keep_what_is_known(ours):
    model, processor = copy.deepcopy(ours[0]), ours[1]
    inputs, vocabulary = both(processor), ours[0].config.text_config.vocab_size
    before = first_logits(model, inputs)
    model.resize_token_embeddings(vocabulary + 10)
    after = first_logits(model, inputs)
    assert after.shape[-1] == model.config.text_config.vocab_size == vocabulary + 10
    torch.testing.assert_close(after[..., :vocabulary], before)
    assert model.lm_head.weight is model.get_input_embeddings().weight
    assert model.generate(**inputs, **GREEDY).shape[1] == inputs["input_ids"].shape[1] + 6


@pytest.mark.parametrize("role", ["model", "generator"])
def test_saved_weights_have_transformers_names(ours, stock, role, tmp_path):
    """And either class reads what the other wrote."""
    model, processor = ours
    parts = {"model": (model.model, stock.model), "generator": (model, stock)}[role]
    inputs, family = both(processor), model.family
    for name, part, kind in zip(("ours", "theirs"), parts, (family.stock, family.ours), strict=True):
        part.save_pretrained(tmp_path / name)
        other, report = kind.load(role).from_pretrained(
            tmp_path / name, config=parts[name == "ours"].config, output_loading_info=True
        )
        assert not any(report.values()), report
        with torch.no_grad():
            assert torch.equal(other(**inputs)[0], part(**inputs)[0])
    written = [load_file(tmp_path / name / "model.safetensors") for name in ("ours", "theirs")]
    assert written[0].keys() == written[1].keys()


def test_configurations_survive_saving(ours, tmp_path):
    config = ours[0].config
    config.save_pretrained(tmp_path)
    for again in (
        type(config).from_pretrained(tmp_path),
        type(config).from_dict(config.to_dict()),
        type(config)(**config.to_dict()),
        copy.deepcopy(config),
    ):
        assert again.to_diff_dict() == config.to_diff_dict()
        for part in config.sub_configs:
            assert type(getattr(again, part)) is type(getattr(config, part))


@pytest.mark.parametrize("checkpointing", [False, True])
def test_losses_and_gradients_are_transformers(ours, stock, checkpointing):
    inputs, results = both(ours[1]), []
    labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
    for each in (ours[0], stock):
        model = copy.deepcopy(each).train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        loss = model(**inputs, labels=labels).loss
        loss.backward()
        results.append((loss, {name: weight.grad for name, weight in model.named_parameters()}))
    (loss, gradients), (expected, theirs) = results
    assert torch.equal(loss, expected)
    for name, gradient in theirs.items():
        torch.testing.assert_close(gradients[name], gradient, msg=name)


def test_attention_by_eager_and_sdpa_is_the_same(ours, stock):
    """Of eager the weights can be asked for, of any the hidden states."""
    model, processor = copy.deepcopy(ours[0]), ours[1]
    inputs = both(processor)
    model.set_attn_implementation("sdpa")
    expected = first_logits(model, inputs)
    model.set_attn_implementation("eager")
    with torch.no_grad():
        output = model(**inputs, output_attentions=True, output_hidden_states=True)
    present = inputs["attention_mask"].bool()
    torch.testing.assert_close(output.logits[present], expected[present], atol=1e-5, rtol=1e-5)
    text, length = model.config.text_config, inputs["input_ids"].shape[1]
    kinds = getattr(text, "layer_types", None) or ["full_attention"] * text.num_hidden_layers
    assert len(output.attentions) == kinds.count("full_attention")
    assert all(weights.shape == (2, text.num_attention_heads, length, length) for weights in output.attentions)
    assert len(output.hidden_states) == text.num_hidden_layers + 1


def test_a_call_takes_ids_first_and_keeps_as_many_logits_as_asked(ours):
    model, processor = ours
    assert next(iter(inspect.signature(type(model).forward).parameters.values())).name in ("self", "input_ids")
    inputs = both(processor)
    with torch.no_grad():
        positional = model(inputs["input_ids"], **{key: value for key, value in inputs.items() if key != "input_ids"})
        last = model(**inputs, logits_to_keep=1).logits
    torch.testing.assert_close(positional.logits[:, -1:], last)
    assert isinstance(model(**inputs, return_dict=False), tuple)


def test_embeddings_may_be_given_instead_of_ids(ours, stock):
    """Of a text, to the bit; of pictures and videos, as transformers does it."""
    model, processor = ours
    inputs = texts(processor)
    ids = inputs.pop("input_ids")
    embedded = {**inputs, "inputs_embeds": model.get_input_embeddings()(ids)}
    assert torch.equal(first_logits(model, embedded), first_logits(model, {**inputs, "input_ids": ids}))
    tokens, logits = answered(model, embedded)
    expected = answered(model, {**inputs, "input_ids": ids})
    assert torch.equal(tokens, expected[0][:, ids.shape[1] :]) and torch.equal(logits, expected[1])
    inputs = both(processor)
    embedded = {**inputs, "inputs_embeds": model.get_input_embeddings()(inputs.pop("input_ids"))}
    del embedded["input_ids"]
    assert all(map(torch.equal, answered(model, embedded), answered(stock, embedded)))


def test_padding_in_front_changes_nothing(ours):
    model, processor = ours
    inputs = video_inputs(processor, BOTH[:1], [noise(8, 1)], images=[noise(1, 3)[0]])
    expected = first_logits(model, inputs)
    pads = {"input_ids": processor.tokenizer.pad_token_id, "attention_mask": 0, "mm_token_type_ids": 0}
    padded = dict(inputs) | {
        name: torch.nn.functional.pad(inputs[name], (7, 0), value=value) for name, value in pads.items()
    }
    torch.testing.assert_close(first_logits(model, padded)[:, 7:], expected, atol=1e-5, rtol=1e-5)
    (tokens, logits), expected = answered(model, padded), answered(model, inputs)
    assert torch.equal(tokens[:, 7:], expected[0])
    torch.testing.assert_close(logits, expected[1], atol=1e-5, rtol=1e-5)


WAYS = {
    "beams": {"num_beams": 3, "num_return_sequences": 2},
    "samples": {"do_sample": True, "num_return_sequences": 3, "top_k": 5},
    "beams that sample": {"do_sample": True, "num_beams": 2},
    "without a cache": {"use_cache": False},
    "static": {"cache_implementation": "static"},
    "penalties": {"repetition_penalty": 1.3, "no_repeat_ngram_size": 2},
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_generate_is_transformers(ours, stock, way):
    model, processor = ours
    inputs, outputs = both(processor), []
    for each in (model, stock):
        torch.manual_seed(0)
        outputs.append(answered(each, inputs, **WAYS[way]))
    assert all(map(torch.equal, *outputs))
    if way in ("without a cache", "static"):
        (tokens, logits), expected = outputs[0], answered(model, inputs)
        assert torch.equal(tokens, expected[0])
        torch.testing.assert_close(logits, expected[1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("way", ["prompt lookup", "an assistant"])
def test_drafted_tokens_change_no_answer(ours, way):
    """Looked up in texts alone: elsewhere transformers would draft placeholders. Recurrent states cannot go back."""
    model, processor = ours
    inputs = video_inputs(processor, BOTH[:1], [noise(8, 1)], images=[noise(1, 3)[0]])
    drafting = {"assistant_model": copy.deepcopy(model)}
    if way == "prompt lookup":
        inputs, drafting = video_inputs(processor, ["What is what is what?"], []), {"prompt_lookup_num_tokens": 2}
    if "linear_attention" in (getattr(model.config.text_config, "layer_types", None) or ()):
        with pytest.raises(ValueError, match="stateful"):
            model.generate(**inputs, **GREEDY, **drafting)
        return
    assert torch.equal(model.generate(**inputs, **GREEDY, **drafting), model.generate(**inputs, **GREEDY))


def test_generation_goes_on_from_a_cache(ours):
    model, processor = ours
    inputs = both(processor)
    expected, logits = answered(model, inputs)
    half = {"max_new_tokens": 3, "min_new_tokens": 3, "do_sample": False}
    begun = model.generate(**inputs, **half, return_dict_in_generate=True)
    assert torch.equal(begun.sequences, expected[:, :-3])
    rest = {name: value for name, value in inputs.items() if "pixel" not in name and "mm_" not in name}
    rest |= {
        "input_ids": begun.sequences,
        "attention_mask": torch.nn.functional.pad(inputs["attention_mask"], (0, 3), value=1),
    }
    tokens, later = answered(model, rest, past_key_values=begun.past_key_values, **half)
    assert torch.equal(tokens, expected)
    torch.testing.assert_close(later, logits[3:], atol=1e-5, rtol=1e-5)


def test_a_text_may_be_read_in_pieces(ours):
    model, processor = ours
    ids = processor.tokenizer("What is it that happens here, and why?", return_tensors="pt")["input_ids"]
    expected, cache = first_logits(model, {"input_ids": ids}), DynamicCache(config=model.config.text_config)
    with torch.no_grad():
        pieces = [model(piece, past_key_values=cache).logits for piece in (ids[:, :9], ids[:, 9:10], ids[:, 10:])]
    torch.testing.assert_close(torch.cat(pieces, 1), expected, atol=1e-5, rtol=1e-5)


# Processors.


def chat(*content, text="What?"):
    return [{"role": "user", "content": [*content, {"type": "text", "text": text}]}]


def test_a_processor_survives_saving(ours, tmp_path):
    processor = ours[1]
    processor.save_pretrained(tmp_path)
    again = type(processor).from_pretrained(tmp_path)
    assert again.to_dict() == processor.to_dict() and again.chat_template == processor.chat_template
    assert again.tokenizer.get_vocab() == processor.tokenizer.get_vocab()
    for part in ("image_processor", "video_processor"):
        assert getattr(again, part).to_dict() == getattr(processor, part).to_dict()
    wider = type(processor).from_pretrained(tmp_path, padding_side="right")
    assert wider.tokenizer.padding_side == "right"


def test_parts_of_a_wrong_class_are_refused(ours):
    processor = ours[1]
    with pytest.raises(TypeError, match="video_processor"):
        type(processor)(processor.image_processor, processor.tokenizer, processor.image_processor)


@pytest.mark.parametrize("shown", ["text", "image", "video", "both"])
def test_chat_templates_become_inputs(ours, theirs, shown):
    """Arrays inside messages, one conversation or several; tokens alone or all inputs."""
    _, processor = ours
    parts = {
        "text": [],
        "image": [{"type": "image", "image": noise(1, 1)[0]}],
        "video": [{"type": "video", "video": noise(8, 2)}],
    }
    parts["both"] = parts["image"] + parts["video"]
    options = {"add_generation_prompt": True, "tokenize": True, "return_dict": True, "return_tensors": "pt"}
    options["processor_kwargs"] = {"padding": True, "do_sample_frames": False}
    for conversation in (chat(*parts[shown]), [chat(*parts[shown]), chat(*parts[shown], text="Why?")]):
        got, expected = (each.apply_chat_template(conversation, **options) for each in (processor, theirs))
        assert same(got, expected)
        assert ("pixel_values" in got, "pixel_values_videos" in got) == (
            shown in ("image", "both"),
            shown in ("video", "both"),
        )
    rendered = processor.apply_chat_template(chat(*parts[shown]), add_generation_prompt=True)
    assert rendered == theirs.apply_chat_template(chat(*parts[shown]), add_generation_prompt=True)


def test_names_of_inputs(ours, theirs):
    _, processor = ours
    inputs = both(processor)
    assert set(inputs) <= set(processor.model_input_names)
    assert set(theirs.model_input_names) <= set(processor.model_input_names)
    assert isinstance(processor.tokenizer, PreTrainedTokenizerBase)
    assert processor.get_attributes() == theirs.get_attributes()


@pytest.mark.parametrize(
    "options",
    [
        {"images_kwargs": {"max_pixels": 28 * 28}},
        {"max_pixels": 28 * 28, "min_pixels": 14 * 14},
        {"images_kwargs": {"size": {"shortest_edge": 14 * 14, "longest_edge": 28 * 28}}},
        {"do_resize": False},
        {"do_rescale": False, "do_normalize": False},
    ],
)
def test_options_reach_the_parts(ours, theirs, options):
    ask = {"text": ["<|image_pad|> What?"], "images": [noise(1, 1, width=84)[0]], "return_tensors": "pt"}
    got, expected, plain = ours[1](**ask, **options), theirs(**ask, **options), ours[1](**ask)
    assert same(got, expected) and not same(got, plain)


def test_options_of_texts(ours):
    _, processor = ours
    ask = ["What?", "Why is that?"]
    assert {len(row) for row in processor(text=ask, padding="max_length", max_length=40)["input_ids"]} == {40}
    assert {len(row) for row in processor(text=ask, truncation=True, max_length=3)["input_ids"]} == {3}
    assert isinstance(processor(text=ask)["input_ids"], list)
    assert isinstance(processor(text=ask, padding=True, return_tensors="np")["input_ids"], np.ndarray)
    assert processor(text="What?")["input_ids"] == [processor.tokenizer("What?")["input_ids"]]
    with pytest.raises(ValueError, match="at least one input"):
        processor()


@pytest.mark.parametrize("kind", ["image", "video"])
def test_what_is_shown_is_never_cut_off(ours, kind):
    _, processor = ours
    shown = {"images": [noise(1, 1)[0]]} if kind == "image" else {"videos": [noise(8, 1)], "do_sample_frames": False}
    with pytest.raises(ValueError, match=r"Mismatch in `.*` token count"):
        processor(text=[f"<|{kind}_pad|> What?"], **shown, truncation=True, max_length=12)


@pytest.mark.parametrize("kind", ["image", "video"])
def test_placeholders_and_files_must_be_as_many(ours, kind):
    _, processor = ours
    shown = {"images": [noise(1, 1)[0]]} if kind == "image" else {"videos": [noise(8, 1)], "do_sample_frames": False}
    for text in ("What?", f"<|{kind}_pad|> <|{kind}_pad|> What?"):
        with pytest.raises(ValueError, match=kind):
            processor(text=[text], **shown)


def test_a_placeholder_becomes_a_token_for_each_cell(ours, theirs):
    """As many as transformers says for sizes alone."""
    _, processor = ours
    sizes, frames = [(56, 84), (30, 100), (28, 28)], [(8, 56, 56), (4, 28, 84)]
    told = processor._get_num_multimodal_tokens(image_sizes=sizes, video_sizes=frames)
    assert told == theirs._get_num_multimodal_tokens(image_sizes=sizes, video_sizes=frames)
    for (height, width), tokens, patches in zip(
        sizes, told["num_image_tokens"], told["num_image_patches"], strict=True
    ):
        inputs = processor(text=["<|image_pad|>"], images=[noise(1, 1, height=height, width=width)[0]])
        assert inputs["input_ids"][0].count(processor.image_token_id) == tokens == patches // 4
        assert inputs["mm_token_type_ids"][0].count(1) == tokens
    for (count, height, width), tokens in zip(frames, told["num_video_tokens"], strict=True):
        video = noise(count, 1, height=height, width=width)
        inputs = processor(text=["<|video_pad|>"], videos=[video], do_sample_frames=False)
        assert inputs["input_ids"][0].count(processor.video_token_id) == tokens
        assert inputs["mm_token_type_ids"][0].count(2) == tokens


def test_answers_are_decoded(ours):
    _, processor = ours
    ids = processor.tokenizer(["What?", "Why?<|im_end|>"])["input_ids"]
    assert processor.batch_decode(ids, skip_special_tokens=True) == ["What?", "Why?"]
    assert processor.decode(ids[1]) == "Why?<|im_end|>"
    assert processor.post_process_image_text_to_text(ids) == ["What?", "Why?"]
