"""C-GRPO: TRL's GRPO on compressed videos, with the retention reward (MARC, section on C-GRPO).

What is changed, and where:

- `_tokenize_prompts` reads the files that prompts name and writes their placeholders; TRL knows images only.
- `_generate_single_turn` and `_get_per_token_logps_and_entropies` (`marc.training.scoring`) hand the encoded videos to
  the model, and have it read a prompt once for all its answers. TRL, left alone, generates with a video and computes
  gradients without it.
- `_calculate_rewards` adds the retention and the temporal term to the gathered rewards, where groups are whole.
- `_generate_and_score_completions` and `_compute_loss` carry each row's videos along; which prompts are answered, and
  at which budget, is chosen in `marc.training.drawing` where that is wanted.
- `log` writes prompts into the table of completions as texts; wandb refuses their parts of several types.
- `_load_from_checkpoint` and `_get_train_sampler` (`marc.training.resume`) make resuming exact.

A batch without videos and pictures goes TRL's way, to the bit. What is shared with supervised training, files,
budgets and encodings, is in `marc.training.video_trainer`: with a frozen tower one encoding serves generation and the
old, reference and policy log-probabilities.

    bash training_script/run_grpo_video.sh
"""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate.utils import gather
from torch import Tensor, nn
from transformers.integrations import is_deepspeed_zero3_enabled
from trl import GRPOTrainer

from marc.inference.decoding import drawn_by_one_number
from marc.inference.hf import complete
from marc.inference.prompts import Prompt, pad_rows
from marc.inference.video_input import VideoInput, grid_inputs, inputs_at, shuffled_grids
from marc.model import CompressedVLM
from marc.model.family import vision_token_ids
from marc.model.modeling import token_types
from marc.rewards import accuracy_reward, format_reward
from marc.rewards.named import find_reward
from marc.training.advantages import (
    equally_rewarded,
    group_advantages,
    group_brevity,
    group_retention,
    group_temporal,
    zero_variance_fraction,
)
from marc.training.ahead import ReadingAhead
from marc.training.checks import (
    check_generation,
    check_rules,
    check_video_options,
    reject_long,
    require_a_batch,
    require_teacher,
    rows_of,
)
from marc.training.config import CGRPOConfig
from marc.training.distill import POSITIONS_AT_A_TIME, completion_kl, last_hidden_states
from marc.training.drawing import DrawingTrainer
from marc.training.full_teacher import completion_states, make_teacher, needs_copy
from marc.training.inputs import readable, tokenize_prompt, visual_sources, without_visuals
from marc.training.reader import read_rows
from marc.training.replaced import alone, engine_is_ours, generating, references_are_copies
from marc.training.resume import EpochSampler
from marc.training.scoring import ScoringTrainer
from marc.training.shared_prompts import OF_THE_MICRO_BATCH, answers_together
from marc.training.teacher import TeacherCache, TeacherGrader, TeacherOptions, model_fingerprint
from marc.training.video_trainer import base_model, frozen_copy, make_reader
from marc.video.sources import FrameSource

logger = logging.getLogger(__name__)

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def retention(completions: Sequence[Any], **columns: object) -> list[float]:
    """The retention reward's column, which `CGRPOTrainer._calculate_rewards` fills once groups are whole."""
    return [0.0] * len(completions)


def temporal(completions: Sequence[Any], **columns: object) -> list[float]:
    """The temporal reward's column, likewise."""
    return [0.0] * len(completions)


def reward_functions(given: Any, dataset: Any, args: CGRPOConfig) -> list[Any]:
    """The given reward functions, or those that ``args.rewards`` names.

    By default accuracy and format, or format alone where nothing is to be rewarded.
    """
    if given is None and args.rewards is not None:
        return [find_reward(name) for name in args.rewards]
    if given is None:
        labelled = dataset is None or "solution" in (dataset.column_names or ())
        return [accuracy_reward, format_reward] if labelled or args.reward_coef > 0 else [format_reward]
    return list(given) if isinstance(given, list) else [given]


class CGRPOTrainer(ScoringTrainer, DrawingTrainer, GRPOTrainer):
    """GRPO whose prompts may name videos, and whose rewards include what a compressed video retains.

    Args:
        model: The policy, a `CompressedVLM` (or one in PEFT's wrapper). Any other model trains as in
            TRL.
        reward_funcs: As in TRL; by default accuracy and format. The retention reward joins them where
            `marc.rewards.accuracy_reward` is one of them and ``alpha > 0``.
        args: The options.
        train_dataset: With a ``prompt`` column of chats that name files (see `marc.training.inputs`), the
            columns that the rewards need, and for the retention reward ``a_full`` (None for rows without a teacher).
            `marc.training.to_dataset` makes one.
        eval_dataset: Likewise.
        processing_class: A `CompressedProcessor` with the model's compression.
        frames: Where the videos that prompts name come from; by default they are files.
        **kwargs: As in TRL.

    Raises:
        ValueError: If the options and the data do not fit, or a prompt is longer than ``max_prompt_length``.
    """

    _tag_names = ["trl", "grpo", "c-grpo"]  # noqa: RUF012  (TRL's type)
    _name = "C-GRPO"
    _grader: TeacherGrader | None = None
    _buffered_inputs: Any
    # Of the rows in hand:
    _has_pictures = False  # in columns of their own, as TRL takes them
    _advantage_weights: Tensor | None = None
    _drawn_in_step = (-1, 0)  # the step, and how often answers were drawn in it before

    def __init__(
        self,
        model: Any,
        reward_funcs: Any = None,
        args: CGRPOConfig | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        frames: FrameSource | None = None,
        **kwargs: Any,
    ) -> None:
        args = args or CGRPOConfig("c-grpo")
        if not isinstance(args, CGRPOConfig):
            raise ValueError(f"args must be a CGRPOConfig, got {type(args).__name__}")
        functions = self._with_group_rewards(reward_functions(reward_funcs, train_dataset, args), args, train_dataset)
        self._prepare_drawing(train_dataset, args)
        self._reader = make_reader(processing_class, args, frames)
        self._row_names: list[str] = []
        self._row_is_bad: list[bool] = []
        self._row_prompts: list[list[int]] = []
        if isinstance(model, nn.Module) and isinstance(base_model(model), CompressedVLM):
            check_video_options(model, processing_class, args, kwargs.get("peft_config"))
            check_generation(args, kwargs)
            check_rules(processing_class, args, trains_tower=False)
            if args.freeze_tower:
                base_model(model).model.visual.requires_grad_(False)
            if args.max_prompt_length is not None:
                rows = (
                    (str(row.get("problem_id", "?")), row["prompt"], 0) for row in rows_of(train_dataset, eval_dataset)
                )
                reject_long(self._reader, rows, args, limit=("max_prompt_length", args.max_prompt_length))
        # Before TRL replaces the model's forward, which a copy would go on calling.
        initial = frozen_copy(model) if needs_copy(model, args, kwargs.get("peft_config")) else None
        with references_are_copies(model), engine_is_ours(model, args):
            super().__init__(
                model=model,
                reward_funcs=functions,
                args=args,
                train_dataset=train_dataset,
                eval_dataset=eval_dataset,
                processing_class=processing_class,
                **kwargs,
            )
        if self._reader is not None:
            check_rules(processing_class, args, trains_tower=self._trains_tower)
        self.add_callback(self._step_encodings)
        if self._is_vlm and not self.use_vllm:
            never = {*self.generation_config.suppress_tokens, *vision_token_ids(self._tokenizer)}
            self.generation_kwargs["suppress_tokens"] = self.generation_config.suppress_tokens = sorted(never)
        if args.needs_teacher:
            self._teacher = make_teacher(self, args.teacher_model, initial)
            self._grader = self._make_grader()

    def _with_group_rewards(self, functions: list[Any], args: CGRPOConfig, train_dataset: Any) -> list[Any]:
        """The reward functions, with a column for each reward that only whole groups have, to be filled then."""
        self._accuracy_column = functions.index(accuracy_reward) if accuracy_reward in functions else None
        self._has_temporal = args.temporal_alpha > 0
        self._has_retention = self._accuracy_column is not None and args.alpha > 0 and args.reward_coef > 0
        names = ", ".join(getattr(function, "__name__", str(function)) for function in functions)
        graded = [name for name in ("temporal_alpha", "length_coef", "curriculum") if getattr(args, name) > 0]
        if graded and self._accuracy_column is None:
            raise ValueError(
                f"{graded[0]} needs marc.rewards.accuracy_reward itself among the rewards; there is {names}"
            )
        if self._has_retention and args.teacher == "column":
            require_teacher(train_dataset)
        if not self._has_retention and args.alpha > 0 and args.reward_coef > 0:
            logger.warning(
                "no retention reward: it needs marc.rewards.accuracy_reward itself; there is %s; "
                "alpha=0 silences this",
                names,
            )
        added = [*[temporal] * self._has_temporal, *[retention] * self._has_retention]
        if added and args.reward_weights and len(args.reward_weights) == len(functions):
            args.reward_weights = [*args.reward_weights, *[1.0] * len(added)]  # alpha is what each of them counts
        return [*functions, *added]

    def get_train_dataloader(self) -> Any:
        """TRL's, which would be empty where the data set has fewer prompts than a generation batch."""
        require_a_batch(self.train_dataset, self.args)
        in_order = self._curriculum is None  # else it announces what comes next
        if self._reader is not None and in_order and not self.args.dataloader_num_workers:  # whose memory is their own
            self.data_collator = ReadingAhead(self._reader)
        return super().get_train_dataloader()

    def _get_train_sampler(self, dataset: Any = None) -> EpochSampler:
        """TRL's, but in an order that a resumed run finds again."""
        return EpochSampler(super()._get_train_sampler(dataset))

    def _tokenize_prompts(self, prompts: list[Any]) -> tuple[list[list[int]], Any, dict[str, Any]]:
        """Reads and encodes the files that prompts name; prompts that name none go TRL's way."""
        self._row_visuals, self._row_is_bad = None, [False] * len(prompts)
        if self._reader is None or self._has_pictures:
            return super()._tokenize_prompts(prompts)
        sources = [visual_sources(prompt) for prompt in prompts]
        rows = read_rows(self._reader, sources, self._row_names, skip_bad=self.args.bad_video == "skip")
        self._row_is_bad = [row is None for row in rows]
        prompts = [without_visuals(p) if bad else p for p, bad in zip(prompts, self._row_is_bad, strict=True)]
        processor = self._reader.processor
        visuals = self._row_visuals = inputs_at([row or () for row in rows], processor, self._draw_budget())
        if not any(sources):
            tokenized = super()._tokenize_prompts(prompts)
            self._row_prompts = tokenized[0]
            return tokenized
        template = {"chat_template": self.chat_template, **self.chat_template_kwargs}
        self._row_prompts = once_each(lambda prompt: tokenize_prompt(processor, prompt, **template), prompts)
        ids, fields = self._expanded(visuals)
        return ids, None, fields

    def _expanded(self, visuals: Sequence[tuple[VideoInput, ...]]) -> tuple[list[list[int]], dict[str, Any]]:
        """Token ids of the rows' prompts with what they show, and what the model takes beside them."""
        base = base_model(self.model)
        asked = [Prompt(tuple(ids), row) for ids, row in zip(self._row_prompts, visuals, strict=True)]
        ids = once_each(lambda prompt: prompt.expanded(base), asked)
        types = once_each(lambda row: token_types(torch.tensor(row), base).tolist(), ids)
        return ids, {"mm_token_type_ids": types, **grid_inputs(visuals)}

    def _generate_single_turn(self, *args: Any, **kwargs: Any) -> Any:
        """Answers as the assistant does: each video is encoded and each prompt read once for all its answers."""
        visuals = self._row_visuals
        if visuals is None:
            return super()._generate_single_turn(*args, **kwargs)
        model = self.accelerator.unwrap_model(self.model_wrapped)
        prompts = [Prompt(tuple(ids), row) for ids, row in zip(self._row_prompts, visuals, strict=True)]
        if self.use_vllm:
            self.vllm_generation.prompts, self.vllm_generation.seeds = prompts, self._seeds(len(prompts))
            return super()._generate_single_turn(*args, **kwargs)
        with torch.no_grad():
            features = self._encoded(self.model, visuals).features
        answers = partial(self._answers, base_model(model), prompts, features) if any(visuals) else model.generate
        if is_deepspeed_zero3_enabled() and self.args.ds3_gather_for_generation:
            answers = partial(alone, model, answers)
        with generating(model, answers):
            return super()._generate_single_turn(*args, **kwargs)

    def _seeds(self, rows: int) -> list[int]:
        """Seeds of the engine's answers to some rows: they follow from the run, the step, and what was drawn in it."""
        step, drawn = self.state.global_step, self._drawn_in_step
        self._drawn_in_step = (step, drawn[1] + 1) if drawn[0] == step else (step, 0)
        draw = random.Random(f"rollouts/{self.args.seed}/{self._drawn_in_step}/{self.accelerator.process_index}")
        return [draw.getrandbits(31) for _ in range(rows)]

    def _answers(
        self,
        model: Any,
        prompts: Sequence[Prompt],
        features: Any,
        *,
        input_ids: Tensor,
        generation_config: Any,
        synced_gpus: bool | None = None,
        **_: Any,
    ) -> Tensor:
        """What TRL expects of ``generate`` for its padded rows of prompts."""
        share = self.args.share_prompts and (self.args.ds3_gather_for_generation or not is_deepspeed_zero3_enabled())
        has_videos = any(each.kind == "video" for each in features)  # about which TRL has nothing to agree with
        draw = drawn_by_one_number(len(prompts)) if share and has_videos else None
        how = {"generation_config": generation_config, "synced_gpus": synced_gpus}
        outputs = complete(model, prompts, features=features, share=share, draw=draw, **how)
        completions = pad_rows(outputs, self._tokenizer.pad_token_id).to(input_ids.device)
        return torch.cat((input_ids, completions), 1)

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        """TRL's, with the answers to a prompt side by side within each optimizer step, where TRL shuffles them."""
        known = self._buffered_inputs
        inputs = super()._prepare_inputs(generation_batch)
        if not self.model.training:
            return inputs
        of_its_batch = self.loss_type in OF_THE_MICRO_BATCH or self.top_entropy_quantile < 1  # a batch's own threshold
        if self._buffered_inputs is not known and not of_its_batch:
            self._buffered_inputs = answers_together(self._buffered_inputs, self.args.gradient_accumulation_steps)
        number = self._step % self.args.steps_per_generation
        if self._step_encodings.is_open:
            after = self._buffered_inputs[number + 1 :]
            self._step_encodings.next_batch(after, self.current_gradient_accumulation_steps)
        return self._buffered_inputs[number]

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """Scores the answers to some rows, or in training to those that are drawn in their place."""
        return self._draw_and_score(inputs)

    def _scored(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """Carries each row's videos along; weights advantages by retention, adds what brevity is worth."""
        self._row_names = [str(row.get("problem_id", "?")) for row in inputs]
        self._has_pictures = not {"image", "images"}.isdisjoint(inputs[0])
        self._advantage_weights = None
        output = super()._generate_and_score_completions(inputs)
        own = slice(self.accelerator.process_index * len(inputs), None)
        if self._row_visuals is not None:
            output["visuals"], output["budgets"] = self._row_visuals, [self._budget] * len(inputs)
            output["completion_mask"][torch.tensor(self._row_is_bad)] = 0
            output["num_items_in_batch"] = self.accelerator.gather(output["completion_mask"].sum()).sum()
        if self._advantage_weights is not None:
            output["advantages"] = output["advantages"] * self._advantage_weights[own][: len(inputs)]
        if any(self._row_visuals or ()):
            output["advantages"] = output["advantages"].masked_fill(self._equally_rewarded[own][: len(inputs)], 0)
        if self._brevity is not None:
            output["advantages"] = output["advantages"] + self._brevity[own][: len(inputs)]
        output["advantages"] = output["advantages"] * self.args.reward_coef
        if self.args.distill_coef > 0:
            output["teacher_states"] = self._teacher_states(output)
        return output

    def _teacher_states(self, output: dict[str, Any]) -> Tensor:
        """The full-frame teacher's hidden states ``[B, C, D]`` for the student's tokens of a generation batch."""
        if self._has_pictures:
            raise ValueError(
                "distill_coef needs pictures that the prompt names as files; the teacher cannot see those in the "
                "columns 'image' and 'images'"
            )
        prompts, visuals = self._row_prompts, self._row_visuals
        if visuals is None:
            ids, present = output["prompt_ids"], output["prompt_mask"].bool()
            prompts, visuals = [row[mask].tolist() for row, mask in zip(ids, present, strict=True)], [()] * len(ids)
        completions = output["completion_ids"], output["completion_mask"]
        size = self.args.per_device_train_batch_size
        return completion_states(self, self._teacher, prompts, visuals, *completions, batch_size=size)

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        """As TRL's, with the videos of these rows; plus the distillation loss (`marc.training.distill`)."""
        self._row_visuals = inputs.get("visuals")
        self._budget = inputs["budgets"][0] if self._row_visuals else None
        try:
            self._begin_pass(model, inputs)
            return self._loss(model, inputs)
        finally:
            self._end_pass()

    def _loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        """Of the pass that was begun."""
        if "teacher_states" not in inputs:
            return super()._compute_loss(model, inputs)
        policy = base_model(self.accelerator.unwrap_model(model))
        with last_hidden_states(policy.model) as states:
            loss = super()._compute_loss(model, inputs)
        mask = inputs["completion_mask"]
        kl_BC = completion_kl(
            self._predicting(states[0], mask.shape[1]),
            inputs["teacher_states"],
            mask,
            (policy.lm_head, base_model(self._teacher.model).lm_head),
            temperature=self.temperature,
            parts=math.ceil(len(mask) * self.max_completion_length / POSITIONS_AT_A_TIME),
        )
        sums = self.accelerator.reduce(torch.stack([kl_BC.detach().sum(), mask.sum()]))
        self._log("distill/kl", (sums[0] / sums[1].clamp(min=1)).item())
        return loss + self.args.distill_coef * kl_BC.sum() / self._tokens_of_a_step(inputs)

    def _tokens_of_a_step(self, inputs: dict[str, Any]) -> Tensor:
        """Completion tokens of an optimizer step on each process: what TRL divides its token-level losses by."""
        tokens: Tensor = inputs["num_items_in_batch"].clamp(min=1.0) / self.accelerator.num_processes
        if not self.model.training:
            return tokens
        return tokens * self.current_gradient_accumulation_steps / self.args.steps_per_generation

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any) -> Tensor:
        """TRL's gathered rewards ``[N, F]`` with the retention column filled in; skipped rows become NaN."""
        rewards_NF: Tensor = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        device = rewards_NF.device
        bad_N = gather(torch.tensor(self._row_is_bad or [False] * len(prompts), device=device))
        rewards_NF[bad_N] = torch.nan
        self._log("bad_videos", bad_N.float().sum().item())
        group_size = self.num_generations if self.model.training else self.num_generations_eval
        if self._has_temporal:
            self._add_temporal(rewards_NF, inputs, group_size)
        if self._has_retention:
            self._add_retention(rewards_NF, inputs, group_size)
        self._equally_rewarded = equally_rewarded(rewards_NF, group_size)
        if self.args.length_coef > 0:
            self._reward_brevity(rewards_NF[:, self._accuracy_column], completion_ids_list, group_size)
        if self.model.training:
            self._take_note(rewards_NF)
        return rewards_NF

    def _reward_brevity(self, accuracies_N: Tensor, completion_ids: Sequence[Sequence[int]], group_size: int) -> None:
        """Keeps what the length of each answer adds to its advantage."""
        lengths_N = gather(torch.tensor([len(ids) for ids in completion_ids], device=accuracies_N.device))
        gains_N = group_brevity(accuracies_N, lengths_N, group_size, self.args.correct_above)
        self._brevity = self.args.length_coef * gains_N
        self._log("length/advantage", self._brevity.abs().mean().item())
        self._log("length/groups", (gains_N.view(-1, group_size) != 0).any(1).float().mean().item())

    def _add_temporal(self, rewards_NF: Tensor, inputs: Sequence[dict[str, Any]], group_size: int) -> None:
        """Fills in the temporal column; in evaluation, where nothing is asked about shuffled videos, there is none."""
        column = -2 if self._has_retention else -1
        own = self._shuffled_accuracies(inputs) if self.model.training else [torch.nan] * len(inputs)
        shuffled_N = gather(torch.tensor(own, dtype=torch.float32, device=rewards_NF.device))
        accuracies_N = rewards_NF[:, self._accuracy_column]
        rewards_NF[:, column] = group_temporal(accuracies_N, shuffled_N, group_size, self.args.temporal)
        if self.model.training:
            self._log("temporal/shuffled_accuracy", shuffled_N.nanmean().item())
            self._log("temporal/reward", rewards_NF[:, column].nanmean().item())

    def _shuffled_accuracies(self, inputs: Sequence[dict[str, Any]]) -> list[float]:
        """Mean accuracy of half as many answers about each row's video, its grids in a drawn order; NaN without one.

        A process that has no video answers once about its first row, for the others' sake.
        """
        size, shuffled = self.num_generations, [torch.nan] * len(inputs)
        visuals, prompts = self._row_visuals or [()] * len(inputs), self._row_prompts
        firsts = [row for row in range(0, len(inputs), size) if any(each.kind == "video" for each in visuals[row])]
        if not gather(torch.tensor([len(firsts)], device=self.accelerator.device)).any() or self._row_visuals is None:
            return shuffled
        rows = [row for row in firsts or [0] for _ in range(max(1, size // 2))]
        shown = once_each(lambda row: self._shuffled(visuals[row], self._row_names[row]), rows)
        self._row_visuals, self._row_prompts = shown, [prompts[row] for row in rows]
        try:
            ids, fields = self._expanded(shown)
            said, *_ = self._generate_single_turn(ids, None, fields, size)
        finally:
            self._row_visuals, self._row_prompts = visuals, prompts
        texts = self._tokenizer.batch_decode(said, skip_special_tokens=True)
        gold = ([inputs[row][name] for row in rows] for name in ("solution", "problem_type"))
        accuracies = torch.tensor(accuracy_reward(texts, *gold)).view(-1, max(1, size // 2)).mean(1).tolist()
        for first, accuracy in zip(firsts, accuracies, strict=False):
            shuffled[first : first + size] = [accuracy] * size
        return shuffled

    def _shuffled(self, shown: tuple[VideoInput, ...], name: str) -> tuple[VideoInput, ...]:
        """What a row shows, each video with its temporal grids in an order that follows from the step and the row."""
        assert self._reader is not None and self._budget is not None
        draw = f"{self.args.seed}/{self.state.global_step}/{name}"
        patches = [[shuffled_grids(each.patches, draw) for each in shown]]
        (row,) = inputs_at(patches, self._reader.processor, self._budget)
        return row

    def _add_retention(self, rewards_NF: Tensor, inputs: Any, group_size: int) -> None:
        """Fills in the retention column, or keeps the weights that it gives advantages."""
        device = rewards_NF.device
        a_full_N = gather(torch.tensor(self._a_full(inputs), dtype=torch.float32, device=device))
        accuracies_N = rewards_NF[:, self._accuracy_column]
        terms_N, ratios = group_retention(accuracies_N, a_full_N, group_size, self.args.retention)
        self._log_retention(rewards_NF, terms_N, ratios, group_size)
        if self.args.retention_form == "reward":
            rewards_NF[:, -1] = terms_N
        else:
            rewards_NF[:, -1] = torch.nan
            bonus_B = terms_N.nan_to_num(0).view(-1, group_size).amax(1)
            self._advantage_weights = 1 + bonus_B.repeat_interleave(group_size)
            self._log("retention/advantage_weight", self._advantage_weights.mean().item())

    def _a_full(self, inputs: Sequence[dict[str, Any]]) -> list[float]:
        """The teacher's accuracy on each row, from its column or asked now; NaN for rows without a video."""
        known = [row.get("a_full") if self._grader is None else None for row in inputs]
        if self._grader is not None:
            asked = [
                index
                for index, row in enumerate(inputs)
                if not self._row_is_bad[index] and any(each.kind == "video" for each in visual_sources(row["prompt"]))
            ]
            size = self.args.per_device_train_batch_size  # so many prompts at once, as in rollouts
            with self._teacher.whole():
                for some in (asked[start : start + size] for start in range(0, len(asked), size)):
                    for index, value in zip(some, self._grader.accuracies([inputs[i] for i in some]), strict=True):
                        known[index] = value
        return [torch.nan if value is None else value for value in known]

    def _make_grader(self) -> TeacherGrader | None:
        if self.args.teacher == "column":
            return None
        assert self._reader is not None
        policy = base_model(self.accelerator.unwrap_model(self.model))
        named = self.args.teacher_model not in ("initial", "self")
        return TeacherGrader(
            partial(self._teacher.engine, self.processing_class),
            self._reader,
            TeacherOptions(self.args.teacher_samples, self.max_completion_length, self.temperature),
            TeacherCache(self.args.teacher_cache or Path(self.args.output_dir) / "teacher", self.args.process_index),
            model_fingerprint(base_model(self._teacher.model) if named else policy),
        )

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As TRL's, with readable prompts in the table of completions."""
        if self._reader is not None and not self._has_pictures:
            prompts = self._logs["prompt"]
            self._logs["prompt"] = type(prompts)(map(readable, prompts), maxlen=prompts.maxlen)
        super().log(logs, start_time)

    def _log_retention(self, rewards_NF: Tensor, terms_N: Tensor, ratios: Tensor, group_size: int) -> None:
        """Logs what the retention term does, including what normalisation leaves of it."""
        weights = self.reward_weights.to(rewards_NF.device)
        without_N = (rewards_NF[:, :-1] * weights[:-1]).nansum(1)
        with_N = without_N + weights[-1] * terms_N.nan_to_num(0)
        self._log("retention/eta", ratios.nanmean().item())
        self._log("retention/reward", terms_N.nanmean().item())
        self._log(
            "retention/active_groups", (terms_N.nan_to_num(0).view(-1, group_size) > 0).any(1).float().mean().item()
        )
        self._log("groups/zero_variance", zero_variance_fraction(without_N, group_size))
        if group_size > 1 and self.args.retention_form == "reward":
            advantages = partial(group_advantages, group_size=group_size, scale=self.scale_rewards)
            change = (advantages(with_N) - advantages(without_N)).abs().mean()
            self._log("retention/advantage_change", change.item())


def once_each(function: Callable[[_Item], _Result], items: Sequence[_Item]) -> list[_Result]:
    """A function's results for items, of which neighbours are often equal: then it is asked once."""
    results: list[_Result] = []
    for index, item in enumerate(items):
        results.append(results[-1] if index and item == items[index - 1] else function(item))
    return results
