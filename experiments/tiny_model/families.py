"""What the recipe must know of a model family, all of it in one record: the rest asks the model itself.

A family's configuration is that of its tiny flavour (`marc.model.tiny`) with the recipe's numbers and these fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from types import ModuleType
from typing import Any

from transformers import PreTrainedTokenizerBase

from marc.model import CompressedProcessor, CompressedVLM
from marc.model.family import Family, families, load_name


@dataclass(frozen=True)
class TinyFamily:
    """A family as the recipe trains it.

    Attributes:
        name: As in `marc.model.family`.
        fields: Of the configuration.
        vision: Of its vision tower's.
        words: What its prompts say around a video, each a token.
    """

    name: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    vision: Mapping[str, Any] = field(default_factory=dict)
    words: tuple[str, ...] = ()

    @property
    def record(self) -> Family:
        """The package's record of it."""
        return next(each for each in families() if each.name == self.name)

    @property
    def _tiny(self) -> ModuleType:
        return import_module(self.record.tiny)

    def build_config(self, tokenizer: PreTrainedTokenizerBase) -> Any:
        """Its configuration."""
        config = self._tiny.build_config(tokenizer)
        for part, values in ((config, self.fields), (config.vision_config, self.vision)):
            for name, value in values.items():
                setattr(part, name, value)
        return config

    def build_model(self, config: Any) -> CompressedVLM:
        """A model with transformers' random weights."""
        model: CompressedVLM = load_name(self.record.ours.generator)(config)
        return model

    def build_processor(self, tokenizer: PreTrainedTokenizerBase) -> CompressedProcessor:
        """Its processor."""
        processor: CompressedProcessor = self._tiny.build_processor(tokenizer)
        return processor


FAMILIES = {
    family.name: family
    for family in (
        TinyFamily("qwen2_5_vl", fields={"text_after_video": "grid"}),
        # With the tiny flavour's three blocks and two levels of DeepStack it would exceed a million parameters.
        TinyFamily("qwen3_vl", vision={"depth": 2, "deepstack_visual_indexes": [0]}, words=(" seconds>",)),
    )
}
"""Those that a recipe may name. Recurrent layers cannot read questions packed behind one video, so no Qwen3.5."""
