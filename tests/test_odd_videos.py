"""Files that are unusual or slightly broken: what can be read is read, what cannot is a `VideoError` that names it."""

from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition
from PIL import Image

from marc.video import VideoError, probe, read_frames, sample_times, stream_frames
from marc.video.decoders import on_white

sys.path.insert(0, str(Path(__file__).parent))
from make_videos import FRAMES, _encoded, frame_number, numbered_frames, write_video

sys.path.pop(0)

SHORT_GOP = {"g": "12", "bf": "3"}


def numbers(rgb_THWC: np.ndarray) -> list[int]:
    return [frame_number(rgb_HWC) for rgb_HWC in rgb_THWC]


def streamed(path: Path) -> tuple[list[int], np.ndarray]:
    """The number and the time of every picture."""
    batches = list(stream_frames(path, width=84, height=56))
    return [number for batch in batches for number in numbers(batch.rgb)], np.concatenate([b.seconds for b in batches])


def remux(source: Path, target: Path, *, tags: dict[str, str] | None = None, standing: bool = False) -> None:
    """Copy a video into another container, with tags of its stream, or with all packets at one instant."""
    with av.open(str(source)) as given, av.open(str(target), "w") as made:
        stream = given.streams.video[0]
        copy = made.add_stream_from_template(stream)
        copy.metadata.update(tags or {})
        for packet in given.demux(stream):
            if packet.size:
                packet.stream = copy
                if standing:
                    packet.pts = packet.dts = 0
                made.mux(packet)


def write_two_defaults(path: Path, counts: tuple[int, int]) -> None:
    """Two streams, both flagged as default, of grey and of numbered pictures, ten a second."""
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("libx264", rate=10) for _ in counts]
        pictures = np.full_like(FRAMES[: counts[0]], 128), FRAMES[: counts[1]]
        for stream in streams:
            stream.height, stream.width, stream.pix_fmt = *FRAMES.shape[1:3], "yuv420p"
            stream.disposition = Disposition.default
        for packets in [list(_encoded(*each, None)) for each in zip(streams, pictures, strict=True)]:
            container.mux(packets)


# --- which stream ----------------------------------------------------------------------------------------------------


def test_an_animated_avif_is_no_still(tmp_path):
    write_video(tmp_path / "clip.avif", FRAMES[:10], fps=10, codec="libsvtav1", options={"preset": "11"})
    with av.open(str(tmp_path / "clip.avif")) as container:
        assert [stream.frames for stream in container.streams] == [1, 10]
    info = probe(tmp_path / "clip.avif")
    assert (info.frame_count, info.fps, info.duration) == (10, 10, 1)
    assert streamed(tmp_path / "clip.avif")[0] == list(range(10))


def test_of_two_default_streams_the_longer_is_read(tmp_path):
    write_two_defaults(tmp_path / "clip.mp4", (5, 20))
    assert probe(tmp_path / "clip.mp4").duration == pytest.approx(2.0)
    assert numbers(read_frames(tmp_path / "clip.mp4", [1.5]).rgb) == [15]


def test_of_two_default_streams_of_about_one_length_the_first_is_read(tmp_path):
    write_two_defaults(tmp_path / "clip.mp4", (20, 21))
    assert read_frames(tmp_path / "clip.mp4", [1.5]).rgb.std() < 5


# --- pictures with times of their own --------------------------------------------------------------------------------


def test_an_animated_webp_plays(tmp_path):
    pictures = [Image.fromarray(rgb_HWC) for rgb_HWC in numbered_frames(6)]
    milliseconds = [100, 200, 300, 1000, 50, 400]
    pictures[0].save(
        tmp_path / "clip.webp", save_all=True, append_images=pictures[1:], duration=milliseconds, lossless=True
    )
    info = probe(tmp_path / "clip.webp")
    starts = np.cumsum([0, *milliseconds[:-1]]) / 1000
    assert (info.codec, info.frame_count, info.width, info.height) == ("webp", 6, 168, 112)
    assert info.duration == pytest.approx(2.05)
    assert info.starts == pytest.approx(tuple(starts))
    shown, seconds = streamed(tmp_path / "clip.webp")
    assert shown == list(range(6))
    np.testing.assert_allclose(seconds, starts)
    assert numbers(read_frames(tmp_path / "clip.webp", [0.29, 0.3, 1.59, 1.6, 9.0]).rgb) == [1, 2, 3, 4, 5]


def test_a_webp_at_a_constant_rate_has_that_rate(tmp_path):
    pictures = [Image.fromarray(rgb_HWC) for rgb_HWC in numbered_frames(5)]
    pictures[0].save(tmp_path / "clip.webp", save_all=True, append_images=pictures[1:], duration=200, lossless=True)
    info = probe(tmp_path / "clip.webp")
    assert (info.frame_count, info.fps, info.starts) == (5, pytest.approx(5), ())


def test_a_damaged_webp_is_named(tmp_path):
    pictures = [Image.fromarray(rgb_HWC) for rgb_HWC in numbered_frames(6)]
    pictures[0].save(tmp_path / "clip.webp", save_all=True, append_images=pictures[1:], duration=100)
    whole = (tmp_path / "clip.webp").read_bytes()
    (tmp_path / "clip.webp").write_bytes(whole[: len(whole) // 3])
    with pytest.raises(VideoError, match=r"clip\.webp: this WebP file cannot be read"):
        probe(tmp_path / "clip.webp")


@pytest.mark.parametrize("suffix", ["gif", "png", "webp"])
def test_transparent_pictures_are_shown_on_white(tmp_path, suffix):
    rgba_THWC = np.zeros((3, 64, 64, 4), np.uint8)
    for index in range(3):
        rgba_THWC[index, 8:24, 8 + 16 * index : 24 + 16 * index] = 200, 0, 0, 255
        rgba_THWC[index, 8, 8 + 16 * index] = 0
    pictures = [Image.fromarray(rgba_HWC) for rgba_HWC in rgba_THWC]
    options = {"gif": {"disposal": 2}, "webp": {"lossless": True}}.get(suffix, {})
    pictures[0].save(
        tmp_path / f"clip.{suffix}", save_all=True, append_images=pictures[1:], duration=[100, 700, 200], **options
    )
    frames = read_frames(tmp_path / f"clip.{suffix}", [0.0, 0.5], min_pixels=1, max_pixels=64 * 64, factor=2)
    assert (frames.rgb[:, -8:] > 250).all()
    assert frames.rgb[0, 16, 16] == pytest.approx([200, 0, 0], abs=4)
    assert frames.rgb[1, 16, 32] == pytest.approx([200, 0, 0], abs=4)
    assert probe(tmp_path / f"clip.{suffix}").duration == pytest.approx(1.0)


def test_half_transparent_pixels_are_mixed_with_white():
    rgb_HWC = np.array([[[0, 100, 255]] * 3], np.uint8)
    mixed = on_white(rgb_HWC, np.array([[[0], [128], [255]]], np.uint8))
    assert mixed.tolist() == [[[255, 255, 255], [127, 177, 255], [0, 100, 255]]]


# --- clocks ----------------------------------------------------------------------------------------------------------


def test_packets_without_a_time_are_counted(tmp_path):
    write_video(tmp_path / "clip.mp4", FRAMES[:40], options={"bf": "0", "g": "10"})
    remux(tmp_path / "clip.mp4", tmp_path / "clip.mkv", standing=True)
    info = probe(tmp_path / "clip.mkv")
    assert info.frame_count == 40
    shown, seconds = streamed(tmp_path / "clip.mkv")
    assert shown == list(range(40))
    np.testing.assert_allclose(np.diff(seconds), seconds[1])
    assert info.duration == pytest.approx(40 * seconds[1])
    assert numbers(read_frames(tmp_path / "clip.mkv", [20.5 * seconds[1]]).rgb) == [20]


@pytest.mark.parametrize(("suffix", "codec"), [("ts", "libx264"), ("mpg", "mpeg2video")])
def test_files_joined_byte_by_byte_follow_one_another(tmp_path, suffix, codec):
    parts = [tmp_path / f"{name}.{suffix}" for name in ("first", "second")]
    for part, pictures in zip(parts, (FRAMES[:45], FRAMES[45:]), strict=True):
        write_video(part, pictures, codec=codec, options={"g": "15", "bf": "2"})
    joined = tmp_path / f"joined.{suffix}"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    info = probe(joined)
    assert info.duration == pytest.approx(4.0, abs=0.05)
    assert info.frame_count == 120
    shown, seconds = streamed(joined)
    assert shown == list(range(120))
    np.testing.assert_allclose(seconds, np.arange(120) / 30, atol=0.05)
    np.testing.assert_allclose(
        numbers(read_frames(joined, [0.51, 1.31, 1.61, 2.61, 3.61]).rgb), [15, 39, 48, 78, 108], atol=1
    )


def test_a_stream_may_appear_later_on(tmp_path):
    write_video(tmp_path / "clip.ts", FRAMES, options=SHORT_GOP)
    packets = np.frombuffer((tmp_path / "clip.ts").read_bytes(), np.uint8).reshape(-1, 188).copy()
    begins_picture = (packets[:, 1] & 0x5F == 0x41) & (packets[:, 2] == 0)
    assert begins_picture.sum() == 120
    packets[np.flatnonzero(begins_picture)[80], 1:3] = 0x45, 0x55  # a packet of a stream that nobody announced
    (tmp_path / "clip.ts").write_bytes(packets.tobytes())
    assert probe(tmp_path / "clip.ts").duration == pytest.approx(4.0, abs=0.05)
    assert sum(len(batch) for batch in stream_frames(tmp_path / "clip.ts", width=84, height=56)) >= 118


def test_camera_tapes_have_their_rate(tmp_path):
    with av.open(str(tmp_path / "tape.dv"), "w") as container:
        stream = container.add_stream("dvvideo", rate=25)
        stream.width, stream.height, stream.pix_fmt = 720, 576, "yuv420p"
        for picture in numbered_frames(25, 720, 576):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    info = probe(tmp_path / "tape.dv")
    assert (info.fps, info.frame_count, info.duration) == (25, 25, 1)
    assert len(sample_times(info)) == 4


def test_the_end_is_that_of_the_pictures_not_of_the_sound(tmp_path):
    with av.open(str(tmp_path / "clip.mkv"), "w") as container:
        video, sound = container.add_stream("libx264", rate=30), container.add_stream("aac", rate=8000, layout="mono")
        video.height, video.width, video.pix_fmt = *FRAMES.shape[1:3], "yuv420p"
        packets = list(_encoded(video, FRAMES[:30], None))
        for index in range(40):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 8000, 1024 * index, Fraction(1, 8000)
            packets += sound.encode(frame)
        container.mux([*packets, *sound.encode(None)])
    info = probe(tmp_path / "clip.mkv")
    assert info.duration == pytest.approx(1.0, abs=0.04)
    assert info.frame_count == 30
    assert streamed(tmp_path / "clip.mkv")[0] == list(range(30))


def test_what_an_edit_list_leaves_out_is_not_counted(tmp_path):
    write_video(tmp_path / "whole.mp4", FRAMES[:60], options=SHORT_GOP)
    with av.open(str(tmp_path / "whole.mp4")) as given, av.open(str(tmp_path / "clip.mp4"), "w") as made:
        stream = given.streams.video[0]
        copy = made.add_stream_from_template(stream)
        begin = round(0.51 / stream.time_base)
        for packet in given.demux(stream):
            if packet.size:
                packet.stream, packet.pts, packet.dts = copy, packet.pts - begin, packet.dts - begin
                made.mux(packet)
    shown, seconds = streamed(tmp_path / "clip.mp4")
    info = probe(tmp_path / "clip.mp4")
    assert shown[-1] == 59
    assert shown[0] in (15, 16)
    assert info.frame_count == len(shown)
    assert info.duration == pytest.approx(seconds[-1] + 1 / 30, abs=2e-3)


# --- headers that are wrong ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["mkv", "avi"])
def test_tags_in_another_alphabet_do_not_matter(tmp_path, suffix):
    path = tmp_path / f"tagged.{suffix}"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "QQQQQQ"
        stream = container.add_stream("libx264", rate=30, options=SHORT_GOP)
        stream.height, stream.width, stream.pix_fmt = *FRAMES.shape[1:3], "yuv420p"
        container.mux(_encoded(stream, FRAMES[:30], None))
    whole = path.read_bytes()
    assert whole.count(b"QQQQQQ") == 1
    path.write_bytes(whole.replace(b"QQQQQQ", "Café ÿ".encode("latin-1")))
    assert probe(path).frame_count == 30
    assert numbers(read_frames(path, [0.5]).rgb) == [15]


@pytest.mark.parametrize("tag", [b"xx:yy:", b"99:99:", b"99:59:", b"00:\xff0:", b"-1:00:"])
def test_a_damaged_duration_tag_is_not_believed(tmp_path, tag):
    write_video(tmp_path / "clip.mkv", FRAMES[:60], options=SHORT_GOP)
    whole = (tmp_path / "clip.mkv").read_bytes()
    assert whole.count(b"00:00:0") == 1, "the tag of the stream"
    (tmp_path / "clip.mkv").write_bytes(whole.replace(b"00:00:", tag))
    assert probe(tmp_path / "clip.mkv").duration == pytest.approx(2.0, abs=0.01)
    assert numbers(read_frames(tmp_path / "clip.mkv", [0.5, 1.98]).rgb) == [15, 59]


@pytest.mark.parametrize(
    ("suffix", "known", "unknown"),
    [("mp4", b"avc1", b"zzzz"), ("mkv", b"V_MPEG4/ISO/AVC", b"V_MPEG9/ISO/XXX"), ("avi", b"H264", b"ZZZZ")],
)
def test_an_unknown_codec_is_said_to_be_one(tmp_path, suffix, known, unknown):
    path = tmp_path / f"clip.{suffix}"
    write_video(path, FRAMES[:10])
    whole = path.read_bytes()
    assert known in whole
    path.write_bytes(whole.replace(known, unknown))
    with pytest.raises(VideoError, match=rf"clip\.{suffix}: its video is of a codec that FFmpeg does not know"):
        probe(path)


@pytest.mark.parametrize("name", ["clip.ts", "clip.mkv", "clip.mp4", "clip.avi", "clip.wmv", "clip.mpg", "clip.flv"])
def test_damaged_headers_are_read_or_refused(tmp_path, name):
    codec = {"wmv": "wmv2", "mpg": "mpeg2video"}.get(name[-3:], "libx264")
    write_video(tmp_path / name, FRAMES[:30], codec=codec, options={"g": "10"})
    whole = np.frombuffer((tmp_path / name).read_bytes(), np.uint8)
    generator = np.random.default_rng(3)
    outcomes = []
    for _ in range(10):
        damaged = whole.copy()
        damaged[generator.integers(min(len(whole), 1500), size=20)] = generator.integers(256, size=20)
        (tmp_path / name).write_bytes(damaged.tobytes())
        try:
            info = probe(tmp_path / name, timeout=20)
            outcomes.append(info.duration > 0 and info.fps > 0 and info.frame_count > 0)
        except VideoError as refusal:
            outcomes.append(name in str(refusal))
    assert all(outcomes)
