"""An engine of a few lines and rows in Video-R1-eval's format, for tests of everything but the model."""

import json

import pytest

from marc.evaluation.samples import Sample
from marc.types import Answer


class ScriptedEngine:
    """Answers as a dictionary says; raises what is an exception there; remembers the batches it was given."""

    def __init__(self, answers):
        self.answers, self.batches = answers, []

    def answer(self, samples, generation):
        self.batches.append([sample.id for sample in samples])
        replies = [self.answers[sample.id] for sample in samples]
        for reply in replies:
            if isinstance(reply, BaseException):
                raise reply
        return [
            reply if isinstance(reply, Answer) else Answer("", reply, 64, 128, 4, 130, 6, {"total": 0.5}, 1 << 30)
            for reply in replies
        ]

    def card(self):
        return {"model": "scripted"}


@pytest.fixture(scope="session")
def scripted_engine():
    return ScriptedEngine


@pytest.fixture(scope="session")
def make_samples():
    def make(count, **changes):
        fields = {
            "question": "Q?",
            "prompt": "Q?",
            "problem_type": "multiple choice",
            "solution": "<answer>B</answer>",
        }
        groups = [{"task": "even"}, {"task": "odd"}]
        return [
            Sample(id=f"t/{i:06d}", path=f"v{i // 3}.mp4", **{"groups": groups[i % 2], **fields, **changes})
            for i in range(count)
        ]

    return make


@pytest.fixture(scope="session")
def card():
    def make(samples, **changes):
        run = {"benchmark": "T", "protocol": "video-r1", "method": "full", "model": "scripted", "headline": "mean"}
        return {"run": {**run, "samples": len(samples), **changes}}

    return make


@pytest.fixture
def write_rows(tmp_path):
    """Writes rows in Video-R1-eval's format; what a row does not say is that of a plain multiple-choice one."""

    def write(*rows, name="eval_vsibench.json", folder=tmp_path):
        plain = {
            "problem": "What moves?",
            "options": ["A. a cat", "B. a dog"],
            "data_type": "video",
            "path": "./clips/a.mp4",
            "problem_type": "multiple choice",
            "solution": "<answer>B</answer>",
        }
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps([{**plain, **row} for row in rows]), encoding="utf-8")
        return file

    return write
