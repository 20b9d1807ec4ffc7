"""Accuracy during training: rows are asked greedily at several budgets, and what their answers score is logged.

Where ``eval_budgets`` are named, this takes the place of the evaluation of Hugging Face's trainers, at the steps that
``eval_strategy`` says, so that ``metric_for_best_model: accuracy/events`` names the best checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from marc.compression import CompressionConfig
from marc.compression.config import parse_budget
from marc.inference.backend import Backend
from marc.inference.prompts import Prompt
from marc.inference.video_input import inputs_at
from marc.rewards import accuracy_reward
from marc.training.inputs import tokenize_prompt, visual_sources
from marc.training.reader import VisualReader, read_rows
from marc.types import GenerationOptions

ROWS_TOGETHER = 16
"""So many rows are asked together."""

Rows = Sequence[Mapping[str, Any]]
"""Of `marc.training.to_dataset`."""


def summed_accuracy(
    backend: Backend, reader: VisualReader, rows: Rows, budgets: Sequence[str], options: GenerationOptions
) -> dict[str, float]:
    """Sum of the accuracies of greedy answers to some rows, at each budget.

    Args:
        backend: Answers; its budget is what it was afterwards, and torch's random state is left alone.
        reader: Reads the videos as training does.
        rows: The rows.
        budgets: Their names (`marc.compression.config`).
        options: How long answers may be.

    Raises:
        ValueError: If a file cannot be read; it names the row.
    """
    sums = dict.fromkeys(budgets, 0.0)
    own = backend.compression
    with _random_state_kept(backend):
        for first in range(0, len(rows), ROWS_TOGETHER):
            some = rows[first : first + ROWS_TOGETHER]
            for budget in budgets:
                answers = _answers(backend, reader, some, parse_budget(budget, own), options)
                columns = ([row[name] for row in some] for name in ("solution", "problem_type"))
                sums[budget] += sum(accuracy_reward(answers, *columns))
    return sums


def _answers(
    backend: Backend, reader: VisualReader, rows: Rows, compression: CompressionConfig, options: GenerationOptions
) -> list[str]:
    sources = [visual_sources(row["prompt"]) for row in rows]
    read = read_rows(reader, sources, [str(row["problem_id"]) for row in rows], skip_bad=False)
    own = {patches: replace(patches, inputs={}) for row in read for patches in row or ()}  # the engine frees pixels
    shown = inputs_at([[own[patches] for patches in row or ()] for row in read], backend.processor, compression)
    ids = [tuple(tokenize_prompt(backend.processor, row["prompt"])) for row in rows]
    backend.encode(list(dict.fromkeys(each for inputs in shown for each in inputs)))
    outputs = backend.generate([Prompt(*each) for each in zip(ids, shown, strict=True)], options)
    texts: list[str] = backend.processor.batch_decode(outputs, skip_special_tokens=True)
    return texts


@contextmanager
def _random_state_kept(backend: Backend) -> Iterator[None]:
    device = torch.device(backend.device)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        yield
