"""``marc watch``: a memory that grows with a source that does not end."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from marc.cli.memory import GENERATED_ONLY
from marc.cli.options import Given, Part, command
from marc.cli.output import echo
from marc.cli.setting import check_runs
from marc.cli.verbosity import remark
from marc.memory.live.options import LiveOptions
from marc.memory.options import MemoryOptions, RetrievalOptions
from marc.options import Limits, check
from marc.types import ModelOptions
from marc.video.times import clock

if TYPE_CHECKING:
    from marc.inference.waiting import WaitingQuestions
    from marc.memory.embedder import EventEmbedder
    from marc.memory.live import LiveMemory, Source


@dataclass(frozen=True)
class WatchOptions:
    """How a source is watched, and what its memory is called.

    Attributes:
        name: What the memory is called; ``None``: as the source. One that is there already goes on.
        watch_folder: Where the memories of watched sources are; ``None``: ~/.local/share/marc/watch.
        speed: Play a file so many times faster than it was recorded.
        allow_url: SOURCE may be an address (http, https, rtsp, rtmp, udp, rtp, srt, tcp). Whoever answers there
            decides what else FFmpeg fetches from networks: name only addresses that you trust.
        patience: Seconds for which an address or a camera that was lost is tried again.
        tell_above: Cosine of frame and question from which on the model looks whether a question that waits is to be
            told; ``None``: as high as nine of ten frames before.

    Raises:
        ValueError: If a value is out of range.
    """

    name: str | None = None
    watch_folder: str | None = None
    speed: Annotated[float, Limits(above=0)] = 1.0
    allow_url: bool = False
    patience: Annotated[float, Limits(least=0)] = 60.0
    tell_above: Annotated[float | None, Limits(least=-1, most=1)] = None

    def __post_init__(self) -> None:
        check(self)


@command("watch", decodes=True)
def watch(
    source: Annotated[
        str,
        typer.Argument(help="A video file, which is played; an address, with --allow-url; or a camera (/dev/video0)."),
    ],
    *,
    tell: Annotated[
        list[str] | None,
        typer.Option(help="Say when something is seen for the first time: 'when a red car appears'; repeat it."),
    ] = None,
    watching: WatchOptions,
    model: ModelOptions,
    memory: Annotated[MemoryOptions, Part(defaults={"seconds_per_frame": 2.0})],
    live: LiveOptions,
    retrieval: Annotated[RetrievalOptions, Part(("embedder",))],
    given: Given,
) -> None:
    """Watch a source and remember it as it goes on; `marc ask --watch NAME` asks about it at any moment."""
    from marc.memory.live import LiveMemory
    from marc.memory.select import default_embedder, knows_generated_videos_only
    from marc.video.watching import shown

    given.refuse_beside("no --tell", not tell, "tell_above")
    check_runs(model.device)
    place = _place(source, watching, given)
    embedder = retrieval.embedder or default_embedder(model.name)
    if knows_generated_videos_only(embedder):
        remark(f"marc: {GENERATED_ONLY}")
    name = default_name(shown(source)) if watching.name is None else watching.name
    encoder = _load_embedder(embedder, model.device)
    grown = LiveMemory(name, encoder, live, memory, source=place, folder=watching.watch_folder)
    with _until_stopped(grown):
        _follow(source, grown, watching, _Teller(grown, _waiting(grown, model, tell or (), watching.tell_above)))


def default_name(source: str) -> str:
    """What the memory of a source is called unless the user says otherwise."""
    place = urlsplit(source).path.rstrip("/") or urlsplit(source).netloc if "://" in source else source
    return re.sub(r"[^\w.-]+", "-", Path(place).stem).strip(".-")[:80] or "source"


def _place(source: str, watching: WatchOptions, given: Given) -> Source:
    """Where a source is, and the rate of a file.

    Raises:
        ValueError: It is an address, and that is not allowed, or a file that cannot be read.
    """
    from marc.memory.live import Source
    from marc.video import probe
    from marc.video.watching import check_address, is_address, is_camera, shown

    if is_address(source):
        check_address(source)
        if not watching.allow_url:
            raise ValueError(
                f"{shown(source)}: addresses are only read with --allow-url, if you trust who answers there"
            )
    if is_address(source) or is_camera(source):
        given.refuse_beside("a source that is no file", True, "speed")
        return Source(shown(source))
    given.refuse_beside("a file", True, "allow_url", "patience")
    return Source(str(Path(source).resolve()), probe(source).fps)


def _waiting(
    memory: LiveMemory, model: ModelOptions, questions: Sequence[str], above: float | None
) -> WaitingQuestions | None:
    if not questions:
        return None
    from marc.inference.assistant import VideoAssistant
    from marc.inference.waiting import WaitingQuestions

    assistant = VideoAssistant.from_pretrained(
        model.name,
        memory=None,
        device=model.device,
        dtype=model.dtype,
        attn_implementation=model.attn_implementation,
        backend=model.backend,
    )
    return WaitingQuestions(assistant, memory, questions, above)


def _follow(source: str, memory: LiveMemory, watching: WatchOptions, teller: _Teller) -> None:
    from marc.memory.live.following import follow_file, follow_live
    from marc.video.watching import is_address, is_camera

    if memory.ended is not None and not (is_address(source) or is_camera(source)):
        echo(f"{memory.name}: seen to its end at {clock(memory.until)} already")
        return
    if memory.until:
        remark(f"marc watch: {memory.name} goes on at {clock(memory.until)}")
    if is_address(source) or is_camera(source):
        is_over, end = follow_live(source, memory, patience=watching.patience, tick=teller.tick), None
    else:
        is_over, end = True, follow_file(source, memory, speed=watching.speed, tick=teller.tick)
    memory.end(end)
    teller.tick()
    if not is_over:
        echo(f"{memory.name}: lost at {clock(memory.until)}, {_events(memory)}; the same command goes on")
        raise typer.Exit(1)
    echo(f"{memory.name}: seen to its end at {clock(memory.until)}, {_events(memory)}")


def _events(memory: LiveMemory) -> str:
    return f"{memory.closed} event{'' if memory.closed == 1 else 's'}"


class _Teller:
    """Says what happens: events on the error stream, what was waited for on the other."""

    def __init__(self, memory: LiveMemory, waiting: WaitingQuestions | None) -> None:
        self._memory, self._waiting, self._closed = memory, waiting, memory.closed

    def tick(self) -> None:
        """Says it."""
        memory = self._memory
        if memory.closed > self._closed:
            event = memory.snapshot().events[-1].span
            remark(f"{clock(memory.until)}  event {clock(event.start)}-{clock(event.end)}")
            self._closed = memory.closed
        for told in self._waiting.look() if self._waiting else ():
            echo(f"{clock(told.second)}  {told.question} ({told.score:.2f})")


@contextmanager
def _until_stopped(memory: LiveMemory) -> Iterator[None]:
    """Closes a memory when the work is done, or when it is stopped by Ctrl-C or a request to end."""
    before = signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        yield
    except KeyboardInterrupt:
        echo(f"{memory.name}: stopped at {clock(memory.until)}; the same command goes on from there")
    finally:
        signal.signal(signal.SIGTERM, before)
        memory.close()


def _load_embedder(name: str, device: str | None) -> EventEmbedder:
    from marc.memory.embedder import EventEmbedder

    return EventEmbedder.from_pretrained(name, device=device)
