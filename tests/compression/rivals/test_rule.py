"""What every rule promises, on random videos of any shape: counts, order, types, repetition, gradients."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_videos import random_video

from marc.compression.rivals.rule import RULES

rules = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
shapes = st.tuples(st.integers(1, 9), st.integers(1, 5), st.integers(1, 6), st.integers(2, 7))


def counted(draw, rule, grids: int, cells: int) -> int:
    """A count that the rule can keep."""
    return rule.count(grids, cells, draw(st.integers(1, grids * cells)))


@rules
@given(data=st.data(), shape=shapes, dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]))
@settings(max_examples=25, deadline=None)
def test_it_keeps_so_many_tokens_in_order_and_again_the_same(rule, data, shape, dtype):
    video = random_video(*shape, seed=data.draw(st.integers(0, 1000)), dtype=dtype)
    grids, cells, width = video.tokens.shape
    count = counted(data.draw, rule, grids, cells)
    kept = rule.keep(video, count)
    assert kept.tokens.shape == (count, width)
    assert kept.tokens.dtype == dtype
    assert kept.tokens.isfinite().all()
    assert kept.places.dtype == torch.int64
    assert kept.places.shape == (count,)
    assert (kept.places.diff() > 0).all()
    assert kept.places[0] >= 0
    assert kept.places[-1] < grids * cells
    again = rule.keep(video, count)
    assert torch.equal(kept.tokens, again.tokens)
    assert torch.equal(kept.places, again.places)


@rules
@given(data=st.data(), shape=shapes)
@settings(max_examples=25, deadline=None)
def test_what_it_makes_is_linear_in_the_tokens_once_decided(rule, data, shape):
    """Gradients are the weights: they rebuild the result, and do not reach through the decision."""
    video = random_video(*shape, seed=data.draw(st.integers(0, 1000)), dtype=torch.float64)
    grids, cells, _ = video.tokens.shape
    count = counted(data.draw, rule, grids, cells)
    tokens = video.tokens.clone().requires_grad_()
    kept = rule.keep(replace(video, tokens=tokens), count)
    weights = torch.stack(
        [torch.autograd.grad(kept.tokens[row, 0], tokens, retain_graph=True)[0][..., 0] for row in range(count)]
    ).flatten(1)
    assert torch.allclose(weights @ video.tokens.flatten(0, 1), kept.tokens.detach(), atol=1e-9)
    assert (weights >= 0).all()


@rules
def test_it_trains_after_it_has_answered(rule):
    """What is remembered from one call serves the next, under inference mode or not."""
    video = random_video(4, 3, 5, 6, seed=4)
    count = rule.count(4, 15, 10)
    with torch.inference_mode():
        answered = rule.keep(video, count).tokens
    tokens = video.tokens.clone().requires_grad_()
    kept = rule.keep(replace(video, tokens=tokens), count)
    kept.tokens.sum().backward()
    assert torch.equal(kept.tokens, answered)
    assert tokens.grad is not None
    assert tokens.grad.abs().sum() > 0


@rules
def test_a_budget_for_all_keeps_every_token_as_it_is(rule):
    video = random_video(5, 3, 4, 6, seed=1)
    count = rule.count(5, 12, 60)
    kept = rule.keep(video, count)
    if rule.most_grids is None:
        assert count == 60
        assert torch.equal(kept.tokens, video.tokens.flatten(0, 1)) or rule.name == "prumerge"
    else:
        assert torch.equal(kept.tokens, video.tokens[-rule.most_grids :].flatten(0, 1))


@rules
@given(grids=st.integers(1, 40), cells=st.integers(1, 200), budget=st.integers(1, 9000))
@settings(max_examples=30)
def test_counts_are_the_budget_within_what_the_rule_can(rule, grids, cells, budget):
    count, least = rule.count(grids, cells, budget), rule.count(grids, cells, 1)
    most = rule.count(grids, cells, grids * cells)
    assert count == max(least, min(budget, most))
    assert rule.count(grids, cells, count) == count


@rules
def test_a_count_that_it_cannot_keep_is_refused(rule):
    video = random_video(3, 2, 2, 4, seed=0)
    most = rule.count(3, 4, 12)
    with pytest.raises(ValueError, match=f"the rule {rule.name} keeps .* to {most} tokens of this video, not 13"):
        rule.keep(video, 13)


@pytest.mark.parametrize("rule", [rule for rule in RULES.values() if rule.wants_attention or rule.wants_keys])
def test_what_it_wants_must_be_there(rule):
    video = random_video(3, 2, 2, 4, seed=0)
    if rule.wants_attention:
        with pytest.raises(ValueError, match="give EncodedVideo"):
            rule.keep(replace(video, attention=None), 12)
    if rule.wants_keys:
        with pytest.raises(ValueError, match="give EncodedVideo"):
            rule.keep(replace(video, keys=None), 12)


@rules
def test_what_it_does_not_want_may_be_missing(rule):
    video = random_video(4, 2, 3, 5, seed=3)
    without = replace(
        video,
        attention=video.attention if rule.wants_attention else None,
        keys=video.keys if rule.wants_keys else None,
    )
    count = rule.count(4, 6, 9)
    assert torch.equal(rule.keep(video, count).tokens, rule.keep(without, count).tokens)


@rules
def test_equal_tokens_are_no_trouble(rule):
    """Ties everywhere: what is kept is still as many different places."""
    video = random_video(6, 3, 3, 4, seed=0)
    still = replace(
        video,
        tokens=torch.ones_like(video.tokens),
        attention=torch.full_like(video.attention, 1 / 9),
        keys=torch.ones_like(video.keys),
    )
    count = rule.count(6, 9, 13)
    kept = rule.keep(still, count)
    assert len(set(kept.places.tolist())) == count
    if rule.name != "prumerge":
        assert torch.allclose(kept.tokens, torch.ones(count, 4))


@rules
def test_zeros_are_no_trouble(rule):
    video = random_video(4, 2, 3, 4, seed=0)
    empty = replace(video, tokens=torch.zeros_like(video.tokens), keys=torch.zeros_like(video.keys))
    kept = rule.keep(empty, rule.count(4, 6, 7))
    assert kept.tokens.eq(0).all()


def test_naming_the_rules_loads_no_torch():
    code = "import sys; from marc.compression.rivals.rule import RULES; print(len(RULES), 'torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert out == [str(len(RULES)), "False"]
