"""STTM against its description: quadtrees node by node, joints pair by pair."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from random_videos import random_video
from rival_cases import cases, cosine

from marc.compression.rivals.rule import RULES, EncodedVideo


class Node:
    """A node of one grid: its cells, its token, its children."""

    def __init__(self, token, cells, children=()):
        self.token, self.cells, self.children = token, frozenset(cells), children

    def split(self, threshold: float) -> list["Node"]:
        if all(cosine(child.token, self.token) >= threshold for child in self.children):
            return [self]
        return [node for child in self.children for node in child.split(threshold)]


def halves(length: int) -> list[list[int]]:
    """Pairs of rows; the first by itself where there is an odd number."""
    start = length % 2
    return [[0]] * start + [[row, row + 1] for row in range(start, length, 2)]


def roots(tokens_PD, size, most: int) -> list[Node]:
    level = {
        (r, c): Node(tokens_PD[r * size[1] + c], [r * size[1] + c]) for r in range(size[0]) for c in range(size[1])
    }
    pyramid = [(size, level)]
    while size != (1, 1):
        rows, columns = halves(size[0]), halves(size[1])
        coarser = {}
        for (i, some), (j, others) in itertools.product(enumerate(rows), enumerate(columns)):
            children = [level[place] for place in itertools.product(some, others)]
            token = sum(child.token for child in children) / len(children)
            coarser[i, j] = Node(token, frozenset().union(*(child.cells for child in children)), children)
        size, level = (len(rows), len(columns)), coarser
        pyramid.append((size, level))
    coarsest = next(index for index, (some, _) in enumerate(pyramid) if min(some) <= 2)
    return next(list(nodes.values()) for _, nodes in pyramid[max(0, coarsest - 1) :] if len(nodes) <= most)


class Joints:
    def __init__(self, nodes):
        self.set_of = {id(node): {id(node)} for grid in nodes for node in grid}

    def join(self, one, other) -> bool:
        a, b = self.set_of[id(one)], self.set_of[id(other)]
        if a is b:
            return False
        a |= b
        for node in b:
            self.set_of[node] = a
        return True

    def count(self) -> int:
        return len({id(some) for some in self.set_of.values()})


def pairs(nodes):
    for earlier, later in itertools.pairwise(nodes):
        for one, other in itertools.product(earlier, later):
            if one.cells <= other.cells or other.cells <= one.cells:
                yield cosine(one.token, other.token), one, other


def cut(forest, threshold: float):
    nodes = [[node for root in trees for node in root.split(threshold)] for trees in forest]
    joints = Joints(nodes)
    for likeness, one, other in pairs(nodes):
        if likeness >= threshold - 0.2:
            joints.join(one, other)
    return nodes, joints


def kept_by_hand(tokens, size, count: int) -> dict[int, np.ndarray]:
    cells = tokens.shape[1]
    forest = [roots(grid, size, count) for grid in tokens]
    low, high = -1.2, 1.4
    for _ in range(16):
        middle = (low + high) / 2
        low, high = (low, middle) if cut(forest, middle)[1].count() >= count else (middle, high)
    nodes, joints = cut(forest, high)
    for _, one, other in sorted(pairs(nodes), key=lambda pair: -pair[0]):
        if joints.count() > count:
            joints.join(one, other)
    for trees, grid in zip(forest, nodes, strict=True):
        for root in trees:
            under = sorted((node for node in grid if node.cells <= root.cells), key=lambda node: min(node.cells))
            for one, other in itertools.pairwise(under):
                if joints.count() > count:
                    joints.join(one, other)
    place = {id(node): t * cells + min(node.cells) for t, grid in enumerate(nodes) for node in grid}
    token = {id(node): node.token for grid in nodes for node in grid}
    sets = {id(some): some for some in joints.set_of.values()}.values()
    return {min(place[node] for node in some): np.mean([token[node] for node in some], axis=0) for some in sets}


@given(case=cases("sttm", most_grids=5))
@settings(max_examples=30, deadline=None)
def test_quadtrees_whose_nodes_are_joined_through_time(case):
    video, count = case
    expected = kept_by_hand(video.tokens.numpy(), video.size, count)
    kept = RULES["sttm"].keep(video, count)
    assert kept.places.tolist() == sorted(expected)
    for place, token in zip(kept.places.tolist(), kept.tokens, strict=True):
        assert np.allclose(expected[place], token.numpy(), atol=1e-6)


def test_flat_parts_of_a_grid_become_coarse_nodes():
    tokens = torch.ones(1, 64, 8)
    tokens[0, :32] = random_video(1, 4, 8, 8, seed=0).tokens[0]
    kept = RULES["sttm"].keep(EncodedVideo(tokens, (8, 8), [0]), 32 + 8)
    assert kept.places.tolist() == [*range(32), 32, 34, 36, 38, 48, 50, 52, 54]


def test_a_repeated_half_costs_nothing():
    half = random_video(3, 4, 4, 8, seed=1).tokens
    video = EncodedVideo(torch.cat([half, half[-1:].repeat(3, 1, 1)]), (4, 4), [0] * 6)
    kept = RULES["sttm"].keep(video, 48)
    assert torch.allclose(kept.tokens, half.flatten(0, 1))
    assert kept.places.tolist() == list(range(48))


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (2, 3), (3, 3), (5, 8), (8, 16)])
def test_one_token_is_a_mean_of_all(size):
    video = random_video(4, *size, 6, seed=2)
    kept = RULES["sttm"].keep(video, 1)
    assert kept.places.tolist() == [0]
    if all(math.log2(side).is_integer() for side in size):
        assert torch.allclose(kept.tokens[0], video.tokens.mean((0, 1)), atol=1e-5)
