"""Stock checkpoints and exported ones; the last engines of these tests, as leaving one takes down others."""

from typing import Any

import pytest
from vllm_answers import assert_as_expected

from marc.model.family import families

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]


def served_as(family: str) -> str:
    """The architecture of a family in our plugin."""
    (ours,) = (each.ours.names["generator"] for each in families() if each.name == family)
    return ours


def load(checkpoint: str, **options: Any) -> Any:
    from vllm import LLM

    return LLM(checkpoint, dtype="float32", max_model_len=4096, enforce_eager=True, **options)


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe"])
def test_a_stock_checkpoint_is_served_by_overrides_in_a_process_of_its_own(family, stock, monkeypatch):
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "1")
    expected = stock(family)
    assert_as_expected(load(expected.checkpoint, hf_overrides={"architectures": [served_as(family)]}), expected)


@pytest.mark.parametrize("plain", [False, True])
def test_an_exported_folder_is_served(plain, exported, monkeypatch):
    """Adapters are merged in it; a plain one is transformers' own, and needs an override."""
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "1")
    expected = exported("plain" if plain else "whole")
    overrides = {"hf_overrides": {"architectures": [served_as("qwen2_5_vl")]}} if plain else {}
    assert_as_expected(load(expected.checkpoint, **overrides), expected)
