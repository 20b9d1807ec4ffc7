"""The tokenizer of the embedded model: byte-level BPE in which every word of the micro-world is one token.

So is every fixed instruction of a prompt style: Video-R1's prompt, which asks for reasoning at length, is not longer
than the plain one, and the model learns to answer under all of them at the price of one.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from transformers import AddedToken, PreTrainedTokenizerBase

from marc.data.prompts import render_question, style_names
from marc.model.tiny import build_tokenizer
from marc.world.arena.scenes import DIGITS, LETTERS, TINTS
from marc.world.levels import questions, sample
from marc.world.questions import KINDS
from marc.world.scenes import BACKGROUNDS, COLOURS, DIRECTIONS, SHAPES, Level
from marc.world.texts import completion, prompt

TAGS = ("<think>", "</think>", "<answer>", "</answer>")
"""Single tokens of the tokenizer, though ordinary text to it: decoding keeps them."""
PROBLEM_TYPES = ("multiple choice", "numerical", "free-form")
"""Of `marc.world.questions.WorldQuestion`."""


def instructions() -> list[str]:
    """What the prompt styles say behind every question, in pieces that never vary: each becomes one token."""
    pieces: dict[str, None] = {}
    for style in style_names():
        endings = [render_question("", problem_type=kind, style=style) for kind in PROBLEM_TYPES]
        shared = os.path.commonprefix(endings[1:]).strip()  # noqa: RUF071 (texts, not paths)
        pieces |= dict.fromkeys((shared, *(text.rpartition(shared)[2].strip() for text in endings if shared)))
    return [piece for piece in pieces if piece]


ARENA_WORDS = (*TINTS, *LETTERS, *DIGITS, "sign", "signs", "star", "stars", "button", "light", "longer", "shorter")
"""What only the level ``arena`` speaks of."""


def corpus(videos: int = 300, level: Level = "easy") -> list[str]:
    """Prompts and completions of a level's training split, and the bare answers."""
    rng = np.random.default_rng(0)
    words: tuple[str, ...] = (*BACKGROUNDS, *COLOURS, *SHAPES, *DIRECTIONS, *KINDS)
    words += ("yes", "no", "system", "user", "assistant", *(ARENA_WORDS if level == "arena" else ()))
    texts = [form for word in words for form in (word, f" {word}")] * 100
    for index in range(videos):
        for question in questions(sample(level, "train", 0, index), rng, 12):
            texts += [prompt(question, style) for style in ("short", "video-r1", "video-r1-train")]
            texts.append(completion(question, "video-r1"))
    return texts


def build_world_tokenizer(words: Sequence[str] = (), level: Level = "easy") -> PreTrainedTokenizerBase:
    """Train it on `corpus`; the same on every machine.

    Args:
        words: More single tokens, such as a family writes around its videos.
        level: Whose words.
    """
    tokenizer = build_tokenizer(corpus(level=level), vocab_size=1024)
    tokenizer.add_tokens(
        [AddedToken(tag, special=False, normalized=False) for tag in (*TAGS, *instructions(), *words)]
    )
    return tokenizer
