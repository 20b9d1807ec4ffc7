"""Subtitles beside a video and in it: what is read, on which clock, and to which event it belongs."""

import logging
import sys
from pathlib import Path

import av
import pytest
from av.stream import Disposition
from hypothesis import given
from hypothesis import strategies as st

from marc.types import Event
from marc.video import SubtitleLine, Subtitles, VideoError, event_texts, read_subtitles, subtitle_tracks, text_of
from marc.video.subtitle_tracks import Cue
from marc.video.subtitles import beside, without_repetitions

sys.path.insert(0, str(Path(__file__).parent))
from make_videos import SubtitleTrack, write_with_subtitles

sys.path.pop(0)

SRT = """1
00:00:01,000 --> 00:00:02,000
<i>Hello</i> {\\an8}<font color="red">world</font>
second\u00a0 row<br>third

2
00:00:01,500 --> 00:00:03,000 X1:0 X2:10 Y1:0 Y2:10
[door slams] {sic} 3 < 4
"""
VTT = """WEBVTT - a title

NOTE not shown

STYLE
::cue { color: red }

name of a cue
00:01.000 --> 00:02.000 line:0 align:start
<v Anna>Hello &amp; <c.yellow>good</c> {day}

00:03.500 --> 00:04.000
bye
"""
ASS = """[Script Info]
ScriptType: v4.00+

[V4+ Styles]
Format: Name, Fontname, Fontsize
Style: Default,Arial,16

[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
Dialogue: 0,0:00:03.00,0:00:04.00,Default,,0,0,0,,{\\p1}m 0 0 l 100 0{\\p0}after
Comment: 0,0:00:01.00,0:00:02.50,Default,,0,0,0,,not shown
Dialogue: 0,0:00:01.00,0:00:02.50,Default,,0,0,0,,{\\an8\\i1}Hi, there\\Nnext\\h{a remark}row\\nsoft
"""


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    """A video of four seconds without subtitles."""
    path = tmp_path_factory.mktemp("plain") / "film.mkv"
    write_with_subtitles(path)
    return path


def seen(subtitles: Subtitles) -> list[tuple[float, float, str]]:
    return [(round(line.start, 3), round(line.end, 3), line.text) for line in subtitles.lines]


# --- files beside the video -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.srt", SRT, [(1, 2, "Hello world second row third"), (1.5, 3, "[door slams] {sic} 3 < 4")]),
        (
            "a.srt",
            SRT.replace("\n", "\r\n"),
            [(1, 2, "Hello world second row third"), (1.5, 3, "[door slams] {sic} 3 < 4")],
        ),
        ("a.vtt", VTT, [(1, 2, "Hello & good {day}"), (3.5, 4, "bye")]),
        ("a.srt", VTT, [(1, 2, "Hello & good {day}"), (3.5, 4, "bye")]),
        ("a.ass", ASS, [(1, 2.5, "Hi, there next row soft"), (3, 4, "after")]),
        ("a.vtt", "WEBVTT\n\n", []),
        ("a.srt", "\n\n", []),
    ],
)
def test_text_without_markup_in_the_order_of_time(plain, tmp_path, name, text, expected, caplog):
    file = tmp_path / name
    file.write_bytes(text.encode())
    subtitles = read_subtitles(plain, file)
    assert (seen(subtitles), subtitles.source) == (expected, name)
    assert ("no line of subtitles was found" in caplog.text) == (not expected)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
def test_encodings(plain, tmp_path, encoding, caplog):
    file = tmp_path / "a.srt"
    text = "1\n00:00:01,000 --> 00:00:02,000\nschöne Grüße, señor\n"
    file.write_bytes(text.encode(encoding))
    assert seen(read_subtitles(plain, file)) == [(1, 2, "schöne Grüße, señor")]
    said = "a.srt: not UTF-8; read as Windows-1252 (Western European). If that is wrong, save it as UTF-8"
    assert (said in caplog.text) == (encoding == "latin-1")


def test_text_of_a_big_endian_file_and_of_every_script(plain, tmp_path):
    file = tmp_path / "a.srt"
    text = "1\n00:00:01,000 --> 00:00:02,000\nПривет 世界 שלום 👋\n"
    file.write_bytes(b"\xfe\xff" + text.encode("utf-16-be"))
    assert seen(read_subtitles(plain, file)) == [(1, 2, "Привет 世界 שלום 👋")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"a\.srt: the file is empty"),
        (b"Dear reader,\n\nthis is a letter.\n", r"a\.srt: these are no subtitles in SRT, WebVTT or ASS"),
        (b"#EXTM3U\n#EXTINF:2,\nfilm.mkv\n", r"a\.srt: these are no subtitles"),
        (b"\x89PNG\r\n\x1a\n\x00\x00\x00", r"a\.srt: this is not text"),
        (b"\xff\xfe1", r"a\.srt: neither UTF-8, UTF-16 nor Windows-1252"),
        (b"1\n00:00:01,000 --> 00:00:02,000\n\x81\x8d\n", r"a\.srt: neither UTF-8, UTF-16 nor Windows-1252"),
        (b"1\n" * (subtitle_tracks.MAX_BYTES // 2 + 1), r"a\.srt: longer than 16 MiB"),
    ],
)
def test_files_that_are_no_subtitles_are_named(plain, tmp_path, content, message):
    file = tmp_path / "a.srt"
    file.write_bytes(content)
    with pytest.raises(VideoError, match=message) as caught:
        read_subtitles(plain, file)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_and_a_video_that_is_none(plain, tmp_path):
    with pytest.raises(VideoError, match=r"there\.srt: there is no such file"):
        read_subtitles(plain, tmp_path / "there.srt")
    (tmp_path / "letter.mp4").write_text("Dear reader")
    (tmp_path / "letter.srt").write_text(SRT)
    with pytest.raises(VideoError, match=r"letter\.mp4: FFmpeg cannot open it"):
        read_subtitles(tmp_path / "letter.mp4")


def test_which_file_belongs_to_a_video(tmp_path):
    video = tmp_path / "film [1].mp4"
    others = ["film [1].part2.srt", "film [1]2.srt", "film.srt", "film [1].txt", "film [1].en.marc"]
    in_order = [
        "film [1].SRT",
        "film [1].vtt",
        "film [1].ass",
        "film [1].de.srt",
        "film [1].en-orig.vtt",
        "film [1].en.sdh.srt",
        "film [1].pt-BR.srt",
        "film [1].aa.forced.srt",
    ]
    for name in [*others, *in_order]:
        (tmp_path / name).touch()
    for name in in_order:
        assert beside(video) == tmp_path / name
        (tmp_path / name).unlink()
    assert beside(video) is None


def test_a_file_beside_the_video_comes_before_a_track_in_it(tmp_path):
    video = tmp_path / "film.mkv"
    write_with_subtitles(video, SubtitleTrack(lines=((1, 2, "inside"),)))
    assert seen(read_subtitles(video)) == [(1, 2, "inside")]
    (tmp_path / "film.en.srt").write_text(SRT)
    assert read_subtitles(video).source == "film.en.srt"
    assert read_subtitles(video, "none") == Subtitles()
    assert seen(read_subtitles(video, video)) == [(1, 2, "inside")]


# --- tracks in the video --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mp4", "mov_text"), ("a.mov", "mov_text"), ("a.mkv", "subrip"), ("a.mkv", "ass"), ("a.mkv", "webvtt")],
)
def test_text_tracks(tmp_path, name, codec):
    write_with_subtitles(
        tmp_path / name,
        SubtitleTrack(codec, ((1, 2, r"{\i1}Hello{\i0}\Nthere"), (2.5, 3.5, "schön")), language="eng"),
    )
    subtitles = read_subtitles(tmp_path / name)
    assert seen(subtitles) == [(1, 2, "Hello there"), (2.5, 3.5, "schön")]
    assert subtitles.source == "track 1 (eng)"


def test_a_real_clip_says_what_one_hears(real_videos):
    clip = {path.name: path for path in real_videos}.get("nasa_13013.mp4")
    if clip is None:
        pytest.skip("nasa_13013.mp4 is not among the clips")
    subtitles = read_subtitles(clip)
    assert subtitles.source == "track 2 (eng)"
    assert text_of(subtitles, 9.0, 10.0) == "at NASA’s Goddard Space Flight Center in Greenbelt, Maryland."


def test_the_default_track_is_read_else_the_first_and_forced_ones_last(tmp_path):
    def chosen(*flags: int) -> str:
        tracks = [SubtitleTrack(lines=((1, 2, str(number)),), flags=flag) for number, flag in enumerate(flags)]
        write_with_subtitles(tmp_path / "a.mkv", *tracks)
        (line,) = read_subtitles(tmp_path / "a.mkv").lines
        return line.text

    default, forced = int(Disposition.default), int(Disposition.forced)
    assert chosen(0, 0) == "0"
    assert chosen(0, default) == "1"
    assert chosen(default | forced, 0) == "1"
    assert chosen(forced) == "0"


def test_subtitles_that_are_pictures_are_left_out_with_a_word(tmp_path, caplog):
    pictures = SubtitleTrack("dvdsub", ((1, 2, "nonsense"),), flags=int(Disposition.default))
    write_with_subtitles(tmp_path / "a.mkv", pictures)
    assert read_subtitles(tmp_path / "a.mkv") == Subtitles()
    assert "a.mkv: its subtitles are pictures (dvdsub), not text: left out" in caplog.text
    caplog.clear()
    write_with_subtitles(tmp_path / "b.mkv", pictures, SubtitleTrack(lines=((1, 2, "text"),)))
    assert seen(read_subtitles(tmp_path / "b.mkv")) == [(1, 2, "text")]
    assert caplog.text == ""


def test_no_subtitles_are_no_lines(plain, caplog):
    caplog.set_level(logging.INFO)
    assert read_subtitles(plain) == Subtitles()
    assert caplog.text == ""


def test_a_track_in_another_encoding_is_read(tmp_path):
    write_with_subtitles(tmp_path / "a.mkv", SubtitleTrack(lines=((1, 2, "schoen"),)))
    data = (tmp_path / "a.mkv").read_bytes()
    assert data.count(b"schoen") == 1
    (tmp_path / "a.mkv").write_bytes(data.replace(b"schoen", b"sch\xf6n."))
    assert seen(read_subtitles(tmp_path / "a.mkv")) == [(1, 2, "schön.")]


def test_a_track_that_is_too_long_is_refused(tmp_path, monkeypatch):
    write_with_subtitles(
        tmp_path / "a.mkv", SubtitleTrack(lines=tuple((second, second + 1, "x" * 9) for second in range(4)))
    )
    monkeypatch.setattr(subtitle_tracks, "MAX_BYTES", 30)
    with pytest.raises(VideoError, match=r"a\.mkv: more than .* of subtitles; do without"):
        list(subtitle_tracks.read_track(str(tmp_path / "a.mkv")))


# --- times ----------------------------------------------------------------------------------------------------------


def test_a_track_has_the_clock_of_the_file_and_0_is_the_first_picture(tmp_path):
    write_with_subtitles(
        tmp_path / "a.mkv", SubtitleTrack(lines=((1, 4, "early"), (4.5, 5.5, "across"), (6, 7, "later"))), offset=5.0
    )
    assert seen(read_subtitles(tmp_path / "a.mkv")) == [(0, 0.5, "across"), (1, 2, "later")]


def test_a_file_has_the_clock_of_a_player_which_starts_with_picture_or_sound(tmp_path):
    """A player begins with the first picture, even if that is at 5 s, unless a sound comes before it."""
    (tmp_path / "a.srt").write_text("1\n00:00:06,000 --> 00:00:07,000\nsix\n")
    write_with_subtitles(tmp_path / "a.mkv", offset=5.0)
    assert seen(read_subtitles(tmp_path / "a.mkv")) == [(6, 7, "six")]
    write_with_subtitles(tmp_path / "a.mkv", offset=5.0, sound=True)
    ((start, end, text),) = seen(read_subtitles(tmp_path / "a.mkv"))
    assert (start, end, text) == (pytest.approx(1, abs=0.2), pytest.approx(2, abs=0.2), "six")


def test_a_cue_without_a_length_stays_two_seconds(plain, tmp_path):
    (tmp_path / "a.srt").write_text("1\n00:00:01,000 --> 00:00:01,000\nflash\n")
    assert seen(read_subtitles(plain, tmp_path / "a.srt")) == [(1, 3, "flash")]


# --- repetitions ----------------------------------------------------------------------------------------------------


def merged(*cues: tuple[float, float, str]) -> list[tuple[float, float, str]]:
    lines = without_repetitions([Cue(start, end, tuple(text.split("|"))) for start, end, text in cues])
    return [(line.start, line.end, line.text) for line in lines]


def test_rolling_captions_are_said_once(plain, tmp_path):
    (tmp_path / "a.vtt").write_text(
        """WEBVTT
Kind: captions

00:00:00.080 --> 00:00:01.389 align:start position:0%
 
hello<00:00:00.480><c> and</c><00:00:00.719><c> welcome</c>

00:00:01.389 --> 00:00:01.399 align:start position:0%
hello and welcome
 

00:00:01.399 --> 00:00:02.550 align:start position:0%
hello and welcome
to<00:00:01.560><c> the</c><00:00:01.800><c> show</c>

00:00:02.550 --> 00:00:02.560 align:start position:0%
to the show
 
"""
    )
    assert seen(read_subtitles(plain, tmp_path / "a.vtt")) == [
        (0.08, 1.399, "hello and welcome"),
        (1.399, 2.56, "to the show"),
    ]


def test_a_row_that_goes_on_is_one_and_one_that_comes_again_is_another():
    assert merged((0, 1, "no"), (1, 2, "no"), (5, 6, "no")) == [(0, 2, "no"), (5, 6, "no")]
    assert merged((0, 9, "song"), (1, 2, "words"), (9, 12, "song")) == [(0, 12, "song"), (1, 2, "words")]
    assert merged((0, 1, "a|b"), (1, 2, "b|c"), (2, 3, "c|d")) == [(0, 1, "a b"), (1, 2, "c"), (2, 3, "d")]
    assert merged((0, 2, "twice"), (0, 2, "twice")) == [(0, 2, "twice")]
    assert merged((0, 1, "la|la")) == [(0, 1, "la")]


def test_a_row_that_grows_takes_the_place_of_what_it_began_with():
    assert merged((0, 1, "so"), (1, 2, "so we"), (2, 3, "so we begin")) == [(0, 3, "so we begin")]
    assert merged((0, 1, "so"), (1, 2, "some")) == [(0, 1, "so"), (1, 2, "some")]
    assert merged((0, 1, "so|so we")) == [(0, 1, "so so we")]


CUES = st.lists(
    st.builds(
        lambda start, length, rows: Cue(start, start + length, tuple(rows)),
        st.integers(-3, 20).map(float),
        st.integers(1, 5).map(float),
        st.lists(st.text("abc ", min_size=1, max_size=5).map(str.strip).filter(bool), min_size=1, max_size=3),
    ),
    max_size=12,
)


@given(CUES)
def test_every_word_is_kept_in_order_of_time_whatever_repeats(cues):
    lines = without_repetitions(cues)
    assert list(lines) == sorted(lines, key=lambda line: line.start)
    assert all(0 <= line.start < line.end and line.text for line in lines)
    shown = [row for cue in cues if cue.end > 0 for row in cue.rows]
    text = " ".join(line.text for line in lines)
    assert {word for row in shown for word in row.split()} == set(text.split())
    assert len(text.split()) <= sum(len(row.split()) for row in shown)


# --- events ---------------------------------------------------------------------------------------------------------


@st.composite
def lines_and_events(draw) -> tuple[Subtitles, list[Event]]:
    starts = sorted(draw(st.lists(st.integers(0, 60), max_size=15)))
    lines = [SubtitleLine(float(s), float(s + draw(st.integers(1, 30))), f"w{n}") for n, s in enumerate(starts)]
    ends = sorted(draw(st.sets(st.integers(1, 50), min_size=1, max_size=12)))
    return Subtitles(tuple(lines)), [Event(float(a), float(b)) for a, b in zip([0, *ends], ends, strict=False)]


@given(lines_and_events())
def test_a_line_belongs_to_the_event_that_it_overlaps_most(given_both):
    subtitles, events = given_both
    expected: list[list[str]] = [[] for _ in events]
    for line in subtitles.lines:
        overlaps = [max(0.0, min(line.end, event.end) - max(line.start, event.start)) for event in events]
        if max(overlaps) > 0:
            expected[overlaps.index(max(overlaps))].append(line.text)
    assert event_texts(subtitles, events) == [" ".join(texts) for texts in expected]


@given(lines_and_events(), st.integers(0, 60), st.integers(1, 60))
def test_the_text_of_an_interval_is_of_what_is_shown_in_it(given_both, start, length):
    subtitles, _ = given_both
    end = start + length
    moments = [start + half / 2 for half in range(2 * length)]
    shown = [line.text for line in subtitles.lines if any(line.start <= moment < line.end for moment in moments)]
    assert text_of(subtitles, start, end) == " ".join(shown)


def test_text_of_parts_that_only_touch():
    subtitles = Subtitles((SubtitleLine(1.0, 2.0, "said"),))
    assert (text_of(subtitles, 2.0, 3.0), text_of(subtitles, 0.0, 1.0), text_of(subtitles, 0.0, 1.1)) == (
        "",
        "",
        "said",
    )
    assert event_texts(subtitles, [Event(0.0, 1.0), Event(2.0, 3.0)]) == ["", ""]
    assert event_texts(Subtitles(), [Event(0.0, 1.0)]) == [""]
    assert event_texts(subtitles, []) == []


def test_a_hundred_thousand_lines_are_shared_out_at_once():
    """In time that grows with the lines and not with their product with the events (that would take minutes)."""
    lines = tuple(SubtitleLine(float(n), n + 1.0, "x") for n in range(100_000))
    events = [Event(float(n), n + 5.0) for n in range(0, 100_000, 5)]
    assert event_texts(Subtitles(lines), events) == ["x x x x x"] * 20_000


def test_ffmpeg_still_reads_these_formats_by_their_content():
    """`format_whitelist` names demuxers; were one renamed, its files would be refused."""
    assert {"srt", "webvtt", "ass"} <= set(av.formats_available)
