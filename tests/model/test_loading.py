"""Checkpoints: stock ones load whole, ours round-trip, anything else is refused by name."""

import copy
import json

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from tiny_inputs import first_logits, noise, video_inputs
from tiny_models import of, save_stock, stock_model, stock_processor
from transformers import AutoConfig, AutoModelForImageTextToText, Qwen2_5_VLConfig

from marc import load_model
from marc.model import CompressionConfig, MarcConfig, MarcForConditionalGeneration
from marc.model.loading import EMBEDDED_FOLDER, layout_for_asking


@pytest.fixture(scope="module")
def stock_folder(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("stock")
    save_stock(folder, *tiny())
    return folder


def test_a_stock_checkpoint_loads_whole(stock, stock_folder):
    model, processor = load_model(stock_folder, device="cpu", target_frames=None)
    if hasattr(model.config, "text_after_video"):
        assert model.config.text_after_video == "published"
        model.config.text_after_video = "grid"
    inputs = video_inputs(processor, ["<video> What?"], [noise(8, 1)])
    assert torch.equal(first_logits(model, inputs), first_logits(stock, inputs))


@of("qwen2_5_vl")
def test_the_published_key_names_load_too(stock, stock_folder, tmp_path):
    """Qwen's own files name the tower ``visual`` and the language model ``model``."""
    published = {
        key.replace("model.visual", "visual").replace("model.language_model", "model"): value
        for key, value in load_file(stock_folder / "model.safetensors").items()
    }
    assert any(key.startswith("visual.") for key in published)
    for file in stock_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    save_file(published, tmp_path / "model.safetensors", metadata={"format": "pt"})
    model, _ = load_model(tmp_path, device="cpu")
    for name, value in stock.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name


@pytest.mark.parametrize(
    ("overrides", "names_one"),
    [
        ({}, False),
        ({"visual_tokens": 9, "duplicates": 0.1}, False),
        ({"budget": "tokens:9"}, False),
        ({"budget": "prompt:99"}, False),
        ({"budget": "auto"}, False),
        ({"tower_layer": None}, False),
        ({"budget": None}, False),
        ({"tower_layer": 1}, True),
        ({"budget": "events:2"}, True),
        ({"budget": "full"}, True),
        ({"layout": "frames"}, True),
        ({"layout": "events", "budget": "tokens:9"}, True),
    ],
)
def test_a_stock_checkpoint_is_asked_with_single_cells_where_it_can(tiny, stock_folder, overrides, names_one):
    has_places = tiny()[0].family.tower_with_attention is not None
    expected = {"layout": "details"} if has_places and not names_one else {}
    assert layout_for_asking(stock_folder, overrides) == expected
    if expected:
        assert load_model(stock_folder, device="cpu", **expected, **overrides)[0].compression.layout == "details"
    assert load_model(stock_folder, device="cpu")[0].compression.layout == "events", "training, and code of one's own"


def test_a_checkpoint_of_ours_is_asked_as_it_says(tiny, tmp_path):
    for part in tiny():
        part.save_pretrained(tmp_path)
    assert layout_for_asking(tmp_path, {}) == layout_for_asking("tiny", {}) == {}


@of("qwen2_5_vl")
@pytest.mark.parametrize("named", [{"layout": "frames"}, {"tower_layer": 1}])
def test_a_stock_configuration_that_names_a_compression_is_obeyed(stock_folder, tmp_path, named):
    for file in stock_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text()) | {"compression": named}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert layout_for_asking(tmp_path, {}) == {}


@of("qwen2_5_vl")
def test_adapters_beside_a_stock_processor_are_asked_as_their_base(tiny, stock_folder, tmp_path):
    model, _ = load_model(stock_folder, device="cpu")
    get_peft_model(model, LoraConfig(target_modules=["q_proj"], r=1)).save_pretrained(tmp_path)
    for file in stock_folder.iterdir():
        if file.suffix != ".safetensors" and file.name != "config.json":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    assert layout_for_asking(tmp_path, {}) == {"layout": "details"}


@of("qwen2_5_vl")
def test_adapters_are_asked_as_they_were_trained(tiny, stock_folder, tmp_path):
    model, processor = load_model(stock_folder, device="cpu", target_frames=2)
    get_peft_model(model, LoraConfig(target_modules=["q_proj"], r=1)).save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    assert layout_for_asking(tmp_path, {}) == {}


def test_a_missing_weight_is_named(stock_folder, tmp_path):
    for file in stock_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    lost = next(key for key in weights if "visual.blocks.1" in key)
    del weights[lost]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=lost.replace(".", r"\.")):
        load_model(tmp_path, device="cpu")


def test_saved_and_loaded_it_is_the_same(tiny, tmp_path):
    model, processor = tiny(layout="frames", target_frames=2, ratio=0.5, merge="weighted")
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    ours = model.family.ours
    assert type(AutoConfig.from_pretrained(tmp_path)) is ours.load("config")
    assert type(AutoModelForImageTextToText.from_pretrained(tmp_path)) is ours.load("generator")
    loaded, loaded_processor = load_model(tmp_path, device="cpu")
    assert loaded.compression == loaded_processor.compression == model.compression
    inputs = video_inputs(processor, ["<video> What?"], [noise(8, 1)])
    assert torch.equal(first_logits(loaded, inputs), first_logits(model, inputs))


def changed(model, *, vision=None, text=None, **fields):
    """A model with random weights of other sizes."""
    config = copy.deepcopy(model.config)
    for part, values in ((config.vision_config, vision or {}), (config.text_config, text or {}), (config, fields)):
        for name, value in values.items():
            setattr(part, name, value)
    torch.manual_seed(1)
    other = type(model)(config).eval()
    other.generation_config = model.generation_config
    return other


@pytest.mark.parametrize(
    ("dtype", "shards", "tied"),
    [(torch.float32, "1GB", True), (torch.bfloat16, "300KB", True), (torch.float32, "300KB", False)],
)
def test_stock_checkpoints_of_other_sizes_load_whole(tiny, tmp_path, dtype, shards, tied):
    """In one file or in several, with a head of their own or without one."""
    ours, processor = tiny("grid", target_frames=None)
    theirs = stock_model(ours)
    other = {"intermediate_size": 160, "num_key_value_heads": 1, "vocab_size": 600}
    theirs = changed(theirs, vision={"intermediate_size": 96}, text=other, tie_word_embeddings=tied).to(dtype)
    theirs.save_pretrained(tmp_path, max_shard_size=shards)
    stock_processor(processor).save_pretrained(tmp_path)
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) == (shards == "300KB")
    model, processor = load_model(tmp_path, device="cpu", dtype=dtype, target_frames=None)
    if hasattr(model.config, "text_after_video"):
        model.config.text_after_video = "grid"
    theirs = type(theirs).from_pretrained(tmp_path, dtype=dtype)
    expected, loaded = theirs.state_dict(), model.state_dict()
    assert expected.keys() == loaded.keys() and all(torch.equal(expected[key], loaded[key]) for key in expected)
    assert (model.lm_head.weight is model.get_input_embeddings().weight) == tied
    inputs = video_inputs(processor, ["<video> or <image>?"], [noise(8, 1)], images=[noise(1, 2)[0]])
    logits = first_logits(model, inputs)
    assert logits.dtype == dtype and torch.equal(logits, first_logits(theirs, inputs))
    options = {"max_new_tokens": 4, "do_sample": False}
    assert torch.equal(model.generate(**inputs, **options), theirs.generate(**inputs, **options))


def test_a_head_of_its_own_is_saved_and_loaded(tiny, tmp_path):
    model, processor = tiny()
    model = changed(model, tie_word_embeddings=False)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    loaded, _ = load_model(tmp_path, device="cpu")
    assert loaded.lm_head.weight is not loaded.get_input_embeddings().weight
    inputs = video_inputs(processor, ["<video> What?"], [noise(8, 1)])
    assert torch.equal(first_logits(loaded, inputs), first_logits(model, inputs))


def adapted(base, folder, **compression) -> PeftModel:
    """Adapters that change something, saved as training saves them; the model that they are in."""
    model, processor = load_model(base, device="cpu", **compression)
    config = LoraConfig(r=2, target_modules=r".*language_model.*\.q_proj", init_lora_weights=False)
    wrapped = get_peft_model(model, config)
    wrapped.save_pretrained(folder)
    processor.save_pretrained(folder)
    return wrapped


def test_adapters_are_merged_into_their_base(stock_folder, tmp_path):
    """Also into a base that is a folder of adapters itself; the compression is the one that they were trained at."""
    base, trained = stock_folder, {"layout": "frames", "target_frames": 2}
    for name in ("first", "second"):
        wrapped = adapted(base, tmp_path / name, **trained)
        model, processor = load_model(tmp_path / name, device="cpu")
        assert not isinstance(model, PeftModel) and model.name_or_path == str(tmp_path / name)
        assert model.compression == processor.compression == CompressionConfig(**trained)
        inputs = video_inputs(processor, ["<video> What?"], [noise(8, 1)])
        seen = first_logits(model, inputs)
        torch.testing.assert_close(seen, first_logits(wrapped, inputs), rtol=1e-4, atol=1e-4)
        assert not torch.allclose(seen, first_logits(load_model(base, device="cpu", **trained)[0], inputs), atol=1e-3)
        base = tmp_path / name


def test_adapters_without_a_base_are_named(stock_folder, tmp_path):
    adapted(stock_folder, tmp_path)
    file = tmp_path / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "base_model_name_or_path": None}))
    with pytest.raises(ValueError, match=r"adapter_config\.json: base_model_name_or_path"):
        load_model(tmp_path, device="cpu")


def test_overrides_reach_model_and_processor(stock_folder):
    model, processor = load_model(stock_folder, device="cpu", visual_tokens=3, layout="frames")
    assert model.compression == processor.compression == CompressionConfig(visual_tokens=3, layout="frames")
    model.save_pretrained(stock_folder / "again")
    saved = json.loads((stock_folder / "again" / "config.json").read_text())
    assert saved["compression"]["visual_tokens"] == 3


@pytest.mark.parametrize(("option", "value"), [("ratio", 2.0), ("compress_more", True)])
def test_a_wrong_option_is_named(stock_folder, option, value):
    with pytest.raises(ValueError, match=option):
        load_model(stock_folder, device="cpu", **{option: value})


def test_a_missing_model_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"cannot load the model '.*nowhere'"):
        load_model(tmp_path / "nowhere", device="cpu")


def test_another_kind_of_model_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    with pytest.raises(ValueError, match="found 'gpt2'"):
        load_model(tmp_path, device="cpu")


def test_the_configuration_keeps_qwens_fields():
    config = MarcConfig(**{**Qwen2_5_VLConfig().to_dict(), "model_type": "marc", "compression": {"ratio": 0.5}})
    assert config.text_config.hidden_size == Qwen2_5_VLConfig().text_config.hidden_size
    assert config.compression == CompressionConfig(ratio=0.5)


@pytest.mark.parametrize("text_after_video", ["published", "grid"])
def test_a_saved_configuration_says_where_text_goes_on(text_after_video, tmp_path):
    config = copy.deepcopy(MarcConfig(text_after_video=text_after_video))
    config.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["text_after_video"] == text_after_video
    for loaded in (AutoConfig.from_pretrained(tmp_path), MarcConfig.from_pretrained(tmp_path)):
        assert loaded.text_after_video == text_after_video
        assert MarcConfig.from_dict(loaded.to_dict()).text_after_video == text_after_video


@of("qwen2_5_vl")
def test_an_older_checkpoint_of_ours_was_trained_as_transformers_counts(tiny, stock_folder, tmp_path):
    model, processor = tiny()
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    values = json.loads(file.read_text())
    del values["text_after_video"]
    file.write_text(json.dumps(values))
    assert AutoConfig.from_pretrained(tmp_path).text_after_video == "grid"
    assert load_model(tmp_path, device="cpu")[0].model.config.text_after_video == "grid"
    assert MarcForConditionalGeneration.from_pretrained(tmp_path).config.text_after_video == "grid"
    assert MarcConfig.from_pretrained(stock_folder).text_after_video == "published"


def test_where_text_goes_on_is_one_of_two():
    with pytest.raises(ValueError, match="text_after_video"):
        MarcConfig(text_after_video="somewhere")


def test_the_embedded_model_says_that_it_was_trained_as_transformers_counts():
    assert json.loads((EMBEDDED_FOLDER / "config.json").read_text())["text_after_video"] == "grid"
    assert load_model(device="cpu")[0].config.text_after_video == "grid"
