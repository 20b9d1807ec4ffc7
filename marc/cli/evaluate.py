"""``marc eval`` and ``marc report``: benchmarks, and what their runs say."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from marc.cli.options import given, number_of_events, refuse_beside

if TYPE_CHECKING:
    from rich.console import Console

    from marc.evaluation.samples import Sample


PAPER_TEMPERATURE, PAPER_TOP_P = 0.01, 0.001


def evaluate(
    benchmark: Annotated[
        list[str] | None, typer.Option(help="Name, or a .json file in Video-R1-eval's format; repeatable.")
    ] = None,
    method: Annotated[
        list[str] | None, typer.Option(help="How tokens are spent, see --list; NAME+memory retrieves; repeatable.")
    ] = None,
    protocol: Annotated[
        str | None, typer.Option(help="video-r1 or official.  [default: video-r1 where the benchmark has it]")
    ] = None,
    data: Annotated[Path, typer.Option(help="Folder of the annotation files; the micro-world is made there.")] = Path(
        "data"
    ),
    videos: Annotated[
        Path | None, typer.Option(help="Folder that video paths start from.  [default: the annotations']")
    ] = None,
    model: Annotated[str, typer.Option(help="'tiny' (shipped), a folder, or a hub name.")] = "tiny",
    output: Annotated[
        Path | None, typer.Option(help="Runs go to OUTPUT/<benchmark>/<method>.  [default: runs/eval/<model>]")
    ] = None,
    style: Annotated[
        str | None, typer.Option(help="Prompt style of the video-r1 protocol.  [default: the benchmark's]")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="So many samples, evenly spread over the benchmark.", min=1)
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Questions per generation.", min=1)] = 16,
    frames: Annotated[int, typer.Option(help="Most frames per video.", min=2)] = 64,
    fps: Annotated[float, typer.Option(help="Frames per second to sample.")] = 2.0,
    min_pixels: Annotated[
        int | None, typer.Option(help="Enlarge smaller frames; Video-R1: 100352.  [default: 4 tokens]")
    ] = None,
    max_pixels: Annotated[
        int | None, typer.Option(help="Largest frame in pixels.  [default: the model's, at most 256 tokens]")
    ] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="[default: the protocol's]")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 is greedy.  [default: 0]")] = None,
    top_p: Annotated[float | None, typer.Option(help="Nucleus, where it samples.  [default: 1]")] = None,
    paper_sampling: Annotated[
        bool, typer.Option("--paper-sampling", help="The paper's temperature 0.01 and top_p 0.001.")
    ] = False,
    seed: Annotated[int | None, typer.Option(help="Of the sampling.  [default: 0]")] = None,
    static_cache: Annotated[
        bool,
        typer.Option("--static-cache", help="Keys and values of fixed size: on a GPU decoding is compiled, once."),
    ] = False,
    device: Annotated[str | None, typer.Option(help="[default: the GPU if there is one]")] = None,
    dtype: Annotated[str | None, typer.Option(help="[default: bfloat16 on a GPU, float32 on a CPU]")] = None,
    attention: Annotated[str | None, typer.Option(help="sdpa, eager or flash_attention_2.")] = None,
    embedder: Annotated[str | None, typer.Option(help="Dual encoder of the memory.  [default: the model's]")] = None,
    memory_folder: Annotated[
        Path | None, typer.Option(help="Where memories are kept.  [default: beside each video]")
    ] = None,
    segmenter: Annotated[
        str | None, typer.Option(help="transnetv2, scenedetect or uniform.  [default: transnetv2]")
    ] = None,
    k: Annotated[str | None, typer.Option(help="Events that the memory retrieves, or auto.  [default: 3]")] = None,
    timeout: Annotated[float, typer.Option(help="Time limit for decoding one video, in seconds.")] = 60.0,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Ask again what failed earlier.")] = False,
    list_all: Annotated[bool, typer.Option("--list", help="Show benchmarks and methods, then stop.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Read every file as a run would, then stop.")] = False,
) -> None:
    """Answer the questions of benchmarks, score them, and report; an interrupted run goes on where it stopped."""
    from marc.cli.errors import user_errors

    with user_errors("marc eval"):
        from rich.console import Console

        from marc.evaluation.evaluate import load_engine, load_tasks, run_task
        from marc.evaluation.methods import find_method
        from marc.evaluation.runner import RunOptions, Shard, processes
        from marc.memory.index import MemoryOptions
        from marc.types import GenerationOptions

        console = Console(stderr=True)
        if list_all:
            _list()
            return
        methods = [find_method(name) for name in method or ["marc-events"]]
        refuse_beside("--paper-sampling", paper_sampling, given(temperature=temperature, top_p=top_p))
        if paper_sampling:
            temperature, top_p = PAPER_TEMPERATURE, PAPER_TOP_P
        refuse_beside("greedy decoding (--temperature 0)", not temperature, given(top_p=top_p, seed=seed))
        remembered = given(embedder=embedder, memory_folder=memory_folder, segmenter=segmenter, k=k)
        refuse_beside("a --method without +memory", not any(one.memory for one in methods), remembered)
        if static_cache and "flash" in (attention or ""):
            raise ValueError(f"--static-cache is for one compiled graph, which --attention {attention} breaks")
        sampling = given(temperature=temperature, top_p=top_p, seed=seed)
        frame_options = {
            "fps": fps,
            "max_frames": frames,
            "min_pixels": min_pixels,
            "max_pixels": max_pixels,
            "timeout": timeout,
        }
        model_options = {
            "device": device,
            "dtype": dtype,
            "attn_implementation": attention,
            "embedder_name": embedder,
            "memory_folder": memory_folder,
            "memory_options": MemoryOptions(**given(segmenter=segmenter)),
            "k": number_of_events("3" if k is None else k),
        }
        runs = output or Path("runs/eval") / Path(model).name
        with processes() as wait:
            tasks = load_tasks(
                benchmark or ["world"],
                wait,
                protocol=protocol,
                data=data,
                videos=videos,
                style=style,
                limit=limit,
            )
            if check:
                is_main = Shard.from_environment().rank == 0
                usable = [_check(console, task.samples, frames, timeout) for task in tasks if is_main]
                wait()
                raise typer.Exit(0 if all(usable) else 1)
            failed = 0
            for one_method in methods:
                engine = load_engine(model, one_method, frame_options, **model_options)
                for task in tasks:
                    most = max_new_tokens or task.spec.max_new_tokens
                    generation = GenerationOptions(most, static=static_cache, **sampling)
                    options = RunOptions(task.protocol, generation, batch_size, retry_failed)
                    run_folder = runs / task.benchmark.name / one_method.name
                    summary = run_task(task, engine, run_folder, options, console, wait)
                    failed += summary.failed if summary else 0
        if failed:
            console.print(f"[bold red]{failed} samples failed[/]; their reasons are in the reports", highlight=False)


def report(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs, or folders that hold some.", metavar="RUN...")],
    published: Annotated[bool, typer.Option("--published", help="Show the paper's lines, too.")] = False,
    markdown: Annotated[Path | None, typer.Option(help="Also write the tables to this Markdown file.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the tables to this JSON file.")] = None,
    details: Annotated[bool, typer.Option("--details", help="Also each run's breakdown and costs.")] = False,
) -> None:
    """Put runs side by side, and compare each with the first of its benchmark, sample by sample."""
    from marc.cli.errors import user_errors

    with user_errors("marc report"):
        from rich.console import Console

        from marc.evaluation.report import comparisons, side_by_side, tables
        from marc.evaluation.runner import CARD
        from marc.evaluation.summary import summarise
        from marc.io import write_json, write_text

        folders = [folder for run in runs for folder in ([run] if (run / CARD).is_file() else _runs_below(run))]
        summaries = [summarise(folder) for folder in folders]
        shown = [side_by_side(summaries, published=published), comparisons(folders)]
        for summary in summaries if details else []:
            shown += tables(summary)
        shown = [table for table in shown if table.rows]
        console = Console()
        for table in shown:
            console.print(table.rich())
        if markdown:
            write_text(markdown, "\n\n".join(table.markdown() for table in shown) + "\n")
        if json_file:
            content = [{"title": table.title, "columns": table.columns, "rows": table.rows} for table in shown]
            write_json(json_file, content)


def _runs_below(folder: Path) -> list[Path]:
    from marc.evaluation.runner import CARD

    found = sorted((card.parent for card in folder.glob(f"**/{CARD}")), key=_beginning)
    if not found:
        raise ValueError(f"{folder} holds no run: no {CARD} in it or below")
    return found


def _beginning(folder: Path) -> tuple[str, str]:
    """By which runs are ordered: when they began."""
    import json

    from marc.evaluation.runner import CARD

    return json.loads((folder / CARD).read_text(encoding="utf-8")).get("started", ""), str(folder)


def _list() -> None:
    """What each protocol of each benchmark needs, where to get it, how it is averaged; and the methods."""
    from marc.evaluation.benchmarks import BENCHMARKS
    from marc.evaluation.methods import METHODS

    for entry in BENCHMARKS.values():
        for protocol, spec in entry.protocols.items():
            typer.echo(f"{entry.name} ({entry.title}), {protocol} protocol, {spec.headline}")
            typer.echo(f"    needs  {', '.join(spec.files)} as .jsonl, .json or .parquet, and the videos")
            typer.echo(f"    from   {spec.source}")
            if spec.note:
                typer.echo(f"    note   {spec.note}")
    typer.echo("\nmethods, each also as NAME+memory:")
    for method in METHODS.values():
        typer.echo(f"    {method.name:12} {method.summary}")


def _check(console: Console, samples: Sequence[Sample], frames: int, timeout: float) -> bool:
    from rich.progress import track

    from marc.data.check import CheckOptions, check_files

    files = len({sample.path for sample in samples})
    bad = 0
    for file in track(
        check_files(samples, options=CheckOptions(frames, timeout)), "checking", total=files, console=console
    ):
        if file.problem:
            bad += 1
            typer.echo(f"{file.path}: {file.problem} (needed by {len(file.users)} samples, first {file.users[0]})")
    typer.echo(f"{len(samples)} samples, {files} files, {bad} of them unusable")
    return not bad
