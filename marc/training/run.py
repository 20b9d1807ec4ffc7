"""The runs of recipes: what ``training_script/*.py`` and ``marc train grpo|sft|tower`` do.

    python training_script/grpo.py --config configs/grpo_world.yaml [--any_option value] [--dry_run true]
    python training_script/sft_video.py --config configs/sft_world.yaml [--any_option value] [--dry_run true]

A recipe's options are those of the trainer's configuration and of `RunOptions`; both take over what option records
(`marc.options`) declare.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import yaml
from datasets import Dataset
from transformers import Trainer, TrainingArguments
from transformers.utils import is_flash_attn_2_available
from trl import TrlParser

from marc.compression.config import CompressionConfig, budget_fields, override_compression
from marc.data.prompts import check_style
from marc.data.rows import TrainingRow, read_rows
from marc.extras import extra
from marc.io import write_text
from marc.model import CompressedProcessor, CompressedVLM
from marc.model.checkpoints import loading_quietly
from marc.model.loading import load_model
from marc.options import build, changes, explained, values_from, with_options_of
from marc.training.config import CGRPOConfig, TowerConfig, VideoOptions, VideoSFTConfig
from marc.training.dataset import STYLE, to_dataset, to_supervised, to_videos
from marc.training.recipe_files import check_recipe, check_typed, recipe_in
from marc.training.resume import RoomForCheckpoints, last_checkpoint
from marc.types import ModelOptions
from marc.video.sources import FrameSource
from marc.world.frames import WorldFrames, world_rows
from marc.world.options import WorldOptions

logger = logging.getLogger(__name__)

Config = TypeVar("Config", bound=TrainingArguments)


@explained
@dataclass
@with_options_of(
    WorldOptions,
    prefix="world_",
    only=("level", "videos", "questions"),
    defaults={"videos": 16, "questions": 4},
    helps={"level": "Of the micro-world.", "videos": "Videos of it.", "questions": "Questions about each of them."},
)
@with_options_of(CompressionConfig, otherwise="the checkpoint's")
@with_options_of(
    ModelOptions,
    only=("name", "dtype", "attn_implementation"),
    helps={
        "dtype": "Of the weights; none: on a GPU bfloat16 under LoRA, whose adapters are in float32 (QLoRA's in "
        "bfloat16, as TRL has it), and under DeepSpeed, which keeps all in float32 too; else float32.",
        "attn_implementation": "As in transformers; auto: flash-attention where it is installed and the weights are "
        "in half precision, which it needs, else PyTorch's.",
    },
)
class RunOptions:
    """What a run needs beside the trainer's options.

    Beside its own there is a field for each option of `marc.types.ModelOptions` but the device,
    `marc.compression.CompressionConfig` (None: the checkpoint's) and `marc.world.options.WorldOptions` (``world_``).

    Attributes:
        rows: File of rows or manifest; None: the micro-world, drawn in memory.
        root: Folder of the videos; None: that of the rows' file.
        allow_outside: Also read files that rows name outside of it.
        eval_rows: File of rows that are asked in between, see ``eval_budgets`` (or, of the tower, looked at); their
            videos lie as those of ``rows`` do. None: the micro-world's, where training is about it, else none.
        eval_videos: Videos of the micro-world that are asked about in between; training does not see them.
        style: Prompt style, one of `marc.data.prompts.style_names`.
        budget: How many visual tokens a video costs, see `marc.compression.config`, instead of ``layout``,
            ``target_frames`` and ``visual_tokens``; None: the checkpoint's.
        lora_rank: Rank of LoRA on the language model; 0 trains all weights.
        load_in_4bit: QLoRA: the language model's weights in 4 bits (NF4), under LoRA; needs bitsandbytes.
        resume: Go on from the output folder's last checkpoint, if there is one.
        dry_run: Print the resolved options and stop.
    """

    rows: str | None = None
    root: str | None = None
    allow_outside: bool = False
    eval_rows: str | None = None
    eval_videos: int = 8
    style: str = STYLE
    budget: str | None = None
    lora_rank: int = 0
    load_in_4bit: bool = False
    resume: bool = False
    dry_run: bool = False

    def __post_init__(self) -> None:
        given = self.compression
        override_compression(CompressionConfig(), given)
        for name, value in given.items():
            setattr(self, name, "none" if value is None else value)
        self.world  # noqa: B018  (checks its fields)
        check_style(self.style)
        if self.lora_rank < 0:
            raise ValueError(f"lora_rank must be at least 0, got {self.lora_rank}")
        if self.load_in_4bit and not self.lora_rank:
            raise ValueError("load_in_4bit: weights in 4 bits cannot be trained; set lora_rank too")

    @property
    def loading(self) -> ModelOptions:
        """Which model is loaded, and how."""
        return build(ModelOptions, values_from(self, ModelOptions), lambda option: option.name)

    @property
    def compression(self) -> dict[str, Any]:
        """What replaces the checkpoint's compression, see `marc.compression.config.override_compression`."""
        given = changes(CompressionConfig, values_from(self, CompressionConfig), lambda option: option.name)
        return given if self.budget is None else {**given, "budget": self.budget}

    @property
    def world(self) -> WorldOptions:
        """The micro-world that is trained on where there are no rows."""
        return build(WorldOptions, values_from(self, WorldOptions, "world_"), lambda option: f"world_{option.name}")


@explained
@dataclass
class SFTRunOptions(RunOptions):
    """`RunOptions` and what becomes of rows in supervised training.

    Attributes:
        reasoning: Whether the model is to say a row's reasoning (``process``) before its answer.
        questions_per_video: Most questions about a video in one item; they share its encoding.
    """

    reasoning: bool = True
    questions_per_video: int = 1


@explained
@dataclass
class TowerRunOptions(RunOptions):
    """`RunOptions` for the vision tower by itself: of prompts, adapters and weights in 4 bits there are none."""

    def __post_init__(self) -> None:
        for name, plain in (("lora_rank", 0), ("load_in_4bit", False), ("style", STYLE)):
            if getattr(self, name) != plain:
                raise ValueError(f"{name}: it is the vision tower alone that is trained; leave it out")
        super().__post_init__()


def run_grpo(arguments: Sequence[str] | None = None) -> None:
    """The C-GRPO run of a recipe.

    Args:
        arguments: ``--config RECIPE`` and options; by default the command line's.
    """
    from marc.training.grpo import CGRPOTrainer

    if resolved := read_options(RunOptions, CGRPOConfig, arguments):
        options, config = resolved
        rows, root, frames = read_data(options, config)
        _run(CGRPOTrainer, options, config, to_dataset(rows, root, style=options.style), frames)


def run_sft(arguments: Sequence[str] | None = None) -> None:
    """The supervised run of a recipe; see `run_grpo`."""
    from marc.training.sft import VideoSFTTrainer

    if resolved := read_options(SFTRunOptions, VideoSFTConfig, arguments):
        options, config = resolved
        rows, root, frames = read_data(options, config)
        dataset = to_supervised(
            rows,
            root,
            style=options.style,
            reasoning=options.reasoning,
            questions_per_video=options.questions_per_video,
        )
        _run(VideoSFTTrainer, options, config, dataset, frames)


def run_tower(arguments: Sequence[str] | None = None) -> None:
    """The run of a recipe that trains the vision tower to merge early; see `run_grpo`."""
    from marc.training.tower import TowerTrainer

    if resolved := read_options(TowerRunOptions, TowerConfig, arguments):
        options, config = resolved
        rows, root, frames = read_data(options, config)
        videos, held_out = to_videos(rows, root), _held_out(options, config)
        model, processor = load_policy(options, config)
        _require_cuts(rows, config.budget_mix.drawn(processor.compression))
        if held_out is not None:
            _require_cuts(held_out[0], [processor.compression])
        trainer = TowerTrainer(
            model=model,
            args=config,
            train_dataset=videos,
            eval_dataset=None if held_out is None else to_videos(*held_out),
            processing_class=processor,
            frames=frames,
        )
        _train(trainer, options, RoomForCheckpoints(model))


def _held_out(options: RunOptions, config: TowerConfig) -> tuple[list[TrainingRow], Path] | None:
    if config.eval_strategy != "no":
        return read_held_out(options)
    if options.eval_rows is not None:
        raise ValueError("eval_rows needs an eval_strategy: steps or epoch")
    return None


def _require_cuts(rows: Sequence[TrainingRow], budgets: Sequence[CompressionConfig]) -> None:
    """Refuses videos of which nothing merges: in the event layout, without cuts, each grid is an event.

    Raises:
        ValueError: If that is so of all.
    """
    videos = {row.path: row.cuts for row in rows if row.data_type == "video"}
    uncut = sum(cuts is None for cuts in videos.values())
    if uncut and all(budget.layout == "events" for budget in budgets if budget.enabled):
        what = f"{uncut} of {len(videos)} videos have no cuts: in the layout events nothing of them merges"
        advice = "`marc data cuts` finds cuts"
        if uncut == len(videos):
            raise ValueError(f"{what}; {advice}, layout: frames needs none")
        logger.warning("%s; %s", what, advice)


def _run(
    trainer_class: Callable[..., Trainer],
    options: RunOptions,
    config: VideoOptions,
    dataset: Dataset,
    frames: FrameSource | None,
) -> None:
    """Trains a model on a data set."""
    model, processor = load_policy(options, config)
    trainer = trainer_class(
        model=model,
        args=config,
        train_dataset=dataset,
        eval_dataset=read_evaluation(options, config),
        processing_class=processor,
        frames=frames,
        peft_config=lora(model, options.lora_rank),
    )
    _train(trainer, options, RoomForCheckpoints())


def _train(trainer: Trainer, options: RunOptions, room: RoomForCheckpoints) -> None:
    """Trains to the end, from the output folder's last whole checkpoint if so wanted, and saves the model."""
    trainer.add_callback(room)
    output = str(trainer.args.output_dir)
    with _undisturbed():
        trainer.train(resume_from_checkpoint=last_checkpoint(output) if options.resume else None)
        trainer.save_model()


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Without transformers' bars beside the trainer's, and without its word that checkpointing has a newer name.

    Not every version of it that recipes and TRL work with knows that name.
    """
    with loading_quietly(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`(is_)?gradient_checkpointing", FutureWarning)
        yield


Options = TypeVar("Options", bound=RunOptions)


class RecipeParser(TrlParser):
    """As TRL's, but a budget that is typed replaces a recipe's fields of it, and vice versa; errors are raised.

    Args:
        dataclass_types: As TRL's.
        typed: The command line.
    """

    def __init__(self, dataclass_types: Any, typed: Sequence[str]):
        super().__init__(dataclass_types)
        self._typed = _typed_values(typed)

    def error(self, message: str) -> NoReturn:
        """Raises what is wrong, which may be the recipe's, where argparse ends the process."""
        raise ValueError(message)

    def set_defaults_with_config(self, **config: Any) -> list[str]:
        """As TRL's."""
        void = self._replaced(config)
        unknown: list[str] = super().set_defaults_with_config(**{k: v for k, v in config.items() if k not in void})
        return unknown

    def _replaced(self, recipe: Mapping[str, Any]) -> tuple[str, ...]:
        """The recipe's fields that have no say beside what is typed."""
        layout = self._typed.get("layout") or recipe.get("layout")
        if (budget := self._typed.get("budget")) is not None:
            return budget_fields(budget, layout)
        budget = recipe.get("budget")
        return ("budget",) if budget and self._typed.keys() & {*budget_fields(budget, layout)} else ()


def _typed_values(words: Sequence[str]) -> dict[str, str]:
    """Options of a command line by name, with what is written behind each."""
    values = {}
    for word, following in zip_longest(words, words[1:], fillvalue=""):
        if word.startswith("--"):
            name, mark, value = word[2:].partition("=")
            values[name.replace("-", "_")] = value if mark else following
    return values


def recipe_parser(method: str, typed: Sequence[str]) -> RecipeParser:
    """The parser of a recipe's options: of ``"grpo"``, ``"sft"`` or ``"tower"``."""
    classes: dict[str, tuple[type, type]] = {
        "grpo": (RunOptions, CGRPOConfig),
        "sft": (SFTRunOptions, VideoSFTConfig),
        "tower": (TowerRunOptions, TowerConfig),
    }
    return RecipeParser(classes[method], typed)


def read_options(
    options_class: type[Options], config_class: type[Config], arguments: Sequence[str] | None
) -> tuple[Options, Config] | None:
    """Values from ``--config``, overridden by the command line, written beside the run.

    Returns:
        The run's and the trainer's options; None after a dry run, which prints them.

    Raises:
        ValueError: If the recipe cannot be read, or the output folder holds another run's checkpoints.
    """
    _take_one_gpu()
    typed = sys.argv[1:] if arguments is None else list(arguments)
    parser = RecipeParser((options_class, config_class), typed)
    known = {field.name for each in (options_class, config_class) for field in fields(each)}
    check_typed(
        typed, {*known, *(flag.lstrip("-").replace("-", "_") for flag in parser._option_string_actions), "config"}
    )
    recipe = recipe_in(typed)
    if recipe is not None:
        check_recipe(recipe, known)
    try:
        with _undisturbed():
            options, config = parser.parse_args_and_config(typed)
    except (yaml.YAMLError, TypeError, AttributeError, KeyError, ArithmeticError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{recipe or 'options'}: a recipe is YAML with plain values, one option a line: {reason}"
        ) from error
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
        write_text(output / "config.yaml", resolved)
    return options, config


def _take_one_gpu() -> None:
    """A process by itself sees one GPU: TRL refuses `nn.DataParallel`, and torchrun starts a process for each."""
    if "WORLD_SIZE" not in os.environ:
        os.environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0]


def load_policy(options: RunOptions, config: Any) -> tuple[CompressedVLM, CompressedProcessor]:
    """The model on the CPU, from where the trainer moves it, and its processor.

    Raises:
        ValueError: If weights were to be trained in half precision with no float32 copy of them anywhere.
    """
    import torch

    loading = options.loading
    has_master = options.lora_rank > 0 or bool(config.deepspeed) or "ACCELERATE_USE_DEEPSPEED" in os.environ
    if loading.dtype not in (None, "float32") and not has_master:
        raise ValueError(
            f"dtype: {loading.dtype} without DeepSpeed has no float32 weights, and small steps would be rounded away; "
            "start with DEEPSPEED=zero2, or set dtype: float32 and bf16: true, or lora_rank"
        )
    dtype = loading.dtype or ("bfloat16" if torch.cuda.is_available() and has_master else "float32")
    policy, processor = load_model(
        loading.name,
        device="cpu",
        dtype=dtype,
        attn_implementation=_attention(loading.attn_implementation, dtype),
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


def _keep_gradients(policy: CompressedVLM) -> None:
    """Has 4-bit layers keep the form of weights that trains; on CPUs with AVX512-BF16 generation would repack them."""
    with extra("qlora"):
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
    from transformers.integrations import is_deepspeed_zero3_enabled

    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=["model.visual", "lm_head"],
    )
    state: Any = PartialState()  # its attributes have no types of their own
    takes_map = torch.cuda.is_available() and not is_deepspeed_zero3_enabled()  # without one, the same GPU
    device_map = {"": state.local_process_index} if takes_map else None
    return {"quantization_config": quantization, "device_map": device_map}


def read_data(options: RunOptions, config: VideoOptions) -> tuple[list[TrainingRow], Path, FrameSource | None]:
    """The rows, the folder of their videos and where frames come from; without a file of rows, a micro-world."""
    if options.rows is not None:
        root = Path(options.root or Path(options.rows).parent)
        return read_rows(options.rows, root, allow_outside=options.allow_outside), root, None
    frames = config.frames
    return world_rows(**vars(options.world)), Path(), WorldFrames(frames.fps, frames.max_frames, frames.min_frames)


def read_evaluation(options: RunOptions, config: VideoOptions) -> Dataset | None:
    """The rows that are asked in between; None where none are.

    Raises:
        ValueError: If rows are named and budgets are not, or the other way round.
    """
    if not config.eval_budgets:
        if options.eval_rows is not None:
            raise ValueError("eval_rows: at which budgets they are asked is eval_budgets, such as [events, full]")
        return None
    return to_dataset(*read_held_out(options), style=options.style)


def read_held_out(options: RunOptions) -> tuple[list[TrainingRow], Path]:
    """The rows of evaluations, and the folder of their videos.

    Raises:
        ValueError: If rows are trained on and none of them are named.
    """
    if options.eval_rows is not None:
        root = Path(options.root or Path(options.eval_rows).parent)
        return read_rows(options.eval_rows, root, allow_outside=options.allow_outside), root
    if options.rows is None:
        return world_rows(**vars(replace(options.world, videos=options.eval_videos)), split="validation"), Path()
    raise ValueError("an evaluation needs rows that are not trained on: eval_rows names their file")


def lora(model: CompressedVLM, rank: int) -> Any:
    """LoRA on the language model, not on the tower's layers of the same names; None for rank 0."""
    from peft import LoraConfig

    return LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=model.family.language_linears) if rank else None
