"""The documentation's notebook runs, prints what it is committed with, and can be shown to anybody."""

import json
import re

import nbformat
import pytest
from nbformat import NotebookNode

from benchmarks.notebook import METADATA, NOTEBOOK, execute, main


@pytest.fixture(scope="module")
def committed() -> NotebookNode:
    """As it is in the repository."""
    return nbformat.read(NOTEBOOK, as_version=4)


@pytest.fixture(scope="module")
def executed(committed: NotebookNode) -> NotebookNode:
    """The same, run again."""
    return execute(committed)


def shown(notebook: NotebookNode) -> list[list[str]]:
    """What every cell prints, and what kinds of pictures it shows."""
    cells = []
    for cell in notebook.cells:
        text: list[str] = []
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            text += output.get("text", "").splitlines() + data.get("text/markdown", "").splitlines()
            text += [kind for kind in data if kind.startswith("image/")]
        cells.append(text)
    return cells


def test_the_notebook_is_valid_and_was_run_from_top_to_bottom(committed: NotebookNode):
    nbformat.validate(committed)
    code = [cell for cell in committed.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))


def test_the_notebook_still_prints_what_it_is_committed_with(executed: NotebookNode, committed: NotebookNode):
    assert shown(executed) == shown(committed), "python -m benchmarks.notebook"


def test_nothing_ugly_is_shown(executed: NotebookNode, committed: NotebookNode):
    """No warnings, no errors, no bars, no paths of a machine."""
    for cell in (*executed.cells, *committed.cells):
        for output in cell.get("outputs", []):
            assert output.output_type != "error" and output.get("name") != "stderr", output
        rest = [{**output, "data": sorted(output.get("data", {}))} for output in cell.get("outputs", [])]
        assert not re.search(r"/(?:root|home|tmp|work|Users)/|site-packages|\\u001b|\\r", json.dumps(rest)), rest


def test_the_notebook_shows_a_storyboard_and_is_small(committed: NotebookNode):
    assert "image/png" in {line for cell in shown(committed) for line in cell}
    assert NOTEBOOK.stat().st_size < 500_000


def test_what_is_written_names_no_machine(executed: NotebookNode, tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.notebook.execute", lambda notebook: executed)
    main(tmp_path / "notebook.ipynb")
    written = nbformat.read(tmp_path / "notebook.ipynb", as_version=4)
    assert written.metadata == METADATA
    assert all(not cell.metadata for cell in written.cells)
