"""Runs an engine over samples, a flushed JSON line each, so that a run can be killed and resumed at any moment.

A run is a folder: ``run.json`` (what was asked of whom: the run card), ``rows.rank<k>.jsonl`` (one file per process)
and, once all samples have a row, the report. Shards are fixed (see `Shard`), whatever is already done, so processes
need not talk; rows of an earlier start with another number of processes count all the same.

A sample that fails is a row with ``status: "failed"`` and its reason. It is never scored, never replaced, and one bad
video does not touch the others of its batch: the batch is asked again one by one.

    marc eval --benchmark vsi --data DIR
    torchrun --nproc-per-node 8 inference_script/eval_bench.py --benchmark vsi --data DIR
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from marc.evaluation.engine import Engine, EnginePool, Failure, Reply
from marc.evaluation.official import score_official
from marc.evaluation.samples import Sample
from marc.grading import extract_answer, grade
from marc.io import append_line, cause_of, drop_torn_line, make_folders, parse_json, read_json, whole_lines, write_json
from marc.records import AnswerRecord, FailureRecord, as_json
from marc.types import Answer, GenerationOptions
from marc.video import VideoError

logger = logging.getLogger(__name__)

ROWS = "rows.rank*.jsonl"
CARD = "run.json"
FAILURES_IN_A_ROW = 20
_LARGEST = 1e300
DEFAULT_GENERATION = GenerationOptions(max_new_tokens=1024, repetition_penalty=1.0)

Row = dict[str, Any]


class TooManyFailuresError(ValueError):
    """So many samples failed in a row that it is not the samples."""


@dataclass(frozen=True)
class Shard:
    """Which samples this process answers: every ``world_size``-th group of videos, from the ``rank``-th on.

    All questions about a video are in one group, one after the other, so that it is decoded and encoded once. Groups
    and the batches in them depend on the samples and the batch size alone: any number of processes pads and rounds as
    one does.
    """

    rank: int = 0
    world_size: int = 1

    @classmethod
    def from_environment(cls) -> Shard:
        """The shard that torchrun (or accelerate) gave this process, or everything."""
        return cls(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))

    def batches(self, samples: Iterable[Sample], batch_size: int) -> list[list[Sample]]:
        """This process's batches."""
        return [batch for group in self.groups(samples, batch_size) for batch in group]

    def groups(self, samples: Iterable[Sample], batch_size: int) -> list[list[list[Sample]]]:
        """This process's groups of videos, in batches."""
        groups = _groups_of_videos(samples, batch_size)[self.rank :: self.world_size]
        return [[group[start : start + batch_size] for start in range(0, len(group), batch_size)] for group in groups]


def _groups_of_videos(samples: Iterable[Sample], least: int) -> list[list[Sample]]:
    """The samples video by video, in groups of whole videos with at least so many samples each."""
    by_video: dict[str, list[Sample]] = {}
    for sample in samples:
        by_video.setdefault(sample.path, []).append(sample)
    groups: list[list[Sample]] = []
    for video in by_video.values():
        if groups and len(groups[-1]) < least:
            groups[-1] += video
        else:
            groups.append(video)
    return groups


@dataclass(frozen=True)
class RunOptions:
    """How samples are asked and scored.

    Attributes:
        protocol: One of `marc.evaluation.benchmarks.EVALUATION_PROTOCOLS`.
        generation: How answers are generated; by default greedily and up to 1,024 tokens.
        batch_size: Samples that the engine gets at once.
        retry_failed: Whether samples are asked again that failed earlier.
        shard: This process's part; by default as torchrun says.
    """

    protocol: str
    generation: GenerationOptions = DEFAULT_GENERATION
    batch_size: int = 1
    retry_failed: bool = False
    shard: Shard = field(default_factory=Shard.from_environment)


def run(
    samples: Sequence[Sample],
    engine: Engine | EnginePool,
    folder: Path,
    options: RunOptions,
    on_row: Callable[[Row], None] | None = None,
) -> None:
    """Answers and scores what this process has not answered yet, appending to its file in ``folder``.

    Args:
        samples: All samples, the same on every process.
        engine: Answers them.
        folder: The run's folder; `open_run` has prepared it.
        options: How they are asked and scored.
        on_row: Called with every new row.

    Raises:
        TooManyFailuresError: If samples about 20 videos in a row fail.
        OSError: If the rows cannot be written, for instance because the disk is full; the file is named.
    """
    answered = {row["id"] for row in read_run_rows(folder) if row["status"] == "ok" or not options.retry_failed}
    groups = options.shard.groups(samples, options.batch_size)
    failing_videos: set[str] = set()
    path = folder / ROWS.replace("*", str(options.shard.rank))
    drop_torn_line(path)
    if isinstance(engine, EnginePool):
        replies = engine.answer_all(groups, answered, options.generation)
    else:
        replies = answers(engine, [batch for group in groups for batch in group], answered, options.generation)
    for sample, result in replies:
        row = (
            failed_row(sample, result) if isinstance(result, Failure) else scored_row(sample, result, options.protocol)
        )
        append_line(path, json.dumps(row))
        if on_row:
            on_row(row)
        failing_videos = {*failing_videos, sample.path} if row["status"] == "failed" else set()
        if len(failing_videos) == FAILURES_IN_A_ROW:
            raise TooManyFailuresError(
                f"samples about {FAILURES_IN_A_ROW} videos in a row failed, the last one ({sample.id}) with: "
                f"{row['reason']}"
            )


def answers(
    engine: Engine, batches: Iterable[Sequence[Sample]], answered: Container[str], generation: GenerationOptions
) -> Iterator[Reply]:
    """Each sample that is not answered yet with its answer, or with what went wrong with it alone.

    A batch of which a part is answered is asked as a whole, so that a resumed run pads and rounds as an uninterrupted
    one. A video that cannot be read is tried once.
    """
    unreadable: dict[str, Failure] = {}
    for batch in batches:
        if all(sample.id in answered for sample in batch):
            continue
        alone = len(batch) == 1 or any(sample.path in unreadable for sample in batch)
        replies = None if alone else _attempt(engine, batch, generation)
        if replies is None or isinstance(replies, Failure):
            results = [_attempt_alone(engine, sample, generation, unreadable) for sample in batch]
        else:
            results = list(replies)
        yield from ((s, r) for s, r in zip(batch, results, strict=True) if s.id not in answered)


def _attempt(engine: Engine, batch: Sequence[Sample], generation: GenerationOptions) -> Sequence[Answer] | Failure:
    try:
        return engine.answer(batch, generation)
    except (ValueError, OSError, RuntimeError) as error:
        return Failure(cause_of(error), isinstance(error, VideoError))


def _attempt_alone(
    engine: Engine, sample: Sample, generation: GenerationOptions, unreadable: dict[str, Failure]
) -> Answer | Failure:
    """Asks one sample, unless its video is known to be unreadable; notes it if that shows now."""
    if sample.path in unreadable:
        return unreadable[sample.path]
    replies = _attempt(engine, [sample], generation)
    if not isinstance(replies, Failure):
        return replies[0]
    if replies.is_the_videos:
        unreadable[sample.path] = replies
    return replies


def scored_row(sample: Sample, answer: Answer, protocol: str) -> Row:
    """The row of a sample that was answered: strict and lenient score, and all that the answer says."""
    score = _official_scores if protocol == "official" else _video_r1_scores
    strict, lenient = score(answer.output, sample)
    return {
        **_described(sample),
        "status": "ok",
        **as_json(AnswerRecord.of(answer)),
        "prediction": extract_answer(answer.output, protocol=protocol),
        "strict": strict,
        "lenient": lenient,
    }


def _official_scores(output: str, sample: Sample) -> tuple[float, float]:
    return score_official(output, sample), score_official(output, sample, strict=False)


def _video_r1_scores(output: str, sample: Sample) -> tuple[float, float]:
    strict, lenient = (
        grade(output, sample.solution, sample.problem_type, protocol="video-r1", strict=reading)
        for reading in (True, False)
    )
    return strict, lenient


def failed_row(sample: Sample, failure: Failure) -> Row:
    """The row of a sample that could not be answered."""
    return {**_described(sample), **as_json(FailureRecord.of(failure.reason))}


def _described(sample: Sample) -> Row:
    return {
        "id": sample.id,
        "path": sample.path,
        "prompt_hash": sample.prompt_hash,
        "problem_type": sample.problem_type,
        "solution": sample.solution,
        "groups": dict(sample.groups),
    }


def open_run(folder: Path, card: dict[str, Any], *, main: bool = True) -> None:
    """Prepares a run's folder, or checks that an existing one is of the same run.

    Args:
        folder: The run's folder.
        card: The run card; its ``"run"`` entry is what must be equal for a resume.
        main: Whether this process writes the card.

    Raises:
        ValueError: If the folder holds another run; the message names what differs.
    """
    path = folder / CARD
    make_folders(folder)
    if path.exists():
        before, now = read_card(folder)["run"], json.loads(json.dumps(card["run"]))
        different = [key for key in {**before, **now} if before.get(key) != now.get(key)]
        if different:
            changes = "; ".join(f"{key} was {before.get(key)!r}, now {now.get(key)!r}" for key in sorted(different))
            raise ValueError(f"{folder} holds another run ({changes}): choose another folder, or delete it")
        if main:
            _note_other_environment(path, card)
    elif main:
        write_json(path, card)


def _note_other_environment(path: Path, card: Mapping[str, Any]) -> None:
    """Adds to a run's card under ``resumed`` that it goes on with other versions, another commit or machine."""
    known = read_card(path.parent)
    latest = [known, *known.get("resumed", ())][-1].get("environment")
    if latest == json.loads(json.dumps(card.get("environment"))):
        return
    logger.warning("%s goes on in another environment than it was begun in; its card tells both", path.parent)
    now = {name: card.get(name) for name in ("environment", "command", "started")}
    write_json(path, {**known, "resumed": [*known.get("resumed", ()), now]})


def read_card(folder: Path) -> dict[str, Any]:
    """A run's card.

    Raises:
        ValueError: If the folder is no run, or its card is none; the message names it.
    """
    path = folder / CARD
    if not path.is_file():
        raise ValueError(f"{folder} is not a run: it has no {CARD}")
    card = read_json(path)
    run = card.get("run") if isinstance(card, dict) else None
    if not isinstance(run, dict):
        raise ValueError(f"{path}: no card of a run; delete the folder, or choose another")
    for name in ("benchmark", "protocol", "method", "headline"):
        if not isinstance(run.get(name), str):
            raise ValueError(f"{path}: {name!r} must be a text, got {type(run.get(name)).__name__}")
    if not isinstance(run.get("samples"), int):
        raise ValueError(f"{path}: 'samples' must be a number, got {type(run.get('samples')).__name__}")
    for name in ("model", "note"):
        if not isinstance(run.get(name, ""), str):
            raise ValueError(f"{path}: {name!r} must be a text, got {type(run[name]).__name__}")
    return card


def read_run_rows(folder: Path) -> list[Row]:
    """The rows of a run, one per sample, in the order of their ids; a success counts before an earlier failure.

    A line that a kill cut off is ignored: its sample has no row yet.

    Raises:
        ValueError: If a line is no row; the message names file, line and field.
    """
    rows: dict[str, Row] = {}
    for path in sorted(folder.glob(ROWS)):
        for number, line in enumerate(whole_lines(path), 1):
            where = f"{path}, line {number}"
            row = parse_json(line, where)
            _check_row(row, where)
            if rows.get(row["id"], {}).get("status") != "ok":
                rows[row["id"]] = row
    return [rows[key] for key in sorted(rows)]


_NUMBERS = ("strict", "lenient", "peak_memory_bytes")
_COSTS = (
    "frames",
    "visual_tokens_before",
    "visual_tokens_after",
    "prompt_tokens_before",
    "prompt_tokens_after",
)
_MAY_BE_UNKNOWN = ("generated_tokens",)


def _check_row(row: Any, where: str) -> None:
    """Refuses what no run writes, for those who reckon with it."""
    if not isinstance(row, dict):
        raise ValueError(f"{where}: a row is an object, got {type(row).__name__}")
    is_ok = row.get("status") == "ok"
    texts = ("id", "path", "problem_type", "solution") + (() if is_ok else ("reason",))
    wrong = [name for name in texts if not isinstance(row.get(name), str)]
    wrong += ["status"] if row.get("status") not in ("ok", "failed") else []
    wrong += ["groups"] if not isinstance(row.get("groups"), dict) else []
    if is_ok:
        wrong += [name for name in _NUMBERS if not _is_number(row.get(name))]
        wrong += [name for name in _COSTS if name in row and not _is_number(row[name])]
        wrong += [name for name in _MAY_BE_UNKNOWN if row.get(name) is not None and not _is_number(row[name])]
        wrong += [name for name in ("has_thought", "is_cut") if row.get(name) not in (None, False, True)]
        seconds = row.get("seconds")
        wrong += [] if isinstance(seconds, dict) and all(map(_is_number, seconds.values())) else ["seconds"]
    if wrong:
        raise ValueError(f"{where}: no row of a run: {', '.join(wrong)} missing or of another type; delete the line")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _LARGEST


@contextmanager
def processes() -> Iterator[Callable[[], None]]:
    """What lets processes wait for each other: under torchrun a barrier without limit of time, otherwise nothing.

    Yields:
        A function that returns once all processes have called it.
    """
    if "WORLD_SIZE" not in os.environ:
        yield lambda: None
        return
    import torch.distributed as dist

    dist.init_process_group("gloo", timeout=timedelta(days=30))
    yield dist.barrier
    dist.destroy_process_group()


def missing_ids(samples: Iterable[Sample], rows: Iterable[Row]) -> list[str]:
    """Ids of the samples that have no row yet."""
    done = {row["id"] for row in rows}
    return [sample.id for sample in samples if sample.id not in done]
