"""Divisions of a grid, against what they are for and numbers by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marc.compression.cells import Uneven, cells_of, centers, covered, covering, fit_cells, token_count

SIDES = st.integers(1, 24)


@settings(max_examples=500)
@given(SIDES, SIDES, st.integers(1, 700))
def test_a_division_has_exactly_so_many_cells_that_cover_the_grid(height, width, tokens):
    size = (height, width)
    cells = fit_cells(size, tokens)
    count = min(tokens, height * width)
    assert token_count(cells) == len(cells_of(cells)) == len(centers(size, cells)) == count
    parts = [np.outer(rows, columns) for rows, columns in covered(size, cells)]
    np.testing.assert_allclose(sum(parts), np.ones(size), atol=1e-9)
    assert sum((cell.bottom - cell.top) * (cell.right - cell.left) for cell in cells_of(cells)) == 1
    assert all(part[center] > 0 for center, part in zip(centers(size, cells), parts, strict=True))


@settings(max_examples=300)
@given(SIDES, SIDES, st.integers(1, 600))
def test_one_token_more_makes_no_cell_larger(height, width, tokens):
    """Each place of the picture stands in a cell that is no taller and no wider than before."""
    before, after = (fit_cells((height, width), count) for count in (tokens, tokens + 1))
    for cell in cells_of(after):
        middle = (cell.top + cell.bottom) / 2, (cell.left + cell.right) / 2
        around = next(
            other
            for other in cells_of(before)
            if other.top <= middle[0] < other.bottom and other.left <= middle[1] < other.right
        )
        assert cell.bottom - cell.top <= around.bottom - around.top
        assert cell.right - cell.left <= around.right - around.left


@given(SIDES, SIDES, st.integers(1, 600))
def test_the_aspect_is_kept(height, width, tokens):
    """One side is at most a row or column ahead of what the other has in the picture."""
    rows, columns = fit_cells((height, width), tokens)[:2]
    assert (rows - 2) / height <= columns / width and (columns - 2) / width <= rows / height


def test_divisions_by_hand():
    assert [fit_cells((4, 4), tokens) for tokens in (1, 2, 4, 6, 9, 12, 16, 99)] == [
        (1, 1), (1, 2), (2, 2), (2, 3), (3, 3), (3, 4), (4, 4), (4, 4)
    ]  # fmt: skip
    assert fit_cells((8, 16), 32) == (4, 8)
    assert fit_cells((8, 16), 37) == Uneven(5, 9, -1) and Uneven(5, 9, -1).strips == (4, 4, 4, 4, 5, 4, 4, 4, 4)
    assert fit_cells((4, 4), 11).strips == (4, 4, 3), "rows in the middle first, then those above"


@pytest.mark.parametrize(
    ("cells", "places", "centre"),
    [
        (Uneven(2, 3, 1), [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)], [(1, 1), (1, 3), (1, 5), (3, 1), (3, 4)]),
        (Uneven(2, 2, -1), [(0, 0), (0, 1), (1, 0)], [(1, 1), (2, 4), (3, 1)]),
    ],
)
def test_cells_are_in_reading_order_at_their_centres(cells, places, centre):
    """Of 4 x 6 places. In the second the left column has two cells, the right one a tall one between them."""
    assert [cell.place for cell in cells_of(cells)] == places
    assert centers((4, 6), cells) == centre


@given(st.tuples(st.integers(1, 6), st.integers(1, 6)), st.data())
def test_a_place_belongs_to_the_cell_that_covers_most_of_it(size, data):
    cells = fit_cells(size, data.draw(st.integers(1, size[0] * size[1])))
    areas = np.stack([np.outer(rows, columns).ravel() for rows, columns in covered(size, cells)])
    assert list(covering(size, cells)) == areas.argmax(0).tolist()


def test_a_cell_may_cover_most_of_no_place():
    """Of 6 x 6 places in 21 cells: the eleventh lies astride others."""
    cells = fit_cells((6, 6), 21)
    assert set(range(token_count(cells))) - set(covering((6, 6), cells)) == {10}
