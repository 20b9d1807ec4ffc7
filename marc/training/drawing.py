"""Which prompts a generation answers, and at which budget their videos are seen.

Left alone, prompts come in the data set's order and budgets from fixed shares. Beside that there are

- dynamic sampling: groups from which nothing would be learned make room for others (`marc.training.resampling`);
- a curriculum: prompts come up by how far the student is behind its teacher (`marc.training.curriculum`);
- a learned selection: budgets come up by what they brought (`marc.training.selection`).

What is drawn is the same in every process, and in a run that is resumed.

Shapes: N answers of all processes, F reward functions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from accelerate.utils import gather
from torch import Tensor

from marc.inference.video_input import VideoInput
from marc.training.budgets import BudgetMix
from marc.training.config import CGRPOConfig
from marc.training.curriculum import MarginCurriculum
from marc.training.inputs import visual_sources
from marc.training.resampling import joined, other_prompts, replacements
from marc.training.resume import Kept
from marc.training.selection import BudgetPolicy, video_tokens
from marc.training.video_trainer import VideoTrainer


class DrawingTrainer(VideoTrainer):
    """A `VideoTrainer` of groups of answers that chooses what they are about; mixed in before TRL's."""

    num_generations: int
    reward_weights: Tensor
    train_dataset: Any
    _accuracy_column: int | None
    _step: int
    _tokenizer: Any
    _curriculum: MarginCurriculum | None
    _selection: BudgetPolicy | None
    # Of the rows in hand:
    _row_names: list[str]
    _row_numbers: Sequence[int] = ()  # in the data set, where there is a curriculum
    _equally_rewarded: Tensor
    _brevity: Tensor | None = None
    _mean_reward = math.nan

    def _prepare_drawing(self, dataset: Any, args: CGRPOConfig) -> None:
        """Makes what learns what to draw."""
        self._curriculum = make_curriculum(dataset, args)
        learns = args.selection_rate > 0
        self._selection = BudgetPolicy(args.budget_mix, args.selection_rate, args.selection_cost) if learns else None

    def _scored(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """Answers to some rows with their advantages, the same number of calls in every process."""
        raise NotImplementedError

    def _draw_and_score(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """Scores the answers to some rows; in training what draws prompts and budgets learns from them."""
        if not self.model.training:
            return self._scored(inputs)
        if self._curriculum is not None:
            inputs = self._upcoming_rows(len(inputs))
            self._curriculum.begin()
        output = self._scored(inputs)
        shown, reward = output.get("visuals", ()), self._mean_reward
        if self.args.dynamic_sampling:
            output = self._with_others_drawn(output, len(inputs) // self.num_generations)
        if self._selection is not None:
            self._learn_selection(shown, reward)
        if self._curriculum is not None:
            self._log("curriculum/seen", self._curriculum.seen)
            if self._reader is not None:
                coming = self._upcoming_rows(len(inputs))
                self._reader.read_ahead(source for row in coming for source in visual_sources(row["prompt"]))
        return output

    def _with_others_drawn(self, output: dict[str, Any], asked: int) -> dict[str, Any]:
        """Has groups from which nothing would be learned make room for others."""
        if "visuals" not in output:
            raise ValueError("dynamic_sampling needs a compressed model, and pictures that prompts name as files")
        without = self._without_variance()
        self._log("groups/without_variance", self._equally_rewarded.float().mean().item())
        for attempt in range(self.args.dynamic_sampling):
            lacking = int(gather(torch.tensor([sum(without)], device=self.accelerator.device)).max())
            if not lacking:
                break
            asked += lacking
            fresh = self._scored(self._other_rows(lacking, attempt))
            rows = replacements(without, self._without_variance(), self.num_generations)
            output = joined(output, fresh, rows, self._tokenizer.pad_token_id)
            both = [*without, *self._without_variance()]
            without = [both[row // self.num_generations] for row in rows[:: self.num_generations]]
        output["num_items_in_batch"] = self.accelerator.gather(output["completion_mask"].sum()).sum()
        self._log("groups/drawn", asked * self.accelerator.num_processes)
        left = torch.tensor(without, dtype=torch.float32, device=self.accelerator.device)
        self._log("groups/without_variance_left", gather(left).mean().item())
        return output

    def _without_variance(self) -> list[bool]:
        """Which of this process's groups that were scored last were rewarded alike, and not told apart by length."""
        count, nothing_N = len(self._row_names), self._equally_rewarded
        if self._brevity is not None:
            nothing_N = nothing_N & (self._brevity == 0)
        own = nothing_N[self.accelerator.process_index * count :][:count]
        return own.view(-1, self.num_generations).all(1).tolist()

    def _other_rows(self, count: int, attempt: int) -> list[dict[str, Any]]:
        """Rows of prompts that are drawn instead of others, a group of each."""
        generation = self._step % self.args.gradient_accumulation_steps
        draw = (self.args.seed, self.state.global_step, generation, attempt, self.accelerator.process_index)
        if self._curriculum is None:
            numbers = other_prompts(len(self.train_dataset), count, *draw)
        else:
            numbers = self._curriculum.draw(count, *draw)
        return self._rows([number for number in numbers for _ in range(self.num_generations)])

    def _upcoming_rows(self, count: int) -> list[dict[str, Any]]:
        """This process's rows of the next generation, of which the curriculum draws the prompts for all."""
        assert self._curriculum is not None
        prompts = count * self.accelerator.num_processes // self.num_generations
        numbers = [number for number in self._curriculum.upcoming(prompts) for _ in range(self.num_generations)]
        return self._rows(numbers[self.accelerator.process_index * count :][:count])

    def _rows(self, numbers: list[int]) -> list[dict[str, Any]]:
        """Rows of the data set by number, which become those in hand."""
        self._row_numbers, rows = numbers, {number: self.train_dataset[number] for number in set(numbers)}
        return [rows[number] for number in numbers]

    @property
    def _budget_mix(self) -> BudgetMix:
        return super()._budget_mix if self._selection is None else self._selection.mix

    def _learns_beside(self) -> dict[str, Kept]:
        both = {"curriculum": self._curriculum, "selection": self._selection}
        return {name: kept for name, kept in both.items() if kept is not None}

    def _learn_selection(self, shown: Sequence[Sequence[VideoInput]], reward: float) -> None:
        """Tells the selection what the budget brought by which the videos of all processes were seen, if any was."""
        assert self._selection is not None
        counts = torch.tensor(video_tokens(shown), device=self.accelerator.device)
        read, before = gather(counts).view(-1, 2).sum(0).tolist()
        if not before or math.isnan(reward):
            return
        self._log("selection/tokens", read / before)
        self._log("selection/reward", self._selection.learn(self._budget_name, reward, read / before))
        for name, share in self._selection.mix.shares.items():
            self._log(f"selection/probability/{name}", share)

    def _take_note(self, rewards_NF: Tensor) -> None:
        """Keeps the mean reward of answers in training, and has the curriculum learn how each prompt was answered."""
        rewards_N = (rewards_NF * self.reward_weights.to(rewards_NF.device)).nansum(1)
        self._mean_reward = rewards_N[~rewards_NF.isnan().all(1)].mean().item()
        if self._curriculum is not None:
            numbers_N = gather(torch.tensor(self._row_numbers, device=rewards_NF.device))
            self._curriculum.learn(numbers_N.tolist(), rewards_NF[:, self._accuracy_column].tolist())


def make_curriculum(dataset: Any, args: CGRPOConfig) -> MarginCurriculum | None:
    """The curriculum over a data set's prompts, if there is to be one.

    Raises:
        ValueError: If the data set does not say what its teacher knows.
    """
    if not args.curriculum:
        return None
    names = getattr(dataset, "column_names", None)
    if not names or "a_full" not in names or not hasattr(dataset, "__len__"):
        raise ValueError("curriculum needs a data set with a column 'a_full'; `marc data teacher` writes it")
    return MarginCurriculum(dataset["a_full"], args.curriculum, args.seed)
