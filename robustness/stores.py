"""Everything that the package keeps on disk, each with a small workload that writes it and a judge of what is left."""

from __future__ import annotations

import importlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, ClassVar

from marc.io import sha256_file, sha256_of, write_bytes
from robustness.memories import SETTINGS, Asker, some_memory, vectors

Acknowledge = Callable[[str], None]


class Store(ABC):
    """One kind of thing on disk.

    Args:
        random: What the workload is made from.
        inputs: Folder with what the workload reads; it is not attacked.
    """

    name: ClassVar[str]
    weight: ClassVar[int] = 8
    """How often it is attacked among the others."""
    modules: ClassVar[tuple[str, ...]] = ()
    """What the workload imports, to be imported once for all children; nothing that starts threads."""
    survives_power: ClassVar[bool] = True
    """Whether what was acknowledged is promised also after a loss of power."""

    def __init__(self, random: Random, inputs: Path) -> None:
        for module in self.modules:
            importlib.import_module(module)
        self.inputs = inputs
        self.prepare(random)

    @abstractmethod
    def prepare(self, random: Random) -> None:
        """Chooses the workload."""

    @abstractmethod
    def work(self, folder: Path, acknowledge: Acknowledge, done: Sequence[str] = ()) -> Any:
        """Does the workload, or the rest of it.

        Args:
            folder: Where the store is.
            acknowledge: Called with what the package has said to be kept.
            done: What was acknowledged before the process was killed, for those that must know.

        Returns:
            What is in the store at the end.
        """

    @abstractmethod
    def problems(self, folder: Path, acknowledged: Sequence[str]) -> list[str]:
        """What was lost of that which was acknowledged, and what is taken for whole that is not."""


class Files(Store):
    """`marc.io`: files that replace one another, in folders that are made for them."""

    name = "files"

    def prepare(self, random: Random) -> None:
        """Three files in two new folders, each written three times."""
        self.contents = [
            (f"new/deep/{number % 2}/{number}.bin", random.randbytes(random.choice([1, 5000, 200_000])))
            for number in [0, 1, 2] * 3
        ]

    def work(self, folder: Path, acknowledge: Acknowledge, done: Sequence[str] = ()) -> Any:
        """Writes all, in their order."""
        for number, (path, content) in enumerate(self.contents):
            write_bytes(folder / path, content)
            acknowledge(str(number))
        return sorted((path, (folder / path).read_bytes()) for path, _ in self.contents)

    def problems(self, folder: Path, acknowledged: Sequence[str]) -> list[str]:
        """A file is there, whole, of the last writing that was acknowledged or a later one."""
        problems = []
        for name in {path for path, _ in self.contents}:
            versions = [number for number, (path, _) in enumerate(self.contents) if path == name]
            least = max((number for number in versions if str(number) in acknowledged), default=-1)
            there = (folder / name).read_bytes() if (folder / name).exists() else None
            allowed = [self.contents[number][1] for number in versions if number >= least]
            if there not in (allowed if least >= 0 else [None, *allowed]):
                problems.append(f"{name} is neither version {least} nor a later one")
        return problems


class Memories(Store):
    """`marc.memory.store`: memory files, and the cache of content keys."""

    name = "memories"
    modules = ("marc.memory.store",)

    def prepare(self, random: Random) -> None:
        """A few videos with one to twenty events."""
        self.memories = []
        for number in range(random.randrange(2, 5)):
            video = self.inputs / f"{number}.mp4"
            if not video.exists():
                write_bytes(video, random.randbytes(100 + number))
                os.utime(video, (1e9, 1e9))
            self.memories.append(some_memory(str(video), sha256_file(video), number, random.randrange(1, 20)))

    def work(self, folder: Path, acknowledge: Acknowledge, done: Sequence[str] = ()) -> Any:
        """Remembers what is not remembered."""
        from marc.memory.store import make_folder, memory_path, save_memory

        for number, memory in enumerate(self.memories):
            if self._found(folder, memory.source) is None:
                make_folder(memory.source, folder / "memories")
                save_memory(memory, memory_path(memory.source, memory.key, folder / "memories"))
            acknowledge(str(number))
        return [repr(self._found(folder, memory.source)) for memory in self.memories]

    def problems(self, folder: Path, acknowledged: Sequence[str]) -> list[str]:
        """A memory is the one that was saved, or not there where it was not acknowledged."""
        problems = []
        for number, memory in enumerate(self.memories):
            found = self._found(folder, memory.source)
            if found is None and str(number) in acknowledged:
                problems.append(f"the memory of video {number} is lost")
            if found is not None and not _same(found, memory):
                problems.append(f"the memory of video {number} is another one")
        return problems

    def _found(self, folder: Path, video: str) -> Any:
        from marc.memory.store import find_memory

        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
        return find_memory(video, SETTINGS, folder / "memories")


def _same(found: Any, saved: Any) -> bool:
    return (found.events, found.thumbnails, found.content) == (saved.events, saved.thumbnails, saved.content) and (
        found.embeddings == saved.embeddings
    ).all()


class Evaluation(Store):
    """`marc.evaluation.runner`: the run card and the rows of an evaluation, in batches."""

    name = "evaluation"
    modules = ("marc.evaluation.runner",)

    def prepare(self, random: Random) -> None:
        """A dozen samples about four videos; some outputs are longer than a page of the disk."""
        from marc.evaluation.samples import Sample

        fields: dict[str, Any] = {"question": "Q?", "prompt": "Q?", "problem_type": "multiple choice"}
        self.samples = [
            Sample(id=f"{number:03d}", path=f"{number // 3}.mp4", solution="<answer>B</answer>", groups={}, **fields)
            for number in range(12)
        ]
        self.outputs = {
            sample.id: "\u00e4" * random.choice([0, 10, 9000]) + f"<answer>{random.choice('AB')}</answer>"
            for sample in self.samples
        }
        self.batch_size = random.randrange(1, 4)

    def answer(self, samples: Sequence[Any], generation: Any) -> list[Any]:
        """What an engine does."""
        from marc.types import Answer

        return [Answer("", self.outputs[each.id], 64, 128, 4, 130, 6, {"total": 0.5}, 1) for each in samples]

    def work(self, folder: Path, acknowledge: Acknowledge, done: Sequence[str] = ()) -> Any:
        """Runs or resumes."""
        from marc.evaluation.runner import RunOptions, Shard, missing_ids, open_run, read_run_rows, run

        about = {"benchmark": "T", "protocol": "video-r1", "method": "full", "model": "scripted", "headline": "mean"}
        open_run(folder / "run", {"run": {**about, "samples": len(self.samples)}})
        acknowledge("card")
        engine: Any = self
        options = RunOptions("video-r1", batch_size=self.batch_size, shard=Shard())
        run(self.samples, engine, folder / "run", options, lambda row: acknowledge(row["id"]))
        rows = read_run_rows(folder / "run")
        return missing_ids(self.samples, rows), rows

    def problems(self, folder: Path, acknowledged: Sequence[str]) -> list[str]:
        """Each row that was acknowledged is there, with its output."""
        from marc.evaluation.runner import CARD, read_run_rows

        rows = {row["id"]: row["output"] for row in read_run_rows(folder / "run")}
        problems = [f"row {name} is lost" for name in acknowledged if name != "card" and name not in rows]
        problems += [f"row {name} says something else" for name in rows if rows[name] != self.outputs[name]]
        if "card" in acknowledged and not (folder / "run" / CARD).exists():
            problems.append("the run card is lost")
        return problems


class Batch(Store):
    """`marc.inference.batch`: answers to questions from a file."""

    name = "batch answers"
    modules = ("marc.inference.batch",)

    def prepare(self, random: Random) -> None:
        """Ten questions; some answers are longer than a page of the disk."""
        self.answers = {f"What is {number}?": "x" * random.choice([1, 9000]) for number in range(10)}

    def ask(self, clips: Any, question: str, options: Any) -> Any:
        """What an assistant does."""
        from marc.types import Answer

        return Answer(self.answers[question], "", question=question)

    def work(self, folder: Path, acknowledge: Acknowledge, done: Sequence[str] = ()) -> Any:
        """Answers what has no answer."""
        from marc.inference.batch import answer_all

        answers, questions = self._opened(folder)
        assistant: Any = self
        for question, _ in answer_all(assistant, answers.open(questions), answers):
            acknowledge(question.id)
        return answers.open(questions), sorted(self._rows(folder).items())

    def problems(self, folder: Path, acknowledged: Sequence[str]) -> list[str]:
        """Each answer that was acknowledged is there once, and right."""
        answers, questions = self._opened(folder)
        unanswered = {question.id for question in answers.open(questions)}
        problems = [f"answer {name} is lost" for name in acknowledged if name in unanswered]
        for question in questions:
            if question.id not in unanswered and self._rows(folder)[question.id] != self.answers[question.question]:
                problems.append(f"answer {question.id} says something else")
        return problems

    def _opened(self, folder: Path) -> tuple[Any, list[Any]]:
        from marc.inference.batch import BatchAnswers, BatchQuestion
        from marc.types import Clip

        questions = [BatchQuestion(str(n), (Clip("a.mp4"),), text) for n, text in enumerate(self.answers)]
        return BatchAnswers(folder / "new" / "answers.jsonl", "settings"), questions

    def _rows(self, folder: Path) -> dict[str, str]:
        import json

        from marc.io import whole_lines

        rows = list(map(json.loads, whole_lines(folder / "new" / "answers.jsonl")))
        assert len(rows) == len({row["id"] for row in rows}), "an answer is there twice"
        return {row["id"]: row["answer"] for row in rows}


class Teacher(Store):
    """`marc.training.teacher`: what the teacher answered."""

    name = "teacher"
    modules = ("marc.training.teacher",)

    def prepare(self, random: Random) -> None:
        """A dozen results; names of rows may look like the end of a line."""
        names = ["7", "}", 'a"}', "\u00e4" * 9000]
        self.results = {f"{number:064x}": (random.random(), random.choice(names)) for number in range(12)}

    def work(self, folder: Path, acknowledge: Acknowledge, done: Sequence[str] = ()) -> Any:
        """Adds what is not there."""
        from marc.training.teacher import TeacherCache

        cache = TeacherCache(folder / "teacher", shard=1)
        for key, (a_full, problem) in self.results.items():
            if key not in cache.results:
                cache.add(key, a_full, problem)
            acknowledge(key)
        return sorted(TeacherCache(folder / "teacher").results.items())

    def problems(self, folder: Path, acknowledged: Sequence[str]) -> list[str]:
        """Each result that was acknowledged is there; none is another."""
        from marc.training.teacher import TeacherCache

        found = TeacherCache(folder / "teacher").results
        problems = [f"result {key[-2:]} is lost" for key in acknowledged if key not in found]
        return problems + [f"result {key} is another" for key in found if found[key] != self.results[key][0]]


class Manifests(Store):
    """`marc.data.sampling`: a manifest that is written anew."""

    name = "manifests"
    modules = ("marc.data.sampling",)

    def prepare(self, random: Random) -> None:
        """Three versions of some rows, the last of many."""
        from marc.data.rows import TrainingRow

        fields: dict[str, Any] = {"problem_type": "free-form", "solution": "<answer>\u00e4</answer>"}
        self.versions = [
            [
                TrainingRow(problem_id=str(n), problem="Q?" * 50, data_type="video", path=f"{n}.mp4", **fields)
                for n in range(count)
            ]
            for count in (random.randrange(1, 5), random.randrange(1, 50), 300)
        ]

    def work(self, folder: Path, acknowledge: Acknowledge, done: Sequence[str] = ()) -> Any:
        """Writes all versions."""
        from marc.data.sampling import write_manifest

        for number, rows in enumerate(self.versions):
            write_manifest(folder / "data" / "manifest.json", partial(iter, rows), folder, seed=number)
            acknowledge(str(number))
        return (folder / "data" / "manifest.json").read_bytes()

    def problems(self, folder: Path, acknowledged: Sequence[str]) -> list[str]:
        """The last version that was acknowledged is there, or a later one."""
        from marc.io import read_json

        path = folder / "data" / "manifest.json"
        if not path.exists():
            return ["the manifest is lost"] if acknowledged else []
        manifest = read_json(path)
        known = [row["problem_id"] for row in manifest["rows"]]
        right = known == [row.problem_id for row in self.versions[manifest["seed"]]]
        return [] if right and manifest["seed"] >= len(acknowledged) - 1 else ["the manifest is an older or half one"]


class CheckedFiles(Store):
    """`marc.data.check`: the journal of files that were found good."""

    name = "journal of checks"
    modules = ("marc.data.check",)

    def prepare(self, random: Random) -> None:
        """Twenty files of which a third are bad."""
        self.problem = {str(number): random.choice([None, None, "damaged"]) for number in range(20)}

    def work(self, folder: Path, acknowledge: Acknowledge, done: Sequence[str] = ()) -> Any:
        """Checks all that the journal does not know."""
        from marc.data import check

        def problem_with(path: Path, *_: Any, **__: Any) -> str | None:
            return self.problem[path.name]

        original, check.problem_with = check.problem_with, problem_with
        needed = {(path, "video"): [path] for path in self.problem}
        try:
            return [
                (file.path, file.problem)
                for file in check.check_needed(needed, self.inputs, journal=folder / "journal")
            ]
        finally:
            check.problem_with = original

    def problems(self, folder: Path, acknowledged: Sequence[str]) -> list[str]:
        """The journal calls no bad file good."""
        found = dict(self.work(folder, lambda _: None))
        return [f"file {name}: {found[name]}" for name in self.problem if found[name] != self.problem[name]]


class Training(Store):
    """`marc.training.resume`: checkpoints, of which the newest whole one is gone on with."""

    name = "checkpoints"
    modules = ("robustness.toy_training",)
    weight = 2

    def prepare(self, random: Random) -> None:
        """Five steps of a linear model."""
        self.seed = random.randrange(1000)

    def work(self, folder: Path, acknowledge: Acknowledge, done: Sequence[str] = ()) -> Any:
        """Trains, or goes on."""
        from marc.training.resume import last_checkpoint
        from robustness.toy_training import trainer

        toy = trainer(folder / "run", self.seed, lambda step: acknowledge(str(step)))
        toy.train(resume_from_checkpoint=last_checkpoint(folder / "run"))
        losses = [entry["loss"] for entry in toy.state.log_history if "loss" in entry]
        return losses, {name: weight.tolist() for name, weight in toy.model.state_dict().items()}

    def problems(self, folder: Path, acknowledged: Sequence[str]) -> list[str]:
        """The newest whole checkpoint is the last one that was acknowledged, or a later one."""
        from marc.training.resume import last_checkpoint

        found = last_checkpoint(folder / "run")
        step = int(found.rpartition("-")[2]) if found else 0
        return [f"checkpoint {acknowledged[-1]} is lost"] if acknowledged and step < int(acknowledged[-1]) else []


class Library(Store):
    """`marc.memory.library`: the LanceDB table of the events of many videos."""

    name = "library"
    modules = ("marc.memory.library", "lancedb", "filelock")  # its threads are started anew in children
    weight = 4
    survives_power = False

    def prepare(self, random: Random) -> None:
        """Videos that are added, replaced and forgotten, and a compaction."""
        changes = [f"add {random.randrange(4)} {version} {random.randrange(1, 9)}" for version in range(6)]
        changes += [f"remove {random.randrange(4)}", "optimize"]
        first, *rest = changes
        random.shuffle(rest)
        for number in range(4):
            (self.inputs / f"{number}.avi").touch()
        self.changes = [first, *rest]

    def work(self, folder: Path, acknowledge: Acknowledge, done: Sequence[str] = ()) -> Any:
        """Changes the library, from the first change on that was not acknowledged."""
        from marc.memory.library import MemoryLibrary

        library = MemoryLibrary(folder / "library")
        for number, change in enumerate(self.changes[len(done) :], len(done)):
            kind, *values = change.split()
            if kind == "add":
                library.add([self._video(*map(int, values))])
            elif kind == "remove":
                library.remove(self.inputs / f"{values[0]}.avi")
            else:
                library.optimize()
            acknowledge(str(number))
        return self._events(folder)

    def problems(self, folder: Path, acknowledged: Sequence[str]) -> list[str]:
        """All changes that were acknowledged are there; the next one wholly or not at all."""
        found = self._events(folder)
        count = len(acknowledged)
        if found in (self._expected(count), self._expected(count + 1)):
            return []
        return [f"after {self.changes[:count]} and part of the next the library holds {found}"]

    def _expected(self, count: int) -> list[tuple[str, int, float]]:
        videos: dict[str, Any] = {}
        for change in self.changes[:count]:
            kind, *values = change.split()
            if kind == "add":
                videos[values[0]] = self._video(*map(int, values))
            elif kind == "remove":
                videos.pop(values[0], None)
        return sorted(
            (each.source, position, event.end)
            for each in videos.values()
            for position, event in enumerate(each.events)
        )

    def _video(self, number: int, version: int, events: int) -> Any:
        source = str(self.inputs / f"{number}.avi")
        return some_memory(source, sha256_of(source, str(version)), version, events)

    def _events(self, folder: Path) -> list[tuple[str, int, float]]:
        from marc.memory.library import MemoryLibrary

        library = MemoryLibrary(folder / "library")
        try:
            asker: Any = Asker(vectors([0], 1)[0])
            found = library.recall(asker, "anything", k=1000)
        except ValueError:  # nothing there yet
            return []
        return sorted((each.source, each.position, each.event.end) for each in found)


STORES: tuple[type[Store], ...] = (
    Files,
    Memories,
    Evaluation,
    Batch,
    Teacher,
    Manifests,
    CheckedFiles,
    Training,
    Library,
)
