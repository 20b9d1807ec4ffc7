import dataclasses
from contextlib import nullcontext

import pytest
import torch
from tiny_training import FAMILIES

from marc.model import CompressionConfig, MarcForConditionalGeneration
from marc.model.family import vision_token_ids
from marc.model.tiny import EMBEDDED_FAMILY, build_tiny
from marc.training import teacher
from marc.training.dataset import to_example
from marc.training.reader import VisualReader
from marc.training.teacher import (
    TeacherCache,
    TeacherGrader,
    TeacherOptions,
    answers,
    model_fingerprint,
    result_key,
    teacher_accuracies,
)
from marc.video.sources import VideoFiles

OPTIONS = TeacherOptions(samples=3, max_new_tokens=4)


def full_frames(family: str = EMBEDDED_FAMILY):
    model, processor = build_tiny(family=family, compression=CompressionConfig(target_frames=None))
    return model, VisualReader(processor, VideoFiles(max_frames=8))


@pytest.fixture(scope="module")
def full():
    return full_frames()


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
        cache = TeacherCache(tmp_path, shard[0])
        grader = TeacherGrader(lambda: nullcontext(full[0]), full[1], options, cache, "m")
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


def test_the_checkpoints_own_generation_options_do_not_reach_the_teacher(files, rows):
    model, processor = build_tiny(compression=CompressionConfig(target_frames=None))
    reader = VisualReader(processor, VideoFiles(max_frames=8))
    prompt = to_example(rows[0], files)["prompt"]
    (plain,) = answers([prompt], model, reader, OPTIONS)
    model.generation_config.repetition_penalty = 1e-3
    model.generation_config.top_k = 1
    assert answers([prompt], model, reader, OPTIONS) == [plain]


def test_the_teacher_says_no_vision_tokens(files, rows):
    model, processor = build_tiny(compression=CompressionConfig(target_frames=None))
    reader = VisualReader(processor, VideoFiles(max_frames=8))
    prompt = to_example(rows[0], files)["prompt"]
    (plain,) = answers([prompt], model, reader, OPTIONS)
    bias = torch.zeros(len(processor.tokenizer))
    bias[vision_token_ids(processor.tokenizer)] = 1e4
    model.lm_head.register_forward_hook(lambda module, args, logits: logits + bias)
    assert answers([prompt], model, reader, OPTIONS) == [plain]


def test_the_teacher_answers_with_all_tokens_and_leaves_the_random_state_alone(full, files, rows):
    prompt = to_example(rows[0], files)["prompt"]
    state = torch.get_rng_state()
    (first,) = answers([prompt], *full, OPTIONS)
    assert len(first) == 3
    assert torch.equal(torch.get_rng_state(), state)
    assert answers([prompt], *full, OPTIONS) == [first]


@pytest.mark.parametrize("family", FAMILIES)
def test_what_a_prompt_is_answered_does_not_depend_on_those_beside_it(family, files, rows, mixed_rows):
    """So that a result is the same in every shard, and whatever else was known already."""
    full = full_frames(family)
    prompts = [to_example(row, files)["prompt"] for row in (*rows, mixed_rows[1], mixed_rows[2])]
    alone = [answers([prompt], *full, OPTIONS)[0] for prompt in prompts]
    assert answers(prompts, *full, OPTIONS) == alone
    assert answers(prompts[::-1], *full, OPTIONS) == alone[::-1]


def test_a_compressed_teacher_is_refused(files, rows):
    model, processor = build_tiny()
    with pytest.raises(ValueError, match="target_frames=None"):
        answers([to_example(rows[0], files)["prompt"]], model, VisualReader(processor), OPTIONS)
