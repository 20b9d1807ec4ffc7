import time
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marc.memory.select import (
    VisualMemoryRetriever,
    event_shares,
    events_at,
    gap_k,
    join_bystanders,
    plan_frames,
    share_out,
    strongest,
    top_k,
)
from marc.memory.vectors import cosine_scores, neighbour_similarity
from marc.types import Event, Retrieval


@dataclass(frozen=True)
class Memory:
    events: tuple[Event, ...]
    embeddings: np.ndarray


def chain(*lengths: float) -> tuple[Event, ...]:
    ends = np.cumsum(lengths).tolist()
    return tuple(Event(start, end) for start, end in zip([0.0, *ends], ends, strict=False))


def retrieval(lengths, kept, scores=None, similarity=None) -> Retrieval:
    similarity = tuple(similarity or [0.5] * (len(lengths) - 1))
    return Retrieval(chain(*lengths), tuple(scores or [0.5] * len(lengths)), tuple(kept), similarity)


@st.composite
def retrievals(draw) -> Retrieval:
    lengths = draw(st.lists(st.floats(0.05, 300), min_size=1, max_size=40))
    kept = draw(st.sets(st.integers(0, len(lengths) - 1), min_size=1, max_size=5))
    scores = draw(st.lists(st.floats(-1, 1), min_size=len(lengths), max_size=len(lengths)))
    similarity = draw(st.lists(st.floats(-1, 1), min_size=len(lengths) - 1, max_size=len(lengths) - 1))
    return Retrieval(chain(*lengths), tuple(scores), tuple(sorted(kept)), tuple(similarity))


@given(st.integers(1, 40), st.integers(0, 300), st.data())
def test_shares_are_one_each_and_the_rest_for_the_best(events, spare, data):
    best = data.draw(st.permutations(range(events)))[: data.draw(st.integers(1, events))]
    shares = event_shares(events + spare, events, best)
    assert sum(shares) == events + spare
    assert all(share == 1 for event, share in enumerate(shares) if event not in best)
    ranked = [shares[event] for event in best]
    assert ranked == sorted(ranked, reverse=True) and ranked[0] - ranked[-1] <= 1


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
    cosines = [np.dot(embeddings[index], embeddings[index + 1]) for index in range(5)]
    np.testing.assert_allclose(found.neighbour_similarity, cosines, atol=1e-6)
    assert VisualMemoryRetriever(embedder).retrieve(memory, "where?", k=99).kept == (0, 1, 2, 3, 4, 5)


TEXTS = ["nothing", "", "an umbrella opens", "rain", "", "the umbrella"]


@pytest.fixture
def remembered(embedder) -> Memory:
    """Six events, the nearer to the question of these tests the earlier they are."""
    rng = np.random.default_rng(2)
    query = embedder.embed_question("Who has an umbrella?").vector
    vectors = [average(query, 0.2 * number * unit(rng.normal(size=len(query)))) for number in range(1, 7)]
    cosines = sorted(range(6), key=lambda index: -np.dot(vectors[index], query))
    return Memory(chain(1, 2, 3, 4, 5, 6), np.array([vectors[index] for index in cosines], np.float32))


def unit(vector):
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def test_words_and_pictures_rank_events_together(embedder, remembered):
    retriever = VisualMemoryRetriever(embedder)
    found = retriever.retrieve(remembered, "Who has an umbrella?", k=3, texts=TEXTS)
    plain = retriever.retrieve(remembered, "Who has an umbrella?", k=3)
    assert (plain.kept, found.kept) == ((0, 1, 2), (0, 2, 5))
    assert found.scores == plain.scores
    assert [score > 0 for score in found.text_scores] == [False, False, True, False, False, True]
    assert retriever.retrieve(remembered, "Who has an umbrella?", k="auto", texts=TEXTS).kept == (2, 5)


def test_the_best_of_the_kept_are_those_of_the_fused_order(embedder, remembered):
    found = VisualMemoryRetriever(embedder).retrieve(remembered, "Who has an umbrella?", k=3, texts=TEXTS)
    assert strongest(found, 2).kept == (2, 5)
    assert strongest(found, 3) is found
    plan = plan_frames(found, mode="allocate", token_budget=6 + 4)
    assert plan.shares == (2, 1, 3, 1, 1, 2), "what does not divide goes to the best"


@pytest.mark.parametrize("k", [1, 3, 99, "auto"])
@pytest.mark.parametrize("texts", [[""] * 6, ["who has", "an", "sun", "rain", "", "wind"]])
def test_where_no_text_matches_nothing_changes(embedder, remembered, texts, k):
    retriever = VisualMemoryRetriever(embedder)
    plain = retriever.retrieve(remembered, "Who has an umbrella?", k)
    assert retriever.retrieve(remembered, "Who has an umbrella?", k, texts) == plain


def test_there_is_one_text_for_each_event(embedder, remembered):
    with pytest.raises(ValueError, match="6 events need as many texts, not 5"):
        VisualMemoryRetriever(embedder).retrieve(remembered, "Who?", texts=TEXTS[:5])


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


def test_an_event_that_is_not_kept_shows_two_frames_as_far_apart_as_the_rate_says():
    found = retrieval([6.0, 10.0, 0.5], [1])
    plan = plan_frames(found, fps=2.0, mode="allocate")
    np.testing.assert_allclose(plan.seconds[:2], [2.75, 3.25])
    np.testing.assert_allclose(plan.seconds[-2:], [16.125, 16.375], err_msg="both inside a short one")


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
    found = retrieval([1, 1, 9, 9, 9, 9], [2], scores=[0, 0, 1, 0, 0, 0], similarity=[0.2, 0.9, 0.9, 0.1, 0.3])
    plan = plan_frames(found, mode="allocate", token_budget=4)
    assert plan.events == (Event(0, 2), Event(2, 11), Event(11, 20), Event(20, 38))
    assert plan.shares == (1, 1, 1, 1)


def test_the_parts_of_a_long_scene_go_together_before_short_scenes_do():
    """A scene of 60 s that changes slowly, split in three, between scenes of 3 s that have nothing in common."""
    angles = np.radians([0, 90, 180, 187, 194, 270, 350])
    embeddings = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    events, _ = join_bystanders(chain(3, 3, 20, 20, 20, 3, 3), neighbour_similarity(embeddings).tolist(), [0], 5)
    assert events == list(chain(3, 3, 60, 3, 3))


def test_grids_are_told_their_events_of_which_those_that_look_alike_are_one():
    """A scene of 60 s that was split in three between scenes of 3 s; a grid is where its middle is."""
    angles = np.radians([0, 90, 91, 92, 270])
    memory = Memory(chain(3, 20, 20, 20, 3), np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32))
    seconds = np.array([0.0, 2.0, 2.0, 4.5, 20.0, 24.0, 44.0, 62.9, 63.0, 63.1, 65.0, 99.0])
    assert events_at(memory, seconds) == (0, 1, 1, 1, 2, 2)
    alone = Memory(chain(8), np.ones((1, 1), dtype=np.float32))
    assert events_at(alone, np.array([0.0, 1.0])) == (0,)


def test_kept_events_take_in_the_more_similar_neighbour_last_of_all():
    similarity = [0.1, 0.8, 0.9, 0.3, 0.2]
    assert join_bystanders(chain(1, 5, 1, 5, 1, 1), similarity, [1, 3], 5)[0] == list(chain(1, 5, 1, 5, 2))
    assert join_bystanders(chain(1, 5, 1, 5, 1, 1), similarity, [1, 3], 4) == (list(chain(1, 5, 6, 2)), [1, 2])
    assert join_bystanders(chain(1, 5, 1, 5, 1, 1), similarity, [1, 3], 2) == (list(chain(6, 8)), [0, 1])


def joined_one_by_one(events, similarity, kept, limit):
    """The definition, step by step: join the most similar neighbours that may be joined, and look again."""
    groups = [([index], index in kept) for index in range(len(events))]

    def cost(left: int) -> tuple[int, float, int]:
        (members, first_kept), (_, second_kept) = groups[left], groups[left + 1]
        return first_kept + second_kept, -similarity[members[-1]], left

    while len(groups) > limit:
        kept_ones, _, left = min(cost(left) for left in range(len(groups) - 1))
        assert kept_ones < 2
        (first, first_kept), (second, second_kept) = groups[left : left + 2]
        groups[left : left + 2] = [(first + second, first_kept or second_kept)]
    stretches = [Event(events[members[0]].start, events[members[-1]].end) for members, _ in groups]
    return stretches, [index for index, (_, is_kept) in enumerate(groups) if is_kept]


@given(retrievals(), st.integers(0, 50))
def test_joining_equals_its_definition(found, spare):
    limit = max(1, len(found.kept)) + spare
    expected = joined_one_by_one(found.events, found.neighbour_similarity, found.kept, limit)
    assert join_bystanders(found.events, found.neighbour_similarity, found.kept, limit) == expected


@given(retrievals(), st.data())
def test_joining_drops_boundaries_only_and_never_more_similar_bystanders_stay_apart(found, data):
    limit = data.draw(st.integers(len(found.kept), 45))
    events, kept = join_bystanders(found.events, found.neighbour_similarity, found.kept, limit)
    assert len(events) == min(limit, len(found.events))
    ends = {event.end for event in events}
    assert ends <= {event.end for event in found.events}
    assert (events[0].start, events[-1].end) == (found.events[0].start, found.events[-1].end)
    assert len(kept) == len(found.kept), "no two kept events are one"
    for index, original in zip(kept, found.kept, strict=True):
        assert events[index].start <= found.events[original].start < found.events[original].end <= events[index].end
    among_bystanders = [
        (found.neighbour_similarity[joint], found.events[joint].end in ends)
        for joint in range(len(found.events) - 1)
        if joint not in found.kept and joint + 1 not in found.kept
    ]
    apart = [similarity for similarity, is_apart in among_bystanders if is_apart]
    together = [similarity for similarity, is_apart in among_bystanders if not is_apart]
    assert not apart or not together or max(apart) <= min(together)


def test_joining_thousands_of_events_is_quick():
    started = time.process_time()
    events, kept = join_bystanders(chain(*[3.0] * 10_000), [0.5] * 9_999, [17, 5000], 32)
    assert time.process_time() - started < 1
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


def test_a_kept_event_that_takes_in_bystanders_is_what_is_read():
    """Of ten minutes two tokens remain: both kept events take in the rest, and still have the frames."""
    plan = plan_frames(retrieval([14, 14, 300, 272], [0, 1]), fps=2.0, max_frames=64, mode="allocate", token_budget=2)
    assert [event.end for event in plan.events] == [14.0, 600.0]
    inside = [int(((plan.seconds >= start) & (plan.seconds < start + 14)).sum()) for start in (0, 14)]
    assert min(inside) >= 28 and sum(inside) == len(plan.seconds) - 2, "one grid shows what was taken in"


@pytest.mark.parametrize(("frames", "inside"), [(2, 2), (4, 2), (6, 2), (8, 4)])
def test_with_few_frames_the_kept_event_comes_first(frames, inside):
    plan = plan_frames(retrieval([20, 4, 30], [1]), fps=2.0, max_frames=frames, mode="allocate", token_budget=1)
    assert ((plan.seconds >= 20) & (plan.seconds < 24)).sum() == inside
    assert len(plan.seconds) == frames and (np.diff(plan.seconds) >= 0).all()


def test_pictures_that_stay_are_read_once_and_others_in_their_place():
    """Two seconds of motion, then a still of 58: the motion has the frames, the still a pair."""
    starts = [*np.arange(60) / 30, 2.0]
    plan = plan_frames(retrieval([2, 58], [0, 1]), fps=2.0, max_frames=64, starts=starts)
    assert np.bincount(plan.grid_events).tolist() == [30, 1]
    assert len(np.unique(np.searchsorted(starts, plan.seconds + 1e-6, side="right"))) == 61


def test_where_pictures_follow_each_other_fast_nothing_changes():
    dense = list(np.arange(0, 60, 0.04))
    plain = plan_frames(retrieval([20, 40], [0, 1]), fps=1.0, max_frames=64)
    told = plan_frames(retrieval([20, 40], [0, 1]), fps=1.0, max_frames=64, starts=dense)
    assert (told.grid_events == plain.grid_events).all()
