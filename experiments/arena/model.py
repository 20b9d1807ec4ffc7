"""The arena's model: a Qwen2.5-VL of about a million parameters that begins as the embedded model.

The embedded model already looks things up, goes through scenes one by one, counts and finds the letter of an option;
what it does not know is the arena's words, so much to look through, and conjunctions such as "teal striped". Its
weights are taken over, those of its tower but for the last layer, too. The tower is made to say of a cell what the
embedded model's tower said: the sum of the embeddings, as they were before training, of the words for what is there.

Its heads pass on the words that they know, and no others, so that letters and digits are hardly learnt from them. More
layers stand above, whose attention is mimetic (`experiments.tiny_model.initialisation`): it finds what is alike and
passes on all words alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from experiments.arena.settings import ArenaSettings
from experiments.arena.tower import HEADS, CellWords, draw_grids, encode, sure_cells
from experiments.tiny_model.initialisation import (
    SPACE,
    build_world_model,
    initialise_attention,
    initialise_embeddings,
    map_to_words,
    take_over,
    word_embeddings,
)
from experiments.tiny_model.recipe import TrainSettings
from experiments.tiny_model.tower import colours_of, encode_grids, grids_to_patches, mergers, random_grids
from marc.model import CompressedProcessor, CompressedVLM
from marc.model.loading import load_model
from marc.model.qwen2_5_vl.modeling import MarcForConditionalGeneration
from marc.model.tiny import build_config, build_processor
from marc.world.arena.scenes import ArenaVideo
from marc.world.scenes import BACKGROUNDS, COLOURS, DIRECTIONS, SHAPES
from marc.world.vocabulary import build_world_tokenizer

FILLER, FILLING = "<|vision_pad|>", 2.0
"""What the tower says of a cell that holds nothing, and how loud. Tokens are normalised: without it the two words of
a scene alone would match a question about a sign there better than the sign's five, of which three match."""
SPOKEN: Mapping[str, Mapping[str, str]] = {
    "thing": {"none": FILLER, "actor": "object", "sign": "sign", "star": "star", "button": "button", "plate": FILLER},
    "light": {"going on": "light"},
}
"""Words for the answers of `HEADS` that are not words themselves; the rest of these two is not spoken of."""
FIT_CELLS = 60_000
LEARNT = 0.5
"""Cosine of a word's embedding before and after the embedded model's training; below, it only drifted."""
NEW_WORDS = 1
"""Added to the seed: with its own, the embeddings of new words would be those of other known ones."""


def build_arena_model(settings: ArenaSettings) -> tuple[CompressedVLM, CompressedProcessor]:
    """The model as it is before its tower is trained, and its processor, for frames of 8 x 16 cells at most."""
    tokenizer = build_world_tokenizer(level="arena")
    known, known_processor = load_model("tiny", device="cpu")
    config = build_config(tokenizer)
    config.prompt_style, config.text_after_video = "video-r1", known.config.text_after_video
    layers = known.config.text_config.num_hidden_layers + settings.more_layers
    for name in ("num_key_value_heads", "rope_parameters", "max_position_embeddings"):
        setattr(config.text_config, name, getattr(known.config.text_config, name))
    config.text_config.num_hidden_layers = layers
    config.text_config.layer_types = ["full_attention"] * layers
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        model: CompressedVLM = MarcForConditionalGeneration(config)
        model.model.visual.load_state_dict(known.model.visual.state_dict())
        last = model.model.visual.merger.mlp[-1]
        nn.init.normal_(last.weight, std=last.in_features**-0.5)
        for layer in model.model.language_model.layers[layers - settings.more_layers :]:
            initialise_attention(layer.self_attn)
            nn.init.zeros_(layer.mlp.down_proj.weight)
    _take_over_words(model, tokenizer, settings.seed, known, known_processor)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    height, width = ArenaVideo("", (), ()).size
    return model, build_processor(tokenizer, max_pixels=height * width)


@torch.no_grad()
def _take_over_words(
    model: CompressedVLM,
    tokenizer: PreTrainedTokenizerBase,
    seed: int,
    known: CompressedVLM,
    known_processor: CompressedProcessor,
) -> None:
    """All weights of the embedded model's language model; words that it did not learn are as large as those it did."""
    begun = _untrained_embeddings(tokenizer, seed)
    table = model.model.language_model.embed_tokens.weight
    text = model.model.language_model
    layers, text.layers = text.layers, text.layers[: len(known.model.language_model.layers)]
    take_over(model, build_processor(tokenizer), known, known_processor)
    text.layers = layers
    ours = tokenizer.get_vocab()
    words = [ours[f"{SPACE}{word}"] for word in (*BACKGROUNDS, *COLOURS, *SHAPES, *DIRECTIONS)]
    grown = (table[words].norm(dim=1) / begun[words].norm(dim=1)).mean()
    unlearnt = nn.functional.cosine_similarity(begun, table) < LEARNT
    unlearnt[[index for token, index in ours.items() if token not in known_processor.tokenizer.get_vocab()]] = True
    table[unlearnt] = grown * begun[unlearnt]


@torch.no_grad()
def _untrained_embeddings(tokenizer: PreTrainedTokenizerBase, seed: int) -> Tensor:
    """Embeddings as the recipe begins with: the embedded model's own for its words, alike random ones for others."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed + NEW_WORDS)
        table = torch.empty(len(tokenizer), 128)
        initialise_embeddings(table, tokenizer)
    begun, begun_processor = _embedded_before_training()
    theirs = begun.model.language_model.embed_tokens.weight
    their_ids = begun_processor.tokenizer.get_vocab()
    for token, index in tokenizer.get_vocab().items():
        if token in their_ids:
            table[index] = theirs[their_ids[token]]
    return table


@cache
def _embedded_before_training() -> tuple[CompressedVLM, CompressedProcessor]:
    return build_world_model(TrainSettings())


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
def words_of_cells(processor: CompressedProcessor, seed: int) -> CellWords:
    """What the tower should say: of every answer its word's untrained embedding, as large as the embedded model's."""
    table = _untrained_embeddings(processor.tokenizer, seed) * _scale_of_tower()
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


@cache
@torch.no_grad()
def _scale_of_tower() -> float:
    """How many times an untrained embedding the embedded model's tower says for a word."""
    known, processor = load_model("tiny", device="cpu")
    begun, begun_processor = _embedded_before_training()
    tables = word_embeddings(begun, begun_processor.tokenizer)
    grids = random_grids(2048, torch.Generator().manual_seed(0))
    moving = grids.labels[:, 3] >= 0
    labels = grids.labels[moving]
    words = torch.stack([table[labels[:, kind]] for kind, table in enumerate(tables)]).sum(0)
    tower: PreTrainedModel = known.model.visual
    said = encode_grids(tower, grids_to_patches(grids.frames[moving], colours_of(processor))).mean(1)
    return float((words * said).sum() / words.square().sum())
