"""``marc remember``, ``marc recall``, ``marc forget``: the memory of videos from the command line."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from marc.memory.embedder import EventEmbedder
    from marc.memory.index import MemoryOptions, Outcome

Embedder = Annotated[
    str | None,
    typer.Option(
        help="'tiny' (shipped; knows generated videos only), an open_clip model such as PE-Core-T-16-384, or a folder."
        "  [default: the model's]"
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        help="As in `marc ask`: its dual encoder is used. 'tiny' has tiny, others PE-Core-B-16.  [default: tiny]"
    ),
]
Library = Annotated[
    str | None,
    typer.Option(
        envvar="MARC_LIBRARY",
        help="Folder or LanceDB address of the memories of all videos.  [default: ~/.local/share/marc/library]",
    ),
]
Device = Annotated[str | None, typer.Option(help="Where the embedder runs.  [default: the GPU if there is one]")]


def remember(
    videos: Annotated[list[Path], typer.Argument(help="Video files.", metavar="VIDEO...")],
    folder: Annotated[
        Path | None, typer.Option(help="Where the memories are kept.  [default: beside each video]")
    ] = None,
    model: Model = None,
    embedder: Embedder = None,
    segmenter: Annotated[str, typer.Option(help="transnetv2, scenedetect or uniform.")] = "transnetv2",
    min_seconds: Annotated[float, typer.Option(help="Join shorter events.")] = 2.0,
    max_seconds: Annotated[float, typer.Option(help="Split longer events.")] = 20.0,
    seconds_per_frame: Annotated[float, typer.Option(help="Embed one frame in so many seconds.")] = 4.0,
    workers: Annotated[int, typer.Option(help="Videos at a time, each in a process of its own.")] = 1,
    device: Device = None,
    library: Library = None,
) -> None:
    """Cut videos into events and remember them; what is remembered already is skipped."""
    from marc.memory.index import MemoryOptions

    paths = list(dict.fromkeys(map(str, videos)))
    with _reported("remember"):
        load = partial(_load_embedder, _chosen_embedder(embedder, model), device)
        options = MemoryOptions(segmenter, min_seconds, max_seconds, seconds_per_frame)
        failed = _remember(paths, load, options, folder, workers, library or default_library(), device)
    for outcome in failed:
        typer.echo(f"marc remember: {outcome.video}: {outcome.error}", err=True)
    if failed:
        typer.echo(f"marc remember: {len(failed)} of {len(paths)} videos failed", err=True)
        raise typer.Exit(1)


def _remember(
    videos: list[str],
    load_embedder: Callable[[], EventEmbedder],
    options: MemoryOptions,
    folder: Path | None,
    workers: int,
    library: str | Path,
    device: str | None,
) -> list[Outcome]:
    """Remember videos with a progress bar and put each into the library; returns those that failed."""
    from rich.console import Console
    from rich.progress import Progress, TimeElapsedColumn

    from marc.memory.events import segment_events
    from marc.memory.index import remember_all
    from marc.memory.library import LibraryError, MemoryLibrary

    shelf = MemoryLibrary(library)
    failed = []
    with Progress(*Progress.get_default_columns(), TimeElapsedColumn(), console=Console(stderr=True)) as progress:
        task = progress.add_task(f"remembering {len(videos)}", total=1.0)
        run = remember_all(
            videos,
            load_embedder,
            options,
            folder=folder,
            workers=workers,
            segment=partial(segment_events, device=device),
            progress=lambda share: progress.update(task, completed=share),
        )
        for outcome in run:
            if outcome.memory is None:
                failed.append(outcome)
                continue
            try:
                if not shelf.holds(outcome.memory):
                    shelf.add([outcome.memory])
            except LibraryError as error:
                failed.append(replace(outcome, memory=None, error=str(error)))
                continue
            known = ", known already" if outcome.known else ""
            progress.console.out(f"{outcome.video}: {len(outcome.memory.events)} events{known}", highlight=False)
        progress.update(task, completed=1.0)
    shelf.optimize()
    return failed


def recall(
    question: Annotated[str, typer.Argument(help="What to look for.")],
    k: Annotated[int, typer.Option("--k", "-k", help="How many events to show.")] = 5,
    model: Model = None,
    embedder: Embedder = None,
    device: Device = None,
    library: Library = None,
) -> None:
    """Show the events of all remembered videos that are nearest to a question."""
    from marc.memory.library import MemoryLibrary

    with _reported("recall"):
        shelf = MemoryLibrary(library or default_library())
        for found in shelf.recall(_load_embedder(_chosen_embedder(embedder, model), device), question, k):
            typer.echo(f"{found.score:6.3f}  {_clock(found.event.start)}-{_clock(found.event.end)}  {found.source}")


def forget(
    videos: Annotated[list[Path], typer.Argument(help="Video files, also such as exist no more.", metavar="VIDEO...")],
    library: Library = None,
) -> None:
    """Take videos out of the library; memory files beside the videos stay."""
    from marc.memory.library import MemoryLibrary

    with _reported("forget"):
        shelf = MemoryLibrary(library or default_library())
        for video in videos:
            typer.echo(f"{video}: {shelf.remove(video)} events forgotten")


def default_library() -> Path:
    """Where the memories of all videos are kept unless the user says otherwise."""
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / "marc" / "library"


@contextmanager
def _reported(command: str) -> Iterator[None]:
    """Say what the user did wrong, or what the disk refused, in one line."""
    try:
        yield
    except (ValueError, OSError) as error:
        typer.echo(f"marc {command}: {error}", err=True)
        raise typer.Exit(2) from error


def _chosen_embedder(embedder: str | None, model: str | None) -> str:
    """What the user named, or else what goes with the model, with a word about it if that knows no real footage."""
    from marc.memory import default_embedder

    if embedder and model:
        raise ValueError("--embedder leaves nothing for --model to choose; leave one of them out")
    if embedder:
        return embedder
    name = default_embedder(model or "tiny")
    if name == "tiny":
        typer.echo(
            "marc: with the embedded encoder 'tiny', which knows generated videos only; for real footage name the "
            "--model that you ask with, or an --embedder",
            err=True,
        )
    return name


def _load_embedder(name: str, device: str | None) -> EventEmbedder:
    from marc.memory.embedder import EventEmbedder

    return EventEmbedder.from_pretrained(name, device=device)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours:d}:{minutes:02d}:{rest:04.1f}"
