"""Reading subtitles with FFmpeg, in this process: text files beside a video, or text tracks inside it.

FFmpeg turns every text format into lines of ASS dialogue; what is done here is to find the track, to put its times on
the clock of the pictures, and to take the markup out. `marc.video.jobs` runs this in a process that can be killed.

Times are seconds since the first picture. A track inside the file has the file's clock, so the first picture's own
time is taken off. A text file knows nothing of that clock: its 0 is where a player starts, which is the start of the
whole file, be that a picture or a sound.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
from av.container import InputContainer
from av.stream import Discard, Disposition
from av.subtitles.stream import SubtitleStream
from av.subtitles.subtitle import AssSubtitle

from marc.video import formats
from marc.video.container import open_container, packets
from marc.video.decoding import open_video
from marc.video.errors import VideoError
from marc.video.limits import out_of_memory

MAX_BYTES = 16 * 2**20
SECONDS_WITHOUT_END = 2.0
_DRAWING = re.compile(r"\{[^}]*\\p[1-9][^}]*\}.*?(\{[^}]*\\p0[^}]*\}|$)", re.DOTALL)
_OVERRIDE = re.compile(r"\{\\[^}]*\}")
_COMMENT = re.compile(r"\{[^}]*\}")
_BREAK = re.compile(r"\\[Nn]|\n")


@dataclass(frozen=True)
class Cue:
    """What is shown as one subtitle, as it was stored.

    Attributes:
        start: Seconds since the first picture; negative before it.
        end: Seconds since the first picture.
        rows: Its text, row by row, without markup.
    """

    start: float
    end: float
    rows: tuple[str, ...]


@dataclass(frozen=True)
class Track:
    """Where subtitles come from.

    Attributes:
        name: The name of a text file, or number and language of a track; empty if there is none.
        remarks: What the user should know about the choice.
    """

    name: str = ""
    remarks: tuple[str, ...] = ()


def read_text_file(path: str, video: str) -> Iterator[Track | list[Cue]]:
    """The cues of a text file that belongs to a video.

    Args:
        path: SRT, WebVTT or ASS, told apart by their content.
        video: The video, whose first picture is the zero of all times.

    Yields:
        What is read, then its cues in the order of the file.

    Raises:
        VideoError: The file is too long, not text, or none of these formats; or the video cannot be read.
    """
    text, remarks = _text_of_file(path)
    yield Track(Path(path).name, remarks)
    with open_video(video) as reader:
        shift = reader.first_seconds - reader.start_seconds
    if not text.strip():
        yield []
        return
    try:
        with av.open(io.BytesIO(text.encode()), options=formats.TEXT_OPTIONS) as container:
            assert isinstance(container, InputContainer)
            yield [cue for cues in _cues(container, container.streams.subtitles[0], shift, path) for cue in cues]
    except MemoryError as error:
        raise out_of_memory(path) from error
    except (av.FFmpegError, IndexError) as error:
        raise VideoError(
            f"{path}: these are no subtitles in SRT, WebVTT or ASS; convert or remove the file, or do without it "
            "(--subtitles none)"
        ) from error


def read_track(video: str) -> Iterator[Track | list[Cue]]:
    """The cues of the best text track in a video: one that is not forced and is flagged as default, else the first.

    Yields:
        What is read, then its cues, a few at a time.

    Raises:
        VideoError: The video cannot be read, or the track is damaged or too long.
    """
    with open_video(video) as reader:
        zero = reader.first_seconds
    with open_container(video) as container:
        tracks = [stream for stream in container.streams.subtitles if _is_text(stream)]
        if not tracks:
            yield Track(remarks=_about_pictures(video, container))
            return
        best = min(tracks, key=_rank)
        yield Track(_name(best))
        for stream in container.streams:
            if stream is not best:
                stream.discard = Discard.all
        try:
            yield from _cues(container, best, zero, video)
        except MemoryError as error:
            raise out_of_memory(video) from error
        except av.FFmpegError as error:
            raise VideoError(
                f"{video}: its subtitles, {_name(best)}, cannot be decoded ({error.strerror}); put an .srt "
                "beside it, or do without them (--subtitles none)"
            ) from error


def _cues(container: InputContainer, stream: SubtitleStream, zero: float, path: str) -> Iterator[list[Cue]]:
    """The cues of each packet, their times less `zero`."""
    stream.codec_context.options = {"sub_charenc_mode": "ignore"}
    hidden = _COMMENT if stream.codec_context.name in ("ass", "ssa") else _OVERRIDE
    size = 0
    for packet in packets(container, stream):
        size += packet.size
        if size > MAX_BYTES:
            raise VideoError(
                f"{path}: more than {MAX_BYTES >> 20} MiB of subtitles; do without them (--subtitles none)"
            )
        if packet.pts is None:
            continue
        start = float(packet.pts * packet.time_base) - zero
        length = float((packet.duration or 0) * packet.time_base) or SECONDS_WITHOUT_END
        yield [
            Cue(start, start + length, rows)
            for dialogue in packet.decode()
            if isinstance(dialogue, AssSubtitle) and (rows := _rows(_text_of(dialogue.ass).split(",", 8)[-1], hidden))
        ]


def _rows(dialogue: str, hidden: re.Pattern[str]) -> tuple[str, ...]:
    """The rows of the text of an ASS dialogue, without drawings and markup."""
    literal_brace = "\0"
    text = _DRAWING.sub("", dialogue.replace(r"\{{}", literal_brace))
    text = hidden.sub("", text).replace(literal_brace, "{").replace(r"\h", " ")
    rows = (" ".join(row.split()) for row in _BREAK.split(text))
    return tuple(row for row in rows if row)


def _text_of_file(path: str) -> tuple[str, tuple[str, ...]]:
    """The text of a file and what is to be said about its encoding."""
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise VideoError(
            f"{path}: cannot be read ({error.strerror}); mend that, or do without (--subtitles none)"
        ) from error
    if len(data) > MAX_BYTES:
        raise VideoError(f"{path}: longer than {MAX_BYTES >> 20} MiB; these are no subtitles (--subtitles none)")
    try:
        if data.startswith((b"\xff\xfe", b"\xfe\xff")):
            return data.decode("utf-16"), ()
        if b"\0" in data:
            raise VideoError(f"{path}: this is not text; give subtitles in SRT, WebVTT or ASS, saved as UTF-8")
        try:
            return data.decode("utf-8-sig"), ()
        except UnicodeDecodeError:
            remark = f"{path}: not UTF-8; read as Windows-1252 (Western European). If that is wrong, save it as UTF-8"
            return data.decode("cp1252"), (remark,)
    except UnicodeDecodeError as error:
        raise VideoError(f"{path}: neither UTF-8, UTF-16 nor Windows-1252; save it as UTF-8") from error


def _text_of(data: bytes) -> str:
    """Text of a track, which is UTF-8 unless somebody muxed another encoding."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("cp1252", errors="replace")


def _is_text(stream: SubtitleStream) -> bool:
    return stream.codec_context is not None and stream.codec_context.codec.text_sub


def _rank(stream: SubtitleStream) -> tuple[bool, bool, int]:
    flags = stream.disposition
    return bool(flags & Disposition.forced), not flags & Disposition.default, stream.index


def _name(stream: SubtitleStream) -> str:
    language = stream.metadata.get("language", "und")
    return f"track {stream.index}" + ("" if language == "und" else f" ({language})")


def _about_pictures(video: str, container: InputContainer) -> tuple[str, ...]:
    kinds = [stream.codec_context.name for stream in container.streams.subtitles if stream.codec_context is not None]
    return (f"{video}: its subtitles are pictures ({', '.join(kinds)}), not text: left out",) if kinds else ()
