"""Tables where there is a terminal that is wide enough, where it is too narrow, and where there is none."""

import io

import pytest
from rich.console import Console

from marc.evaluation.report import side_by_side
from marc.evaluation.tables import Table

NARROW = Table("What [bold]it[/] costs", ("name", "score"), [("a | b", "99.30 [98.60, 99.70]"), ("c", "")])


def shown(table, **options):
    console = Console(file=io.StringIO(), **options)
    table.show(console)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [20, 80])
def test_no_terminal_gets_markdown(width):
    for table in (NARROW, side_by_side([], published=True)):
        assert shown(table, width=width) == table.markdown() + "\n\n"


@pytest.mark.parametrize("width", [170, 180, 250])
def test_a_terminal_that_is_wide_enough_gets_a_table_without_broken_words(width):
    table = side_by_side([], published=True)
    text = shown(table, width=width, force_terminal=True, color_system=None)
    assert "┃ model" in text and "…" not in text and max(map(len, text.splitlines())) <= width
    assert ("│ MARC-3B (C-GRPO + VMR) (published)" in text) == (width == 250)
    words = {word for row in (table.columns, *table.rows) for cell in row for word in cell.split()}
    assert words <= set(text.replace("│", " ").replace("┃", " ").split())


def test_a_terminal_that_is_too_narrow_gets_a_paragraph_for_each_row():
    """No cell is lost, and no empty one shown."""
    table = side_by_side([], published=True)
    text = shown(table, width=60, force_terminal=True, color_system=None)
    paragraphs = text.rstrip("\n").split("\n\n")
    assert paragraphs[0] == table.title and len(paragraphs) == 1 + len(table.rows)
    for row, paragraph in zip(table.rows, paragraphs[1:], strict=True):
        cells = {name: cell for name, cell in zip(table.columns, row, strict=True) if cell}
        assert {line[:13].strip(): line[15:] for line in paragraph.splitlines()} == cells
    assert "\x1b" not in text and "score  99.30 [98.60, 99.70]" in shown(NARROW, width=12, force_terminal=True)
