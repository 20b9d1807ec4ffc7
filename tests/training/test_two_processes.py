"""Two processes whose rows differ in kind: one holds a video, the other a text."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = {
    "per_device_train_batch_size": 2,
    "num_generations": 2,
    "max_completion_length": 4,
    "max_steps": 2,
    "learning_rate": 1e-3,
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": "none",
    "use_cpu": True,
    "bf16": False,
    "ddp_backend": "gloo",
    "gradient_checkpointing": False,
    "disable_tqdm": True,
    "dataloader_pin_memory": False,
    "max_frames": 8,
    "alpha": 0.0,
}


def run(files: Path, output: Path, **options) -> list[dict]:
    """What both processes write at their end."""
    script = ROOT / "tests" / "training" / "helpers" / "two_processes.py"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    result = subprocess.run(
        [*launcher, script, files, output, json.dumps({**OPTIONS, **options})],
        env={**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return [json.loads((output / f"rank-{rank}.json").read_text()) for rank in range(2)]


def test_processes_stay_equal(files, tmp_path):
    first, second = run(files, tmp_path)
    assert (first["rank"], second["rank"]) == (0, 1)
    assert first["tower"] == second["tower"]
    assert all(norm > 0 for norm in first["grad_norms"])
