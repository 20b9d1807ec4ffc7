"""Checkpoints of transformers' own classes; the last engines of these tests, as leaving one takes down others."""

import pytest
from vllm_answers import assert_as_expected

from marc.model.family import families

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe"])
def test_a_stock_checkpoint_is_served_by_overrides_in_a_process_of_its_own(family, stock, monkeypatch):
    from vllm import LLM

    (ours,) = (each.ours.names["generator"] for each in families() if each.name == family)
    expected = stock(family)
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "1")
    engine = LLM(
        expected.checkpoint,
        hf_overrides={"architectures": [ours]},
        dtype="float32",
        max_model_len=4096,
        enforce_eager=True,
    )
    assert_as_expected(engine, expected)
