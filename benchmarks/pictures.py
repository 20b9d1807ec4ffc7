"""All pictures of the documentation, drawn from what is in the repository.

    python -m benchmarks.pictures --output docs

``storyboard.png`` is what the embedded model sees of the generated sample; ``results.png`` is drawn from the tables of
docs/results.md.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

import typer

from experiments.ablation.plots import accuracy_figure, write_picture
from marc.inference.assistant import Query, VideoAssistant
from marc.inference.storyboard import save_storyboard
from marc.world.export import write_sample

DOCS = Path(__file__).resolve().parents[1] / "docs"
QUESTION = "What happens in the checkered scene?"


def draw_storyboard(path: Path) -> None:
    """What ``marc ask sample.mp4 QUESTION --storyboard`` draws of ``marc world sample``."""
    with tempfile.TemporaryDirectory() as folder:
        video = Path(folder) / "sample.mp4"
        write_sample(video)
        assistant = VideoAssistant.from_pretrained(device="cpu", dtype="float32")
        ((answer, seen),) = assistant.answer_and_show([Query(video, QUESTION)])
        save_storyboard(path, QUESTION, answer, seen)


def draw_results(path: Path) -> None:
    """The accuracies that docs/results.md has in tables."""
    write_picture(accuracy_figure((DOCS / "results.md").read_text(encoding="utf-8")), path)


PICTURES: Mapping[str, Callable[[Path], None]] = {"storyboard.png": draw_storyboard, "results.png": draw_results}


def main(output: Annotated[Path, typer.Option(help="Folder of the pictures.")] = DOCS) -> None:
    """Draw the pictures."""
    output.mkdir(parents=True, exist_ok=True)
    for name, draw in PICTURES.items():
        draw(output / name)
        typer.echo(f"{output / name}")


if __name__ == "__main__":
    typer.run(main)
