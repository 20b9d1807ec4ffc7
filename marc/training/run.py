"""What the runs of recipes share: the model, the rows, LoRA, and the start from a recipe and the command line."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from transformers import Trainer, TrainingArguments
from transformers.utils import is_flash_attn_2_available
from trl import TrlParser

from marc.data.rows import TrainingRow, read_rows
from marc.model import CompressionConfig, MarcForConditionalGeneration, MarcProcessor
from marc.model.loading import load_model
from marc.training.config import VideoOptions
from marc.training.dataset import STYLE
from marc.training.resume import last_checkpoint
from marc.video.sources import FrameSource
from marc.world.frames import WorldFrames, world_rows

LANGUAGE_MODEL = r".*language_model.*\.(q|k|v|o|gate|up|down)_proj"
"""LoRA's targets: the vision tower has layers of the same names."""

Config = TypeVar("Config", bound=TrainingArguments)


@dataclass
class RunOptions:
    """What a run needs beside the trainer's options.

    Attributes:
        model: ``"tiny"``, a folder, or a hub name.
        rows: File of rows or manifest; None: the micro-world, drawn in memory.
        root: Folder of the videos; None: that of the rows' file.
        style: Prompt style, one of `marc.data.prompts.style_names`.
        layout: Of the compression; None: the checkpoint's.
        target_frames: Of the compression; None: the checkpoint's.
        visual_tokens: Of the compression; None: the checkpoint's.
        dtype: Of the weights; None: on a GPU bfloat16 under LoRA, whose adapters are in float32 (QLoRA's in bfloat16,
            as TRL has it), and under DeepSpeed, which keeps all in float32 too; else float32.
        attn_implementation: As in transformers; ``"auto"``: flash-attention where it is installed and the weights are
            in half precision, which it needs, else PyTorch's.
        lora_rank: Rank of LoRA on the language model; 0 trains all weights.
        load_in_4bit: QLoRA: the language model's weights in 4 bits (NF4), under LoRA; needs bitsandbytes.
        world_level: Of the micro-world, ``"easy"`` or ``"hard"``.
        world_videos: Videos of the micro-world.
        world_questions: Questions about each.
        resume: Go on from the output folder's last checkpoint, if there is one.
        dry_run: Print the resolved options and stop.
    """

    model: str = field(default="tiny", metadata={"help": "'tiny', a folder, or a hub name."})
    rows: str | None = field(default=None, metadata={"help": "Rows or manifest; without it the micro-world."})
    root: str | None = field(default=None, metadata={"help": "Folder of the videos; default: that of the rows."})
    style: str = field(default=STYLE, metadata={"help": "Prompt style."})
    layout: Literal["frames", "events"] | None = field(default=None, metadata={"help": "Compression layout."})
    target_frames: int | None = field(default=None, metadata={"help": "Frames that remain of a video."})
    visual_tokens: int | None = field(default=None, metadata={"help": "Most visual tokens of a video."})
    dtype: str | None = field(default=None, metadata={"help": "Of the weights."})
    attn_implementation: str | None = field(default=None, metadata={"help": "auto, sdpa, eager or flash_attention_2."})
    lora_rank: int = field(default=0, metadata={"help": "LoRA on the language model; 0 trains all weights."})
    load_in_4bit: bool = field(default=False, metadata={"help": "QLoRA: weights in 4 bits; needs bitsandbytes."})
    world_level: Literal["easy", "hard"] = field(default="easy", metadata={"help": "Level of the micro-world."})
    world_videos: int = field(default=16, metadata={"help": "Videos of the micro-world."})
    world_questions: int = field(default=4, metadata={"help": "Questions about each of them."})
    resume: bool = field(default=False, metadata={"help": "Go on from the last checkpoint, if there is one."})
    dry_run: bool = field(default=False, metadata={"help": "Print the resolved options and stop."})

    def __post_init__(self) -> None:
        CompressionConfig.from_dict(self.compression)
        if self.lora_rank < 0:
            raise ValueError(f"lora_rank must be at least 0, got {self.lora_rank}")
        if self.load_in_4bit and not self.lora_rank:
            raise ValueError("load_in_4bit: weights in 4 bits cannot be trained; set lora_rank too")

    @property
    def compression(self) -> dict[str, Any]:
        """Fields of `CompressionConfig` that replace the checkpoint's."""
        given = {name: getattr(self, name) for name in ("layout", "target_frames", "visual_tokens")}
        return {name: value for name, value in given.items() if value is not None}


Options = TypeVar("Options", bound=RunOptions)


def read_options(
    options_class: type[Options], config_class: type[Config], arguments: Sequence[str] | None
) -> tuple[Options, Config] | None:
    """Values from ``--config``, overridden by the command line, written beside the run.

    Returns:
        The run's and the trainer's options; None after a dry run, which prints them.

    Raises:
        ValueError: If the output folder holds another run's checkpoints.
    """
    _take_one_gpu()
    options, config = TrlParser((options_class, config_class)).parse_args_and_config(
        None if arguments is None else list(arguments)
    )
    resolved = yaml.safe_dump({**asdict(options), **config.to_dict()}, sort_keys=True)
    if options.dry_run:
        print(resolved)
        return None
    output = Path(config.output_dir)
    if not options.resume and (checkpoint := last_checkpoint(output)):
        raise ValueError(
            f"{output} holds {Path(checkpoint).name} of an earlier run: --resume true goes on from there, another "
            "--output_dir begins anew"
        )
    if config.process_index == 0:
        output.mkdir(parents=True, exist_ok=True)
        (output / "config.yaml").write_text(resolved, encoding="utf-8")
    return options, config


def _take_one_gpu() -> None:
    """A process by itself sees one GPU: TRL refuses `nn.DataParallel`, and torchrun starts a process for each."""
    if "WORLD_SIZE" not in os.environ:
        os.environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0]


def load_policy(options: RunOptions, config: TrainingArguments) -> tuple[MarcForConditionalGeneration, MarcProcessor]:
    """The model on the CPU, from where the trainer moves it, and its processor.

    Raises:
        ValueError: If weights were to be trained in half precision with no float32 copy of them anywhere.
    """
    import torch

    has_master = options.lora_rank > 0 or bool(config.deepspeed) or "ACCELERATE_USE_DEEPSPEED" in os.environ
    if options.dtype not in (None, "float32") and not has_master:
        raise ValueError(
            f"dtype: {options.dtype} without DeepSpeed has no float32 weights, and small steps would be rounded away; "
            "start with DEEPSPEED=zero2, or set dtype: float32 and bf16: true, or lora_rank"
        )
    dtype = options.dtype or ("bfloat16" if torch.cuda.is_available() and has_master else "float32")
    policy, processor = load_model(
        options.model,
        device="cpu",
        dtype=dtype,
        attn_implementation=_attention(options.attn_implementation, dtype),
        **(quantized(dtype) if options.load_in_4bit else {}),
        **options.compression,
    )
    if options.load_in_4bit:
        _keep_gradients(policy)
    return policy, processor


def _attention(name: str | None, dtype: str) -> str | None:
    if name != "auto":
        return name
    return "flash_attention_2" if is_flash_attn_2_available() and dtype != "float32" else "sdpa"


def _keep_gradients(policy: MarcForConditionalGeneration) -> None:
    """Has 4-bit layers keep the form of weights that trains; on CPUs with AVX512-BF16 generation would repack them."""
    import bitsandbytes

    for module in policy.modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            module.support_avx512bf16_for_cpu = False


def quantized(dtype: str) -> dict[str, Any]:
    """Options of `load_model` for QLoRA: the language model in 4 bits, tower and head as they are.

    Args:
        dtype: In which the language model computes.
    """
    import torch
    from accelerate import PartialState
    from transformers import BitsAndBytesConfig

    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=["model.visual", "lm_head"],
    )
    state: Any = PartialState()  # its attributes have no types of their own
    device_map = {"": state.local_process_index} if torch.cuda.is_available() else None
    return {"quantization_config": quantization, "device_map": device_map}


def read_data(options: RunOptions, config: VideoOptions) -> tuple[list[TrainingRow], Path, FrameSource | None]:
    """The rows, the folder of their videos and where frames come from; without a file of rows, a micro-world."""
    if options.rows is not None:
        return read_rows(options.rows), Path(options.root or Path(options.rows).parent), None
    rows = world_rows(
        level=options.world_level, videos=options.world_videos, questions=options.world_questions, seed=0
    )
    return rows, Path(), WorldFrames(config.fps, config.max_frames, config.min_frames)


def lora(rank: int) -> Any:
    """LoRA on the language model; None for rank 0."""
    from peft import LoraConfig

    return LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=LANGUAGE_MODEL) if rank else None


def run(trainer: Trainer, *, resume: bool) -> None:
    """Trains to the end, from the output folder's last whole checkpoint if so wanted, and saves the model."""
    trainer.train(resume_from_checkpoint=last_checkpoint(trainer.args.output_dir) if resume else None)
    trainer.save_model()
