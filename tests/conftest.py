"""Every test runs offline, on the CPU unless MARC_TEST_GPU=1, and fails if it logs an ERROR."""

import logging
import os
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", WANDB_MODE="disabled", TOKENIZERS_PARALLELISM="false")
if os.environ.get("MARC_TEST_GPU") != "1":
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

REAL_VIDEOS = Path(os.environ.get("MARC_TEST_VIDEOS", Path(__file__).resolve().parents[2] / "shared" / "videos"))


@pytest.fixture(autouse=True)
def no_error_is_logged(caplog: pytest.LogCaptureFixture):
    """A library that only logs what went wrong must still fail the test."""
    yield
    errors = [record.getMessage() for record in caplog.get_records("call") if record.levelno >= logging.ERROR]
    assert not errors, errors


@pytest.fixture(scope="session")
def real_videos() -> list[Path]:
    """Small real clips; set MARC_TEST_VIDEOS to a folder of your own."""
    clips = sorted(REAL_VIDEOS.glob("*.m*")) if REAL_VIDEOS.is_dir() else []
    if not clips:
        pytest.skip(f"no real clips in {REAL_VIDEOS}")
    return clips
