"""Peak memory of one piece of work, above what was there before it.

On a GPU it is what torch's allocator holds; on a CPU with Linux the resident set of this process, whose high-water
mark the kernel lets one reset (``/proc/self/clear_refs``), after the C library has given back what it only keeps.
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path

import torch

_PROCESS = Path("/proc/self")
_RESET_HIGH_WATER_MARK = "5"


def resident_bytes() -> int | None:
    """Resident set of this process; ``None`` where the system does not say."""
    return _status("VmRSS")


def peak_bytes_above(work: Callable[[], object], device: torch.device) -> int | None:
    """Runs something and returns by how much memory rose in between.

    Args:
        work: What to run.
        device: Where its tensors are.

    Returns:
        Bytes; ``None`` on a CPU whose system does not say.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    return _resident_rise(work)


def _resident_rise(work: Callable[[], object]) -> int | None:
    if not (_PROCESS / "clear_refs").exists():
        return None
    ctypes.CDLL(None).malloc_trim(0)
    (_PROCESS / "clear_refs").write_text(_RESET_HIGH_WATER_MARK)
    before = _status("VmRSS")
    work()
    peak = _status("VmHWM")
    return None if before is None or peak is None else peak - before


def _status(name: str) -> int | None:
    """A size of ``/proc/self/status`` in bytes."""
    if not (_PROCESS / "status").exists():
        return None
    lines = (_PROCESS / "status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024
