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

import torch
from transformers import CompileConfig

from benchmarks.architectures import ARCHITECTURES, Architecture, Placement, Weights
from marc.compression import CompressionConfig
from marc.data.prompts import chat_messages
from marc.inference.hf import HFBackend
from marc.inference.prompts import Prompt
from marc.inference.video_input import VideoInput, VisualPatches
from marc.model import CompressedProcessor
from marc.types import FRAMES_PER_GRID, GenerationOptions

GRIDS = 32

Outputs = list[list[int]]


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
    placement = Placement(device, torch.bfloat16 if on_gpu else torch.float32)
    weights = Weights.random(ARCHITECTURES[arguments.model], placement, corpus=questions)
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


def ways_to_generate(weights: Weights, questions: list[str], tokens: int) -> dict[str, Callable[[], Outputs]]:
    """Functions that answer the questions, by name.

    Args:
        weights: Of the model.
        questions: About one video of one temporal grid's tokens.
        tokens: Generated per question.
    """
    compression = CompressionConfig(layout="frames")
    model, processor = weights.model(weights.architecture.our_model, compression), weights.processor(compression)
    compiled = CompileConfig(mode="reduce-overhead" if model.device.type == "cuda" else "default")
    compiled._compile_all_devices = True
    plain, graphs = HFBackend(model, processor), HFBackend(model, processor, compiled)
    video = _encoded_noise(weights.architecture, processor, model.device)
    chats = [
        processor.apply_chat_template(chat_messages(question), add_generation_prompt=True) for question in questions
    ]
    ids = [tuple(processor.tokenizer(chat, add_special_tokens=False)["input_ids"]) for chat in chats]
    prompts = [Prompt(each, (video,)) for each in ids]
    strangers = [Prompt(each, (replace(video),)) for each in ids]
    options, static = GenerationOptions(tokens), GenerationOptions(tokens, static=True)

    def one_by_one(backend: HFBackend, how: GenerationOptions) -> Outputs:
        return [backend.generate([prompt], how)[0] for prompt in prompts]

    def not_compiled() -> Outputs:
        with torch.compiler.set_stance("force_eager"):
            return one_by_one(graphs, static)

    return {
        "one by one": lambda: one_by_one(plain, options),
        "one by one, static": not_compiled,
        "one by one, static, compiled": lambda: one_by_one(graphs, static),
        "together, nothing shared": lambda: plain.generate(strangers, options),
        "together, prefix read once": lambda: plain.generate(prompts, options),
        "together, static, compiled": lambda: graphs.generate(prompts, static),
    }


def _encoded_noise(architecture: Architecture, processor: CompressedProcessor, device: torch.device) -> VideoInput:
    """A video of noise as one temporal grid."""
    seconds = tuple(frame / FRAMES_PER_GRID for frame in range(GRIDS * FRAMES_PER_GRID))
    patches = VisualPatches("video", (GRIDS, *architecture.patches), architecture.merge, "noise", seconds)
    video = VideoInput.of(patches, processor, processor.compression)
    streams = 1 + len(architecture.vision.get("deepstack_visual_indexes", ()))
    video.features = torch.randn(video.tokens, streams * architecture.vision["out_hidden_size"], device=device)
    return video


if __name__ == "__main__":
    main()
