"""Reports: the right numbers in the right places, in text, Markdown, JSON and a picture."""

import json
import math
from dataclasses import replace

import pytest

from marc.evaluation.report import comparisons, markdown, side_by_side, write_report
from marc.evaluation.runner import RunOptions, open_run, run
from marc.evaluation.summary import headline, summarise
from marc.types import Answer

ANSWERS = {"right": "<answer>B</answer>", "wrong": "<answer>A</answer>", "lenient": "<answer>(b)</answer>"}


@pytest.fixture
def make_run(make_samples, scripted_engine, card, tmp_path):
    """A finished run whose answers are given by name, in order; ``fail`` fails."""

    def make(*names, **changes):
        samples = make_samples(len(names))
        replies = [ValueError("a | b") if name == "fail" else ANSWERS[name] for name in names]
        folder = tmp_path / "-".join(changes.values() or ["run"])
        open_run(folder, card(samples, **changes))
        engine = scripted_engine(dict(zip((sample.id for sample in samples), replies, strict=True)))
        run(samples, engine, folder, RunOptions("video-r1"))
        return folder

    return make


def rows_of(*scored):
    return [
        {"status": "ok", "strict": score, "problem_type": kind, "groups": {"task": task}, "path": str(i)}
        for i, (score, kind, task) in enumerate(scored)
    ]


def test_headlines():
    rows = rows_of((1, "multiple choice", "a"), (0, "multiple choice", "a"), (0.2, "regression", "b"), (1, "OCR", "b"))
    assert headline(rows, "mean", "strict").mean == pytest.approx(0.55)
    assert headline(rows, "accuracy+mra", "strict").mean == pytest.approx((2 / 3 + 0.2) / 2)
    assert headline(rows, "macro:task", "strict").mean == pytest.approx((0.5 + 0.6) / 2)
    only_choices = headline(rows[:2], "accuracy+mra", "strict")
    assert (only_choices.mean, only_choices.n) == (0.5, 2)


def test_a_part_of_which_all_failed_leaves_no_headline():
    rows = rows_of((1, "multiple choice", "a"), (0, "multiple choice", "a"), (0.2, "regression", "b"))
    rows[2]["status"] = "failed"
    for spec in ("accuracy+mra", "macro:task"):
        found = headline(rows, spec, "strict")
        assert math.isnan(found.mean) and found.n == 2
    assert headline(rows, "mean", "strict").mean == 0.5


def test_the_parts_of_a_task_are_means_of_their_own():
    """VSI-Bench's direction is the mean of easy, medium and hard, however many questions each has."""
    rows = rows_of(*[(1, "OCR", "direction")] * 8, *[(0, "OCR", "direction")] * 2, (0.5, "OCR", "size"))
    parts = ["easy"] * 7 + ["medium"] + ["hard"] * 2 + ["size"]
    for row, part in zip(rows, parts, strict=True):
        row["groups"]["part"] = part
    pooled, nested = headline(rows, "macro:task", "strict"), headline(rows, "macro:task/part", "strict")
    assert pooled.mean == pytest.approx((0.8 + 0.5) / 2)
    assert nested.mean == pytest.approx(((1 + 1 + 0) / 3 + 0.5) / 2)
    assert nested.low < nested.mean < nested.high and nested.n == 11


def test_failures_are_counted_and_not_scored(make_run):
    summary = summarise(make_run("right", "wrong", "lenient", "fail"))
    assert summary.headline.mean == pytest.approx(1 / 3) and summary.headline_lenient.mean == pytest.approx(2 / 3)
    everything, even, odd = summary.lines
    assert (everything.failed, everything.strict.n) == (1, 3)
    assert (even.value, even.strict.mean, even.failed) == ("even", 0.5, 0)
    assert (odd.value, odd.strict.mean, odd.failed) == ("odd", 0.0, 1)
    assert summary.costs.visual_tokens_after == 4 and summary.costs.peak_memory_bytes == 1 << 30


def test_written_reports(make_run):
    folder = make_run("right", "fail")
    write_report(folder)
    text = (folder / "report.md").read_text()
    assert "**100.00 [100.00, 100.00]** (mean; lenient reading 100.00; n = 1, 1 failed)" in text
    assert "| 1 | a \\| b |" in text
    assert json.loads((folder / "report.json").read_text())["lines"][2]["strict"]["mean"] is None
    assert (folder / "report.png").read_bytes().startswith(b"\x89PNG")


def test_a_report_names_what_has_no_answer(make_run):
    run = make_run("right", "fail", "right", "fail", headline="macro:task")
    text = markdown(summarise(run))
    assert "**no answer in odd** (macro:task; lenient reading none; n = 2, 2 failed)" in text
    assert side_by_side([summarise(run)]).rows[0][2:5] == ("no answer in odd", "", "")


def test_a_run_of_which_all_failed_has_no_costs(make_run):
    failed, fine = make_run("fail", "fail", benchmark="VSI"), make_run("right", "wrong", benchmark="MMVU")
    summary = summarise(failed)
    assert "**no answer** (mean;" in markdown(summary) and "frames" not in markdown(summary).split("```")[0]
    assert math.isnan(summary.costs.frames)
    write_report(failed)
    assert json.loads((failed / "report.json").read_text())["costs"]["frames"] is None
    (row,) = side_by_side([summary, summarise(fine)]).rows
    assert row[1:4] == ("64", "no answer", "50.00 [50.00, 50.00]")
    assert row[4:] == ("", "", "4.0", "6.0", "1.00", "0.500", "2", "2", "0")


def test_an_unfinished_run_says_so(make_samples, card, tmp_path):
    open_run(tmp_path, card(make_samples(3)))
    assert "Incomplete: 3 of 3 samples" in markdown(summarise(tmp_path))
    with pytest.raises(ValueError, match="is not a run"):
        summarise(tmp_path / "elsewhere")


def test_runs_side_by_side_with_published_lines(make_run):
    runs = [
        make_run("right", "wrong", benchmark="VSI", method="full"),
        make_run("right", "right", benchmark="MMVU", method="full"),
        make_run("wrong", "wrong", benchmark="VSI", method="tiny"),
    ]
    table = side_by_side([summarise(folder) for folder in runs])
    costs = ("visual tokens", "prompt tokens", "peak GiB", "s / question", "n", "failed", "missing")
    assert table.columns == ("model", "frames", "VSI", "MMVU", "mean", "mean, lenient", *costs)
    assert table.rows[0][5:] == ("75.00 (of 2)", "4.0", "6.0", "1.00", "0.500", "4", "0", "0")
    assert table.rows[0][0] == "scripted full (video-r1)" and table.rows[0][4] == "75.00 (of 2)"
    assert table.rows[1][2].startswith("0.00") and table.rows[1][3:5] == ("", "0.00 (of 1)")
    published = side_by_side([summarise(folder) for folder in runs], published=True)
    assert published.columns[2:8] == ("VSI", "VideoMMMU", "MMVU", "MVBench", "TempCompass", "VideoMME")
    assert published.rows[7][:3] == ("MARC-3B (C-GRPO + VMR) (published)", "1", "27.55")
    with pytest.raises(ValueError, match="give one"):
        side_by_side([summarise(runs[0]), summarise(runs[0])])


def test_the_mean_is_that_of_the_published_benchmarks(make_run):
    six = ("VSI", "VideoMMMU", "MMVU", "MVBench", "TempCompass", "VideoMME")
    runs = [summarise(make_run("right", "wrong", benchmark=name)) for name in six]
    runs.append(summarise(make_run("right", benchmark="Micro-world")))
    (row,) = side_by_side(runs).rows
    assert row[8:11] == ("100.00 [100.00, 100.00]", "50.00", "50.00")


def test_an_unfinished_run_is_marked_and_leaves_no_mean(make_samples, scripted_engine, card, make_run, tmp_path):
    samples = make_samples(10)
    open_run(tmp_path / "killed", card(samples, benchmark="MMVU"))
    engine = scripted_engine({sample.id: ANSWERS["right"] for sample in samples})
    run(samples[:2], engine, tmp_path / "killed", RunOptions("video-r1"))
    (row,) = side_by_side([summarise(make_run("right", benchmark="VSI")), summarise(tmp_path / "killed")]).rows
    assert row[2:6] == ("100.00 [100.00, 100.00]", "100.00 [100.00, 100.00] (8 of 10 missing)", "", "")
    assert row[-3:] == ("3", "0", "8")


def test_runs_of_other_settings_are_other_lines_and_named(make_samples, scripted_engine, card, tmp_path):
    asked = {
        "a": {"benchmark": "VSI", "checkpoint": "aaa", "frames": {"max_frames": 64, "fps": 2}},
        "b": {"benchmark": "MMVU", "checkpoint": "bbb", "frames": {"max_frames": 16, "fps": 2}},
        "c": {"benchmark": "VSI", "checkpoint": "bbb", "frames": {"max_frames": 16, "fps": 2}},
        "d": {"benchmark": "VSI", "checkpoint": "aaa", "frames": {"max_frames": 2, "fps": 2}, "method": "frames2"},
        "e": {"benchmark": "VSI", "checkpoint": "ccc", "frames": {"max_frames": 64, "fps": 2}, "model": "another"},
    }
    samples = make_samples(2)
    for name, changes in asked.items():
        open_run(tmp_path / name, card(samples, **changes))
        run(
            samples,
            scripted_engine(dict.fromkeys((s.id for s in samples), "B")),
            tmp_path / name,
            RunOptions("official"),
        )
    first, second, *others = side_by_side([summarise(tmp_path / name) for name in asked]).rows
    assert first[0] == "scripted full (video-r1), checkpoint aaa, frames.max_frames 64" and first[3] == ""
    assert second[0] == "scripted full (video-r1), checkpoint bbb, frames.max_frames 16" and second[2] and second[3]
    assert [row[0] for row in others] == ["scripted frames2 (video-r1)", "another full (video-r1)"]
    assert [row[1:3] for row in comparisons([tmp_path / name for name in "acd"]).rows] == [
        ("full, checkpoint bbb, frames.max_frames 16", "full, checkpoint aaa, frames.max_frames 64"),
        ("frames2", "full"),
    ]
    assert comparisons([tmp_path / "a", tmp_path / "e"]).rows[0][1:3] == ("another full", "scripted full")


def test_each_benchmark_of_the_official_protocol_has_its_own_length(make_samples, card, tmp_path):
    for name, length in {"VSI": 16, "MMVU": 1024}.items():
        generation = {"max_new_tokens": length}
        open_run(tmp_path / name, card(make_samples(1), benchmark=name, protocol="official", generation=generation))
    (row,) = side_by_side([summarise(tmp_path / name) for name in ("VSI", "MMVU")]).rows
    assert row[:4] == ("scripted full (official)", "", "no answer (1 of 1 missing)", "no answer (1 of 1 missing)")


def test_paired_comparison_is_of_headlines(make_run):
    """Two of three tasks' questions say little of a macro average."""
    before = make_run("right", "right", "wrong", "right", "wrong", method="full", headline="macro:task")
    after = make_run("right", "wrong", "right", "wrong", "right", method="tiny", headline="macro:task")
    (row,) = comparisons([before, after]).rows
    change = summarise(after).headline.mean - summarise(before).headline.mean
    assert row[3].startswith(f"{100 * change:+.2f} [") and row[4:6] == ("2", "2")
    failed = make_run("right", "fail", "right", "fail", "right", method="failed", headline="macro:task")
    (row,) = comparisons([before, failed]).rows
    assert (row[3], row[6], row[7:]) == ("a part without common answers", "", ("3", "2"))


def test_paired_comparison_uses_common_samples_only(make_run):
    first = make_run("right", "wrong", "wrong", "fail", method="full")
    second = make_run("right", "right", "fail", "right", method="tiny")
    (row,) = comparisons([first, second]).rows
    assert row[:3] == ("T", "tiny", "full")
    assert row[3].startswith("+50.00") and row[4:] == ("1", "0", "1", "2", "2")
    assert comparisons([first]).rows == []


def test_runs_of_other_data_are_all_named_with_what_to_do(make_run, make_samples, scripted_engine, card, tmp_path):
    runs = [make_run("right", "right", method=name) for name in ("full", "tiny")]
    for name in ("frames2", "uniform"):
        samples = make_samples(2, solution="<answer>C</answer>")
        open_run(tmp_path / name, card(samples, method=name))
        answers = {sample.id: ANSWERS["right"] for sample in samples}
        run(samples, scripted_engine(answers), tmp_path / name, RunOptions("video-r1"))
        runs.append(tmp_path / name)
    with pytest.raises(ValueError, match="of different data: the gold answer of t/000000 differs") as refused:
        comparisons(runs)
    assert f"Leave out {tmp_path / 'frames2'}, {tmp_path / 'uniform'}: give `marc report`" in str(refused.value)
    assert len(comparisons(runs[:2]).rows) == len(comparisons(runs[2:]).rows) == 1


def test_runs_without_a_common_sample_compare_to_nothing(make_run):
    first, second = make_run("right", "fail", method="full"), make_run("fail", "right", method="tiny")
    (row,) = comparisons([first, second]).rows
    assert row[3] == "" and row[7:] == ("0", "2")


def test_what_was_thought_about_is_told_where_bare_answers_were_asked_first(
    make_samples, scripted_engine, card, tmp_path
):
    samples = make_samples(5)
    once = Answer("", ANSWERS["right"], generated_tokens=9, is_cut=True)
    bare = replace(once, generated_tokens=4, is_cut=False, probability=0.9, has_thought=False)
    thought = replace(once, generated_tokens=22, probability=0.1, has_thought=True)
    for name, replies in {"once": [once] * 5, "first": [bare, thought, bare, bare, bare]}.items():
        open_run(tmp_path / name, card(samples))
        engine = scripted_engine({sample.id: reply for sample, reply in zip(samples, replies, strict=True)})
        run(samples, engine, tmp_path / name, RunOptions("video-r1"))
    costs = summarise(tmp_path / "first").costs
    assert (costs.thought, costs.generated_tokens) == pytest.approx((0.2, 7.6))
    text = markdown(summarise(tmp_path / "first"))
    assert "| generated tokens (mean) | 7.6 |" in text and "| thought about (share) | 20.00 % |" in text
    text = markdown(summarise(tmp_path / "once"))
    assert "| generated tokens (mean) | 9.0 |" in text and "thought about" not in text
    assert "| outputs cut at the limit (samples) | 5 |" in text
    rows = [json.loads(line) for line in (tmp_path / "first" / "rows.rank0.jsonl").read_text().splitlines()]
    assert [(row["probability"], row["has_thought"]) for row in rows[:2]] == [(0.9, False), (0.1, True)]


def test_rows_from_before_tokens_were_counted_are_read(make_run):
    folder = make_run("right")
    file = folder / "rows.rank0.jsonl"
    row = json.loads(file.read_text())
    for name in ("probability", "has_thought", "generated_tokens", "is_cut"):
        del row[name]
    file.write_text(json.dumps(row) + "\n")
    text = markdown(summarise(folder))
    assert "generated tokens" not in text and "outputs cut" not in text
    file.write_text(json.dumps({**row, "has_thought": "no"}) + "\n")
    with pytest.raises(ValueError, match="has_thought"):
        summarise(folder)
