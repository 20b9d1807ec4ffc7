"""Tables of what the ideal reader answers right (`marc.world.arena.reader`), by rule and budget."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from marc.world.arena.reader import RULES, expected_accuracy
from marc.world.arena.scenes import sample_arena
from marc.world.export import video_questions

SHARES = (1 / 128, 1 / 32, 1 / 10, 1 / 4)
"""Budgets, as parts of every token."""


def ideal_table(videos: int, questions: int, seed: int) -> str:
    """Mean expected accuracies, as a Markdown table: a row for each rule, then the same by kind at 1/4.

    Args:
        videos: Test videos.
        questions: Questions about each.
        seed: Of the videos, and of what is kept at random.
    """
    scores: dict[tuple[str, float], list[float]] = defaultdict(list)
    by_kind: dict[tuple[str, str], list[float]] = defaultdict(list)
    rng = np.random.default_rng(seed)
    for index in range(videos):
        video = sample_arena("test", seed, index)
        asked = video_questions(video, "test", seed, index, questions)
        whole = video.frame_count // 2 * video.rows * video.columns
        for name, rule in RULES.items():
            for share in SHARES:
                tokens = rule(video, max(1, round(share * whole)), rng)
                right = [expected_accuracy(question, tokens, video.columns) for question in asked]
                scores[name, share] += right
                for question, value in zip(asked, right, strict=True):
                    by_kind[question.kind, name] += [value] if share == SHARES[-1] else []
    heads = ["rule", *(f"1/{round(1 / share)}" for share in SHARES)]
    rows = [[name, *(f"{np.mean(scores[name, share]):.3f}" for share in SHARES)] for name in RULES]
    kinds = sorted({kind for kind, _ in by_kind})
    detail = [[kind, *(f"{np.mean(by_kind[kind, name]):.2f}" for name in RULES)] for kind in kinds]
    return f"{_markdown(heads, rows)}\n\n{_markdown(['at 1/4', *RULES], detail)}"


def _markdown(heads: list[str], rows: list[list[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
