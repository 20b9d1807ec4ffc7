"""Checkpoints that are damaged, incomplete or something else: each is refused in one line that names it."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from marc import load_model
from marc.model import names
from marc.model.loading import layout_for_asking
from marc.model.tiny import build_tiny
from marc.types import ModelOptions


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("good")
    for part in build_tiny():
        part.save_pretrained(folder)
    return folder


def change_config(folder: Path, **values) -> None:
    file = folder / "config.json"
    config = json.loads(file.read_text())
    for path, value in values.items():
        *parents, key = path.split("__")
        inner = config
        for parent in parents:
            inner = inner[parent]
        inner[key] = value
    file.write_text(json.dumps(config))


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    file = folder / "model.safetensors"
    weights = load_file(file)
    change(weights)
    save_file(weights, file, metadata={"format": "pt"})


def cut(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def point(folder: Path) -> None:
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")


def empty(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"")


def pickled(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def not_numbers(folder: Path) -> None:
    change_weights(folder, lambda weights: weights["model.norm.weight"].fill_(torch.nan))


def narrower(folder: Path) -> None:
    def half(weights):
        name = "model.norm.weight"
        weights[name] = weights[name][:64].clone()

    change_weights(folder, half)


def shards_missing(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    index = {"metadata": {}, "weight_map": {"lm_head.weight": "model-00001-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def bad_index(folder: Path) -> None:
    shards_missing(folder)
    (folder / "model.safetensors.index.json").write_text("[1]")


def adapters_of_themselves(folder: Path) -> None:
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(folder)}))


FAULTS = {
    cut: r"model\.safetensors: cut or damaged",
    empty: r"model\.safetensors: cut or damaged",
    point: r"model\.safetensors: stands for a file that Git LFS has not fetched; run git lfs pull",
    pickled: r"pytorch_model\.bin: weights in Python's pickle format",
    not_numbers: r"model\.language_model\.norm\.weight holds values that are no finite numbers",
    narrower: r"model\.safetensors and config\.json do not fit each other; of another shape: "
    r"model\.language_model\.norm\.weight is \[64\], not \[128\]$",
    shards_missing: r"index\.json: model-00001-of-00002\.safetensors is not there",
    bad_index: r"index\.json: no index of weights",
    adapters_of_themselves: r"adapter_config\.json: the adapters' base is these adapters themselves",
    lambda folder: (folder / "config.json").write_text("{"): r"config\.json' is not a valid JSON file",
    lambda folder: (folder / "config.json").write_text("[]"): r"model_type.* key in its config\.json",
    lambda folder: (folder / "config.json").write_text("[" * 100_000): "config",
    lambda folder: (folder / "config.json").unlink(): "config",
    lambda folder: (folder / "tokenizer.json").write_text("{}"): "processor",
    lambda folder: (folder / "tokenizer.json").write_text("{"): "its processor cannot be read: Expecting",
    lambda folder: change_config(folder, text_config__hidden_size=-1): r"hidden_size is -1 in config\.json",
    lambda folder: change_config(folder, text_config__num_attention_heads=0): "cannot be read|weights",
    lambda folder: change_config(
        folder, vision_config__depth="many"
    ): "its config.json .*'depth' expected int, got str",
    lambda folder: change_config(folder, text_config__hidden_act="gulp"): "its weights or config.json .*'gulp'",
    lambda folder: change_config(folder, dtype="float7"): "its config.json cannot be read: .*'float7'",
    lambda folder: change_config(folder, compression={"layout": "spiral"}): "layout",
    lambda folder: change_config(folder, compression=7): "cannot be read|compression",
}


@pytest.mark.parametrize("number", range(len(FAULTS)))
def test_a_fault_is_named_in_one_line(number, good, tmp_path, capfd):
    break_it, message = list(FAULTS.items())[number]
    folder = tmp_path / "model"
    shutil.copytree(good, folder)
    break_it(folder)
    with pytest.raises(ValueError, match=message) as caught:
        load_model(folder, device="cpu")
    said = str(caught.value)
    assert str(folder) in said and not said.startswith(f"{folder}: {folder}")
    assert "\n" not in said and "Error: " not in said.replace("KeyError: ", "")
    assert "REPORT" not in capfd.readouterr().err


def test_adapters_in_a_circle_are_refused(good, tmp_path):
    for name, base in (("a", "b"), ("b", "a")):
        (tmp_path / name).mkdir()
        config = json.dumps({"base_model_name_or_path": str(tmp_path / base)})
        (tmp_path / name / "adapter_config.json").write_text(config)
    assert layout_for_asking(tmp_path / "a", {}) == {}, "which is asked first, and leaves the refusal to who loads"
    with pytest.raises(ValueError, match="the adapters' base is these adapters themselves"):
        load_model(tmp_path / "a", device="cpu")


@pytest.mark.parametrize("number", range(len(FAULTS)))
def test_how_it_is_asked_says_the_same_of_a_fault_or_nothing(number, good, tmp_path):
    break_it, message = list(FAULTS.items())[number]
    folder = tmp_path / "model"
    shutil.copytree(good, folder)
    break_it(folder)
    said, layout = "", {}
    try:
        layout = layout_for_asking(folder, {})
    except ValueError as error:
        said = str(error)
    assert not layout and (not said or re.search(message, said)) and "\n" not in said


@pytest.mark.parametrize("name", ["tyni", "Tiny", "tinny"])
def test_a_typing_error_is_understood(name):
    with pytest.raises(ValueError, match="did you mean 'tiny'"):
        load_model(name)


def test_a_misspelt_hub_name_is_understood(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="did you mean 'Qwen/Qwen3-VL-2B-Instruct'"):
        load_model("Qwen/Qwen3-VL-2B-Instuct")
    assert names.did_you_mean("Qwen/Qwen3-VL-2B-Instruct") == names.did_you_mean("somebody/another") == ""


def test_a_type_of_weights_that_is_none_is_named(good):
    said = "dtype 'float7': choose one of float32, bfloat16, float16"
    with pytest.raises(ValueError, match=said):
        load_model(good, device="cpu", dtype="float7")
    with pytest.raises(ValueError, match="dtype must be one of float32, bfloat16, float16, none, got 'float7'"):
        ModelOptions(dtype="float7")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["nowhere", "./nowhere", "/no/where/at/all", "a/b/c", ""])
def test_what_can_be_no_hub_name_does_not_wait_for_the_hub(name, monkeypatch):
    monkeypatch.setattr(names, "hub_answers", lambda: pytest.fail("asked"))
    with pytest.raises(ValueError, match="cannot load the model"):
        load_model(name)


def test_without_a_network_that_is_said(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="the hub cannot be reached"):
        load_model("Qwen/Qwen3-VL-2B-Instruct")


def test_a_file_is_no_model(good):
    with pytest.raises(ValueError, match="it is a file; name the folder"):
        load_model(good / "config.json")


@pytest.mark.skipif(torch.cuda.is_available(), reason="has what is missing here")
def test_devices_and_packages_that_are_not_there_are_named(good):
    with pytest.raises(ValueError, match="device 'cuda': torch sees no CUDA device here"):
        load_model(good, device="cuda")
    with pytest.raises(ValueError, match="device 'tpu-ish'"):
        load_model(good, device="tpu-ish")
    with pytest.raises(ValueError, match="'flash_attention_2' needs a GPU and the package flash-attn"):
        load_model(good, device="cpu", attn_implementation="flash_attention_2")


def test_weights_whose_sum_alone_is_too_large_are_taken(good, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(good, folder)
    change_weights(folder, lambda weights: weights["model.norm.weight"].fill_(3e38))
    assert load_model(folder, device="cpu")[0] is not None


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        (("video_processor", "patch_size"), 14, "patch_size is 14, the model's 7"),
        (("image_processor", "patch_size"), 14, "patch_size is 14, the model's 7"),
        (("video_processor", "merge_size"), 1, "spatial_merge_size is 1, the model's 2"),
        (("video_processor", "temporal_patch_size"), 1, "temporal_patch_size is 1, the model's 2"),
    ],
)
def test_another_models_processor_is_refused(field, value, said, good, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(good, folder)
    file = folder / "processor_config.json"
    config = json.loads(file.read_text())
    config[field[0]][field[1]] = value
    file.write_text(json.dumps(config))
    with pytest.raises(ValueError, match=said):
        load_model(folder, device="cpu")


def test_no_code_of_a_checkpoint_is_run_nor_asked_about(good, tmp_path, monkeypatch):
    folder = tmp_path / "model"
    shutil.copytree(good, folder)
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Own: pass\n")
    for name in ("config.json", "processor_config.json", "tokenizer_config.json"):
        values = json.loads((folder / name).read_text()) if (folder / name).exists() else {}
        values |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Own", "AutoProcessor": "own.Own"}}
        (folder / name).write_text(json.dumps(values))
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked whether to run code"))
    with pytest.raises(ValueError, match="custom code"):
        load_model(folder, device="cpu")
    assert not (tmp_path / "ran").exists()


def test_a_folder_without_a_configuration_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"there is no config\.json in it; name the folder of a checkpoint"):
        load_model(tmp_path)
