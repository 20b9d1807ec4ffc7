"""``marc data``: which training videos to get, whether they can be read, what is known of them before training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from marc.cli.memory import Answering, chosen_embedder, load_embedder
from marc.cli.options import Given, Part, command
from marc.cli.output import echo
from marc.memory.options import MemoryOptions, RetrievalOptions
from marc.types import GenerationOptions, ModelOptions
from marc.video.options import FrameOptions

if TYPE_CHECKING:
    from marc.data.placing import Placement
    from marc.data.rows import TrainingRow
    from marc.inference.backend import Backend
    from marc.memory.embedder import EventEmbedder
    from marc.memory.store import VideoMemory
    from marc.memory.workers import Outcome
    from marc.training.teacher import TeacherCache, TeacherGrader, TeacherOptions

app = typer.Typer(
    help="Training data in Video-R1's format: sample it, check it, ask a teacher about it, cut its videos.",
    no_args_is_help=True,
)

Root = Annotated[
    Path | None,
    typer.Option(
        help="Folder of the videos; paths of OUTPUT start there, too.", show_default="that of the rows' file"
    ),
]
AllowOutside = Annotated[
    bool, typer.Option("--allow-outside", help="Also read files that rows name outside the folder of the videos.")
]


@app.command()
@command("data sample")
def sample(
    rows: Annotated[Path, typer.Argument(help="File of rows, such as Video-R1-260k.json.")],
    output: Annotated[Path, typer.Argument(help="Manifest to write.")],
    *,
    n: Annotated[int, typer.Option("--n", help="Number of rows.")] = 5000,
    seed: Annotated[int, typer.Option(help="Another seed is another sample.")] = 0,
    root: Root = None,
    allow_outside: AllowOutside = False,
) -> None:
    """Draw a stratified sample and list the files that it needs; unusable rows are named and left out.

    Paths stay as they are in ROWS, so that one knows what to download: beside ROWS, or where `--root` says.
    """
    from marc.data.row_files import raw_rows
    from marc.data.rows import parse_rows
    from marc.data.sampling import sample_rows, write_manifest
    from marc.io import sha256_file

    folder = root or rows.parent
    usable, bad = parse_rows(raw_rows(rows), None if allow_outside else folder)
    for row in bad:
        echo(f"left out: {row}", err=True)
    chosen = sample_rows(usable, n, seed)
    source = {"file": rows.name, "sha256": sha256_file(rows), "rows": len(usable), "bad_rows": len(bad)}
    files = write_manifest(output, lambda: chosen, folder, source=source, seed=seed)["files"]
    present = sum(file["bytes"] is not None for file in files)
    echo(f"{output}: {n} of {len(usable)} rows, {len(files)} files ({present} of them are there)")


@app.command()
@command("data check", old={"--frames": "--max-frames", "--timeout": "--video-timeout"})
def check(
    rows: Annotated[Path, typer.Argument(help="File of rows or manifest.")],
    output: Annotated[Path, typer.Argument(help="Manifest to write, of the rows that can be used.")],
    *,
    root: Root = None,
    allow_outside: AllowOutside = False,
    fix: Annotated[
        bool,
        typer.Option("--fix", help="Mend rows by rule where that is safe, and say which in OUTPUT.mended.jsonl."),
    ] = False,
    workers: Annotated[int, typer.Option(help="Files to read at a time.")] = 2,
    frames: Annotated[FrameOptions, Part(("max_frames", "timeout"))],
) -> None:
    """Decode every file in time-limited processes, name the bad rows and write a clean manifest.

    The manifest works where it lies: without `--root`, paths are rewritten for its folder if that is another.
    A row is bad, too, if the strict reward pays no answer that does as it is told. Exit code 1 if any row is bad. A
    killed run goes on where it was, by the journal that it keeps beside OUTPUT.
    """
    from rich.progress import track

    from marc.cli.progress import progress_console
    from marc.data.check import CheckOptions, check_needed, needed_files
    from marc.data.conforming import Selection
    from marc.data.placing import Placement
    from marc.data.rows import first_few
    from marc.data.sampling import read_checksums, write_manifest

    placement = Placement(rows, output, root)
    folder = placement.folder
    output.parent.mkdir(parents=True, exist_ok=True)
    told = output.with_name(f"{output.name}.mended.jsonl")
    selection = Selection(rows, None if allow_outside else folder, fix=fix)
    with selection.reporting(told if fix else None, lambda row: echo(f"{row}")):
        needed = needed_files(selection.rows())
    journal = output.with_name(f"{output.name}.journal")
    options = CheckOptions(frames.max_frames, frames.timeout, workers)
    results = check_needed(needed, folder, options, checksums=read_checksums(rows), journal=journal)
    shown = track(results, "decoding", total=len(needed), console=progress_console())
    problems = {file.key: file for file in shown if file.problem is not None}
    bad = selection.bad
    for file in problems.values():
        echo(f"{file.path} (problem_id {first_few(file.users)}): {file.problem}")
        bad += len(file.users)

    def clean() -> Iterator[TrainingRow]:
        usable = (row for row in selection.rows() if (row.path, row.data_type) not in problems)
        return map(placement.place, usable)

    strata = write_manifest(output, clean, placement.root, source={"file": rows.name})["strata"]
    journal.unlink(missing_ok=True)
    for line in selection.summary():
        echo(line)
    echo(f"{output}: {sum(strata.values())} rows can be used; {bad} cannot")
    _tell(placement)
    if bad:
        raise typer.Exit(1)


@app.command()
@command("data cuts", decodes=True)
def cuts(
    rows: Annotated[Path, typer.Argument(help="File of rows or manifest, all usable.")],
    output: Annotated[Path, typer.Argument(help="Rows to write, with cuts.")],
    *,
    root: Root = None,
    allow_outside: AllowOutside = False,
    workers: Annotated[int, typer.Option(help="Videos at a time, each in a process of its own.", min=1)] = 1,
    model: Answering,
    memory: MemoryOptions,
    retrieval: Annotated[RetrievalOptions, Part(("embedder", "folder"))],
    given: Given,
) -> None:
    """Find out where the events of the rows' videos begin, as the memory of these videos would be cut.

    Each is remembered as by `marc remember`, but in no library; a killed run goes on where it was. Rows about videos
    that cannot be read, or are not those of a manifest, are named and left out, and the exit code is 1.
    """
    from marc.data.placing import Placement
    from marc.data.rows import first_few, read_rows
    from marc.data.sampling import read_checksums, write_manifest

    placement = Placement(rows, output, root)
    folder, expected = placement.folder, read_checksums(rows)
    known = read_rows(rows, folder, allow_outside=allow_outside)
    asked: dict[str, list[TrainingRow]] = {}
    for row in known:
        if row.data_type == "video":
            asked.setdefault(str(row.file(folder)), []).append(row)
    embedder = chosen_embedder(retrieval, model, given)
    found: dict[str, VideoMemory] = {}
    for outcome in _remembered(
        list(asked), partial(load_embedder, embedder, model.device), memory, retrieval, workers
    ):
        own, problem = asked[outcome.video], outcome.error
        if outcome.memory is not None and expected.get(str(own[0].path)) not in (None, outcome.memory.content):
            problem = f"{outcome.video}: the file is not the one of the manifest (its checksum differs)"
        if problem is not None:
            echo(f"{problem} (problem_id {first_few([row.problem_id for row in own])})", err=True)
        elif outcome.memory is not None:
            found[outcome.video] = outcome.memory
    if asked and not found:
        raise ValueError(f"{rows}: none of its {len(asked)} videos could be read; is --root {folder} their folder?")
    left = [row for row in known if row.data_type != "video" or str(row.file(folder)) in found]
    about = {"source": {"file": rows.name}, "embedder": embedder, "events": asdict(memory)}
    checksums = {str(placement.place(asked[video][0]).path): each.content for video, each in found.items()}
    cut = [placement.place(_with_cuts(row, folder, found)) for row in left]
    write_manifest(output, lambda: cut, placement.root, checksums, **about)
    events = sum(len(each.events) for each in found.values())
    echo(f"{output}: {len(left)} rows, {len(found)} videos of {events} events; {len(known) - len(left)} left out")
    _tell(placement)
    if len(found) < len(asked):
        raise typer.Exit(1)


def _remembered(
    videos: list[str],
    load: Callable[[], EventEmbedder],
    memory: MemoryOptions,
    retrieval: RetrievalOptions,
    workers: int,
) -> Iterator[Outcome]:
    """What becomes of each video, under a progress bar."""
    from rich.progress import Progress

    from marc.cli.progress import progress_console
    from marc.memory.workers import remember_all

    with Progress(*Progress.get_default_columns(), console=progress_console()) as progress:
        task = progress.add_task(f"cutting {len(videos)}", total=1.0)
        told = partial(progress.update, task)
        yield from remember_all(
            videos,
            load,
            memory,
            folder=retrieval.folder,
            subtitles="none",
            workers=workers,
            progress=lambda share: told(completed=share),
        )


def _with_cuts(row: TrainingRow, folder: Path, found: Mapping[str, VideoMemory]) -> TrainingRow:
    """A row with the cuts of its video, if it has one."""
    if row.data_type != "video":
        return row
    return replace(row, cuts=tuple(event.start for event in found[str(row.file(folder))].events[1:]))


@app.command()
@command("data teacher")
def teacher(
    rows: Annotated[Path, typer.Argument(help="File of rows or manifest, all usable.")],
    output: Annotated[Path, typer.Argument(help="Rows to write, with a_full.")],
    *,
    root: Root = None,
    allow_outside: AllowOutside = False,
    cache: Annotated[
        Path | None, typer.Option(help="Folder of results.", show_default="teacher/ beside OUTPUT")
    ] = None,
    style: Annotated[str, typer.Option(help="Prompt style; must be the training's.")] = "video-r1-train",
    samples: Annotated[int, typer.Option(help="Answers to each row.")] = 8,
    together: Annotated[
        int, typer.Option(min=1, help="Rows to ask at a time; results are the same, fewer take less memory.")
    ] = 16,
    shard: Annotated[str, typer.Option(help="This process's part of the work, such as 0/4.")] = "0/1",
    model: ModelOptions,
    frames: Annotated[
        FrameOptions, Part(helps={"max_pixels": "Largest area of a frame in pixels; none: 128 tokens' worth."})
    ],
    generation: Annotated[
        GenerationOptions,
        Part(("max_new_tokens", "temperature", "seed"), defaults={"max_new_tokens": 768, "temperature": 1.0}),
    ],
) -> None:
    """Ask the uncompressed model about every video row: the accuracy that C-GRPO's retention is measured against.

    A killed run goes on where it was. With several shards, run the command once more without one to join them.
    """
    from rich.progress import track

    from marc.cli.progress import progress_console
    from marc.data.placing import Placement
    from marc.data.prompts import check_style
    from marc.data.rows import read_rows
    from marc.data.sampling import write_manifest
    from marc.training.teacher import TeacherCache, TeacherOptions, teacher_accuracies

    check_style(style)
    number, count = _shard(shard)
    options = TeacherOptions(samples, generation.max_new_tokens, generation.temperature, generation.seed)
    placement = Placement(rows, output, root)
    folder = placement.folder
    questions = read_rows(rows, folder, allow_outside=allow_outside)
    grader = _grader(model, frames, options, TeacherCache(cache or output.parent / "teacher", number))
    results = teacher_accuracies(questions, folder, grader, style=style, shard=(number, count), together=together)
    total = len(range(number, len(questions), count))
    answered = list(track(results, "teacher", total=total, console=progress_console()))
    if count == 1:
        placed = [placement.place(row) for row in answered]
        write_manifest(output, lambda: placed, placement.root, source={"file": rows.name}, teacher=model.name)
    known = [row.a_full for row in answered if row.a_full is not None]
    mean = f"mean accuracy {sum(known) / len(known):.4f}" if known else "no video rows"
    echo(f"{output if count == 1 else f'shard {shard}'}: {len(answered)} rows, {mean}")
    if count == 1:
        _tell(placement)


def _tell(placement: Placement) -> None:
    """Says with which folder the written file is to be read, if it needs one."""
    if remark := placement.remark():
        echo(remark)


def _grader(model: ModelOptions, frames: FrameOptions, options: TeacherOptions, cache: TeacherCache) -> TeacherGrader:
    """Loads the teacher."""
    from contextlib import nullcontext

    from marc.training.reader import VisualReader
    from marc.training.teacher import TeacherGrader
    from marc.video.sources import VideoFiles

    engine, fingerprint = _teacher(model)
    files = VideoFiles.of(frames)
    reader = VisualReader(engine.processor, files, frames.max_pixels, keep=1, min_pixels=frames.min_pixels)
    return TeacherGrader(lambda: nullcontext(engine), reader, options, cache, fingerprint)


def _teacher(model: ModelOptions) -> tuple[Backend, str]:
    """The teacher's engine, and what its results depend on."""
    from marc.inference.hf import HFBackend
    from marc.inference.vllm_backend import VllmBackend
    from marc.model.loading import load_model
    from marc.training.teacher import model_fingerprint, served_fingerprint

    load: dict[str, Any] = {
        "device": model.device,
        "dtype": model.dtype,
        "attn_implementation": model.attn_implementation,
        "target_frames": None,
    }
    if model.backend == "vllm":
        served = VllmBackend.from_pretrained(model.name, **load)
        return served, served_fingerprint(served, model.backend)
    loaded, processor = load_model(model.name, **load)
    return HFBackend(loaded, processor), model_fingerprint(loaded)


def _shard(text: str) -> tuple[int, int]:
    number, slash, count = text.partition("/")
    if not (slash and number.isdecimal() and count.isdecimal() and int(number) < int(count)):
        raise ValueError(f"--shard must be NUMBER/COUNT with NUMBER < COUNT, such as 0/4; got {text!r}")
    return int(number), int(count)
