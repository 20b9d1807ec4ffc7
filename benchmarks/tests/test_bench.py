"""The whole bench on a model small enough for a test, through the command: its files, its arithmetic, its fairness."""

import json
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from benchmarks import architectures
from benchmarks.architectures import (
    QWEN2_5_VL,
    QWEN3_VL,
    Architecture,
    Placement,
    Weights,
    qwen2_5_text,
    qwen2_5_vision,
    qwen3_text,
    qwen3_vision,
)
from benchmarks.clip import STILL_EVERY, ClipOptions, _pictures, write_clip
from benchmarks.counters import countable_attention
from benchmarks.measurements import ProcessorTime
from benchmarks.report import COLOURS, HATCHES, STAGES
from benchmarks.systems import OWN, STOCK, settings
from marc.cli import app
from marc.compression import CompressionConfig
from marc.inference.stages import StageClock, stages_timed_by
from marc.model.segment_attention import SEGMENT_ATTENTION
from marc.video import probe

SMALL = Architecture(
    QWEN2_5_VL,
    qwen2_5_text(128, 64, 2, 1, 1, 512, tied=True),
    qwen2_5_vision(32, 48, 4, 1, 128),
    cells=(2, 4),
    embedder="tiny",
)
SMALL_QWEN3_VL = Architecture(
    QWEN3_VL,
    qwen3_text(128, 64, 2, 1, 1, 512, tied=True),
    qwen3_vision(32, 48, 4, 1, 128, (0, 1)),
    cells=(2, 4),
    embedder="tiny",
)
SHOTS = 6
FRAMES = 4 * SHOTS


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    write_clip(path, ClipOptions(112, 56, shots=SHOTS, seconds_per_shot=4))
    return path


def run_bench(clip: Path, folder: Path, architecture: Architecture, *more: str):
    arguments = ["bench", "--model", "small", "--video", str(clip), "--output", str(folder), "--frames", str(FRAMES)]
    arguments += ["--repeats", "3", "--new-tokens", "3", *more]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(architectures.ARCHITECTURES, "small", architecture)
        result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    return json.loads((folder / "bench.json").read_text()), folder, result.output


@pytest.fixture(scope="module")
def found(clip: Path, tmp_path_factory: pytest.TempPathFactory):
    more = ("--accuracy", "1", "--endurance", "20", "--merge", "weighted")
    return run_bench(clip, tmp_path_factory.mktemp("bench"), SMALL, *more)


def test_a_clip_has_the_length_and_size_that_was_asked_for(clip: Path):
    info = probe(clip)
    assert (info.width, info.height, info.codec) == (112, 56, "h264")
    assert info.duration == pytest.approx(4 * SHOTS, abs=0.05)


def test_noise_of_a_still_shot_differs_from_pixel_to_pixel():
    options = ClipOptions(448, 224, shots=STILL_EVERY, seconds_per_shot=1)
    *_, before, last = _pictures(options)
    noise_HW = (last.astype(float) - before)[..., 0]
    assert noise_HW.shape == (224, 448)
    assert abs(np.corrcoef(noise_HW[:, :-1].ravel(), noise_HW[:, 1:].ravel())[0, 1]) < 0.05


def test_every_setting_reads_what_it_says(found):
    report, folder, output = found
    assert list(report["settings"]) == [*(setting.name for setting in settings(SMALL.depth)), OWN]
    cells = SMALL.tokens_per_grid
    for name, setting in report["settings"].items():
        if name == STOCK:
            assert setting["visual_tokens"] == FRAMES // 2 * cells
        elif name in ("paper", "schedule"):
            assert setting["visual_tokens"] == cells
        else:
            assert SHOTS <= setting["visual_tokens"] <= cells, "equal shares for the events, or more for some"
        if name == "retrieved":
            assert setting["frames_read"] == 3 * 4 + 3 * 2, "three events whole, two frames of every other one"
        else:
            assert setting["frames_read"] == FRAMES
        assert {len(values) for values in setting["seconds"].values()} == {3}
    assert report["remembering"]["events"] == SHOTS
    assert len(report["remembering"]["segmentation"]) == len(report["remembering"]["embedding"]) == 3
    assert (folder / "bench.png").read_bytes().startswith(b"\x89PNG")
    assert "tower + prefill" in (folder / "bench.md").read_text()
    assert "Times faster than stock" in output


def test_a_model_that_writes_times_pays_for_them(clip: Path, found, tmp_path: Path):
    """Each temporal grid that remains costs its time and two marks, beside the two marks around the video."""
    report, folder, _ = run_bench(clip, tmp_path, SMALL_QWEN3_VL, "--accuracy", "0")
    read, without = ({n: s for n, s in each["settings"].items() if n != OWN} for each in (report, found[0]))
    assert {name: setting["visual_tokens"] for name, setting in read.items()} == {
        name: setting["visual_tokens"] for name, setting in without.items()
    }
    times = {name: setting["prompt_tokens"] - setting["visual_tokens"] - 2 for name, setting in read.items()}
    assert all(setting["prompt_tokens"] == setting["visual_tokens"] + 2 for setting in without.values())
    digits = sum(len(str(2 * grid)) for grid in range(FRAMES // 2))
    assert times[STOCK] == FRAMES // 2 * 7 + digits, "<12.5 seconds> and two marks: 7 tokens and the digits of 12"
    assert times["paper"] == times["schedule"] == 9
    assert 8 * SHOTS <= times["events"] == times["inside"] <= 9 * SHOTS
    prefill = {name: setting["counted"]["prefill"]["flops"] for name, setting in read.items()}
    assert prefill[STOCK] > prefill["events"] > prefill["paper"]
    assert "the video's tokens in the prompt" in (folder / "bench.md").read_text()


def test_stages_and_other_make_up_the_whole(found):
    report, _, _ = found
    parts = ("video decode", "preprocess", "retrieval", "vision tower", "compression", "prefill", "decoding", "other")
    for setting in report["settings"].values():
        seconds = setting["seconds"]
        for repeat, whole in enumerate(seconds["end to end"]):
            assert all(-1e-6 <= seconds[part][repeat] < whole for part in parts)
            assert seconds["other"][repeat] < whole / 2, "the clocks see most of it"


def test_counts_fall_with_the_merge(found):
    report, _, _ = found
    flops = {name: setting["counted"]["tower + prefill"]["flops"] for name, setting in report["settings"].items()}
    assert flops[STOCK] > flops["paper"] > flops["schedule"]
    assert flops["events"] > flops["inside"]
    assert report["settings"]["inside"]["visual_tokens"] == report["settings"]["events"]["visual_tokens"]
    for setting in report["settings"].values():
        assert all(row["least_seconds"] > 0 for row in setting["counted"].values())


def test_a_remembered_video_is_not_read_again(found):
    report, _, _ = found
    assert all("vision_tower" in stages for stages in report["settings"][STOCK]["second_question_stages"])
    assert not any("vision_tower" in stages for stages in report["settings"]["paper"]["second_question_stages"])


def test_what_the_random_encoder_retrieved_is_written_down(found):
    report, _, _ = found
    assert report["settings"][STOCK]["retrieved_events"] == {"first question": [], "second question": []}
    events = report["settings"]["retrieved"]["retrieved_events"]
    assert all(0 <= event["start"] < event["end"] <= 4 * SHOTS + 0.1 for kept in events.values() for event in kept)
    assert [len(kept) for kept in events.values()] == [3, 3]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux measures the peak on a CPU")
def test_the_dual_encoder_counts_where_it_is_needed(found):
    report, folder, _ = found
    (row,) = (line for line in (folder / "bench.md").read_text().splitlines() if "with weights" in line)
    shown = [float(cell.split()[0]) for cell in row.strip("| ").split("|")[1:]]
    for megabytes, setting in zip(shown, report["settings"].values(), strict=True):
        needed = report["weights_bytes"] + (report["embedder_bytes"] if setting["name"] != STOCK else 0)
        assert megabytes == pytest.approx((needed + setting["peak_bytes_above"]) / 1e6, abs=1)


def test_tables_and_picture_name_their_clock(found):
    _, folder, _ = found
    text = (folder / "bench.md").read_text()
    assert "Milliseconds on the clock" in text
    assert "Once per video: milliseconds on the clock" in text
    assert "setting 'inside'" in text


def test_stages_can_be_told_apart_with_and_without_colours():
    assert len(set(COLOURS)) == len(set(HATCHES)) == len(STAGES) + 1


def test_accuracy_stands_beside_speed(found):
    report, folder, _ = found
    assert [accuracy["setting"] for accuracy in report["accuracies"]] == list(report["settings"])
    tokens = {accuracy["setting"]: accuracy["visual_tokens"] for accuracy in report["accuracies"]}
    assert tokens["stock"] > tokens["paper"] == 4
    assert all(accuracy["right"]["n"] == 12 for accuracy in report["accuracies"])
    assert max(accuracy["right"]["mean"] for accuracy in report["accuracies"]) > 0.4, "it answers most questions"
    assert "exact answers in percent" in (folder / "bench.md").read_text()


def test_memory_does_not_grow_with_questions(found):
    report, _, _ = found
    assert report["growth"]["questions"] == list(range(2, 21, 2))
    first, last = report["growth"]["bytes"][0], report["growth"]["bytes"][-1]
    assert last - first < 4 * 2**20


def test_stages_can_be_timed_by_another_clock():
    ticks = iter(range(100))
    clock = StageClock()
    with stages_timed_by(lambda: float(next(ticks))), clock.stage("inside"):
        pass
    assert clock.seconds["inside"] == 1.0
    with clock.stage("outside"):
        pass
    assert 0 < clock.seconds["outside"] < 1, "the wall's clock again"


def test_processor_time_counts_work_and_not_waiting():
    seconds = ProcessorTime()
    start = seconds()
    time.sleep(0.2)
    waited = seconds() - start
    torch.randn(1500, 1500) @ torch.randn(1500, 1500)
    assert waited < 0.1
    assert seconds() - start > waited + 0.005


@pytest.mark.parametrize("architecture", [SMALL, SMALL_QWEN3_VL], ids=["qwen2_5_vl", "qwen3_vl"])
def test_models_share_weights_and_stock_is_stock(architecture: Architecture):
    """One set of weights; without compression ours gives transformers' own logits."""
    weights = Weights.random(architecture, Placement(torch.device("cpu")))
    stock = weights.model(architecture.stock_model)
    ours = weights.model(architecture.our_model, CompressionConfig(target_frames=None))
    ours.config.text_after_video = "grid"
    for one, other in zip(stock.parameters(), ours.parameters(), strict=True):
        assert one.data_ptr() == other.data_ptr()
        assert one.device.type == "cpu"
    height, width = (architecture.factor * cells for cells in architecture.cells)
    processor = weights.processor()
    inputs = processor(text=["<|vision_start|><|video_pad|><|vision_end|>What?"],
                       videos=[torch.randint(0, 256, (4, 3, height, width), dtype=torch.uint8)],
                       do_sample_frames=False, do_resize=False, return_tensors="pt")  # fmt: skip
    with torch.no_grad():
        assert torch.equal(stock(**inputs).logits, ours(**inputs).logits)
    assert weights.bytes == sum(parameter.nbytes for parameter in stock.parameters())


@pytest.mark.parametrize("architecture", [SMALL, SMALL_QWEN3_VL], ids=["qwen2_5_vl", "qwen3_vl"])
@pytest.mark.parametrize("ours", [False, True])
def test_any_configuration_can_be_measured(ours: bool, architecture: Architecture, tmp_path: Path):
    compression = CompressionConfig() if ours else None
    config = architectures.build_config(architecture, architecture.build_tokenizer(), compression)
    config.save_pretrained(tmp_path)
    found = architectures.find_architecture(str(tmp_path))
    assert found.family is architecture.family
    for sizes, same in ((found.text, architecture.text), (found.vision, architecture.vision)):
        assert {name: sizes[name] for name in same} == same
    assert (found.factor, found.depth) == (architecture.factor, architecture.depth)
    again = architectures.build_config(found, found.build_tokenizer(), compression)
    assert again.to_diff_dict() == config.to_diff_dict()


def test_an_unknown_model_is_refused(tmp_path: Path):
    assert architectures.find_architecture("scaled") is architectures.ARCHITECTURES["scaled"]
    with pytest.raises(ValueError, match="--model must be one of 3b, 7b, qwen3-vl-2b"):
        architectures.find_architecture(str(tmp_path / "nothing"))
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(ValueError, match=r"model of a known family .* is needed, found 'gpt2'"):
        architectures.find_architecture(str(tmp_path))


def test_a_flash_kernel_is_counted_as_what_it_computes():
    weights = Weights.random(SMALL, Placement(torch.device("cpu")))
    tower = weights.holder.model.visual
    tower.config._attn_implementation = "flash_attention_2"
    with countable_attention(tower):
        assert tower.config._attn_implementation == SEGMENT_ATTENTION
    assert tower.config._attn_implementation == "flash_attention_2"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "4b"], "--model must be one of 3b, 7b, qwen3-vl-2b"),
        (["--repeats", "2"], "--repeats must be a whole number >= 3"),
        (["--new-tokens", "1"], "--new-tokens must be a whole number >= 2"),
        (["--dtype", "int8"], "--dtype must be one of float32, bfloat16, none"),
        (["--frames", "4"], "--frames must be a whole number >= 6"),
        (["--endurance", "5"], "--endurance must be 0 or at least 10"),
        (["--device", "cuda", "--processor-time"], "--processor-time is for --device cpu"),
        (["--merge", "median"], "--merge must be one of mean, weighted"),
        (["--budget", "half"], "unknown budget 'half'"),
    ],
)
def test_wrong_options_are_named(options: list[str], message: str, tmp_path: Path):
    result = CliRunner().invoke(app, ["bench", *options, "--output", str(tmp_path / "bench")])
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())
