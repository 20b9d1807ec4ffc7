"""The teacher's accuracy ``a_full``: the uncompressed model answers every video row several times (C-GRPO's teacher).

Offline: computed once, before training, and kept. A result is stored under everything that it follows from: the
model's weights, the prompt, the video file, the frames, the sampling. So it is never stale, a killed run goes on
where it was, and several processes can share the work (``--shard 0/4``).

    marc data teacher clean.json with_teacher.json --model Qwen/Qwen2.5-VL-3B-Instruct
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from marc.data.rows import TrainingRow
from marc.model import MarcForConditionalGeneration, MarcProcessor
from marc.rewards import accuracy_reward
from marc.training.dataset import to_example
from marc.training.visual_inputs import (
    View,
    encode,
    feature_inputs,
    grid_inputs,
    token_types,
    tokenize_prompt,
    visual_sources,
)
from marc.training.visual_reader import VisualReader


@dataclass(frozen=True)
class TeacherOptions:
    """How the teacher answers; part of every result's key.

    Attributes:
        style: Prompt style; must be the training's.
        samples: Answers to each row.
        max_new_tokens: Upper limit on an answer's length.
        temperature: Of the sampling; 0 is greedy, for which one sample is enough.
        seed: Of the sampling.
    """

    style: str = "video-r1-train"
    samples: int = 8
    max_new_tokens: int = 768
    temperature: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.samples < 1 or self.temperature < 0:
            raise ValueError(f"samples must be at least 1 and temperature 0 or more, got {self}")
        if self.temperature == 0 and self.samples > 1:
            raise ValueError("at temperature 0 all answers are equal: ask for samples=1")


class TeacherCache:
    """Results on disk: the ``*.jsonl`` files of a folder, of which this process writes one.

    Args:
        folder: Made if it is not there.
        shard: Names this process's file.
    """

    def __init__(self, folder: str | Path, shard: int = 0) -> None:
        self._file = Path(folder) / f"teacher-{shard}.jsonl"
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self.results: dict[str, float] = {}
        for file in sorted(self._file.parent.glob("teacher-*.jsonl")):
            for line in file.read_text(encoding="utf-8").split("\n"):
                if line.endswith("}"):  # a killed process may have left half a line
                    record = json.loads(line)
                    self.results[record["key"]] = record["a_full"]

    def add(self, key: str, a_full: float, row: TrainingRow) -> None:
        """Keeps a result."""
        self.results[key] = a_full
        with self._file.open("a", encoding="utf-8") as file:
            record = {"key": key, "a_full": a_full, "problem_id": row.problem_id}
            file.write("\n" + json.dumps(record) + "\n")


def model_fingerprint(name: str) -> str:
    """What a model's results depend on: a hub name, or a folder's files with their sizes and times of change."""
    folder = Path(name)
    if not folder.is_dir():
        return name
    files = sorted([*folder.glob("*.safetensors"), *folder.glob("*.json")])
    return repr([(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files])


def result_key(row: TrainingRow, root: str | Path, model: str, reader: VisualReader, options: TeacherOptions) -> str:
    """The name under which a row's result is kept."""
    file = row.file(root)
    stat = None if file is None or not file.is_file() else (file.stat().st_size, file.stat().st_mtime_ns)
    frames = (repr(reader.frames), reader.max_pixels)
    question = (row.problem, row.problem_type, row.options, row.solution, str(file))
    parts = (model, question, stat, frames, sorted(asdict(options).items()))
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def teacher_accuracies(
    rows: Sequence[TrainingRow],
    root: str | Path,
    model: MarcForConditionalGeneration,
    processor: MarcProcessor,
    reader: VisualReader,
    options: TeacherOptions,
    cache: TeacherCache,
    *,
    fingerprint: str,
    shard: tuple[int, int] = (0, 1),
) -> Iterator[TrainingRow]:
    """Asks the teacher about the video rows of a shard.

    Args:
        rows: All rows.
        root: Folder of the videos.
        model: With compression off.
        processor: The model's.
        reader: Reads the videos as training will.
        options: How to answer.
        cache: Holds earlier results.
        fingerprint: From `model_fingerprint`.
        shard: This process's number and how many there are.

    Yields:
        Every row of the shard, with ``a_full`` where it is about a video.

    Raises:
        ValueError: If the model's compression is on, or a video cannot be read.
    """
    if model.compression.enabled or processor.compression.enabled:
        raise ValueError("the teacher sees all tokens: load it with target_frames=None")
    for row in rows[shard[0] :: shard[1]]:
        if row.data_type != "video":
            yield row
            continue
        key = result_key(row, root, fingerprint, reader, options)
        if key not in cache.results:
            outputs = answers(row, root, model, processor, reader, options)
            count = len(outputs)
            grades = accuracy_reward(outputs, [row.solution] * count, [row.problem_type] * count)
            cache.add(key, sum(grades) / count, row)
        yield replace(row, a_full=cache.results[key])


@torch.no_grad()
def answers(
    row: TrainingRow,
    root: str | Path,
    model: MarcForConditionalGeneration,
    processor: MarcProcessor,
    reader: VisualReader,
    options: TeacherOptions,
) -> list[str]:
    """The model's sampled answers to one row; the video is encoded once."""
    prompt = to_example(row, root, style=options.style)["prompt"]
    views = [View.of(reader.read(source), model.compression) for source in visual_sources(prompt)]
    ids = torch.tensor([tokenize_prompt(processor, prompt, [view.tokens for view in views])])
    ids = ids.to(model.device)
    repeated = [views] * options.samples
    inputs: dict[str, Any] = {name: value.to(model.device) for name, value in grid_inputs(repeated).items()}
    ids = ids.expand(options.samples, -1)
    features = encode(model, views)
    torch.manual_seed(options.seed)
    sampling = {"temperature": options.temperature, "top_p": 1.0, "top_k": 0} if options.temperature else {}
    output = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        mm_token_type_ids=token_types(ids, model),
        mm_encoder_outputs=feature_inputs(repeated, features),
        **inputs,
        max_new_tokens=options.max_new_tokens,
        do_sample=options.temperature > 0,
        **sampling,
    )
    texts: list[str] = processor.batch_decode(output[:, ids.shape[1] :], skip_special_tokens=True)
    return texts
