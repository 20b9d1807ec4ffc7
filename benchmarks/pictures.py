"""All pictures of the documentation, drawn from what is in the repository.

    python -m benchmarks.pictures --output docs

``storyboard.png`` is what the embedded model sees of the generated sample; ``results.png`` is drawn from the tables of
docs/results.md; ``page.png`` is the page of ``marc serve --page`` in a browser, and left as it is where there is none.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.browser import browser, find_browser
from benchmarks.local_server import serving
from experiments.ablation.plots import accuracy_figure, write_picture
from marc.inference.assistant import VideoAssistant
from marc.inference.query import Query
from marc.inference.storyboard import save_storyboard
from marc.serving.app import make_app
from marc.serving.options import ServeOptions
from marc.serving.page import add_page
from marc.world.export import write_sample

DOCS = Path(__file__).resolve().parents[1] / "docs"
QUESTION = "What happens in the checkered scene?"
PAGE = "page.png"


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


def draw_page(path: Path) -> None:
    """A question about the sample on the page of ``marc serve --page``, compared with every token."""
    with tempfile.TemporaryDirectory() as name, browser() as running:
        folder = Path(name)
        write_sample(folder / "sample.mp4")
        app = make_app(
            VideoAssistant.from_pretrained(device="cpu", dtype="float32"), ServeOptions(folder=folder / "server")
        )
        add_page(app)
        with serving(app) as address:
            page = running.new_page(viewport={"width": 1100, "height": 1600}, color_scheme="light")
            page.goto(address)
            page.set_input_files("#file", folder / "sample.mp4")
            page.wait_for_selector("#strip button")
            page.fill("#question", QUESTION)
            page.check("#compare")
            page.click("#send")
            page.wait_for_selector("#send")
            for summary in page.locator(".seen summary").all():
                summary.click()
            page.wait_for_function(
                "() => [...document.querySelectorAll('.seen img')].every((image) => image.naturalWidth)"
            )
            page.evaluate("() => { document.activeElement.blur(); scrollTo(0, 0); }")
            page.screenshot(path=path)


PICTURES: Mapping[str, Callable[[Path], None]] = {
    "storyboard.png": draw_storyboard,
    "results.png": draw_results,
    PAGE: draw_page,
}


def drawable() -> list[str]:
    """The pictures that can be drawn here."""
    return [name for name in PICTURES if name != PAGE or find_browser()]


def main(output: Annotated[Path, typer.Option(help="Folder of the pictures.")] = DOCS) -> None:
    """Draw the pictures."""
    output.mkdir(parents=True, exist_ok=True)
    for name in drawable():
        PICTURES[name](output / name)
        typer.echo(f"{output / name}")
    for name in PICTURES.keys() - drawable():
        typer.echo(f"{name}: not drawn, as there is no browser", err=True)


if __name__ == "__main__":
    typer.run(main)
