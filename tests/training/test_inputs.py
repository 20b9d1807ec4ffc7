import pytest
from tiny_training import FAMILIES

from marc.inference.prompts import Prompt
from marc.inference.video_input import VideoInput
from marc.model import CompressionConfig
from marc.model.tiny import build_tiny
from marc.training.dataset import to_dataset
from marc.training.inputs import prompt_length, tokenize_prompt, visual_sources
from marc.training.reader import VisualReader, VisualSource
from marc.video.sources import VideoFiles


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("compression", [{}, {"layout": "frames"}, {"target_frames": None}])
def test_tokens_are_known_before_decoding(family, compression, files):
    _, processor = build_tiny(family=family, compression=CompressionConfig(**compression))
    reader = VisualReader(processor, VideoFiles(max_frames=8))
    sources = [
        VisualSource("video", str(files / "0.mp4")),
        VisualSource("video", str(files / "1.mp4"), (1.2, 2.1)),
        VisualSource("image", str(files / "0.png")),
    ]
    for source in sources:
        looked, read = (
            VideoInput.of(visual, processor, processor.compression)
            for visual in (reader.look(source), reader.read(source))
        )
        assert (looked.ids, looked.events, looked.plan) == (read.ids, read.events, read.plan)


def test_cuts_become_events(files):
    _, processor = build_tiny()
    reader = VisualReader(processor, VideoFiles(max_frames=8))
    visual = reader.read(VisualSource("video", str(files / "0.mp4"), (0.6, 2.1)))
    assert visual.events is not None
    seconds = processor.grid_seconds(visual.frame_seconds)
    assert len(seconds) == len(visual.events) == visual.grid_thw[0]
    assert list(visual.events) == [(second >= 0.6) + (second >= 2.1) for second in seconds]
    assert set(visual.events) == {0, 1, 2}


@pytest.mark.parametrize("family", FAMILIES)
def test_prompts_survive_arrow(family, files, rows, mixed_rows):
    """Arrow adds empty fields to parts of other types; a template would render them as more videos."""
    model, processor = build_tiny(family=family)
    dataset = to_dataset([*rows, *mixed_rows], files)
    kinds = [[source.kind for source in visual_sources(row["prompt"])] for row in dataset]
    assert kinds == [["video"], ["video"], ["video"], ["image"], [], ["video"]]
    assert visual_sources(dataset[0]["prompt"])[0].cuts == (1.2, 2.1)
    assert [row["a_full"] for row in dataset] == [0.5, 0.5, 0.5, None, None, 0.5]
    reader = VisualReader(processor, VideoFiles(max_frames=8))
    for row in dataset:
        files_of_row = [reader.read(source) for source in visual_sources(row["prompt"])]
        seen = tuple(VideoInput.of(patches, processor, processor.compression) for patches in files_of_row)
        counts = [each.tokens for each in seen]
        ids = Prompt(tuple(tokenize_prompt(processor, row["prompt"])), seen).expanded(model)
        visual = [processor.tokenizer.convert_tokens_to_ids(f"<|{kind}_pad|>") for kind in ("video", "image")]
        assert sum(token in visual for token in ids) == sum(counts)
        assert prompt_length(reader, row["prompt"], [processor.compression]) == len(ids)


@pytest.mark.parametrize("name", ["broken.mp4", "missing.mp4", "broken.png"])
def test_unreadable_files_are_named(name, files):
    (files / "broken.png").write_bytes((files / "0.png").read_bytes()[:80])
    _, processor = build_tiny()
    kind = "image" if name.endswith("png") else "video"
    with pytest.raises(ValueError, match=name):
        VisualReader(processor, VideoFiles(timeout=30)).read(VisualSource(kind, str(files / name)))
