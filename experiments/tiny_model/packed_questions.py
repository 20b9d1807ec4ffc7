"""Questions about videos of the bank as one sequence: tokens, targets, positions, and who sees whom.

A row is a question with the answer that it should get, as the chat template writes it. Rows about one video share its
tokens, and the sequence holds them once (`marc.inference.packing`). Positions are made here instead of by the model,
since no plan of a compression lays videos out as freely as the bank does.

Shapes: B videos, Q questions of a video, R rows of L places when padded, N tokens of the sequence, M of them
predicted, D features, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers.modeling_outputs import BaseModelOutputWithPooling

from experiments.tiny_model.bank import LaidOutVideo
from marc.inference.packing import Row, pack_rows
from marc.inference.prompts import end_of_visuals, expand_placeholders, pad_rows
from marc.model import CompressedProcessor, CompressedVLM
from marc.model.attention import attention
from marc.model.prefix_attention import PREFIX_ATTENTION, SharedPrefixes
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
    pairs = [(video, each) for video, some in zip(asked.shown, asked.questions, strict=True) for each in some]
    rows, labels, positions = [], [], []
    for video, question in pairs:
        visual = [model.config.video_token_id] * len(video.features)
        prompt = expand_placeholders(prompt_ids(processor, question, asked.style), [visual], model)
        said = completion_ids(processor, question, asked.style)
        visuals = end_of_visuals(prompt, model)
        rows.append(Row([*prompt, *said], visuals, video))
        labels.append([*[IGNORED] * (len(prompt) - 1), *said, IGNORED])
        positions.append(_positions(video, visuals, len(prompt), len(said), jump=asked.jump))
    ids_RL = pad_rows([row.ids for row in rows], 0)
    packed = pack_rows(rows, ids_RL.shape[1], ids_RL.device)
    labels_N = packed.choose(pad_rows(labels, IGNORED))[0]
    owners_N = packed.choose(torch.arange(len(rows))[:, None].expand_as(ids_RL))[0]
    predicting = (labels_N != IGNORED).nonzero().squeeze(1)
    return PackedQuestions(
        packed.choose(ids_RL),
        packed.choose(pad_sequence(positions, batch_first=True).permute(2, 0, 1)),
        packed.prefixes,
        tuple(pairs[leader][0].features for leader in packed.leaders),
        predicting,
        labels_N[predicting],
        owners_N[predicting],
    )


def _positions(video: LaidOutVideo, visuals: int, prompt: int, completion: int, *, jump: bool) -> Tensor:
    """Of a row, ``int64 [prompt + completion, 3]``.

    Args:
        video: What it shows.
        visuals: Where its visual tokens end.
        prompt: Where its prompt ends.
        completion: Length of the rest.
        jump: See `AskedVideos`.
    """
    start = visuals - len(video.positions)
    places = start + video.positions
    asked = int(places[:, 1:].max()) + 1 + torch.arange(prompt - visuals)
    last = max(int(asked[-1]), int(places.max())) if jump else int(asked[-1])
    text = torch.cat((asked, last + 1 + torch.arange(completion)))
    return torch.cat((torch.arange(start)[:, None].expand(-1, 3), places, text[:, None].expand(-1, 3)))


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
