"""Unit vectors of events and questions: their means and cosines.

Shape legend: E events, T frames, D embedding dimensions.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

TOLERANCE = 1e-3
"""By how much the squared length of a unit vector of rounded numbers may differ from 1."""


def average_direction(vectors_TD: NDArray[np.float32]) -> NDArray[np.float32]:
    """The mean of unit vectors ``[T, D]`` as a unit vector ``float32 [D]``."""
    mean_D = vectors_TD.mean(axis=0, dtype=np.float64)
    length = float(np.linalg.norm(mean_D))
    assert length > 0, "frame vectors cancel out"
    return (mean_D / length).astype(np.float32)


def rounded(vectors_KD: NDArray[np.float32]) -> NDArray[np.int8]:
    """Directions of vectors in a quarter of the room ``int8 [K, D]``; cosines with them change by less than 0.01."""
    largest_K1 = np.abs(vectors_KD).max(axis=1, keepdims=True)
    return np.rint(vectors_KD * (127 / largest_K1)).astype(np.int8)


def highest_cosine(query_D: NDArray[np.float32], rounded_KD: NDArray[np.int8]) -> float:
    """Of a unit vector with the directions that `rounded` has kept, of which there is one at least."""
    vectors_KD = rounded_KD.astype(np.float32)
    return float((vectors_KD @ query_D / np.linalg.norm(vectors_KD, axis=1)).max())


def are_unit_vectors(vectors_ED: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which of the vectors ``[E, D]`` have the length 1, ``bool [E]``; none with a value that is no finite number."""
    with np.errstate(over="ignore", invalid="ignore"):
        squares_E = np.einsum("ed,ed->e", vectors_ED, vectors_ED)
        unit_E: NDArray[np.bool_] = np.abs(squares_E - 1) < TOLERANCE
    return unit_E


def cosine_scores(query_D: NDArray[np.float32], embeddings_ED: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cosine similarity ``float32 [E]`` of a unit vector with unit vectors.

    Not by numpy's matrix product: its threads would stay awake beside torch's and take the text tower twice the time.

    Raises:
        ValueError: If they do not have the same number of dimensions.
    """
    if embeddings_ED.ndim != 2 or embeddings_ED.shape[1:] != query_D.shape:
        raise ValueError(
            f"the question's embedding has {query_D.shape[0]} dimensions and the events' {embeddings_ED.shape[-1]}: "
            "they come from different models; remember the video again with this embedder"
        )
    return np.einsum("ed,d->e", embeddings_ED, query_D)


def neighbour_similarity(embeddings_ED: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cosine similarity ``float32 [E - 1]`` of each of the unit vectors with the next one."""
    return np.einsum("ed,ed->e", embeddings_ED[:-1], embeddings_ED[1:])
