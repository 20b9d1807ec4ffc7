"""What is meant to be read is; nothing that a file refers to is opened. The canary is a pipe: opening it hangs."""

import os

import av
import numpy as np
import pytest
from make_videos import numbered_frames, write_video
from PIL import Image

from marc.video import VideoError, formats, jobs, probe, read_frames, read_subtitles
from marc.video.pictures import is_picture, read_picture

REFERRING = {
    "list.m3u8": "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n{}\n#EXT-X-ENDLIST\n",
    "several.ffconcat": "ffconcat version 1.0\nfile '{}'\n",
    "several.mp4": "ffconcat version 1.0\nfile '{}'\n",
    "manifest.mpd": '<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" profiles="'
    'urn:mpeg:dash:profile:isoff-main:2011"><Period><AdaptationSet mimeType="video/mp4"><Representation id="1">'
    "<BaseURL>{}</BaseURL></Representation></AdaptationSet></Period></MPD>",
    "session.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns={}\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"
    "a=rtpmap:96 H264/90000\n",
}


@pytest.mark.parametrize("canary", ["canary.ts", "file:{}/canary.ts", "{}/canary.ts", "http://127.0.0.1:9/canary.ts"])
@pytest.mark.parametrize("name", REFERRING)
def test_a_file_that_refers_to_another_is_refused_and_the_other_is_not_opened(name, canary, tmp_path):
    os.mkfifo(tmp_path / "canary.ts")
    path = tmp_path / name
    path.write_text(REFERRING[name].format(canary.format(tmp_path)))
    with pytest.raises(VideoError, match=rf"{name}: (it only names other files \(format|FFmpeg cannot open it)"):
        probe(path, timeout=20)
    with pytest.raises(VideoError, match=r"it only names other files|FFmpeg cannot open it"):
        read_frames(path, timeout=20)
    assert not is_picture(path)


def test_a_playlist_of_a_good_segment_is_refused_too(tmp_path):
    write_video(tmp_path / "canary.ts", numbered_frames(30))
    assert probe(tmp_path / "canary.ts").frame_count == 30
    for name, cause in (
        ("list.m3u8", r"it only names other files \(format hls\)"),
        ("list.mp4", "FFmpeg cannot open it"),
    ):
        (tmp_path / name).write_text(REFERRING["list.m3u8"].format("canary.ts"))
        with pytest.raises(VideoError, match=rf"{name}: {cause}"):
            probe(tmp_path / name)


def test_a_name_with_a_pattern_in_it_is_a_name(tmp_path):
    for name in ("f001.png", "f002.png", "f%03d.png", "f*.png"):
        Image.new("RGB", (60, 40), "red" if "%" in name or "*" in name else "blue").save(tmp_path / name)
    for name in ("f%03d.png", "f*.png"):
        assert is_picture(tmp_path / name)
        assert np.asarray(read_picture(tmp_path / name))[0, 0].tolist() == [255, 0, 0]
    with pytest.raises(VideoError, match="its name is a picture's"):
        probe(tmp_path / "f%03d.png")


@pytest.mark.parametrize(
    ("name", "content", "cause"),
    [
        (
            "page.jpg",
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n",
            "its name is a picture's; if it is",
        ),
        ("letter.txt", b"Dear reader, \x1b[31mthis\x1b[0m is a letter.\n" * 50, "FFmpeg cannot open it|it is text"),
        ("art.ans", b"\x1b[2J\x1b[31mART\x1b[0m\n" * 50, "FFmpeg cannot open it|it is text"),
        ("words.srt", b"1\n00:00:01,000 --> 00:00:02,000\nWords.\n", "the format srt is not among those"),
        ("words.mp4", b"WEBVTT\n\n00:01.000 --> 00:02.000\nWords.\n", "the format webvtt is not among those"),
    ],
)
def test_what_is_no_video_is_refused(name, content, cause, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(VideoError, match=cause):
        probe(tmp_path / name)


def test_a_codec_that_is_not_meant_is_named(tmp_path):
    with av.open(str(tmp_path / "clip.nut"), "w") as container:
        stream = container.add_stream("targa", rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "bgr24"
        frame = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="bgr24")
        container.mux([*stream.encode(frame), *stream.encode(None)])
    with pytest.raises(VideoError, match=r"clip\.nut: its video is of a codec that is not read \(targa\)"):
        probe(tmp_path / "clip.nut")


def test_subtitles_that_name_other_files_are_none(tmp_path):
    write_video(tmp_path / "clip.mp4", numbered_frames(30))
    os.mkfifo(tmp_path / "canary.ts")
    for name in ("list.m3u8", "several.ffconcat"):
        (tmp_path / "clip.srt").write_text(REFERRING[name].format(tmp_path / "canary.ts"))
        with pytest.raises(VideoError, match="these are no subtitles in SRT, WebVTT or ASS"):
            read_subtitles(tmp_path / "clip.mp4", timeout=20)


@pytest.mark.parametrize("backend", ["decord", "torchcodec"])
def test_what_is_refused_reaches_no_other_decoder(backend, tmp_path, monkeypatch):
    (tmp_path / "list.m3u8").write_text(REFERRING["list.m3u8"].format("canary.ts"))
    monkeypatch.setattr(jobs, "decoder", lambda name: pytest.fail("was asked for"))
    job = jobs.Read(str(tmp_path / "list.m3u8"), None, 2.0, 8, 2, 0.0, None, 1, 10_000, 2, backend)
    with pytest.raises(VideoError, match="only names other files"):
        list(job.run(np.empty))


def test_what_is_listed_is_what_ffmpeg_has():
    for name in (*formats.CONTAINERS, *formats.PICTURES, *formats.SOUNDS):
        av.ContainerFormat(name, "r")
    codecs = {*formats.VIDEO_CODECS, *formats.SUBTITLE_CODECS, *formats.SOUND_CODECS}
    assert not codecs - av.codec.codecs_available
    assert not {*formats.LISTS, *formats.TEXTS} & {*formats.CONTAINERS, *formats.PICTURES, *formats.SOUNDS}


@pytest.mark.parametrize("name", ["a\0b.mp4", "x" * 5000, "a/" + "y" * 300, "\udcff\ud800.mp4", "clip.mp4/inside"])
def test_a_name_that_no_file_has_is_an_error_of_the_video(name, tmp_path):
    (tmp_path / "clip.mp4").touch()
    for read in (probe, read_frames, read_subtitles, read_picture):
        with pytest.raises(VideoError, match=r"there is no such file|cannot be looked at"):
            read(f"{tmp_path}/{name}")
    assert not is_picture(f"{tmp_path}/{name}")
