from unittest import mock

import pytest
import torch

from marc.model import CompressionConfig
from marc.model.tiny import build_tiny
from marc.training.dataset import to_dataset
from marc.training.inputs import (
    KINDS,
    View,
    encode,
    feature_inputs,
    prompt_length,
    tokenize_prompt,
    visual_sources,
)
from marc.training.reader import VisualReader, VisualSource
from marc.video.sources import VideoFiles


@pytest.mark.parametrize("compression", [{}, {"layout": "frames"}, {"target_frames": None}])
def test_tokens_are_known_before_decoding(compression, files):
    _, processor = build_tiny(compression=CompressionConfig(**compression))
    reader = VisualReader(processor, VideoFiles(max_frames=8))
    sources = [
        VisualSource("video", str(files / "0.mp4")),
        VisualSource("video", str(files / "1.mp4"), (1.2, 2.1)),
        VisualSource("image", str(files / "0.png")),
    ]
    for source in sources:
        looked, read = (
            View.of(visual, processor.compression) for visual in (reader.look(source), reader.read(source))
        )
        assert (looked.tokens, looked.events, looked.plan) == (read.tokens, read.events, read.plan)


def test_cuts_become_events(files):
    _, processor = build_tiny()
    reader = VisualReader(processor, VideoFiles(max_frames=8))
    visual = reader.read(VisualSource("video", str(files / "0.mp4"), (0.6, 2.1)))
    assert visual.events is not None
    assert len(visual.seconds) == len(visual.events) == visual.grid_thw[0]
    assert list(visual.events) == [(second >= 0.6) + (second >= 2.1) for second in visual.seconds]
    assert set(visual.events) == {0, 1, 2}


def test_prompts_survive_arrow(files, rows, mixed_rows):
    """Arrow adds empty fields to parts of other types; a template would render them as more videos."""
    _, processor = build_tiny()
    dataset = to_dataset([*rows, *mixed_rows], files)
    kinds = [[source.kind for source in visual_sources(row["prompt"])] for row in dataset]
    assert kinds == [["video"], ["video"], ["video"], ["image"], [], ["video"]]
    assert visual_sources(dataset[0]["prompt"])[0].cuts == (1.2, 2.1)
    assert [row["a_full"] for row in dataset] == [0.5, 0.5, 0.5, None, None, 0.5]
    reader = VisualReader(processor, VideoFiles(max_frames=8))
    for row in dataset:
        sources = visual_sources(row["prompt"])
        counts = [View.of(reader.read(source), processor.compression).tokens for source in sources]
        ids = tokenize_prompt(processor, row["prompt"], counts)
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


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("compression", [{}, {"layout": "frames"}, {"target_frames": None}, {"tower_layer": 1}])
def test_a_stand_in_is_not_seen_and_gives_the_tower_gradients_of_zero(kind, compression):
    model, processor = build_tiny(compression=CompressionConfig(**compression))
    view = View.stand_in(kind, processor, model.compression)
    features = encode(model, [view])
    assert features[view].shape == (0, model.config.text_config.hidden_size)
    ids = torch.tensor([processor.tokenizer("Why?")["input_ids"]])
    logits = model(input_ids=ids, mm_encoder_outputs=feature_inputs([[view]], features)).logits
    assert torch.equal(logits, model(input_ids=ids).logits)
    logits.sum().backward()
    gradients = [weight.grad for weight in model.model.visual.parameters()]
    assert all(gradient is not None and not gradient.any() for gradient in gradients)


@pytest.mark.parametrize("options", [{"layout": "events"}, {"target_frames": None}])
def test_chunks_of_the_tower_change_no_feature_and_no_gradient(options, files):
    """Whatever becomes of the tokens, training reads no more patches at once than `tower_chunk` says."""
    results = []
    for chunk in (None, 40):
        compression = CompressionConfig(**options, tower_chunk=chunk)
        model, processor = build_tiny(compression=compression)
        reader = VisualReader(processor, VideoFiles(max_frames=8))
        visuals = [reader.read(VisualSource("video", str(files / f"{index}.mp4"))) for index in range(2)]
        views = [View.of(visual, compression) for visual in visuals]
        block = model.model.visual.blocks[0]
        with mock.patch.object(block, "forward", wraps=block.forward) as run:
            features = list(encode(model, views).values())
        largest = max(call.args[0].shape[0] for call in run.call_args_list)
        sum(tokens.square().sum() for tokens in features).backward()
        results.append((features, model.model.visual.blocks[0].attn.qkv.weight.grad, largest))
    (whole, gradient, everything), (chunked, chunked_gradient, largest) = results
    assert largest <= 40 < everything
    torch.testing.assert_close(chunked, whole, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(chunked_gradient, gradient, atol=1e-5, rtol=1e-4)
