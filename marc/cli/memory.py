"""``marc remember``, ``marc recall``, ``marc forget``: the memory of videos from the command line."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from marc.cli.inputs import video_files
from marc.cli.options import Given, Part, command
from marc.cli.output import echo, echo_json
from marc.cli.setting import check_runs
from marc.cli.verbosity import remark
from marc.cluster import ClusterOptions
from marc.memory.filters import EventFilter, check_tags
from marc.memory.options import MemoryOptions, RetrievalOptions
from marc.terminal import in_one_line
from marc.types import ModelOptions
from marc.video.options import SubtitleOptions
from marc.video.times import clock, seconds_of

if TYPE_CHECKING:
    from marc.memory.embedder import EventEmbedder
    from marc.memory.library import RecalledPage
    from marc.memory.workers import Outcome

GENERATED_ONLY = (
    "with the embedded encoder 'tiny', which knows generated videos only; for real footage name the --model that you "
    "ask with, or an --embedder"
)

NOTHING_FITS = "no event is in the videos, with the tags and at the times that are asked for"

Library = Annotated[
    str | None,
    typer.Option(
        envvar="MARC_LIBRARY",
        help="Folder or LanceDB address of the memories of all videos.",
        show_default="~/.local/share/marc/library",
    ),
]
SUBTITLES = (
    "auto: a file beside the video, else a text track in it; none; or a file. What is said helps `marc recall`."
)
Answering = Annotated[
    ModelOptions,
    Part(
        ("name", "device"),
        helps={
            "name": "As in `marc ask`: its dual encoder is used. 'tiny' has tiny, others PE-Core-B-16.",
            "device": "Where the embedder runs; none: the GPU if there is one.",
        },
    ),
]


@command(
    "remember",
    old={
        "--folder": "--memory-folder",
        "--min-seconds": "--min-event-seconds",
        "--max-seconds": "--max-event-seconds",
    },
    decodes=True,
)
def remember(
    videos: Annotated[
        list[str],
        typer.Argument(
            help="Video files, folders, patterns, addresses of objects or of what they lie below (s3://BUCKET/FILMS), "
            "or @LIST with one of these on each line and # before comments.",
            metavar="VIDEO...",
        ),
    ],
    *,
    workers: Annotated[int, typer.Option(help="Videos at a time, each in a process of its own.", min=1)] = 1,
    library: Library = None,
    tag: Annotated[
        list[str] | None,
        typer.Option(help="A word for all these videos, in place of those that they have; repeatable."),
    ] = None,
    model: Answering,
    memory: MemoryOptions,
    retrieval: Annotated[RetrievalOptions, Part(("embedder", "folder"))],
    subtitles: Annotated[SubtitleOptions, Part(("choice",), helps={"choice": SUBTITLES})],
    cluster: ClusterOptions,
    given: Given,
) -> None:
    """Cut videos into events and remember them; what is remembered already is skipped."""
    on_cluster = ("cpus_per_worker", "gpus_per_worker", "embed_workers", "embed_batch")
    given.refuse_beside("processes of this command", cluster.ray is None, *on_cluster)
    paths = video_files(videos)
    if len(paths) > 1 and subtitles.choice not in ("auto", "none"):
        raise ValueError(f"--subtitles {subtitles.choice} cannot belong to {len(paths)} videos; name one, or say auto")
    check_tags(tag or ())
    check_runs(model.device)
    load = partial(load_embedder, chosen_embedder(retrieval, model, given), model.device)
    run = partial(
        _remembering(cluster),
        paths,
        load,
        memory,
        folder=retrieval.folder,
        subtitles=subtitles.choice,
        workers=workers,
    )
    failed = _remember(f"remembering {len(paths)}", run, library or default_library(), tag)
    for outcome in failed:
        echo(in_one_line(f"marc remember: {outcome.error}"), err=True)
    if failed:
        echo(f"marc remember: {len(failed)} of {len(paths)} videos failed", err=True)
        raise typer.Exit(1)


def _remembering(cluster: ClusterOptions) -> Callable[..., Iterator[Outcome]]:
    if cluster.ray is None:
        from marc.memory.workers import remember_all

        return remember_all
    from marc.memory.cluster import remember_on_ray

    return partial(remember_on_ray, cluster=cluster)


def _remember(
    title: str, run: Callable[..., Iterator[Outcome]], library: str | Path, tags: list[str] | None
) -> list[Outcome]:
    """Remember videos with a progress bar and put each into the library; returns those that failed."""
    from rich.progress import Progress, TimeElapsedColumn

    from marc.cli.progress import progress_console
    from marc.memory.entering import entered
    from marc.memory.library import MemoryLibrary

    shelf = MemoryLibrary(library)
    shelf.mend()
    failed = []
    with Progress(*Progress.get_default_columns(), TimeElapsedColumn(), console=progress_console()) as progress:
        task = progress.add_task(title, total=1.0)
        outcomes = run(progress=lambda share: progress.update(task, completed=share))
        for outcome in entered(outcomes, shelf, tags):
            if outcome.memory is None:
                failed.append(outcome)
                continue
            known = ", known already" if outcome.known else ""
            words = f", subtitles of {outcome.subtitles}" if outcome.subtitles else ""
            progress.console.out(
                f"{outcome.video}: {len(outcome.memory.events)} events{known}{words}", highlight=False
            )
            if outcome.remark:
                progress.console.out(f"marc remember: {outcome.remark}", highlight=False)
        progress.update(task, completed=1.0)
    return failed


@dataclass(frozen=True)
class ShownOptions:
    """Which of the events that fit a question are shown, and how.

    Attributes:
        page: Which page of k events: a number; or what the page before has said, to go on in its state of the library.
        after: Only events that end later than this time of their video: seconds, or a time such as 1:02:03.5.
        before: Only those that begin earlier.
        by_frames: Order the first hundred by their best keyframe, whose score is shown, instead of by the mean of all.
        sheet: Also draw them into this picture (.png, .jpg), with scores and times.
    """

    page: str = "1"
    after: str | None = None
    before: str | None = None
    by_frames: bool = False
    sheet: Path | None = None


@command("recall")
def recall(
    question: Annotated[str, typer.Argument(help="What to look for.")],
    *,
    k: Annotated[int, typer.Option("--k", "-k", help="How many events to show.", min=1)] = 5,
    shown: ShownOptions,
    video: Annotated[
        list[str] | None, typer.Option(help="Look into this video, or those in this folder, only; repeatable.")
    ] = None,
    tag: Annotated[list[str] | None, typer.Option(help="Look into videos with this tag only; repeatable.")] = None,
    print_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object, as docs/schema.json has it.")
    ] = False,
    library: Library = None,
    model: Answering,
    retrieval: Annotated[RetrievalOptions, Part(("embedder",))],
    given: Given,
) -> None:
    """Show the events of all remembered videos that fit a question best, by picture and by what is said in them."""
    from marc.memory.library import MemoryLibrary

    if not question.strip():
        raise ValueError("the question is empty")
    if shown.sheet is not None:
        from marc.memory.sheet import check_sheet, write_sheet

        check_sheet(shown.sheet)
    after, before = (
        None if time is None else seconds_of(time, option)
        for time, option in ((shown.after, "--after"), (shown.before, "--before"))
    )
    among = EventFilter(tuple(video or ()), after, before, tuple(tag or ()))
    number, version = _page_of(shown.page)
    check_runs(model.device)
    embedder = chosen_embedder(retrieval, model, given)
    shelf = MemoryLibrary(library or default_library())
    shelf.check_there()
    page = shelf.recall_page(
        load_embedder(embedder, model.device),
        question,
        k,
        among=among,
        number=number,
        version=version,
        by_frames=shown.by_frames,
    )
    if shown.by_frames:
        page = replace(page, events=tuple(replace(one, score=one.frame_score) for one in page.events))
    if shown.sheet is not None:
        if not page.events:
            raise ValueError(f"{shown.sheet}: nothing was found that could be drawn; {NOTHING_FITS}")
        write_sheet(shown.sheet, page.events, (number - 1) * k + 1)
    _show(page, question, embedder, as_object=print_json)


def _show(page: RecalledPage, question: str, embedder: str, *, as_object: bool) -> None:
    """Print what was found."""
    from marc.memory.ranking import snippet
    from marc.memory.select import knows_generated_videos_only
    from marc.records import EventRecord, RecallRecord, as_json

    following = f"{page.number + 1}@{page.version}" if page.has_more else None
    if as_object:
        records = [EventRecord(one.source, one.event.start, one.event.end, one.score, one.text) for one in page.events]
        warnings = [GENERATED_ONLY] if knows_generated_videos_only(embedder) else []
        record = RecallRecord.of(question, embedder, records, warnings)
        echo_json(as_json(replace(record, page=page.number, next_page=following)))
        return
    if not page.events:
        remark(f"marc: nothing was found; {NOTHING_FITS}")
    for found in page.events:
        echo(f"{found.score:6.3f}  {clock(found.event.start)}-{clock(found.event.end)}  {found.source}")
        if found.text:
            echo(f"        {snippet(found.text, question)}")
    if following:
        remark(f"marc: there are more: --page {following}")


def _page_of(text: str) -> tuple[int, str | None]:
    """A page's number and, if it is said, the version of the library that it is of."""
    number, mark, version = text.partition("@")
    if not number.isdecimal() or int(number) < 1 or bool(mark) != bool(version):
        raise ValueError(f"--page must be a number from 1 on, or what a page before has said, got {text!r}")
    return int(number), version or None


@command("forget")
def forget(
    videos: Annotated[
        list[str],
        typer.Argument(help="Video files, also such as exist no more, or addresses of objects.", metavar="VIDEO..."),
    ],
    *,
    library: Library = None,
) -> None:
    """Take videos out of the library; memory files beside the videos stay."""
    from marc.memory.library import MemoryLibrary

    shelf = MemoryLibrary(library or default_library())
    unknown = []
    for video in videos:
        if events := shelf.remove(video):
            echo(f"{video}: {events} events forgotten")
        else:
            unknown.append(video)
    if unknown:
        raise ValueError(f"not in this library: {', '.join(unknown)}")


def default_library() -> Path:
    """Where the memories of all videos are kept unless the user says otherwise."""
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / "marc" / "library"


def chosen_embedder(retrieval: RetrievalOptions, model: ModelOptions, given: Given) -> str:
    """What the user named, or else what goes with the model, with a word about it if that knows no real footage."""
    from marc.memory.select import default_embedder, knows_generated_videos_only

    if retrieval.embedder is not None:
        if given.flags("model"):
            raise ValueError("--embedder leaves nothing for --model to choose; leave one of them out")
        return retrieval.embedder
    name = default_embedder(model.name)
    if knows_generated_videos_only(name):
        remark(f"marc: {GENERATED_ONLY}")
    return name


def load_embedder(name: str, device: str | None) -> EventEmbedder:
    """An embedder on a device, for worker processes, too."""
    from marc.memory.embedder import EventEmbedder

    return EventEmbedder.from_pretrained(name, device=device)
