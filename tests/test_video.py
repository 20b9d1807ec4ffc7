"""Frames, times, limits and failures of `marc.video`, on generated videos whose frames carry their numbers."""

import math
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from ctypes.util import find_library
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marc.types import Frames, VideoInfo
from marc.video import (
    EveryFrame,
    SampledFrames,
    VideoError,
    backends,
    frame_size,
    probe,
    read_frames,
    read_to,
    reading,
    sample_times,
    stream_frames,
    write_video,
)
from marc.video.decoders import read_with_torchcodec
from marc.video.decoding import Picture, VideoReader, open_video
from marc.video.jobs import Probe
from marc.video.process import POOL

sys.path.insert(0, str(Path(__file__).parent))
import make_videos
from make_videos import KINDS, frame_number, numbered_frames

sys.path.pop(0)

FPS = 30
UNEVEN = {"uneven.mp4", "uneven.mkv"}
# What these decoders get wrong is in docs/decoding.md; they must at least agree here.
SOUND = ["long_gop.mp4", "short_gop.mkv", "ten_bit.mp4", "vp9.webm", "uneven.mp4", "rotated_90.mp4"]


@pytest.fixture(scope="session")
def video(tmp_path_factory):
    """A function that gives the path of a video of some kind, written when first asked for."""
    folder = tmp_path_factory.mktemp("videos")

    def path_of(name: str) -> Path:
        if not (folder / name).exists():
            KINDS[name](folder / name)
        return folder / name

    return path_of


@pytest.fixture
def clip(video) -> Path:
    return video("short_gop.mkv")


def true_seconds(name: str) -> np.ndarray:
    """When the frames were said to be shown, when the video was written."""
    if name in UNEVEN:
        return make_videos.UNEVEN - make_videos.UNEVEN[0]
    rate = 30000 / 1001 if name == "ntsc.mkv" else FPS
    return np.arange(1 if name == "one_frame.mp4" else 120) / rate


def numbers(rgb_THWC: np.ndarray) -> list[int]:
    return [frame_number(rgb_HWC) for rgb_HWC in rgb_THWC]


# --- the right frames -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", KINDS)
def test_streaming_gives_every_frame_once_upright_and_in_order(video, name):
    batches = list(stream_frames(video(name), width=84, height=56, batch=50))
    assert [number for batch in batches for number in numbers(batch.rgb)] == list(range(len(true_seconds(name))))
    assert np.concatenate([batch.seconds for batch in batches]) == pytest.approx(true_seconds(name), abs=2e-3)
    assert all(batch.rgb.shape[1:] == (56, 84, 3) for batch in batches)


@pytest.mark.parametrize("name", KINDS)
def test_reading_gives_the_frame_shown_at_each_time(video, name):
    seconds = true_seconds(name)
    generator = np.random.default_rng(len(name))
    for count in (1, 3, 20):
        asked = np.sort(generator.integers(len(seconds), size=count))
        later = generator.choice([0.0, 0.4], size=count) * np.append(np.diff(seconds), 1.0)[asked]
        frames = read_frames(video(name), np.sort(seconds[asked] + later + 2e-3))
        assert numbers(frames.rgb) == asked.tolist()
        assert frames.seconds == pytest.approx(seconds[asked], abs=2e-3)


@pytest.mark.parametrize("name", KINDS)
def test_probing_describes_the_video_as_it_is_shown(video, name):
    info = probe(video(name))
    seconds = true_seconds(name)
    assert (info.width, info.height) == ((169, 113) if name.startswith("odd") else (168, 112))
    assert info.duration == pytest.approx(seconds[-1] + 1 / FPS, abs=0.35 if name in UNEVEN else 0.02)
    assert info.frame_count == len(seconds)
    assert info.fps == pytest.approx(info.frame_count / info.duration)
    assert info.starts == (pytest.approx(tuple(seconds), abs=2e-3) if name in UNEVEN else ())
    assert info.rotation == {"rotated_90.mp4": 270, "rotated_180.mp4": 180, "rotated_270.mp4": 90}.get(name, 0)
    assert info.source == str(video(name))


@pytest.mark.parametrize("name", KINDS)
def test_sampling_reads_an_even_number_of_spread_frames(video, name):
    frames = read_frames(video(name), max_frames=9)
    last = len(true_seconds(name)) - 1
    assert len(frames) == (2 if name == "one_frame.mp4" else 8)
    assert numbers(frames.rgb)[0] == 0
    assert last - 3 <= numbers(frames.rgb)[-1] <= last
    assert frames.rgb.shape[1] % 28 == frames.rgb.shape[2] % 28 == 0


@pytest.mark.parametrize("name", SOUND)
@pytest.mark.parametrize("backend", [name for name in backends() if name != "pyav"])
def test_other_backends_agree_with_the_default(video, backend, name):
    if backend == "torchcodec" and not find_library("avutil"):
        pytest.skip("torchcodec needs FFmpeg's shared libraries")
    times = np.linspace(0, true_seconds(name)[-1], 9)
    expected = read_frames(video(name), times)
    frames = read_frames(video(name), times, backend=backend)
    assert numbers(frames.rgb) == numbers(expected.rgb)
    assert frames.seconds == pytest.approx(expected.seconds, abs=2e-3)


def test_decord_refuses_a_file_in_which_it_could_take_the_wrong_video(video):
    with pytest.raises(VideoError, match="cannot choose"):
        read_frames(video("two_videos.mkv"), [0.0], backend="decord")


@pytest.mark.parametrize("cause", ["no package", "no libraries"])
def test_torchcodec_without_its_needs_says_what_to_install(clip, monkeypatch, cause):
    def fail(*_args, **_options):
        raise RuntimeError("Could not load libtorchcodec. Likely causes: ...")

    fake = None if cause == "no package" else SimpleNamespace(VideoDecoder=fail, Resize=list)
    for module in ("torchcodec.decoders", "torchcodec.transforms"):
        monkeypatch.setitem(sys.modules, module, fake)
    monkeypatch.setitem(sys.modules, "torchcodec", SimpleNamespace())
    with open_video(str(clip)) as reader, pytest.raises(VideoError, match="apt install ffmpeg"):
        read_with_torchcodec(reader, np.zeros(1), np.zeros((1, 28, 28, 3), np.uint8))


def test_frames_beyond_both_ends_are_the_first_and_the_last(clip):
    assert numbers(read_frames(clip, [-3.0, 0.0, 4.5, 99.0]).rgb) == [0, 0, 119, 119]


def test_a_time_just_before_a_frame_shows_the_one_before(video):
    assert numbers(read_frames(video("long_gop.mp4"), [10 / FPS - 1e-3, 10 / FPS]).rgb) == [9, 10]


def test_streaming_a_stretch_with_a_stride(clip):
    batches = list(stream_frames(clip, width=84, height=56, batch=4, stride=3, start=1.0, end=2.0))
    assert [numbers(batch.rgb) for batch in batches] == [[30, 33, 36, 39], [42, 45, 48, 51], [54, 57]]


def test_working_ahead_and_decoding_roughly_change_no_times_and_little_else(clip):
    exact = list(stream_frames(clip, width=84, height=56, batch=16))
    rough = list(stream_frames(clip, width=84, height=56, batch=16, rough=True, ahead=5))
    assert probe(clip).frame_count == 120, "requests left over from the stream do not disturb the next job"
    for one, other in zip(exact, rough, strict=True):
        np.testing.assert_array_equal(one.seconds, other.seconds)
        assert 0 < np.abs(one.rgb.astype(int) - other.rgb).mean() < 6


class Listener:
    """Keeps what is pushed to it."""

    def __init__(self, request, order: list | None = None) -> None:
        self.request = request
        self.seen: list[Frames] = []
        self.order = [] if order is None else order

    def consume(self, frames: Frames) -> None:
        self.seen.append(frames)
        self.order.append((self, float(frames.seconds[-1])))


def test_one_reading_gives_every_consumer_the_frames_that_it_asks_for(clip):
    large = Listener(SampledFrames(interval=0.9, max_pixels=84 * 56))
    small, same = (Listener(EveryFrame(48, 27, batch=50)) for _ in range(2))
    sparse = Listener(EveryFrame(84, 56, batch=8, stride=10))
    read_to(clip, [large, small, same, sparse])
    expected = np.array([14, 41, 68, 95]) / FPS
    np.testing.assert_allclose([float(frames.seconds[0]) for frames in large.seen], expected, atol=1e-3)
    assert {frames.rgb.shape for frames in large.seen} == {(1, 56, 84, 3)}
    assert [numbers(frames.rgb) for frames in large.seen] == [[14], [41], [68], [95]]
    assert [len(frames) for frames in small.seen] == [50, 50, 20]
    assert small.seen == same.seen
    for pushed, streamed in zip(small.seen, stream_frames(clip, width=48, height=27, batch=50), strict=True):
        np.testing.assert_array_equal(pushed.rgb, streamed.rgb)
        np.testing.assert_array_equal(pushed.seconds, streamed.seconds)
    assert [numbers(frames.rgb) for frames in sparse.seen] == [[0, 10, 20, 30, 40, 50, 60, 70], [80, 90, 100, 110]]


def test_a_sampled_frame_comes_before_the_batch_that_it_belongs_to(clip):
    order = []
    large = Listener(SampledFrames(interval=0.9, max_pixels=84 * 56), order)
    small = Listener(EveryFrame(48, 27, batch=15), order)
    read_to(clip, [large, small], ahead=5)
    seconds = [second for _, second in order]
    assert seconds == sorted(seconds)
    assert order[:2] == [(large, pytest.approx(14 / FPS, abs=1e-3)), (small, pytest.approx(14 / FPS, abs=1e-3))]


def test_a_consumer_that_fails_ends_the_reading(clip):
    class Failing(Listener):
        def consume(self, frames):
            (process,) = (process for process in POOL._all if process.is_busy)
            self.seen.append(process.pid)
            raise KeyError("mine")

    failing = Failing(EveryFrame(48, 27, batch=10))
    with pytest.raises(KeyError, match="mine"):
        read_to(clip, [failing])
    assert not is_running(failing.seen[0])


def test_frames_can_be_written_to_and_outlive_their_file(clip, tmp_path):
    copy = tmp_path / "copy.mkv"
    copy.write_bytes(clip.read_bytes())
    frames = read_frames(copy, [1.0])
    copy.unlink()
    frames.rgb[:] += 1
    assert numbers(frames.rgb) == [30]


def test_colours_survive(tmp_path):
    colours = np.array([[220, 30, 30], [30, 200, 40], [40, 50, 210], [128, 128, 128]], np.uint8)
    write_video(tmp_path / "colours.mp4", np.broadcast_to(colours[:, None, None], (4, 56, 56, 3)), fps=4)
    shown = read_frames(tmp_path / "colours.mp4", np.arange(4) / 4).rgb
    assert np.abs(shown.mean(axis=(1, 2)) - colours).max() < 6


def test_real_videos_can_be_read(real_videos):
    for path in real_videos:
        info = probe(path)
        frames = read_frames(path)
        assert len(frames) == len(sample_times(info))
        assert sum(len(batch) for batch in stream_frames(path, width=48, height=27)) == info.frame_count


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_streaming_takes_constant_memory(video, process):
    def peak_bytes() -> int:
        status = Path(f"/proc/{process.pid}/status").read_text()
        return 1024 * int(status.partition("VmHWM:")[2].split()[0])

    stream = stream_frames(video("long_gop.mp4"), width=588, height=392, batch=10)
    batch_bytes = next(stream).rgb.nbytes
    next(stream)
    before = peak_bytes()
    assert sum(len(batch) for batch in stream) == 100
    assert peak_bytes() - before < 3 * batch_bytes


def test_what_is_written_into_frames_is_not_shared_with_a_fork(clip):
    script = """
        import os, sys
        from marc.video import read_frames

        frames = read_frames(sys.argv[1], [1.0])
        before = frames.rgb.copy()
        child = os.fork()
        if child == 0:
            frames.rgb[:] = 0
            os._exit(0 if not frames.rgb.any() else 3)
        assert os.waitpid(child, 0)[1] == 0
        assert before.any() and (frames.rgb == before).all()
    """
    result = run_script(script, clip)
    assert result.returncode == 0, result.stderr


# --- paths -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a:b.mp4", "100%03d.mp4", "it's ünïcode 🎞.mp4", "-y.mp4", "concat:x|y.mp4"])
def test_any_file_name_is_only_a_name(tmp_path, name):
    write_video(tmp_path / name, numbered_frames(3), fps=3)
    assert numbers(read_frames(tmp_path / name, [1 / 3]).rgb) == [1]


def test_relative_paths_follow_the_current_folder(video, monkeypatch):
    probe(video("long_gop.mp4"))
    monkeypatch.chdir(video("long_gop.mp4").parent)
    assert read_frames("long_gop.mp4", [0.0]).source == "long_gop.mp4"


# --- how many frames, and how large ----------------------------------------------------------------------------------


@given(
    count=st.integers(2, 20_000),
    rate=st.floats(1, 120),
    fps=st.floats(0.1, 60),
    max_frames=st.integers(4, 768),
    min_frames=st.integers(1, 4),
)
def test_sampling_follows_qwen(count, rate, fps, max_frames, min_frames):
    vision_process = pytest.importorskip("qwen_vl_utils.vision_process")
    info = VideoInfo("video", 64, 64, count / rate, rate, count, "h264")
    times = sample_times(info, fps=fps, max_frames=max_frames, min_frames=min_frames)
    limits = {"fps": fps, "max_frames": min(max_frames, count), "min_frames": min_frames}
    expected = vision_process.smart_nframes(limits, count, count / info.duration)
    assert times * rate == pytest.approx(np.linspace(0, count - 1, expected).round(), rel=1e-6, abs=1e-6)


@given(width=st.integers(16, 4000), height=st.integers(16, 4000), low=st.integers(1, 300), high=st.integers(1, 300))
def test_frame_size_follows_qwen(width, height, low, high):
    qwen = pytest.importorskip("transformers.models.qwen2_vl.image_processing_qwen2_vl")
    low, high = sorted((low * 28 * 28, high * 28 * 28))
    if max(width, height) / min(width, height) > 20:
        return
    expected_height, expected_width = qwen.smart_resize(height, width, 28, low, high)
    size = frame_size(width, height, min_pixels=low, max_pixels=high)
    assert size == (max(expected_width, 28), max(expected_height, 28))


def test_a_stretch_is_sampled_within_its_bounds():
    info = VideoInfo("video", 64, 64, 10.0, 30.0, 300, "h264")
    times = sample_times(info, start=2.0, end=4.0)
    assert len(times) == 4
    assert times[0] == pytest.approx(2.0)
    assert times[-1] == pytest.approx(4.0 - 1 / 30)


def test_a_single_frame_is_given_twice():
    info = VideoInfo("video", 64, 64, 1 / 30, 30.0, 1, "h264")
    assert sample_times(info).tolist() == [0.0, 0.0]


# --- clear refusals --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        ({"fps": 0}, "fps"),
        ({"fps": math.nan}, "fps"),
        ({"max_frames": 1}, "max_frames"),
        ({"min_frames": 0}, "min_frames"),
        ({"min_frames": 9, "max_frames": 8}, "min_frames=9"),
        ({"start": -1.0}, "start"),
        ({"start": 3.0, "end": 2.0}, "start"),
        ({"start": 60.0}, "60"),
        ({"min_pixels": 0}, "min_pixels"),
        ({"min_pixels": 10**6, "max_pixels": 10**5}, "min_pixels=1000000"),
        ({"max_pixels": 100}, "max_pixels=100"),
        ({"factor": 0}, "factor"),
        ({"seconds": []}, "seconds"),
        ({"seconds": [2.0, 1.0]}, "seconds"),
        ({"seconds": [math.inf]}, "seconds"),
        ({"backend": "vlc"}, "vlc"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": math.inf}, "timeout"),
    ],
)
def test_arguments_out_of_range_are_named(clip, arguments, cause):
    with pytest.raises(VideoError, match=cause):
        read_frames(clip, **arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        {"width": 0},
        {"batch": 0},
        {"stride": 0},
        {"ahead": 0},
        {"start": -1.0},
        {"end": 0},
    ],
)
def test_streaming_arguments_out_of_range_are_named(clip, arguments):
    with pytest.raises(VideoError, match=next(iter(arguments))):
        list(stream_frames(clip, **{"width": 48, "height": 27, **arguments}))


@pytest.mark.parametrize(
    ("requests", "cause"),
    [
        ([SampledFrames(0.0, 100)], "interval"),
        ([SampledFrames(1.0, 3)], "max_pixels"),
        ([EveryFrame(48, 27), EveryFrame(48, 0)], "height"),
        ([], "nobody asks"),
    ],
)
def test_requests_out_of_range_are_named(clip, requests, cause):
    with pytest.raises(VideoError, match=cause):
        read_to(clip, [Listener(request) for request in requests])


def make_bad(folder: Path, kind: str, video) -> Path:
    path = folder / f"{kind}.mp4"
    whole = video("long_gop.mp4").read_bytes()
    match kind:
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "empty":
            path.touch()
        case "text":
            path.write_text("This is not a video.\n" * 100)
        case "noise":
            path.write_bytes(np.random.default_rng(0).bytes(20_000))
        case "audio":
            make_videos.write_audio(path)
        case "song":
            make_videos.write_song(path)
        case "headless":
            path.write_bytes(whole[: len(whole) // 2])
        case "narrow":
            make_videos.write_video(path, np.zeros((2, 2, 802, 3), np.uint8), pix_fmt="yuv444p")
    return path


@pytest.mark.parametrize(
    ("kind", "cause"),
    [
        ("missing", "no such file"),
        ("folder", "is a folder"),
        ("pipe", "not a regular file"),
        ("empty", "is empty"),
        ("text", "cannot open"),
        ("noise", "cannot open"),
        ("audio", r"no video stream in it \(streams: audio\)"),
        ("song", "the only picture in it is a cover"),
        ("headless", "moov atom not found"),
        ("narrow", "too narrow"),
    ],
)
def test_bad_files_are_refused_with_name_and_cause(tmp_path, video, kind, cause):
    path = make_bad(tmp_path, kind, video)
    with pytest.raises(VideoError, match=cause) as refusal:
        read_frames(path)
    assert str(path) in str(refusal.value)


@pytest.mark.parametrize("name", ["faststart.mp4", "cut.mkv"])
def test_a_file_cut_in_the_middle_is_read_up_to_the_cut_and_no_further(tmp_path, name):
    write_video(tmp_path / name, numbered_frames(150), fps=FPS)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: int(0.6 * len(whole))])
    assert numbers(read_frames(tmp_path / name, [0.5, 1.0]).rgb) == [15, 30]
    with pytest.raises(VideoError, match=r"cut off after \d\.\d+ s of a 5.00 s video") as refusal:
        read_frames(tmp_path / name)
    end = float(str(refusal.value).rpartition("end=")[2].rstrip(")"))
    assert len(read_frames(tmp_path / name, end=end)) >= 4
    with pytest.raises(VideoError, match="cut off"):
        list(stream_frames(tmp_path / name, width=48, height=27))


def test_damage_never_hangs_or_crashes_the_caller(tmp_path, video):
    whole = bytearray(video("short_gop.mkv").read_bytes())
    generator = np.random.default_rng(0)
    path = tmp_path / "damaged.mkv"
    for _ in range(12):
        damaged = whole.copy()
        for position in generator.integers(len(whole), size=40):
            damaged[position] = generator.integers(256)
        path.write_bytes(damaged)
        with suppress(VideoError):
            assert len(read_frames(path, timeout=20)) >= 2


def test_times_that_go_back_after_a_seek_are_refused(clip, monkeypatch):
    def land_early(reader, time):
        frame = reader._following.frame
        reader._shown, reader._following, reader._pictures = None, Picture(frame, 0.5), iter([Picture(frame, 9.0)])

    monkeypatch.setattr(VideoReader, "_gains_by_seeking", lambda reader, time: time > 2)
    monkeypatch.setattr(VideoReader, "_seek", land_early)
    with (
        pytest.raises(VideoError, match=r"its times contradict each other: 0\.50 s comes after 1\.00 s; the file is"),
        open_video(str(clip)) as reader,
    ):
        list(reader.pictures_at([1.0, 3.0]))


def test_unforeseen_errors_keep_their_traceback():
    with pytest.raises(VideoError, match=r"None: reading it failed \(TypeError: .*not foreseen") as failure:
        list(POOL.run(Probe(path=None), 5.0))
    assert "Traceback" in str(failure.value.__cause__)
    assert "jobs.py" in str(failure.value.__cause__)


# --- time limits and processes ---------------------------------------------------------------------------------------


def is_running(pid: int) -> bool:
    """Whether a process exists; one that has ended but was not waited for does."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def has_ended_within(seconds: float, pid: int) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not is_running(pid):
            return True
        time.sleep(0.05)
    return False


@pytest.fixture
def process():
    """The decoding process that the next job will run in."""
    POOL.warm_up()
    return POOL._idle[-1]


def test_a_decoder_that_hangs_in_c_is_stopped(tmp_path, process, monkeypatch, clip):
    os.mkfifo(tmp_path / "pipe")
    probe(clip)
    monkeypatch.setattr(reading, "check_file", lambda path, timeout: None)
    with pytest.raises(VideoError, match=r"pipe.*stopped"):
        read_frames(tmp_path / "pipe", timeout=0.5)
    assert not is_running(process.pid)
    assert numbers(read_frames(clip, [1.0]).rgb) == [30]


def test_a_stream_that_stalls_is_stopped(clip):
    stream = stream_frames(clip, width=48, height=27, batch=10, timeout=2.0)
    next(stream)
    (process,) = (process for process in POOL._all if process.is_busy)
    os.kill(process.pid, signal.SIGSTOP)
    with pytest.raises(VideoError, match="stopped"):
        list(stream)
    assert not is_running(process.pid)


def test_a_decoder_that_crashes_is_reported_and_replaced(clip, process):
    read_frames(clip, [0.0])
    os.kill(process.pid, signal.SIGSTOP)
    killer = threading.Timer(0.3, os.kill, (process.pid, signal.SIGKILL))
    killer.start()
    with pytest.raises(VideoError, match=r"crashed \(SIGKILL\)"):
        read_frames(clip, [0.0])
    killer.join()
    assert len(read_frames(clip, [0.0])) == 1


def test_a_process_that_dies_while_idle_is_replaced(clip, process):
    os.kill(process.pid, signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert len(read_frames(clip, [0.0])) == 1


def test_a_closed_stream_leaves_nothing_running(clip):
    stream = stream_frames(clip, width=48, height=27, batch=10)
    next(stream)
    (process,) = (process for process in POOL._all if process.is_busy)
    stream.close()
    assert not is_running(process.pid)


def test_an_interrupt_leaves_nothing_running(clip, process, monkeypatch):
    read_frames(clip, [0.0])

    def interrupt(_timeout):
        raise KeyboardInterrupt

    monkeypatch.setattr(process._channel, "arrives", interrupt)
    with pytest.raises(KeyboardInterrupt):
        read_frames(clip, [0.0])
    assert not is_running(process.pid)


def test_processes_are_reused(clip):
    read_frames(clip, [0.0])
    before = {process.pid for process in POOL._all}
    for _ in range(3):
        read_frames(clip, [0.0])
        list(stream_frames(clip, width=48, height=27))
    assert {process.pid for process in POOL._all} == before


def test_threads_read_at_the_same_time(clip):
    with ThreadPoolExecutor(3) as threads:
        results = list(threads.map(lambda second: numbers(read_frames(clip, [second]).rgb), [0.0, 1.0, 2.0, 3.0]))
    assert results == [[0], [30], [60], [90]]


def test_streams_can_be_read_in_turns(clip):
    streams = [stream_frames(clip, width=84, height=56, batch=40) for _ in range(2)]
    assert [numbers(a.rgb) == numbers(b.rgb) for a, b in zip(*streams, strict=True)] == [True] * 3


def run_script(code: str, *arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_it_works_in_forked_and_in_spawned_processes(clip):
    script = """
        import os, sys
        from multiprocessing import get_context
        from marc.video import probe, read_frames
        from marc.video.process import POOL

        def pids_after_reading(path):
            read_frames(path, [0.0])
            return [process.pid for process in POOL._all]

        path = sys.argv[1]
        probe(path)
        parent = {process.pid for process in POOL._all}
        for method in ("fork", "spawn"):
            with get_context(method).Pool(2) as pool:
                assert [info.frame_count for info in pool.map(probe, [path] * 4)] == [120] * 4, method
        pool = get_context("fork").Pool(1)
        (grandchild,) = pool.apply(pids_after_reading, (path,))
        pool.close()
        pool.join()
        assert not os.path.exists(f"/proc/{grandchild}"), "a child's process outlived it"
        assert probe(path).frame_count == 120
        assert {process.pid for process in POOL._all} == parent
    """
    result = run_script(script, clip)
    assert result.returncode == 0, result.stderr


def test_a_killed_caller_leaves_nothing_running(clip):
    script = """
        import os, signal, sys
        from marc.video import stream_frames
        from marc.video.process import POOL

        stream = stream_frames(sys.argv[1], width=48, height=27, batch=10)
        next(stream)
        print(*(process.pid for process in POOL._all), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    result = run_script(script, clip)
    (pid,) = map(int, result.stdout.split())
    assert has_ended_within(10, pid)


def test_importing_it_loads_no_large_library():
    result = run_script("import sys, marc.video; assert not {'torch', 'decord', 'torchcodec'} & set(sys.modules)")
    assert result.returncode == 0, result.stderr


# --- writing ---------------------------------------------------------------------------------------------------------


def test_writing_and_reading_agree(tmp_path):
    write_video(tmp_path / "out.mp4", numbered_frames(24), fps=23.976)
    info = probe(tmp_path / "out.mp4")
    assert (info.frame_count, info.codec) == (24, "h264")
    assert info.fps == pytest.approx(23.976, abs=1e-3)
    assert numbers(read_frames(tmp_path / "out.mp4", np.arange(24) / info.fps).rgb) == list(range(24))


@pytest.mark.parametrize(
    ("shape", "options", "cause"),
    [
        ((0, 8, 8, 3), {}, "T >= 1"),
        ((2, 8, 8), {}, "uint8"),
        ((2, 9, 8, 3), {}, "even width and height"),
        ((2, 8, 8, 3), {"fps": 0}, "fps"),
        ((2, 8, 8, 3), {"crf": 60}, "crf"),
    ],
)
def test_what_cannot_be_written_is_refused(tmp_path, shape, options, cause):
    with pytest.raises(VideoError, match=cause):
        write_video(tmp_path / "out.mp4", np.zeros(shape, np.uint8), **{"fps": 30, **options})
    assert not (tmp_path / "out.mp4").exists()
