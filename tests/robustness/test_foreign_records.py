"""Whatever is in a file of rows, a run, a batch or a memory, its reader raises its documented error and no other."""

import json
from pathlib import Path
from random import Random

import numpy as np
import pytest
from mutants import damaged, retold, seeds, withstands

from marc.cli.inputs import video_files
from marc.data.row_files import raw_rows
from marc.data.rows import parse_rows, read_rows
from marc.data.sampling import manifest_head, read_checksums
from marc.evaluation.benchmarks import BENCHMARKS
from marc.evaluation.reading import load_samples
from marc.evaluation.report import comparisons, markdown, side_by_side
from marc.evaluation.runner import open_run
from marc.evaluation.summary import summarise
from marc.inference.batch import BatchAnswers, read_questions
from marc.io import sha256_of
from marc.memory.select import default_embedder
from marc.memory.store import DamagedMemoryError, MemorySettings, VideoMemory, load_memory, save_memory
from marc.training.teacher import TeacherCache
from marc.types import Event

ROW = {
    "problem_id": 2,
    "problem": "What appears?",
    "data_type": "video",
    "problem_type": "multiple choice",
    "options": ["A. a cat", "B. a dog"],
    "solution": "<answer>A</answer>",
    "path": "./a/clip.mp4",
    "data_source": "somewhere",
    "process": "<think>it meows</think>",
    "a_full": 0.5,
    "cuts": [1.0, 2.5],
}
FILE = {"path": "./a/clip.mp4", "rows": ["2"], "bytes": 3, "sha256": "0" * 64}


def write_mutant(file: Path, value, chance: Random) -> None:
    """A value as JSON, retold, damaged or both."""
    text = retold(value, chance) if chance.random() < 0.7 else json.dumps(value)
    content = text.encode(errors="surrogateescape" if "\\ud8" in text else "strict")
    file.write_bytes(damaged(content, chance) if chance.random() < 0.4 else content)


def use_rows(file: Path) -> None:
    rows, _ = parse_rows(raw_rows(file), file.parent)
    manifest_head(rows, file.parent)
    read_checksums(file)
    read_rows(file)


@pytest.mark.parametrize("name", ["rows.json", "manifest.json", "rows.jsonl"])
def test_rows(name, tmp_path):
    file = tmp_path / name
    for number, chance in enumerate(seeds(150)):
        if name == "rows.jsonl":
            file.write_bytes(b"".join(damaged(retold(ROW, chance).encode(), chance) + b"\n" for _ in range(3)))
        else:
            write_mutant(file, [ROW] * 3 if name == "rows.json" else {"files": [FILE], "rows": [ROW] * 2}, chance)
        withstands(lambda: use_rows(file), ValueError, f"{name}, mutant {number}")


def test_rows_of_parquet(tmp_path):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    file = tmp_path / "rows.parquet"
    parquet.write_table(pyarrow.Table.from_pylist([ROW] * 20), file)
    whole = file.read_bytes()
    for number, chance in enumerate(seeds(100)):
        at = chance.randrange(len(whole))
        file.write_bytes(whole[:at] if chance.random() < 0.3 else whole[:at] + b"{}" + whole[at + 2 :])
        withstands(lambda: use_rows(file), (ValueError, OSError), f"mutant {number}")


OFFICIAL = {
    "vsi": (
        "test.jsonl",
        {"dataset": "d", "scene_name": "s", "question": "Q?", "ground_truth": "A", "options": ["A"]},
    ),
    "videommmu": ("Perception/test.jsonl", {"id": "a", "question": "Q?", "answer": "A", "options": ["x", "y"]}),
    "mmvu": ("validation.jsonl", {"video": "v/videos/a.mp4", "question": "Q?", "answer": "A", "choices": {"A": "x"}}),
    "mvbench": ("json/action_count.jsonl", {"video": "a.mp4", "question": "Q?", "candidates": ["1"], "answer": "1"}),
    "tempcompass": ("yes_no/test.jsonl", {"video_id": "a", "question": "Q?", "answer": "yes", "dim": "speed"}),
    "videomme": (
        "test.jsonl",
        {"videoID": "a", "question": "Q?", "options": ["A. x"], "answer": "A", "duration": "long"},
    ),
}


@pytest.mark.parametrize("benchmark", OFFICIAL)
@pytest.mark.parametrize("protocol", ["official", "video-r1"])
def test_annotations(benchmark, protocol, tmp_path):
    name, row = OFFICIAL[benchmark]
    entry = BENCHMARKS[benchmark]
    if protocol == "video-r1":
        name, row = f"{entry.spec('video-r1').files[0]}.json", ROW
    else:
        row = {"question_type": "multiple-choice", **row}
        for other in ("Comprehension", "Adaptation", "multi-choice", "caption_matching"):
            (tmp_path / other).mkdir()
            (tmp_path / other / "test.jsonl").write_text("")
    file = tmp_path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    for number, chance in enumerate(seeds(40)):
        if file.suffix == ".json":
            write_mutant(file, [row, row], chance)
        else:
            write_mutant(file, row, chance)
        withstands(lambda: load_samples(entry, protocol=protocol, data=tmp_path), ValueError, f"mutant {number}")


CARD = {
    "run": {
        "benchmark": "T",
        "protocol": "video-r1",
        "method": "full",
        "model": "m",
        "headline": "macro:task",
        "samples": 2,
        "note": "",
    },
    "started": "2026",
}
ANSWERED = {
    "id": "t/0",
    "path": "a.mp4",
    "prompt_hash": "0",
    "problem_type": "regression",
    "solution": "4",
    "groups": {"task": "odd"},
    "status": "ok",
    "strict": 1.0,
    "lenient": 1.0,
    "frames": 4,
    "visual_tokens_before": 8,
    "visual_tokens_after": 4,
    "prompt_tokens_before": 9,
    "prompt_tokens_after": 5,
    "seconds": {"total": 0.5},
    "peak_memory_bytes": 1000,
}
FAILED = {**{name: ANSWERED[name] for name in list(ANSWERED)[:6]}, "id": "t/1", "status": "failed", "reason": "broken"}


def test_runs(tmp_path):
    card, rows = tmp_path / "run" / "run.json", tmp_path / "run" / "rows.rank0.jsonl"
    card.parent.mkdir()

    def use() -> None:
        summary = summarise(card.parent)
        markdown(summary)
        side_by_side([summary])
        comparisons([card.parent, card.parent])
        open_run(card.parent, CARD)

    for number, chance in enumerate(seeds(80)):
        card.write_text(json.dumps(CARD))
        rows.write_text(f"{json.dumps(ANSWERED)}\n{json.dumps(FAILED)}\n")
        if chance.random() < 0.4:
            write_mutant(card, CARD, chance)
        else:
            write_mutant(rows, chance.choice((ANSWERED, FAILED)), chance)
            rows.write_bytes(rows.read_bytes() + b"\n")
        withstands(use, ValueError, f"mutant {number}")


def test_batches(tmp_path):
    file, answers = tmp_path / "questions.jsonl", tmp_path / "answers.jsonl"
    video = {"source": "a.mp4", "start": 1, "end": 2.5}
    question = {"id": "1", "video": [video, "b.mp4"], "question": "What?", "options": ["A. x"]}
    answer = {"id": "1", "asked": "0" * 16, "status": "ok"}
    for number, chance in enumerate(seeds(150)):
        write_mutant(file, question, chance)
        withstands(lambda: read_questions(file), ValueError, f"questions, mutant {number}")
        write_mutant(answers, answer, chance)
        withstands(lambda: BatchAnswers(answers, "settings").open([]), ValueError, f"answers, mutant {number}")


def test_memories(tmp_path):
    path = tmp_path / "a.marc"
    save_memory(
        VideoMemory(
            source="a.mp4",
            content="0" * 64,
            events=(Event(0.0, 1.0), Event(1.0, 2.5)),
            embeddings=np.eye(2, 8, dtype=np.float32),
            thumbnails=(b"\xff\xd8\x00\xff\xd9",) * 2,
            settings=MemorySettings("1", "e", "fp32", "uniform", "", 1.0, 20.0, 4.0, 160),
            versions={"torch": "2"},
        ),
        path,
    )
    whole = path.read_bytes()
    mark, _, body = whole.split(b"\n", 2)
    line, _, arrays = body.partition(b"\n")
    for number, chance in enumerate(seeds(300)):
        if chance.random() < 0.5:  # by somebody who knows the checksum
            new = retold(json.loads(line), chance).encode() + b"\n" + damaged(arrays, chance)
            path.write_bytes(b"\n".join([mark, sha256_of(new).encode(), new]))
        else:
            path.write_bytes(damaged(whole, chance))
        withstands(lambda: load_memory(path), DamagedMemoryError, f"mutant {number}")


def test_lists_and_configurations(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    listed, config = tmp_path / "list.txt", tmp_path / "config.json"
    for number, chance in enumerate(seeds(150)):
        listed.write_bytes(damaged(b"a.mp4\nfilms/b.mp4\n*.avi\nfilms\n@other.txt\n", chance))
        withstands(lambda: video_files(["@list.txt"]), (ValueError, OSError), f"list, mutant {number}")
        write_mutant(config, {"embedder": "x", "model_type": "y"}, chance)
        withstands(lambda: default_embedder(str(tmp_path)), (), f"configuration, mutant {number}")


def test_results_of_the_teacher(tmp_path):
    results = [{"key": f"{number:064x}", "a_full": number / 4, "problem_id": "7"} for number in range(4)]
    for number, chance in enumerate(seeds(100)):
        folder = tmp_path / str(number)
        folder.mkdir()
        lines = [retold(result, chance) if chance.random() < 0.5 else json.dumps(result) for result in results]
        content = "".join(f"{line}\n" for line in lines).encode(errors="backslashreplace")
        (folder / "teacher-0.jsonl").write_bytes(damaged(content, chance) if chance.random() < 0.5 else content)

        def use(folder=folder) -> None:
            kept = TeacherCache(folder, shard=1).results
            assert all(isinstance(key, str) and 0 <= value <= 1 for key, value in kept.items())

        withstands(use, ValueError, f"mutant {number}")
