"""The text tower of an encoder's folder by itself: what a question about remembered videos needs of it.

`marc.memory.embedder` reads both towers with open_clip, whose import brings torchvision, timm and transformers and
costs more than everything else that ``marc recall`` does. A causal text tower of the plain kind, with a tokenizer in
the format of the library tokenizers, is made of PyTorch's own layers here; the vectors are open_clip's, to rounding.

Shape legend: B questions, L text tokens, W width of the tower, D embedding dimensions.
"""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

from marc.io import numbers_in, read_json, sha256_of

CONFIG_FILE = "open_clip_config.json"
WEIGHTS_FILE = "open_clip_model.safetensors"

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
_PLAIN_TOKENIZERS = ("TokenizersBackend", "PreTrainedTokenizerFast")
_MODEL_KEYS = {"embed_dim", "vision_cfg", "text_cfg", "custom_text"}
_TEXT_KEYS = {"context_length", "vocab_size", "width", "heads", "layers", "hf_tokenizer_name"}
_PREPROCESS_KEYS = {"mean", "std", "interpolation", "resize_mode"}
_OURS = {
    "transformer.resblocks.": "blocks.layers.",
    "ln_final.": "blocks.norm.",
    ".ln_1.": ".norm1.",
    ".ln_2.": ".norm2.",
    ".attn.": ".self_attn.",
    ".mlp.c_fc.": ".linear1.",
    ".mlp.c_proj.": ".linear2.",
}
"""What PyTorch's layers call the weights that open_clip calls otherwise."""
_FINGERPRINT_SAMPLES = 1024
_SIDES = ("image_size", "size")
"""Fields that are sides of a picture."""


class TextTower(torch.nn.Module):
    """open_clip's causal text transformer, read at its end token, which has the highest number.

    Args:
        config: open_clip's ``text_cfg``.
        dimension: Length D of its vectors.
    """

    def __init__(self, config: Mapping[str, Any], dimension: int) -> None:
        super().__init__()
        width = config["width"]
        layer = torch.nn.TransformerEncoderLayer(
            width, config["heads"], 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.token_embedding = torch.nn.Embedding(config["vocab_size"], width)
        self.positional_embedding = torch.nn.Parameter(torch.empty(config["context_length"], width))
        self.blocks = torch.nn.TransformerEncoder(
            layer, config["layers"], torch.nn.LayerNorm(width), enable_nested_tensor=False
        )
        self.text_projection = torch.nn.Parameter(torch.empty(width, dimension))

    def forward(self, tokens_BL: torch.Tensor) -> torch.Tensor:
        """Vectors ``[B, D]`` of unnormalised length, in the precision of the weights whatever the surroundings say.

        PyTorch's fused layers do not notice automatic mixed precision on a CPU.
        """
        with torch.autocast(tokens_BL.device.type, enabled=False):
            return self._vectors(tokens_BL)

    def _vectors(self, tokens_BL: torch.Tensor) -> torch.Tensor:
        length = int(tokens_BL.argmax(dim=1).max()) + 1
        states_BLW = self.token_embedding(tokens_BL[:, :length]) + self.positional_embedding[:length]
        mask_LL = torch.nn.Transformer.generate_square_subsequent_mask(
            length, device=states_BLW.device, dtype=states_BLW.dtype
        )
        states_BLW = self.blocks(states_BLW, mask=mask_LL, is_causal=True)
        ends_B = tokens_BL.argmax(dim=1)
        return states_BLW[torch.arange(len(ends_B), device=ends_B.device), ends_B] @ self.text_projection


@dataclass(frozen=True)
class TextEncoder:
    """A text tower and what belongs to it.

    Attributes:
        name: What the model is called in messages and in the settings of a memory.
        model: The tower.
        tokenizer: With neither truncation nor padding.
        pad: Number of the token that fills up.
        config: open_clip's ``model_cfg`` dictionary of both towers.
        fingerprint: See `fingerprint_of`: of both towers.
    """

    name: str
    model: TextTower
    tokenizer: Tokenizer
    pad: int
    config: dict[str, Any]
    fingerprint: str

    @property
    def dimension(self) -> int:
        """Length D of the vectors."""
        return int(self.config["embed_dim"])

    @property
    def token_limit(self) -> int:
        """Tokens that the tower reads, with start and end token."""
        return int(self.config["text_cfg"]["context_length"])

    def tokenize(self, texts: Sequence[str]) -> torch.Tensor:
        """Tokens ``int64 [B, L]`` of texts, cut to the limit and filled up."""
        self.tokenizer.enable_truncation(self.token_limit)
        self.tokenizer.enable_padding(pad_id=self.pad)
        rows = [encoding.ids for encoding in self.tokenizer.encode_batch([_clean(text) for text in texts])]
        return torch.tensor(rows)

    def token_count(self, text: str) -> int:
        """Tokens of a text before anything is cut."""
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        return len(self.tokenizer.encode(text).ids)

    def place(self, device: torch.device, precision: str) -> None:
        """Moves the tower to where it runs; by itself it always has float32."""
        self.model.eval().requires_grad_(False).to(device)

    def encode_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Vectors ``[B, D]`` of unnormalised length."""
        return self.model(self.tokenize(texts).to(self.model.text_projection.device))


def check_sizes(folder: Path) -> None:
    """Refuses a configuration of sizes that the weights beside it do not have, before memory is taken for them.

    A size of a tower stands for that many rows, or columns, of some matrix whose other side is the width; and no
    network that looks at pictures has fewer weights than a picture has pixels.

    Raises:
        ValueError: Naming the field.
    """
    held = numbers_in(folder)
    content = read_json(folder / CONFIG_FILE)
    config = content.get("model_cfg", content)
    towers = {name: section for name, section in config.items() if isinstance(section, dict)}
    sizes = {"model_cfg": config, **towers, "preprocess_cfg": content.get("preprocess_cfg", {})}
    for place, section in sizes.items() if held else ():
        width = section.get("width", 1)
        for name, value in section.items():
            largest = max(map(abs, _numbers_of(value)), default=0)
            if largest * max([1, *map(abs, _numbers_of(width))]) > held or (name in _SIDES and largest**2 > held):
                raise ValueError(
                    f"{folder}: {name} of {place} is {value} in {CONFIG_FILE}, the weights are {held} numbers"
                )


def _numbers_of(value: Any) -> list[float]:
    """The numbers in a field: itself, or those of a list."""
    values = value if isinstance(value, list) else [value]
    return [one for one in values if isinstance(one, int | float) and not isinstance(one, bool)]


def read_text_encoder(folder: Path, name: str) -> TextEncoder | None:
    """The text tower of an encoder's folder; None if it is not of the plain kind, and open_clip has to read it."""
    if not all((folder / file).is_file() for file in (CONFIG_FILE, WEIGHTS_FILE, *_TOKENIZER_FILES)):
        return None
    check_sizes(folder)
    content, told = (json.loads((folder / file).read_text("utf-8")) for file in (CONFIG_FILE, _TOKENIZER_FILES[1]))
    config, preprocess = content.get("model_cfg", {}), content.get("preprocess_cfg", {})
    if not _is_plain(config, preprocess) or told.get("tokenizer_class") not in _PLAIN_TOKENIZERS:
        return None
    tokenizer = Tokenizer.from_file(str(folder / _TOKENIZER_FILES[0]))
    pad = tokenizer.token_to_id(str(told.get("pad_token")))
    state = load_file(folder / WEIGHTS_FILE)
    if (
        pad is None
        or tokenizer.get_vocab_size() > config["text_cfg"]["vocab_size"]
        or any(tensor.dtype != torch.float32 for tensor in state.values())
    ):
        return None
    prefix = "text." if config.get("custom_text") else ""
    tower = TextTower(config["text_cfg"], config["embed_dim"]).eval()
    own = {_our_name(key.removeprefix(prefix)): tensor for key, tensor in state.items() if key.startswith(prefix)}
    if any(key not in own or own[key].shape != tensor.shape for key, tensor in tower.state_dict().items()):
        return None
    tower.load_state_dict({key: own[key] for key in tower.state_dict()})
    size = config["vision_cfg"]["image_size"]
    whole = {"size": [size, size] if isinstance(size, int) else size, "mode": "RGB", "fill_color": 0, **preprocess}
    return TextEncoder(name, tower, tokenizer, pad, config, fingerprint_of(config, whole, state))


def fingerprint_of(
    config: Mapping[str, Any], preprocess: Mapping[str, Any], weights: Mapping[str, torch.Tensor]
) -> str:
    """Hexadecimal identity of a dual encoder; about 1,024 values of every tensor are hashed.

    Args:
        config: open_clip's ``model_cfg`` dictionary.
        preprocess: How pictures are prepared: open_clip's ``preprocess_cfg`` with all its defaults.
        weights: Of both towers, by open_clip's names.
    """
    parts: list[str | bytes] = [json.dumps([config, preprocess], sort_keys=True)]
    for name, tensor in sorted(weights.items()):
        flat = tensor.flatten()
        sample = flat[:: max(1, flat.numel() // _FINGERPRINT_SAMPLES)].to(torch.float32).cpu().numpy()
        parts += [f"{name} {tuple(tensor.shape)} {tensor.dtype}", sample.tobytes()]
    return sha256_of(*parts)


def _is_plain(config: Mapping[str, Any], preprocess: Mapping[str, Any]) -> bool:
    """Whether a configuration says nothing that `TextTower` does not know."""
    text = config.get("text_cfg", {})
    known = set(config) <= _MODEL_KEYS and "image_size" in config.get("vision_cfg", {})
    return known and set(text) == _TEXT_KEYS and set(preprocess) == _PREPROCESS_KEYS


def _our_name(name: str) -> str:
    for theirs, ours in _OURS.items():
        name = name.replace(theirs, ours)
    return name


def _clean(text: str) -> str:
    """As open_clip cleans texts before any tokenizer sees them."""
    import ftfy

    return " ".join(html.unescape(html.unescape(ftfy.fix_text(text))).split())
