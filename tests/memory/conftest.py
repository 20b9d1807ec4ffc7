"""A dual encoder with random weights that goes through open_clip's real loading and inference code in milliseconds."""

from pathlib import Path

import pytest

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
