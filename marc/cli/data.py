"""``marc data``: which training videos to get, and whether they can be read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Training data in Video-R1's format: sample it, check it.", no_args_is_help=True)

Root = Annotated[Path | None, typer.Option(help="Folder of the videos.  [default: that of the rows' file]")]


@app.command()
def sample(
    rows: Annotated[Path, typer.Argument(help="File of rows, such as Video-R1-260k.json.")],
    output: Annotated[Path, typer.Argument(help="Manifest to write.")],
    n: Annotated[int, typer.Option("--n", help="Number of rows.")] = 5000,
    seed: Annotated[int, typer.Option(help="Another seed is another sample.")] = 0,
    root: Root = None,
) -> None:
    """Draw a stratified sample and list the files that it needs; unusable rows are named and left out."""
    from marc.cli.errors import user_errors
    from marc.data.rows import load_rows, parse_rows
    from marc.data.sampling import manifest, sample_rows
    from marc.io import sha256_file, write_json

    with user_errors("marc data sample"):
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
def check(
    rows: Annotated[Path, typer.Argument(help="File of rows or manifest.")],
    output: Annotated[Path, typer.Argument(help="Manifest to write, of the rows that can be used.")],
    root: Root = None,
    frames: Annotated[int, typer.Option(help="Frames to read from each video.")] = 64,
    timeout: Annotated[float, typer.Option(help="Seconds that one file may take.")] = 60.0,
    workers: Annotated[int, typer.Option(help="Files to read at a time.")] = 2,
) -> None:
    """Decode every file in time-limited processes, name the bad rows and write a clean manifest.

    Exit code 1 if any row is bad. A killed run goes on where it was, by the journal that it keeps beside OUTPUT.
    """
    from rich.console import Console
    from rich.progress import track

    from marc.cli.errors import user_errors
    from marc.data.check import CheckOptions, check_files
    from marc.data.rows import load_rows, parse_rows
    from marc.data.sampling import manifest, read_checksums
    from marc.io import write_json

    folder = root or rows.parent
    with user_errors("marc data check"):
        usable, bad = parse_rows(load_rows(rows))
        output.parent.mkdir(parents=True, exist_ok=True)
        journal = output.with_name(f"{output.name}.journal")
        results = check_files(
            usable,
            folder,
            CheckOptions(frames, timeout, workers),
            checksums=read_checksums(rows),
            journal=journal,
        )
        total = len({row.path for row in usable if row.path is not None})
        checked = list(track(results, "decoding", total=total, console=Console(stderr=True)))
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
def teacher(
    rows: Annotated[Path, typer.Argument(help="File of rows or manifest, all usable.")],
    output: Annotated[Path, typer.Argument(help="Rows to write, with a_full.")],
    model: Annotated[str, typer.Option(help="'tiny', a folder or a hub name.")] = "tiny",
    root: Root = None,
    cache: Annotated[Path | None, typer.Option(help="Folder of results.  [default: teacher/ beside OUTPUT]")] = None,
    style: Annotated[str, typer.Option(help="Prompt style; must be the training's.")] = "video-r1-train",
    samples: Annotated[int, typer.Option(help="Answers to each row.")] = 8,
    max_new_tokens: Annotated[int, typer.Option(help="Most tokens of an answer.")] = 768,
    temperature: Annotated[float, typer.Option(help="Of the sampling.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Of the sampling.")] = 0,
    fps: Annotated[float, typer.Option(help="Frames per second to read.")] = 2.0,
    max_frames: Annotated[int, typer.Option(help="Most frames of a video.")] = 64,
    shard: Annotated[str, typer.Option(help="This process's part of the work, such as 0/4.")] = "0/1",
) -> None:
    """Ask the uncompressed model about every video row: the accuracy that C-GRPO's retention is measured against.

    A killed run goes on where it was. With several shards, run the command once more without one to join them.
    """
    from contextlib import nullcontext

    from rich.console import Console
    from rich.progress import track

    from marc.cli.errors import user_errors
    from marc.data.rows import read_rows
    from marc.data.sampling import manifest
    from marc.io import write_json
    from marc.model.loading import load_model
    from marc.training.reader import VisualReader
    from marc.training.teacher import (
        TeacherCache,
        TeacherGrader,
        TeacherOptions,
        model_fingerprint,
        teacher_accuracies,
    )
    from marc.video.sources import VideoFiles

    with user_errors("marc data teacher"):
        number, count = _shard(shard)
        questions, folder = read_rows(rows), root or rows.parent
        loaded, processor = load_model(model, target_frames=None)
        grader = TeacherGrader(
            lambda: nullcontext(loaded),
            VisualReader(processor, VideoFiles(fps, max_frames)),
            TeacherOptions(samples, max_new_tokens, temperature, seed),
            TeacherCache(cache or output.parent / "teacher", number),
            model_fingerprint(loaded),
        )
        results = teacher_accuracies(questions, folder, grader, style=style, shard=(number, count))
        total = len(range(number, len(questions), count))
        answered = list(track(results, "teacher", total=total, console=Console(stderr=True)))
        if count == 1:
            write_json(output, manifest(answered, folder, source={"file": rows.name}, teacher=model))
    known = [row.a_full for row in answered if row.a_full is not None]
    mean = f"mean accuracy {sum(known) / len(known):.4f}" if known else "no video rows"
    typer.echo(f"{output if count == 1 else f'shard {shard}'}: {len(answered)} rows, {mean}")


def _shard(text: str) -> tuple[int, int]:
    number, slash, count = text.partition("/")
    if not (slash and number.isdecimal() and count.isdecimal() and int(number) < int(count)):
        raise ValueError(f"--shard must be NUMBER/COUNT with NUMBER < COUNT, such as 0/4; got {text!r}")
    return int(number), int(count)
