"""Accuracy during training: rows are asked greedily at several budgets, and what their answers score is logged.

Where ``eval_budgets`` are named, this takes the place of the evaluation of Hugging Face's trainers, at the steps that
``eval_strategy`` says, so that ``metric_for_best_model: accuracy/events`` names the best checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from marc.compression.config import parse_budget
from marc.inference.backend import Backend
from marc.inference.video_input import VisualPatches
from marc.rewards import accuracy_reward
from marc.training.inputs import encoded_prompts, visual_sources
from marc.training.reader import VisualReader, VisualSource, read_rows
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
            files, prompts = _read(reader, some), [row["prompt"] for row in some]
            for budget in budgets:
                asked = encoded_prompts(prompts, files, backend, parse_budget(budget, own))
                outputs = backend.generate(asked, options)
                texts = backend.processor.batch_decode(outputs, skip_special_tokens=True)
                columns = ([row[name] for row in some] for name in ("solution", "problem_type"))
                sums[budget] += sum(accuracy_reward(texts, *columns))
    return sums


def _read(reader: VisualReader, rows: Rows) -> dict[VisualSource, VisualPatches]:
    """What the rows name."""
    sources = [visual_sources(row["prompt"]) for row in rows]
    read = read_rows(reader, sources, [str(row["problem_id"]) for row in rows], skip_bad=False)
    return {
        source: patches
        for own, seen in zip(sources, read, strict=True)
        for source, patches in zip(own, seen or (), strict=True)
    }


@contextmanager
def _random_state_kept(backend: Backend) -> Iterator[None]:
    device = torch.device(backend.device)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        yield
