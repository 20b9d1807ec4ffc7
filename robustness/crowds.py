"""Processes that add to one library, ask it, forget and compact it, all at the same time, against a model in memory.

A trial is a new library and a few rounds. In a round every process does some changes and questions; some run into a
full disk (a limit on the size of files), and a process may be killed. Every answer must be one that some order of the
changes allows in which a change that had ended before another began comes first; after each round all processes must
read the same. In some trials the library's folder cannot be written to, or vanishes: then changes must fail with the
documented errors, and what is read must be as before, or whole.

    python -m robustness.crowds --minutes 30 --processes 8
"""

from __future__ import annotations

import math
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from marc.io import sha256_of
from marc.memory.library import LibraryError, MemoryLibrary
from marc.memory.store import VideoMemory
from robustness.memories import Asker, some_memory, vectors
from robustness.report import Campaign, memory_folder, parser

ROUNDS = 6
CHANGES = 6
"""Changes and questions of a process in a round."""
QUERY_D = vectors([0], 1)[0]
_NOBODY = 65534
_SECONDS = 600.0

Version = tuple[int, int] | None
"""What a library holds of a video: number of its version and of its events; None for nothing."""
Contents = Mapping[str, Version]


@dataclass(frozen=True)
class Action:
    """What a process does.

    Attributes:
        kind: ``"add"``, ``"forget"``, ``"compact"`` or ``"ask"``.
        writes: What it changes, by the path of the video.
        limit: Largest file in bytes that can be written meanwhile; None for no limit.
        is_nobody: Whether it is done without the right to write.
    """

    kind: str
    writes: tuple[tuple[str, Version], ...] = ()
    limit: int | None = None
    is_nobody: bool = False


@dataclass
class Done:
    """An action that began, and what became of it.

    Attributes:
        action: The action.
        start: When it began, in seconds of the system's clock.
        end: When it ended; infinity if it never did.
        problem: The documented error that it failed with; an empty text if none.
        contents: What an answer showed.
    """

    action: Action
    start: float
    end: float = math.inf
    problem: str = "never ended"
    contents: Contents = field(default_factory=dict)


def memory_of(video: str, version: int, events: int) -> VideoMemory:
    """The memory of a version of a video; no two have the same content."""
    return some_memory(video, sha256_of(video, f" {version} {events}"), version, events)


def contents(library: MemoryLibrary) -> dict[str, Version]:
    """What a library says it holds.

    Raises:
        AssertionError: A video is not whole, doubled, mixed of two versions, or its vectors are not those that were
            added.
    """
    asker: Any = Asker(QUERY_D)
    videos: dict[str, list[Any]] = {}
    for found in library.recall(asker, "What was spoken?", k=10_000):
        videos.setdefault(found.source, []).append(found)
    held: dict[str, Version] = {}
    for video, events in videos.items():
        events.sort(key=lambda found: found.position)
        version = round((events[0].event.end - 1) * 1000) if events[0].position == 0 else -1
        memory = memory_of(video, max(0, version), len(events))
        name = Path(video).name
        assert [found.position for found in events] == list(range(len(events))), f"{name} is not whole, or is doubled"
        assert {found.content for found in events} == {memory.content}, f"{name} is of two versions"
        assert [found.event for found in events] == list(memory.events), f"{name} has other times"
        assert {found.text for found in events} == {_text(version)}, f"{name} has other texts"
        scores = [found.score for found in events]
        np.testing.assert_allclose(scores, memory.embeddings @ QUERY_D, atol=1e-5, err_msg=f"{name} has other vectors")
        held[video] = version, len(events)
    return held


def _text(version: int) -> str:
    return f"spoken {version}" if version % 3 else ""


def act(library: MemoryLibrary, action: Action) -> Contents:
    """Does an action, and gives what an answer showed."""
    if action.kind == "ask":
        return contents(library)
    if action.kind == "add":
        versions = [(video, *version) for video, version in action.writes if version]
        texts = [[_text(version)] * events for _, version, events in versions]
        library.add([memory_of(*each) for each in versions], texts)
    elif action.kind == "forget":
        for video, _ in action.writes:
            library.remove(video)
    else:
        library.optimize()
    return {}


@contextmanager
def _hindered(action: Action) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    if action.limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (action.limit, hard))
    if action.is_nobody:
        os.seteuid(_NOBODY)
    try:
        yield
    finally:
        if action.is_nobody:
            os.seteuid(0)
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def member(connection: Connection) -> None:
    """What a process of the crowd does: takes actions, and tells when each begins and what becomes of it."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.simplefilter("ignore")
    with suppress(EOFError, BrokenPipeError):  # whoever asked is gone
        while True:
            _do(connection, *connection.recv())


def _do(connection: Connection, address: str, actions: Sequence[Action]) -> None:
    library = MemoryLibrary(address)
    for action in actions:
        connection.send(("start", time.monotonic(), action))
        problem, shown = "", {}
        try:
            with _hindered(action):
                shown = dict(act(library, action))
        except (LibraryError, ValueError) as error:
            problem = str(error) or repr(error)
        except Exception as error:  # whatever it is, it is the finding
            problem = f"{type(error).__name__}: {error}"[:500]
            connection.send(("wrong", f"{action.kind}: {problem}"))
        connection.send(("end", time.monotonic(), problem, shown))
    connection.send(("idle",))


class Crowd:
    """Processes that wait for something to do.

    Args:
        count: How many.
    """

    def __init__(self, count: int) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._members = [self._new() for _ in range(count)]

    def _new(self) -> tuple[Any, Connection]:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=member, args=(theirs,), daemon=True)
        process.start()
        theirs.close()
        return process, ours

    def __len__(self) -> int:
        return len(self._members)

    def round(
        self, address: str, actions: Sequence[Sequence[Action]], killed: int | None = None, after: float = 0.0
    ) -> tuple[list[list[Done]], list[str]]:
        """Has each process do its actions, all at the same time.

        Args:
            address: Of the library.
            actions: Of each process.
            killed: Which process is killed.
            after: How many seconds after the beginning.

        Returns:
            What was done by each, and what should not have happened.
        """
        done: list[list[Done]] = [[] for _ in actions]
        wrong: list[str] = []
        end = time.monotonic() + _SECONDS
        for (_, connection), theirs in zip(self._members, actions, strict=True):
            connection.send((address, list(theirs)))
        busy = {connection: number for number, (_, connection) in enumerate(self._members)}
        kill_at = time.monotonic() + after if killed is not None else math.inf
        while busy and time.monotonic() < end:
            for ready in wait(list(busy), timeout=min(1.0, max(0.0, kill_at - time.monotonic()))):
                assert isinstance(ready, Connection)
                if _takes(ready, done[busy[ready]], wrong):
                    del busy[ready]
            if killed is not None and time.monotonic() >= kill_at:
                self._members[killed][0].kill()
                kill_at = math.inf
        wrong += [f"process {number} hangs" for number in busy.values()]
        for number in {*busy.values(), *([] if killed is None else [killed])}:
            self._replace(number)
        return done, wrong

    def _replace(self, number: int) -> None:
        process, connection = self._members[number]
        process.kill()
        process.join()
        connection.close()
        self._members[number] = self._new()

    def leave(self) -> None:
        """Ends all processes."""
        for process, _ in self._members:
            process.kill()
            process.join()


def _takes(connection: Connection, done: list[Done], wrong: list[str]) -> bool:
    """Takes a message in; says whether the process has nothing more to tell."""
    try:
        kind, *values = connection.recv()
    except (EOFError, ConnectionError):
        return True
    if kind == "start":
        done.append(Done(values[1], values[0]))
    elif kind == "end":
        done[-1].end, done[-1].problem, done[-1].contents = values
    elif kind == "wrong":
        wrong.append(values[0])
    return kind == "idle"


def allowed(video: str, before: Contents, done: Iterable[Done], start: float, end: float) -> set[Version]:
    """What a library may hold of a video, for one who asks between two times.

    Args:
        video: Its path.
        before: What all agreed on at the beginning of the round.
        done: Changes of all processes.
        start: When the question began.
        end: When the answer was there.
    """
    writes = [(-math.inf, -math.inf, True, before.get(video))]
    for each in done:
        if video in (written := dict(each.action.writes)) and each.start < end:
            writes.append((each.start, each.end, not each.problem, written[video]))
    return {
        version
        for _, written_by, _, version in writes
        if not any(sure and later > written_by and over < start for later, over, sure, _ in writes)
    }


def problems_of(videos: Sequence[str], before: Contents, done: Sequence[Done]) -> list[str]:
    """Answers that no order of the changes allows."""
    problems = []
    for each in done:
        if each.action.kind != "ask" or each.problem:
            continue
        for video in videos:
            versions = allowed(video, before, done, each.start, each.end)
            if each.contents.get(video) not in versions:
                told = f"{each.contents.get(video)} where {versions} would be right"
                problems.append(f"an answer shows of {Path(video).name} {told}")
    return problems


class Trial:
    """A new library and what the crowd does to it.

    Args:
        crowd: The processes.
        folder: An empty folder.
        random: Chooses what they do.
    """

    def __init__(self, crowd: Crowd, folder: Path, random: Random) -> None:
        self._crowd, self._random = crowd, random
        self._address = folder / "library"
        (folder / "videos").mkdir()
        names = ["shared-0", "shared-1", "shared-2"]
        names += [f"own-{member}-{number}" for member in range(len(crowd)) for number in range(3)]
        self._videos = [str(folder / "videos" / f"{name}.mp4") for name in names]
        for video in self._videos:
            Path(video).touch()
        self._version = 0
        self.actions = 0
        self.problems: list[str] = []

    def run(self, kind: str) -> None:
        """Rounds of ordinary work, then one of the kind: ``"crowd"``, ``"read-only"`` or ``"vanishing"``."""
        first = self._add([self._videos[0]])
        held = self._read_by_all(self._round({}, [[first], *[[] for _ in range(len(self._crowd) - 1)]])[0])
        for _ in range(ROUNDS if kind == "crowd" else 2):
            killed = self._random.randrange(len(self._crowd)) if self._random.random() < 0.3 else None
            held, _ = self._round(held, self._plan(), killed, self._random.uniform(0, 3))
        if kind == "read-only":
            self._read_only_round(held)
        elif kind == "vanishing":
            self._vanishing_round()

    def _round(
        self,
        before: Contents,
        plan: Sequence[Sequence[Action]],
        killed: int | None = None,
        after: float = 0.0,
    ) -> tuple[Contents, list[Done]]:
        done, wrong = self._crowd.round(str(self._address), plan, killed, after)
        every = [each for theirs in done for each in theirs]
        self.actions += len(every)
        self.problems += wrong
        for each in every:
            if each.problem and each.end < math.inf and each.action.limit is None:
                self.problems.append(f"{each.action.kind} failed: {each.problem}")
        asked = [Done(Action("ask"), time.monotonic(), math.inf, "", {})]
        asked[0].contents = self._read_by_all(before)
        self.problems += problems_of(self._videos, before, [*every, *asked])
        return asked[0].contents, every

    def _read_by_all(self, otherwise: Contents) -> Contents:
        """What all processes read, which must be the same."""
        done, wrong = self._crowd.round(str(self._address), [[Action("ask")]] * len(self._crowd))
        self.problems += wrong
        self.problems += [f"reading failed: {each.problem}" for (each,) in done if each.problem]
        answers = [each.contents for (each,) in done if not each.problem]
        if any(answer != answers[0] for answer in answers):
            self.problems.append("two processes do not read the same after a round")
        return answers[0] if answers else otherwise

    def _plan(self) -> list[list[Action]]:
        return [[self._action(member) for _ in range(CHANGES)] for member in range(len(self._crowd))]

    def _action(self, member: int) -> Action:
        mine = self._videos[3 + 3 * member : 6 + 3 * member]
        kind = self._random.choices(["add", "forget", "compact", "ask"], [5, 2, 1, 4])[0]
        limit = self._random.choice([0, 300, 2000]) if kind != "ask" and self._random.random() < 0.1 else None
        if kind == "add":
            chosen = self._random.sample([*mine, *self._videos[:3]], self._random.choice([1, 1, 2, 4]))
            return self._add(chosen, limit)
        if kind == "forget":
            return Action(kind, ((self._random.choice([*mine, *self._videos[:3]]), None),), limit)
        return Action(kind, (), limit)

    def _add(self, videos: Sequence[str], limit: int | None = None) -> Action:
        writes = []
        for video in videos:
            self._version += 1
            writes.append((video, (self._version, self._random.randrange(1, 9))))
        return Action("add", tuple(writes), limit)

    def _read_only_round(self, held: Contents) -> None:
        """Nobody may write: no change succeeds, all answers are as before."""
        is_root = os.geteuid() == 0
        plan = [[Action(each.kind, each.writes, None, True) for each in theirs] for theirs in self._plan()]
        if not is_root:
            plan = [[Action(each.kind, each.writes) for each in theirs] for theirs in plan]
            _set_rights(self._address, 0o555)
        try:
            done, wrong = self._crowd.round(str(self._address), plan)
        finally:
            if not is_root:
                _set_rights(self._address, 0o755)
        every = [each for theirs in done for each in theirs]
        self.actions += len(every)
        self.problems += wrong
        for each in every:
            if (each.action.kind == "ask") == bool(each.problem):
                self.problems.append(f"{each.action.kind} in a read-only folder: {each.problem or 'succeeds'}")
            if each.action.kind == "ask" and not each.problem and each.contents != held:
                self.problems.append("an answer of a read-only library is not what it held")
        if self._read_by_all(held) != held:
            self.problems.append("a library that nobody could write to has changed")

    def _vanishing_round(self) -> None:
        """The folder goes while it is used: documented errors, and what is there afterwards is whole."""
        import threading

        away = self._address.with_name("away")
        timer = threading.Timer(self._random.uniform(0, 2), lambda: self._address.rename(away))
        timer.start()
        done, wrong = self._crowd.round(str(self._address), self._plan())
        timer.join()
        self.actions += sum(map(len, done))
        self.problems += [f"while the folder vanished: {problem}" for problem in wrong]
        nothing: list[list[Action]] = [[] for _ in range(len(self._crowd) - 1)]
        self._crowd.round(str(self._address), [[self._add(self._videos[:1])], *nothing])
        self._read_by_all({})


def _set_rights(folder: Path, rights: int) -> None:
    for path in (folder, *folder.rglob("*")):
        if path.is_dir():
            path.chmod(rights)


def kind_of(number: int) -> str:
    """The kind of a trial."""
    return {8: "read-only", 9: "vanishing"}.get(number % 10, "crowd")


def run(campaign: Campaign, processes: int) -> None:
    """Does trials until the campaign is over."""
    crowd = Crowd(processes)
    try:
        for number, random in campaign.remaining():
            with tempfile.TemporaryDirectory(prefix="marc-crowds-", dir=memory_folder()) as folder:
                os.chmod(folder, 0o755)
                trial = Trial(crowd, Path(folder), random)
                trial.run(kind_of(number))
                shutil.rmtree(folder, ignore_errors=True)
                os.makedirs(folder, exist_ok=True)
            campaign.add(number, kind_of(number), trial.actions, trial.problems)
    finally:
        crowd.leave()


def main() -> int:
    """Runs the program."""
    options = parser(__doc__, minutes=30)
    options.add_argument("--processes", type=int, default=8, help="how many share the library (default 8)")
    chosen = options.parse_args()
    campaign = Campaign.of("crowds", chosen)
    run(campaign, chosen.processes)
    return campaign.finish()


if __name__ == "__main__":
    sys.exit(main())
