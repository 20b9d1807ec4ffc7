"""Every way to generate gives the same answers, and none undoes what another one keeps from round to round."""

from unittest import mock

import pytest
import torch
from transformers import StaticCache

from benchmarks.architectures import Architecture, Placement, Weights, _text, _vision
from benchmarks.decode_speed import ways_to_generate

SMALL = Architecture(
    _text(128, 64, 2, 1, 1, 512) | {"tie_word_embeddings": True}, _vision(32, 48, 4, 1, 128), (2, 4), embedder="tiny"
)


def test_ways_agree_and_keep_their_static_tensors(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    weights = Weights.random(SMALL, Placement(torch.device("cpu")))
    ways = ways_to_generate(weights, ["What is shown?", "How many things are there?"], 3)
    with mock.patch("marc.inference.hf.StaticCache", wraps=StaticCache) as made:
        for _ in range(2):
            answers = [way() for way in ways.values()]
    assert all(answer == answers[0] for answer in answers)
    assert made.call_count == 2, "one for questions one by one, one for questions together"
