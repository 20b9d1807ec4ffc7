"""Options of training on videos, supervised and by C-GRPO, beside those of TRL's trainers."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from typing import Any, Literal

from transformers import TrainingArguments
from trl import GRPOConfig, SFTConfig

from marc.compression.config import CompressionConfig, parse_budget
from marc.options import build, explained, values_from, with_options_of
from marc.rewards import RetentionConfig, TemporalConfig
from marc.rewards.named import find_reward
from marc.training.budgets import BudgetMix, LayerMix
from marc.training.processes import connect_deepspeed, use_cpu_processes
from marc.video.options import FrameOptions

logger = logging.getLogger(__name__)


@explained
@dataclass
@with_options_of(
    FrameOptions,
    helps={"max_pixels": "Most pixels of a frame or image; none: 128 tokens' worth (Video-R1's training setting)."},
)
class VideoOptions:
    """How a trainer reads videos and how much of them the model sees; mixed into the trainers' options.

    Beside its own there is a field for each option of `marc.video.options.FrameOptions`.

    Attributes:
        bad_video: What happens when a video cannot be read during training: ``"stop"`` the run and name the row, or
            ``"skip"`` the row and count it.
        freeze_tower: Whether the vision tower keeps its weights; each video is then encoded once for generation and
            all log-probabilities.
        budgets: Shares of the budgets that steps are drawn from, by name (`marc.training.budgets`), such as
            ``{"events": 0.5, "frames:4": 0.2, "full": 0.3}``, on the command line as JSON; None: always the model's
            own.
        keep_visuals: Videos and images that are kept in memory after reading, the latest ones. With a frozen tower
            what is kept is its tokens, so that each is decoded and encoded once. In supervised training it needs
            ``dataloader_num_workers=0``.
        eval_budgets: Budgets at which the evaluation's rows are asked, greedily, at the steps that ``eval_strategy``
            says (`marc.training.evaluating`), such as ``[events, full]``; None: the evaluation is TRL's own.
        eval_new_tokens: Upper limit on the length of these answers.
    """

    bad_video: Literal["stop", "skip"] = "stop"
    freeze_tower: bool = False
    budgets: dict[str, float] | str | None = None
    keep_visuals: int = 0
    eval_budgets: list[str] | None = None
    eval_new_tokens: int = 768

    def __post_init__(self) -> None:
        if isinstance(self.budgets, str):
            self.budgets = _shares("budgets", self.budgets, '{"events": 0.5, "full": 0.5}')
        trainers_options: Any = self
        use_cpu_processes(trainers_options)
        super_init: Any = super()
        super_init.__post_init__()
        connect_deepspeed(trainers_options)
        if self.bad_video not in ("stop", "skip"):
            raise ValueError(f"bad_video must be one of stop, skip, got {self.bad_video!r}")
        if self.keep_visuals < 0:
            raise ValueError(f"keep_visuals must be at least 0, got {self.keep_visuals}")
        self.budget_mix  # noqa: B018  (checks the names and shares)
        for name in self.eval_budgets or ():
            parse_budget(name, CompressionConfig())
        if self.eval_budgets and trainers_options.eval_strategy == "no":
            raise ValueError("eval_budgets are for an evaluation: set eval_strategy to steps or epoch, too")
        if self.eval_new_tokens < 1:
            raise ValueError(f"eval_new_tokens must be at least 1, got {self.eval_new_tokens}")
        self.frames  # noqa: B018  (checks its fields)

    @property
    def frames(self) -> FrameOptions:
        """Which frames of a video are read."""
        return build(FrameOptions, values_from(self, FrameOptions), lambda option: option.name)

    @property
    def budget_mix(self) -> BudgetMix:
        """What steps draw their budget from."""
        assert not isinstance(self.budgets, str)
        return BudgetMix(self.budgets or {})


def _shares(name: str, text: str, example: str) -> dict[str, float] | None:
    """Shares by name, as an option says them in JSON; None for null.

    Raises:
        ValueError: It does not; the message names the option and shows its form.
    """
    try:
        shares = json.loads(text)
    except (ValueError, RecursionError):
        shares = text
    if shares is None or (isinstance(shares, dict) and all(type(each) in (int, float) for each in shares.values())):
        return shares
    raise ValueError(f"{name} must be shares in JSON such as '{example}', got {text[:80]!r}")


def _check_kept(options: Any) -> None:
    if options.keep_visuals and options.dataloader_num_workers:
        raise ValueError("keep_visuals needs dataloader_num_workers=0: workers cannot share what is kept")


@explained
@dataclass
class VideoSFTConfig(VideoOptions, SFTConfig):
    """TRL's `SFTConfig` with `VideoOptions`; TRL's packing and padding-free batches are not for videos.

    Attributes:
        pack_questions: Whether the rows of a batch become one sequence, in which questions about the same video (or
            image) stand behind its tokens and see these and themselves alone. The language model then reads a video
            once for all of them, and no padding; losses and gradients are those of single rows, to rounding. Needs
            ``attn_implementation`` "sdpa", and, to gain more than the padding, items of several questions
            (``questions_per_video`` of `marc.training.to_supervised`).
        max_length: Most tokens of a row: its prompt with every visual token, and its completion. Longer ones are
            named before training starts; nothing is truncated. None: no limit.
    """

    pack_questions: bool = False
    max_length: int | None = None
    dataset_kwargs: dict[str, Any] | None = field(default=None, metadata={"help": "As in TRL."})
    remove_unused_columns: bool | None = field(default=False, metadata={"help": "Must be false."})

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_kept(self)
        if self.completion_only_loss is False:
            raise ValueError("completion_only_loss: the loss is always on the completion alone; leave it out")
        if self.pad_to_multiple_of is not None:
            raise ValueError("pad_to_multiple_of: rows are padded to the longest of their batch; leave it out")
        if self.packing or self.eval_packing or self.padding_free:
            raise ValueError(
                "packing, eval_packing and padding_free: TRL has none of them for videos; leave them out "
                "(pack_questions puts questions about the same video together)"
            )
        if self.remove_unused_columns:
            raise ValueError("remove_unused_columns would remove the questions: leave it false")
        self.dataset_kwargs = {**(self.dataset_kwargs or {}), "skip_prepare_dataset": True}


_NOT_FOR_A_TOWER = {
    "freeze_tower": "it is the tower that is trained; leave it out",
    "eval_budgets": "nothing is answered in this training; ask the trained model (`marc eval`)",
    "remove_unused_columns": "would remove the videos; leave it false",
    "fsdp": "the tower is run in parts, which it cannot follow; use DDP or DeepSpeed's ZeRO-2",
    "push_to_hub": "the trained tower is saved inside its model; share that (`marc export`)",
    "label_smoothing_factor": "there are no labels; leave it out",
    "neftune_noise_alpha": "there are no embeddings of words; leave it out",
}


@explained
@dataclass
class TowerConfig(VideoOptions, TrainingArguments):
    """transformers' `TrainingArguments` with `VideoOptions`, for `marc.training.tower`.

    Attributes:
        tower_layers: Shares of the places at which a step's grids merge inside the tower, each as ``tower_layer`` is
            typed, such as ``{8: 0.5, "4:2,8:1": 0.25, none: 0.25}``, on the command line as JSON; None: the model's
            ``tower_layer`` in three of four steps, and none in the others.
    """

    tower_layers: dict[str, float] | str | None = None
    remove_unused_columns: bool | None = field(default=False, metadata={"help": "Must be false."})
    ddp_find_unused_parameters: bool | None = field(default=False, metadata={"help": "As in transformers."})

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.tower_layers, str):
            self.tower_layers = _shares("tower_layers", self.tower_layers, '{"8": 0.5, "none": 0.5}')
        self.layer_mix  # noqa: B018  (checks the names and shares)
        for name, reason in _NOT_FOR_A_TOWER.items():
            if getattr(self, name):
                raise ValueError(f"{name}: {reason}")
        if self.deepspeed_plugin is not None and self.deepspeed_plugin.zero_stage == 3:
            raise ValueError("deepspeed: the tower is run in parts, which ZeRO-3 cannot follow; use ZeRO-2")
        _check_kept(self)

    @property
    def layer_mix(self) -> LayerMix:
        """What steps draw the place from at which grids merge."""
        assert not isinstance(self.tower_layers, str)
        return LayerMix({str(name).lower(): share for name, share in (self.tower_layers or {}).items()})


@explained
@dataclass
class CGRPOConfig(VideoOptions, GRPOConfig):
    """TRL's `GRPOConfig` with the retention reward and `VideoOptions`; everything else is unchanged.

    Attributes:
        alpha: Weight of the retention reward; 0 is GRPO. See `marc.rewards.retention` for this and the next five.
        tau: Retention ratio from which on it pays.
        eta_max: Largest retention ratio that counts.
        zero_teacher: What a teacher's accuracy of 0 means.
        correct_above: An answer is correct if its accuracy exceeds this.
        retention_credit: Whether every correct answer gets the whole retention reward, as published (``"correct"``),
            or a part in proportion to its own accuracy (``"accuracy"``), which ``scale_rewards: group`` keeps.
        retention_form: ``"reward"`` adds the retention reward to correct answers' rewards, as published;
            ``"advantage"`` multiplies the advantages of a group by ``1 + r_c`` after their normalisation.
        temporal_alpha: Bonus of right answers about a video where the group does as well as answers about the same
            video with its grids shuffled (T-GRPO, Video-R1: 0.3), see `marc.rewards.temporal`; 0: none is asked.
        temporal_ratio: Part of the shuffled answers' accuracy that counts as doing as well.
        dynamic_sampling: How often groups whose answers were all rewarded alike, from which nothing would be learned,
            are drawn again, with other prompts of the data (DAPO); what still has no variance then stays. 0: never.
        length_coef: Largest gain of a short answer over a long one where every answer of a group is right, added to
            the normalised advantages (`marc.training.advantages.group_brevity`); 0: length is free.
        curriculum: Part of the prompts that is drawn by how far the student's accuracy on them is behind ``a_full``
            (`marc.training.curriculum`), the rest evenly, at least 0 and below 1. 0: TRL's order, each prompt once an
            epoch.
        selection_rate: Step size of a policy that learns which of ``budgets`` pays and takes the place of their
            shares, from which it begins (`marc.training.selection`). 0: the shares stay.
        selection_cost: What this policy pays for reading every token of a video.
        rewards: Which rewards there are: accuracy, format, judge (see `marc.rewards.judge`), or your own as
            ``package.module:function``, TRL's way; ``reward_weights`` says what each counts. None: the first two.
        reward_coef: Weight of the rewards' advantages; 0 leaves distillation alone, which needs no solutions.
        distill_coef: Weight of on-policy distillation from the full-frame teacher; see `marc.training.distill`.
        teacher: Where ``a_full`` comes from: the ``"column"`` of the data (``marc data teacher``), or ``"online"``,
            asked of the teacher when a prompt first comes up and kept under the same key. Of the student's sampling
            options temperature and length alone reach the teacher.
        teacher_model: Whose weights the full-frame teacher has: ``"initial"``, ``"self"``, a folder or a hub name; see
            `marc.training.full_teacher`.
        teacher_samples: Answers of the online teacher to each prompt.
        teacher_cache: Folder of the online teacher's results; None: ``teacher`` in the output folder.
        share_prompts: Read each prompt once for all its answers, in generation and for log-probabilities with and
            without gradients, in whatever batches of a step they are; losses and gradients are those of single rows,
            to rounding.
        max_prompt_length: Most tokens of a prompt, visual ones included. Longer ones are named before training
            starts; nothing is truncated. None: no limit.
    """

    alpha: float = 0.3
    tau: float = 0.6
    eta_max: float | None = None
    zero_teacher: Literal["none", "saturate"] = "none"
    correct_above: float = 0.1
    retention_credit: Literal["correct", "accuracy"] = "correct"
    retention_form: Literal["reward", "advantage"] = "reward"
    temporal_alpha: float = 0.0
    temporal_ratio: float = 0.8
    dynamic_sampling: int = 0
    length_coef: float = 0.0
    curriculum: float = 0.0
    selection_rate: float = 0.0
    selection_cost: float = 0.0
    rewards: list[str] | None = None
    reward_coef: float = 1.0
    distill_coef: float = 0.0
    teacher: Literal["column", "online"] = "column"
    teacher_model: str = "initial"
    teacher_samples: int = 8
    teacher_cache: str | None = None
    share_prompts: bool = True
    max_prompt_length: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.retention, self.temporal  # noqa: B018  (checks their fields)
        if self.retention_form not in ("reward", "advantage"):
            raise ValueError(f"retention_form must be one of reward, advantage, got {self.retention_form!r}")
        if self.retention_form == "advantage" and self.retention_credit == "accuracy":
            raise ValueError("retention_form=advantage weighs whole groups; leave retention_credit out")
        if self.teacher not in ("column", "online"):
            raise ValueError(f"teacher must be one of column, online, got {self.teacher!r}")
        for name in self.rewards or ():
            find_reward(name)
        if self.reward_coef < 0 or self.distill_coef < 0 or self.reward_coef == self.distill_coef == 0:
            raise ValueError(
                f"reward_coef and distill_coef must be at least 0, one of them more, got {self.reward_coef} and "
                f"{self.distill_coef}"
            )
        if self.teacher == "online" and self.teacher_model == "self":
            raise ValueError("teacher='online' needs a teacher that stays: teacher_model 'initial' or a checkpoint")
        passes = self.num_iterations * (self.steps_per_generation or self.gradient_accumulation_steps)
        if self.distill_coef > 0 and self.teacher_model == "self" and passes > self.gradient_accumulation_steps:
            raise ValueError(
                "teacher_model='self' reads a generation once and then moves: it needs num_iterations=1 and "
                "steps_per_generation no larger than gradient_accumulation_steps"
            )
        if self.max_prompt_length is not None and self.max_prompt_length < 1:
            raise ValueError(f"max_prompt_length must be at least 1, got {self.max_prompt_length}")
        self._check_whole_groups()
        self._check_what_rewards_teach()
        self._check_that_resuming_is_exact()

    @property
    def retention(self) -> RetentionConfig:
        """The retention reward's parameters."""
        given = (self.alpha, self.tau, self.eta_max, self.zero_teacher, self.correct_above, self.retention_credit)
        return RetentionConfig(*given)

    @property
    def temporal(self) -> TemporalConfig:
        """The temporal reward's parameters."""
        return TemporalConfig(self.temporal_alpha, self.temporal_ratio, self.correct_above)

    @property
    def needs_teacher(self) -> bool:
        """Whether the full-frame teacher takes part in training."""
        return self.distill_coef > 0 or self.teacher == "online"

    def _check_whole_groups(self) -> None:
        """What looks at a process's own groups needs them whole, and their rewards."""
        if self.dynamic_sampling < 0:
            raise ValueError(f"dynamic_sampling must be at least 0, got {self.dynamic_sampling}")
        options = [name for name in ("dynamic_sampling", "temporal_alpha") if getattr(self, name) > 0]
        assert self.steps_per_generation is not None and self.num_generations is not None
        rows = self.per_device_train_batch_size * self.steps_per_generation
        for name in options:
            if rows % self.num_generations:
                raise ValueError(
                    f"{name} needs whole groups: per_device_train_batch_size x steps_per_generation ({rows}) must be "
                    f"a multiple of num_generations ({self.num_generations})"
                )
        if self.dynamic_sampling and self.scale_rewards == "batch":
            raise ValueError("dynamic_sampling joins groups of several draws; scale_rewards must be group or none")

    def _check_what_rewards_teach(self) -> None:
        """What looks at rewards needs them, and each in its range."""
        if self.length_coef < 0:
            raise ValueError(f"length_coef must be at least 0, got {self.length_coef}")
        if not 0 <= self.curriculum < 1:
            raise ValueError(f"curriculum must be at least 0 and below 1, got {self.curriculum}")
        if self.curriculum and self.teacher == "online":
            raise ValueError("curriculum needs every a_full beforehand; `marc data teacher` and teacher: column")
        if min(self.selection_rate, self.selection_cost) < 0:
            raise ValueError(
                f"selection_rate and selection_cost must be at least 0, got {self.selection_rate} and "
                f"{self.selection_cost}"
            )
        if self.selection_cost and not self.selection_rate:
            raise ValueError("selection_cost is what a learned selection pays; set selection_rate, too")
        if self.selection_rate and sum(share > 0 for share in self.budget_mix.shares.values()) < 2:
            raise ValueError("selection_rate: there is nothing to select; name at least two budgets")
        for name in ("dynamic_sampling", "temporal_alpha", "length_coef", "curriculum", "selection_rate"):
            if getattr(self, name) > 0 and self.reward_coef == 0:
                raise ValueError(f"{name} looks at rewards, which reward_coef=0 leaves out; set one of them")

    def _check_that_resuming_is_exact(self) -> None:
        """Completions that are waiting for their turn are not part of a checkpoint."""
        if self.sync_ref_model and self.beta != 0:
            logger.warning(
                "sync_ref_model: no checkpoint holds the moving reference; a resumed run starts from the initial one"
            )
        steps_per_generation = self.steps_per_generation or self.gradient_accumulation_steps
        period = steps_per_generation * self.num_iterations
        if self.save_strategy == "steps" and self.save_steps * self.gradient_accumulation_steps % period:
            logger.warning(
                "save_steps=%s falls between two generations (one every %s forward passes, %s passes a step): a run "
                "resumed from such a checkpoint generates anew and differs from an uninterrupted one",
                self.save_steps,
                period,
                self.gradient_accumulation_steps,
            )
