"""The merge against an oracle that follows the equations one pair at a time."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from marc.compression.cells import Cells, Uneven
from marc.compression.config import CompressionConfig
from marc.compression.merge import compress, compress_planned, frame_similarity
from marc.compression.plan import plan_video

SIZES = st.tuples(st.integers(1, 14), st.integers(1, 4), st.integers(1, 4), st.integers(1, 6))


def similarity(a_PD: np.ndarray, b_PD: np.ndarray) -> float:
    norms = np.linalg.norm(a_PD, axis=1) * np.linalg.norm(b_PD, axis=1)
    return float(np.mean((a_PD * b_PD).sum(1) / norms))


def merge_until(frames: list, keep: int, merge: str) -> list:
    """``frames``: (tokens [P, D], members) pairs."""
    frames = list(frames)
    while len(frames) > keep:
        scores = [similarity(a[0], b[0]) for a, b in itertools.pairwise(frames)]
        i = int(np.argmax(scores))
        (a, members_a), (b, members_b) = frames[i], frames[i + 1]
        n, m = (len(members_a), len(members_b)) if merge == "weighted" else (1, 1)
        frames[i : i + 2] = [((n * a + m * b) / (n + m), members_a + members_b)]
    return frames


def oracle(tokens_TPD: np.ndarray, config: CompressionConfig, events: list[int]) -> list:
    frames = [(tokens, [t]) for t, tokens in enumerate(tokens_TPD.astype(np.float64))]
    short_term = []
    for event in dict.fromkeys(events):
        rows = [frame for frame, e in zip(frames, events, strict=True) if e == event]
        if config.layout == "events":
            short_term += merge_until(rows, 1, config.merge)
            continue
        window = config.window or len(rows)
        for start in range(0, len(rows), window):
            chunk = rows[start : start + window]
            short_term += merge_until(chunk, math.ceil(config.ratio * len(chunk)), config.merge)
    cells = tokens_TPD.shape[1]
    budget = config.visual_tokens or config.target_frames * cells
    limit = budget if config.layout == "events" else min(config.target_frames, max(1, budget // cells))
    return merge_until(short_term, limit, config.merge)


def averaged(values: np.ndarray, count: int) -> np.ndarray:
    """Means over equal stretches of the first axis, on which each value is constant over its place."""
    sums = np.concatenate([np.zeros_like(values[:1]), values.cumsum(0)])
    edges = np.linspace(0, len(values), count + 1)
    below = np.minimum(edges.astype(int), len(values) - 1)
    part = (edges - below).reshape(-1, *[1] * (values.ndim - 1))
    return np.diff(sums[below] + part * values[below], axis=0) * count / len(values)


def pooled(image_HWD: np.ndarray, cells: Cells) -> np.ndarray:
    """``[P', D]``: strip by strip, across first and then along."""
    if isinstance(cells, Uneven) and cells.longer < 0:
        turned = pooled(image_HWD.swapaxes(0, 1), Uneven(cells.columns, cells.rows, -cells.longer))
        heights = [(2 * row + 1) / count for count in cells.strips for row in range(count)]
        return turned[np.argsort(heights, kind="stable")]
    strips = cells.strips if isinstance(cells, Uneven) else (cells[1],) * cells[0]
    rows = averaged(image_HWD, len(strips))
    return np.concatenate([averaged(row, count) for row, count in zip(rows, strips, strict=True)])


@st.composite
def cases(draw):
    frames, height, width, channels = draw(SIZES)
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    tokens = rng.normal(size=(frames, height * width, channels + 1)).astype(np.float32)
    config = CompressionConfig(
        layout=draw(st.sampled_from(["frames", "events"])),
        target_frames=draw(st.integers(1, 6)),
        visual_tokens=draw(st.none() | st.integers(1, 40)),
        ratio=draw(st.floats(0.01, 1.0)),
        window=draw(st.none() | st.integers(1, 6)),
        merge=draw(st.sampled_from(["mean", "weighted"])),
    )
    events = np.sort(rng.integers(0, draw(st.integers(1, 5)), size=frames)).tolist()
    return tokens, (height, width), config, events


@settings(max_examples=1000)
@given(cases())
def test_equals_the_oracle(case):
    tokens, grid, config, events = case
    got = compress(torch.from_numpy(tokens), config, events=events, size=grid)
    windows = plan_video(len(tokens), grid, config, events=events).windows
    parts = [index for index, window in enumerate(windows) for _ in range(window.length)]
    want = oracle(tokens, config, parts if config.layout == "events" else events)
    members = [index for index, (_, group) in enumerate(want) for _ in group]
    assert got.members.tolist() == members
    assert len(got.grids) == len(want)
    for frame, cells, (tokens_PD, _) in zip(got.grids, got.cells, want, strict=True):
        expected = pooled(tokens_PD.reshape(*grid, -1), cells)
        torch.testing.assert_close(frame.double(), torch.from_numpy(expected), atol=1e-5, rtol=0)


@settings(max_examples=300)
@given(cases())
def test_token_count_is_planned_and_within_the_budget(case):
    tokens, grid, config, events = case
    plan = plan_video(len(tokens), grid, config, events=events)
    got = compress(torch.from_numpy(tokens), config, events=events, size=grid)
    assert len(got.flat) == plan.tokens
    assert plan.tokens <= (config.visual_tokens or config.target_frames * grid[0] * grid[1])
    if config.layout == "events":
        assert plan.tokens == min(plan.budget, plan.tokens_before)
    torch.testing.assert_close(got.weights.sum(1), torch.ones(len(got.grids)))
    assert ((got.weights > 0).sum(0) == 1).all(), "every frame is in exactly one merged frame"
    assert got.members.diff().ge(0).all(), "time order is kept"


@pytest.mark.parametrize("merge", ["mean", "weighted"])
@pytest.mark.parametrize("layout", ["frames", "events"])
def test_a_batch_equals_its_videos_one_by_one(layout, merge):
    tokens = torch.randn(5, 12, 6, 8)
    config = CompressionConfig(layout=layout, merge=merge, target_frames=2, window=4, ratio=0.5)
    plan = plan_video(12, (2, 3), config, events=[0] * 5 + [1] * 7)
    together = compress_planned(tokens, plan)
    for video, batched in zip(tokens, together, strict=True):
        torch.testing.assert_close(compress_planned(video[None], plan)[0].flat, batched.flat)


def test_ties_go_to_the_earliest_pair():
    a, b = torch.eye(2)[0].expand(4, 2), torch.eye(2)[1].expand(4, 2)
    still = torch.stack([a, a, b, b, a, a])
    config = CompressionConfig(layout="frames", target_frames=5, ratio=1.0)
    assert compress(still, config).members.tolist() == [0, 0, 1, 2, 3, 4]


def test_a_static_clip_stays_what_it_is():
    still = torch.randn(1, 6, 8).expand(20, -1, -1)
    for layout in ("frames", "events"):
        got = compress(still, CompressionConfig(layout=layout), events=[0] * 20, size=(2, 3))
        torch.testing.assert_close(got.flat, still[0], atol=1e-6, rtol=1e-6)


def test_gradients_are_the_weights():
    tokens = torch.randn(9, 4, 3, requires_grad=True)
    got = compress(tokens, CompressionConfig(layout="frames", target_frames=2))
    got.tokens[1].sum().backward()
    torch.testing.assert_close(tokens.grad, got.weights[1][:, None, None].expand_as(tokens))


class NoSynchronisation(TorchDispatchMode):
    """Refuses every operation whose result the host would have to wait for."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func.overloadpacket not in (torch.ops.aten._local_scalar_dense, torch.ops.aten.nonzero), func
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("merge", ["mean", "weighted"])
@pytest.mark.parametrize("budget", [3, 11])
@pytest.mark.parametrize("layout", ["frames", "events"])
def test_the_host_never_waits_for_the_device(layout, budget, merge):
    tokens = torch.randn(1, 12, 6, 8)
    config = CompressionConfig(layout=layout, merge=merge, target_frames=2, window=4, ratio=0.5, visual_tokens=budget)
    plan = plan_video(12, (2, 3), config, events=[0] * 2 + [1] * 3 + [2] * 3 + [3] * 4)
    with NoSynchronisation():
        compress_planned(tokens, plan)
    with pytest.raises(AssertionError), NoSynchronisation():
        tokens.sum().item()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("layout", ["frames", "events"])
def test_on_a_gpu_the_host_never_waits(layout):
    tokens = torch.randn(2, 12, 6, 8, device="cuda")
    config = CompressionConfig(layout=layout, target_frames=2, window=4)
    plan = plan_video(12, (2, 3), config, events=[0] * 2 + [1] * 3 + [2] * 3 + [3] * 4)
    compress_planned(tokens, plan)
    torch.cuda.set_sync_debug_mode("error")
    try:
        compress_planned(tokens, plan)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_bfloat16_keeps_its_type_and_decides_in_float32():
    tokens = torch.randn(16, 4, 32).bfloat16()
    config = CompressionConfig(layout="frames", target_frames=3)
    low, high = compress(tokens, config), compress(tokens.float(), config)
    assert low.flat.dtype == torch.bfloat16
    assert torch.equal(low.members, high.members)
    torch.testing.assert_close(low.flat.float(), high.flat, atol=0.02, rtol=0.02)


@pytest.mark.parametrize("merge", ["mean", "weighted"])
def test_autocast_changes_nothing(merge):
    tokens = torch.randn(16, 4, 32)
    config = CompressionConfig(layout="frames", target_frames=3, merge=merge)
    with torch.autocast("cpu", torch.bfloat16):
        cast = compress(tokens, config)
    assert torch.equal(cast.flat, compress(tokens, config).flat)


def test_uneven_cells_average_in_full_precision_whatever_was_asked_before():
    """Of a grid of ones each cell is one, in bfloat16 and under autocast; and after inference there are gradients."""
    config = CompressionConfig(visual_tokens=5)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        ones = compress(torch.ones(2, 42, 3, dtype=torch.bfloat16), config, events=[0, 0], size=(6, 7))
        exact = compress(torch.full((2, 42, 3), 1.001), config, events=[0, 0], size=(6, 7))
    assert torch.equal(ones.flat, torch.ones(5, 3, dtype=torch.bfloat16))
    torch.testing.assert_close(exact.flat, torch.full((5, 3), 1.001), rtol=1e-6, atol=0)
    tokens = torch.ones(2, 42, 3, requires_grad=True)
    compress(tokens, config, events=[0, 0], size=(6, 7)).flat.sum().backward()
    assert tokens.grad.sum() == pytest.approx(15)


def test_a_cell_averages_what_it_covers():
    """By hand: three places as two cells, each of one and a half."""
    got = compress(torch.tensor([[[0.0], [3.0], [9.0]]]), CompressionConfig(visual_tokens=2), size=(1, 3))
    assert got.flat.tolist() == [[pytest.approx(1)], [pytest.approx(7)]]


def test_similarity_has_the_shape_of_its_batch():
    a, b = torch.randn(2, 3, 4, 8), torch.randn(2, 3, 4, 8)
    got = frame_similarity(a, b)
    assert got.shape == (2, 3)
    assert got[1, 2].item() == pytest.approx(similarity(a[1, 2].double().numpy(), b[1, 2].double().numpy()), abs=1e-6)


def test_unequal_shares_give_frames_of_unequal_size():
    tokens = torch.randn(6, 16, 3)
    got = compress(tokens, CompressionConfig(), events=[0, 0, 1, 1, 2, 2], shares=[9, 6, 1])
    assert got.cells == ((3, 3), (2, 3), (1, 1))
    assert len(got.flat) == 16
    uneven = compress(tokens, CompressionConfig(), events=[0, 0, 1, 1, 2, 2], shares=[8, 5, 3])
    assert uneven.cells == (Uneven(3, 3, -2), Uneven(2, 3, 1), Uneven(2, 2, -1))
    assert len(uneven.flat) == 16
    with pytest.raises(ValueError, match="differ in size"):
        _ = got.tokens


def test_turned_off_it_returns_the_frames():
    tokens = torch.randn(3, 4, 2)
    assert torch.equal(compress(tokens, CompressionConfig(target_frames=None)).tokens, tokens)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"events": [0, 1]}, "one event id per temporal grid"),
        ({"events": [0, 1, 0, 1]}, "go back in time"),
        ({"events": [0, 0, 1, 1], "shares": [1]}, "one share per event"),
        ({"events": [0, 0, 1, 1], "shares": [9, 9]}, "above the budget of 4"),
        ({"events": [0, 0, 1, 1], "shares": [0, 2]}, "at least 1"),
        ({"size": (3, 3)}, "does not hold P = 4"),
    ],
)
def test_what_does_not_fit_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        compress(torch.randn(4, 4, 2), CompressionConfig(), **arguments)


def test_needs_three_dimensions():
    with pytest.raises(ValueError, match=r"\[T, P, D\]"):
        compress(torch.randn(4, 4), CompressionConfig())
