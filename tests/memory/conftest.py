"""A dual encoder with random weights that goes through open_clip's real code in milliseconds, and small videos."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from marc.video import write_video

TINY_CLIP = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
    "custom_text": True,
}


@pytest.fixture(scope="session")
def dual_encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import open_clip
    import torch

    from marc.memory.embedder import save_dual_encoder

    torch.manual_seed(0)
    model = open_clip.CustomTextCLIP(**{key: TINY_CLIP[key] for key in ("embed_dim", "vision_cfg", "text_cfg")})
    open_clip.set_model_preprocess_cfg(
        model,
        {
            "size": (32, 32),
            "mean": (0.5,) * 3,
            "std": (0.5,) * 3,
            "interpolation": "bilinear",
            "resize_mode": "squash",
        },
    )
    folder = tmp_path_factory.mktemp("dual-encoder")
    save_dual_encoder(folder, model, TINY_CLIP)
    return folder


@pytest.fixture(scope="session")
def embedder(dual_encoder_folder: Path):
    from marc.memory.embedder import EventEmbedder

    return EventEmbedder.from_pretrained(dual_encoder_folder, device="cpu", precision="fp32")


@pytest.fixture(scope="session")
def three_shots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three still shots of 40, 50 and 50 frames at 25 frames a second, each of coarse random blocks."""
    path = tmp_path_factory.mktemp("shots") / "three shots.mp4"
    shots = []
    for seed, count in ((1, 40), (2, 50), (3, 50)):
        blocks = np.random.default_rng(seed).integers(30, 220, (9, 16, 3), dtype=np.uint8)
        shots += [blocks.repeat(8, axis=0).repeat(8, axis=1)] * count
    write_video(path, np.stack(shots), fps=25.0)
    return path


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Content keys are not left in the user's cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def colours(monkeypatch: pytest.MonkeyPatch):
    """The module of helpers that workers import, too."""
    monkeypatch.syspath_prepend(Path(__file__).parent / "helpers")
    import colours

    return colours


@pytest.fixture
def write_colours() -> Callable[..., Path]:
    """Writes a video of two seconds of each colour, with noise so that no two files are equal."""
    values = {"red": (220, 20, 20), "green": (20, 220, 20), "blue": (20, 20, 220)}

    def write(path: Path, *names: str, seed: int = 0) -> Path:
        frames = np.concatenate([np.full((2 * 5, 48, 64, 3), values[name], np.uint8) for name in names])
        noise = np.random.default_rng(seed).integers(0, 16, frames.shape, dtype=np.uint8)
        write_video(path, frames + noise, fps=5)
        return path

    return write
