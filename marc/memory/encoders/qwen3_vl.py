"""Qwen3-VL-Embedding in transformers' format: a conversation is read, and its last token's state is the vector.

As its authors use it (github.com/QwenLM/Qwen3-VL-Embedding): the system's turn says what to do, the user's turn holds
a question, a picture or a clip, and the prompt for the answer ends what is read. Frames carry their times. The sizes
are ours: at most 256 tokens of a frame, and eight frames of an event.

Shape legend: E clips, T frames, H height, W width, B prompts, L tokens, D embedding dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isqrt
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from marc.memory.encoders.checkpoint import CheckpointEncoder

TO_FIND = "Retrieve images or text relevant to the user's query."
"""What the system's turn says before a question."""
TO_BE_FOUND = "Represent the user's input."
"""What it says before pictures."""
TOKEN_LIMIT = 8192
"""Tokens of a prompt that its authors read at most."""
FRAME_TOKENS = 256
LEAST_TOKENS = 4
CLIP_FRAMES = 8


class Qwen3VLEmbedding(CheckpointEncoder):
    """A `Qwen3VLModel`; see `marc.memory.encoders.interface.ClipEncoder`."""

    reads: ClassVar[Mapping[str, Any]] = {
        "instructions": [TO_FIND, TO_BE_FOUND],
        "tokens": [TOKEN_LIMIT, LEAST_TOKENS, FRAME_TOKENS],
        "pooling": "last token",
    }
    clip_frames: ClassVar[int] = CLIP_FRAMES

    @property
    def dimension(self) -> int:
        """Width of the language model."""
        return int(self.model.config.text_config.hidden_size)

    @property
    def image_size(self) -> int:
        """Side of a square of as many tokens as a frame may have."""
        return isqrt(FRAME_TOKENS) * self._token_side

    @property
    def token_limit(self) -> int:
        """Tokens of the whole prompt."""
        return min(TOKEN_LIMIT, int(self.model.config.text_config.max_position_embeddings))

    def token_count(self, text: str) -> int:
        """Tokens of the prompt around a text, uncut."""
        return len(self.processor.tokenizer(self._prompt(TO_FIND, {"type": "text", "text": text})).input_ids)

    def encode_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Vectors ``[B, D]``."""
        contents = [{"type": "text", "text": self._cut(text)} for text in texts]
        return self._states(text=[self._prompt(TO_FIND, content) for content in contents])

    def encode_frames(self, frames_THWC: NDArray[np.uint8]) -> torch.Tensor:
        """Vectors ``[T, D]``."""
        prompts = [self._prompt(TO_BE_FOUND, {"type": "image"})] * len(frames_THWC)
        return self._states(text=prompts, images=list(frames_THWC), images_kwargs={"size": self._size(1)})

    def encode_clips(self, clips: Sequence[NDArray[np.uint8]], seconds: Sequence[NDArray[np.float64]]) -> torch.Tensor:
        """Vectors ``[E, D]``."""
        prompt = self._prompt(TO_BE_FOUND, {"type": "video"})
        return torch.cat([self._clip(prompt, clip, times) for clip, times in zip(clips, seconds, strict=True)])

    def _clip(self, prompt: str, frames_THWC: NDArray[np.uint8], seconds_T: NDArray[np.float64]) -> torch.Tensor:
        """The vector ``[1, D]`` of a clip; one frame is shown twice, as two of them make a grid."""
        if len(frames_THWC) == 1:
            frames_THWC, seconds_T = frames_THWC.repeat(2, axis=0), seconds_T.repeat(2)
        metadata = {"total_num_frames": len(seconds_T), "fps": 1.0, "frames_indices": seconds_T.tolist()}
        return self._states(
            text=[prompt],
            videos=[frames_THWC],
            videos_kwargs={
                "video_metadata": [metadata],
                "do_sample_frames": False,
                "size": self._size(len(frames_THWC)),
                "cap_pixels_per_frame": False,
            },
        )

    def _states(self, **parts: Any) -> torch.Tensor:
        """The state of the last token of each prompt, ``[B, D]``."""
        inputs = self.inputs(**parts, padding=True, padding_side="right")
        states_BLD = self.model(**inputs, use_cache=False).last_hidden_state
        last_B = inputs["attention_mask"].sum(dim=1) - 1
        vectors_BD: torch.Tensor = states_BLD[torch.arange(len(last_B), device=last_B.device), last_B]
        return vectors_BD

    def _prompt(self, instruction: str, content: Mapping[str, str]) -> str:
        from marc.model.chat_templates import bounded_rendering

        messages = [
            {"role": "system", "content": [{"type": "text", "text": instruction}]},
            {"role": "user", "content": [content]},
        ]
        with bounded_rendering():
            return str(self.processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False))

    def _cut(self, text: str) -> str:
        """As much of a text as there is room for."""
        beyond = self.token_count(text) - self.token_limit
        if beyond <= 0:
            return text
        tokenizer = self.processor.tokenizer
        return str(tokenizer.decode(tokenizer(text, add_special_tokens=False).input_ids[:-beyond]))

    @property
    def _token_side(self) -> int:
        """Pixels of a side of what becomes a token."""
        vision = self.model.config.vision_config
        return int(vision.patch_size * vision.spatial_merge_size)

    def _size(self, frames: int) -> dict[str, int]:
        """Fewest and most pixels of so many frames together."""
        token = frames * self._token_side**2
        return {"shortest_edge": LEAST_TOKENS * token, "longest_edge": FRAME_TOKENS * token}
