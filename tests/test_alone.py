from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from av.packet import Packet
from make_videos import write_video

from marc.video.alone import LoneDecoder
from marc.video.av1 import read_hierarchy
from marc.video.decoding import VideoReader

COUNT, GROUP = 70, 40
CODECS = {
    "h264": ("libx264", {"x264-params": f"keyint={GROUP}:scenecut=0:bframes=3", "preset": "fast"}),
    "hevc": ("libx265", {"x265-params": f"keyint={GROUP}:scenecut=0:log-level=none", "preset": "ultrafast"}),
    "vp9": ("libvpx-vp9", {"g": str(GROUP), "b": "200k", "deadline": "realtime", "cpu-used": "8"}),
    "av1": ("libsvtav1", {"g": str(GROUP), "crf": "38", "preset": "11"}),
    "av1 in deeper layers": ("libsvtav1", {"g": str(GROUP), "crf": "38", "preset": "8"}),
}


@pytest.fixture(scope="module", params=CODECS)
def clip(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (24, 40, 3), dtype=np.uint8).repeat(8, axis=0).repeat(8, axis=1)
    codec, options = CODECS[request.param]
    path = tmp_path_factory.mktemp("clips") / "clip.mkv"
    moved = [np.roll(picture, 3 * number, axis=1)[:, :256] for number in range(COUNT)]
    write_video(path, np.stack(moved), 25, codec, options=options)
    return path


def packets_of(path: Path) -> tuple[list[list[Packet]], bytes | None]:
    """The packets of each group, and what the container says about the stream."""
    groups: list[list[Packet]] = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        for packet in container.demux(stream):
            if packet.is_keyframe:
                groups.append([])
            if packet.size:
                groups[-1].append(packet)
        return groups, stream.codec_context.extradata


def pictures_of(path: Path) -> dict[int | None, np.ndarray]:
    with av.open(str(path)) as container:
        return {frame.pts: frame.to_ndarray() for frame in container.decode(video=0)}


def test_a_group_is_read_on_from_a_key_picture_that_was_decoded_alone(clip: Path):
    whole, (groups, _) = pictures_of(clip), packets_of(clip)
    decoder = LoneDecoder(VideoReader(str(clip)).new_decoder)
    keys = [decoder.decode_key(group[0]) for group in groups]
    for key, group in zip(keys, groups, strict=True):
        own = [packet for packet in group if packet.pts >= group[0].pts]
        frames = list(decoder.frames(own))
        assert key is not None and np.array_equal(key.to_ndarray(), frames[0].to_ndarray())
        assert [frame.pts for frame in frames] == sorted(packet.pts for packet in own)
        for frame in frames:
            np.testing.assert_array_equal(frame.to_ndarray(), whole[frame.pts])


def test_pictures_that_no_other_refers_to_can_be_left_out(clip: Path):
    whole, (groups, _) = pictures_of(clip), packets_of(clip)
    decoder, sparse = LoneDecoder(VideoReader(str(clip)).new_decoder), 30
    frames = list(decoder.frames(groups[0], sparse=sparse))
    given = {frame.pts for frame in frames}
    assert {packet.pts for packet in groups[0][sparse:]} <= given
    if groups[0][0].stream.codec_context.name in ("h264", "hevc"):
        assert len(given) < len(groups[0]) - 8
    for frame in frames:
        np.testing.assert_array_equal(frame.to_ndarray(), whole[frame.pts])


@pytest.mark.parametrize("has_key", [True, False])
def test_a_picture_of_av1_is_decoded_with_what_it_refers_to(clip: Path, has_key: bool):
    whole, (groups, extradata) = pictures_of(clip), packets_of(clip)
    decoder, group = LoneDecoder(VideoReader(str(clip)).new_decoder), groups[0]
    if has_key:
        decoder.decode_key(group[0])
    layered = decoder.layered(group)
    if groups[0][0].stream.codec_context.name != "libdav1d":
        assert layered is None
        return
    assert layered is not None
    for number in (16, 32, 24, 28, 27, 5, 31, 0, 39, 38, 12, 12):
        frame = layered.picture(number)
        assert frame is not None and frame.pts == group[number].pts
        np.testing.assert_array_equal(frame.to_ndarray(), whole[frame.pts])
    hierarchy = read_hierarchy([bytes(packet) for packet in group], extradata)
    assert hierarchy is not None
    assert hierarchy.needed(hierarchy.shown[0]) == [0]
    assert len(hierarchy.needed(hierarchy.shown[32])) <= 4, "only pictures of the lowest layer"
    assert {0, 32} <= set(hierarchy.path(32)) <= {0, 16, 32}
    assert hierarchy.latest_shown(1) in (16, 32), "the first packet holds what is shown last"


def test_what_is_no_av1_or_cut_off_is_not_followed():
    assert read_hierarchy([b"\x12\x00", b"\xff" * 40], None) is None
    assert read_hierarchy([b""], None) is None
    assert read_hierarchy([bytes(range(64))], b"\x81\x00\x0c\x00") is None
    assert read_hierarchy([b"\x32\x7f\x10"], None) is None


def test_a_decoder_is_told_what_the_container_knows_of_colours(clip: Path):
    reader = VideoReader(str(clip))
    own = reader._stream.codec_context
    own.color_range, own.colorspace = 2, 1
    decoder = reader.new_decoder()
    assert (decoder.color_range, decoder.colorspace, decoder.pix_fmt) == (2, 1, own.pix_fmt)
    assert (decoder.width, decoder.height, decoder.extradata) == (own.width, own.height, own.extradata)
    reader.close()


def test_a_decoder_does_without_what_the_container_does_not_know(clip: Path, monkeypatch: pytest.MonkeyPatch):
    """A picture that comes late tells no format yet, and a number of a transport stream is no tag."""
    reader = VideoReader(str(clip))
    own = reader._stream.codec_context

    class Context:
        codec, extradata, pix_fmt = own.codec, own.extradata, None

        @property
        def codec_tag(self) -> str:
            return b"\x80\x00\x00\x00".decode("ascii")

        def __getattr__(self, name: str) -> object:
            return getattr(own, name)

    stream = reader._stream
    monkeypatch.setattr(reader, "_stream", SimpleNamespace(codec_context=Context()))
    decoder = LoneDecoder(reader.new_decoder)
    groups, _ = packets_of(clip)
    assert decoder.decode_key(groups[0][0]) is not None
    monkeypatch.setattr(reader, "_stream", stream)
    reader.close()
