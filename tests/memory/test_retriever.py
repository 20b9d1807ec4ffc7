from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marc.memory.retriever import (
    VisualMemoryRetriever,
    cosine_scores,
    evenly_inside,
    gap_k,
    join_bystanders,
    plan_frames,
    share_out,
    top_k,
)
from marc.records import Event, Retrieval


@dataclass(frozen=True)
class Memory:
    events: tuple[Event, ...]
    embeddings: np.ndarray


def chain(*lengths: float) -> tuple[Event, ...]:
    ends = np.cumsum(lengths).tolist()
    return tuple(Event(start, end) for start, end in zip([0.0, *ends], ends, strict=False))


def retrieval(lengths, kept, scores=None) -> Retrieval:
    return Retrieval(chain(*lengths), tuple(scores or [0.5] * len(lengths)), tuple(kept))


@st.composite
def retrievals(draw) -> Retrieval:
    lengths = draw(st.lists(st.floats(0.05, 300), min_size=1, max_size=40))
    kept = draw(st.sets(st.integers(0, len(lengths) - 1), min_size=1, max_size=5))
    scores = draw(st.lists(st.floats(-1, 1), min_size=len(lengths), max_size=len(lengths)))
    return Retrieval(chain(*lengths), tuple(scores), tuple(sorted(kept)))


def test_scores_and_order_equal_a_float64_cosine():
    rng = np.random.default_rng(0)
    for count in (1, 7, 1000):
        raw_E, raw = rng.normal(size=(count, 512)), rng.normal(size=512)
        events = (raw_E / np.linalg.norm(raw_E, axis=1, keepdims=True)).astype(np.float32)
        query = (raw / np.linalg.norm(raw)).astype(np.float32)
        oracle = np.array([np.dot(raw, row) / (np.linalg.norm(raw) * np.linalg.norm(row)) for row in raw_E])
        scores = cosine_scores(query, events)
        np.testing.assert_allclose(scores, oracle, atol=1e-6)
        assert top_k(scores, 10) == sorted(range(count), key=lambda index: -oracle[index])[:10]


def test_retrieve_keeps_the_nearest_in_time_order(embedder):
    rng = np.random.default_rng(1)
    embeddings = rng.normal(size=(6, embedder.dimension)).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    query = embedder.embed_question("where is the dog?").vector
    embeddings[4], embeddings[1] = query, average(query, embeddings[1])
    memory = Memory(chain(1, 2, 3, 4, 5, 6), embeddings)
    found = VisualMemoryRetriever(embedder).retrieve(memory, "where is the dog? A. here B. there", k=2)
    assert found.kept == (1, 4)
    assert found.scores[4] == pytest.approx(1, abs=1e-6)
    assert (found.query, found.query_truncated) == ("where is the dog?", False)
    assert VisualMemoryRetriever(embedder).retrieve(memory, "where?", k=99).kept == (0, 1, 2, 3, 4, 5)


def average(first, second):
    return (first + second) / np.linalg.norm(first + second)


def test_another_models_memory_is_refused(embedder):
    memory = Memory(chain(1, 1), np.zeros((2, 7), np.float32))
    with pytest.raises(ValueError, match=r"24 dimensions and the events' 7.*remember the video again"):
        VisualMemoryRetriever(embedder).retrieve(memory, "where?")


def test_ties_go_to_the_earlier_event():
    assert top_k([0.3, 0.5, 0.5, 0.1, 0.5], 2) == [1, 2]
    with pytest.raises(ValueError, match="k must be at least 1"):
        top_k([0.3], 0)


@pytest.mark.parametrize(
    ("scores", "expected"),
    [([0.4], 1), ([0.9, 0.2, 0.1], 1), ([0.9, 0.1, 0.88, 0.12, 0.86], 3), ([0.5, 0.5], 1), ([0.9] * 11 + [0.1], 1)],
)
def test_auto_k_cuts_at_the_widest_gap(scores, expected):
    assert gap_k(scores) == expected


def test_frames_lie_at_the_centres_of_equal_parts():
    np.testing.assert_allclose(evenly_inside(Event(10, 14), 4), [10.5, 11.5, 12.5, 13.5])


def test_a_plan_at_the_asked_rate():
    plan = plan_frames(retrieval([4, 10, 6], [0, 2]), fps=1.0)
    np.testing.assert_allclose(plan.seconds, [0.5, 1.5, 2.5, 3.5, *(14.5 + np.arange(6))])
    assert plan.grid_events.tolist() == [0, 0, 1, 1, 1]
    assert plan.events == (Event(0, 4), Event(14, 20))
    assert plan.shares is None


def test_a_plan_at_the_limit_shares_in_proportion():
    plan = plan_frames(retrieval([100, 10, 300], [0, 1, 2]), fps=1.0, max_frames=64)
    assert (np.bincount(plan.grid_events) * 2).tolist() == [16, 2, 46]


@given(
    retrievals(), st.floats(0.1, 5), st.integers(5, 40), st.sampled_from(["retrieve", "allocate"]), st.integers(5, 200)
)
def test_every_plan_keeps_its_promises(found, fps, grid_limit, mode, budget):
    plan = plan_frames(found, fps=fps, max_frames=2 * grid_limit, mode=mode, token_budget=budget)
    assert len(plan.seconds) == 2 * len(plan.grid_events) <= 2 * grid_limit
    assert (np.diff(plan.seconds) > 0).all()
    assert sorted(set(plan.grid_events.tolist())) == list(range(len(plan.events)))
    for grid, index in enumerate(plan.grid_events):
        event = plan.events[index]
        assert all(event.start < second < event.end for second in plan.seconds[2 * grid : 2 * grid + 2])
    assert min(plan.shares) >= 1
    assert sum(plan.shares) == budget
    if mode == "retrieve":
        assert plan.events == tuple(found.events[index] for index in found.kept)
    else:
        assert plan.events[0].start == found.events[0].start
        assert plan.events[-1].end == found.events[-1].end
        assert all(before.end == after.start for before, after in zip(plan.events, plan.events[1:], strict=False))


def test_allocation_blinds_no_event_and_favours_the_retrieved():
    plan = plan_frames(
        retrieval([5, 5, 5, 5, 5], [1, 3], scores=[0, 0.7, 0, 0.9, 0]), mode="allocate", token_budget=16
    )
    assert plan.events == chain(5, 5, 5, 5, 5)
    assert plan.shares == (1, 6, 1, 7, 1)
    assert np.bincount(plan.grid_events).tolist() == [1, 2, 1, 2, 1]


def test_too_many_events_for_the_budget_are_joined_where_nothing_was_retrieved():
    plan = plan_frames(retrieval([1, 1, 9, 9, 9, 9], [2], scores=[0, 0, 1, 0, 0, 0]), mode="allocate", token_budget=4)
    assert plan.events == (Event(0, 2), Event(2, 11), Event(11, 29), Event(29, 38))
    assert plan.shares == (1, 1, 1, 1)


def test_kept_events_take_in_neighbours_last_of_all():
    events, kept = join_bystanders(chain(1, 5, 1, 5, 1), [1, 3], 2)
    assert events == [Event(0, 6), Event(6, 13)] or events == [Event(0, 7), Event(7, 13)]
    assert kept == [0, 1]


def test_joining_thousands_of_events_is_quick():
    events, kept = join_bystanders(chain(*[3.0] * 10_000), [17, 5000], 32)
    assert len(events) == 32
    assert [events[index] for index in kept] == [Event(51, 54), Event(15000, 15003)]


@given(st.lists(st.integers(1, 50), min_size=1, max_size=20), st.data())
def test_shares_are_whole_bounded_and_complete(wanted, data):
    total = data.draw(st.integers(len(wanted), sum(wanted)))
    parts = share_out(total, np.array(wanted))
    assert parts.sum() == total
    assert (parts >= 1).all()
    assert (parts <= wanted).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fps": 0}, "fps must be positive"),
        ({"max_frames": 5}, "3 retrieved events need at least 6 frames"),
        ({"token_budget": 2}, "3 retrieved events need at least 3 visual tokens"),
        ({"mode": "spread"}, "mode must be"),
    ],
)
def test_impossible_plans_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        plan_frames(retrieval([4, 4, 4], [0, 1, 2]), **options)
