"""Rules that look at no feature."""

import torch
from random_videos import random_video

from marc.compression.rivals.rule import RULES


def kept(name: str, count: int, grids: int = 8):
    return random_video(grids, 2, 3, 4, seed=5), RULES[name].keep(random_video(grids, 2, 3, 4, seed=5), count)


def test_random_keeps_tokens_as_they_are_and_other_places_of_other_videos_alike():
    video, some = kept("random", 11)
    assert torch.equal(some.tokens, video.tokens.flatten(0, 1)[some.places])
    assert not torch.equal(some.places, torch.arange(11))
    assert torch.equal(RULES["random"].keep(random_video(8, 2, 3, 4, seed=9), 11).places, some.places)


def test_uniform_keeps_whole_grids_in_the_middle_of_equal_parts():
    video, some = kept("uniform", 12)
    assert torch.equal(some.tokens, video.tokens[[2, 6]].flatten(0, 1))
    assert some.places.tolist() == [*range(12, 18), *range(36, 42)]


def test_what_uniform_cannot_spend_on_whole_grids_pools_one_more():
    video, some = kept("uniform", 14)
    assert (some.places // 6).tolist() == [1] * 6 + [4] * 6 + [6] * 2
    left, right = video.tokens[6, [0, 3]].mean(0), video.tokens[6, [2, 5]].mean(0)
    middle = video.tokens[6, [1, 4]].mean(0)
    assert torch.allclose(some.tokens[-2:], torch.stack([left * 2 + middle, middle + right * 2]) / 3, atol=1e-6)


def test_tiny_pools_every_grid():
    video, some = kept("tiny", 8)
    assert torch.allclose(some.tokens, video.tokens.mean(1), atol=1e-6)
    assert (some.places // 6).tolist() == list(range(8))


def test_tiny_keeps_fewer_grids_below_a_token_each():
    video, some = kept("tiny", 2)
    assert torch.allclose(some.tokens, video.tokens[[2, 6]].mean(1), atol=1e-6)


def test_last_keeps_two_grids_and_no_more():
    video, some = kept("last", 12)
    assert torch.equal(some.tokens, video.tokens[-2:].flatten(0, 1))
    assert RULES["last"].count(8, 6, 40) == 12
    assert RULES["last"].count(1, 6, 40) == 6


def test_last_pools_them_to_a_smaller_budget():
    video, some = kept("last", 2)
    assert torch.allclose(some.tokens, video.tokens[-2:].mean(1), atol=1e-6)
    _, one = kept("last", 1)
    assert (one.places // 6).tolist() == [7]
