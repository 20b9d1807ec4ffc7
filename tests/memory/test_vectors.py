import numpy as np
import pytest

from marc.memory.vectors import average_direction, cosine_scores, highest_cosine, neighbour_similarity, rounded


def units(count: int, dimension: int = 512, seed: int = 0) -> np.ndarray:
    raw = np.random.default_rng(seed).normal(size=(count, dimension))
    return raw / np.linalg.norm(raw, axis=1, keepdims=True)


@pytest.mark.parametrize("count", [1, 7, 1000])
def test_scores_equal_a_float64_cosine(count):
    events, query = units(count), units(1, seed=1)[0]
    scores = cosine_scores(query.astype(np.float32), events.astype(np.float32))
    np.testing.assert_allclose(scores, events @ query, atol=1e-6)


def test_vectors_of_different_models_are_refused():
    with pytest.raises(ValueError, match=r"24 dimensions and the events' 7.*remember the video again"):
        cosine_scores(np.zeros(24, np.float32), np.zeros((2, 7), np.float32))


def test_each_event_is_compared_with_the_next():
    events = units(6)
    expected = [events[index] @ events[index + 1] for index in range(5)]
    np.testing.assert_allclose(neighbour_similarity(events.astype(np.float32)), expected, atol=1e-6)
    assert neighbour_similarity(events[:1].astype(np.float32)).shape == (0,)


def test_an_average_has_unit_length_and_no_vector_outweighs_another():
    average = average_direction(np.eye(3, dtype=np.float32)[:2])
    np.testing.assert_allclose(average, [0.5**0.5, 0.5**0.5, 0], atol=1e-7)
    assert average.dtype == np.float32


def test_rounded_vectors_have_nearly_the_same_cosines():
    vectors, queries = units(50).astype(np.float32), units(20, seed=1).astype(np.float32)
    kept = rounded(vectors)
    assert kept.dtype == np.int8 and kept.shape == vectors.shape
    for query in [*queries, vectors[7]]:
        assert highest_cosine(query, kept) == pytest.approx((vectors @ query).max(), abs=2e-3)
