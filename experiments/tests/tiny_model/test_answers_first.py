"""The shipped model that answers first, by the benchmark that its figures come from."""

from pathlib import Path

import numpy as np

from benchmarks.bare_answers import answers
from marc.inference.hf import HFBackend
from marc.inference.thinking import probability_of
from marc.model.loading import load_model
from marc.world.options import WorldOptions

MODEL = Path(__file__).resolve().parents[2] / "tiny_model" / "answers_first"
LEAST = 0.8


def test_it_answers_in_bare_words_and_thinks_where_it_is_unsure() -> None:
    backend = HFBackend(*load_model(MODEL, device="cpu"))
    asked = list(answers(backend, WorldOptions(seed=7, videos=8, questions=24), "short"))
    bare, thought = (np.array([getattr(each, name) for each in asked]) for name in ("bare", "thought"))
    unsure = np.array([probability_of(each.logprobs) < LEAST for each in asked])
    assert bare.mean() > 0.92 and np.where(unsure, thought, bare).mean() > 0.97
    always = sum(each.tokens for each in asked)
    assert sum(each.cost(LEAST) for each in asked) < 0.4 * always
