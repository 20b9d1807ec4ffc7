"""The tokenizer of the embedded model: byte-level BPE in which every word of the micro-world is one token."""

from __future__ import annotations

import numpy as np
from transformers import AddedToken, Qwen2Tokenizer

from marc.model.tiny import build_tokenizer
from marc.world.packing import completion, prompt
from marc.world.questions import KINDS, draw_questions
from marc.world.scenes import BACKGROUNDS, COLOURS, DIRECTIONS, SHAPES, sample_video

TAGS = ("<think>", "</think>", "<answer>", "</answer>")
"""Single tokens of the tokenizer, though ordinary text to it: decoding keeps them."""


def corpus(videos: int = 300) -> list[str]:
    """Prompts and completions of the training split, and the bare answers."""
    rng = np.random.default_rng(0)
    words = (*BACKGROUNDS, *COLOURS, *SHAPES, *DIRECTIONS, *KINDS, "yes", "no", "system", "user", "assistant")
    texts = list(words) * 100
    for index in range(videos):
        for question in draw_questions(sample_video("easy", "train", 0, index), rng, 12):
            texts += [prompt(question, style) for style in ("short", "video-r1", "video-r1-train")]
            texts.append(completion(question, think=True))
    return texts


def build_world_tokenizer() -> Qwen2Tokenizer:
    """Train it on `corpus`; the same on every machine."""
    tokenizer = build_tokenizer(corpus(), vocab_size=1024)
    tokenizer.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in TAGS])
    return tokenizer
