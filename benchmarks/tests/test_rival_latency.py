"""Every layout is asked from the file, and what it took is what its plan says."""

from pathlib import Path

from benchmarks.rival_latency import NAMES, STAGES, latencies
from marc.evaluation.arena.options import EVERY_TOKEN
from marc.inference.assistant import VideoAssistant
from marc.world.export import write_sample


def test_every_layout_is_asked_from_the_file(tmp_path: Path) -> None:
    write_sample(tmp_path / "a.mp4")
    backend = VideoAssistant.from_pretrained("tiny", memory=None, device="cpu").backend
    before = backend.compression
    found = latencies(backend, tmp_path / "a.mp4", "How many scenes are there?", "1/8", 1)
    assert set(found) == {EVERY_TOKEN, *NAMES} and backend.compression == before
    whole = found[EVERY_TOKEN].tokens
    assert found["events"].tokens == found["holitom"].tokens == (whole + 2) // 8 - 2
    for latency in found.values():
        assert 0 < latency.seconds["video_decode"] < latency.seconds["total"] and set(latency.seconds) == set(STAGES)
