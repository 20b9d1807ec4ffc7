"""Merging inside the tower: exact where it must be, the same rules as after it, and only as much work as is left."""

import copy
from unittest import mock

import pytest
import torch
from accelerate.hooks import ModelHook, add_hook_to_module
from tiny_inputs import first_logits, noise, video_inputs
from transformers import AttentionInterface

from marc.compression.merge import compress, compress_videos
from marc.compression.plan import plan_video
from marc.model import CompressionConfig
from marc.model.family import load_name
from marc.model.segment_attention import segment_attention
from marc.model.streams import features_of_each, side_by_side
from marc.model.tower import MergingTower, run_in_chunks, with_linear_patches

EVENTS = [0, 0, 0, 1, 1, 2, 2, 2]
REPEATS = [0, 0, 0, 1, 1, 2, 1, 1]
"""A clip of 8 grids that shows 4 pictures, one of them twice."""


def repeating(seed: int):
    pictures = noise(6, seed).reshape(3, 2, 56, 56, 3)
    return pictures[REPEATS].reshape(16, 56, 56, 3)


@pytest.fixture
def video(tiny):
    """A tower, how it is taken apart, and what it reads."""
    model, processor = tiny()
    inputs = video_inputs(processor, ["<video>"], [noise(16, 1)])
    grid = tuple(inputs["video_grid_thw"][0].tolist())
    return model.model.visual, load_name(model.family.tower_part), inputs["pixel_values_videos"], grid


CELL = 4 * 64
"""Features of a cell's patches side by side, between the parts of a tower."""


def read(part, patches, grid):
    """What a part gives of each grid, all streams: ``[T, P, W]``."""
    output = part(patches, grid_thw=torch.tensor([grid]))
    levels = getattr(output, "deepstack_features", None)
    return side_by_side(output.pooler_output, levels).unflatten(0, (grid[0], -1))


def streams(model, inputs):
    """Features of each video, all streams."""
    return features_of_each(model.encode_video(**inputs)["video"])


def test_parts_in_a_row_are_the_tower(video):
    """Cut anywhere, also where pictures of several sizes are read."""
    tower, cut, pixels, grid = video
    depth, grids = len(tower.blocks), torch.tensor([grid, (1, 4, 4)])
    pixels = torch.cat([pixels, pixels[:16]])
    with torch.no_grad():
        whole = tower(pixels, grid_thw=grids)
        for place in range(1, depth + 1):
            first = cut(tower, 0, place)(pixels, grid_thw=grids)
            parts = [first]
            if place < depth:
                parts.append(cut(tower, place, depth)(first.pooler_output.reshape(-1, 64), grid_thw=grids))
            assert torch.equal(parts[-1].pooler_output, whole.pooler_output)
            levels = [level for part in parts for level in getattr(part, "deepstack_features", None) or ()]
            expected = getattr(whole, "deepstack_features", None) or ()
            assert len(levels) == len(expected) and all(map(torch.equal, levels, expected))
    assert len(tower.blocks) == depth, "the tower itself is left alone"


@pytest.mark.parametrize("tower_layer", [None, 1, {1: 8}])
def test_with_nothing_merged_it_is_the_stock_model_to_the_bit(tiny, stock, tower_layer):
    model, processor = tiny(layout="events", visual_tokens=8 * 16, tower_layer=tower_layer, tower_chunk=None)
    inputs = video_inputs(processor, ["<video>"], [noise(16, 1)], video_events=[list(range(8))])
    with torch.no_grad():
        theirs = stock.model.get_video_features(inputs["pixel_values_videos"], inputs["video_grid_thw"])
    assert torch.equal(streams(model, inputs)[0], features_of_each(theirs)[0])


@pytest.mark.parametrize(
    ("layout", "tower_layer"), [("events", 1), ("events", {1: 2}), ("frames", 1), ("frames", {1: 3})]
)
@pytest.mark.parametrize("merge", ["mean", "weighted"])
def test_a_static_clip_loses_nothing(tiny, layout, tower_layer, merge):
    model, processor = tiny(layout=layout, tower_layer=tower_layer, merge=merge)
    still = noise(2, 1)[:1].repeat(16, axis=0)
    inputs = video_inputs(processor, ["<video> What?"], [still], video_events=[EVENTS])
    inside = first_logits(model, inputs)
    model.compression = CompressionConfig(layout=layout, merge=merge)
    torch.testing.assert_close(inside, first_logits(model, inputs), atol=2e-5, rtol=2e-5)


def test_the_grids_that_are_left_are_averages_of_hidden_states(video):
    """By hand: the first block on every grid, the merge, the second block on what is left."""
    tower, cut, pixels, grid = video
    config = CompressionConfig(layout="events", merge="weighted", tower_layer=1, visual_tokens=48)
    plan = plan_video(8, (4, 4), config, events=EVENTS)
    with torch.no_grad():
        (got,) = MergingTower(tower, cut)(pixels, [grid], [plan])
        hidden = read(cut(tower, 0, 1), pixels, grid)
        means = torch.stack([hidden[:3].mean(0), hidden[3:5].mean(0), hidden[5:].mean(0)])
        rest = read(cut(tower, 1, len(tower.blocks)), means[..., :CELL].reshape(-1, 64), (3, 8, 8))
    expected = torch.cat((rest[..., :128], means[..., CELL:], rest[..., 128:]), dim=-1)
    torch.testing.assert_close(got.tokens, expected)
    assert got.members.tolist() == EVENTS
    assert got.counts.tolist() == [3, 2, 3]


@pytest.mark.parametrize("tower_layer", [1, {1: 4}])
def test_the_rules_inside_are_those_outside(video, tower_layer):
    """Members of a merge after block 1 are those of `compress` on the hidden states there."""
    tower, cut, pixels, grid = video
    config = CompressionConfig(layout="frames", target_frames=2, window=3, ratio=0.7, tower_layer=tower_layer)
    plan = plan_video(8, (4, 4), config, events=EVENTS)
    with torch.no_grad():
        (got,) = MergingTower(tower, cut)(pixels, [grid], [plan])
        hidden = read(cut(tower, 0, 1), pixels, grid)[..., :CELL]
    left = 2 if tower_layer == 1 else 4
    outside = compress(hidden, CompressionConfig("frames", left, window=3, ratio=0.7), events=EVENTS, size=(4, 4))
    assert got.members.tolist() == outside.members.tolist()
    assert len(got.tokens) == left


def test_a_schedule_of_the_event_layout_goes_down_within_events(video):
    """By hand: two grids of each event after the first block, one of each after the tower."""
    tower, cut, pixels, grid = video
    config = CompressionConfig(layout="events", merge="weighted", tower_layer={1: 2}, visual_tokens=48)
    plan = plan_video(8, (4, 4), config, events=EVENTS)
    with torch.no_grad():
        (got,) = MergingTower(tower, cut)(pixels, [grid], [plan])
        hidden = read(cut(tower, 0, 1), pixels, grid)[..., :CELL]
    pairs = [
        compress(hidden[start:stop], CompressionConfig("frames", 2, window=None, ratio=0.1 + 1 / (stop - start)))
        for start, stop in ((0, 3), (3, 5), (5, 8))
    ]
    expected = [number + 2 * event for event, pair in enumerate(pairs) for number in pair.members.tolist()]
    assert got.members.tolist() == expected
    final = compress_videos([got.tokens], [plan.after_tower], [got.counts], decided_by=128)[0]
    assert final.members[got.members].tolist() == EVENTS
    by_event = (got.tokens * got.counts[:, None, None]).unflatten(0, (3, 2)).sum(1) / torch.tensor([3, 2, 3])[
        :, None, None
    ]
    torch.testing.assert_close(final.tokens, by_event)


def test_a_deep_schedule_of_the_event_layout():
    plan = plan_video(8, (4, 4), CompressionConfig(layout="events", tower_layer={1: 2, 3: 1}), events=EVENTS)
    assert [(layer, stage.grids, len(stage.cells)) for layer, stage in plan.tower] == [(1, 8, 6), (3, 6, 3)]
    assert not plan.after_tower.merges


def test_later_blocks_run_on_what_is_left(tiny):
    model, processor = tiny(layout="events", tower_layer=1)
    inputs = video_inputs(processor, ["<video>"], [noise(16, 1)], video_events=[EVENTS])
    blocks = model.model.visual.blocks
    with (
        mock.patch.object(blocks[0], "forward", wraps=blocks[0].forward) as first,
        mock.patch.object(blocks[1], "forward", wraps=blocks[1].forward) as second,
    ):
        model.encode_video(**inputs)
    assert [call.args[0].shape[0] for call in first.call_args_list] == [8 * 64]
    assert [call.args[0].shape[0] for call in second.call_args_list] == [3 * 64]


@pytest.mark.parametrize("tower_layer", [None, 1, {1: 4}])
@pytest.mark.parametrize("layout", ["frames", "events"])
def test_a_batch_of_different_videos_equals_its_rows(tiny, layout, tower_layer):
    model, processor = tiny(layout=layout, target_frames=2, tower_layer=tower_layer)
    videos, events = [noise(16, 1), noise(6, 2, width=28), noise(2, 3)], [EVENTS, [0, 1, 1], [0]]
    inputs = video_inputs(processor, ["<video><video><video>"], videos, video_events=events)
    together = model.encode_video(**inputs)["video"]
    for index, own in enumerate(videos):
        inputs = video_inputs(processor, ["<video>"], [own], video_events=[events[index]])
        alone = model.encode_video(**inputs)["video"]
        assert torch.equal(features_of_each(together)[index], features_of_each(alone)[0])
        assert together.members[index].tolist() == alone.members[0].tolist()


@pytest.mark.parametrize(("layout", "tower_layer"), [("events", None), ("events", {1: 2}), ("frames", 1)])
@pytest.mark.parametrize("chunk", [1, 100, 130, 400])
def test_chunks_change_nothing(tiny, layout, tower_layer, chunk):
    options = {"layout": layout, "tower_layer": tower_layer, "target_frames": 2}
    events = [EVENTS, [0, 1, 1], [0]]
    features = []
    for size in (None, chunk):
        model, processor = tiny(**options, tower_chunk=size)
        videos = [noise(16, 1), noise(6, 2, width=28), noise(2, 3)]
        inputs = video_inputs(processor, ["<video><video><video>"], videos, video_events=events)
        features.append(streams(model, inputs))
    for whole, chunked in zip(*features, strict=True):
        torch.testing.assert_close(chunked, whole, atol=1e-6, rtol=1e-5)


def test_no_chunk_is_larger_than_asked(video):
    tower, cut, pixels, grid = video
    with mock.patch.object(tower.blocks[0], "forward", wraps=tower.blocks[0].forward) as run, torch.no_grad():
        frames = pixels.unflatten(0, (8, -1))
        whole = cut(tower, 0, len(tower.blocks))
        outputs = run_in_chunks(whole, [frames[:5], frames[5:]], [grid[1:]] * 2, 3 * 64)
    assert [call.args[0].shape[0] for call in run.call_args_list] == [3 * 64, 2 * 64, 3 * 64]
    assert [len(video) for video in outputs] == [5, 3]


@pytest.mark.parametrize("tower_layer", [None, 1])
def test_chunks_change_no_gradient(tiny, tower_layer):
    gradients = []
    for chunk in (None, 128):
        model, processor = tiny(layout="events", tower_layer=tower_layer, tower_chunk=chunk)
        model = copy.deepcopy(model).train()
        inputs = video_inputs(processor, ["<video> What?"], [noise(16, 1)], video_events=[EVENTS])
        model(**inputs, labels=inputs["input_ids"]).loss.backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-6, rtol=1e-4, msg=name)


def test_activations_kept_for_the_backward_pass_do_not_grow_with_the_video(tiny):
    """Of the chunks only what goes in and comes out is kept; everything at once keeps every block's activations."""

    def kept_bytes(grids, chunk):
        model, processor = tiny(layout="events", target_frames=1, tower_chunk=chunk)
        inputs = video_inputs(processor, ["<video>"], [noise(2 * grids, 1)], video_events=[[0] * grids])
        tensors = {}

        def keep(tensor):
            tensors[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            model.model.get_video_features(
                inputs["pixel_values_videos"], inputs["video_grid_thw"], inputs["video_grid_events"]
            )
        return sum(tensors.values()), inputs["pixel_values_videos"].nbytes

    (everything, _), (chunked, pixels) = kept_bytes(16, None), kept_bytes(16, 128)
    assert chunked < pixels * 1.5 < everything


def test_patches_as_a_product_of_matrices(video):
    tower, _, pixels, _ = video
    linear = with_linear_patches(tower)
    with torch.no_grad():
        torch.testing.assert_close(linear.patch_embed(pixels), tower.patch_embed(pixels), atol=1e-5, rtol=1e-5)
    assert linear.patch_embed.proj.weight is tower.patch_embed.proj.weight
    assert type(tower.patch_embed.proj) is torch.nn.Conv3d


def test_attention_is_within_the_grids_that_are_left(tiny, monkeypatch):
    """The boundaries that a kernel for segments gets, such as flash-attn's: of 8 grids or their windows, then of 3."""
    model, processor = tiny(layout="events", tower_layer=1)
    seen = []

    def record(*args, cu_seq_lens_q, max_length_q, **kwargs):
        seen.append((cu_seq_lens_q.diff().tolist(), max_length_q))
        return segment_attention(*args, cu_seq_lens_q=cu_seq_lens_q, max_length_q=max_length_q, **kwargs)

    AttentionInterface.register("recorded_flash", record)
    model.model.visual.config._attn_implementation = "recorded_flash"
    model.encode_video(**video_inputs(processor, ["<video>"], [noise(16, 1)], video_events=[EVENTS]))
    has_windows, depth = hasattr(model.model.visual, "fullatt_block_indexes"), len(model.model.visual.blocks)
    assert seen[0] == (([16] * 8 * 4, 16) if has_windows else ([64] * 8, 64))
    assert seen[1:] == [([64] * 3, 64)] * (depth - 1)


def test_token_counts_do_not_depend_on_where_it_merges():
    for layout in ("frames", "events"):
        for target in (1, 2, 4):
            counts = {
                plan_video(8, (4, 4), CompressionConfig(layout, target, tower_layer=layer), events=EVENTS).tokens
                for layer in (None, 1)
            }
            assert len(counts) == 1


def test_more_events_than_tokens_are_joined_after_the_tower(tiny):
    model, processor = tiny(layout="events", visual_tokens=2, merge="weighted", tower_layer=1)
    inputs = video_inputs(processor, ["<video> What?"], [noise(16, 1)], video_events=[EVENTS])
    features = model.encode_video(**inputs)["video"]
    assert len(features.pooler_output[0]) == 2
    assert set(features.members[0].tolist()) == {0, 1}


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_reach_the_whole_tower(tiny, checkpointing):
    model, processor = tiny(tower_layer=1)
    model = copy.deepcopy(model).train()
    if checkpointing:
        model.gradient_checkpointing_enable()
    inputs = video_inputs(processor, ["<video> What?"], [noise(16, 1)], video_events=[EVENTS])
    model(**inputs, labels=inputs["input_ids"]).loss.backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]


def test_images_in_the_same_batch_are_left_alone(tiny, stock):
    model, processor = tiny(tower_layer=1)
    image = noise(1, 5)[0]
    inputs = video_inputs(processor, ["<video> and <image>?"], [noise(8, 1)], images=[image])
    with torch.no_grad():
        ours = model.model.get_image_features(inputs["pixel_values"], inputs["image_grid_thw"]).pooler_output[0]
        theirs = stock.model.get_image_features(inputs["pixel_values"], inputs["image_grid_thw"]).pooler_output[0]
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("compression", [{"layout": "events", "tower_layer": 1}, {"layout": "frames"}])
def test_a_batch_with_images_equals_its_rows(tiny, compression):
    model, processor = tiny(**compression)
    texts = ["<video> What?", "<image> or what is it?", "<video> and <image>?"]
    videos, images, events = [noise(16, 1), noise(8, 2)], [noise(1, 5)[0], noise(1, 6)[0]], [EVENTS, [0, 1, 1, 1]]
    together = video_inputs(processor, texts, videos, images=images, video_events=events)
    logits = first_logits(model, together)
    rows = (
        (texts[0], {"videos": videos[:1], "video_events": events[:1]}),
        (texts[1], {"videos": [], "images": images[:1]}),
        (texts[2], {"videos": videos[1:], "video_events": events[1:], "images": images[1:]}),
    )
    for row, present, (text, own) in zip(logits, together["attention_mask"].bool(), rows, strict=True):
        alone = first_logits(model, video_inputs(processor, [text], **own))
        torch.testing.assert_close(row[present], alone[0], atol=1e-4, rtol=1e-4)


def test_parts_of_a_tower_that_accelerate_has_hooked_are_parts(tiny):
    """As `device_map` over several devices hooks it: `forward` is then an attribute of the module."""
    model, processor = tiny(layout="events", tower_layer=1)
    inputs = video_inputs(processor, ["<video>"], [noise(16, 1)], video_events=[EVENTS])
    expected = model.encode_video(**inputs)["video"].pooler_output[0]
    hooked, seen = copy.deepcopy(model), []

    class Seen(ModelHook):
        def pre_forward(self, module, *args, **kwargs):
            seen.append(module)
            return args, kwargs

    tower = hooked.model.visual
    for module in (tower, tower.patch_embed.proj, *tower.blocks):
        add_hook_to_module(module, Seen())
    assert torch.equal(hooked.encode_video(**inputs)["video"].pooler_output[0], expected)
    towers = [module for module in seen if isinstance(module, type(tower))]
    assert [len(part.blocks) for part in towers] == [1, len(tower.blocks) - 1]


@pytest.mark.parametrize("value", [0, -1, True, {}, {2: 4, 3: 5}, {0: 4}, {2: 0}, "deep"])
def test_a_wrong_layer_is_named(value):
    with pytest.raises(ValueError, match=r"compression\.tower_layer must be"):
        CompressionConfig(layout="frames", tower_layer=value)


def test_a_layer_that_the_tower_lacks_is_named(tiny):
    depth = len(tiny()[0].model.visual.blocks)
    model, processor = tiny(tower_layer=depth)
    with pytest.raises(ValueError, match=f"tower_layer {depth} is not inside the vision tower of {depth} blocks"):
        model.encode_video(**video_inputs(processor, ["<video>"], [noise(8, 1)]))


def test_a_schedule_survives_json():
    config = CompressionConfig.from_dict({"layout": "frames", "tower_layer": {"4": 16, "8": 4}})
    assert config.tower_layer == ((4, 16), (8, 4))
    assert CompressionConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize("merge", ["mean", "weighted"])
@pytest.mark.parametrize(("layout", "tower_layer"), [("frames", None), ("frames", 1), ("events", None), ("events", 1)])
def test_encoding_equal_grids_once_changes_nothing(tiny, layout, tower_layer, merge):
    events = [[0, 0, 1, 1, 1, 1, 2, 2], [0, 1, 2, 2, 2, 2, 2, 3]]
    features = {}
    for duplicates in (None, 0.0):
        model, processor = tiny(
            layout=layout, target_frames=2, tower_layer=tower_layer, merge=merge, duplicates=duplicates
        )
        inputs = video_inputs(processor, ["<video><video>"], [repeating(1), repeating(2)], video_events=events)
        block = model.model.visual.blocks[0]
        with mock.patch.object(block, "forward", wraps=block.forward) as run:
            features[duplicates] = model.encode_video(**inputs)["video"]
        patches = sum(call.args[0].shape[0] for call in run.call_args_list)
        assert patches == 2 * 64 * (8 if duplicates is None else 4)
    for every, once in zip(*map(features_of_each, features.values()), strict=True):
        torch.testing.assert_close(once, every, atol=1e-6, rtol=1e-5)
    for every, once in zip(features[None].members, features[0.0].members, strict=True):
        assert once.tolist() == every.tolist()


def test_gradients_are_those_of_every_grid(tiny):
    gradients = []
    for duplicates in (None, 0.0):
        model, processor = tiny(layout="events", duplicates=duplicates, visual_tokens=16)
        model = copy.deepcopy(model).train()
        inputs = video_inputs(processor, ["<video> What?"], [repeating(1)], video_events=[[0, 0, 1, 1, 1, 1, 2, 2]])
        model(**inputs, labels=inputs["input_ids"]).loss.backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-6, rtol=1e-4, msg=name)


def test_near_duplicates_count_as_often_as_they_occur(tiny):
    """One picture three times with a little noise, another once: their mean is 3 to 1."""
    model, processor = tiny(layout="events", merge="weighted", visual_tokens=16, duplicates=0.5)
    pictures = noise(4, 3).reshape(2, 2, 56, 56, 3)
    clip = pictures[[0, 0, 0, 1]].reshape(8, 56, 56, 3)
    clip[2:6] ^= 1
    got = model.encode_video(**video_inputs(processor, ["<video>"], [clip], video_events=[[0] * 4]))["video"]
    thrice, once = (
        model.encode_video(**video_inputs(processor, ["<video>"], [part], video_events=[[0]]))["video"]
        for part in (clip[:2], clip[6:])
    )
    expected = (3 * thrice.pooler_output[0] + once.pooler_output[0]) / 4
    torch.testing.assert_close(got.pooler_output[0], expected, atol=1e-5, rtol=1e-5)
