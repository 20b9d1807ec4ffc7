"""Pixels of the micro-world, drawn for many frames at once on any device; milliseconds for a video.

Everything is a table look-up on a torus: a pattern per background, a silhouette per shape, both shifted by whole
pixels. The same frames, enlarged by a whole factor and held for several video frames, become the H.264 files of
`marc.world.export`.

Shapes: N frames, K objects, H = W = `SIZE` pixels, C = 3 colours, T frames of one video.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from marc.world.scenes import BACKGROUNDS, COLOURS, SHAPES, SIZE, SPEED, STEPS, WorldEvent, WorldVideo

RGB = {
    "red": (0.90, 0.10, 0.10),
    "green": (0.10, 0.75, 0.15),
    "blue": (0.12, 0.25, 0.95),
    "yellow": (0.95, 0.90, 0.10),
    "purple": (0.70, 0.15, 0.85),
    "white": (0.98, 0.98, 0.98),
}


@dataclass(frozen=True)
class FrameBatch:
    """What N frames show; all tensors on one device.

    Attributes:
        background: Index into `BACKGROUNDS`, ``[N]``.
        dark: RGB in [0, 1], ``[N, 3]``.
        light: RGB in [0, 1], ``[N, 3]``.
        phase: Shift of the pattern in pixels, ``[N, 2]``.
        colour: Index into `COLOURS`, ``[N, K]``; -1 where there is no object.
        shape: Index into `SHAPES`, ``[N, K]``.
        centre: Row and column of each object's centre, ``[N, K, 2]``.
    """

    background: Tensor
    dark: Tensor
    light: Tensor
    phase: Tensor
    colour: Tensor
    shape: Tensor
    centre: Tensor


def background_patterns() -> Tensor:
    """Brightness of each background's pattern, 0 (dark) or 1 (light): float ``[len(BACKGROUNDS), H, W]``."""
    row, column = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    patterns = {
        "plain": torch.zeros(SIZE, SIZE),
        "striped": row // 2 % 2,
        "checkered": (row // 7 + column // 7) % 2,
        "dotted": (row % 7 < 3) & (column % 7 < 3),
        "diagonal": (row + column) // 2 % 2,
        "tiled": (row % 7 == 0) | (column % 7 == 0),
        "zigzag": (row + (column % 14 - 7).abs()) // 2 % 2,
        "ringed": ((row % 14 - 6.5) ** 2 + (column % 14 - 6.5) ** 2).sqrt() // 2 % 2,
    }
    return torch.stack([patterns[name].float() for name in BACKGROUNDS])


def shape_masks() -> Tensor:
    """Silhouette of each shape, centred on pixel (0, 0) of the torus: float ``[len(SHAPES), H, W]`` of 0 and 1."""
    offset = (torch.arange(SIZE) + SIZE // 2) % SIZE - SIZE // 2
    row, column = torch.meshgrid(offset, offset, indexing="ij")
    masks = {
        "circle": row**2 + column**2 <= 27,
        "square": (row.abs() <= 4) & (column.abs() <= 4),
        "triangle": (row >= -5) & (row <= 5) & (2 * column.abs() <= row + 5),
        "cross": ((row.abs() <= 1) & (column.abs() <= 5)) | ((column.abs() <= 1) & (row.abs() <= 5)),
    }
    return torch.stack([masks[name].float() for name in SHAPES])


def render(batch: FrameBatch) -> Tensor:
    """Draw frames: float in [0, 1], ``[N, H, W, 3]``. Later objects cover earlier ones."""
    device = batch.background.device
    pixel = torch.arange(SIZE, device=device)
    pattern = _shifted(background_patterns().to(device), batch.background, batch.phase, pixel)[..., None]
    frames = batch.dark[:, None, None] * (1 - pattern) + batch.light[:, None, None] * pattern
    palette = torch.tensor([RGB[name] for name in COLOURS], device=device)
    masks = shape_masks().to(device)
    for k in range(batch.colour.shape[1]):
        mask = _shifted(masks, batch.shape[:, k], batch.centre[:, k], pixel) * (batch.colour[:, k] >= 0)[:, None, None]
        paint = palette[batch.colour[:, k].clamp(min=0)][:, None, None]
        frames = torch.where(mask[..., None] > 0, paint, frames)
    return frames


def _shifted(table: Tensor, index: Tensor, shift: Tensor, pixel: Tensor) -> Tensor:
    """``table[index]`` rolled on the torus by `shift` ``[N, 2]``: ``[N, H, W]``."""
    row = (pixel - shift[:, :1]) % SIZE
    column = (pixel - shift[:, 1:]) % SIZE
    return table[index[:, None, None], row[:, :, None], column[:, None, :]]


def describe_event(event: WorldEvent, device: torch.device | str = "cpu") -> FrameBatch:
    """The frames of one event as a batch, ``N = 2 * event.grids``."""
    count = 2 * event.grids
    time = torch.arange(count, device=device)[:, None]
    camera = torch.tensor(event.camera, device=device)
    starts = torch.tensor([(item.row, item.column) for item in event.objects], device=device)
    steps = SPEED * torch.tensor([STEPS[item.direction] for item in event.objects], device=device) - camera
    return FrameBatch(
        background=torch.full((count,), BACKGROUNDS.index(event.background), device=device),
        dark=torch.tensor(event.dark, device=device).expand(count, 3),
        light=torch.tensor(event.light, device=device).expand(count, 3),
        phase=torch.tensor(event.phase, device=device) - time * camera,
        colour=torch.tensor([COLOURS.index(item.colour) for item in event.objects], device=device).expand(count, -1),
        shape=torch.tensor([SHAPES.index(item.shape) for item in event.objects], device=device).expand(count, -1),
        centre=starts + time[:, :, None] * steps,
    )


def render_video(video: WorldVideo, *, scale: int = 1, device: torch.device | str = "cpu") -> Tensor:
    """All frames of a video: ``uint8 [T, scale * H, scale * W, 3]``.

    Args:
        video: What to draw.
        scale: Whole factor by which every pixel is repeated in both directions.
        device: Where to draw.

    Raises:
        ValueError: If `scale` is below 1.
    """
    if scale < 1:
        raise ValueError(f"scale must be at least 1, got {scale}")
    frames = torch.cat([render(describe_event(event, device)) for event in video.events])
    cuts = torch.tensor([2 * event.grids for event in video.events]).cumsum(0)[:-1].tolist()
    for cut in cuts if video.dissolve else ():
        frames = _dissolve(frames, cut, video.dissolve)
    rgb = (frames * 255).round().to(torch.uint8)
    return rgb.repeat_interleave(scale, dim=1).repeat_interleave(scale, dim=2)


def _dissolve(frames: Tensor, cut: int, length: int) -> Tensor:
    """Mix the last frame before `cut` and the first after it over `length` frames around the cut."""
    before, after = frames[cut - length // 2 - 1], frames[cut + length // 2]
    weight = (torch.arange(1, length + 1, device=frames.device) / (length + 1))[:, None, None, None]
    mixed = before * (1 - weight) + after * weight
    return torch.cat((frames[: cut - length // 2], mixed, frames[cut + length // 2 :]))
