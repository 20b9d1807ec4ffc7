from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from marc.video.cuts import Follower, is_one_place, sole_cut
from marc.video.likeness import HEIGHT, WIDTH, Glance


def place(seed: int) -> Glance:
    blocks = np.random.default_rng(seed).uniform(0, 255, (HEIGHT // 6, WIDTH // 10, 3))
    return blocks.repeat(6, axis=0).repeat(10, axis=1).astype(np.float32)


def shown(*shots: tuple[int, int]) -> tuple[Callable[[int], Glance | None], list[int]]:
    """Looks at pictures of places, each shown for so many, and the list of those that were looked at."""
    numbers = [seed for seed, count in shots for _ in range(count)]
    looked: list[int] = []

    def glance(number: int) -> Glance | None:
        looked.append(number)
        return place(numbers[number]) if numbers[number] >= 0 else None

    return glance, looked


@pytest.mark.parametrize("cut", [1, 17, 24, 32])
def test_the_only_cut_is_found_by_halves(cut: int):
    glance, looked = shown((1, cut), (2, 33 - cut))
    assert sole_cut(glance, [0, 16, 32]) == cut
    assert len(set(looked)) <= 3 + 4


@pytest.mark.parametrize(
    "shots",
    [
        ((1, 33),),
        ((1, 20), (2, 4), (3, 9)),
        ((1, 10), (2, 12), (3, 11)),
        ((1, 20), (-1, 4), (2, 9)),
    ],
    ids=["none", "something between", "two", "cannot be decoded"],
)
def test_what_is_no_single_cut_is_not_told(shots: tuple[tuple[int, int], ...]):
    assert sole_cut(shown(*shots)[0], [0, 16, 32]) is None


def test_one_place_is_seen_by_neighbours():
    assert is_one_place(shown((1, 33))[0], [0, 16, 32])
    assert not is_one_place(shown((1, 20), (2, 13))[0], [0, 16, 32])
    assert is_one_place(shown((1, 20), (2, 13))[0], [0, 16])
    assert not is_one_place(shown((-1, 2))[0], [0, 1])


def follow(numbers: list[int], seeds: list[int]) -> tuple[bool, int | None]:
    follower = Follower()
    plain = all(follower.add(number, place(seed)) for number, seed in zip(numbers, seeds, strict=True))
    return plain, follower.cut


def test_a_follower_takes_one_cut_between_neighbours_and_nothing_else():
    assert follow([0, 16, 17, 18], [1, 1, 1, 1]) == (True, None)
    assert follow([0, 16, 17, 18], [1, 1, 2, 2]) == (True, 17)
    assert follow([0, 16, 17, 18], [1, 2, 2, 2]) == (False, None), "something lies between"
    assert follow([0, 16, 17, 18], [1, 1, 2, 1])[0] is False, "a flash"
