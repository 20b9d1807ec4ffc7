"""Runs the documentation's notebook anew and keeps what comes out.

    python -m benchmarks.notebook

``docs/notebook.ipynb`` is its own source: change its cells in an editor of notebooks, then run this. ``--output``
names another file to write.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import nbformat
import typer
from nbclient import NotebookClient
from nbformat import NotebookNode

from marc.io import write_text

NOTEBOOK = Path(__file__).resolve().parents[1] / "docs" / "notebook.ipynb"
CELL_SECONDS = 600
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
"""What does not change with the machine and the version of Python."""


def execute(notebook: NotebookNode) -> NotebookNode:
    """Runs all cells in a fresh kernel and an empty folder, and keeps what they print and show.

    Raises:
        nbclient.exceptions.CellExecutionError: If a cell fails.
    """
    notebook = nbformat.from_dict(notebook)
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(
            notebook,
            timeout=CELL_SECONDS,
            kernel_name="python3",
            record_timing=False,
            resources={"metadata": {"path": folder}},
        ).execute()
    notebook.metadata = nbformat.from_dict(METADATA)
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
    nbformat.validate(notebook)
    return notebook


def main(output: Annotated[Path, typer.Option(help="The notebook to write.")] = NOTEBOOK) -> None:
    """Run the notebook and write it with what came out."""
    write_text(output, nbformat.writes(execute(nbformat.read(NOTEBOOK, as_version=4))) + "\n")
    typer.echo(f"{output}")


if __name__ == "__main__":
    typer.run(main)
