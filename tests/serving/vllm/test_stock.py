"""Checkpoints of transformers' own classes; the last engine of these tests, as leaving one takes down others."""

import pytest
from vllm_answers import assert_as_expected

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]


def test_a_stock_checkpoint_is_served_by_overrides_in_a_process_of_its_own(stock, monkeypatch):
    from vllm import LLM

    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "1")
    engine = LLM(
        stock.checkpoint,
        hf_overrides={"architectures": ["MarcForConditionalGeneration"]},
        dtype="float32",
        max_model_len=-1,
        enforce_eager=True,
    )
    assert_as_expected(engine, stock)
