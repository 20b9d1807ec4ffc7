"""open_clip's dual encoders, such as the Perception Encoder: from a name, a repository or a folder, and back to one.

Shape legend: T frames, H height, W width, C colour channels, D embedding dimensions, B texts, L text tokens.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file

from marc.hub import hub_answers, is_downloaded
from marc.io import message_of, open_as_usual, reading
from marc.memory.text_tower import CONFIG_FILE, WEIGHTS_FILE, check_sizes, fingerprint_of

if TYPE_CHECKING:
    import open_clip

TINY_FOLDER = Path(__file__).parents[2] / "assets" / "tiny_clip"
WEIGHTS_FILES = (WEIGHTS_FILE, "open_clip_pytorch_model.bin")
"""As open_clip calls them on the hub."""
HUB = "hf-hub:"
"""How open_clip marks a repository of the hub."""
_HOW_TO_GET_WEIGHTS = (
    "Weights come from the Hugging Face hub: run once with network access, or copy a downloaded repository "
    f"({CONFIG_FILE} and {WEIGHTS_FILE}) and pass its folder. 'tiny' is shipped, but knows generated videos only."
)


@dataclass(frozen=True)
class DualEncoder:
    """An open_clip model and what belongs to it; see `marc.memory.encoders.interface.Encoder`.

    Attributes:
        name: What the model is called in messages and in the settings of a memory.
        model: With ``encode_image`` and ``encode_text``.
        preprocess: open_clip's inference transform, from a PIL image to ``float32 [3, H, W]``.
        tokenizer: The open_clip tokenizer of the text tower.
        config: open_clip's ``model_cfg`` dictionary.
    """

    name: str
    model: open_clip.CLIP | open_clip.CustomTextCLIP
    preprocess: Callable[[Image.Image], torch.Tensor]
    tokenizer: Any
    config: dict[str, Any]

    @cached_property
    def fingerprint(self) -> str:
        """See `marc.memory.text_tower.fingerprint_of`; of the weights as they are when it is first asked for."""
        import open_clip

        return fingerprint_of(self.config, open_clip.get_model_preprocess_cfg(self.model), self.model.state_dict())

    @property
    def dimension(self) -> int:
        """Length D of the vectors."""
        return int(self.config["embed_dim"])

    @property
    def image_size(self) -> int:
        """Longer side in pixels of the picture that the image tower sees."""
        import open_clip

        return max(open_clip.get_model_preprocess_cfg(self.model)["size"])

    @property
    def token_limit(self) -> int:
        """Tokens that the text tower reads, with start and end token."""
        return int(self.tokenizer.context_length)

    @property
    def reads_to_end_token(self) -> bool:
        """Whether what follows the end token cannot change a text's vector, so that it need not be computed.

        True for a causal text tower of open_clip's own that is read at its end token, the one with the highest number
        (as in PE-Core).
        """
        import open_clip

        text_config = self.config["text_cfg"]
        return (
            isinstance(self.model, open_clip.CustomTextCLIP)
            and text_config.get("pool_type", "argmax") == "argmax"
            and not any(text_config.get(name) for name in ("no_causal_mask", "embed_cls", "hf_model_name"))
        )

    def place(self, device: torch.device, precision: str) -> None:
        """In bf16 the weights of products are held in it; norms and sums of PE-Core's image tower stay in float32."""
        model = self.model.eval().requires_grad_(False).to(device)
        if precision == "bf16":
            _hold_in_bfloat16(model)
            if device.type == "cpu":
                _attend_by_matrix_products(model)
        if self.reads_to_end_token:
            model.get_submodule("text.transformer").register_forward_pre_hook(_cut_mask, with_kwargs=True)

    def tokenize(self, texts: Sequence[str]) -> torch.Tensor:
        """Tokens ``int64 [B, L]`` of texts, cut to the limit and filled up."""
        tokens_BL = self.tokenizer(texts)
        return tokens_BL[:, : int(tokens_BL.argmax(dim=1).max()) + 1] if self.reads_to_end_token else tokens_BL

    def token_count(self, text: str) -> int:
        """Tokens of a text before anything is cut."""
        import open_clip

        if isinstance(self.tokenizer, open_clip.SimpleTokenizer):
            return len(self.tokenizer.encode(text)) + 2
        return len(self.tokenizer.tokenizer(text).input_ids)

    def encode_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Vectors ``[B, D]`` of unnormalised length."""
        return self.model.encode_text(self.tokenize(texts).to(self._device))

    def encode_frames(self, frames_THWC: NDArray[np.uint8]) -> torch.Tensor:
        """Vectors ``[T, D]`` of unnormalised length of RGB frames ``uint8 [T, H, W, 3]``."""
        images_TCHW = torch.stack([self.preprocess(Image.fromarray(frame)) for frame in frames_THWC])
        return self.model.encode_image(images_TCHW.to(self._device))

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device


def load_dual_encoder(name_or_folder: str | Path) -> DualEncoder:
    """Load an open_clip model with its weights; see `EventEmbedder.from_pretrained`.

    Raises:
        ValueError: The model is unknown, or its weights are missing, unreachable or do not fit its configuration.
    """
    import open_clip

    name, folder = str(name_or_folder), folder_of(name_or_folder)
    if folder.is_dir():
        schema, tag = f"local-dir:{checked_folder(folder)}", None
    elif name.startswith(HUB):
        schema, tag = name, None
    else:
        schema, tag = _resolve_listed(name)
    with reading(name, "encoder"):
        try:
            model, preprocess = open_clip.create_model_from_pretrained(schema, pretrained=tag)
        except RuntimeError as error:
            raise ValueError(f"{name}: cannot load the model: {message_of(error)}. {_HOW_TO_GET_WEIGHTS}") from error
        tokenizer, config = open_clip.get_tokenizer(schema), open_clip.get_model_config(schema)
        return DualEncoder(name, model, preprocess, tokenizer, config)


def untrained_dual_encoder(name: str, device: str | torch.device) -> DualEncoder:
    """An open_clip model with random weights."""
    import open_clip

    model, _, preprocess = open_clip.create_model_and_transforms(name, device=device)
    return DualEncoder(name, model, preprocess, open_clip.get_tokenizer(name), open_clip.get_model_config(name))


def save_dual_encoder(
    folder: str | Path,
    model: open_clip.CLIP | open_clip.CustomTextCLIP,
    model_config: dict[str, Any],
    *,
    tokenizer: Any | None = None,
) -> None:
    """Write an open_clip model as a folder that `EventEmbedder.from_pretrained` and open_clip's ``local-dir:`` read.

    Args:
        folder: Created if missing. Receives ``open_clip_config.json``, ``open_clip_model.safetensors``, and the
            tokenizer's files if it has any.
        model: An open_clip model; its ``visual.preprocess_cfg`` says how pictures are prepared.
        model_config: The ``model_cfg`` dictionary from which the model was built.
        tokenizer: Needed where ``text_cfg`` names an ``hf_tokenizer_name``; open_clip's own tokenizer has no files.
    """
    import open_clip
    from open_clip.push_to_hf_hub import save_config_for_hf

    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, target / WEIGHTS_FILE)
    open_as_usual(target / WEIGHTS_FILE)
    if isinstance(tokenizer, open_clip.tokenizer.HFTokenizer):
        tokenizer.save_pretrained(target)
    save_config_for_hf(model, target / CONFIG_FILE, model_config)  # type: ignore[arg-type]  # it wants a Path, too


def folder_of(name_or_folder: str | Path) -> Path:
    """Where the files of a model are if its name is that of a folder."""
    return TINY_FOLDER if str(name_or_folder) == "tiny" else Path(name_or_folder).expanduser()


def checked_folder(folder: Path) -> Path:
    """The folder of an open_clip model.

    Raises:
        ValueError: There are no weights in it, or they have not the sizes that its configuration says.
    """
    if not any(path.suffix in (".safetensors", ".bin", ".pth") for path in folder.iterdir()):
        raise ValueError(f"{folder}: there is a {CONFIG_FILE} but no weights beside it ({WEIGHTS_FILE})")
    with reading(str(folder), "encoder"):
        check_sizes(folder)
    return folder


def listed(name: str) -> tuple[str, str, dict[str, Any]]:
    """Model, tag and source of an open_clip name whose weights are here or can be had.

    Raises:
        ValueError: Saying what the name might have been, or how to get the weights.
    """
    import open_clip

    model_name, _, tag = name.partition(":")
    tags = open_clip.list_pretrained_tags_by_model(model_name)
    if not tags:
        alike = difflib.get_close_matches(model_name, ["tiny", *open_clip.list_models()], n=1)
        meant = f" (did you mean {alike[0]}?)" if alike else ""
        raise ValueError(
            f"{name}: neither a folder nor an open_clip model with published weights{meant}; "
            "`python -c 'import open_clip; print(open_clip.list_pretrained())'` lists them"
        )
    tag = tag or tags[0]
    if tag not in tags:
        raise ValueError(f"{name}: {model_name} has no weights called {tag!r}, but {', '.join(tags)}")
    source = open_clip.get_pretrained_cfg(model_name, tag)
    repository = str(source.get("hf_hub", "")).rstrip("/")
    if repository and not is_downloaded(repository, *WEIGHTS_FILES) and not hub_answers():
        raise ValueError(f"{name}: not downloaded yet, and the hub cannot be reached. {_HOW_TO_GET_WEIGHTS}")
    return model_name, tag, source


def _resolve_listed(name: str) -> tuple[str, str]:
    """Model and tag of an open_clip name, its weights downloaded to the local cache."""
    import open_clip

    model_name, tag, source = listed(name)
    try:
        open_clip.download_pretrained(source)
    except OSError as error:
        raise ValueError(f"{name}: cannot get the weights: {message_of(error)}. {_HOW_TO_GET_WEIGHTS}") from error
    return model_name, tag


def _hold_in_bfloat16(model: torch.nn.Module) -> None:
    """Keep in bfloat16 what autocast would cast at every call: the weights of products, and of tables before them."""
    products = (torch.nn.Linear, torch.nn.Conv2d, torch.nn.MultiheadAttention, torch.nn.Embedding)
    for module in filter(lambda module: isinstance(module, products), model.modules()):
        for parameter in module.parameters(recurse=False):
            parameter.data = parameter.data.to(torch.bfloat16)


def _attend_by_matrix_products(model: torch.nn.Module) -> None:
    """Have timm's image towers attend without PyTorch's fused kernel, whose CPU form is slower than bf16 products."""
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False  # type: ignore[assignment]  # torch types every attribute as a module


def _cut_mask(
    _: torch.nn.Module, inputs: tuple[torch.Tensor, ...], options: dict[str, torch.Tensor]
) -> tuple[tuple[torch.Tensor, ...], dict[str, torch.Tensor]]:
    """Cut the causal mask, which open_clip makes for the full length, to the tokens that are there."""
    length = inputs[0].shape[1]
    return inputs, options | {"attn_mask": options["attn_mask"][:length, :length]}
