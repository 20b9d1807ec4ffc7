"""``marc world``: the micro-world from the command line: a sample, a data set, the embedded model's training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

app = typer.Typer(help="The micro-world: small videos with questions that can be made anywhere.", no_args_is_help=True)

Level = Annotated[Literal["easy", "hard"], typer.Option(help="How difficult.")]
Seed = Annotated[int, typer.Option(help="Another seed makes other videos.")]


@app.command()
def sample(
    video: Annotated[Path, typer.Argument(help="Video file to write; its questions go beside it as .json.")] = Path(
        "sample.mp4"
    ),
    seed: Seed = 0,
    level: Level = "easy",
    questions: Annotated[int, typer.Option(help="Number of questions.")] = 8,
) -> None:
    """Write a video of half a minute with a few events, its questions and their answers."""
    import json

    from marc.cli.errors import user_errors
    from marc.world.export import write_sample

    with user_errors("marc world sample"):
        path = write_sample(video, seed=seed, level=level, questions=questions)
    rows = json.loads(path.read_text(encoding="utf-8"))["questions"]
    typer.echo(f"{video} and {path}")
    for row in rows:
        options = f" ({', '.join(row['options'])})" if row["options"] else ""
        typer.echo(f"  {row['problem']}{options}  {row['solution']}")


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(help="Receives videos/ and eval_world.json.")],
    level: Level = "easy",
    split: Annotated[Literal["train", "validation", "test"], typer.Option(help="Splits share no video.")] = "test",
    seed: Seed = 0,
    videos: Annotated[int, typer.Option(help="Number of videos.")] = 100,
    questions: Annotated[int, typer.Option(help="Questions about each.")] = 20,
    scale: Annotated[int, typer.Option(help="Enlargement of the 28 x 28 pixels.")] = 8,
    workers: Annotated[int, typer.Option(help="Processes that write videos.")] = 1,
) -> None:
    """Write a data set in Video-R1's format: H.264 files and rows with questions."""
    from marc.cli.errors import user_errors
    from marc.world.export import FileOptions, export_world

    with user_errors("marc world export"):
        path = export_world(
            folder,
            level=level,
            split=split,
            seed=seed,
            videos=videos,
            questions=questions,
            options=FileOptions(scale=scale),
            workers=workers,
        )
    typer.echo(f"{path}")


@app.command()
def measure(
    model: Annotated[str, typer.Option(help="'tiny' (embedded) or a folder.")] = "tiny",
    layout: Annotated[
        list[str] | None,
        typer.Option(help="full, events, 'events blind', frames or blank; repeat it.  [default: all]"),
    ] = None,
    style: Annotated[
        str | None, typer.Option(help="short, plain, video-r1 or video-r1-train.  [default: the model's]")
    ] = None,
    level: Level = "easy",
    seed: Seed = 1,
    videos: Annotated[int, typer.Option(help="Number of videos.")] = 128,
    questions: Annotated[int, typer.Option(help="Questions about each.")] = 24,
) -> None:
    """Accuracy on fresh test videos, without files: thousands of questions in a minute."""
    from functools import partial

    from rich.console import Console
    from rich.table import Table

    from marc.cli.errors import user_errors
    from marc.model.loading import load_model
    from marc.world.measure import LAYOUTS, summarise
    from marc.world.measure import measure as measure_layout

    with user_errors("marc world measure"):
        loaded, processor = load_model(model, device="cpu")
        ask = partial(
            measure_layout,
            loaded,
            processor,
            style=style,
            level=level,
            seed=seed,
            videos=videos,
            questions=questions,
        )
        columns = {name: summarise(ask(layout=name)) for name in layout or LAYOUTS}
        columns["another video"] = summarise(ask(layout="events", shuffled=True))
    table = Table("questions", "n", *columns)
    first = next(iter(columns.values()))
    for group, (_, count) in first.items():
        table.add_row(group, str(count), *(f"{column[group][0]:.3f}" for column in columns.values()))
    Console().print(table)


@app.command()
def train(
    output: Annotated[Path, typer.Argument(help="Folder of the trained model.")],
    config: Annotated[Path, typer.Option(help="Recipe.")] = Path("configs/world_tiny.yaml"),
    run: Annotated[
        Path | None,
        typer.Option(help="Folder of the checkpoints; a killed run goes on from there.  [default: OUTPUT/run]"),
    ] = None,
) -> None:
    """Train the embedded model from scratch and save it with its log."""
    from experiments.tiny_model.train import train_and_save
    from marc.cli.errors import user_errors

    with user_errors("marc world train"):
        train_and_save(config, output, run or output / "run")


@app.command()
def train_embedder(
    output: Annotated[Path, typer.Argument(help="Folder of the trained dual encoder.")],
    steps: Annotated[int, typer.Option(help="Training steps.")] = 1500,
    seed: Seed = 0,
) -> None:
    """Train the dual encoder that the memory uses offline, and print its recall on held-out videos."""
    from experiments.tiny_model.dual_encoder import train_and_save
    from marc.cli.errors import user_errors

    with user_errors("marc world train-embedder"):
        recall = train_and_save(output, steps=steps, seed=seed)
    typer.echo(f"recall@1 of the right event on held-out videos: {recall:.4f}")


@app.command()
def ablation(
    output: Annotated[Path, typer.Option(help="Folder; a killed run goes on from there.")] = Path("runs/ablation"),
    model: Annotated[str, typer.Option(help="The teacher: 'tiny' (embedded) or a folder.")] = "tiny",
    seeds: Annotated[int, typer.Option(help="Repetitions.")] = 3,
    first_seed: Annotated[int, typer.Option(help="Seed of the first one.")] = 0,
    seconds: Annotated[float, typer.Option(help="Processor time of every arm.")] = 60.0,
    train_videos: Annotated[int, typer.Option(help="Videos to train on.")] = 1024,
    videos: Annotated[int, typer.Option(help="Held-out videos.")] = 96,
    questions: Annotated[int, typer.Option(help="Questions about each.")] = 24,
    test_seed: Annotated[int, typer.Option(help="Of the held-out videos.")] = 5,
    segmenter: Annotated[str, typer.Option(help="transnetv2, scenedetect or uniform.")] = "transnetv2",
    workers: Annotated[int, typer.Option(help="Processes of one thread each.")] = 1,
) -> None:
    """Compare SFT, C-GRPO, distillation and mixed budgets at equal time; see docs/results.md."""
    from experiments.ablation.report import write_report
    from experiments.ablation.run import run_ablation
    from experiments.ablation.settings import AblationSettings
    from marc.cli.errors import user_errors

    with user_errors("marc world ablation"):
        settings = AblationSettings(
            model=model,
            seeds=tuple(range(first_seed, first_seed + seeds)),
            seconds=seconds,
            train_videos=train_videos,
            test_videos=videos,
            test_questions=questions,
            test_seed=test_seed,
            segmenter=segmenter,
        )
        results = run_ablation(settings, output, workers=workers, log=typer.echo)
        write_report(results, output)
    typer.echo((output / "tables.md").read_text(encoding="utf-8"))
    typer.echo(f"{output / 'tables.md'}, {output / 'curves.png'}, {output / 'results.json'}")
