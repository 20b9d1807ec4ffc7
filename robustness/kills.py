"""Kills what writes, at every step that it takes on disk, and looks whether what it had acknowledged is still there.

A trial is one kill: a child does the workload of one of the `robustness.stores`, and before its nth write, creation,
renaming, deletion or synchronisation, half way through its nth write, or after a random time, ends with SIGKILL. Then
new processes open what is left: as it is, and as a disk may have it that lost power at that moment
(`robustness.disk`). Nothing that was acknowledged may be lost, nothing half may be taken for whole, and the work that
goes on must end as if nothing had happened.

    python -m robustness.kills --minutes 30

Every store is killed at its steps one after another, then half way through its writes, then at random times; then all
begins again with other workloads. `--store NAME` attacks one alone. Needs a C compiler, Linux, and the extras.
"""

from __future__ import annotations

import logging
import os
import pickle
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from random import Random
from typing import Any

from robustness.disk import Contents, Disk, Recorder, acknowledged, compile_shim, contents_of, put_back, read_log
from robustness.report import Campaign, memory_folder, parser
from robustness.stores import STORES, Store

LOSSES = 4
"""States of the disk after a loss of power that are tried for each kill."""
_SECONDS = 120.0
_HOW = ("before a step", "half way through a write", "at a random time")


@dataclass(frozen=True)
class Place:
    """Where a store is attacked.

    Attributes:
        folder: The store.
        log: Steps of the last child.
        inputs: What workloads read.
    """

    folder: Path
    log: Path
    inputs: Path

    @classmethod
    def within(cls, parent: Path) -> Place:
        """Makes one."""
        place = cls(parent / "store", parent / "log", parent / "inputs")
        place.inputs.mkdir()
        return place

    def clear(self) -> None:
        """Empties the store."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        self.log.write_bytes(b"")


@dataclass(frozen=True)
class Whole:
    """What a workload does that nobody kills.

    Attributes:
        result: What is in the store in the end.
        steps: How many it takes.
        seconds: How long it takes.
    """

    result: Any
    steps: int
    seconds: float


def in_child(work: Callable[[], Any], seconds: float = _SECONDS, *, kill: bool = False) -> tuple[int, Any]:
    """Has a child of this process do something.

    Args:
        work: What to do.
        seconds: After so long the child is killed.
        kill: Whether that is what is wanted.

    Returns:
        The signal that ended the child, or 0, and what it gave: a result, or a text about its exception.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        try:
            value: Any = work()
        except BaseException as error:  # whatever it is, it is the finding
            value = f"{type(error).__name__}: {error}"
        with os.fdopen(writer, "wb") as pipe:
            pickle.dump(value, pipe)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        content, late = _read_until(pipe.fileno(), time.monotonic() + seconds)
    if late:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if late and not kill:
        return signal.SIGALRM, f"not done after {seconds:g} s"
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0, pickle.loads(content) if content else None


def _read_until(pipe: int, end: float) -> tuple[bytes, bool]:
    """What comes through a pipe, and whether the time was over before its end."""
    import select

    parts: list[bytes] = []
    while (left := end - time.monotonic()) > 0:
        if not select.select([pipe], [], [], left)[0]:
            break
        part = os.read(pipe, 1 << 20)
        if not part:
            return b"".join(parts), False
        parts.append(part)
    return b"", True


def whole_run(store: Store, place: Place) -> Whole:
    """Does a workload to its end.

    Raises:
        RuntimeError: It fails.
    """
    place.clear()
    began = time.monotonic()

    def work() -> Any:
        return "result", store.work(place.folder, Recorder(place.folder, place.log).acknowledge)

    _, outcome = in_child(work)
    if not isinstance(outcome, tuple):
        raise RuntimeError(f"{store.name} fails without a kill: {outcome}")
    steps = [step for step in read_log(place.log) if step.kind != "A"]
    return Whole(outcome[1], len(steps), time.monotonic() - began)


def kill(store: Store, place: Place, how: str, step: int, seconds: float) -> int:
    """Does a workload up to a kill.

    Args:
        store: Whose.
        place: Where.
        how: One of the three ways.
        step: Before or in which one.
        seconds: After which time.

    Returns:
        The signal that ended it; 0 if it ended before.
    """
    place.clear()
    last = 0 if how == "at a random time" else step

    def work() -> None:
        recorder = Recorder(place.folder, place.log, last, torn=how == "half way through a write")
        store.work(place.folder, recorder.acknowledge)

    ended, _ = in_child(work, _SECONDS if last else seconds, kill=True)
    return ended


def judged(store: Store, place: Place, done: Sequence[str], expected: Any) -> list[str]:
    """Opens what is left in a new process, goes on with it, and says what is wrong."""

    def work() -> list[str]:
        problems = store.problems(place.folder, done)
        result = store.work(place.folder, lambda _: None, done)
        return problems + ([] if result == expected else ["work that went on ended otherwise than uninterrupted work"])

    _, problems = in_child(work)
    return problems if isinstance(problems, list) else [str(problems)]


def attack(store: Store, place: Place, whole: Whole, how: str, step: int, random: Random) -> tuple[int, list[str]]:
    """One kill, and all states of the disk that are looked at after it.

    Returns:
        How many states there were, and what was wrong with them.
    """
    ended = kill(store, place, how, step, random.uniform(0, whole.seconds))
    steps = list(read_log(place.log))
    done = acknowledged(steps)
    left = contents_of(place.folder)
    where = f"killed {how}{f' {step} of {whole.steps}' if how in _HOW[:2] else ''}"
    problems = [f"{where}: {text}" for text in judged(store, place, done, whole.result)]
    if ended == 0 or how == "at a random time" or not store.survives_power:
        return 1, problems
    place.clear()
    disk = Disk(place.folder)
    for each in steps:
        disk.apply(each)
    disk.settle(left)
    if unknown := differing(disk.after_kill(), left):
        return 1, [*problems, f"{where}: the log of steps does not say what became of {unknown}"]
    seen = [left]
    for _ in range(LOSSES):
        state = disk.after_loss(random)
        if state in seen:
            continue
        seen.append(state)
        put_back(place.folder, state)
        problems += [f"{where}, power lost: {text}" for text in judged(store, place, done, whole.result)]
    return len(seen), problems


def differing(one: Contents, other: Contents) -> list[str]:
    """Paths at which two folders differ."""
    return sorted(path for path in {*one, *other} if one.get(path, 0) != other.get(path, 0))


class Plan:
    """Which store is attacked in which way in which trial.

    Args:
        campaign: Gives the random numbers.
        place: Where.
        kinds: Kinds of stores.
    """

    def __init__(self, campaign: Campaign, place: Place, kinds: Sequence[type[Store]]) -> None:
        self._campaign, self._place = campaign, place
        self._turns = list(chain.from_iterable([kind] * kind.weight for kind in kinds))
        campaign.random("turns").shuffle(self._turns)
        self._runs: dict[tuple[str, int], tuple[Store, Whole]] = {}

    def trial(self, number: int) -> tuple[Store, Whole, str, int]:
        """Store, what it does uninterrupted, the way of the kill and its step."""
        rounds, turn = divmod(number, len(self._turns))
        kind = self._turns[turn]
        count = rounds * kind.weight + self._turns[:turn].count(kind)
        variant = 0
        while count >= len(_HOW) * self._run(kind, variant)[1].steps:
            count -= len(_HOW) * self._run(kind, variant)[1].steps
            variant += 1
        store, whole = self._run(kind, variant)
        way, step = divmod(count, whole.steps)
        return store, whole, _HOW[way], step + 1

    def _run(self, kind: type[Store], variant: int) -> tuple[Store, Whole]:
        key = kind.name, variant
        if key not in self._runs:
            store = kind(self._campaign.random(*key), self._place.inputs)
            self._runs[key] = store, whole_run(store, self._place)
        return self._runs[key]


def run(campaign: Campaign, place: Place, kinds: Sequence[type[Store]] = STORES) -> None:
    """Kills until the campaign is over.

    Args:
        campaign: Keeps what came of each trial.
        place: Where.
        kinds: Kinds of stores.
    """
    plan = Plan(campaign, place, kinds)
    for number, random in campaign.remaining():
        store, whole, how, step = plan.trial(number)
        states, problems = attack(store, place, whole, how, step, random)
        campaign.add(number, store.name, states, problems)


def main() -> int:
    """Runs the program."""
    options = parser(__doc__, minutes=30)
    options.add_argument("--store", choices=[kind.name for kind in STORES], help="attack this one alone")
    chosen = options.parse_args()
    if "MARC_SHIM" not in os.environ:
        return _start_again()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    kinds = [kind for kind in STORES if chosen.store in (None, kind.name)]
    name = "kills" if chosen.store is None else f"kills-{chosen.store.replace(' ', '-')}"
    with tempfile.TemporaryDirectory(prefix="marc-kills-", dir=memory_folder()) as folder:
        campaign = Campaign.of(name, chosen)
        run(campaign, Place.within(Path(folder).resolve()), kinds)
    return campaign.finish()


def environment(shim: Path) -> dict[str, str]:
    """The environment of a process whose steps are counted, and which starts no threads of its own."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    more = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    return {**os.environ, **threads, **more, "LD_PRELOAD": str(shim), "MARC_SHIM": str(shim)}


def _start_again() -> int:
    """Runs this program with the shim."""
    import subprocess

    with tempfile.TemporaryDirectory(prefix="marc-shim-") as folder:
        try:
            shim = compile_shim(Path(folder))
        except ValueError as error:
            print(error, file=sys.stderr)
            return 2
        command = [sys.executable, "-m", "robustness.kills", *sys.argv[1:]]
        try:
            return subprocess.run(command, env=environment(shim), check=False).returncode
        except KeyboardInterrupt:
            return 130


if __name__ == "__main__":
    sys.exit(main())
