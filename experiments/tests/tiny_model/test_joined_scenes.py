from experiments.tiny_model.joined_scenes import KEYFRAMES, hits, joined_keyframes
from marc.memory.embedder import EventEmbedder
from marc.world.scenes import sample_video


def test_neighbouring_scenes_are_one_event():
    video = next(video for video in (sample_video("easy", "test", 5, n) for n in range(50)) if len(video.events) == 3)
    assert [len(frames) for frames in joined_keyframes(video, 2)] == [2 * KEYFRAMES, KEYFRAMES]


def test_the_best_keyframe_finds_what_the_mean_hides():
    found = hits(EventEmbedder.from_pretrained("tiny", device="cpu"), scenes=2, seed=5, videos=60)
    mean, best = found.mean(axis=0)
    assert best > 0.97 and best >= mean
