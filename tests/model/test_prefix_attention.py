"""Prefixes read once: one call of ``sdpa`` for each question, with its prefix before it, is the oracle."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from marc.model.prefix_attention import PrefixStates, SharedPrefixes, _packs, prefix_attention

CASES = {
    "several prefixes": ((3, 5, 1), ((4, 2), (3,), (6, 1, 2))),
    "one prefix": ((4,), ((3, 3, 3),)),
    "nothing shared": ((0, 2), ((4, 2), (3,))),
    "long prefixes": ((12, 7), ((2, 3, 2, 1), (1, 2))),
}


def layer(groups: int) -> nn.Module:
    module = nn.Module()
    module.num_key_value_groups = groups
    return module


def alone(module: nn.Module, states: list[Tensor], places: Tensor) -> Tensor:
    """``[len(places), A, E]``"""
    read = (state.transpose(1, 2).flatten(0, 1)[places].transpose(0, 1)[None] for state in states)
    return sdpa_attention_forward(module, *read, None, scaling=0.3, is_causal=True)[0][0]


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("case", CASES)
def test_a_question_sees_its_prefix_and_itself(case, rows):
    """Tokens stand in any order, and two of them belong to nothing."""
    prefix_sizes, question_sizes = CASES[case]
    sizes = [*prefix_sizes, *(size for group in question_sizes for size in group)]
    tokens = sum(sizes) + 2 + sum(sizes) % 2
    generator = torch.Generator().manual_seed(0)
    parts = torch.randperm(tokens, generator=generator)[: sum(sizes)].split(sizes)
    prefixes, questions = parts[: len(prefix_sizes)], parts[len(prefix_sizes) :]
    owners = [number for number, group in enumerate(question_sizes) for _ in group]
    states = [
        torch.randn(rows, heads, tokens // rows, 8, generator=generator, dtype=torch.float64, requires_grad=True)
        for heads in (4, 2, 2)
    ]
    shared = SharedPrefixes.of(prefixes, questions, owners, tokens)
    got, _ = prefix_attention(layer(2), *states, None, shared_prefixes=shared, scaling=0.3)
    assert got.shape == (rows, tokens // rows, 4, 8)
    got = got.flatten(0, 1)[torch.cat(parts)]
    whole = [torch.cat((prefixes[owner], own)) for owner, own in zip(owners, questions, strict=True)]
    expected = torch.cat(
        [
            *(alone(layer(2), states, prefix) for prefix in prefixes if len(prefix)),
            *(alone(layer(2), states, row)[-len(own) :] for row, own in zip(whole, questions, strict=True)),
        ]
    )
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)
    weights = torch.randn(got.shape, generator=generator, dtype=torch.float64)
    ours, theirs = (torch.autograd.grad((side * weights).sum(), states) for side in (got, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def test_short_questions_behind_one_prefix_are_attended_to_as_one_sequence():
    """As many as have half of its tokens; a longer one stands alone."""
    lengths, owners = (4, 3, 9, 2, 1, 5), (0, 0, 0, 0, 1, 1)
    assert list(_packs(lengths, owners, (16, 2))) == [[0, 1], [2], [3], [4], [5]]
    places = torch.arange(sum(lengths) + 18).split((16, 2, *lengths))
    shared = SharedPrefixes.of(places[:2], places[2:], owners, sum(lengths) + 18)
    assert sorted(part.places.shape[1] for part in shared.questions)[-1] == 9


def test_questions_in_several_passes_give_what_one_pass_gives():
    """A prefix of five tokens and, before a prefix that is read anyway, questions of three and of two tokens."""
    generator = torch.Generator().manual_seed(0)
    module = layer(2)
    module.layer_idx = 7
    states = [
        torch.randn(1, heads, 13, 8, generator=generator, dtype=torch.float64, requires_grad=True)
        for heads in (4, 2, 2)
    ]
    prefix, other, *questions = torch.arange(13).split((5, 2, 3, 2, 1))
    weights = torch.randn(13, 4, 8, generator=generator, dtype=torch.float64)

    def attend(places: Tensor, shared: SharedPrefixes) -> Tensor:
        some = [each[:, :, places] for each in states]
        mixed, _ = prefix_attention(module, *some, None, shared_prefixes=shared, scaling=0.3)
        return mixed[0]

    whole = attend(torch.arange(13), SharedPrefixes.of([prefix, other], questions, [0, 0, 1], 13))
    expected = torch.autograd.grad((whole * weights).sum(), states)

    known, own = PrefixStates(), torch.arange(5)
    with torch.no_grad():
        alone = SharedPrefixes.of([own], [torch.tensor([5])], [0], 6)
        attend(torch.arange(6), replace(alone, kept=((known, own),)))
    assert known.tokens == 5
    first = torch.cat((other, questions[0], questions[2]))
    parts = [torch.arange(2), torch.arange(2, 5), torch.tensor([5])]
    apart = attend(first, SharedPrefixes.of(parts[:1], parts[1:], [1, 0], 6, [known]))
    torch.testing.assert_close(apart, whole[first], rtol=1e-12, atol=1e-12)
    (apart * weights[first]).sum().backward()
    assert not any(each.grad[:, :, prefix].any() for each in states), "they wait"
    last = torch.cat((prefix, questions[1]))
    again = SharedPrefixes.of([own], [torch.tensor([5, 6])], [0], 7)
    joined = attend(last, replace(again, joined=((known, own),)))
    torch.testing.assert_close(joined, whole[last], rtol=1e-12, atol=1e-12)
    (joined * weights[last]).sum().backward()
    torch.testing.assert_close([each.grad for each in states], list(expected), rtol=1e-10, atol=1e-12)


def test_without_prefixes_it_is_sdpa():
    states = [torch.randn(2, heads, 5, 8, generator=torch.Generator().manual_seed(heads)) for heads in (4, 2, 2)]
    mask = torch.ones(5, 5, dtype=torch.bool).tril().expand(2, 1, -1, -1)
    for given in (None, mask):
        expected, _ = sdpa_attention_forward(layer(2), *states, given, scaling=0.3)
        assert torch.equal(prefix_attention(layer(2), *states, given, scaling=0.3)[0], expected)
