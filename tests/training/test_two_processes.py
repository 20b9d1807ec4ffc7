"""Two processes whose rows differ in kind: at one step a video and a text, then a text and an image, and so on.

DeepSpeed compiles a small extension when it runs for the first time, which takes minutes:

    python -m pytest tests/training/test_two_processes.py -m slow
"""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from marc import load_model
from marc.model.tiny import EMBEDDED_FAMILY, build_tiny

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = {
    "per_device_train_batch_size": 2,
    "num_generations": 2,
    "max_completion_length": 4,
    "max_steps": 3,
    "learning_rate": 1e-3,
    "lr_scheduler_type": "constant",
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": "none",
    "bf16": False,
    "ddp_backend": "gloo",
    "gradient_checkpointing": False,
    "shuffle_dataset": False,
    "train_sampling_strategy": "sequential",
    "disable_tqdm": True,
    "dataloader_pin_memory": False,
    "max_frames": 8,
    "alpha": 0.0,
}
SAVES = {"save_strategy": "steps", "save_steps": 1, "resume": 1}
LATER = {**SAVES, "resume": 4, "max_steps": 6, "shuffle_dataset": True, "train_sampling_strategy": "random"}
"""Goes on in the middle of the second epoch, whose order is not the first one's."""
EVALUATED = {"eval_budgets": ["events", "full"], "eval_strategy": "steps", "eval_steps": 1, "eval_new_tokens": 4}
SFT = {"sft": True, "per_device_train_batch_size": 1}
TOWER = {"tower": True, "per_device_train_batch_size": 1, "tower_layers": {"1": 1.0}}
BROKEN = {"broken": True, "bad_video": "skip"}
SPREAD = {
    "per_device_train_batch_size": 1,
    "gradient_accumulation_steps": 6,
    "num_generations": 4,
    "num_iterations": 2,
}
"""Three prompts in a step of both, so that answers to one prompt are not all with the same process."""
QLORA = {"freeze_tower": True, "lora": True, "four_bits": True, "beta": 0.1, "gradient_checkpointing": True}
"""As in the recipes."""
ZERO2, ZERO3 = ({"deepspeed": str(ROOT / "configs" / "deepspeed" / f"zero{stage}.json")} for stage in (2, 3))
TAUGHT = {
    "distillation": {"distill_coef": 1.0},
    "distillation, lora": {"distill_coef": 1.0, "freeze_tower": True, "lora": True},
    "online teacher": {"teacher": "online", "alpha": 0.3},
}
DEEPSPEED = {
    "zero2": {**ZERO2, **SAVES},
    "zero3": {**ZERO3, **SAVES},
    "zero2, reference, iterations": {**ZERO2, "beta": 0.1, "num_iterations": 2},
    "zero3, reference, checkpointing": {**ZERO3, "beta": 0.1, "gradient_checkpointing": True},
    "zero3, generating without gathering": {**ZERO3, "ds3_gather_for_generation": False},
    "zero2, frozen tower": {**ZERO2, "freeze_tower": True},
    "zero3, distillation, reference": {**ZERO3, "distill_coef": 1.0, "beta": 0.1, "gradient_checkpointing": True},
    **{
        f"{zero}, {case}": {**options, **TAUGHT[case]}
        for zero, options in (("zero2", ZERO2), ("zero3", ZERO3))
        for case in TAUGHT
    },
    "zero3, frozen tower": {**ZERO3, "freeze_tower": True},
    "zero3, evaluated": {**ZERO3, **EVALUATED},
    "zero2, lora": {**ZERO2, **SAVES, "freeze_tower": True, "lora": True},
    "zero3, lora": {**ZERO3, **SAVES, "freeze_tower": True, "lora": True, "beta": 0.1},
    "zero2, qlora": {**ZERO2, **SAVES, **QLORA},
    "zero3, qlora": {**ZERO3, **SAVES, **QLORA},
    "zero3, mixed budgets": {**ZERO3, "budgets": {"events": 1, "full": 1}},
    "zero2, spread": {**ZERO2, **SPREAD, **SAVES, "resume": 2},
    "zero3, spread": {**ZERO3, **SPREAD, **SAVES, "resume": 2},
    "sft, zero2": {**ZERO2, **SAVES, **SFT},
    "sft, zero3": {**ZERO3, **SAVES, **SFT},
    "tower, zero2": {**ZERO2, **SAVES, **TOWER},
}


def run(files: Path, output: Path, cases: dict[str, dict], *, timeout: float) -> dict[str, list[dict]]:
    """What both processes say of each case, all of which they go through one after the other."""
    for family in {EMBEDDED_FAMILY, *(case["family"] for case in cases.values() if "family" in case)}:
        for part in build_tiny(family=family):
            part.save_pretrained(files / family)
    script = ROOT / "tests" / "training" / "helpers" / "two_processes.py"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    options = {name: {**OPTIONS, **case} for name, case in cases.items()}
    result = subprocess.run(
        [*launcher, script, files, output, json.dumps(options)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return {
        name: [json.loads((output / name / f"rank-{rank}.json").read_text()) for rank in range(2)] for name in cases
    }


def check(ranks: list[dict], *, tower_moves: bool = True, asked: tuple[int, int] = (0, 0)) -> None:
    """``asked``: how many rows each process asks its online teacher about; both videos are the first one's."""
    first, second = ranks
    assert (len(first["asked"]), len(second["asked"])) == asked
    assert {**first, "asked": []} == {**second, "asked": []}
    assert not first["saved without the other"]
    assert len(first["steps"]) == OPTIONS["max_steps"]
    assert all(math.isfinite(step["loss"]) and step["grad_norm"] > 0 for step in first["steps"])
    assert not first["still"]
    assert any("visual" in name for name in first["moved"]) == tower_moves


TOGETHER = {
    "ddp": {"gradient_checkpointing": True, "ddp_find_unused_parameters": False, **SAVES},
    "distillation and online teacher": {"distill_coef": 1.0, "teacher": "online", "alpha": 0.3},
    "tower": {**SAVES, **TOWER, "ddp_find_unused_parameters": False},
    "tower, broken": {**BROKEN, **TOWER},
    "evaluated, grpo": EVALUATED,
    "evaluated, sft": {**EVALUATED, **SFT},
    "qwen3_vl": {"family": "qwen3_vl", "ddp_find_unused_parameters": False},
    "drawing": {
        **{**SAVES, "resume": 2, "dynamic_sampling": 1},
        **{"curriculum": 0.9, "budgets": {"events": 1, "full": 1}, "selection_rate": 5.0, "selection_cost": 0.5},
    },
    "spread": {**SPREAD, **SAVES, "resume": 2, "ddp_find_unused_parameters": False},
    "spread, often": {**SPREAD, "often": True},
    "dynamic sampling": {**BROKEN, **SAVES, "dynamic_sampling": 2, "resume": 2},
    **{
        f"{case}, {name}": {**options, **trainer}
        for name, trainer in (("grpo", {}), ("sft", SFT))
        for case, options in (("later", LATER), ("broken", BROKEN))
    },
}


@pytest.fixture(scope="module")
def results(files, tmp_path_factory) -> dict[str, list[dict]]:
    """What both processes say of all cases; starting them is most of the work."""
    return run(files, tmp_path_factory.mktemp("together"), TOGETHER, timeout=900)


@pytest.mark.timeout(1000)
def test_processes_stay_equal(results):
    check(results["ddp"])
    check(results["qwen3_vl"])
    check(results["distillation and online teacher"], asked=(2, 0))
    assert results["ddp"][0]["resumed"] == results["ddp"][0]["steps"]


@pytest.mark.timeout(1000)
def test_processes_train_one_tower(results):
    """Each reads one of the two videos; where one cannot be read, its process has gradients of zero."""
    check(results["tower"])
    check(results["tower, broken"])
    parts_of_a_tower, videos = 2, [results[case][0]["videos"] for case in ("tower", "tower, broken")]
    assert videos[0] == parts_of_a_tower * 2 * OPTIONS["max_steps"] > videos[1]
    assert results["tower"][0]["resumed"] == results["tower"][0]["steps"]


@pytest.mark.timeout(1000)
def test_processes_encode_a_video_once_for_a_step(results):
    """Each batch holds one row; the third step's video is shown in both processes, two rows each."""
    once, often = results["spread"], results["spread, often"]
    check(once)
    assert once[0]["resumed"] == once[0]["steps"]
    assert once[0]["steps"] == [pytest.approx(step, rel=1e-5, abs=1e-7) for step in often[0]["steps"]]
    assert once[0]["sums"] == pytest.approx(often[0]["sums"], rel=1e-4, abs=1e-4)
    assert (once[0]["videos"], often[0]["videos"]) == (4, 12)


@pytest.mark.timeout(1000)
@pytest.mark.parametrize("trainer", ["grpo", "sft"])
def test_processes_share_the_rows_of_an_evaluation(trainer, results):
    """Both know the mean over all rows, of which one asks three and the other two."""
    first, second = results[f"evaluated, {trainer}"]
    assert first["evaluations"] == second["evaluations"] and first["steps"] == second["steps"]
    assert len(first["evaluations"]) == OPTIONS["max_steps"]
    assert all(0.1 <= value <= 0.9 for each in first["evaluations"] for value in each.values())
    assert all(set(each) == {"eval_accuracy/events", "eval_accuracy/full"} for each in first["evaluations"])


@pytest.mark.timeout(1000)
def test_a_process_that_lacks_a_group_draws_with_the_others(results):
    """The row that cannot be read is the second process's, and the group that is drawn instead is not in every run."""
    first, second = results["dynamic sampling"]
    assert first == second and first["resumed"] == first["steps"]
    assert not first["still"] and all(step["grad_norm"] > 0 for step in first["steps"])


@pytest.mark.timeout(1000)
def test_processes_learn_the_same_about_what_to_draw(results):
    """The curriculum knows the answers of both, the selection the rewards of both; a checkpoint has them."""
    first, second = results["drawing"]
    assert first == second and first["resumed"] == first["steps"]
    assert set(first["learned beside"]) == {"curriculum", "selection"}
    assert (
        len(first["learned beside"]["curriculum"]["student"]) >= 2
        and first["learned beside"]["curriculum"]["generation"] == 3
    )
    assert len(set(first["learned beside"]["selection"]["preferences"].values())) == 2


@pytest.mark.timeout(1000)
@pytest.mark.parametrize("trainer", ["grpo", "sft"])
def test_a_later_epoch_is_resumed_and_skipped_rows_are_counted(trainer, results):
    """The row that cannot be read is the second process's."""
    assert all(first == second for first, second in (results[f"{case}, {trainer}"] for case in ("later", "broken")))
    steps = results[f"later, {trainer}"][0]["steps"]
    assert len(steps) == LATER["max_steps"] and results[f"later, {trainer}"][0]["resumed"] == steps
    rows = 1 if trainer == "sft" else OPTIONS["num_generations"]
    assert [step["bad_videos"] for step in results[f"broken, {trainer}"][0]["steps"]] == [0, 0, rows]


@pytest.fixture(scope="module")
def deepspeed(files, tmp_path_factory) -> tuple[dict[str, list[dict]], Path]:
    output = tmp_path_factory.mktemp("deepspeed")
    plain = {"ddp": {}, "ddp, spread": SPREAD, "ddp, qlora": QLORA, "sft, ddp": SFT, "tower, ddp": TOWER}
    plain["ddp, evaluated"] = EVALUATED
    plain |= {f"ddp, {case}": options for case, options in TAUGHT.items()}
    return run(files, output, {**plain, **DEEPSPEED}, timeout=3000), output


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("case", DEEPSPEED)
def test_deepspeed(case, deepspeed):
    """Every weight moves, the processes stay equal, and nobody waits for the other."""
    ranks = deepspeed[0][case]
    check(
        ranks,
        tower_moves="frozen" not in case and "lora" not in case,
        asked=(2, 0) if "online teacher" in case else (0, 0),
    )


@pytest.mark.slow
@pytest.mark.parametrize("case", TAUGHT)
@pytest.mark.parametrize("zero", ["zero2", "zero3"])
def test_deepspeed_teaches_as_ddp(zero, case, deepspeed):
    results = deepspeed[0]
    ours, theirs = (results[f"{launch}, {case}"][0] for launch in (zero, "ddp"))
    assert ours["asked"] == theirs["asked"]
    for step, expected in zip(ours["steps"], theirs["steps"], strict=True):
        assert step == pytest.approx(expected, rel=1e-3, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "plain"),
    [
        *(
            (f"{trainer}{zero}{shape}", f"{trainer}ddp{shape}")
            for zero in ("zero2", "zero3")
            for trainer, shape in (("", ""), ("", ", spread"), ("sft, ", ""))
        ),
        ("tower, zero2", "tower, ddp"),
    ],
)
def test_deepspeed_equals_ddp_and_resumes(case, plain, deepspeed):
    results, output = deepspeed
    ours, theirs = results[case][0], results[plain][0]
    for step, expected in zip(ours["steps"], theirs["steps"], strict=True):
        assert step == pytest.approx(expected, rel=1e-3, abs=1e-6)
    assert ours["sums"] == pytest.approx(theirs["sums"], rel=1e-2, abs=1e-2)
    assert ours["resumed"] == ours["steps"]
    model, _ = load_model(output / case / "saved", device="cpu")
    root = model.model if case.startswith("tower") else model
    saved = {name: weight.double().sum().item() for name, weight in root.named_parameters()}
    assert {name: saved[name] for name in ours["sums"]} == pytest.approx(ours["sums"], abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("adapters", ["lora", "qlora"])
@pytest.mark.parametrize("zero", ["zero2", "zero3"])
def test_adapters_resume_under_deepspeed(zero, adapters, deepspeed):
    first, second = deepspeed[0][f"{zero}, {adapters}"]
    assert first["resumed"] == first["steps"] == second["steps"]
    saved = load_file(deepspeed[1] / f"{zero}, {adapters}" / "saved" / "adapter_model.safetensors")
    assert len(saved) == len(first["sums"])
    total = sum(weight.double().sum().item() for weight in saved.values())
    assert total == pytest.approx(sum(first["sums"].values()), abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("zero", ["zero2", "zero3"])
def test_four_bits_under_deepspeed_learn_what_they_do_under_ddp(zero, deepspeed):
    """There adapters, which are in bfloat16, have no float32 copy."""
    ours, theirs = (deepspeed[0][f"{launch}, qlora"][0] for launch in (zero, "ddp"))
    for step, expected in zip(ours["steps"], theirs["steps"], strict=True):
        assert step == pytest.approx(expected, rel=1e-2, abs=1e-6)


@pytest.mark.slow
def test_an_evaluation_under_zero3_is_that_of_ddp(deepspeed):
    ours, theirs = (deepspeed[0][case] for case in ("zero3, evaluated", "ddp, evaluated"))
    assert ours[0]["evaluations"] == ours[1]["evaluations"] == theirs[0]["evaluations"]
