"""Token counts: golden, exact and never above the budget; wrong options are named."""

import json
import os
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marc.compression.cells import Uneven, token_count
from marc.compression.config import CompressionConfig
from marc.compression.plan import VideoPlan, event_lengths, fit_into_prompt, most_grids, plan_video

GOLDEN = Path(__file__).parents[1] / "golden" / "token_counts.json"


def counts() -> dict[str, int]:
    """Visual tokens by frames, frame size in cells, events and options."""
    table = {}
    for frames in (1, 2, 8, 32, 384):
        for grid in ((2, 2), (9, 16), (16, 9), (11, 11), (1, 30)):
            for events in (1, 3, 10):
                ids = [min(frame * events // frames, events - 1) for frame in range(frames)]
                for options in (
                    {},
                    {"visual_tokens": 40},
                    {"layout": "frames"},
                    {"layout": "frames", "target_frames": 4},
                    {"layout": "frames", "target_frames": 4, "visual_tokens": 100},
                ):
                    plan = plan_video(frames, grid, CompressionConfig(**options), events=ids)
                    table[f"T={frames} grid={grid[0]}x{grid[1]} events={events} {json.dumps(options)}"] = plan.tokens
    return table


def test_token_counts_are_golden():
    if os.environ.get("MARC_UPDATE_GOLDEN") == "1":
        GOLDEN.write_text(json.dumps(counts(), indent=0) + "\n")
    assert counts() == json.loads(GOLDEN.read_text())


@given(st.integers(1, 128), st.integers(1, 20), st.integers(1, 20))
def test_one_frame_is_exactly_one_frames_tokens(frames, height, width):
    for layout in ("frames", "events"):
        plan = plan_video(frames, (height, width), CompressionConfig(layout=layout), events=[0] * frames)
        assert plan.tokens == height * width
        assert plan.centers == ((frames - 1) / 2,)


@given(
    st.integers(1, 40),
    st.integers(1, 12),
    st.integers(1, 12),
    st.integers(1, 12),
    st.sampled_from(["events", "frames"]),
    st.integers(1, 3),
    st.integers(0, 9),
    st.integers(1, 600),
    st.booleans(),
)
def test_a_plan_fits_into_the_prompt(grids, height, width, events, layout, frames, overhead, most, shared):
    """However many tokens each grid that remains costs beside its own."""
    ids = [min(grid * events // grids, events - 1) for grid in range(grids)]
    config = CompressionConfig(layout=layout, target_frames=frames)
    number = len(set(ids))
    budget = config.token_budget(height * width, number)
    shares = [1] * number if shared and budget >= number else None
    room = most_grids(most - 2, overhead)
    plan_at = partial(_plan_at, grids, (height, width), config, ids, shares, room)

    def cost(plan: VideoPlan) -> int:
        return plan.tokens + overhead * len(plan.cells) + 2

    if most < 1 + overhead + 2:
        with pytest.raises(ValueError, match=f"a budget of {most} tokens .* costs at least {1 + overhead + 2};"):
            fit_into_prompt(plan_at, cost, most)
        return
    limit = fit_into_prompt(plan_at, cost, most)
    plan = plan_at(limit)
    assert len(plan.cells) <= room
    assert overhead * len(plan.cells) <= most / 2 or len(plan.cells) == 1, "most of it is seen"
    assert cost(plan) <= most
    assert plan.tokens <= plan.budget == min(limit, budget)
    assert all(cost(plan_at(more)) > most for more in range(limit + 1, most + 1)), "the most that fits"


@given(st.lists(st.integers(1, 6), min_size=1, max_size=40), st.integers(1, 6), st.integers(1, 6), st.integers(1, 50))
def test_every_event_has_its_tokens_however_many_there_are(lengths, height, width, each):
    """Up to all that it has; then what it cannot use goes to the others."""
    ids = [event for event, length in enumerate(lengths) for _ in range(length)]
    config = CompressionConfig(tokens_per_event=each)
    plan = plan_video(len(ids), (height, width), config, events=ids)
    assert plan.tokens == min(each * len(lengths), len(ids) * height * width)
    if each <= height * width:
        assert [token_count(cells) for cells in plan.cells] == [each] * len(lengths)
    least = plan_video(len(ids), (height, width), replace(config, visual_tokens=len(lengths)), events=ids)
    assert least.tokens == len(lengths), "no more than the limit"


def test_events_that_were_retrieved_have_theirs_and_others_one():
    config = CompressionConfig(tokens_per_event=6)
    plan = plan_video(6, (4, 4), config, events=[0, 0, 1, 2, 2, 2], shares=[1, 6, 1])
    assert [token_count(cells) for cells in plan.cells] == [1, 6, 1]
    assert plan.budget == plan.tokens == 8


def test_shares_of_events_that_are_many_are_what_they_are():
    """Of 30 events with single cells one was retrieved: more than the 30 that nobody has retrieved anything of."""
    config = CompressionConfig(layout="details", tokens_per_event=4)
    plan = plan_video(30, (2, 4), config, events=range(30), shares=[4, *[1] * 29])
    assert plan.budget == plan.tokens == 33 and plan.shares == (4, *[1] * 29)
    assert plan_video(30, (2, 4), config, events=range(30)).tokens == 30
    limited = replace(config, visual_tokens=32)
    with pytest.raises(ValueError, match="sum to 33, above the budget of 32"):
        plan_video(30, (2, 4), limited, events=range(30), shares=[4, *[1] * 29])


def _plan_at(grids, size, config, ids, shares, room, tokens):
    return plan_video(grids, size, config, events=ids, shares=shares, limit=(tokens, room))


def test_timestamps_do_not_take_a_prompt_for_themselves():
    """Of 32 grids that nobody has cut into events as many are kept as leave half of the prompt to what is seen."""
    plan_at = partial(_plan_at, 32, (8, 16), CompressionConfig(visual_tokens=200), None, None, most_grids(198, 9))
    limit = fit_into_prompt(plan_at, lambda plan: plan.tokens + 9 * len(plan.cells) + 2, 200)
    plan = plan_at(limit)
    assert (len(plan.cells), plan.tokens) == (11, 99)
    assert most_grids(198, 0) == 198 and most_grids(198, 1) == 99 and most_grids(5, 9) == 1


def test_shares_are_scaled_to_what_the_prompt_has_room_for():
    config = CompressionConfig(visual_tokens=40)
    shares = [1, 30, 9]
    counts = [
        list(map(token_count, _plan_at(3, (8, 8), config, [0, 1, 2], shares, 3, limit).cells))
        for limit in (40, 20, 4, 3, 2)
    ]
    assert counts == [[1, 30, 9], [1, 15, 4], [1, 2, 1], [1, 1, 1], [1, 1]]


@st.composite
def videos(draw):
    """Grids, size and event ids of a video."""
    grids, size = draw(st.integers(1, 40)), (draw(st.integers(1, 12)), draw(st.integers(1, 12)))
    ids = draw(st.lists(st.integers(0, 9), min_size=grids, max_size=grids))
    return grids, size, sorted(ids)


@settings(max_examples=500)
@given(videos(), st.integers(1, 4000))
def test_the_event_layout_spends_its_budget_to_the_last_token(video, budget):
    grids, size, ids = video
    plan = plan_video(grids, size, CompressionConfig(visual_tokens=budget), events=ids)
    assert plan.tokens == min(budget, plan.tokens_before)
    events, whole = len(set(ids)), size[0] * size[1]
    if budget >= events:
        ends = [ids[window.start] for window in plan.windows]
        assert sorted(set(ends)) == sorted(set(ids)), "every event is seen"
        assert all(ids[start] == ids[start + length - 1] for start, length, _ in plan.windows)
        assert len(plan.cells) == events or budget > events * whole, "several grids only where one holds no more"


@settings(max_examples=500)
@given(videos(), st.integers(1, 4000), st.integers(1, 100))
def test_a_larger_budget_shows_every_event_at_least_as_finely(video, budget, more):
    """In rows and columns of the finest grid, and in grids and tokens of the event."""
    grids, size, ids = video
    budget = max(budget, len(set(ids)))
    few, many = (
        _by_event(plan_video(grids, size, CompressionConfig(visual_tokens=tokens), events=ids), ids)
        for tokens in (budget, budget + more)
    )
    for event, before in few.items():
        for resolution in (len, lambda cells: sum(map(token_count, cells)), _finest_row, _finest_column):
            assert resolution(many[event]) >= resolution(before)


def _by_event(plan, ids):
    events = {}
    for window, cells in zip(plan.windows, plan.cells, strict=True):
        events.setdefault(ids[window.start], []).append(cells)
    return events


def _finest_row(cells):
    return max(each[1] - (isinstance(each, Uneven) and each.longer > 0) for each in cells)


def _finest_column(cells):
    return max(each[0] - (isinstance(each, Uneven) and each.longer < 0) for each in cells)


@settings(max_examples=500)
@given(videos(), st.data())
def test_shares_are_spent_as_they_are_or_go_to_others_where_an_event_has_no_more_grids(video, data):
    grids, size, ids = video
    events, whole = len(set(ids)), size[0] * size[1]
    shares = data.draw(st.lists(st.integers(1, 300), min_size=events, max_size=events))
    config = CompressionConfig(visual_tokens=sum(shares))
    plan = plan_video(grids, size, config, events=ids, shares=shares)
    assert plan.tokens == min(sum(shares), plan.tokens_before)
    spent = {event: sum(map(token_count, cells)) for event, cells in _by_event(plan, ids).items()}
    rooms = [ids.count(event) * whole for event in spent]
    if all(share <= room for share, room in zip(shares, rooms, strict=True)):
        assert list(spent.values()) == shares
    else:
        assert all(own >= min(share, room) for own, share, room in zip(spent.values(), shares, rooms, strict=True))


def test_an_event_with_more_than_a_grids_tokens_is_seen_in_time():
    """By hand: 2 x 4 cells; of 18 tokens each event has a whole grid, and what is left goes to the longer one."""
    plan = plan_video(7, (2, 4), CompressionConfig(visual_tokens=18), events=[0, 0, 1, 1, 1, 1, 1])
    assert [window[:2] for window in plan.windows] == [(0, 2), (2, 4), (6, 1)]
    assert plan.cells == ((2, 4), (2, 4), (1, 2))
    assert plan.seconds([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]) == [0.5, 3.5, 6.0]


def test_a_grid_of_few_tokens_stands_for_few_grids():
    """One token beside a whole grid's 128: the last of 32 grids, not half of them."""
    plan = plan_video(32, (8, 16), CompressionConfig(visual_tokens=129), events=[0] * 32)
    assert [window[:2] for window in plan.windows] == [(0, 31), (31, 1)] and plan.cells == ((8, 16), (1, 1))
    plan = plan_video(32, (8, 16), CompressionConfig(visual_tokens=192), events=[0] * 32)
    assert [window.length for window in plan.windows] == [22, 10] and plan.tokens == 192


def test_the_published_layout_keeps_whole_grids_or_a_pooled_one():
    config = CompressionConfig(layout="frames", target_frames=4, visual_tokens=18)
    assert plan_video(32, (2, 4), config).cells == ((2, 4), (2, 4))
    assert plan_video(32, (2, 4), replace(config, visual_tokens=7)).tokens == 7


@given(st.integers(1, 30).flatmap(lambda n: st.lists(st.integers(0, 5), min_size=n, max_size=n).map(sorted)))
def test_centers_are_in_time_order_inside_the_clip(events):
    for layout in ("frames", "events"):
        plan = plan_video(len(events), (2, 2), CompressionConfig(layout=layout, target_frames=2), events=events)
        assert list(plan.centers) == sorted(plan.centers)
        assert min(plan.centers) >= 0
        assert max(plan.centers) <= len(events) - 1
        seconds = [2.0 * index for index in range(len(events))]
        assert plan.seconds(seconds) == pytest.approx([2 * center for center in plan.centers])


def test_times_of_events_are_means_of_their_frames():
    plan = plan_video(4, (2, 2), CompressionConfig(), events=[0, 0, 0, 7])
    assert plan.seconds([1.0, 2.0, 6.0, 50.0]) == [3.0, 50.0]


def test_without_events_each_grid_is_one_in_the_event_layout_and_the_video_in_the_other():
    """By hand: 6 grids of 2 x 2 cells, of which 2 frames' worth of tokens remains."""
    events = CompressionConfig(layout="events", target_frames=2)
    plan = plan_video(6, (2, 2), events)
    assert plan == plan_video(6, (2, 2), events, events=[0, 1, 2, 3, 4, 5])
    assert plan.cells == ((1, 2), (1, 2), (1, 1), (1, 1), (1, 1), (1, 1))
    assert plan.centers == (0, 1, 2, 3, 4, 5)
    frames = CompressionConfig(layout="frames", target_frames=2, window=4)
    plan = plan_video(6, (2, 2), frames)
    assert plan == plan_video(6, (2, 2), frames, events=[0] * 6)
    assert [window.length for window in plan.windows] == [4, 2]
    assert plan.cells == ((2, 2),) * 2


def test_a_whole_video_stays_as_it_is():
    plan = VideoPlan.whole(3, (2, 4))
    assert plan.tokens == plan.tokens_before == 24
    assert not plan.merges
    assert plan.seconds([0.5, 1.0, 7.0]) == [0.5, 1.0, 7.0]


def test_shares_are_kept():
    plan = plan_video(4, (4, 4), CompressionConfig(), events=[0, 1, 2, 3], shares=[12, 2, 1, 1])
    assert plan.cells == ((3, 4), (1, 2), (1, 1), (1, 1))


def test_event_ids_may_be_any_numbers():
    assert event_lengths([3, 3, 9, 12, 12], 5) == [2, 1, 2]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("layout", "grid"),
        ("merge", "max"),
        ("target_frames", 0),
        ("target_frames", 1.5),
        ("visual_tokens", -1),
        ("window", True),
        ("ratio", 0),
        ("ratio", 1.01),
        ("ratio", "half"),
    ],
)
def test_a_wrong_option_is_named(option, value):
    with pytest.raises(ValueError, match=rf"compression\.{option} must be"):
        CompressionConfig(**{option: value})


def test_an_unknown_option_is_named():
    with pytest.raises(ValueError, match="unknown compression option ration"):
        CompressionConfig.from_dict({"ration": 0.5})


def test_options_survive_json():
    config = CompressionConfig(layout="frames", target_frames=None, ratio=0.5, window=None)
    assert CompressionConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
