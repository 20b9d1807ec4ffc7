"""The runner: kill and resume, failures apart, shards, two processes."""

import gc
import hashlib
import json
import os
import resource
import runpy
import subprocess
import sys
import weakref
from dataclasses import replace

import pytest

from marc.evaluation.runner import (
    RunOptions,
    Shard,
    TooManyFailuresError,
    missing_ids,
    open_run,
    read_card,
    read_run_rows,
    run,
)
from marc.evaluation.summary import summarise
from marc.types import Answer
from marc.video import VideoError

RIGHT, WRONG, LENIENT = "<answer>B</answer>", "<answer>A</answer>", "<answer>(b)</answer>"


def start(samples, engine, folder, card, **options):
    open_run(folder, card(samples))
    run(samples, engine, folder, RunOptions("video-r1", **options))
    return read_run_rows(folder)


def test_a_row_says_everything(make_samples, scripted_engine, card, tmp_path):
    (row,) = start(make_samples(1), scripted_engine({"t/000000": LENIENT}), tmp_path, card)
    assert row["status"] == "ok" and row["output"] == LENIENT and row["prediction"] == "(b)"
    assert row["strict"] == 0.0 and row["lenient"] == 1.0
    assert row["prompt_hash"] == hashlib.sha256(b"Q?").hexdigest()[:16]
    assert (row["visual_tokens_before"], row["visual_tokens_after"], row["seconds"]) == (128, 4, {"total": 0.5})
    assert row["groups"] == {"task": "even"} and row["events"] == []


def test_a_failing_sample_fails_alone_and_is_never_scored(make_samples, scripted_engine, card, tmp_path):
    samples = make_samples(6)
    answers = {sample.id: RIGHT for sample in samples} | {"t/000002": ValueError("a.mp4: truncated")}
    engine = scripted_engine(answers)
    rows = start(samples, engine, tmp_path, card, batch_size=4)
    assert [row["status"] for row in rows] == ["ok", "ok", "failed", "ok", "ok", "ok"]
    assert rows[2]["reason"] == "a.mp4: truncated" and "strict" not in rows[2]
    assert engine.batches[0] == ["t/000000", "t/000001", "t/000002", "t/000003"]
    assert engine.batches[1:5] == [["t/000000"], ["t/000001"], ["t/000002"], ["t/000003"]]
    summary = summarise(tmp_path)
    assert summary.headline.mean == 1.0 and summary.headline.n == 5
    assert summary.failures == (("a.mp4: truncated", 1),) and summary.missing == 0


def test_a_bug_is_not_a_failed_sample(make_samples, scripted_engine, card, tmp_path):
    with pytest.raises(KeyError):
        start(make_samples(2), scripted_engine({}), tmp_path, card)


def test_many_failures_in_a_row_stop_the_run(make_samples, scripted_engine, card, tmp_path):
    samples = make_samples(90)
    engine = scripted_engine({sample.id: RuntimeError("CUDA error") for sample in samples})
    with pytest.raises(TooManyFailuresError, match=r"about 20 videos in a row failed.*CUDA error"):
        start(samples, engine, tmp_path, card)


@pytest.mark.parametrize(("batch_size", "asked"), [(9, [9, 1, 3]), (1, [1, 1, 1, 1])])
def test_a_bad_video_with_many_questions_is_tried_once_and_stops_nothing(
    make_samples, scripted_engine, card, tmp_path, batch_size, asked
):
    samples = [replace(sample, path="bad.mp4") for sample in make_samples(30)[:27]] + make_samples(30)[27:]
    answers = {sample.id: VideoError("bad.mp4: damaged") for sample in samples[:27]}
    engine = scripted_engine(answers | {sample.id: RIGHT for sample in samples[27:]})
    rows = start(samples, engine, tmp_path, card, batch_size=batch_size)
    assert [row["status"] for row in rows] == ["failed"] * 27 + ["ok"] * 3
    assert {row["reason"] for row in rows[:27]} == {"bad.mp4: damaged"}
    assert [len(batch) for batch in engine.batches] == asked


def test_a_failure_holds_on_to_nothing_that_was_being_computed(make_samples, card, tmp_path):
    class Activations:
        pass

    held = []

    class Engine:
        def answer(self, samples, generation):
            gc.collect()
            assert not any(reference() for reference in held)
            if len(samples) == 1:
                return [Answer("", RIGHT)]
            activations = Activations()
            held.append(weakref.ref(activations))
            raise RuntimeError("out of memory")

    rows = start(make_samples(2), Engine(), tmp_path, card, batch_size=2)
    assert [row["status"] for row in rows] == ["ok", "ok"]
    assert len(held) == 1


def test_failed_samples_are_asked_again_on_request(make_samples, scripted_engine, card, tmp_path):
    samples = make_samples(3)
    start(
        samples, scripted_engine({"t/000000": RIGHT, "t/000001": OSError("disk"), "t/000002": WRONG}), tmp_path, card
    )
    again = scripted_engine({sample.id: RIGHT for sample in samples})
    assert [row["status"] for row in start(samples, again, tmp_path, card)] == ["ok", "failed", "ok"]
    assert again.batches == []
    rows = start(samples, again, tmp_path, card, retry_failed=True)
    assert again.batches == [["t/000001"]]
    assert [row["status"] for row in rows] == ["ok", "ok", "ok"] and rows[2]["strict"] == 0.0


@pytest.mark.parametrize("torn", [b'{"id": "t/0000', b'{"id": "t/000001", "status": "ok"', b"\xe2\x80"])
def test_a_torn_line_is_dropped_on_resume(make_samples, scripted_engine, card, tmp_path, torn):
    samples = make_samples(3)
    engine = scripted_engine({sample.id: "<answer>B\u2028\ud800</answer>" for sample in samples})
    start(samples[:1], engine, tmp_path, lambda _: card(samples))
    with (tmp_path / "rows.rank0.jsonl").open("ab") as file:
        file.write(torn)
    assert missing_ids(samples, read_run_rows(tmp_path)) == ["t/000001", "t/000002"]
    assert len(start(samples, engine, tmp_path, card)) == 3


@pytest.mark.parametrize("batch_size", [1, 2, 4, 7, 50])
def test_batches_are_the_same_for_any_number_of_processes(make_samples, batch_size):
    samples = make_samples(20)
    alone = Shard().batches(samples, batch_size)
    assert sorted(sample.id for batch in alone for sample in batch) == [sample.id for sample in samples]
    assert all(len(batch) <= batch_size for batch in alone)
    for world_size in (2, 3, 16):
        shards = [Shard(rank, world_size).batches(samples, batch_size) for rank in range(world_size)]
        together = [batch for shard in shards for batch in shard]
        assert sorted(together, key=lambda batch: batch[0].id) == sorted(alone, key=lambda batch: batch[0].id)
        videos = [{sample.path for batch in shard for sample in batch} for shard in shards]
        assert sum(map(len, videos)) == len(set.union(*videos))


def test_rows_of_another_world_size_count(make_samples, scripted_engine, card, tmp_path):
    samples = make_samples(9)
    engine = scripted_engine({sample.id: RIGHT for sample in samples})
    start(samples[:4], engine, tmp_path, lambda _: card(samples))
    for rank in range(3):
        run(samples, engine, tmp_path, RunOptions("video-r1", shard=Shard(rank, 3)))
    assert sorted(name for batch in engine.batches for name in batch) == [sample.id for sample in samples]
    assert summarise(tmp_path).headline.n == 9


def test_another_run_in_the_folder_is_refused(make_samples, card, tmp_path):
    samples = make_samples(2)
    open_run(tmp_path, card(samples))
    open_run(tmp_path, card(samples))
    with pytest.raises(ValueError, match="method was 'full', now 'tiny'"):
        open_run(tmp_path, card(samples, method="tiny"))


def test_another_environment_is_noted_and_not_refused(make_samples, card, tmp_path, caplog):
    about = card(make_samples(2))
    for commit in ("a", "a", "b", "b", "a"):
        open_run(tmp_path, {**about, "environment": {"commit": commit}, "command": f"marc eval {commit}"})
    known = read_card(tmp_path)
    assert known["environment"] == {"commit": "a"} and known["run"] == about["run"]
    assert [each["command"] for each in known["resumed"]] == ["marc eval b", "marc eval a"]
    assert caplog.text.count("goes on in another environment") == 2
    open_run(tmp_path, {**about, "environment": {"commit": "c"}}, main=False)
    assert read_card(tmp_path) == known, "one process writes it"


SCRIPT = """
import json, os, signal, sys
from dataclasses import asdict
from pathlib import Path
from marc.types import Answer
from marc.evaluation.runner import RunOptions, Shard, open_run, processes, run
from marc.types import Answer
from marc.evaluation.summary import summarise
from marc.evaluation.samples import Sample

class Engine:
    calls = 0
    def answer(self, samples, generation):
        Engine.calls += 1
        if Engine.calls > int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
        if any(s.id.endswith("7") for s in samples):
            raise ValueError("broken clip")
        return [Answer("", "<answer>" + "AB"[len(s.id) + int(s.id[-2:]) & 1] + "</answer>") for s in samples]

samples = [
    Sample(f"t/{i:06d}", f"v{i // 3}", "Q", "Q", "multiple choice", "B", groups={"task": str(i % 3)})
    for i in range(40)
]
folder, shard = Path(sys.argv[1]), Shard.from_environment()
with processes() as wait:
    run_card = {"benchmark": "T", "protocol": "video-r1", "method": "m", "model": "s", "headline": "mean"}
    run_card["samples"] = len(samples)
    open_run(folder, {"run": run_card}, main=shard.rank == 0)
    run(samples, Engine(), folder, RunOptions("video-r1", batch_size=3))
    wait()
if shard.rank == 0:
    (folder / "report.json").write_text(json.dumps(asdict(summarise(folder))))
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    path = tmp_path_factory.mktemp("script") / "evaluate.py"
    path.write_text(SCRIPT)
    return path


def execute(*command):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *map(str, command)], capture_output=True, text=True, env=environment, timeout=200
    )


def execute_here(monkeypatch, script, *arguments):
    monkeypatch.setattr(sys, "argv", [str(script), *map(str, arguments)])
    runpy.run_path(str(script), run_name="__main__")


def report_of(folder):
    report = json.loads((folder / "report.json").read_text())
    return {**report, "folder": ""}


def test_killed_and_resumed_equals_uninterrupted_and_two_processes_equal_one(script, tmp_path, monkeypatch):
    whole, torn, two = tmp_path / "whole", tmp_path / "torn", tmp_path / "two"
    execute_here(monkeypatch, script, whole, 1000)
    killed = execute(script, torn, 4)
    assert killed.returncode == -9 and not (torn / "report.json").exists()
    assert 0 < len(read_run_rows(torn)) < 40
    execute_here(monkeypatch, script, torn, 1000)
    distributed = execute("-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone", script, two, 1000)
    assert distributed.returncode == 0, distributed.stderr
    assert {path.name for path in two.glob("rows*")} == {"rows.rank0.jsonl", "rows.rank1.jsonl"}
    expected = report_of(whole)
    assert expected["headline"]["n"] == 36 and expected["failures"] == [["broken clip", 4]]
    assert report_of(torn) == expected
    assert report_of(two) == expected
    assert len((torn / "rows.rank0.jsonl").read_text().splitlines()) == 40


@pytest.mark.parametrize(
    ("line", "field"),
    [
        ("5", "a row is an object"),
        ("[" * 100_000, "nested too deeply"),
        ('{"id": 3, "status": "ok"}', "id"),
        ('{"id": "a", "status": "maybe"}', "status"),
        ('{"id": "a", "status": "failed", "path": "", "problem_type": "", "solution": "", "groups": {}}', "reason"),
        ('{"id": "a", "status": "ok", "strict": NaN}', "strict"),
        ("\xff", "not valid JSON"),
    ],
)
def test_a_line_that_is_no_row_is_named(make_samples, scripted_engine, card, tmp_path, line, field):
    samples = make_samples(1)
    start(samples, scripted_engine({"t/000000": RIGHT}), tmp_path, card)
    with (tmp_path / "rows.rank0.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(ValueError, match=rf"rows\.rank0\.jsonl, line 2: .*{field}"):
        summarise(tmp_path)


@pytest.mark.parametrize("content", ["", "5", "{}", '{"run": []}', '{"run": {"samples": "many"}}', "[" * 100_000])
def test_a_card_that_is_none_is_named(make_samples, scripted_engine, card, tmp_path, content):
    samples = make_samples(1)
    start(samples, scripted_engine({"t/000000": RIGHT}), tmp_path, card)
    (tmp_path / "run.json").write_text(content)
    for use in (lambda: summarise(tmp_path), lambda: open_run(tmp_path, card(samples))):
        with pytest.raises(ValueError, match=r"run\.json: "):
            use()


def test_a_full_disk_names_the_file(make_samples, scripted_engine, card, tmp_path):
    """The kernel refuses the write in the middle, as on a full disk."""
    samples, soft = make_samples(20), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, soft[1]))
    try:
        with pytest.raises(OSError, match=r"rows\.rank0\.jsonl"):
            start(samples, scripted_engine({sample.id: RIGHT for sample in samples}), tmp_path, card)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, soft)
    again = scripted_engine({sample.id: RIGHT for sample in samples})
    assert len(start(samples, again, tmp_path, card)) == 20
