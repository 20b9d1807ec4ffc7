"""Peak memory of one piece of work above what was there before it, and growth of memory over many.

On a GPU it is what torch's allocator holds; on a CPU with Linux the resident set of this process, whose high-water
mark the kernel lets one reset (``/proc/self/clear_refs``), after the C library has given back what it only keeps.
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import torch

from benchmarks.bench import LOOKS

if TYPE_CHECKING:
    from benchmarks.systems import System

_PROCESS = Path("/proc/self")
_RESET_HIGH_WATER_MARK = "5"


@dataclass(frozen=True)
class Growth:
    """Memory in use while many questions were asked.

    Attributes:
        questions: How many were asked when it was looked at.
        bytes: What was in use then.
    """

    questions: tuple[int, ...]
    bytes: tuple[int, ...]

    @property
    def after_warm_up(self) -> int:
        """Bytes that were added between the first look and the last."""
        return self.bytes[-1] - self.bytes[0]


def measure_growth(system: System, questions: int, device: torch.device, report: Callable[[str], None]) -> Growth:
    """Asks different questions about one video and looks at the memory `LOOKS` times, at even distances.

    What was read of the video is forgotten before every other question, so that it is read anew for one question and
    found again for the next.

    Args:
        system: What answers.
        questions: How many; at least `LOOKS`.
        device: Whose memory.
        report: Called with a line before each look.
    """
    looks = tuple(questions * look // LOOKS for look in range(1, LOOKS + 1))
    used = []
    for number in range(questions):
        if number % 2 == 0:
            system.forget()
        system.ask(f"What can be seen at second {number}, and what comes after it?")
        if number + 1 in looks:
            report(f"{number + 1} of {questions} questions in a row")
            used.append(memory_in_use(device))
    return Growth(looks, tuple(used))


def memory_in_use(device: torch.device) -> int:
    """Bytes: of torch's allocator on a GPU, else of the resident set."""
    gc.collect()
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    return psutil.Process().memory_info().rss


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
        work()
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
