"""Eight clients ask one server for a long time: bad videos, streams and clients that hang up among them.

The server is a process of `marc serve` on loopback with the embedded model; the videos are generated. What a lone
client is answered is asked first, at several budgets. Then many requests come from several clients at once, one in
five at another budget than the server's: every answer must be the lone client's, with its number of visual tokens,
every bad video the documented error, and who hangs up must harm nobody. In the middle the server is killed (SIGKILL)
and started again with the same folder: it must answer without cutting a video into events again, and a lone client as
before. After the first thousand requests of a process nothing may pile up in it: resident memory drifts by less than
1 %, and of processes, file descriptors, sockets and unfinished files there are never more than before.

    python -m robustness.visitors --requests 10000
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from statistics import quantiles
from threading import Event, Lock
from typing import Any

import psutil

from robustness.report import Campaign, parser
from robustness.soak import drift

VIDEOS, QUESTIONS = 6, 8
"""What is asked about, and questions about each."""
BAD, GONE, STREAMED = 0.05, 0.02, 0.1
"""Shares of requests about bad videos, of clients that hang up, of answers that come piece by piece by default."""
BUDGETS = (None, "full", "tokens:9")
"""The server's own, and others."""
OTHER = 0.2
"""Share of requests at one of these."""
BLOCK = 50
"""Requests between two measurements, for which all clients wait."""
WARM_UP = 1000
LARGEST_DRIFT = 0.01
SLOWEST = 3.0
"""So many times the median may an answer take that is the slowest of a hundred."""
START_SECONDS = 180.0
REST_SECONDS = 10.0
"""For so long the server may clear up behind those who hung up."""
COUNTED = ("processes", "file descriptors", "sockets", "unfinished files")
PATH = "/v1/chat/completions"


@dataclass(frozen=True)
class Visit:
    """One request.

    Attributes:
        task: What is asked: names the expected answer.
        body: What is sent.
        kind: ``"good"``, ``"bad"``, ``"streamed"`` or ``"gone"``.
        patience: Seconds after which the client hangs up, where it does.
    """

    task: str
    body: bytes
    kind: str
    patience: float = 0.0


@dataclass
class Seen:
    """What the clients met.

    Attributes:
        problems: What did not hold.
        seconds: Of each answer that came whole to a client who had not met the kill.
        tried: Requests by their kind.
    """

    problems: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    tried: dict[str, int] = field(default_factory=dict)


class Served:
    """A server as a process, which can be killed and started again on the same port and folder.

    Args:
        parent: Folder for all that it writes.
        videos: Folder that clients may name files in.
    """

    def __init__(self, parent: Path, videos: Path) -> None:
        self.folder, self._parent, self._videos = parent / "server", parent, videos
        self.ready = Event()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]

    def start(self) -> None:
        """Starts it and waits until it answers."""
        command = [sys.executable, "-m", "marc.cli", "serve", "--port", str(self.port), "--folder", str(self.folder)]
        temporary = self._parent / "temporary"
        temporary.mkdir(exist_ok=True)
        self._process = subprocess.Popen(
            [*command, "--allow-path", str(self._videos)],
            env={**os.environ, "TMPDIR": str(temporary), "XDG_CACHE_HOME": str(self._parent / "cache")},
            stdout=subprocess.DEVNULL,
        )
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end and self._process.poll() is None:
            with suppress(OSError):
                if self.ask("GET", "/health", b"")[0] == 200:
                    self.ready.set()
                    return
            time.sleep(0.2)
        raise RuntimeError("the server did not start")

    def kill(self) -> None:
        """Ends it as a loss of power would."""
        self.ready.clear()
        children = psutil.Process(self._process.pid).children(recursive=True)
        self._process.kill()
        self._process.wait()
        psutil.wait_procs(children, timeout=REST_SECONDS)

    def stop(self) -> int:
        """Asks it to end; gives its exit status."""
        self._process.terminate()
        return self._process.wait(60)

    def ask(self, method: str, path: str, body: bytes, kind: str = "application/json") -> tuple[int, str]:
        """One request by a client of its own; gives status and text."""
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            client.request(method, path, body, {"content-type": kind})
            reply = client.getresponse()
            return reply.status, reply.read().decode()
        finally:
            client.close()

    def hang_up(self, body: bytes, patience: float) -> None:
        """Sends a request and does not wait for its answer."""
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        client.request("POST", PATH, body, {"content-type": "application/json"})
        time.sleep(patience)
        client.close()

    def measure(self, usual: dict[str, float] | None = None) -> dict[str, float]:
        """What it holds at rest; given what it usually holds, it has some time to clear up."""
        end = time.monotonic() + REST_SECONDS
        while True:
            measured = self._measure()
            if usual is None or time.monotonic() > end or all(measured[each] <= usual[each] for each in COUNTED):
                return measured
            time.sleep(0.2)

    def _measure(self) -> dict[str, float]:
        process = psutil.Process(self._process.pid)
        return {
            "memory": process.memory_info().rss,
            "processes": len(process.children(recursive=True)),
            "file descriptors": process.num_fds(),
            "sockets": len(process.net_connections("inet")),
            "unfinished files": sum(1 for _ in self.folder.rglob(".*")),
        }

    def memories(self) -> dict[str, tuple[int, int]]:
        """Inode and time of each memory: those of one that is made again are others."""
        found = sorted((self.folder / "memories").iterdir())
        return {each.name: (each.stat().st_ino, each.stat().st_mtime_ns) for each in found}


def body_of(url: str, question: str, **more: Any) -> bytes:
    """A question about a file, as clients send it."""
    content = [{"type": "video_url", "video_url": {"url": url}}, {"type": "text", "text": question}]
    return json.dumps({"messages": [{"role": "user", "content": content}], **more}).encode()


def at(budget: str | None) -> dict[str, Any]:
    """What a request says about its budget."""
    return {} if budget is None else {"marc": {"budget": budget}}


def task_of(video: Path, question: str, budget: str | None) -> str:
    """Names what is asked, and at which budget."""
    return f"{video.name}, {budget or 'the usual budget'}: {question}"


def said_in(reply: str) -> tuple[str, int]:
    """What the model said, in a whole answer or one that came in pieces, and how many visual tokens it read."""
    if not reply.startswith("data: "):
        answer = json.loads(reply)
        return str(answer["choices"][0]["message"]["content"]), int(answer["marc"]["visual_tokens_after"])
    *events, last = [json.loads(line[6:]) for line in reply.splitlines() if line.startswith("data: {")]
    deltas = [choice["delta"] for each in events for choice in each["choices"]]
    said = "".join(delta.get("content", "") for delta in deltas)
    return said, int(last["marc"]["visual_tokens_after"])


class Crowd:
    """Clients with their questions.

    Args:
        served: Whom they ask.
        folder: For the videos.
        videos: Number of them.
        questions: About each.
        streamed: Share of answers that come piece by piece.
    """

    def __init__(self, served: Served, folder: Path, videos: int, questions: int, streamed: float) -> None:
        from marc.world.export import write_sample

        self._streamed = streamed
        self._served, self._lock, self.seen = served, Lock(), Seen()
        self._asked: list[tuple[Path, str]] = []
        for seed in range(videos):
            video = folder / f"{seed}.mp4"
            rows = json.loads(write_sample(video, seed=seed, questions=questions).read_text())["questions"]
            self._asked += [(video, row["problem"]) for row in rows[:questions]]
        self._bad = self._damaged(folder, (folder / "0.mp4").read_bytes())
        self._ids: dict[Path, str] = {}
        self._expected: dict[str, tuple[str, int]] = {}

    def _damaged(self, folder: Path, content: bytes) -> list[str]:
        """Addresses of what is no video, by path and by content."""
        parts = {"empty": b"", "text": b"This is no video.\n" * 50, "cut": content[: len(content) // 3]}
        for name, part in parts.items():
            (folder / f"{name}.mp4").write_bytes(part)
        return [str(folder / f"{name}.mp4") for name in parts] + [_as_data(parts["text"]), str(folder / "none.mp4")]

    def ask_alone(self) -> None:
        """Uploads the videos, and learns what a lone client is answered; the second time it must be the same."""
        for video, question in self._asked:
            if video not in self._ids:
                self._ids[video] = self._uploaded(video)
            for budget in BUDGETS:
                status, reply = self._served.ask("POST", PATH, body_of(str(video), question, **at(budget)))
                if status != 200:
                    raise RuntimeError(f"a lone client got {status}: {reply[:300]}")
                task, said = task_of(video, question, budget), said_in(reply)
                if self._expected.setdefault(task, said) != said:
                    self.seen.problems.append(f"{task}: {said!r} after the kill, {self._expected[task]!r} before it")

    def _uploaded(self, video: Path) -> str:
        parts = [b"--part", b'Content-Disposition: form-data; name="file"; filename="a.mp4"', b"", video.read_bytes()]
        body = b"\r\n".join([*parts, b"--part--", b""])
        _, reply = self._served.ask("POST", "/v1/files", body, "multipart/form-data; boundary=part")
        return str(json.loads(reply)["id"])

    def visits(self, count: int, random: Random) -> Iterator[Visit]:
        """So many requests, at random."""
        shares = {"bad": BAD, "gone": GONE, "streamed": self._streamed}
        shares["good"] = 1 - sum(shares.values())
        for kind in random.choices(list(shares), list(shares.values()), k=count):
            video, question = random.choice(self._asked)
            url = random.choice([str(video), self._ids[video], _as_data(video.read_bytes())])
            if kind == "bad":
                url = random.choice(self._bad)
            is_streamed = kind == "streamed" or (kind == "gone" and random.random() < 0.5)
            budget = random.choice(BUDGETS[1:]) if random.random() < OTHER else BUDGETS[0]
            streaming = {"stream": True, "stream_options": {"include_usage": True}} if is_streamed else {}
            body = body_of(url, question, **at(budget), **streaming)
            yield Visit(task_of(video, question, budget), body, kind, random.random() / 5)

    def visit(self, visit: Visit) -> None:
        """One request; whoever meets a server that is gone comes again when it is back."""
        begun, met_kill = time.monotonic(), False
        while True:
            try:
                problem = self._problem_of(visit)
                break
            except (OSError, http.client.HTTPException, ValueError) as error:
                if self._served.ready.wait(0) and self._is_there():
                    problem = f"{type(error).__name__}: {error}"
                    break
                met_kill = True
                self._served.ready.wait(START_SECONDS)
        with self._lock:
            self.seen.tried[visit.kind] = self.seen.tried.get(visit.kind, 0) + 1
            if problem:
                self.seen.problems.append(f"{visit.kind} ({visit.task}): {problem}")
            elif visit.kind == "good" and not met_kill:
                self.seen.seconds.append(time.monotonic() - begun)

    def _is_there(self) -> bool:
        time.sleep(0.5)
        return self._served.ready.is_set()

    def _problem_of(self, visit: Visit) -> str | None:
        """What is wrong with what a request was answered."""
        if visit.kind == "gone":
            self._served.hang_up(visit.body, visit.patience)
            return None
        status, reply = self._served.ask("POST", PATH, visit.body)
        if visit.kind == "bad":
            is_told = status in (400, 403) and json.loads(reply)["error"]["message"]
            return None if is_told else f"{status}: {reply[:300]}"
        if status != 200:
            return f"{status}: {reply[:300]}"
        said, expected = said_in(reply), self._expected[visit.task]
        return None if said == expected else f"{said!r}, but a lone client got {expected!r}"


def _as_data(content: bytes) -> str:
    return f"data:video/mp4;base64,{base64.b64encode(content).decode()}"


def judge(measured: Sequence[dict[str, float]], warm: int) -> list[str]:
    """What piled up in one process: measurements of which so many are the warm-up."""
    if len(measured) - warm < 4 or warm < 1:
        return ["too few requests to tell a drift: ask for more of them"]
    problems = []
    grown = drift([each["memory"] for each in measured[warm:]])
    if grown >= LARGEST_DRIFT:
        problems.append(f"resident memory grew by {grown:.2%}")
    for name in COUNTED:
        before, after = (max(each[name] for each in part) for part in (measured[:warm], measured[warm:]))
        if after > before:
            problems.append(f"{name}: {after:g} after the warm-up, {before:g} in it")
    return problems


def in_blocks(crowd: Crowd, served: Served, requests: int, clients: int, random: Random) -> list[dict[str, float]]:
    """Has clients make requests, and measures the server whenever all have gone."""
    measured: list[dict[str, float]] = []
    with ThreadPoolExecutor(clients) as pool:
        for first in range(0, requests, BLOCK):
            list(pool.map(crowd.visit, crowd.visits(min(BLOCK, requests - first), random)))
            usual = {name: max(each[name] for each in measured) for name in COUNTED} if measured else None
            measured.append(served.measure(usual))
            print(f"\r{first + BLOCK} of {requests} requests", end="", file=sys.stderr)
    return measured


def killed_in_the_middle(
    crowd: Crowd, served: Served, clients: int, random: Random, requests: int = BLOCK
) -> list[str]:
    """Kills the server while clients ask, and starts it again; gives what did not hold."""
    before = served.memories()
    with ThreadPoolExecutor(clients) as pool:
        asked = [pool.submit(crowd.visit, visit) for visit in crowd.visits(requests, random)]
        time.sleep(1.0)
        served.kill()
        served.start()
        for each in asked:
            each.result()
    after = served.memories()
    again = [name for name, state in before.items() if after.get(name) != state]
    return [f"{len(again)} of {len(before)} memories were made again after the kill"] if again or not before else []


@contextmanager
def visited(videos: int, questions: int, streamed: float = STREAMED) -> Iterator[tuple[Crowd, Served]]:
    """A running server and its clients, who know what a lone one is answered."""
    with tempfile.TemporaryDirectory(prefix="marc-visitors-") as name:
        folder = Path(name, "videos")
        folder.mkdir()
        served = Served(Path(name), folder)
        served.start()
        try:
            crowd = Crowd(served, folder, videos, questions, streamed)
            crowd.ask_alone()
            yield crowd, served
        finally:
            served.kill()


def campaign_of(requests: int, clients: int, streamed: float, random: Random) -> tuple[list[str], dict[str, float]]:
    """One trial: half of the requests before the kill, half behind it; gives what did not hold, and figures."""
    with visited(VIDEOS, QUESTIONS, streamed) as (crowd, served):
        warm = min(WARM_UP, requests // 4) // BLOCK
        first = in_blocks(crowd, served, requests // 2, clients, random)
        problems = judge(first, warm) + killed_in_the_middle(crowd, served, clients, random)
        crowd.ask_alone()
        second = in_blocks(crowd, served, requests - requests // 2, clients, random)
        problems += judge(second, warm) + crowd.seen.problems
    hundredths = quantiles(crowd.seen.seconds, n=100)
    if hundredths[98] > SLOWEST * hundredths[49]:
        problems.append(f"p99 is {hundredths[98]:.3f} s, more than {SLOWEST:g} times p50, {hundredths[49]:.3f} s")
    figures = {
        **{f"{kind} requests": float(count) for kind, count in sorted(crowd.seen.tried.items())},
        "p50 seconds": round(hundredths[49], 3),
        "p99 seconds": round(hundredths[98], 3),
        "drift before the kill": round(drift([each["memory"] for each in first[warm:]]), 5),
        "drift behind the kill": round(drift([each["memory"] for each in second[warm:]]), 5),
        **second[-1],
    }
    return problems, figures


def main() -> int:
    """Runs the program."""
    options = parser(__doc__, minutes=600)
    options.set_defaults(trials=1)
    options.add_argument("--requests", type=int, default=1000, help="requests of a trial (default 1000)")
    options.add_argument("--clients", type=int, default=8, help="clients at the same time (default 8)")
    share = f"share of answers that come piece by piece (default {STREAMED:g})"
    options.add_argument("--streamed", type=float, default=STREAMED, help=share)
    chosen = options.parse_args()
    campaign = Campaign.of("visitors", chosen)
    for number, random in campaign.remaining():
        problems, figures = campaign_of(chosen.requests, chosen.clients, chosen.streamed, random)
        campaign.add(number, "requests", chosen.requests, problems, figures)
        print("".join(f"\n{name:<30}{value:>16g}" for name, value in figures.items()))
    return campaign.finish()


if __name__ == "__main__":
    sys.exit(main())
