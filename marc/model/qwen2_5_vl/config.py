"""MarcConfig: Qwen2.5-VL's configuration with the fields of compressed videos."""

from __future__ import annotations

from typing import Any, get_args

from huggingface_hub.dataclasses import strict
from transformers import Qwen2_5_VLConfig

from marc.compression.positions import TextAfter
from marc.model.config import CompressedConfig


@strict
class MarcConfig(Qwen2_5_VLConfig, CompressedConfig):
    """Qwen2.5-VL's configuration with those of `CompressedConfig`, and one more.

    Attributes:
        text_after_video: Where the text behind a video goes on. ``published``: one after the video's largest position
            on any axis, as Qwen's checkpoints were trained. ``grid``: after the larger side of its grid, which is what
            transformers 5 computes, bit for bit; for checkpoints that were trained so.

    Raises:
        ValueError: If it is neither.
    """

    model_type = "marc"
    text_after_video: TextAfter = "published"

    def __post_init__(self, **kwargs: Any) -> None:
        rules = get_args(TextAfter)
        if self.text_after_video not in rules:
            raise ValueError(f"text_after_video must be {' or '.join(rules)}, got {self.text_after_video!r}")
        super().__post_init__(**kwargs)

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Reads a configuration; one of ours from before ``text_after_video`` was trained under ``grid``."""
        if config_dict.get("model_type") == cls.model_type:
            config_dict = {"text_after_video": "grid", **config_dict}
        return super().from_dict(config_dict, **kwargs)
