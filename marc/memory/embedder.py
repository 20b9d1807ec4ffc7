"""Image-text embeddings of events and questions: one unit vector each, in one space.

Paper, section "Visual Memory Retriever": a Perception Encoder maps the question and every event to one latent space.
Here any open_clip dual encoder does; `EventEmbedder.from_pretrained` takes an open_clip name, a repository of the
Hugging Face hub or a local folder. An event is the mean of the unit vectors of a few of its frames, made a unit vector
again. A question is embedded without its answer options, because the text tower reads only a few tokens (32 in the
Perception Encoder).

    marc remember talk.mp4 --embedder PE-Core-T-16-384

Shape legend: T frames, H height, W width, C colour channels, D embedding dimensions, L text tokens.
"""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file

from marc.hub import hub_answers, is_downloaded
from marc.io import message_of, reading
from marc.memory.precision import multiplies_bfloat16
from marc.memory.text_tower import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    TextEncoder,
    check_sizes,
    fingerprint_of,
    read_text_encoder,
)
from marc.memory.vectors import average_direction
from marc.threads import threads_for

if TYPE_CHECKING:
    import open_clip

logger = logging.getLogger(__name__)

TINY_FOLDER = Path(__file__).parents[1] / "assets" / "tiny_clip"
WEIGHTS_FILES = (WEIGHTS_FILE, "open_clip_pytorch_model.bin")
"""As open_clip calls them on the hub."""
Precision = Literal["auto", "fp32", "bf16"]

_OPTIONS_HEADING = re.compile(r"\s*\b(?:answer\s+)?(?:options?|choices)\s*:", re.IGNORECASE)
_OPTION_MARKER = r"(?:\({0}\)|\b{0}[.):])\s*\S"
_FIRST_OPTION = re.compile(
    rf"(?:^|(?<=\s)){_OPTION_MARKER.format('A')}(?=.*?(?:^|\s){_OPTION_MARKER.format('B')})", re.DOTALL
)


@dataclass(frozen=True)
class QuestionEmbedding:
    """A question as the text tower read it.

    Attributes:
        vector: ``float32 [D]``, unit length.
        text: The question stem that was embedded.
        token_count: Tokens of the stem with start and end token, before any truncation.
        token_limit: Tokens that the text tower reads.
    """

    vector: NDArray[np.float32]
    text: str
    token_count: int
    token_limit: int

    @property
    def truncated(self) -> bool:
        """Whether the end of the stem was cut off."""
        return self.token_count > self.token_limit


@dataclass(frozen=True)
class DualEncoder:
    """An open_clip model and what belongs to it.

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

    def encode_text(self, tokens_BL: torch.Tensor) -> torch.Tensor:
        """Vectors ``[B, D]`` of unnormalised length."""
        return self.model.encode_text(tokens_BL)


def question_stem(question: str) -> str:
    """The question without its answer options.

    Cuts at an ``Options:`` heading, or at an option ``A.``, ``A)``, ``A:`` or ``(A)`` that a ``B`` follows. A text of
    nothing but options is returned whole.
    """
    cuts = [match.start() for match in (_OPTIONS_HEADING.search(question), _FIRST_OPTION.search(question)) if match]
    stem = question[: min(cuts)].strip() if cuts else question.strip()
    return stem or question.strip()


class EventEmbedder:
    """Embeds frames, events and questions with one open_clip dual encoder.

    Attributes:
        fingerprint: Hexadecimal identity of configuration and weights; about 1,024 values of every tensor are hashed.

    Args:
        encoder: An open_clip model, which is changed to run as said here; or a text tower alone, to which both towers
            are loaded when the first picture comes.
        device: Where the model runs.
        precision: ``"auto"`` is bf16 where the hardware multiplies matrices of it, else float32. In bf16 the weights
            of products are held in it, half as large; norms and sums of PE-Core's image tower stay in float32.
        batch_size: Frames or questions per forward pass.

    Raises:
        ValueError: The precision is unknown or the batch empty.
    """

    def __init__(
        self,
        encoder: DualEncoder | TextEncoder,
        *,
        device: str | torch.device = "cpu",
        precision: Precision = "auto",
        batch_size: int = 32,
    ) -> None:
        if precision not in ("auto", "fp32", "bf16"):
            raise ValueError(f"precision must be 'auto', 'fp32' or 'bf16', not {precision!r}")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        self.device = torch.device(device)
        fast = "bf16" if multiplies_bfloat16(self.device) else "fp32"
        self.precision = fast if precision == "auto" else precision
        self.batch_size = batch_size
        self.name, self.model_config, self.fingerprint = encoder.name, encoder.config, encoder.fingerprint
        self._texts = encoder
        self._run_as_said(encoder)

    @classmethod
    def from_pretrained(
        cls,
        name_or_folder: str | Path,
        *,
        device: str | torch.device | None = None,
        precision: Precision = "auto",
        batch_size: int = 32,
    ) -> EventEmbedder:
        """Load a dual encoder with its weights.

        Args:
            name_or_folder: ``"tiny"`` (the shipped micro-world encoder); a folder with ``open_clip_config.json`` and
                weights; ``"hf-hub:OWNER/REPOSITORY"``; or an open_clip model such as ``"PE-Core-T-16-384"``, with
                ``":TAG"`` for other weights than the first that open_clip lists.
            device: Default: the GPU if there is one.
            precision: ``"auto"``, ``"fp32"`` or ``"bf16"``.
            batch_size: Frames or questions per forward pass.

        Raises:
            ValueError: The model is unknown, or its weights are missing, unreachable or do not fit its configuration.
        """
        folder = _folder_of(name_or_folder)
        with reading(str(name_or_folder), "text tower"):
            texts = read_text_encoder(folder, str(name_or_folder)) if folder.is_dir() else None
        encoder = texts or load_dual_encoder(name_or_folder)
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        return cls(encoder, device=device, precision=precision, batch_size=batch_size)

    @classmethod
    def untrained(cls, name: str, *, device: str | torch.device = "cpu") -> EventEmbedder:
        """An open_clip model with random weights, which costs what a trained one costs: for measurements of speed."""
        import open_clip

        model, _, preprocess = open_clip.create_model_and_transforms(name, device=device)
        config = open_clip.get_model_config(name)
        return cls(DualEncoder(name, model, preprocess, open_clip.get_tokenizer(name), config), device=device)

    @property
    def model(self) -> open_clip.CLIP | open_clip.CustomTextCLIP:
        """open_clip's model of both towers."""
        return self._pictures.model

    @property
    def dimension(self) -> int:
        """Length D of the vectors."""
        return int(self.model_config["embed_dim"])

    @property
    def image_size(self) -> int:
        """Longer side in pixels of the picture that the image tower sees."""
        import open_clip

        return max(open_clip.get_model_preprocess_cfg(self.model)["size"])

    @property
    def token_limit(self) -> int:
        """Tokens that the text tower reads, with start and end token."""
        return self._texts.token_limit

    @property
    def identity(self) -> dict[str, str]:
        """What two embedders must share for their vectors to be comparable."""
        return {"fingerprint": self.fingerprint, "precision": self.precision}

    def embed_frames(self, frames_THWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Unit vectors ``float32 [T, D]`` of RGB frames ``uint8 [T, H, W, 3]``."""
        if frames_THWC.ndim != 4 or frames_THWC.shape[3] != 3 or frames_THWC.dtype != np.uint8:
            raise ValueError(f"frames must be uint8 [T, H, W, 3], not {frames_THWC.dtype} {list(frames_THWC.shape)}")
        vectors = [np.empty((0, self.dimension), np.float32)]
        for start in range(0, len(frames_THWC), self.batch_size):
            batch = frames_THWC[start : start + self.batch_size]
            images_TCHW = torch.stack([self._pictures.preprocess(Image.fromarray(frame)) for frame in batch])
            vectors.append(self._unit(self.model.encode_image, images_TCHW))
        return np.concatenate(vectors)

    def embed_events(self, frames_per_event: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """One unit vector per event ``float32 [E, D]`` from a few frames ``uint8 [T, H, W, 3]`` of each.

        The vector is the mean of the frames' unit vectors, normalised again, so that no frame outweighs another.
        """
        if any(len(frames) == 0 for frames in frames_per_event):
            raise ValueError("every event needs at least one frame")
        return np.stack([average_direction(self.embed_frames(frames)) for frames in frames_per_event])

    def embed_question(self, question: str) -> QuestionEmbedding:
        """Embed one question without its options; a stem longer than the text tower reads is truncated and logged."""
        return self.embed_questions([question])[0]

    def embed_questions(self, questions: Sequence[str]) -> list[QuestionEmbedding]:
        """Embed questions in batches; see `embed_question`."""
        stems = [question_stem(question) for question in questions]
        if not all(stems):
            raise ValueError("a question is empty")
        embeddings = []
        for start in range(0, len(stems), self.batch_size):
            batch = stems[start : start + self.batch_size]
            vectors = self._unit(self._texts.encode_text, self._texts.tokenize(batch))
            counts = [self._texts.token_count(stem) for stem in batch]
            embeddings += [
                QuestionEmbedding(vector, stem, count, self.token_limit)
                for vector, stem, count in zip(vectors, batch, counts, strict=True)
            ]
        for embedding in filter(lambda embedding: embedding.truncated, embeddings):
            logger.warning(
                "%s reads %d of the %d tokens of the question %r",
                self.name,
                self.token_limit,
                embedding.token_count,
                embedding.text,
            )
        return embeddings

    @cached_property
    def _pictures(self) -> DualEncoder:
        """Both towers.

        Raises:
            ValueError: They are no longer those whose text tower was loaded.
        """
        if isinstance(self._texts, DualEncoder):
            return self._texts
        encoder = load_dual_encoder(self.name)
        if encoder.fingerprint != self.fingerprint:
            raise ValueError(f"{self.name}: the model's files have changed since its text tower was loaded")
        self._run_as_said(encoder)
        return encoder

    def _run_as_said(self, encoder: DualEncoder | TextEncoder) -> None:
        """Moves a model to where it runs, in its precision; a text tower by itself always has float32."""
        model = encoder.model.eval().requires_grad_(False).to(self.device)
        if self.precision == "bf16" and isinstance(encoder, DualEncoder):
            _hold_in_bfloat16(model)
            if self.device.type == "cpu":
                _attend_by_matrix_products(model)
        if isinstance(encoder, DualEncoder) and encoder.reads_to_end_token:
            model.get_submodule("text.transformer").register_forward_pre_hook(_cut_mask, with_kwargs=True)
        with reading(self.name, "encoder"):
            self._try(encoder)

    def _try(self, encoder: DualEncoder | TextEncoder) -> None:
        """Has a model read a word and a blank picture: what is wrong with its files shows now, not in mid-work."""
        vectors = [self._unit(encoder.encode_text, encoder.tokenize(["a"]))]
        if isinstance(encoder, DualEncoder):
            blank = encoder.preprocess(Image.new("RGB", (8, 8)))
            vectors.append(self._unit(encoder.model.encode_image, blank[None]))
        for vector in vectors:
            if vector.shape != (1, self.dimension) or not np.isfinite(vector).all():
                raise ValueError(f"{self.name}: its vectors are not {self.dimension} finite numbers")

    def _unit(self, encode: Callable[[torch.Tensor], torch.Tensor], inputs: torch.Tensor) -> NDArray[np.float32]:
        bf16 = torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16")
        with torch.inference_mode(), bf16, threads_for(self._texts.model):
            features = encode(inputs.to(self.device))
        return torch.nn.functional.normalize(features.to(torch.float32), dim=-1).cpu().numpy()


def load_dual_encoder(name_or_folder: str | Path) -> DualEncoder:
    """Load an open_clip model with its weights; see `EventEmbedder.from_pretrained`.

    Raises:
        ValueError: The model is unknown, or its weights are missing, unreachable or do not fit its configuration.
    """
    import open_clip

    name, folder = str(name_or_folder), _folder_of(name_or_folder)
    if folder.is_dir():
        schema, tag = f"local-dir:{_checked_folder(folder)}", None
    elif name == "tiny" or isinstance(name_or_folder, Path) or name.startswith((".", "/", "~")):
        raise ValueError(
            f"{folder}: no such folder; it should hold {CONFIG_FILE} and the weights of an open_clip model"
        )
    elif name.startswith("hf-hub:"):
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
    if isinstance(tokenizer, open_clip.tokenizer.HFTokenizer):
        tokenizer.save_pretrained(target)
    save_config_for_hf(model, target / CONFIG_FILE, model_config)  # type: ignore[arg-type]  # it wants a Path, too


_HOW_TO_GET_WEIGHTS = (
    "Weights come from the Hugging Face hub: run once with network access, or copy a downloaded repository "
    f"({CONFIG_FILE} and {WEIGHTS_FILE}) and pass its folder. 'tiny' is shipped, but knows generated videos only."
)


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


def _folder_of(name_or_folder: str | Path) -> Path:
    """Where the files of a model are if its name is that of a folder."""
    return TINY_FOLDER if str(name_or_folder) == "tiny" else Path(name_or_folder).expanduser()


def _checked_folder(folder: Path) -> Path:
    if not (folder / CONFIG_FILE).is_file():
        raise ValueError(f"{folder}: no {CONFIG_FILE} in this folder; it should hold the files of an open_clip model")
    if not any(path.suffix in (".safetensors", ".bin", ".pth") for path in folder.iterdir()):
        raise ValueError(f"{folder}: there is a {CONFIG_FILE} but no weights beside it ({WEIGHTS_FILE})")
    with reading(str(folder), "encoder"):
        check_sizes(folder)
    return folder


def check_listed(name: str) -> None:
    """Refuses a name that is neither a folder's nor one that open_clip or a hub can know, without loading anything.

    Raises:
        ValueError: Saying what it might have been.
    """
    if _folder_of(name).is_dir():
        _checked_folder(_folder_of(name))
    elif name != "tiny" and not name.startswith((".", "/", "~", "hf-hub:")):
        _listed(name)


def _listed(name: str) -> tuple[str, str, dict[str, Any]]:
    """Model, tag and source of an open_clip name whose weights are here or can be had."""
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

    model_name, tag, source = _listed(name)
    try:
        open_clip.download_pretrained(source)
    except OSError as error:
        raise ValueError(f"{name}: cannot get the weights: {message_of(error)}. {_HOW_TO_GET_WEIGHTS}") from error
    return model_name, tag
