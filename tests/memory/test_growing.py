from __future__ import annotations

import numpy as np
import pytest

from marc.memory.growing import GrowingArray


@pytest.mark.parametrize("row", [(), (2,), (3, 4)])
def test_rows_come_back_as_they_were_added(row: tuple[int, ...]):
    rows = np.random.default_rng(0).standard_normal((300, *row)).astype(np.float32)
    grown = GrowingArray(np.float32)
    for piece in np.split(rows, [1, 2, 10, 10, 250]):
        grown.extend(piece)
    np.testing.assert_array_equal(grown.array, rows)
    assert grown.array.dtype == np.float32


def test_it_grows_on_while_an_array_is_held():
    grown = GrowingArray(np.bool_)
    grown.extend(np.array([True]))
    held = grown.array
    grown.extend(np.zeros(1000, np.bool_))
    assert held.tolist() == [True] and len(grown.array) == 1001


def test_rows_of_another_shape_are_refused():
    grown = GrowingArray(np.uint8)
    grown.extend(np.zeros((1, 2), np.uint8))
    with pytest.raises(AssertionError):
        grown.extend(np.zeros((1, 3), np.uint8))
