"""What static keys and values, compiled decoding and shared prefixes are worth on this device.

    python -m benchmarks.decode_speed [--model scaled] [--device cpu] [--tokens 16] [--questions 8]

prints the table of docs/compression.md. Every way answers the same questions about one encoded video, in turn; the
first round, which compiles, is not counted. ``--model 3b --device cuda`` is the run for a GPU.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from transformers import CompileConfig

from benchmarks.architectures import ARCHITECTURES, Weights
from marc.data.prompts import chat_messages
from marc.inference.hf import EncodedVideo, VideoGenerator
from marc.model import CompressionConfig, MarcForConditionalGeneration
from marc.types import GenerationOptions, VideoInfo

GRIDS = 32


def main() -> None:
    """Prints one row per way to generate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=ARCHITECTURES, default="scaled")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--tokens", type=int, default=16, help="generated per question")
    parser.add_argument("--questions", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    on_gpu = device.type == "cuda"
    questions = [f"Is {number} the number of things that are shown?" for number in range(arguments.questions)]
    weights = Weights.random(
        ARCHITECTURES[arguments.model],
        device=device,
        dtype=torch.bfloat16 if on_gpu else torch.float32,
        corpus=questions,
    )
    ways = ways_to_generate(weights, questions, arguments.tokens)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    clock = time.perf_counter if on_gpu else time.process_time
    for _ in range(arguments.repeats + 1):
        for name, way in ways.items():
            start = clock()
            way()
            seconds[name].append(clock() - start)
    print(f"| {len(questions)} questions, {arguments.tokens} tokens each, {arguments.model} | seconds | first round |")
    print("|---|---|---|")
    for name, (first, *others) in seconds.items():
        print(f"| {name} | {statistics.median(others):.3f} | {first:.1f} |")


def ways_to_generate(weights: Weights, questions: list[str], tokens: int) -> dict[str, Callable[[], list[str]]]:
    """Functions that answer the questions, by name.

    Args:
        weights: Of the model.
        questions: About one video of one frame's tokens.
        tokens: Generated per question.
    """
    compression = CompressionConfig(layout="frames")
    model, processor = weights.model(MarcForConditionalGeneration, compression), weights.processor(compression)
    compiled = CompileConfig(mode="reduce-overhead" if model.device.type == "cuda" else "default")
    compiled._compile_all_devices = True
    plain, graphs = VideoGenerator(model, processor), VideoGenerator(model, processor, compiled)
    video = _encoded_noise(weights, model.device)
    chats = [
        processor.apply_chat_template(chat_messages(question), add_generation_prompt=True) for question in questions
    ]
    options, static = GenerationOptions(tokens), GenerationOptions(tokens, static=True)

    def one_by_one(generate: VideoGenerator, how: GenerationOptions) -> list[str]:
        return [generate([chat], [video], how)[0] for chat in chats]

    def not_compiled() -> list[str]:
        with torch.compiler.set_stance("force_eager"):
            return one_by_one(graphs, static)

    return {
        "one by one": lambda: one_by_one(plain, options),
        "one by one, static": not_compiled,
        "one by one, static, compiled": lambda: one_by_one(graphs, static),
        "together, nothing shared": lambda: plain(chats, [replace(video) for _ in chats], options),
        "together, prefix read once": lambda: plain(chats, [video] * len(chats), options),
        "together, prefix read once, static, compiled": lambda: graphs(chats, [video] * len(chats), static),
    }


def _encoded_noise(weights: Weights, device: torch.device) -> EncodedVideo:
    architecture = weights.architecture
    height, width = architecture.cells
    merge = architecture.vision["spatial_merge_size"]
    return EncodedVideo(
        info=VideoInfo("noise", 0, 0, duration=GRIDS, fps=2.0, frame_count=2 * GRIDS, codec=""),
        seconds=np.arange(2 * GRIDS) / 2,
        grid_thw=torch.tensor([[GRIDS, height * merge, width * merge]]),
        grid_events=None,
        shares=None,
        members=np.zeros(GRIDS, dtype=np.int64),
        features=torch.randn(height * width, architecture.vision["out_hidden_size"], device=device),
        tokens_before=GRIDS * height * width,
    )


if __name__ == "__main__":
    main()
