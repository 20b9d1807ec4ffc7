"""Random videos and counts for the oracles of the rules, and what several oracles share, in plain loops."""

import numpy as np
from hypothesis import strategies as st
from random_videos import random_video

from marc.compression.rivals.rule import RULES, EncodedVideo


@st.composite
def cases(draw, name: str, *, most_grids: int = 9) -> tuple[EncodedVideo, int]:
    """A video in float64, so that nothing is nearly equal, and a count that the rule can keep, below all."""
    import torch

    shape = draw(st.tuples(st.integers(1, most_grids), st.integers(1, 5), st.integers(2, 6), st.integers(6, 10)))
    video = random_video(*shape, seed=draw(st.integers(0, 10_000)), dtype=torch.float64)
    grids, cells, _ = video.tokens.shape
    rule = RULES[name]
    least = rule.count(grids, cells, 1)
    most = max(least, rule.count(grids, cells, grids * cells - 1))
    return video, draw(st.integers(least, most))


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def best(scores: dict[int, float], count: int) -> list[int]:
    """The keys of the largest scores, in ascending order."""
    return sorted(sorted(scores, key=lambda key: -scores[key])[:count])


def level(count: int, parts: int) -> list[int]:
    """Equal parts, the first ones one more."""
    return [count // parts + (index < count % parts) for index in range(parts)]


def rounded(ideals: list[float]) -> list[int]:
    """Whole numbers with the sum of the ideals, by largest remainder; of equal remainders the earlier."""
    whole = [int(np.floor(ideal + 1e-9)) for ideal in ideals]
    order = sorted(range(len(ideals)), key=lambda index: (-round(ideals[index] - whole[index], 9), index))
    for index in order[: round(sum(ideals)) - sum(whole)]:
        whole[index] += 1
    return whole


def density_peaks(points: np.ndarray, count: int, neighbours: int) -> list[int]:
    """DPC-KNN, point by point; of equal densities the earlier is the higher one."""
    total = len(points)
    distance = [[np.linalg.norm(a - b) / np.sqrt(points.shape[1]) for b in points] for a in points]
    density = [np.exp(-np.mean([d**2 for d in sorted(row)[:neighbours]])) for row in distance]
    scores = {}
    for one in range(total):
        denser = [
            distance[one][other]
            for other in range(total)
            if density[other] > density[one] or (density[other] == density[one] and other < one)
        ]
        scores[one] = density[one] * min(denser, default=np.max(distance))
    return best(scores, count)
