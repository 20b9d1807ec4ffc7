"""``marc data``: which training videos to get, and whether they can be read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from marc.cli.options import Part, command
from marc.types import GenerationOptions, ModelOptions
from marc.video.options import FrameOptions

if TYPE_CHECKING:
    from marc.training.teacher import TeacherCache, TeacherGrader, TeacherOptions

app = typer.Typer(help="Training data in Video-R1's format: sample it, check it.", no_args_is_help=True)

Root = Annotated[Path | None, typer.Option(help="Folder of the videos.", show_default="that of the rows' file")]


@app.command()
@command("data sample")
def sample(
    rows: Annotated[Path, typer.Argument(help="File of rows, such as Video-R1-260k.json.")],
    output: Annotated[Path, typer.Argument(help="Manifest to write.")],
    *,
    n: Annotated[int, typer.Option("--n", help="Number of rows.")] = 5000,
    seed: Annotated[int, typer.Option(help="Another seed is another sample.")] = 0,
    root: Root = None,
) -> None:
    """Draw a stratified sample and list the files that it needs; unusable rows are named and left out."""
    from marc.data.rows import load_rows, parse_rows
    from marc.data.sampling import manifest, sample_rows
    from marc.io import sha256_file, write_json

    usable, bad = parse_rows(load_rows(rows))
    for row in bad:
        typer.echo(f"left out: {row}", err=True)
    chosen = sample_rows(usable, n, seed)
    source = {"file": rows.name, "sha256": sha256_file(rows), "rows": len(usable), "bad_rows": len(bad)}
    values = manifest(chosen, root or rows.parent, source=source, seed=seed)
    write_json(output, values)
    present = sum(file["bytes"] is not None for file in values["files"])
    typer.echo(f"{output}: {n} of {len(usable)} rows, {len(values['files'])} files ({present} of them are there)")


@app.command()
@command("data check", old={"--frames": "--max-frames", "--timeout": "--video-timeout"})
def check(
    rows: Annotated[Path, typer.Argument(help="File of rows or manifest.")],
    output: Annotated[Path, typer.Argument(help="Manifest to write, of the rows that can be used.")],
    *,
    root: Root = None,
    workers: Annotated[int, typer.Option(help="Files to read at a time.")] = 2,
    frames: Annotated[FrameOptions, Part(("max_frames", "timeout"))],
) -> None:
    """Decode every file in time-limited processes, name the bad rows and write a clean manifest.

    Exit code 1 if any row is bad. A killed run goes on where it was, by the journal that it keeps beside OUTPUT.
    """
    from rich.progress import track

    from marc.cli.progress import progress_console
    from marc.data.check import CheckOptions, check_files
    from marc.data.rows import load_rows, parse_rows
    from marc.data.sampling import manifest, read_checksums
    from marc.io import write_json

    folder = root or rows.parent
    usable, bad = parse_rows(load_rows(rows))
    output.parent.mkdir(parents=True, exist_ok=True)
    journal = output.with_name(f"{output.name}.journal")
    options = CheckOptions(frames.max_frames, frames.timeout, workers)
    results = check_files(usable, folder, options, checksums=read_checksums(rows), journal=journal)
    total = len({row.path for row in usable if row.path is not None})
    checked = list(track(results, "decoding", total=total, console=progress_console()))
    problems = {file.path: file.problem for file in checked if file.problem is not None}
    clean = [row for row in usable if row.path not in problems]
    write_json(output, manifest(clean, folder, source={"file": rows.name}))
    journal.unlink(missing_ok=True)
    for row in bad:
        typer.echo(f"{row}")
    for file in checked:
        if file.problem is not None:
            typer.echo(f"{file.path} (problem_id {', '.join(file.users)}): {file.problem}")
    typer.echo(f"{output}: {len(clean)} rows can be used; {len(usable) + len(bad) - len(clean)} cannot")
    if bad or problems:
        raise typer.Exit(1)


@app.command()
@command("data teacher")
def teacher(
    rows: Annotated[Path, typer.Argument(help="File of rows or manifest, all usable.")],
    output: Annotated[Path, typer.Argument(help="Rows to write, with a_full.")],
    *,
    root: Root = None,
    cache: Annotated[
        Path | None, typer.Option(help="Folder of results.", show_default="teacher/ beside OUTPUT")
    ] = None,
    style: Annotated[str, typer.Option(help="Prompt style; must be the training's.")] = "video-r1-train",
    samples: Annotated[int, typer.Option(help="Answers to each row.")] = 8,
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
    from marc.data.prompts import check_style
    from marc.data.rows import read_rows
    from marc.data.sampling import manifest
    from marc.io import write_json
    from marc.training.teacher import TeacherCache, TeacherOptions, teacher_accuracies

    check_style(style)
    number, count = _shard(shard)
    options = TeacherOptions(samples, generation.max_new_tokens, generation.temperature, generation.seed)
    questions, folder = read_rows(rows), root or rows.parent
    grader = _grader(model, frames, options, TeacherCache(cache or output.parent / "teacher", number))
    results = teacher_accuracies(questions, folder, grader, style=style, shard=(number, count))
    total = len(range(number, len(questions), count))
    answered = list(track(results, "teacher", total=total, console=progress_console()))
    if count == 1:
        write_json(output, manifest(answered, folder, source={"file": rows.name}, teacher=model.name))
    known = [row.a_full for row in answered if row.a_full is not None]
    mean = f"mean accuracy {sum(known) / len(known):.4f}" if known else "no video rows"
    typer.echo(f"{output if count == 1 else f'shard {shard}'}: {len(answered)} rows, {mean}")


def _grader(model: ModelOptions, frames: FrameOptions, options: TeacherOptions, cache: TeacherCache) -> TeacherGrader:
    """Loads the teacher."""
    from contextlib import nullcontext

    from marc.model.loading import load_model
    from marc.training.reader import VisualReader
    from marc.training.teacher import TeacherGrader, model_fingerprint
    from marc.video.sources import VideoFiles

    loaded, processor = load_model(
        model.name,
        device=model.device,
        dtype=model.dtype,
        attn_implementation=model.attn_implementation,
        target_frames=None,
    )
    reader = VisualReader(processor, VideoFiles.of(frames), frames.max_pixels, min_pixels=frames.min_pixels)
    return TeacherGrader(lambda: nullcontext(loaded), reader, options, cache, model_fingerprint(loaded))


def _shard(text: str) -> tuple[int, int]:
    number, slash, count = text.partition("/")
    if not (slash and number.isdecimal() and count.isdecimal() and int(number) < int(count)):
        raise ValueError(f"--shard must be NUMBER/COUNT with NUMBER < COUNT, such as 0/4; got {text!r}")
    return int(number), int(count)
