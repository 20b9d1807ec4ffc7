import dataclasses
from contextlib import nullcontext
from zlib import crc32

import pytest
import torch
from tiny_training import FAMILIES

from marc.inference.hf import HFBackend
from marc.model import CompressionConfig, MarcForConditionalGeneration
from marc.model.family import vision_token_ids
from marc.model.loading import load_model
from marc.model.tiny import EMBEDDED_FAMILY, build_tiny
from marc.training import teacher
from marc.training.dataset import to_example
from marc.training.inputs import visual_sources
from marc.training.reader import VisualReader
from marc.training.teacher import (
    TeacherCache,
    TeacherGrader,
    TeacherOptions,
    answers,
    model_fingerprint,
    one_ahead,
    result_key,
    served_fingerprint,
    teacher_accuracies,
)
from marc.video.sources import VideoFiles

OPTIONS = TeacherOptions(samples=3, max_new_tokens=4)


def full_frames(family: str = EMBEDDED_FAMILY):
    engine = HFBackend(*build_tiny(family=family, compression=CompressionConfig(target_frames=None)))
    return engine, VisualReader(engine.processor, VideoFiles(max_frames=8))


def answered(prompts, engine, reader, options=OPTIONS):
    """Answers to prompts whose files are read for them."""
    files = {source: reader.read(source) for prompt in prompts for source in visual_sources(prompt)}
    pixels = {source: file.pixels for source, file in files.items()}
    texts = answers(prompts, files, engine, options)
    assert all(file.pixels is pixels[source] and not file.inputs for source, file in files.items())
    return texts


@pytest.fixture(scope="module")
def full():
    return full_frames()


def grader_of(full, cache, options=OPTIONS):
    return TeacherGrader(lambda: nullcontext(full[0]), full[1], options, cache, "m")


@pytest.mark.parametrize("end", ['{"key": "b", "a_full": 1.0, "problem_id": "}', '{"key": "b"', "\0\0\n"])
def test_a_line_that_was_cut_off_is_no_result_and_spoils_no_other(tmp_path, end):
    TeacherCache(tmp_path).add("a", 0.5, "}")
    with (tmp_path / "teacher-0.jsonl").open("a") as file:
        file.write(end)
    assert TeacherCache(tmp_path, shard=1).results == {"a": 0.5}
    TeacherCache(tmp_path).add("c", 0.0, "1")
    assert TeacherCache(tmp_path).results == {"a": 0.5, "c": 0.0}


def test_only_new_results_are_computed(full, files, rows, mixed_rows, tmp_path, monkeypatch):
    asked = []

    def scripted(prompts, *rest):
        asked.extend(prompt[0]["content"][0]["video"] for prompt in prompts)
        return [["<answer>seven</answer>", "<answer>seven</answer>", "nothing"]] * len(prompts)

    monkeypatch.setattr(teacher, "answers", scripted)
    dataset = [dataclasses.replace(row, problem_type="OCR") for row in (*rows, mixed_rows[1])]

    def run(options=OPTIONS, shard=(0, 1)):
        grader = grader_of(full, TeacherCache(tmp_path, shard[0]), options)
        return list(teacher_accuracies(dataset, files, grader, shard=shard))

    result = [*run(shard=(0, 2)), *run(shard=(1, 2))]
    assert [row.a_full for row in result] == [pytest.approx(2 / 3), None, pytest.approx(2 / 3)]
    assert sorted(asked) == [str(files / "0.mp4"), str(files / "1.mp4")]
    with (tmp_path / "teacher-0.jsonl").open("a") as file:
        file.write('{"key": "half a li')
    run()
    assert len(asked) == 2
    run(dataclasses.replace(OPTIONS, seed=1))
    assert len(asked) == 4


def test_the_key_knows_everything_that_a_result_follows_from(full, files, rows):
    reader = full[1]
    example = to_example(rows[0], files)
    keys = [
        result_key(example, "m", reader, OPTIONS),
        result_key(example, "other", reader, OPTIONS),
        result_key(example, "m", dataclasses.replace(reader, frames=VideoFiles(max_frames=4)), OPTIONS),
        result_key(example, "m", reader, dataclasses.replace(OPTIONS, temperature=0.5)),
        result_key(to_example(dataclasses.replace(rows[0], problem="Why?"), files), "m", reader, OPTIONS),
        result_key(to_example(dataclasses.replace(rows[0], solution="six"), files), "m", reader, OPTIONS),
        result_key(to_example(dataclasses.replace(rows[0], path="2.mp4"), files), "m", reader, OPTIONS),
        result_key(to_example(rows[0], files, style="plain"), "m", reader, OPTIONS),
    ]
    assert len(set(keys)) == len(keys)
    other_cuts = to_example(dataclasses.replace(rows[0], cuts=(2.0,)), files)
    assert result_key(other_cuts, "m", reader, OPTIONS) == keys[0], "a teacher that reads every token has no events"


def test_a_model_without_a_name_is_known_by_its_weights(full):
    first, second = build_tiny(seed=1)[0], build_tiny(seed=2)[0]
    assert model_fingerprint(first) == model_fingerprint(build_tiny(seed=1)[0]) != model_fingerprint(second)


def test_the_numbers_that_a_model_computes_in_are_part_of_its_fingerprint(tmp_path):
    build_tiny()[0].save_pretrained(tmp_path)
    load = MarcForConditionalGeneration.from_pretrained
    single, half = load(tmp_path), load(tmp_path, dtype=torch.bfloat16)
    before = model_fingerprint(single)
    assert before == model_fingerprint(load(tmp_path)) != model_fingerprint(half)
    single.config.quantization_config = {"load_in_4bit": True}
    assert model_fingerprint(single) != before


def test_another_engines_results_are_others(tmp_path):
    model, processor = build_tiny()
    model.save_pretrained(tmp_path)
    loaded = MarcForConditionalGeneration.from_pretrained(tmp_path)
    engine = HFBackend(loaded, processor)
    prints = {served_fingerprint(engine, "vllm"), served_fingerprint(engine, "other"), model_fingerprint(loaded)}
    assert len(prints) == 3 and served_fingerprint(engine, "vllm") in prints
    (tmp_path / "model.safetensors").touch()
    assert served_fingerprint(engine, "vllm") not in prints


def test_the_checkpoints_own_generation_options_do_not_reach_the_teacher(files, rows):
    engine, reader = full_frames()
    prompt = to_example(rows[0], files)["prompt"]
    plain = answered([prompt], engine, reader)
    engine.model.generation_config.repetition_penalty = 1e-3
    engine.model.generation_config.top_k = 1
    assert answered([prompt], engine, reader) == plain


def test_the_teacher_says_no_vision_tokens(files, rows):
    engine, reader = full_frames()
    prompt = to_example(rows[0], files)["prompt"]
    plain = answered([prompt], engine, reader)
    bias = torch.zeros(len(engine.processor.tokenizer))
    bias[vision_token_ids(engine.processor.tokenizer)] = 1e4
    engine.model.lm_head.register_forward_hook(lambda module, args, logits: logits + bias)
    assert answered([prompt], engine, reader) == plain


def test_the_teacher_answers_with_all_tokens_and_leaves_the_random_state_alone(full, files, rows):
    prompt = to_example(rows[0], files)["prompt"]
    state = torch.get_rng_state()
    (first,) = answered([prompt], *full)
    assert len(first) == 3
    assert torch.equal(torch.get_rng_state(), state)
    assert answered([prompt], *full) == [first]


@pytest.mark.parametrize("family", FAMILIES)
def test_what_a_prompt_is_answered_does_not_depend_on_those_beside_it(family, files, rows, mixed_rows):
    """So that a result is the same in every shard, and whatever else was known already."""
    full = full_frames(family)
    prompts = [to_example(row, files)["prompt"] for row in (*rows, mixed_rows[1], mixed_rows[2])]
    alone = [answered([prompt], *full)[0] for prompt in prompts]
    assert answered(prompts, *full) == alone
    assert answered(prompts[::-1], *full) == alone[::-1]


@pytest.mark.parametrize("together", [1, 2, 3, 16])
def test_results_are_the_same_however_many_rows_are_asked_together(full, files, rows, tmp_path, together, monkeypatch):
    """To the byte, and in the order of the rows; a killed run goes on where it was."""
    monkeypatch.setattr(teacher, "accuracy_reward", lambda texts, *_: [crc32(text.encode()) / 2**32 for text in texts])
    engine = HFBackend(*load_model(device="cpu", target_frames=None))
    full = engine, VisualReader(engine.processor, VideoFiles(max_frames=8))
    options = TeacherOptions(samples=3, max_new_tokens=12, temperature=3.0)  # where outputs part early
    questions = [dataclasses.replace(row, problem=f"{row.problem} {n}") for n in range(2) for row in rows]
    dataset = [dataclasses.replace(row, problem_id=str(n)) for n, row in enumerate([*questions, questions[0]])]

    def run(folder, together, dataset=dataset):
        grader = grader_of(full, TeacherCache(tmp_path / folder), options)
        results = list(teacher_accuracies(dataset, files, grader, together=together))
        return results, (tmp_path / folder / "teacher-0.jsonl").read_bytes()

    expected = run("alone", 1)
    assert len(expected[1].splitlines()) == len({row.a_full for row in expected[0]}) == 4, "equal rows are asked once"
    assert run("together", together) == expected
    run("killed", together, dataset[:3])
    assert run("killed", together) == expected


def test_a_bad_video_stops_the_run_behind_the_batches_before_it(full, files, rows, tmp_path):
    bad = dataclasses.replace(rows[0], path="broken.mp4")
    grader = grader_of(full, TeacherCache(tmp_path))
    results = teacher_accuracies([*rows, bad], files, grader, together=1)
    assert [next(results).problem_id, next(results).problem_id] == ["0", "1"]
    with pytest.raises(ValueError, match=r"broken\.mp4"):
        next(results)
    with pytest.raises(ValueError, match="at least 1 row"):
        next(teacher_accuracies(rows, files, grader, together=0))


def test_one_thing_is_made_ahead():
    made = []

    def make(item):
        made.append(item)
        return item

    things = one_ahead(make, range(5))
    assert next(things) == 0
    assert next(things) == 1
    things.close()
    assert made == [0, 1, 2]
    assert list(one_ahead(make, ())) == []


def test_a_compressed_teacher_is_refused(files, rows):
    engine = HFBackend(*build_tiny())
    with pytest.raises(ValueError, match="target_frames=None"):
        answered([to_example(rows[0], files)["prompt"]], engine, VisualReader(engine.processor))
