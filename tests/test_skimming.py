from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import av
import numpy as np
import pytest
from make_videos import write_video

from marc.memory.detectors.transnetv2 import TransNetV2Detector
from marc.memory.shots import find_shots
from marc.types import Frames
from marc.video import EveryFrame, LeftOut, SampledFrames, VideoError, groups, read_to, skim_to
from marc.video.changes import HEAD
from marc.video.decoding import open_video
from marc.video.skimming import Skimmer, Skipped, can_skim

FPS = 25
WIDTH, HEIGHT = 320, 192
FIXED = {"x264-params": "keyint=25:min-keyint=25:scenecut=0", "crf": "23", "preset": "veryfast"}
OPEN = {"x264-params": "keyint=25:min-keyint=25:scenecut=0:open-gop=1:bframes=3:b-adapt=0", "crf": "23"}
PADDED = {"x264-params": "keyint=25:scenecut=0:nal-hrd=cbr:bitrate=2500:vbv-maxrate=2500:vbv-bufsize=2500:filler=1"}
HEVC = {"x265-params": "keyint=25:log-level=none", "crf": "24", "preset": "ultrafast"}
VP9 = {"g": "25", "crf": "33", "b": "0", "deadline": "realtime", "cpu-used": "8"}
AV1 = {"g": "25", "crf": "38", "preset": "11"}

Pictures = np.ndarray


def place(seed: int, margin: int = 0) -> Pictures:
    """A picture of blocks of all sizes; the camera can move in it by a margin."""
    rng = np.random.default_rng(seed)
    height, width = HEIGHT + margin, WIDTH + margin
    picture = np.zeros((height, width, 3))
    for size in (64, 32, 16, 8):
        blocks = rng.integers(-60, 60, (height // size + 2, width // size + 2, 3))
        picture += blocks.repeat(size, axis=0).repeat(size, axis=1)[3 : height + 3, 3 : width + 3]
    return np.clip(128 + picture, 0, 255).astype(np.uint8)


def still(seed: int, count: int) -> Pictures:
    return np.repeat(place(seed)[None], count, axis=0)


def page(letters: int) -> Pictures:
    """A white page with some large letters in a row."""
    rng, picture = np.random.default_rng(7), np.full((HEIGHT, WIDTH, 3), 240, np.uint8)
    for letter in range(letters):
        bits = rng.integers(0, 2, (5, 4, 1), dtype=np.uint8).repeat(4, axis=0).repeat(4, axis=1)
        row, column = 20 + 30 * (letter // 12), 20 + 22 * (letter % 12)
        picture[row : row + 20, column : column + 16] -= 200 * bits
    return picture


def blend(first: Pictures, second: Pictures, count: int) -> Pictures:
    share = np.arange(1, count + 1)[:, None, None, None] / (count + 1)
    return (first * (1 - share) + second * share).astype(np.uint8)


def skimmed(path: Path) -> tuple[set[int], int]:
    """Which frames a skimmer gives, by their number, and how many there are; it tells of each once, and is right."""
    with open_video(str(path)) as reader:
        whole = {
            round(picture.seconds, 6): picture.frame.to_ndarray(format="gray") for picture in reader.pictures_from(0)
        }
    times, given = list(whole), set()
    with open_video(str(path)) as reader:
        assert can_skim(reader)
        told: list[float] = []
        for event in Skimmer(reader).pictures():
            if isinstance(event, Skipped):
                assert len(event.frames.seconds)
                told += np.round(event.frames.seconds, 6).tolist()
            else:
                told.append(round(event.seconds, 6))
                assert event.frame.pts is not None
                own = round(reader.seconds_at(event.frame.pts), 6)
                np.testing.assert_array_equal(event.frame.to_ndarray(format="gray"), whole[own])
                assert own == told[-1] or event.frame.key_frame, "a key picture may stand for what is just before it"
                given.add(times.index(told[-1]))
    assert told == times
    return given, len(times)


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("fixed.mp4", "libx264", FIXED),
        ("no_b.mp4", "libx264", FIXED | {"bf": "0"}),
        ("open.mp4", "libx264", OPEN),
        ("open.mkv", "libx264", OPEN),
        ("open.ts", "libx264", OPEN),
        ("hevc.mp4", "libx265", HEVC),
        ("vp9.webm", "libvpx-vp9", VP9),
        ("av1.mkv", "libsvtav1", AV1),
        ("fragmented.mp4", "libx264", FIXED),
        ("mpeg4.mp4", "mpeg4", {"g": "25", "bf": "2", "b": "1500k"}),
        ("mpeg2.ts", "mpeg2video", {"g": "25", "bf": "2", "b": "3000k"}),
    ],
)
def test_still_groups_are_not_decoded_and_what_is_around_a_cut_is(
    tmp_path: Path, name: str, codec: str, options: dict
):
    frames = np.concatenate([still(1, 110), still(2, 140)])
    container = {"movflags": "frag_keyframe+empty_moov"} if name.startswith("fragmented") else None
    write_video(tmp_path / name, frames, FPS, codec, options=options, container_options=container)
    given, count = skimmed(tmp_path / name)
    assert count == 250
    assert set(range(100, 110 + HEAD)) <= given, "from the key frame before the cut on"
    assert len(given) < 150


def test_times_count_from_the_first_picture_wherever_the_clock_starts(tmp_path: Path):
    write_video(tmp_path / "late.mkv", still(1, 150), FPS, options=FIXED, offset=1.4)
    given, count = skimmed(tmp_path / "late.mkv")
    assert (len(given) < 60, count) == (True, 150)
    write_video(tmp_path / "turned.mp4", still(1, 150), FPS, options=FIXED, rotation=90)
    taken = Listener(SampledFrames(2.0, 10_000))
    skim_to(tmp_path / "turned.mp4", [taken])
    assert {rgb.shape[0] > rgb.shape[1] for rgb in taken.rgb} == {True}


def insert(count: int) -> Pictures:
    """Something else is shown for some frames in the middle of a group."""
    frames = still(1, 200)
    frames[110 : 110 + count] = place(2)
    return frames


@pytest.mark.parametrize("count", [1, 4, 12])
@pytest.mark.parametrize(("name", "codec", "options"), [("a.mp4", "libx264", FIXED), ("a.webm", "libvpx-vp9", VP9)])
def test_what_comes_and_goes_inside_a_group_is_seen(
    tmp_path: Path, count: int, name: str, codec: str, options: dict[str, str]
):
    write_video(tmp_path / name, insert(count), FPS, codec, options=options)
    given, _ = skimmed(tmp_path / name)
    assert set(range(100, 125)) <= given
    assert len(given) < 150


def test_packets_that_are_padded_to_one_size_say_nothing(tmp_path: Path):
    write_video(tmp_path / "padded.ts", insert(6), FPS, options=PADDED)
    given, _ = skimmed(tmp_path / "padded.ts")
    assert set(range(100, 125)) <= given


def test_a_page_that_gets_other_letters_inside_a_group_is_decoded_there(tmp_path: Path):
    frames = np.stack([page(30)] * 110 + [page(36)] * 90)
    write_video(tmp_path / "pages.mp4", frames, FPS, options=FIXED)
    given, _ = skimmed(tmp_path / "pages.mp4")
    assert given & set(range(110, 126)), "the new letters are seen at the next key frame at the latest"
    assert len(given) < 150
    frames = np.stack([page(30)] * 110 + [page(4)] * 90)
    write_video(tmp_path / "another.mp4", frames, FPS, options=FIXED)
    assert set(range(100, 126)) <= skimmed(tmp_path / "another.mp4")[0]


@pytest.mark.parametrize(
    ("middle", "options"),
    [
        (blend(place(1), place(2), 50), FIXED),
        (blend(place(1), place(2), 100), FIXED),
        (np.concatenate([blend(place(1), 0 * place(1), 12), blend(0 * place(2), place(2), 12)]), FIXED),
        (np.concatenate([blend(place(1), 0 * place(1), 10), np.zeros((8, HEIGHT, WIDTH, 3), np.uint8)]), OPEN),
    ],
    ids=["dissolve", "slow dissolve", "fade", "to black"],
)
def test_slow_transitions_are_decoded_whole(tmp_path: Path, middle: Pictures, options: dict[str, str]):
    frames = np.concatenate([still(1, 115), middle, still(2, 110)])
    write_video(tmp_path / "slow.mp4", frames, FPS, options=options)
    given, count = skimmed(tmp_path / "slow.mp4")
    faint = 10 if len(middle) == 100 else 0
    assert set(range(115 + faint, 115 + len(middle))) <= given
    assert len(given) < count - 60


def panned(pixels: Sequence[int], down: int = 0) -> Pictures:
    """What a camera shows that has moved by so many pixels to the right, and by ``down`` times as many downwards."""
    wide = place(3, margin=max(pixels) + 1)
    views = [wide[down * step : down * step + HEIGHT, step : step + WIDTH] for step in pixels]
    return np.stack(views)


def test_a_slow_camera_is_passed_over_and_a_fast_one_is_not(tmp_path: Path):
    write_video(tmp_path / "slow.mp4", panned(range(200)), FPS, options=FIXED)
    write_video(tmp_path / "fast.mp4", panned([8 * step for step in range(200)]), FPS, options=FIXED)
    assert len(skimmed(tmp_path / "slow.mp4")[0]) < 150
    assert len(skimmed(tmp_path / "fast.mp4")[0]) == 200


@pytest.mark.parametrize(
    ("pixels", "down"),
    [
        ([0] * 200, 0),
        (range(200), 0),
        (range(0, 400, 2), 0),
        (range(0, 800, 2), 1),
        ([0] * 60 + [*range(140)], 0),
    ],
    ids=["still", "slow", "fast", "far away", "later"],
)
def test_a_camera_that_moves_in_the_only_group_is_decoded_to_the_end(tmp_path: Path, pixels: Sequence[int], down: int):
    options = {"x264-params": "keyint=infinite:scenecut=0", "preset": "veryfast"}
    write_video(tmp_path / "only.mp4", panned(pixels, down), FPS, options=options)
    given, count = skimmed(tmp_path / "only.mp4")
    assert len(given) == count if max(pixels) else given == {0}


@pytest.mark.parametrize(("at", "rows"), [(3, 30), (40, HEIGHT)], ids=["a detail", "a flash"])
def test_what_is_brief_hides_no_camera_that_moves_later_in_the_only_group(tmp_path: Path, at: int, rows: int):
    frames = panned([0] * 100 + [*range(140)])
    frames[at : at + 3, :rows, :rows] = place(9)[:rows, :rows]
    options = {"x264-params": "keyint=infinite:scenecut=0", "preset": "veryfast"}
    write_video(tmp_path / "only.mp4", frames, FPS, options=options)
    given, count = skimmed(tmp_path / "only.mp4")
    assert set(range(110, count)) <= given


@pytest.mark.parametrize("rate", [5, 8, 12, 15])
@pytest.mark.parametrize("key", [50, 100])
def test_pictures_that_are_decoded_again_are_no_new_clock(tmp_path: Path, rate: int, key: int):
    """What the first pictures of a group do not settle is decoded from its start, where the time falls back to."""
    frames = np.concatenate([panned([8 * step for step in range(100)]), panned([8 * step for step in range(100)], 1)])
    options = {"x264-params": f"keyint={key}:min-keyint={key}:scenecut=0", "preset": "veryfast"}
    write_video(tmp_path / "again.mp4", frames, rate, options=options)
    given, count = skimmed(tmp_path / "again.mp4")
    assert given == set(range(count))


@pytest.mark.parametrize("moves", [False, True])
def test_the_last_group_of_a_still_shot_is_decoded_only_if_the_camera_begins_to_move(tmp_path: Path, moves: bool):
    last = panned([8 * step for step in range(100)]) if moves else panned([0] * 100)
    frames = np.concatenate([panned([0] * 300), last])
    options = {"x264-params": "keyint=150:min-keyint=150:scenecut=0", "preset": "veryfast"}
    write_video(tmp_path / "last.mp4", frames, FPS, options=options)
    given, _ = skimmed(tmp_path / "last.mp4")
    assert (max(given) == 399) == moves and len(given & set(range(300))) < 40


def test_a_cut_between_two_views_of_a_place_is_decoded(tmp_path: Path):
    wide = place(3, margin=100)
    views = [wide[:HEIGHT, :WIDTH], wide[:HEIGHT, 60 : 60 + WIDTH]]
    frames = np.repeat(np.stack(views), 150, axis=0)
    options = {"x264-params": "keyint=150:min-keyint=150:scenecut=0", "preset": "veryfast"}
    write_video(tmp_path / "views.mp4", frames, FPS, options=options)
    assert set(range(150 + HEAD)) <= skimmed(tmp_path / "views.mp4")[0]


def test_a_camera_that_moves_away_and_a_cut_back_to_where_it_began_are_decoded(tmp_path: Path):
    wide = place(3, margin=200)
    views = np.stack([wide[:HEIGHT, step : step + WIDTH] for step in range(150)])
    options = {"x264-params": "keyint=150:min-keyint=150:scenecut=0", "preset": "veryfast"}
    write_video(tmp_path / "back.mp4", np.concatenate([views, views[:100]]), FPS, options=options)
    assert set(range(150 + HEAD)) <= skimmed(tmp_path / "back.mp4")[0]


def noise() -> Pictures:
    return np.random.default_rng(0).integers(0, 256, (60, HEIGHT, WIDTH, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("name", "codec", "frames", "options"),
    [
        ("intra.mov", "mjpeg", still(1, 60), {}),
        ("noise.mp4", "libx264", noise(), FIXED),
        ("refreshed.mp4", "libx264", still(1, 60), {"x264-params": "keyint=24:intra-refresh=1"}),
    ],
)
def test_where_packets_do_not_tell_everything_is_decoded(
    tmp_path: Path, name: str, codec: str, frames: Pictures, options: dict[str, str]
):
    pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    write_video(tmp_path / name, frames, FPS, codec, options=options, pix_fmt=pix_fmt)
    assert skimmed(tmp_path / name) == (set(range(60)), 60)


@pytest.mark.parametrize("cut", [None, 130])
def test_of_a_single_group_what_comes_after_the_last_change_is_left_out(tmp_path: Path, cut: int | None):
    frames = still(1, 200)
    if cut is not None:
        frames[cut:] = still(2, 200 - cut)
    options = {"x264-params": "keyint=infinite:scenecut=0"}
    write_video(tmp_path / "one.mp4", frames, FPS, options=options)
    given, count = skimmed(tmp_path / "one.mp4")
    if cut is None:
        assert given == {0}
    else:
        assert len(given) == count, "there is no later key frame to compare with"


LONG = {
    "h264": ("libx264", {"x264-params": "keyint=128:min-keyint=128:scenecut=0", "preset": "veryfast"}),
    "h264 without B": ("libx264", {"x264-params": "keyint=128:min-keyint=128:scenecut=0:bframes=0"}),
    "hevc": ("libx265", {"x265-params": "keyint=128:scenecut=0:log-level=none", "preset": "ultrafast"}),
    "vp9": ("libvpx-vp9", VP9 | {"g": "128"}),
    "vp9 with lag": ("libvpx-vp9", {"g": "128", "crf": "33", "b": "0", "deadline": "good", "cpu-used": "5"}),
    "av1": ("libsvtav1", AV1 | {"g": "128"}),
    "av1 in deeper layers": ("libsvtav1", {"g": "128", "crf": "38", "preset": "8"}),
}
"""Encodings with key frames at fixed distances."""


def written(path: Path, places: Sequence[tuple[int, int]], codec: str, options: dict[str, str]) -> Path:
    """A video that shows places, each for so many frames, with something that moves in front of them."""
    frames = np.concatenate([still(seed, count) for seed, count in places])
    for number, frame in enumerate(frames):
        left = number % (WIDTH - 16)
        frame[80:96, left : left + 16] = 255
    write_video(path, frames, FPS, codec, options=options)
    return path


def cuts(path: Path) -> list[tuple[int, int]]:
    found = find_shots(path, TransNetV2Detector()).transitions
    return [(round(each.start * FPS), round(each.end * FPS)) for each in found]


@pytest.mark.parametrize("name", LONG)
def test_of_a_group_with_a_cut_inside_two_pictures_are_given(tmp_path: Path, name: str):
    path = written(tmp_path / "clip.mkv", [(1, 203), (2, 97), (2, 100)], *LONG[name])
    given, _ = skimmed(path)
    assert 203 in given
    assert not given & {*range(129, 203), *range(204, 256)}, "nothing around the cut is given but what follows it"
    assert cuts(path) == [(202, 203)]


@pytest.mark.parametrize("name", LONG)
def test_two_cuts_inside_a_group_and_one_at_its_end_are_found(tmp_path: Path, name: str):
    inside = written(tmp_path / "inside.mkv", [(1, 180), (2, 40), (3, 180)], *LONG[name])
    assert cuts(inside) == [(179, 180), (219, 220)]
    at_end = written(tmp_path / "end.mkv", [(1, 190), (2, 66), (3, 144)], *LONG[name])
    assert cuts(at_end) == [(189, 190), (255, 256)]


@pytest.mark.parametrize("name", LONG)
def test_flashes_and_what_is_there_for_a_moment_are_told_from_a_cut_inside_a_group(tmp_path: Path, name: str):
    frames = still(1, 400)
    frames[190:193] = 255 - (255 - frames[190:193]) // 3
    write_video(tmp_path / "flash.mkv", frames, FPS, LONG[name][0], options=LONG[name][1])
    with open_video(str(tmp_path / "flash.mkv")) as reader:
        told = [event.frames.then for event in Skimmer(reader).pictures() if isinstance(event, Skipped)]
    assert "cut" not in told
    insert = written(tmp_path / "insert.mkv", [(1, 190), (2, 30), (1, 180)], *LONG[name])
    assert cuts(insert) == [(189, 190), (219, 220)]


IN_ORDER = ["h264 without B", "vp9", "vp9 with lag"]


@pytest.mark.parametrize("name", IN_ORDER)
def test_a_cut_just_before_a_key_picture_is_told_by_one_large_packet(tmp_path: Path, name: str):
    path = written(tmp_path / "clip.mkv", [(1, 240), (2, 160)], *LONG[name])
    with open_video(str(path)) as reader:
        given = [event for event in Skimmer(reader).pictures() if not isinstance(event, Skipped)]
        (behind,) = [event for event in given if 239.5 < event.seconds * FPS < 240.5]
        assert behind.frame.pts is not None
        assert reader.seconds_at(behind.frame.pts) == pytest.approx(256 / FPS), "nothing of the group was decoded"
    assert cuts(path) == [(239, 240)]


@pytest.mark.parametrize("name", IN_ORDER)
@pytest.mark.parametrize(
    "middle",
    [
        [still(1, 80), still(3, 20), still(2, 100)],
        [still(1, 106), blend(place(1), place(2), 6), still(2, 88)],
        [still(1, 100), 255 - (255 - still(1, 2)) // 3, still(1, 14), still(2, 84)],
    ],
    ids=["two cuts", "dissolve", "flash and cut"],
)
def test_more_than_a_cut_just_before_a_key_picture_is_decoded(tmp_path: Path, name: str, middle: list[Pictures]):
    frames = np.concatenate([still(1, 140), *middle, still(2, 60)])
    codec, options = LONG[name]
    write_video(tmp_path / "clip.mkv", frames, FPS, codec, options=options)
    assert set(range(225, 256)) <= skimmed(tmp_path / "clip.mkv")[0]


def test_a_part_that_changes_inside_a_long_group_is_looked_at_without_being_given(tmp_path: Path):
    frames = still(1, 400)
    frames[190:, :110, :170] = place(2)[:110, :170]
    write_video(tmp_path / "part.mp4", frames, FPS, LONG["h264"][0], options=LONG["h264"][1])
    assert skimmed(tmp_path / "part.mp4")[0] - {*range(384, 400)} == {0, 256}


@pytest.mark.parametrize("letters", [33, 48])
def test_few_new_letters_are_no_way_back_from_something_else(tmp_path: Path, letters: int):
    frames = np.stack([page(30)] * 350 + [page(letters)] * 350)
    options = {"x264-params": "keyint=250:min-keyint=250:scenecut=0:bframes=0", "preset": "veryfast"}
    write_video(tmp_path / "letters.mp4", frames, FPS, options=options)
    with open_video(str(tmp_path / "letters.mp4")) as reader:
        list(Skimmer(reader).pictures())
        assert (reader.decoded.frames < 3 * HEAD) == (letters == 33)


def test_a_cut_at_a_key_frame_of_a_long_still_group_needs_no_decoding_in_front_of_it(tmp_path: Path):
    write_video(tmp_path / "clip.mp4", np.concatenate([still(1, 150), still(2, 150)]), FPS, options={"g": "250"})
    with open_video(str(tmp_path / "clip.mp4")) as reader:
        left_out = [event.frames for event in Skimmer(reader).pictures() if isinstance(event, Skipped)]
    assert [each.then for each in left_out] == ["cut", "same"]
    np.testing.assert_allclose(left_out[0].seconds[-1], 149 / FPS, atol=1e-6)
    found = find_shots(tmp_path / "clip.mp4", TransNetV2Detector()).transitions
    assert [(round(each.start * FPS), round(each.end * FPS)) for each in found] == [(149, 150)]


def test_a_light_that_is_switched_at_a_key_frame_is_decoded(tmp_path: Path):
    frames = still(1, 300)
    frames[150:] //= 3
    options = {"x264-params": "keyint=150:min-keyint=150:scenecut=0"}
    write_video(tmp_path / "light.mp4", frames, FPS, options=options)
    assert set(range(150)) <= skimmed(tmp_path / "light.mp4")[0]


def test_a_group_that_is_too_large_to_wait_for_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_video(tmp_path / "clip.mp4", still(1, 150), FPS, options=FIXED)
    assert len(skimmed(tmp_path / "clip.mp4")[0]) < 60
    monkeypatch.setattr(groups, "MOST_BYTES", 100)
    assert len(skimmed(tmp_path / "clip.mp4")[0]) == 150


def test_files_whose_packets_tell_no_times_cannot_be_skimmed(tmp_path: Path):
    write_video(tmp_path / "clip.avi", still(1, 60), FPS, options=FIXED)
    write_video(tmp_path / "clip.h264", still(1, 60), FPS, options=FIXED)
    write_video(tmp_path / "held.mp4", still(1, 4), FPS, seconds=[0.0, 2.0, 2.5, 9.0])
    for path in tmp_path.iterdir():
        with open_video(str(path)) as reader:
            assert not can_skim(reader), path


class Listener:
    """Keeps what is pushed to it, and the times of what is left out."""

    def __init__(self, request) -> None:
        self.request = request
        self.seconds: list[float] = []
        self.left_out: list[float] = []
        self.rgb: list[np.ndarray] = []

    def consume(self, frames: Frames) -> None:
        self.seconds += frames.seconds.tolist()
        self.rgb += list(frames.rgb)

    def skip(self, frames: LeftOut) -> None:
        self.left_out += frames.seconds.tolist()


def test_who_wants_some_frames_gets_stand_ins_and_who_wants_all_is_told(tmp_path: Path):
    write_video(tmp_path / "clip.mp4", np.concatenate([still(1, 200), still(2, 100)]), FPS, options=FIXED)
    some, every = Listener(SampledFrames(2.0, 20_000)), Listener(EveryFrame(48, 27))
    skim_to(tmp_path / "clip.mp4", [some, every])
    np.testing.assert_allclose(some.seconds, [1, 3, 5, 7, 9, 11], atol=1e-6)
    assert np.array_equal(some.rgb[1], some.rgb[2]), "the same stand-in, which need not be embedded again"
    assert not np.array_equal(some.rgb[3], some.rgb[4])
    np.testing.assert_allclose(sorted(every.seconds + every.left_out), np.arange(300) / FPS, atol=1e-6)
    assert len(every.left_out) > 150
    read = Listener(EveryFrame(48, 27))
    read_to(tmp_path / "clip.mp4", [read])
    assert not read.left_out


def damaged(path: Path, copy: Path, changed: Callable[[bytearray], None]) -> Path:
    content = bytearray(path.read_bytes())
    changed(content)
    copy.write_bytes(content)
    return copy


def test_damage_in_what_is_decoded_and_a_file_that_was_cut_off_are_refused_as_ever(tmp_path: Path):
    frames = np.concatenate([still(1, 110), still(2, 140)])
    write_video(tmp_path / "clip.mkv", frames, FPS, "libvpx-vp9", options=VP9)
    data = (tmp_path / "clip.mkv").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(data[: len(data) // 2])
    for read in (read_to, skim_to):
        with pytest.raises(VideoError, match="is cut off after"):
            read(tmp_path / "cut.mkv", [Listener(EveryFrame(48, 27))])
    start = data.index(bytes.fromhex("1f43b675"), len(data) // 2)
    (tmp_path / "broken.mkv").write_bytes(data[: start + 40] + bytes(4000) + data[start + 4040 :])
    messages = []
    for read in (read_to, skim_to):
        with pytest.raises(VideoError) as caught:
            read(tmp_path / "broken.mkv", [Listener(EveryFrame(48, 27))])
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


def keyed(every: int, more: str = "bframes=3:b-adapt=0") -> dict[str, str]:
    """Key pictures at a fixed distance."""
    params = f"keyint={every}:min-keyint={every}:scenecut=0:{more}"
    return {"x264-params": params, "preset": "veryfast"}


@pytest.mark.parametrize("more", ["bframes=3:b-adapt=0", "bframes=0", "open-gop=1:bframes=3:b-adapt=0"])
@pytest.mark.parametrize("every", [10, 16])
def test_nothing_is_passed_over_while_the_decoder_holds_pictures(tmp_path: Path, every: int, more: str):
    """Behind a short group that is decoded whole, for what comes behind a cut, there is another quiet one."""
    busy = np.random.default_rng(0).integers(0, 256, (2 * every, HEIGHT, WIDTH, 3), dtype=np.uint8)
    frames = np.concatenate([busy, still(1, 2 * every), still(2, 6 * every)])
    write_video(tmp_path / "short.mp4", frames, FPS, options=keyed(every, more))
    skimmed(tmp_path / "short.mp4")
    shots = find_shots(tmp_path / "short.mp4", TransNetV2Detector(device="cpu"))
    assert shots.duration == pytest.approx(len(frames) / FPS)
    assert shots.boundaries[-1] == pytest.approx(4 * every / FPS)


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        (
            "cut.mp4",
            "libx265",
            {"x265-params": "keyint=50:scenecut=0:log-level=none:bframes=0", "preset": "ultrafast"},
        ),
        ("cut.mp4", "libx264", keyed(50, "bframes=0")),
    ],
)
def test_a_cut_right_behind_a_key_picture(tmp_path: Path, name: str, codec: str, options: dict[str, str]):
    write_video(tmp_path / name, np.concatenate([still(1, 101), still(2, 149)]), FPS, codec, options=options)
    skimmed(tmp_path / name)
    shots = find_shots(tmp_path / name, TransNetV2Detector(device="cpu"))
    assert shots.boundaries == pytest.approx([101 / FPS])


@pytest.mark.parametrize("ending", ["flv", "mp4", "mkv"])
def test_files_that_go_on_with_a_new_clock_are_read_to_their_end(tmp_path: Path, ending: str):
    """As cameras and capture programs join them: whole files, fragments or clusters one behind the other."""
    about = {"flv": {}, "mp4": {"movflags": "frag_keyframe+empty_moov+default_base_moof"}, "mkv": {"live": "1"}}[
        ending
    ]
    parts = []
    for seed, count in ((1, 100), (2, 75)):
        path = tmp_path / f"{seed}.{ending}"
        write_video(path, still(seed, count), FPS, options=keyed(25), container_options=about)
        parts.append(path.read_bytes())
    begins = {"flv": 13, "mp4": parts[1].find(b"moof") - 4, "mkv": parts[1].find(bytes.fromhex("1f43b675"))}[ending]
    joined = tmp_path / f"joined.{ending}"
    joined.write_bytes(parts[0] + parts[1][begins:])
    with open_video(str(joined)) as reader:
        times = [picture.seconds for picture in reader.pictures_from(0)]
    with open_video(str(joined)) as reader:
        told = [
            second
            for event in Skimmer(reader).pictures()
            for second in (event.frames.seconds.tolist() if isinstance(event, Skipped) else [event.seconds])
        ]
    assert told == pytest.approx(times) and len(times) > 125
    shots = find_shots(joined, TransNetV2Detector(device="cpu"))
    assert shots.boundaries == pytest.approx([4.0]) and shots.duration == pytest.approx(times[-1] + 1 / FPS)


def test_a_last_picture_that_is_held_is_no_missing_end(tmp_path: Path):
    write_video(tmp_path / "held.mkv", still(1, 1000)[:, ::4, ::4], FPS, options=keyed(50), last_seconds=2.0)
    skimmed(tmp_path / "held.mkv")


@pytest.mark.parametrize("reordered", [0, 2])
def test_packets_without_a_time_are_decoded(tmp_path: Path, reordered: int):
    """Two pictures in a packet of a transport stream, of which the first alone has a time."""
    path = tmp_path / "pairs.ts"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options=keyed(24, f"bframes={reordered}:b-adapt=0"))
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        pictures = np.concatenate([still(1, 110), still(2, 140)])
        packets = [
            packet
            for each in (*(av.VideoFrame.from_ndarray(rgb, format="rgb24") for rgb in pictures), None)
            for packet in stream.encode(each)
        ]
        for first, second in zip(packets[::2], packets[1::2], strict=True):
            pair = av.Packet(bytes(first) + bytes(second))
            pair.stream, pair.time_base, pair.pts, pair.dts = stream, first.time_base, first.pts, first.dts
            pair.is_keyframe = first.is_keyframe
            container.mux(pair)
    with open_video(str(path)) as reader:
        count = sum(1 for _ in reader.pictures_from(0))
    with open_video(str(path)) as reader:
        given = sum(not isinstance(event, Skipped) for event in Skimmer(reader).pictures())
    assert given == count == 250


@pytest.mark.parametrize("seed", range(12))
def test_times_are_those_of_reading_it_all(tmp_path: Path, seed: int):
    """Of shots that stand, move, dissolve or are black, at any rate and distance of key pictures."""
    rng = np.random.default_rng(seed)
    every, rate = int(rng.choice([5, 10, 16, 24, 60])), float(rng.choice([0.5, 2, 8, 15, 25, 60, 240]))
    more = str(rng.choice(["bframes=0", "bframes=3:b-adapt=0", "open-gop=1:bframes=2:b-adapt=0"]))
    shots = [
        still(int(rng.integers(4)), int(rng.integers(5, 60))),
        panned(range(0, 8 * int(rng.integers(5, 40)), 8)),
        np.zeros((int(rng.integers(1, 40)), HEIGHT, WIDTH, 3), np.uint8),
        blend(place(1), place(2), int(rng.integers(2, 30))),
        still(int(rng.integers(4)), 3 * every),
        noise()[: int(rng.integers(1, 30))],
    ]
    frames = np.concatenate([shots[index] for index in rng.permutation(len(shots))])[:, ::2, ::2]
    write_video(tmp_path / "mixed.mkv", frames, rate, options=keyed(every, more))
    assert skimmed(tmp_path / "mixed.mkv")[1] == len(frames)
