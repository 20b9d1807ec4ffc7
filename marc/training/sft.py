"""Supervised training of the compressed student: TRL's SFT on videos, the loss on the completion alone.

What is changed, and where: the data collator reads the files that prompts name, and `compute_loss` draws the step's
budget, encodes each distinct video once for all questions about it, and hands both to TRL's: a row for each question,
or with ``pack_questions`` one sequence in which the language model reads each video once, too.

An item of the data set is a video (or image, or text) with one or more questions (`marc.training.to_supervised`), so
``per_device_train_batch_size`` counts videos.

    bash training_script/run_sft_video.sh
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from trl import SFTTrainer

from marc.inference.packing import Row, pack_rows, use_prefix_attention
from marc.inference.prompts import end_of_visuals, expand_placeholders, pad_rows
from marc.inference.video_input import VideoInput, VisualPatches, grid_inputs, inputs_at
from marc.model import CompressedProcessor, CompressedVLM
from marc.model.modeling import token_types
from marc.training.checks import check_video_options, reject_long, rows_of
from marc.training.config import VideoSFTConfig
from marc.training.inputs import tokenize_prompt, visual_sources, without_visuals
from marc.training.reader import VisualReader, read_rows
from marc.training.video_trainer import VideoTrainer, base_model, make_reader
from marc.video.sources import FrameSource

IGNORED = -100


@dataclass(frozen=True)
class Question:
    """A row, read and tokenised.

    Attributes:
        prompt: Token ids, with one placeholder for each video or image.
        completion: Token ids, the end of the turn included.
        visuals: The videos and images.
        bad: One of its files could not be read: it stays in the batch without them and without a loss.
    """

    prompt: list[int]
    completion: list[int]
    visuals: tuple[VisualPatches, ...]
    bad: bool


@dataclass(frozen=True)
class QuestionCollator:
    """Reads and tokenises the questions of some items; what depends on the budget is left to the trainer."""

    reader: VisualReader
    skip_bad: bool

    def __call__(self, items: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Returns ``questions``, and ``labels`` from which transformers counts the tokens of a loss."""
        rows = [row for item in items for row in item["questions"]]
        sources = [visual_sources(row["prompt"]) for row in rows]
        visuals = read_rows(self.reader, sources, [row["problem_id"] for row in rows], skip_bad=self.skip_bad)
        questions = [self._question(row, seen) for row, seen in zip(rows, visuals, strict=True)]
        return {
            "questions": questions,
            "labels": pad_rows([[IGNORED, *_targets(question)] for question in questions], IGNORED),
        }

    def _question(self, row: dict[str, Any], visuals: tuple[VisualPatches, ...] | None) -> Question:
        processor = self.reader.processor
        prompt = row["prompt"] if visuals is not None else without_visuals(row["prompt"])
        ids = tokenize_prompt(processor, prompt)
        return Question(ids, completion_ids(processor, row["completion"]), visuals or (), visuals is None)


class VideoSFTTrainer(VideoTrainer, SFTTrainer):
    """Supervised training on rows that may name videos.

    Args:
        model: A `CompressedVLM`, or one in PEFT's wrapper.
        args: The options.
        train_dataset: From `marc.training.to_supervised`: a column ``questions`` of lists of ``prompt`` (a chat that
            names files), ``completion`` (text) and ``problem_id``.
        eval_dataset: Likewise; with ``eval_budgets`` rows of `marc.training.to_dataset`.
        processing_class: A `CompressedProcessor` with the model's compression.
        frames: Where the videos that prompts name come from; by default they are files.
        **kwargs: As in TRL.

    Raises:
        ValueError: If the options, the model and the data do not fit, or a row is longer than ``max_length``.
    """

    _tag_names = ["trl", "sft", "marc"]  # noqa: RUF012  (TRL's type)

    def __init__(
        self,
        model: Any,
        args: VideoSFTConfig | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        frames: FrameSource | None = None,
        **kwargs: Any,
    ) -> None:
        args = args or VideoSFTConfig("sft")
        if not isinstance(args, VideoSFTConfig):
            raise ValueError(f"args must be a VideoSFTConfig, got {type(args).__name__}")
        if not isinstance(base_model(model), CompressedVLM):
            raise ValueError(f"model must be a CompressedVLM, got {type(model).__name__}")
        check_video_options(model, processing_class, args, kwargs.get("peft_config"))
        if args.pack_questions:
            use_prefix_attention(base_model(model))
        self._reader = make_reader(processing_class, args, frames)
        assert self._reader is not None
        if args.freeze_tower:
            base_model(model).model.visual.requires_grad_(False)
        if args.max_length is not None:
            rows = (
                (row["problem_id"], row["prompt"], len(completion_ids(processing_class, row["completion"])))
                for item in rows_of(train_dataset, None if args.eval_budgets else eval_dataset)
                for row in item["questions"]
            )
            reject_long(self._reader, rows, args, limit=("max_length", args.max_length))
        super().__init__(
            model=model,
            args=args,
            data_collator=QuestionCollator(self._reader, args.bad_video == "skip"),
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            **kwargs,
        )

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """TRL's, on these questions at the step's budget."""
        questions: list[Question] = inputs["questions"]
        shown = inputs_at([question.visuals for question in questions], self.processing_class, self._draw_budget())
        bad = torch.tensor(sum(question.bad for question in questions), device=self.accelerator.device)
        self._log("bad_videos", float(self.accelerator.reduce(bad)))
        batch = self._batch(model, questions, shown)
        with self._at_budget_of(model, shown):
            return super().compute_loss(model, batch, return_outputs, num_items_in_batch)

    def _batch(
        self, model: Any, questions: Sequence[Question], shown: Sequence[Sequence[VideoInput]]
    ) -> dict[str, Any]:
        base = base_model(self.model)
        prompts = [
            expand_placeholders(question.prompt, [each.ids for each in row], base)
            for question, row in zip(questions, shown, strict=True)
        ]
        rows = [prompt + question.completion for prompt, question in zip(prompts, questions, strict=True)]
        labels = [
            [IGNORED] * len(prompt) + _targets(question) for prompt, question in zip(prompts, questions, strict=True)
        ]
        batch = {
            "input_ids": pad_rows(rows, self._tokenizer.pad_token_id),
            "attention_mask": pad_rows([[1] * len(row) for row in rows], 0),
            "labels": pad_rows(labels, IGNORED),
        }
        batch = {name: value.to(self.accelerator.device) for name, value in batch.items()}
        if self.args.pack_questions:
            return self._packed(model, batch, rows, shown)
        return {**batch, **self._visual_inputs(model, batch["input_ids"], shown)}

    def _packed(
        self,
        model: Any,
        batch: dict[str, Tensor],
        rows: Sequence[Sequence[int]],
        shown: Sequence[Sequence[VideoInput]],
    ) -> dict[str, Any]:
        """The rows of a padded batch as one sequence."""
        base = base_model(self.model)
        parts = [Row(ids, max(1, end_of_visuals(ids, base)), tuple(row)) for ids, row in zip(rows, shown, strict=True)]
        packed = pack_rows(parts, batch["input_ids"].shape[1], self.accelerator.device)
        chosen = {name: packed.choose(value) for name, value in batch.items()}
        visuals = self._visual_inputs(model, chosen["input_ids"], [shown[row] for row in packed.leaders])
        positions = self._positions(model, batch, shown)  # they may follow from what was encoded
        return {
            **chosen,
            **visuals,
            "position_ids": packed.choose(positions),
            "shared_prefixes": packed.prefixes,
        }

    def _positions(self, model: Any, batch: dict[str, Tensor], shown: Sequence[Sequence[VideoInput]]) -> Tensor:
        """M-RoPE positions of every token, each row read by itself: ``int64 [3, Q, L]``."""
        base = base_model(self.model)
        with self._at_budget_of(model, shown):
            positions, _ = base.model.get_rope_index(
                batch["input_ids"],
                token_types(batch["input_ids"], base),
                attention_mask=batch["attention_mask"],
                **grid_inputs(shown),
            )
        return positions


def completion_ids(processor: CompressedProcessor, completion: str) -> list[int]:
    """Token ids of what the model is to say, the end of its turn included."""
    ids: list[int] = processor.tokenizer(completion, add_special_tokens=False)["input_ids"]
    return [*ids, processor.tokenizer.eos_token_id]


def _targets(question: Question) -> list[int]:
    return [IGNORED] * len(question.completion) if question.bad else question.completion
