"""The arena's model: a Qwen2.5-VL of about a million parameters that can look things up before it is trained.

As in `experiments.tiny_model.initialisation` attention is mimetic and the tower speaks in words: of a cell it says the
sum of the embeddings of the words for what is there. What is new is that a description has several words, "teal
striped star", and that one of them is not enough. Two things let a model learn that:

- **All heads of the first layer look at the last four tokens**, so that the token behind a description resembles the
  cell that it describes from the start.
- **Embeddings are large and learning rates small.** At rates that suit the embedded model, the first layer soon adds
  seventy times what embeddings of its size are, and what was laid out in them is lost: the model learns to find a
  star, and not to mind whose.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from experiments.arena.settings import ArenaSettings
from experiments.arena.tower import HEADS, CellWords, draw_grids, encode, sure_cells
from experiments.tiny_model.initialisation import (
    INDUCTION,
    induce,
    initialise_attention,
    initialise_embeddings,
    initialise_tower,
    look_at_phrase,
    look_back,
    map_to_words,
)
from experiments.tiny_model.tower import colours_of, mergers
from marc.compression import CompressionConfig
from marc.model import CompressedProcessor, CompressedVLM
from marc.model.loading import load_model
from marc.model.qwen2_5_vl.modeling import MarcForConditionalGeneration
from marc.model.tiny import build_config, build_processor
from marc.world.arena.scenes import MOST_GRIDS, ArenaVideo
from marc.world.vocabulary import build_world_tokenizer

FILLER, FILLING = "<|vision_pad|>", 2.0
"""What the tower says of a cell that holds nothing, and how loud. Tokens are normalised: without it the two words of
a scene alone would match a question about a sign there better than the sign's five, of which three match."""
SPOKEN: Mapping[str, Mapping[str, str]] = {
    "thing": {"none": FILLER, "actor": "object", "sign": "sign", "star": "star", "button": "button", "plate": FILLER},
    "light": {"going on": "light"},
}
"""Words for the answers of `HEADS` that are not words themselves; the rest of these two is not spoken of."""
FIT_CELLS, CHECKED_CELLS = 60_000, 2_000
LARGER = 5.0
"""How many times as large as those of the embedded model the embeddings begin."""
SPOKEN_SIZE = 1.4
"""How many times as large as a word's embedding it is in what the tower says."""
PHRASE_COPY = 0.2
"""How much of the phrase before it a token takes over, for embeddings that are not larger."""


def build_arena_model(settings: ArenaSettings) -> tuple[CompressedVLM, CompressedProcessor]:
    """The model as it is before its tower is trained, and its processor, for frames of 8 x 16 cells at most."""
    tokenizer = build_world_tokenizer(level="arena")
    known, _ = load_model("tiny", device="cpu")
    compression = CompressionConfig(layout="details")
    config = build_config(tokenizer, compression)
    config.prompt_style, config.text_after_video = "video-r1", known.config.text_after_video
    config.embedder = "tiny"  # knows generated videos only, and says so
    text = config.text_config
    for name in ("num_key_value_heads", "rope_parameters"):
        setattr(text, name, getattr(known.config.text_config, name))
    largest = ArenaVideo("", (), ())
    text.max_position_embeddings = 2 * MOST_GRIDS * largest.rows * largest.columns
    text.num_hidden_layers, text.layer_types = settings.layers, ["full_attention"] * settings.layers
    config.vision_config.depth = settings.tower_blocks
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        model: CompressedVLM = MarcForConditionalGeneration(config)
        if settings.tower_blocks == known.config.vision_config.depth:
            model.model.visual.load_state_dict(known.model.visual.state_dict())
        else:
            initialise_tower(model.model.visual)
        last = model.model.visual.merger.mlp[-1]
        nn.init.normal_(last.weight, std=last.in_features**-0.5)
        _initialise_language_model(model.model.language_model, tokenizer)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    height, width = largest.size
    return model, build_processor(tokenizer, compression, max_pixels=height * width)


@torch.no_grad()
def _initialise_language_model(text: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    initialise_embeddings(text.embed_tokens.weight, tokenizer)
    text.embed_tokens.weight *= LARGER
    text.norm.weight.fill_(1 / LARGER)  # embeddings are the words' logits, too
    attentions, frequencies = [layer.self_attn for layer in text.layers], text.rotary_emb.inv_freq
    for attention in attentions:
        initialise_attention(attention)
    look_at_phrase(attentions[0], frequencies, copy=PHRASE_COPY * LARGER)
    for head, distance in ((-2, 1), (-1, 2)):
        look_back(attentions[INDUCTION - 1], frequencies, distance=distance, head=head)
    induce(attentions[INDUCTION - 1], attentions[INDUCTION])


def spoken_words(tokenizer: PreTrainedTokenizerBase) -> dict[str, list[int | None]]:
    """The token of every answer of every head, or ``None`` where the tower says nothing."""
    ids: dict[str, list[int | None]] = {}
    for head, answers in HEADS.items():
        words = SPOKEN.get(head, {answer: answer for answer in answers})
        ids[head] = [_token(tokenizer, words.get(answer)) for answer in answers]
    return ids


def _token(tokenizer: PreTrainedTokenizerBase, word: str | None) -> int | None:
    if word is None:
        return None
    if word == FILLER:
        return int(tokenizer.convert_tokens_to_ids(word))
    found = tokenizer(word if word.isdigit() else f" {word}", add_special_tokens=False)["input_ids"]
    assert len(found) == 1, f"{word} is not one token"
    return int(found[0])


@torch.no_grad()
def words_of_cells(model: CompressedVLM, processor: CompressedProcessor) -> CellWords:
    """What the tower should say: of every answer its word's embedding in the untrained model, but not as large yet."""
    table = model.model.language_model.embed_tokens.weight * (SPOKEN_SIZE / LARGER)
    table[_token(processor.tokenizer, FILLER)] *= FILLING
    silent = torch.zeros(table.shape[1])
    spoken = spoken_words(processor.tokenizer)
    return CellWords(
        {
            head: torch.stack([silent if index is None else table[index] for index in ids])
            for head, ids in spoken.items()
        }
    )


@torch.no_grad()
def unsaid(model: CompressedVLM, processor: CompressedProcessor, words: CellWords) -> float:
    """The share of the words' variance that a trained model's tower leaves out; above 1 where it says others."""
    grids = draw_grids(np.random.default_rng(0), CHECKED_CELLS)
    tokens = encode(model.model.visual, grids.frames, colours_of(processor)) / LARGER
    if tokens.shape[-1] != words.vectors[0].shape[-1]:
        return 1.0
    return float(words(tokens, grids.labels)[0])


@torch.no_grad()
def speak_up(model: CompressedVLM) -> None:
    """Make what the trained tower says as large as the language model's embeddings."""
    last = model.model.visual.merger.mlp[-1]
    last.weight *= LARGER
    last.bias *= LARGER


@torch.no_grad()
def speak_in_words(model: CompressedVLM, processor: CompressedProcessor, words: CellWords, *, seed: int) -> float:
    """Replace the last layer of the trained tower by its least-squares map to the words for what is in each cell.

    Args:
        model: Its tower is trained.
        processor: Of the model.
        words: See `words_of_cells`.
        seed: Draws the grids on which the map is fitted.

    Returns:
        The share of the words' variance that it leaves unexplained.
    """
    tower, colours = model.model.visual, colours_of(processor)
    tokens: list[Tensor] = []
    targets: list[Tensor] = []
    rng = np.random.default_rng((seed, 1))
    while sum(len(some) for some in tokens) < FIT_CELLS:
        grids = draw_grids(rng, 1024)
        sure = sure_cells(grids.labels)
        tokens.append(encode(tower, grids.frames, colours)[sure])
        targets.append(words.targets(grids.labels)[sure])
    seen, said = torch.cat(tokens)[:, None], torch.cat(targets)[:, None]
    return map_to_words(mergers(tower)[0], seen, said, float(said.square().mean().sqrt()))
