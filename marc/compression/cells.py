"""How a temporal grid is divided into any number of cells, each of which becomes one visual token.

A grid is divided evenly, into rows of equally many cells, or unevenly: while it becomes finer by one row or column,
some of its columns or rows have one cell more than the others, those in the middle first. So there is a division into
exactly as many cells as a budget pays for, close to the grid's aspect, and one token more makes no cell larger.

A cell averages the places that it covers, those at its edge by the part that it covers of them.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

Size = tuple[int, int]
"""Height and width in cells."""


class Uneven(NamedTuple):
    """Strips of which some have one cell more than the others.

    Attributes:
        rows: How many there are, or how many cells the longer columns have.
        columns: Likewise.
        longer: So many rows have ``columns`` cells, the others one less; if negative, so many columns have ``rows``.
    """

    rows: int
    columns: int
    longer: int

    @property
    def strips(self) -> tuple[int, ...]:
        """The cells of each row, or of each column if these differ."""
        count, cells = (self.rows, self.columns) if self.longer > 0 else (self.columns, self.rows)
        from_the_middle = sorted(range(count), key=lambda strip: abs(2 * strip + 1 - count))
        longer = set(from_the_middle[: abs(self.longer)])
        return tuple(cells if strip in longer else cells - 1 for strip in range(count))


Cells = Size | Uneven
"""A division; an even one is its height and width."""


class Cell(NamedTuple):
    """One cell.

    Attributes:
        place: Its row and column among the cells.
        top: Of the places that it covers, in parts of the grid's height.
        bottom: Likewise.
        left: In parts of the width.
        right: Likewise.
    """

    place: tuple[int, int]
    top: Fraction
    bottom: Fraction
    left: Fraction
    right: Fraction


def token_count(cells: Cells) -> int:
    """How many cells there are."""
    return sum(cells.strips) if isinstance(cells, Uneven) else cells[0] * cells[1]


def fit_cells(size: Size, tokens: int) -> Cells:
    """The division of a grid into so many cells, or into all of its own if these are fewer.

    Args:
        size: Of the grid.
        tokens: At least 1.
    """
    assert tokens >= 1
    even = _even_sizes(size)
    above = bisect_right(even, tokens, key=token_count)
    finest = even[above - 1]
    more = min(tokens, token_count(size)) - token_count(finest)
    if not more:
        return finest
    rows, columns = even[above]
    return Uneven(rows, columns, more if rows == finest[0] else -more)


@lru_cache
def _even_sizes(size: Size) -> Sequence[Size]:
    """Sizes from one cell to all of a grid, each with a row or a column more, whichever is coarser in the picture."""
    height, width = size
    sizes = [(1, 1)]
    while sizes[-1] != size:
        rows, columns = sizes[-1]
        coarser = rows * width - columns * height or columns - rows
        sizes.append((rows, columns + 1) if coarser >= 0 else (rows + 1, columns))
    return sizes


@lru_cache
def cells_of(cells: Cells) -> Sequence[Cell]:
    """Each cell, in reading order."""
    by_row = not isinstance(cells, Uneven) or cells.longer > 0
    strips = cells.strips if isinstance(cells, Uneven) else (cells[1],) * cells[0]
    found = []
    for strip, count in enumerate(strips):
        across = Fraction(strip, len(strips)), Fraction(strip + 1, len(strips))
        for cell in range(count):
            along = Fraction(cell, count), Fraction(cell + 1, count)
            found.append(Cell((strip, cell), *across, *along) if by_row else Cell((cell, strip), *along, *across))
    return sorted(found, key=lambda cell: (cell.top + cell.bottom, cell.left))


def covered(size: Size, cells: Cells) -> Iterator[tuple[list[float], list[float]]]:
    """How much of each row and of each column of a grid each of its cells covers, in ``[0, 1]``."""
    for cell in cells_of(cells):
        yield _overlaps(cell.top, cell.bottom, size[0]), _overlaps(cell.left, cell.right, size[1])


@lru_cache
def covering(size: Size, cells: Cells) -> Sequence[int]:
    """For each place of a grid, in reading order, the cell that covers most of it; a cell may have no place."""
    covers = list(covered(size, cells))
    return [
        max(range(len(covers)), key=lambda cell: covers[cell][0][row] * covers[cell][1][column])
        for row in range(size[0])
        for column in range(size[1])
    ]


def _overlaps(begin: Fraction, end: Fraction, length: int) -> list[float]:
    first, last = begin * length, end * length
    places = (Fraction(place) for place in range(length))
    return [float(max(Fraction(0), min(last, place + 1) - max(first, place))) for place in places]


def centers(size: Size, cells: Cells) -> list[tuple[int, int]]:
    """Row and column of a grid in which the centre of each of its cells lies."""
    return [
        (int((cell.top + cell.bottom) * size[0] / 2), int((cell.left + cell.right) * size[1] / 2))
        for cell in cells_of(cells)
    ]
