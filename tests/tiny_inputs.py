"""Inputs for the tiny model, as the tests of several parts need them."""

import numpy as np
import torch
from transformers.video_utils import VideoMetadata

from marc.model import MarcProcessor

PIXELS = 56 * 56


def noise(frames: int, seed: int, *, height: int = 56, width: int = 56) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)


def video_inputs(processor: MarcProcessor, texts: list[str], videos: list[np.ndarray], **kwargs):
    """Each text's ``<video>`` and ``<image>`` become placeholders, in a conversation of one turn."""
    turns = [[{"role": "user", "content": text}] for text in texts]
    chats = [processor.apply_chat_template(turn, add_generation_prompt=True) for turn in turns]
    for mark in ("video", "image"):
        token = f"<|vision_start|><|{mark}_pad|><|vision_end|>"
        chats = [chat.replace(f"<{mark}>", token) for chat in chats]
    metadata = [VideoMetadata(total_num_frames=len(v), fps=2.0, frames_indices=list(range(len(v)))) for v in videos]
    return processor(
        text=chats,
        videos=videos or None,
        video_metadata=metadata or None,
        do_sample_frames=False,
        padding=True,
        return_tensors="pt",
        **kwargs,
    )


def first_logits(model, inputs) -> torch.Tensor:
    with torch.no_grad():
        return model(**inputs).logits


def answered(model, inputs, **options) -> tuple[torch.Tensor, torch.Tensor]:
    """Six tokens of each row behind the prompts, and the logits that each was chosen from, ``[steps, rows, V]``."""
    options = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False, **options}
    output = model.generate(**inputs, **options, output_logits=True, return_dict_in_generate=True)
    return output.sequences, torch.stack(output.logits)
