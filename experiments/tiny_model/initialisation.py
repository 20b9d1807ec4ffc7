"""The embedded model before its language model is trained: random weights that can already look things up.

Three things make associative look-up (find the token of the striped scene, say its colour) nearly free from the first
step, and cut the time to learn it by more than half:

- **Attention is mimetic** (Trockman and Kolter, "Mimetic Initialization of Self-Attention Layers", 2023): the query
  projection starts as the key projection, so a token attends to tokens that resemble it, and the output projection as
  the transposed value projection, so it copies what it attends to. In the first layers half of the heads look back by
  one or two tokens instead: without them, that "B" belongs to "red" in "B. red" was not found in 500 steps.
- **A word is nearly the same with and without a space before it**, as in a question and at the start of an answer.
- **The tower speaks in words**: the last layer of each of its streams is replaced by the least-squares map from what
  it knows about a grid to the sum of the language model's own embeddings of the words that describe it.

Looking back is written into the biases of queries and keys. A family without them, such as Qwen3-VL, begins from the
trained language model of another family instead (`take_over`); what does not fit is learnt again in a hundred steps.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from experiments.tiny_model.families import FAMILIES
from experiments.tiny_model.recipe import TrainSettings
from experiments.tiny_model.tower import colours_of, encode_grids, grids_to_patches, mergers, random_grids
from marc.model import CompressedProcessor, CompressedVLM
from marc.world.questions import plural
from marc.world.scenes import BACKGROUNDS, COLOURS, DIRECTIONS, SHAPES
from marc.world.vocabulary import build_world_tokenizer

EMBEDDING_STD = 0.1
TOKEN_SIZE = 0.3
"""Root mean square of a visual token; at 1, the layers hardly change it, and order is learnt late."""
SPACE = "\u0120"
"""How byte-level BPE writes a space."""
KEY_STD = 0.07
"""Of the mimetic keys: a token's logit on its like is then about 3.5 standard deviations above the others."""
FAINT_STD = 0.02
"""Of the projections of heads that look back, which content hardly moves."""
LOOKING_BACK = {0: 1, 1: 2}
"""The layers whose last head looks back, and by how many tokens."""
INDUCTION = 2
"""The layer whose last head finds what the layer before it has brought from two tokens back."""
MATCH = 1.5
"""Of the projections with which it does: the logit of a match is about 5."""
NEARBY = 4
"""Of the rotary frequencies, so many of the fastest ones tell a neighbour from the next."""
POSITION_SIZE = 5.5
"""Of the biases on them: the token at the right distance has a logit of 3 above its neighbours."""
PHRASE_MIDDLE = 2.5
"""Heads that look at a phrase look so many tokens back, and as far to both sides as to see four tokens."""
PHRASE_PAIRS = slice(1, 6)
"""On these rotary frequencies: they tell little between neighbours, and much between what is near and what is far."""
PHRASE_FALL = 3.5
"""How much lower than the nearest a token's logit is that is too far away, for each of these frequencies."""
COPY = 0.5
"""How much of what it attends to a token takes over in one layer."""
DEEP_SIZE = 2.0
"""As `TOKEN_SIZE`, of what DeepStack adds behind the first layers, which make about 9 of a token."""
NORM_SIZE = 2.2
"""Root mean square of the embedded model's queries and keys, and so the weight of norms that come to stand there."""


def build_world_model(settings: TrainSettings) -> tuple[CompressedVLM, CompressedProcessor]:
    """The tiny model with random weights and a tokenizer that knows the world's words."""
    family = FAMILIES[settings.family]
    tokenizer = build_world_tokenizer(family.words)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        config = family.build_config(tokenizer)
        config.prompt_style, config.embedder = "video-r1", "tiny"
        config.text_config.rope_parameters["rope_theta"] = settings.rope_theta
        config.text_config.num_hidden_layers = settings.layers
        config.text_config.num_key_value_heads = config.text_config.num_attention_heads
        config.text_config.layer_types = ["full_attention"] * settings.layers
        config.vision_config.depth = settings.tower_blocks or config.vision_config.depth
        model = family.build_model(config)
        torch.manual_seed(settings.seed)  # again, so that tower and embeddings do not depend on the number of layers
        initialise_embeddings(model.model.language_model.embed_tokens.weight, tokenizer)
        initialise_tower(model.model.visual)
        attentions = [layer.self_attn for layer in model.model.language_model.layers]
        for attention in attentions:
            initialise_attention(attention)
        if attentions[0].q_proj.bias is not None:
            for layer, distance in LOOKING_BACK.items():
                look_back(attentions[layer], model.model.language_model.rotary_emb.inv_freq, distance=distance)
            induce(attentions[INDUCTION - 1], attentions[INDUCTION])
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model, family.build_processor(tokenizer)


@torch.no_grad()
def initialise_tower(tower: nn.Module) -> None:
    """Random weights that keep the size of what they are given."""
    for weight in tower.parameters():
        if weight.ndim > 1:
            nn.init.normal_(weight, std=weight[0].numel() ** -0.5)


@torch.no_grad()
def initialise_embeddings(table: Tensor, tokenizer: PreTrainedTokenizerBase) -> None:
    """Random embeddings of size 0.1 in which a word resembles its forms: without a space, plural (cosine 0.8)."""
    nn.init.normal_(table, std=EMBEDDING_STD)
    vocabulary = tokenizer.get_vocab()
    forms = {token: f"{SPACE}{token}" for token in vocabulary} | {plural(f"{SPACE}{s}"): f"{SPACE}{s}" for s in SHAPES}
    for token, like in forms.items():
        if token in vocabulary and like in vocabulary:
            table[vocabulary[token]] = 0.8 * table[vocabulary[like]] + 0.6 * table[vocabulary[token]]


@torch.no_grad()
def initialise_attention(attention: Any) -> None:
    """Mimetic initialisation: ``W_q = W_k`` and ``W_o = W_v^T``, shared out over the heads of a group."""
    width, groups = attention.head_dim, attention.num_key_value_groups

    def for_every_head(weight: Tensor) -> Tensor:
        return weight.unflatten(0, (-1, width)).repeat_interleave(groups, dim=0).flatten(0, 1)

    nn.init.normal_(attention.k_proj.weight, std=KEY_STD)
    attention.q_proj.weight.copy_(for_every_head(attention.k_proj.weight))
    nn.init.orthogonal_(attention.v_proj.weight)
    attention.o_proj.weight.copy_(for_every_head(attention.v_proj.weight).T * (COPY / groups))
    for projection in (attention.q_proj, attention.k_proj, attention.v_proj):
        if projection.bias is not None:
            nn.init.zeros_(projection.bias)


@torch.no_grad()
def look_back(attention: Any, inverse_frequencies: Tensor, *, distance: int, head: int = -1) -> None:
    """Make a head look back by `distance` tokens instead of at what is alike.

    Args:
        attention: A layer's attention.
        inverse_frequencies: Of its rotary positions, ``[head_dim / 2]``.
        distance: In positions.
        head: Which one.
    """
    _look_at(attention, inverse_frequencies, distance, head=head, pairs=slice(NEARBY), size=POSITION_SIZE)


@torch.no_grad()
def look_at_phrase(attention: Any, inverse_frequencies: Tensor, *, copy: float) -> None:
    """Make all heads look at the last four tokens before, so that together they pass on all that these are.

    A head passes on a subspace of its own; one that looks at one word passes on a part of that word.

    Args:
        attention: Of the first layer.
        inverse_frequencies: Of its rotary positions, ``[head_dim / 2]``.
        copy: How much of what it attends to a token takes over.
    """
    attention.o_proj.weight.mul_(copy / COPY)
    size = (PHRASE_FALL * attention.head_dim**0.5) ** 0.5
    for head in range(len(attention.q_proj.weight) // attention.head_dim):
        _look_at(attention, inverse_frequencies, PHRASE_MIDDLE, head=head, pairs=PHRASE_PAIRS, size=size)


def _look_at(
    attention: Any, inverse_frequencies: Tensor, distance: float, *, head: int, pairs: slice, size: float
) -> None:
    """Write a distance into a head's biases, on some of the rotary frequencies."""
    halves = (2, len(inverse_frequencies))
    query_weight, query_bias, key_bias = (
        part.unflatten(0, (-1, attention.head_dim))[head]
        for part in (attention.q_proj.weight, attention.q_proj.bias, attention.k_proj.bias)
    )
    nn.init.normal_(query_weight, std=FAINT_STD)
    key_bias.unflatten(0, halves)[0, pairs] = size
    angles = inverse_frequencies[pairs] * distance
    query_bias.unflatten(0, halves)[:, pairs] = size * torch.stack((angles.cos(), -angles.sin()))


@torch.no_grad()
def induce(looking_back: Any, attention: Any) -> None:
    """Make the last head of `attention` an induction head over what the last head of `looking_back` brings.

    What is brought is written to directions of its own, so that a token's query (what was brought to it) is compared
    with the others' keys (what they are themselves); the value is what was brought to those.

    Args:
        looking_back: See `look_back`.
        attention: Of a later layer.
    """
    width = attention.head_dim
    itself = looking_back.v_proj.weight[-width:]
    brought = torch.randn(itself.shape[1], width)
    brought = torch.linalg.qr(brought - itself.T @ (itself @ brought)).Q
    looking_back.o_proj.weight[:, -width:] = brought
    attention.q_proj.weight[-width:] = MATCH * brought.T
    attention.k_proj.weight[-width:] = MATCH * itself
    attention.v_proj.weight[-width:] = brought.T
    attention.o_proj.weight[:, -width:] = itself.T


def word_embeddings(model: CompressedVLM, tokenizer: PreTrainedTokenizerBase) -> tuple[Tensor, ...]:
    """The embeddings of the words for backgrounds, colours, shapes and directions: each ``[words, D]``."""
    table = model.model.language_model.embed_tokens.weight
    kinds = (BACKGROUNDS, COLOURS, SHAPES, DIRECTIONS)
    ids = [[tokenizer(f" {word}", add_special_tokens=False)["input_ids"] for word in words] for words in kinds]
    assert all(len(word) == 1 for words in ids for word in words), "every word of the world is one token"
    return tuple(table[torch.tensor(words)[:, 0]] for words in ids)


@torch.no_grad()
def take_over(
    model: CompressedVLM, processor: CompressedProcessor, known: CompressedVLM, known_processor: CompressedProcessor
) -> None:
    """Begin with a trained language model: the tokens that both know, and all weights that both have.

    Biases that another family does not have are left behind; queries and keys that it normalises keep about their
    size. Layers behind the known ones add nothing yet.

    Args:
        model: Its language model is overwritten.
        processor: Of the model.
        known: A trained model of the same width, and of no more layers.
        known_processor: Its processor.

    Raises:
        ValueError: If it has more or other layers.
    """
    ours, theirs = model.model.language_model, known.model.language_model
    depth = len(theirs.layers)
    if depth > len(ours.layers):
        raise ValueError(f"start_from: that model has {depth} layers, {len(ours.layers)} are not enough")
    for layer in ours.layers[depth:]:
        nn.init.zeros_(layer.self_attn.o_proj.weight)
        nn.init.zeros_(layer.mlp.down_proj.weight)
    table, known_table = ours.embed_tokens.weight, theirs.embed_tokens.weight
    known_ids = known_processor.tokenizer.get_vocab()
    for token, index in processor.tokenizer.get_vocab().items():
        if token in known_ids:
            table[index] = known_table[known_ids[token]]
    ours.norm.load_state_dict(theirs.norm.state_dict())
    known_weights = theirs.layers.state_dict()
    for name, weight in ours.layers[:depth].state_dict().items():
        if name.endswith(("q_norm.weight", "k_norm.weight")) and name not in known_weights:
            nn.init.constant_(weight, NORM_SIZE)
        elif name in known_weights and known_weights[name].shape == weight.shape:
            weight.copy_(known_weights[name])
        else:
            raise ValueError(f"start_from: that model has no layers.{name} of shape {tuple(weight.shape)}")


@torch.no_grad()
def speak_in_words(
    model: CompressedVLM,
    processor: CompressedProcessor,
    *,
    seed: int,
    like: tuple[CompressedVLM, CompressedProcessor] | None = None,
    grids: int = 8192,
) -> list[float]:
    """Replace the last layer of each of the tower's streams by its least-squares map to the words of what it sees.

    Args:
        model: Its tower is trained, see `experiments.tiny_model.tower.pretrain_tower`.
        processor: Of the model.
        seed: Draws the grids that the maps are fitted on.
        like: The model that was taken over, and its processor: the map is to what its tower says instead.
        grids: How many; those that stand still, and so show no direction, are left out.

    Returns:
        The share of the words' variance that each map leaves unexplained.
    """
    tower = model.model.visual
    drawn = random_grids(grids, torch.Generator(device=tower.device).manual_seed(seed))
    moving = drawn.labels[:, 3] >= 0
    frames, labels = drawn.frames[moving], drawn.labels[moving]
    tokens_NPW = encode_grids(tower, grids_to_patches(frames, colours_of(processor)))
    if like is None:
        tables = word_embeddings(model, processor.tokenizer)
        words_ND = torch.stack([table[labels[:, kind]] for kind, table in enumerate(tables)]).sum(0)
        words_NPD = words_ND[:, None].expand(-1, tokens_NPW.shape[1], -1)
    else:
        words_NPD = encode_grids(like[0].model.visual, grids_to_patches(frames, colours_of(like[1])))
    streams = tokens_NPW.split(words_NPD.shape[-1], -1)
    return [
        map_to_words(merger, stream, words_NPD, DEEP_SIZE if depth else TOKEN_SIZE)
        for depth, (merger, stream) in enumerate(zip(mergers(tower), streams, strict=True))
    ]


def map_to_words(merger: nn.Module, tokens_NPD: Tensor, words_NPD: Tensor, size: float) -> float:
    """Replace the last layer of a stream that gives these tokens, so that it gives words of a size."""
    inputs = nn.functional.pad(tokens_NPD, (0, 1), value=1.0).flatten(0, 1).double()
    targets = words_NPD.flatten(0, 1).double()
    gram = inputs.T @ inputs + 1e-6 * len(inputs) * torch.eye(inputs.shape[1], dtype=inputs.dtype)
    solution = torch.linalg.solve(gram, inputs.T @ targets)
    fitted = inputs @ solution
    scale = size * fitted.square().mean().rsqrt()
    last = [part for part in merger.modules() if isinstance(part, nn.Linear)][-1]
    matrix, offset = (scale * solution).float().split((inputs.shape[1] - 1, 1))
    last.bias.copy_((last.bias @ matrix + offset)[0])
    last.weight.copy_(matrix.T @ last.weight)
    return float((fitted - targets).square().mean() / targets.var(0).mean())
