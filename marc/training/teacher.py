"""The teacher's accuracy ``a_full``: the uncompressed model answers every video row several times (C-GRPO's teacher).

Offline it is computed once, before training, and kept; online (``teacher: online``) when a prompt first comes up. A
result is stored under everything that it follows from: the model's weights, the prompt, the video file, the frames,
the sampling. So it is never stale, a killed run goes on where it was, and several processes can share the work
(``--shard 0/4``).

    marc data teacher clean.json with_teacher.json --model Qwen/Qwen2.5-VL-3B-Instruct

Rows are asked together, and while some are answered the videos of the next are read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from huggingface_hub import try_to_load_from_cache

from marc.data.rows import TrainingRow
from marc.inference.backend import Backend
from marc.inference.video_input import VisualPatches
from marc.io import append_line, drop_torn_line, make_folders, parse_json, sha256_of, sha256_stream, whole_lines
from marc.model import CompressedVLM
from marc.rewards import accuracy_reward
from marc.training.dataset import STYLE, to_example
from marc.training.inputs import Messages, encoded_prompts, visual_sources, without_visuals
from marc.training.reader import VisualReader, VisualSource
from marc.types import GenerationOptions

_Item = TypeVar("_Item")
_Made = TypeVar("_Made")
Files = Mapping[VisualSource, VisualPatches]
"""What was read of the files that prompts name."""

SAMPLING = 3
"""Version of how `answers` samples and of what it has a model read; part of every result's key."""
ROWS_TOGETHER = 16
"""So many rows are asked together."""


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

    @property
    def generation(self) -> GenerationOptions:
        """As an engine takes them."""
        return GenerationOptions(self.max_new_tokens, self.temperature, seed=self.seed)


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
    weights = _named_weights(model.name_or_path) if model.name_or_path else _weights_fingerprint(model)
    return repr((weights, str(model.dtype), quantization))


def served_fingerprint(backend: Backend, engine: str) -> str:
    """As `model_fingerprint`, of a model in another engine than transformers', which draws other answers.

    Args:
        backend: Has the model, which has a name.
        engine: What the engine is called.
    """
    quantization = getattr(backend.config, "quantization_config", None)
    return repr((engine, _named_weights(backend.name), str(backend.dtype), quantization))


def _named_weights(name: str) -> str:
    """A folder's files with their sizes and times, or a hub name with its commit."""
    folder = Path(name)
    if folder.is_dir():
        files = sorted([*folder.glob("*.safetensors"), *folder.glob("*.json")])
        return repr([(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files])
    config = try_to_load_from_cache(name, "config.json")
    commit = Path(config).parent.name if isinstance(config, str) else None
    return f"{name}@{commit}"


def _weights_fingerprint(model: CompressedVLM) -> str:
    weights = sorted(model.state_dict().items())
    return sha256_stream(name.encode() + weight.detach().float().cpu().numpy().tobytes() for name, weight in weights)


class UnknownRows(NamedTuple):
    """Rows whose results are to be found out.

    Attributes:
        rows: By the keys of their results.
        files: What they name.
    """

    rows: Mapping[str, Mapping[str, Any]]
    files: Files


@dataclass(frozen=True)
class TeacherGrader:
    """Asks the full-frame teacher, and keeps what it answered.

    Attributes:
        engine: Gives the engine, with every token, for as long as it is asked.
        reader: Reads the videos as training does.
        options: How to answer.
        cache: Holds earlier results.
        fingerprint: From `model_fingerprint` or `served_fingerprint`.
    """

    engine: Callable[[], AbstractContextManager[Backend]]
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
        self.ask(self.read(examples))
        return [self.cache.results[self._key(example)] for example in examples]

    def read(self, examples: Iterable[Mapping[str, Any]]) -> UnknownRows:
        """Reads what those rows name whose results are not known.

        Raises:
            ValueError: If a video cannot be read.
        """
        rows: dict[str, Mapping[str, Any]] = {}
        for row in examples:
            if (key := self._key(row)) not in self.cache.results:
                rows.setdefault(key, row)
        sources = {source: None for row in rows.values() for source in visual_sources(row["prompt"])}
        return UnknownRows(rows, {source: self.reader.read(source) for source in sources})

    def ask(self, unknown: UnknownRows) -> None:
        """Finds their results out, as far as these have not become known since they were read."""
        rows = {key: row for key, row in unknown.rows.items() if key not in self.cache.results}
        if not rows:
            return
        with self.engine() as engine:
            outputs = answers([row["prompt"] for row in rows.values()], unknown.files, engine, self.options)
        for (key, row), texts in zip(rows.items(), outputs, strict=True):
            grades = accuracy_reward(texts, *([row[name]] * len(texts) for name in ("solution", "problem_type")))
            self.cache.add(key, sum(grades) / len(grades), str(row["problem_id"]))

    def _key(self, example: Mapping[str, Any]) -> str:
        return result_key(example, self.fingerprint, self.reader, self.options)


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
    together: int = ROWS_TOGETHER,
) -> Iterator[TrainingRow]:
    """Asks the teacher about the video rows of a shard.

    Args:
        rows: All rows.
        root: Folder of the videos.
        grader: The teacher.
        style: Prompt style; must be the training's.
        shard: This process's number and how many there are.
        together: So many rows are asked together; results do not depend on it.

    Yields:
        Every row of the shard, with ``a_full`` where it is about a video.

    Raises:
        ValueError: If a video cannot be read, or ``together`` is less than 1.
    """
    if together < 1:
        raise ValueError(f"at least 1 row must be asked at a time, got {together}")
    mine = rows[shard[0] :: shard[1]]
    batches = [mine[start : start + together] for start in range(0, len(mine), together)]

    def examples(batch: Sequence[TrainingRow]) -> list[dict[str, Any]]:
        return [to_example(row, root, style=style) for row in batch if row.data_type == "video"]

    read_ahead = one_ahead(lambda batch: grader.read(examples(batch)), batches)
    for batch, unknown in zip(batches, read_ahead, strict=True):
        grader.ask(unknown)
        results = iter(grader.accuracies(examples(batch)))
        for row in batch:
            yield replace(row, a_full=next(results)) if row.data_type == "video" else row


def one_ahead(make: Callable[[_Item], _Made], items: Iterable[_Item]) -> Iterator[_Made]:
    """What is made of each item, in order; while one is used, a thread makes the next."""
    with ThreadPoolExecutor(1) as pool:
        last: Future[_Made] | None = None
        for item in items:
            following = pool.submit(make, item)
            if last is not None:
                yield last.result()
            last = following
        if last is not None:
            yield last.result()


def answers(prompts: Sequence[Messages], files: Files, engine: Backend, options: TeacherOptions) -> list[list[str]]:
    """An engine's sampled answers to prompts; each video is encoded once. The caller's random state is left alone.

    They are sampled as the student's are by default, whatever the checkpoint's own generation options say. What a
    prompt is answered does not depend on the others.

    Args:
        prompts: The prompts.
        files: What was read of the files that they name; it stays as it is.
        engine: Answers.
        options: How.

    Raises:
        ValueError: If the engine's compression is on.
    """
    if engine.compression.enabled:
        raise ValueError("the teacher sees all tokens: load it with target_frames=None")
    asked = encoded_prompts(prompts, files, engine, engine.compression)
    outputs = engine.sample(asked, options.generation, options.samples)
    return [engine.processor.batch_decode(each, skip_special_tokens=True) for each in outputs]
