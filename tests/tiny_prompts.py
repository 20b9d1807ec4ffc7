"""Prompts about made-up videos and pictures, as the tests of inference and training need them."""

from collections.abc import Sequence

from tiny_inputs import noise

from marc.compression import CompressionConfig
from marc.inference.prompts import Prompt
from marc.inference.video_input import VideoInput, VisualPatches
from marc.model import MarcProcessor
from marc.model.processing import frame_patches

QUESTIONS = ("What?", "What is it that happens at the very end of the video?", "How many things are there?")


def patches(
    processor: MarcProcessor, seed: int, *, frames: int = 8, side: int = 56, events=None, kind: str = "video"
) -> VisualPatches:
    """Noise, five seconds a frame."""
    pictures = noise(frames if kind == "video" else 1, seed, height=side, width=side)
    if kind == "image":
        processed = processor.image_processor([pictures[0]], do_resize=False, return_tensors="pt")
        pixels, grid = processed["pixel_values"], processed["image_grid_thw"]
    else:
        pixels, grid = frame_patches(processor.video_processor, pictures)
    seconds = tuple(5.0 * frame for frame in range(len(pictures))) if kind == "video" else ()
    return VisualPatches(
        kind,
        tuple(grid[0].tolist()),
        processor.video_processor.merge_size,
        source=f"noise {seed}",
        frame_seconds=seconds,
        events=events,
        pixels=pixels,
    )


def shown(processor: MarcProcessor, seed: int, compression: CompressionConfig | None = None, **what) -> VideoInput:
    """A video or picture of noise as a model of this compression sees it; see `patches`."""
    return VideoInput.of(patches(processor, seed, **what), processor, compression or processor.compression)


def prompt(processor: MarcProcessor, question: str, inputs: Sequence[VideoInput] = ()) -> Prompt:
    """A question about some videos and pictures."""
    parts = [*({"type": each.kind} for each in inputs), {"type": "text", "text": question}]
    chat = processor.apply_chat_template([{"role": "user", "content": parts}], add_generation_prompt=True)
    ids = processor.tokenizer(chat, add_special_tokens=False)["input_ids"]
    return Prompt(tuple(ids), tuple(inputs))
