"""Every way to generate gives the same answers, and none undoes what another one keeps from round to round."""

from unittest import mock

import pytest
import torch
from transformers import StaticCache

from benchmarks.architectures import (
    QWEN2_5_VL,
    QWEN3_VL,
    Architecture,
    Placement,
    Weights,
    qwen2_5_text,
    qwen2_5_vision,
    qwen3_text,
    qwen3_vision,
)
from benchmarks.decode_speed import ways_to_generate

SMALL = {
    "qwen2_5_vl": Architecture(
        QWEN2_5_VL,
        qwen2_5_text(128, 64, 2, 1, 1, 512, tied=True),
        qwen2_5_vision(32, 48, 4, 1, 128),
        (2, 4),
        embedder="tiny",
    ),
    "qwen3_vl": Architecture(
        QWEN3_VL,
        qwen3_text(128, 64, 2, 1, 1, 512, tied=True),
        qwen3_vision(32, 48, 4, 1, 128, (0, 1)),
        (2, 4),
        embedder="tiny",
    ),
}


@pytest.mark.parametrize("family", SMALL)
def test_ways_agree_and_keep_their_static_tensors(family: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    weights = Weights.random(SMALL[family], Placement(torch.device("cpu")))
    ways = ways_to_generate(weights, ["What is shown?", "How many things are there?"], 3)
    with mock.patch("marc.inference.hf.StaticCache", wraps=StaticCache) as made:
        for _ in range(2):
            answers = [way() for way in ways.values()]
    assert all(answer == answers[0] for answer in answers)
    assert made.call_count == 2, "one for questions one by one, one for questions together"
