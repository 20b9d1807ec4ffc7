import pytest
import torch
from transformers.video_utils import VideoMetadata

from marc.model.video_arguments import separate_metadata

FRAMES = torch.zeros(4, 3, 28, 28)
METADATA = {"fps": 20.0, "frames_indices": [0, 10, 20, 30], "total_num_frames": 40}


def test_pairs_are_taken_apart():
    pairs = [(FRAMES, METADATA), (FRAMES[:2], VideoMetadata(total_num_frames=2))]
    videos, options = separate_metadata(pairs, {"do_sample_frames": False})
    assert videos[0] is FRAMES and len(videos[1]) == 2
    assert options == {"do_sample_frames": False, "video_metadata": [METADATA, pairs[1][1]]}


def test_a_rate_per_video_becomes_metadata():
    _, options = separate_metadata([FRAMES], {"do_sample_frames": False, "fps": [0.5]})
    (metadata,) = options.pop("video_metadata")
    assert options == {"do_sample_frames": False}
    assert (metadata.fps, metadata.frames_indices, metadata.total_num_frames) == (0.5, [0, 1, 2, 3], 4)


@pytest.mark.parametrize("videos", [None, FRAMES, [FRAMES], [[FRAMES[0], FRAMES[1]]], (FRAMES, FRAMES), []])
@pytest.mark.parametrize("options", [{}, {"fps": 2.0}, {"video_metadata": [METADATA]}])
def test_everything_else_is_left_alone(videos, options):
    same, unchanged = separate_metadata(videos, options)
    assert same is videos and unchanged == options


def test_pictures_alone_come_with_no_rates():
    assert separate_metadata(None, {"do_sample_frames": False, "fps": []}) == (None, {"do_sample_frames": False})


def test_rates_of_other_videos_are_refused():
    with pytest.raises(ValueError, match="fps has 2 entries for 1 videos"):
        separate_metadata([FRAMES], {"fps": [1.0, 2.0]})
