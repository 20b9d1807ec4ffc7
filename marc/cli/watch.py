"""``marc watch``: a memory that grows with a source that does not end."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from marc.cli.inputs import clock
from marc.cli.memory import GENERATED_ONLY
from marc.cli.options import Given, Part, command
from marc.cli.output import echo
from marc.cli.setting import check_runs
from marc.cli.verbosity import remark
from marc.memory.live.options import LiveOptions
from marc.memory.options import MemoryOptions, RetrievalOptions
from marc.options import Limits, check
from marc.types import ModelOptions

if TYPE_CHECKING:
    from marc.memory.embedder import EventEmbedder
    from marc.memory.live import LiveMemory


@dataclass(frozen=True)
class WatchOptions:
    """How a source is watched, and what its memory is called.

    Attributes:
        name: What the memory is called; ``None``: as the source. One that is there already goes on.
        watch_folder: Where the memories of watched sources are; ``None``: ~/.local/share/marc/watch.
        speed: Play a file so many times faster than it was recorded.

    Raises:
        ValueError: If a value is out of range.
    """

    name: str | None = None
    watch_folder: str | None = None
    speed: Annotated[float, Limits(above=0)] = 1.0

    def __post_init__(self) -> None:
        check(self)


@command("watch", decodes=True)
def watch(
    source: Annotated[str, typer.Argument(help="A video file, which is played.")],
    *,
    watching: WatchOptions,
    model: ModelOptions,
    memory: MemoryOptions,
    live: LiveOptions,
    retrieval: Annotated[RetrievalOptions, Part(("embedder",))],
    given: Given,
) -> None:
    """Watch a source and remember it as it goes on; `marc ask --watch NAME` asks about it at any moment."""
    from marc.memory.live import LiveMemory
    from marc.memory.select import default_embedder, knows_generated_videos_only
    from marc.video import probe

    check_runs(model.device)
    info = probe(source)
    embedder = retrieval.embedder or default_embedder(model.name)
    if knows_generated_videos_only(embedder):
        remark(f"marc: {GENERATED_ONLY}")
    name = default_name(source) if watching.name is None else watching.name
    place = str(Path(source).resolve())
    grown = LiveMemory(
        name,
        _load_embedder(embedder, model.device),
        live,
        memory,
        source=place,
        rate=info.fps,
        folder=watching.watch_folder,
    )
    with _until_stopped(grown):
        _play(source, grown, watching.speed)


def default_name(source: str) -> str:
    """What the memory of a source is called unless the user says otherwise."""
    return re.sub(r"[^\w.-]+", "-", Path(source).stem).strip(".-")[:80] or "source"


def _play(source: str, memory: LiveMemory, speed: float) -> None:
    from marc.memory.live.following import follow_file

    if memory.ended is not None:
        echo(f"{memory.name}: seen to its end at {clock(memory.until)} already")
        return
    if memory.until:
        remark(f"marc watch: {memory.name} goes on at {clock(memory.until)}")
    follow_file(source, memory, speed=speed, tick=_Teller(memory).tick)
    memory.end()
    echo(f"{memory.name}: seen to its end at {clock(memory.until)}, {memory.closed} events")


class _Teller:
    """Says on the error stream what happens."""

    def __init__(self, memory: LiveMemory) -> None:
        self._memory, self._closed = memory, memory.closed

    def tick(self) -> None:
        """Says it."""
        memory = self._memory
        if memory.closed > self._closed:
            event = memory.snapshot().events[-1].span
            remark(f"{clock(memory.until)}  event {clock(event.start)}-{clock(event.end)}")
            self._closed = memory.closed


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
