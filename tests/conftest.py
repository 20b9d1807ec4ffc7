"""What the tests of the package share; what holds for every test of the project stands in ``conftest.py`` above."""

import os
from pathlib import Path

import pytest

REAL_VIDEOS = Path(os.environ.get("MARC_TEST_VIDEOS", Path(__file__).resolve().parents[2] / "shared" / "videos"))


@pytest.fixture(scope="session")
def real_videos() -> list[Path]:
    """Small real clips; set MARC_TEST_VIDEOS to a folder of your own."""
    clips = sorted(REAL_VIDEOS.glob("*.m*")) if REAL_VIDEOS.is_dir() else []
    if not clips:
        pytest.skip(f"no real clips in {REAL_VIDEOS}")
    return clips
