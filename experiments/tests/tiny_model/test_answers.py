"""Which answers are right: the short cut against generating every one."""

from dataclasses import replace

import torch

from experiments.tiny_model.answers import Sampler, answers_right
from experiments.tiny_model.branches import prompts_only
from experiments.tiny_model.packing import IGNORED
from marc.grading import extract_answer


def test_right_answers_are_those_that_greedy_generation_gives(tiny, batch):
    model, processor = tiny
    sampler = Sampler(processor)
    said = sampler.texts(sampler.draw(model, prompts_only(batch.packed), group=1))
    asked = [question for row in batch.rows for question in row]
    expected = [extract_answer(text) == item.answer for text, item in zip(said, asked, strict=True)]
    right = answers_right(model, sampler, batch.packed, batch.rows)
    assert right.flatten().tolist() == expected
    assert right.any(), "the embedded model knows some of them"


def test_a_wrong_way_to_the_right_answer_counts(tiny, batch, monkeypatch):
    """Completions that are not those expected are generated, and only the answer is graded."""
    model, processor = tiny
    sampler = Sampler(processor)
    asked = [question for row in batch.rows for question in row]
    labels = torch.where(batch.packed.labels == IGNORED, IGNORED, 0)
    packed = replace(batch.packed, labels=labels)
    texts = iter([f"<think>no idea</think><answer>{item.answer}</answer>" for item in asked])
    monkeypatch.setattr(sampler, "text", lambda tokens: next(texts))
    assert answers_right(model, sampler, packed, batch.rows).all()
