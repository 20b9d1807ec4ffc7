"""The teacher's accuracy ``a_full``: the uncompressed model answers every video row several times (C-GRPO's teacher).

Offline it is computed once, before training, and kept; online (``teacher: online``) when a prompt first comes up. A
result is stored under everything that it follows from: the model's weights, the prompt, the video file, the frames,
the sampling. So it is never stale, a killed run goes on where it was, and several processes can share the work
(``--shard 0/4``).

    marc data teacher clean.json with_teacher.json --model Qwen/Qwen2.5-VL-3B-Instruct
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache

from marc.data.rows import TrainingRow
from marc.inference.decoding import drawn_apart, drawn_as_transformers_does
from marc.inference.encoding import encode
from marc.inference.hf import complete
from marc.inference.prompts import Prompt
from marc.inference.video_input import inputs_at
from marc.io import append_line, drop_torn_line, make_folders, parse_json, sha256_of, sha256_stream, whole_lines
from marc.model import CompressedVLM
from marc.model.family import vision_token_ids
from marc.rewards import accuracy_reward
from marc.training.dataset import STYLE, to_example
from marc.training.inputs import Messages, tokenize_prompt, visual_sources, without_visuals
from marc.training.reader import VisualReader

SAMPLING = 3
"""Version of how `answers` samples and of what it has a model read; part of every result's key."""


@dataclass(frozen=True)
class TeacherOptions:
    """How the teacher answers; part of every result's key.

    Attributes:
        samples: Answers to each row.
        max_new_tokens: Upper limit on an answer's length.
        temperature: Of the sampling; 0 is greedy, for which one sample is enough.
        seed: Of the sampling.
    """

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

    Raises:
        ValueError: A file holds something else, which is named.
    """

    def __init__(self, folder: str | Path, shard: int = 0) -> None:
        self._file = Path(folder) / f"teacher-{shard}.jsonl"
        make_folders(self._file.parent)
        drop_torn_line(self._file)
        self.results: dict[str, float] = {}
        for file in sorted(self._file.parent.glob("teacher-*.jsonl")):
            for number, line in enumerate(whole_lines(file), 1):
                if line:
                    key, a_full = _result_of(line, f"{file}, line {number}")
                    self.results[key] = a_full

    def add(self, key: str, a_full: float, problem_id: str) -> None:
        """Keeps a result."""
        self.results[key] = a_full
        append_line(self._file, json.dumps({"key": key, "a_full": a_full, "problem_id": problem_id}))


def _result_of(line: bytes, where: str) -> tuple[str, float]:
    record = parse_json(line, where)
    key, a_full = (record.get(name) if isinstance(record, dict) else None for name in ("key", "a_full"))
    if (
        not isinstance(key, str)
        or isinstance(a_full, bool)
        or not isinstance(a_full, int | float)
        or not 0 <= a_full <= 1
    ):
        raise ValueError(f"{where}: no result of a teacher (key and a_full from 0 to 1); take the line out")
    return key, float(a_full)


def model_fingerprint(model: CompressedVLM) -> str:
    """What a model's results depend on: its weights, and the numbers in which it computes."""
    quantization = getattr(model.config, "quantization_config", None)
    return repr((_weights_fingerprint(model), str(model.dtype), quantization))


def _weights_fingerprint(model: CompressedVLM) -> str:
    """A folder's files with their sizes and times, a hub name with its commit, or the weights of neither."""
    folder = Path(model.name_or_path)
    if model.name_or_path and folder.is_dir():
        files = sorted([*folder.glob("*.safetensors"), *folder.glob("*.json")])
        return repr([(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files])
    if model.name_or_path:
        config = try_to_load_from_cache(model.name_or_path, "config.json")
        commit = Path(config).parent.name if isinstance(config, str) else None
        return f"{model.name_or_path}@{commit}"
    weights = sorted(model.state_dict().items())
    return sha256_stream(name.encode() + weight.detach().float().cpu().numpy().tobytes() for name, weight in weights)


@dataclass(frozen=True)
class TeacherGrader:
    """Asks the full-frame teacher, and keeps what it answered.

    Attributes:
        weights: Gives the model with every token, for as long as it is asked.
        reader: Reads the videos as training does.
        options: How to answer.
        cache: Holds earlier results.
        fingerprint: From `model_fingerprint`.
    """

    weights: Callable[[], AbstractContextManager[CompressedVLM]]
    reader: VisualReader
    options: TeacherOptions
    cache: TeacherCache
    fingerprint: str

    def accuracies(self, examples: Sequence[Mapping[str, Any]]) -> list[float]:
        """``a_full`` of rows of `marc.training.to_dataset`: mean accuracy of the teacher's answers to each.

        Rows that are not known yet are asked together.

        Raises:
            ValueError: If a video cannot be read.
        """
        keys = [result_key(example, self.fingerprint, self.reader, self.options) for example in examples]
        new = {key: row for key, row in zip(keys, examples, strict=True) if key not in self.cache.results}
        if new:
            with self.weights() as model:
                outputs = answers([row["prompt"] for row in new.values()], model, self.reader, self.options)
            for (key, row), texts in zip(new.items(), outputs, strict=True):
                grades = accuracy_reward(texts, *([row[name]] * len(texts) for name in ("solution", "problem_type")))
                self.cache.add(key, sum(grades) / len(grades), str(row["problem_id"]))
        return [self.cache.results[key] for key in keys]


def result_key(example: Mapping[str, Any], model: str, reader: VisualReader, options: TeacherOptions) -> str:
    """The name under which a row's result is kept: it says everything that the result follows from.

    Cuts are not part of it: they do not change what a teacher sees that reads every token.
    """
    sources = visual_sources(example["prompt"])
    files = [Path(source.path) for source in sources]
    stats = [(file.stat().st_size, file.stat().st_mtime_ns) if file.is_file() else None for file in files]
    texts = [message["content"] for message in without_visuals(example["prompt"])]
    question = (repr(texts), example["problem_type"], example["solution"], [source.path for source in sources])
    frames = (repr(reader.frames), reader.max_pixels, *([reader.min_pixels] if reader.min_pixels else []))
    parts = (SAMPLING, model, question, stats, frames, sorted(asdict(options).items()))
    return sha256_of(repr(parts))


def teacher_accuracies(
    rows: Sequence[TrainingRow],
    root: str | Path,
    grader: TeacherGrader,
    *,
    style: str = STYLE,
    shard: tuple[int, int] = (0, 1),
) -> Iterator[TrainingRow]:
    """Asks the teacher about the video rows of a shard.

    Args:
        rows: All rows.
        root: Folder of the videos.
        grader: The teacher.
        style: Prompt style; must be the training's.
        shard: This process's number and how many there are.

    Yields:
        Every row of the shard, with ``a_full`` where it is about a video.

    Raises:
        ValueError: If a video cannot be read.
    """
    for row in rows[shard[0] :: shard[1]]:
        if row.data_type != "video":
            yield row
        else:
            yield replace(row, a_full=grader.accuracies([to_example(row, root, style=style)])[0])


def answers(
    prompts: Sequence[Messages], model: CompressedVLM, reader: VisualReader, options: TeacherOptions
) -> list[list[str]]:
    """The model's sampled answers to prompts; each video is encoded once. The caller's random state is left alone.

    They are sampled as the student's are by default, whatever the checkpoint's own generation options say. What a
    prompt is answered does not depend on the others.

    Raises:
        ValueError: If the model's compression is on, or a video cannot be read.
    """
    if model.compression.enabled:
        raise ValueError("the teacher sees all tokens: load it with target_frames=None")
    processor = reader.processor
    shown = inputs_at(
        [[reader.read(source) for source in visual_sources(each)] for each in prompts], processor, model.compression
    )
    asked = [
        Prompt(tuple(tokenize_prompt(processor, each)), inputs) for each, inputs in zip(prompts, shown, strict=True)
    ]
    sampling: dict[str, Any] = {"temperature": options.temperature, "top_p": 1.0, "top_k": 0}
    with torch.no_grad():
        features = encode(model, [each for inputs in shown for each in inputs])
    seeded = [torch.Generator(model.device).manual_seed(options.seed) for _ in asked]
    draws = [drawn_as_transformers_does(options.samples, generator) for generator in seeded]
    outputs = complete(
        model,
        [each for each in asked for _ in range(options.samples)],
        features=features,
        draw=drawn_apart([(options.samples, draw) for draw in draws]),
        max_new_tokens=options.max_new_tokens,
        do_sample=options.temperature > 0,
        repetition_penalty=1.0,
        suppress_tokens=vision_token_ids(processor.tokenizer),
        synced_gpus=False,  # other processes may have nothing to ask
        **(sampling if options.temperature else {}),
    )
    texts: list[str] = processor.batch_decode(outputs, skip_special_tokens=True)
    return [texts[start : start + options.samples] for start in range(0, len(texts), options.samples)]
