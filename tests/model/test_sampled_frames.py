"""Frames as users hand them to the processor: one alone, odd numbers, with one rate or many, sampled by number."""

import numpy as np
import pytest
from tiny_inputs import PIXELS, noise
from transformers.video_utils import VideoMetadata

from marc.model.family import families
from marc.model.tiny import build_tiny

TEXT = "<|vision_start|><|video_pad|><|vision_end|> What?"


@pytest.fixture(scope="module", params=[family.name for family in families()])
def processor(request):
    return build_tiny(family=request.param, max_pixels=PIXELS)[1]


def read(processor, videos, **options):
    inputs = processor(text=[TEXT] * len(videos), videos=videos, padding=True, return_tensors="pt", **options)
    return inputs, [processor.tokenizer.decode(ids) for ids in inputs["input_ids"]]


def seconds_of(processor, inputs, texts) -> list[float]:
    """Seconds from one temporal grid of each video to the next."""
    if "second_per_grid_ts" in inputs:
        return inputs["second_per_grid_ts"].tolist()
    times = [[float(part.split(" seconds>")[0]) for part in text.split("<") if " seconds>" in part] for text in texts]
    return [np.diff(some).mean() for some in times]


@pytest.mark.parametrize("options", [{}, {"do_sample_frames": False}])
@pytest.mark.parametrize("kind", [np.asarray, list])
def test_one_frame_is_one_grid(kind, options, processor):
    if kind is list and not options:
        options = {"do_sample_frames": False}  # transformers samples no lists of pictures
    inputs, _ = read(processor, [kind(noise(1, 1)), kind(noise(4, 2))], **options)
    assert inputs["video_grid_thw"].tolist()[0] == [1, 8, 8]
    twice, _ = read(processor, [np.repeat(noise(1, 1), 2, axis=0)], do_sample_frames=False)
    patches = len(twice["pixel_values_videos"])
    assert (inputs["pixel_values_videos"][:patches] == twice["pixel_values_videos"]).all()


def test_one_frame_keeps_its_time(processor):
    metadata = [VideoMetadata(total_num_frames=100, fps=10.0, frames_indices=[40])]
    _, (text,) = read(processor, [noise(1, 1)], do_sample_frames=False, video_metadata=metadata)
    assert "seconds>" not in text or "<4.0 seconds>" in text
    assert metadata[0].frames_indices == [40], "the caller's own is left alone"


def test_the_last_of_an_odd_number_is_read_twice(processor):
    inputs, texts = read(processor, [noise(7, 1)], do_sample_frames=False, fps=2)
    assert inputs["video_grid_thw"].tolist() == [[4, 8, 8]]
    assert len(texts) == 1


@pytest.mark.parametrize(("fps", "expected"), [(2.0, [1.0, 1.0]), (4, [0.5, 0.5]), ([2.0, 1.0], [1.0, 2.0])])
def test_the_rate_of_frames_that_were_sampled_acts(fps, expected, processor):
    inputs, texts = read(processor, [noise(8, 1), noise(8, 2)], do_sample_frames=False, fps=fps)
    assert seconds_of(processor, inputs, texts) == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize("total", [61, 64, 15, 14])
def test_as_many_frames_are_sampled_as_asked_for(total, processor):
    inputs, _ = read(processor, [noise(total, 1)], num_frames=14)
    assert inputs["video_grid_thw"].tolist()[0][0] == 7


@pytest.mark.parametrize("kind", [list, tuple, np.asarray])
def test_times_and_events_may_be_any_sequence(kind, processor):
    told = {"video_seconds": [kind([0, 1])], "video_events": [kind([0, 1])]}
    inputs, _ = read(processor, [noise(4, 1)], do_sample_frames=False, fps=2, **told)
    same, _ = read(
        processor, [noise(4, 1)], do_sample_frames=False, fps=2, video_seconds=[[0.0, 1.0]], video_events=[[0, 1]]
    )
    assert all((inputs[name] == same[name]).all() for name in same)


@pytest.mark.parametrize("seconds", [[0.0, float("nan")], [0.0, float("inf")], [-1.0, 0.0], [2.0, 1.0]])
def test_times_that_are_none_are_refused(seconds, processor):
    with pytest.raises(ValueError, match="video 0: times must be numbers from 0 on that do not fall"):
        read(processor, [noise(4, 1)], do_sample_frames=False, fps=2, video_seconds=[seconds])
