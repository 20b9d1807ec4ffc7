"""The recipe of Qwen's and Video-R1's code: chat messages with videos in them, through ``qwen_vl_utils``."""

import json

import pytest
import torch
from PIL import Image
from qwen_vl_utils import process_vision_info, vision_process

from marc import load_model
from marc.world.export import write_sample

SIZE = {"min_pixels": 56 * 56, "max_pixels": 56 * 56}
TOKENS_OF_A_GRID = 4  # and the default budget for a whole video


@pytest.fixture(autouse=True)
def decord(monkeypatch):
    """The reader that needs nothing of the system; elsewhere ``FORCE_QWENVL_VIDEO_READER=decord`` chooses it."""
    monkeypatch.setattr(vision_process, "get_video_reader_backend", lambda: "decord")


@pytest.fixture(scope="module")
def processor():
    return load_model()[1]


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    questions = write_sample(tmp_path_factory.mktemp("sample") / "sample.mp4")
    return questions.with_suffix(".mp4"), json.loads(questions.read_text())["questions"]


def chat(video, text, **options):
    content = [{"type": "video", "video": str(video), "fps": 2.0, **SIZE, **options}, {"type": "text", "text": text}]
    return [{"role": "user", "content": content}]


def inputs_of(processor, messages, *, metadata):
    text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    images, videos, options = process_vision_info(messages, return_video_kwargs=True, return_video_metadata=metadata)
    return processor(text=[text], images=images, videos=videos, padding=True, return_tensors="pt", **options)


@pytest.mark.parametrize(("compression", "tokens"), [({}, 4), ({"target_frames": None}, 128)])
def test_the_recipe_answers_questions_about_a_scene(sample, compression, tokens):
    model, processor = load_model(**compression)
    video, questions = sample
    for question in questions[:4]:
        inputs = inputs_of(processor, chat(video, question["problem"]), metadata=True)
        assert int((inputs["input_ids"] == processor.video_token_id).sum()) == tokens
        output = model.generate(**inputs, max_new_tokens=40, do_sample=False)
        (answer,) = processor.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        assert question["solution"] in answer, question["problem"]


def test_both_forms_of_the_recipe_and_the_separate_one_give_the_same(processor, sample):
    messages = chat(sample[0], "What happens?", nframes=16)
    messages[0]["content"][0].pop("fps")
    with_metadata = inputs_of(processor, messages, metadata=True)
    with_rates = inputs_of(processor, messages, metadata=False)
    _, videos, options = process_vision_info(messages, return_video_kwargs=True, return_video_metadata=True)
    frames, metadata = map(list, zip(*videos, strict=True))
    text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    apart = processor(text=[text], videos=frames, video_metadata=metadata, return_tensors="pt", **options)
    for name, value in apart.items():
        assert torch.equal(with_metadata[name], value), name
        if name != "second_per_grid_ts":
            assert torch.equal(with_rates[name], value), name
    seconds = 2 * 32.0 / 16  # two of 16 frames of 32 s
    assert with_rates["second_per_grid_ts"].tolist() == pytest.approx([seconds])
    assert with_metadata["second_per_grid_ts"].tolist() == pytest.approx([seconds], rel=0.1)


def test_two_conversations_and_pictures(processor, sample, tmp_path):
    Image.new("RGB", (56, 56), "red").save(tmp_path / "red.png")
    picture = [{"type": "image", "image": str(tmp_path / "red.png"), **SIZE}, {"type": "text", "text": "What?"}]
    both = [chat(sample[0], "What happens?"), [{"role": "user", "content": picture}]]
    for metadata in (True, False):
        texts = processor.apply_chat_template(both, tokenize=False, add_generation_prompt=True)
        images, videos, options = process_vision_info(both, return_video_kwargs=True, return_video_metadata=metadata)
        inputs = processor(text=texts, images=images, videos=videos, padding=True, return_tensors="pt", **options)
        assert len(inputs["image_grid_thw"]) == len(inputs["video_grid_thw"]) == 1
        alone = inputs_of(processor, both[1], metadata=metadata)
        assert int((alone["input_ids"] == processor.image_token_id).sum()) == TOKENS_OF_A_GRID
