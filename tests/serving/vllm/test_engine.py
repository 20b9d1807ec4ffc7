"""vLLM with our plugin gives the tokens and log-probabilities of transformers' engine; caches share what is equal."""

import json
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from vllm_answers import assert_as_expected, plan_of

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]


def test_tokens_and_log_probabilities_are_those_of_transformers(backend, world):
    assert len({case["shown"][0] for case in world.cases}) > 8
    assert_as_expected(backend.engine, world)


def test_equal_frames_under_two_plans_share_no_entry_of_a_cache(backend, world):
    from vllm.multimodal.processing.inputs import ProcessorInputs

    from marc.inference.vllm_backend import item_identity

    pixels: dict[bytes, list[str]] = {}
    for number, item in world.items.items():
        pixels.setdefault(item["pixel_values_videos"].numpy().tobytes(), []).append(number)
    processor = backend.engine.renderer.mm_processor
    shared = [numbers for numbers in pixels.values() if len(numbers) > 1]
    assert len(shared) == 4
    for numbers in shared:
        items = [world.items[number] for number in numbers]
        inputs = processor.info.parse_mm_data({"video": items})
        keys = processor._get_mm_hashes(ProcessorInputs([], inputs))["video"]
        own = [item_identity(item) for item in items]
        plans = [plan_of(item) for item in items]
        assert len(set(plans)) == len(set(keys)) == len(set(own)) == len(set(zip(plans, keys, own, strict=True))) >= 8


def test_what_was_read_is_not_read_again(backend, world):
    from vllm import SamplingParams

    whole = [case for case in world.cases if b'"target_frames": null' in plan_of(world.items[str(case["shown"][0])])]
    pairs = [
        pair for pair in pairwise(whole) if pair[0]["shown"] == pair[1]["shown"] and pair[0]["ids"] != pair[1]["ids"]
    ]
    first, second = pairs[0]  # two questions about a video of which every token is read
    backend.engine.reset_prefix_cache()

    def cached(case: dict[str, Any]) -> int:
        sampling = SamplingParams(temperature=0, max_tokens=2)
        return backend.engine.generate([world.request(case)], sampling, use_tqdm=False)[0].num_cached_tokens

    tokens = world.items[str(first["shown"][0])]["video_grid_thw"].prod() // 4
    assert tokens >= 32
    assert cached(first) == 0
    assert cached(second) >= tokens // 32 * 32


def test_answers_are_those_of_the_other_engine(backend, world):
    from marc import VideoAssistant
    from marc.compression.config import override_compression
    from marc.types import GenerationOptions

    own, sample = backend.compression, world.folder / "sample.mp4"
    for expected in json.loads((world.folder / "answers.json").read_text()):
        backend.compression = (
            own if expected["budget"] is None else override_compression(own, {"budget": expected["budget"]})
        )
        assistant = VideoAssistant(backend, generation=GenerationOptions(max_new_tokens=24))
        answers = assistant.ask_many(sample, expected["questions"])
        assert [answer.output for answer in answers] == expected["outputs"]
        assert ["".join(assistant.stream(sample, question)) for question in expected["questions"]] == expected[
            "outputs"
        ]
        assert all(answer.videos[0].visual_tokens_after == answers[0].visual_tokens_after for answer in answers)
    backend.compression = own


def test_pictures_beside_videos_are_answered_alike(backend, world):
    from marc import VideoAssistant
    from marc.types import GenerationOptions

    assistant = VideoAssistant(backend, generation=GenerationOptions(max_new_tokens=24))
    for expected in json.loads((world.folder / "mixed.json").read_text()):
        files = [world.folder / name for name in expected["shown"]]
        assert assistant.ask(files, "What is shown?").output == expected["output"]


def test_each_output_of_a_batch_has_its_listener_and_ends_when_that_one_leaves(backend, world):
    from marc import VideoAssistant
    from marc.inference.listening import Listener
    from marc.inference.query import Query
    from marc.types import GenerationOptions

    expected = json.loads((world.folder / "answers.json").read_text())[0]
    queries = [Query(world.folder / "sample.mp4", question) for question in expected["questions"] * 2]
    heard: list[str] = []
    quitting: list[str] = []
    gone, assistant = Listener(is_left=True), VideoAssistant(backend, generation=GenerationOptions(max_new_tokens=24))
    listeners = [Listener(heard.append), Listener(lambda piece: quitting.append(piece) or len(quitting) < 3)]
    outputs = [answer.output for answer in assistant.ask_batch(queries[:4], [*listeners, gone, Listener()])]
    assert "".join(heard) == outputs[0] == expected["outputs"][0] and len(heard) > 3
    assert "".join(quitting) == outputs[1] and outputs[1] != expected["outputs"][1]
    assert expected["outputs"][1].startswith(outputs[1])
    assert len(outputs[2]) < len(expected["outputs"][0]) and outputs[3] == expected["outputs"][1]
    assert not backend.engine.llm_engine.has_unfinished_requests()


def test_a_listener_who_leaves_ends_the_output(backend, world):
    from marc import VideoAssistant

    assistant = VideoAssistant(backend)
    pieces = assistant.stream(world.folder / "sample.mp4", "What happens in the plain scene?")
    next(pieces)
    pieces.close()
    assert not backend.engine.llm_engine.has_unfinished_requests()
    with pytest.raises(ValueError, match="leave static_cache out"):
        backend.sampling(replace(assistant.generation, static=True))
