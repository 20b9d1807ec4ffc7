"""Mutated files of every kind, given to the functions that read them.

A trial is some mutants of one kind. Each is given to one reader, which must give a result or raise its documented
error in its time; a decoding process may be lost, this one may not. Where a change lies beside the pictures, what is
read must be what was read before. Memory, descriptors, processes and files are counted along the way.

    python -m robustness.mutants --minutes 30 --seed 1
    python -m robustness.mutants --seed 1 --trial 17     # one trial again, whatever came of it before

Mutants exist in a temporary folder for as long as they are read.
"""

from __future__ import annotations

import gc
import logging
import os
import re
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from marc.data.row_files import raw_rows
from marc.data.rows import parse_rows
from marc.memory.store import DamagedMemoryError, load_memory
from marc.video import VideoError, probe, read_frames, read_subtitles, read_to, skim_to, stream_frames
from marc.video.limits import limits_of
from marc.video.options import DecodeLimits
from marc.video.pictures import is_picture, picture_size, read_picture
from marc.video.process import POOL
from marc.video.requests import EveryFrame, SampledFrames
from robustness.mutations import Structure, mutated, mutated_beside
from robustness.report import Campaign, parser
from robustness.samples import PICTURES, RATE, SUBTITLES, samples

MUTANTS = 50
"""Of a trial."""
LIMIT = 10.0
"""Seconds that a reader is given for a result."""
SLACK = 10.0
"""Seconds that ending a process and starting another may take on a busy machine."""
MEMORY = DecodeLimits(memory_gib=1.0, video_pixels=2**22, picture_pixels=2**22, frames=20_000, hours=0.1)
BESIDE = 0.2
"""Share of mutants that are changed beside the pictures, where a kind has such a place."""
TIMES = np.array([0.0, 3.2, 7.4]) / RATE
MOST_GROWTH = 96 * 2**20
MOST_RESULTS = 200

Reader = Callable[[Path], Any]


class Listener:
    """Takes what it is given.

    Args:
        request: What it asks for.
    """

    def __init__(self, request: Any) -> None:
        self.request = request

    def consume(self, frames: Any) -> None:
        """Looks at them."""
        _check_frames(frames)


def _check_frames(frames: Any) -> Any:
    assert frames.rgb.ndim == 4 and frames.rgb.shape[3] == 3 and len(frames.rgb) == len(frames.seconds) > 0
    assert np.isfinite(frames.seconds).all() and (np.diff(frames.seconds) >= 0).all()
    return frames


def _probe(path: Path) -> Any:
    info = probe(path, timeout=LIMIT)
    assert info.width > 0 and info.height > 0 and info.frame_count > 0, info
    assert 0 < info.duration < np.inf and 0 < info.fps < np.inf, info
    return info


def _read(path: Path) -> Any:
    return _check_frames(read_frames(path, TIMES, min_pixels=1, max_pixels=4096, factor=2, timeout=LIMIT))


def _sample(path: Path) -> Any:
    return _check_frames(read_frames(path, max_frames=6, min_pixels=1, max_pixels=4096, factor=2, timeout=LIMIT))


def _stream(path: Path) -> None:
    for number, frames in enumerate(stream_frames(path, width=32, height=24, batch=4, timeout=LIMIT)):
        _check_frames(frames)
        if number > MOST_RESULTS:
            break


def _read_to(path: Path) -> None:
    listeners = [Listener(EveryFrame(16, 16, 8, takes_held=True)), Listener(SampledFrames(0.1, 1024))]
    read_to(path, listeners, rough=True, timeout=LIMIT)


def _skim_to(path: Path) -> None:
    listeners = [Listener(EveryFrame(16, 16, 8, takes_held=True)), Listener(SampledFrames(0.1, 1024))]
    skim_to(path, listeners, timeout=LIMIT)


def _track(path: Path) -> Any:
    return read_subtitles(path, timeout=LIMIT)


def _picture(path: Path) -> Any:
    return np.asarray(read_picture(path, timeout=LIMIT))


def _size(path: Path) -> Any:
    is_picture(path, timeout=LIMIT)
    width, height = picture_size(path, timeout=LIMIT)
    assert width > 0 and height > 0


def _rows(path: Path) -> None:
    parse_rows(raw_rows(path), path.parent)


VIDEO_READERS: tuple[Reader, ...] = (_probe, _read, _sample, _stream, _read_to, _skim_to, _track)
PICTURE_READERS: tuple[Reader, ...] = (_picture, _size, _probe)


@dataclass
class Attack:
    """Gives mutants to readers and keeps what came of it.

    Attributes:
        folder: Where the samples are, and one mutant at a time.
        made: A sample of every kind and how it is built.
    """

    folder: Path
    made: dict[str, tuple[bytes, Structure]]
    _known: dict[str, Any] = field(default_factory=dict)

    @property
    def kinds(self) -> list[str]:
        """Their names."""
        return list(self.made)

    def trial(self, kind: str, random: Callable[[int], Random], count: int) -> tuple[list[str], Counter[str]]:
        """Some mutants of a kind.

        Args:
            kind: One of `kinds`.
            random: Source of random numbers of each mutant.
            count: How many.

        Returns:
            What did not hold, and what came of the mutants.
        """
        failures, outcomes = list[str](), Counter[str]()
        for number in range(count):
            try:
                outcomes[self._attack(kind, random(number))] += 1
            except Exception as error:
                place = traceback.extract_tb(error.__traceback__)[-1]
                said = f"{type(error).__name__}: {str(error)[:300]}"
                failures.append(f"mutant {number}: {said} ({Path(place.filename).name}:{place.lineno})")
        return failures, outcomes

    def _attack(self, kind: str, chance: Random) -> str:
        data, structure = self.made[kind]
        beside = mutated_beside(data, structure, chance) if chance.random() < BESIDE else None
        others = [content for content, _ in self.made.values()]
        path = self.folder / f"mutant{Path(kind).suffix}"
        path.write_bytes(mutated(data, structure, chance, others) if beside is None else beside)
        begin = time.monotonic()
        try:
            if beside is not None:
                return self._compare(kind, path)
            self._reader(kind, chance)(path)
            return "read"
        except (VideoError, DamagedMemoryError) as error:
            return _kind_of(error)
        except ValueError:
            if kind.startswith("rows"):
                return "refused"
            raise
        finally:
            path.unlink()
            assert time.monotonic() - begin < LIMIT + SLACK + 5 * (kind not in PICTURES), "took too long"

    def _reader(self, kind: str, chance: Random) -> Reader:
        if kind.startswith("rows"):
            return _rows
        if kind == "memory.marc":
            return load_memory
        if kind in SUBTITLES:
            return lambda path: read_subtitles(self.folder / "h264.mp4", path, timeout=LIMIT)
        return chance.choice(PICTURE_READERS if kind in PICTURES else VIDEO_READERS)

    def _compare(self, kind: str, path: Path) -> str:
        """Reads what was changed beside the pictures and holds it against the sample."""
        read = _picture if kind in PICTURES else _read
        if kind not in self._known:
            (self.folder / f"whole{path.suffix}").write_bytes(self.made[kind][0])
            self._known[kind] = _pixels(read(self.folder / f"whole{path.suffix}")).copy()
        found = _pixels(read(path))
        assert np.array_equal(found, self._known[kind]), "a wrong frame was taken for right"
        return "same"


def _pixels(result: Any) -> Any:
    return result if isinstance(result, np.ndarray) else result.rgb


def _kind_of(error: Exception) -> str:
    """What an error says of the decoding process."""
    if "the decoder gave nothing for" in str(error):
        return "stopped"
    if "the decoder crashed" in str(error):
        return "crashed"
    return "unforeseen" if "not foreseen" in str(error) else "refused"


def resident(pid: int | str = "self") -> int:
    """Bytes of memory that a process has now."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _peak(pid: int) -> int:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) * 1024 if found else 0


@dataclass(frozen=True)
class Baseline:
    """What this process had before the campaign.

    Attributes:
        resident: Bytes of memory.
        descriptors: Open ones.
        files: In the folder of mutants and that of temporary files.
    """

    resident: int
    descriptors: int
    files: tuple[int, int]

    @classmethod
    def now(cls, folder: Path) -> Baseline:
        """That of this moment."""
        gc.collect()
        files = len(os.listdir(folder)), sum(name.startswith("marc") for name in os.listdir(tempfile.gettempdir()))
        return cls(resident(), len(os.listdir("/proc/self/fd")), files)

    def faults(self, folder: Path) -> tuple[list[str], dict[str, float]]:
        """What was left behind since, and the figures."""
        now = Baseline.now(folder)
        peaks = [_peak(process.pid) for process in list(POOL._all) if process.is_alive()]
        measured = {"parent_mib": now.resident / 2**20, "child_mib": max(peaks, default=0) / 2**20}
        faults = []
        if now.resident - self.resident > MOST_GROWTH:
            faults.append(f"this process grew by {(now.resident - self.resident) / 2**20:.0f} MiB")
        if now.descriptors - self.descriptors > 8:
            faults.append(f"{now.descriptors - self.descriptors} descriptors were left open")
        if max(peaks, default=0) > (MEMORY.memory_gib + 0.25) * 2**30:
            faults.append(f"a decoding process had {max(peaks) / 2**20:.0f} MiB")
        if len(peaks) > 4:
            faults.append(f"{len(peaks)} decoding processes are there")
        if now.files[0] > self.files[0] + 40:
            faults.append("files were left behind")
        return faults, {name: round(value, 1) for name, value in measured.items()}


def run(campaign: Campaign, folder: Path, *, mutants: int = MUTANTS, only: int | None = None) -> None:
    """Does the trials that are to come.

    Args:
        campaign: Keeps them.
        folder: For samples and mutants.
        mutants: Of each trial.
        only: One trial, again.
    """
    attack = Attack(folder, samples(folder))
    probe(folder / "h264.mp4")
    baseline = Baseline.now(folder)
    trials = campaign.remaining() if only is None else [(only, campaign.random(only))]
    for number, _ in trials:
        kind = attack.kinds[number % len(attack.kinds)]
        failures, outcomes = attack.trial(kind, lambda index, trial=number: campaign.random(trial, index), mutants)  # type: ignore[misc]
        faults, measured = baseline.faults(folder)
        campaign.add(number, kind, mutants, [*failures, *faults], {**measured, **outcomes})


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the program; gives its exit status."""
    options = parser(__doc__, minutes=10)
    options.add_argument("--trial", type=int, help="only this one, again")
    chosen = options.parse_args(arguments)
    os.environ.setdefault("SVT_LOG", "1")
    logging.getLogger("marc").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder, limits_of(MEMORY):
        if chosen.trial is not None:
            chosen.output = str(Path(folder) / "one.jsonl")
        campaign = Campaign.of("mutants", chosen)
        run(campaign, Path(folder), only=chosen.trial)
        outcomes = Counter[str]()
        for trial in campaign.trials:
            outcomes.update({name: int(value) for name, value in trial.measured.items() if not name.endswith("_mib")})
        print("outcomes:", ", ".join(f"{count} {name}" for name, count in outcomes.most_common()))
        return campaign.finish()


if __name__ == "__main__":
    raise SystemExit(main())
