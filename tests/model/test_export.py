"""An exported folder is the model, whole, and transformers' own where that is wanted."""

import json
import os

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from marc import load_model
from marc.model.export import export_model, model_card
from marc.model.family import families
from marc.model.tiny import build_tiny

FAMILIES = [family.name for family in families()]


@pytest.fixture(params=FAMILIES)
def checkpoint(request, tmp_path):
    """A model of a family with random weights."""
    folder = tmp_path / "checkpoint"
    for part in build_tiny(family=request.param, corpus=[" seconds"] * 2):
        part.save_pretrained(folder)
    return folder


def text_logits(model, processor):
    inputs = processor.tokenizer("What happens in the plain scene?", return_tensors="pt")
    with torch.inference_mode():
        return model(input_ids=inputs.input_ids, attention_mask=inputs.attention_mask).logits


def test_what_comes_out_is_what_went_in(checkpoint, tmp_path, capfd):
    model, processor = load_model(checkpoint, device="cpu", layout="events", target_frames=2)
    model.save_pretrained(checkpoint)
    capfd.readouterr()
    output = export_model(str(checkpoint), tmp_path / "out" / "model")
    assert output.is_dir() and [path.name for path in output.parent.iterdir()] == ["model"]
    again, reader = load_model(output, device="cpu")
    assert again.compression == model.compression and reader.compression == model.compression
    torch.testing.assert_close(text_logits(again, reader), text_logits(model, processor), rtol=0, atol=0)
    assert "| `target_frames` | `2` |" in (output / "README.md").read_text()
    assert capfd.readouterr().err == ""


def test_a_plain_folder_is_transformers_own(checkpoint, tmp_path):
    output = export_model(str(checkpoint), tmp_path / "plain", plain=True, dtype="bfloat16")
    config = json.loads((output / "config.json").read_text())
    family = load_model(checkpoint, device="cpu")[0].family
    assert config["model_type"] == family.stock_model_type
    assert config["architectures"] == [family.stock.names["generator"]] and "compression" not in config
    stock, report = AutoModelForImageTextToText.from_pretrained(output, output_loading_info=True)
    assert type(stock) is family.stock.load("generator") and stock.dtype == torch.bfloat16
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert type(AutoProcessor.from_pretrained(output)) is family.stock.load("processor")
    ours, processor = load_model(output, device="cpu", dtype="bfloat16")
    torch.testing.assert_close(text_logits(ours, processor), text_logits(stock.eval(), processor), rtol=0, atol=0)


@pytest.mark.parametrize("plain", [False, True])
def test_everything_in_the_folder_has_the_rights_of_new_files(tmp_path, plain):
    """Weights, too, which safetensors writes for their owner alone."""
    before = os.umask(0o027)
    try:
        output = export_model("tiny", tmp_path / "out", plain=plain)
    finally:
        os.umask(before)
    rights = {path.name: oct(path.stat().st_mode & 0o777) for path in output.rglob("*")}
    assert "model.safetensors" in rights and set(rights.values()) == {"0o640"}, rights
    assert output.stat().st_mode & 0o777 == 0o750


def test_adapters_are_merged(tmp_path):
    from peft import LoraConfig, get_peft_model

    base = tmp_path / "base"
    for part in build_tiny():
        part.save_pretrained(base)
    model, processor = load_model(base, device="cpu")
    torch.manual_seed(0)
    adapted = get_peft_model(
        model, LoraConfig(r=2, target_modules=model.family.language_linears, init_lora_weights=False)
    )
    adapted.save_pretrained(tmp_path / "adapters")
    processor.save_pretrained(tmp_path / "adapters")
    merged, reader = load_model(tmp_path / "adapters", device="cpu")
    output = export_model(str(tmp_path / "adapters"), tmp_path / "whole")
    assert not (output / "adapter_config.json").exists()
    again, _ = load_model(output, device="cpu")
    torch.testing.assert_close(text_logits(again, reader), text_logits(merged, reader), rtol=0, atol=0)
    assert (text_logits(again, reader) - text_logits(load_model(base, device="cpu")[0], reader)).abs().max() > 1e-3


def test_a_folder_with_something_in_it_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="is there and not empty; name another folder"):
        export_model("tiny", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_failure_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("marc.model.export.write_text", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(OSError, match="full"):
        export_model("tiny", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_the_card_names_base_and_results():
    model, _ = build_tiny()
    card = model_card("Qwen/Qwen2.5-VL-3B-Instruct", "mine", model, plain=False, results="| a | table |")
    assert (
        card.startswith("---\nbase_model: Qwen/Qwen2.5-VL-3B-Instruct\n") and "## Evaluation\n\n| a | table |" in card
    )
    assert "base_model" not in model_card("/runs/mine", "mine", model, plain=True)
