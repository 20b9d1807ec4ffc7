"""The language model's start: attention finds and copies what is alike, words resemble themselves."""

import pytest
import torch
from torch.nn import functional as F

from experiments.tiny_model.families import FAMILIES
from experiments.tiny_model.initialisation import (
    INDUCTION,
    LOOKING_BACK,
    NORM_SIZE,
    build_world_model,
    take_over,
    word_embeddings,
)
from experiments.tiny_model.recipe import TrainSettings
from marc.model import CompressedVLM
from marc.model.loading import load_model


@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_attend_to_their_like_and_copy_it(family: str) -> None:
    model, _ = build_world_model(TrainSettings(family=family, layers=3))
    attention = model.model.language_model.layers[0].self_attn
    states_TD = torch.randn(40, 128, generator=torch.Generator().manual_seed(0))
    states_TD[-1] = states_TD[7]
    heads = (-1, attention.head_dim)
    query = attention.q_proj(states_TD).unflatten(-1, heads)
    key = attention.k_proj(states_TD).unflatten(-1, heads).repeat_interleave(attention.num_key_value_groups, dim=1)
    scores_HT = torch.einsum("hd,thd->ht", query[-1], key[:-1])
    assert (scores_HT[:-1].argmax(-1) == 7).all(), "the last head looks back instead"
    value = attention.v_proj(states_TD).unflatten(-1, heads).repeat_interleave(attention.num_key_value_groups, dim=1)
    copied = attention.o_proj(value.flatten(1))
    alike = F.cosine_similarity(copied, states_TD, dim=-1)
    assert alike.min() > 0.4


def attention_weights(model: CompressedVLM, inputs_1TD: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Attention of all layers to a text of these embeddings, each ``[1, H, T, T]``."""
    text = model.model.language_model
    text.config._attn_implementation = "eager"
    positions = torch.arange(inputs_1TD.shape[1]).expand(3, 1, -1)
    return text(inputs_embeds=inputs_1TD, position_ids=positions, output_attentions=True).attentions


@pytest.mark.parametrize(("layer", "distance"), LOOKING_BACK.items())
def test_a_head_looks_back(layer: int, distance: int) -> None:
    """The last head of its layer, whatever the tokens: most attention goes to the token so many before."""
    model, _ = build_world_model(TrainSettings(layers=3))
    states_1TD = torch.randn(1, 30, 128, generator=torch.Generator().manual_seed(0))
    weights_TT = attention_weights(model, 0.1 * states_1TD)[layer][0, -1]
    assert (weights_TT[distance:].argmax(-1) == torch.arange(30 - distance)).float().mean() > 0.8


def test_the_induction_head_finds_the_letter_of_a_word() -> None:
    """In ``A. red B. blue … blue x x`` the last token attends to the first "blue", and so to what brings the "B"."""
    model, _ = build_world_model(TrainSettings(layers=3))
    table = model.model.language_model.embed_tokens.weight
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(50):
        tokens = torch.randperm(len(table), generator=generator)[:20]
        option = int(torch.randint(2, 12, (), generator=generator))
        tokens[17] = tokens[option]
        weights_T = attention_weights(model, table[tokens][None])[INDUCTION][0, -1, -1]
        found.append(int(weights_T[:17].argmax()) == option)
    assert sum(found) > 20, "by chance 3 of 50"


def test_words_resemble_themselves_behind_a_space_and_no_other() -> None:
    model, processor = build_world_model(TrainSettings(layers=3))
    tokenizer, table = processor.tokenizer, model.model.language_model.embed_tokens.weight
    for words in word_embeddings(model, tokenizer):
        cosine = F.cosine_similarity(words[:, None], words[None], dim=-1)
        assert (cosine - torch.eye(len(words))).abs().max() < 0.5
    bare, spaced = (tokenizer(word, add_special_tokens=False)["input_ids"] for word in ("red", " red"))
    assert len(bare) == len(spaced) == 1 and bare != spaced
    assert F.cosine_similarity(table[bare[0]], table[spaced[0]], dim=0) > 0.65


def test_a_family_without_biases_takes_over_what_it_can() -> None:
    """Embeddings of the tokens that both know, whatever their numbers; all matrices; norms where there were none."""
    known, known_processor = load_model("tiny")
    model, processor = build_world_model(TrainSettings(family="qwen3_vl"))
    take_over(model, processor, known, known_processor)
    ours, theirs = model.model.language_model, known.model.language_model
    tokens = ("<answer>", "\u0120striped", "<|video_pad|>")
    tables = zip((ours, theirs), (processor, known_processor), strict=True)
    mine, other = (
        text.embed_tokens.weight[each.tokenizer.convert_tokens_to_ids(list(tokens))] for text, each in tables
    )
    assert torch.equal(mine, other)
    for layer, known_layer in zip(ours.layers, theirs.layers, strict=True):
        assert torch.equal(layer.self_attn.q_proj.weight, known_layer.self_attn.q_proj.weight)
        assert torch.equal(layer.mlp.down_proj.weight, known_layer.mlp.down_proj.weight)
        states_TD = torch.randn(50, 128, generator=torch.Generator().manual_seed(0))
        size = layer.self_attn.q_norm(layer.self_attn.q_proj(states_TD).unflatten(1, (4, 32))).square().mean().sqrt()
        assert size.item() == pytest.approx(NORM_SIZE, rel=0.01)


def test_layers_behind_those_that_are_taken_over_add_nothing_yet() -> None:
    known, known_processor = load_model("tiny", device="cpu")
    model, processor = build_world_model(TrainSettings(layers=6))
    take_over(model, processor, known, known_processor)
    states_1TD = torch.randn(1, 20, 128, generator=torch.Generator().manual_seed(0))
    outputs = [each.model.language_model(inputs_embeds=states_1TD).last_hidden_state for each in (known, model)]
    assert torch.equal(*outputs) and len(model.model.language_model.layers) == 6


def test_only_a_model_of_as_many_layers_or_fewer_is_taken_over() -> None:
    model, processor = build_world_model(TrainSettings(layers=3))
    with pytest.raises(ValueError, match="start_from: that model has 4 layers, 3 are not enough"):
        take_over(model, processor, *load_model("tiny"))


def test_a_tiny_model_stays_below_a_million_parameters() -> None:
    for family in FAMILIES:
        model, _ = build_world_model(TrainSettings(family=family))
        assert sum(weight.numel() for weight in model.parameters()) < 1_000_000, family


def test_the_start_follows_from_the_seed_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, two = (build_world_model(TrainSettings(layers=3, seed=seed))[0].state_dict() for seed in (0, 1))
    again = build_world_model(TrainSettings(layers=3))[0].state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    name = "model.language_model.layers.0.self_attn.k_proj.weight"
    assert torch.equal(one[name], again[name]) and not torch.equal(one[name], two[name])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_tower_may_have_more_blocks(family: str) -> None:
    model, _ = build_world_model(TrainSettings(family=family, tower_blocks=5))
    assert len(model.model.visual.blocks) == model.config.vision_config.depth == 5
