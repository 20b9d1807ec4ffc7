"""The experiments as commands: ``python -m experiments.commands``, or ``marc world`` in a checkout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from marc.cli.errors import user_errors

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)


@app.command()
def train(
    output: Annotated[Path, typer.Argument(help="Folder of the trained model.")],
    config: Annotated[Path, typer.Option(help="Recipe.")] = Path("configs/world_tiny.yaml"),
    run: Annotated[
        Path | None,
        typer.Option(help="Folder of the checkpoints; a killed run goes on from there.", show_default="OUTPUT/run"),
    ] = None,
) -> None:
    """Train the embedded model from scratch and save it with its log."""
    from experiments.tiny_model.train import train_and_save

    with user_errors("marc world train"):
        train_and_save(config, output, run or output / "run")


@app.command()
def train_embedder(
    output: Annotated[Path, typer.Argument(help="Folder of the trained dual encoder.")],
    steps: Annotated[int, typer.Option(help="Training steps.")] = 1500,
    seed: Annotated[int, typer.Option(help="Another seed makes other weights.")] = 0,
) -> None:
    """Train the dual encoder that the memory uses offline, and print its recall on held-out videos."""
    from experiments.tiny_model.dual_encoder import DualEncoderSettings, train_and_save

    with user_errors("marc world train-embedder"):
        recall = train_and_save(output, DualEncoderSettings(steps=steps, seed=seed))
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
    written = ("tables.md", "accuracies.png", "curves.png", "results.json")
    typer.echo(", ".join(str(output / name) for name in written))


@app.command()
def reinforcement(
    output: Annotated[Path, typer.Option(help="Folder; a killed run goes on from there.")] = Path(
        "runs/reinforcement"
    ),
    model: Annotated[str, typer.Option(help="Start and teacher: 'tiny' (embedded) or a folder.")] = "tiny",
    level: Annotated[str, typer.Option(help="Of the micro-world: easy or hard.")] = "easy",
    seeds: Annotated[int, typer.Option(help="Repetitions.")] = 3,
    first_seed: Annotated[int, typer.Option(help="Seed of the first one.")] = 0,
    start_seconds: Annotated[float, typer.Option(help="Processor time of the supervised start.")] = 12.0,
    seconds: Annotated[float, typer.Option(help="Processor time of every arm.")] = 10.0,
    traced: Annotated[float, typer.Option(help="Part of the questions that have a trace.")] = 0.05,
    train_videos: Annotated[int, typer.Option(help="Videos to train on.")] = 64,
    videos: Annotated[int, typer.Option(help="Held-out videos.")] = 24,
    test_seed: Annotated[int, typer.Option(help="Of the held-out videos.")] = 8,
    variants: Annotated[bool, typer.Option(help="Also compare the paper's objective with single changes.")] = False,
) -> None:
    """Compare C-GRPO with more SFT and rejection sampling from one start, at equal time; see docs/cgrpo.md."""
    from typing import cast

    from experiments.reinforcement.report import write_report
    from experiments.reinforcement.run import run_reinforcement
    from experiments.reinforcement.settings import Settings
    from marc.world.scenes import Level

    with user_errors("marc world reinforcement"):
        settings = Settings(
            model=model,
            level=cast(Level, level),
            seeds=tuple(range(first_seed, first_seed + seeds)),
            start_seconds=start_seconds,
            seconds=seconds,
            traced=traced,
            train_videos=train_videos,
            test_videos=videos,
            test_seed=test_seed,
            variants=variants,
        )
        results = run_reinforcement(settings, output, log=typer.echo)
        write_report(results, output)
    typer.echo((output / "tables.md").read_text(encoding="utf-8"))


@app.command()
def rivals(
    output: Annotated[Path, typer.Option(help="Folder; a killed run goes on from there.")] = Path("runs/rivals"),
    model: Annotated[str, typer.Option(help="Before training: 'tiny' (embedded) or a folder.")] = "tiny",
    level: Annotated[str, typer.Option(help="Of the micro-world: easy, hard or arena.")] = "easy",
    rule: Annotated[list[str] | None, typer.Option(help="As in marc arena; repeat it.", show_default="all")] = None,
    part: Annotated[list[str] | None, typer.Option(help="Budget; repeat it.", show_default="1/32, 1/10, 1/4")] = None,
    seeds: Annotated[int, typer.Option(help="Repetitions of training.")] = 3,
    seconds: Annotated[float, typer.Option(help="Processor time of every training.")] = 60.0,
    train_videos: Annotated[int, typer.Option(help="Videos to train on.")] = 512,
    learning_rate: Annotated[float, typer.Option(help="Adam's peak.")] = 1e-3,
    videos: Annotated[int, typer.Option(help="Held-out videos.")] = 60,
    questions: Annotated[int, typer.Option(help="Questions about each.")] = 24,
    test_seed: Annotated[int, typer.Option(help="Of the held-out videos.")] = 5,
) -> None:
    """Compare rules that reduce visual tokens, after training in their own layouts; see docs/arena.md."""
    from typing import cast

    from experiments.rivals.report import write_report
    from experiments.rivals.run import Rivals
    from experiments.rivals.settings import RivalSettings
    from marc.world.options import WorldOptions
    from marc.world.scenes import Level

    with user_errors("marc world rivals"):
        settings = RivalSettings(
            model=model,
            contestants=tuple(rule) if rule else RivalSettings.contestants,
            parts=tuple(part) if part else RivalSettings.parts,
            seeds=tuple(range(seeds)),
            seconds=seconds,
            train_videos=train_videos,
            learning_rate=learning_rate,
            test=WorldOptions(cast(Level, level), test_seed, videos, questions),
        )
        found = Rivals(settings, output, typer.echo).rounds()
    typer.echo(write_report(found, settings, output))


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command."""
    app(arguments, prog_name="marc world")


if __name__ == "__main__":
    main()
