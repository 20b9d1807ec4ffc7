"""What the configurations of all families share: how videos are compressed, and how the model is best asked."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedConfig

from marc.compression.config import CompressionConfig


class CompressedConfig(PreTrainedConfig):
    """A family's configuration with two more fields; its own has transformers' and this as bases, in this order.

    In the other, the defaults of this class's base would come before those of the family's.

    Attributes:
        compression: A `CompressionConfig`, or its fields as a dictionary; ``None`` stands for the defaults.
        prompt_style: The style of `marc.data.prompts` in which it is best asked: the one that it was trained in.
        embedder: The dual encoder that goes with it; ``None``: PE-Core-B.

    Raises:
        ValueError: If a compression option is unknown or out of range; the message names it.
    """

    compression: CompressionConfig | dict[str, Any] | None = None
    prompt_style: str = "short"
    embedder: str | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        if self.compression is None:
            self.compression = CompressionConfig()
        elif isinstance(self.compression, dict):
            self.compression = CompressionConfig.from_dict(self.compression)
        elif not isinstance(self.compression, CompressionConfig):
            raise ValueError(f"compression must be a dictionary of options, got {self.compression!r}")
        super().__post_init__(**kwargs)

    def to_dict(self) -> dict[str, Any]:
        """Returns all fields as JSON-serialisable values."""
        values = super().to_dict()
        if isinstance(values["compression"], CompressionConfig):
            values["compression"] = values["compression"].to_dict()
        return values
