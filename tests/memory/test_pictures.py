from __future__ import annotations

import numpy as np

from marc.memory.pictures import KeptPictures


def test_pictures_of_any_size_are_kept_in_order():
    rng = np.random.default_rng(0)
    smooth = [rng.integers(0, 255, (4, 6, 3), dtype=np.uint8).repeat(8, axis=0).repeat(8, axis=1) for _ in range(3)]
    pictures = [smooth[0], smooth[1][:16], smooth[2]]
    kept = KeptPictures()
    for picture in pictures[:2]:
        kept.append(picture)
    kept[0]
    kept.append(pictures[2])
    assert len(kept) == 3
    for index in (2, 0, 1):
        assert kept[index].shape == pictures[index].shape
        assert np.abs(kept[index].astype(int) - pictures[index]).mean() < 3
