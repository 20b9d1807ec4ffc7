"""Questions about videos of the bank as one sequence: tokens, targets, positions, and who sees whom.

A row is a question with the answer that it should get, as the chat template writes it. Rows about one video share its
tokens, and the sequence holds them once (`marc.inference.packing`). Where positions count seconds they are made here,
since no plan of a compression lays videos out as freely as the bank does; where the prompt says the times, a video is
what its blocks are, and the model numbers them.

Shapes: B videos, Q questions of a video, R rows of L places when padded, N tokens of the sequence, M of them
predicted, D features, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers.modeling_outputs import BaseModelOutputWithPooling

from experiments.tiny_model.bank import LaidOutVideo
from marc.compression.plan import VideoPlan
from marc.inference.packing import Row, pack_rows
from marc.inference.prompts import end_of_visuals, expand_placeholders, pad_rows
from marc.model import CompressedProcessor, CompressedVLM
from marc.model.attention import attention
from marc.model.modeling import PlannedGrid, token_types
from marc.model.prefix_attention import PREFIX_ATTENTION, SharedPrefixes
from marc.model.timestamps import TimestampedModel
from marc.world.questions import WorldQuestion
from marc.world.texts import completion_ids, prompt_ids

IGNORED = -100


@dataclass(frozen=True)
class AskedVideos:
    """B videos and the questions about them.

    Attributes:
        shown: Each video.
        questions: Q about each.
        style: Prompt style; Video-R1's asks for reasoning, so there the completion thinks first.
        jump: The completion continues after the largest position so far, as in transformers' own generation with a
            cache; otherwise right after the prompt, as in one forward pass and in ours. They differ only where the
            video's times reach beyond the prompt.
    """

    shown: list[LaidOutVideo]
    questions: list[list[WorldQuestion]]
    style: str
    jump: bool = False


@dataclass(frozen=True)
class PackedQuestions:
    """One sequence.

    Attributes:
        ids: Token ids, ``int64 [1, N]``.
        positions: M-RoPE positions, ``int64 [3, 1, N]``.
        prefixes: Who sees whom.
        features: Of each video's tokens, in the order in which the sequence holds them.
        predicting: The tokens after which one of a completion comes, ``int64 [M]``.
        targets: What comes, ``int64 [M]``.
        owners: Of which question, counted video by video, ``int64 [M]``.
    """

    ids: Tensor
    positions: Tensor
    prefixes: SharedPrefixes
    features: tuple[Tensor, ...]
    predicting: Tensor
    targets: Tensor
    owners: Tensor

    def per_question(self, values_M: Tensor) -> Tensor:
        """Sums of values over each question's targets, ``[R]``."""
        return values_M.new_zeros(int(self.owners.max()) + 1).index_add(0, self.owners, values_M)

    def right(self, logits_MV: Tensor) -> Tensor:
        """1 for questions all of whose targets are the likeliest tokens, 0 for others, ``float [R]``."""
        wrong_M = (logits_MV.argmax(-1) != self.targets).float()
        return (self.per_question(wrong_M) == 0).float()


def pack_questions(model: CompressedVLM, processor: CompressedProcessor, asked: AskedVideos) -> PackedQuestions:
    """Makes one sequence of all questions.

    Args:
        model: Whose placeholder stands for the visual tokens.
        processor: Of the model.
        asked: The questions.
    """
    rows, labels, positions, shown = [], [], [], []
    for video, some in zip(asked.shown, asked.questions, strict=True):
        visual = processor.video_ids(video.cells, processor.grid_seconds(video.frame_seconds))
        opening = None
        for question in some:
            prompt = expand_placeholders(prompt_ids(processor, question, asked.style), [visual], model)
            said = completion_ids(processor, question, asked.style)
            visuals = end_of_visuals(prompt, model)
            opening = opening or Opening.of(model, video, prompt[: visuals + 1])
            rows.append(Row([*prompt, *said], visuals, video))
            shown.append(video)
            labels.append([*[IGNORED] * (len(prompt) - 1), *said, IGNORED])
            positions.append(opening.followed_by(len(prompt) - visuals, len(said), jump=asked.jump))
    ids_RL = pad_rows([row.ids for row in rows], 0)
    packed = pack_rows(rows, ids_RL.shape[1], ids_RL.device)
    labels_N = packed.choose(pad_rows(labels, IGNORED))[0]
    owners_N = packed.choose(torch.arange(len(rows))[:, None].expand_as(ids_RL))[0]
    predicting = (labels_N != IGNORED).nonzero().squeeze(1)
    return PackedQuestions(
        packed.choose(ids_RL),
        packed.choose(pad_sequence(positions, batch_first=True).permute(2, 0, 1)),
        packed.prefixes,
        tuple(shown[leader].features for leader in packed.leaders),
        predicting,
        labels_N[predicting],
        owners_N[predicting],
    )


@dataclass(frozen=True)
class Opening:
    """Positions of what a prompt shows.

    Attributes:
        positions: Of all its tokens up to the last visual one, ``int64 [P, 3]``.
        after: Of the first token of text behind it.
    """

    positions: Tensor
    after: int

    @classmethod
    def of(cls, model: CompressedVLM, video: LaidOutVideo, ids: list[int]) -> Opening:
        """From a prompt up to the first token behind the last visual one."""
        if isinstance(model.model, TimestampedModel):
            row = torch.tensor([ids])
            positions, _ = model.model.get_rope_index(row, token_types(row, model), video_grid_thw=[_planned(video)])
            return cls(positions[:, 0, :-1].T, int(positions[0, 0, -1]))
        start = len(ids) - 1 - len(video.positions)
        places = start + video.positions
        before = torch.arange(start)[:, None].expand(-1, 3)
        return cls(torch.cat((before, places)), int(places[:, 1:].max()) + 1)

    def followed_by(self, prompt: int, completion: int, *, jump: bool) -> Tensor:
        """Of a row that goes on with so many tokens of prompt and completion, ``int64 [L, 3]``; see `AskedVideos`."""
        asked = self.after + torch.arange(prompt)
        last = max(int(asked[-1]), int(self.positions.max())) if jump else int(asked[-1])
        text = torch.cat((asked, last + 1 + torch.arange(completion)))
        return torch.cat((self.positions, text[:, None].expand(-1, 3)))


def _planned(video: LaidOutVideo) -> PlannedGrid:
    """A video as the model is told of it that writes times into the prompt: of the plan, it reads the cells."""
    plan = replace(VideoPlan.whole(len(video.cells), (1, 1)), cells=video.cells)
    return PlannedGrid(len(video.cells), 1, 1, plan, None)


def target_logits(model: CompressedVLM, packed: PackedQuestions) -> Tensor:
    """What the model predicts in place of each target, ``float32 [M, V]``."""
    with attention(model.model.language_model.config, PREFIX_ATTENTION):
        output = model(
            input_ids=packed.ids,
            attention_mask=torch.ones_like(packed.ids),
            position_ids=packed.positions,
            mm_encoder_outputs={"video": BaseModelOutputWithPooling(pooler_output=packed.features)},
            shared_prefixes=packed.prefixes,
            logits_to_keep=packed.predicting,
            use_cache=False,
        )
    logits: Tensor = output.logits
    return logits[0].float()
