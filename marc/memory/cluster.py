"""Remember many videos on the machines of a Ray cluster, as `marc.memory.workers` does in processes of one.

    marc remember --ray local films/                       # a cluster of this machine's cores
    marc remember --ray HEAD:6379 --workers 64 /shared/films

Every machine needs this package and sees the videos, and the folder of their memories, at the same paths. Ray Data
hands the videos out one by one to a pool of workers, starts those anew that die, and gives a dead one's video to
another; memories are written by the workers, the library by whoever called. A worker embeds what it decodes, or has
workers of a second pool do it (`marc.memory.remote_embedder`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from marc.cluster import ClusterOptions, connected, last_line
from marc.extras import extra
from marc.memory.detectors import ShotDetector, register_detector, registered_detectors
from marc.memory.options import MemoryOptions
from marc.memory.remote_embedder import embed_workers
from marc.memory.shots import Progress
from marc.memory.workers import DIED, EmbedderUnavailableError, Outcome, Task, failure, missing

if TYPE_CHECKING:
    from marc.memory.embedder import EventEmbedder

TRIES = 2
"""How often a video is begun whose worker has died."""


def remember_on_ray(
    videos: Sequence[str],
    load_embedder: Callable[[], EventEmbedder],
    options: MemoryOptions | None = None,
    *,
    cluster: ClusterOptions,
    folder: str | Path | None = None,
    subtitles: str = "auto",
    workers: int = 1,
    progress: Progress | None = None,
) -> Iterator[Outcome]:
    """Remember videos on a Ray cluster and yield what became of each as it is done.

    What is remembered already is found by the workers and costs a file read. Killing this process, or a whole
    cluster, loses the videos in work only: the next run goes on.

    Args:
        videos: Paths, the same on all machines, and addresses of objects (`marc.memory.objects`).
        load_embedder: Called once in every worker; must be picklable.
        options: How videos are cut and embedded.
        cluster: Where, and what a worker takes of a machine.
        folder: Where memories are kept; beside each video by default.
        subtitles: As in `marc.memory.workers.remember_all`.
        workers: Most videos at a time, in all of the cluster.
        progress: Is told what share of the videos is done.

    Raises:
        EmbedderUnavailableError: The embedder cannot be loaded.
        ValueError: If there is no such cluster, or no machine of it has room for a worker.
    """
    if workers < 1:
        raise ValueError(f"workers must be at least 1, not {workers}")
    options = options or MemoryOptions()
    todo, done = [], 0
    for video in dict.fromkeys(videos):
        if (fault := missing(video)) is None:
            todo.append(video)
        else:
            done += 1
            yield fault
    left = dict.fromkeys(todo)
    with connected(cluster), _embedding(load_embedder, cluster, min(workers, len(todo))) as load:
        task = Task(load, options, folder, subtitles)
        for video, outcome in _outcomes(todo, task, cluster, workers):
            if isinstance(outcome, EmbedderUnavailableError):
                raise outcome
            left.pop(video, None)
            done += 1
            if progress is not None:
                progress(done / (len(left) + done))
            yield outcome
    if progress is not None:
        progress(1.0)
    yield from (Outcome(video, None, f"{video}: {DIED}") for video in left)


@contextmanager
def _embedding(
    load: Callable[[], EventEmbedder], cluster: ClusterOptions, workers: int
) -> Iterator[Callable[[], EventEmbedder]]:
    """How each of some workers that decode gets its embedder."""
    if not cluster.embed_workers or not workers:
        yield load
        return
    with embed_workers(load, cluster, workers) as load_remote:
        yield load_remote


def _outcomes(
    videos: Sequence[str], task: Task, cluster: ClusterOptions, workers: int
) -> Iterator[tuple[str, Outcome | EmbedderUnavailableError]]:
    """What became of each video whose worker has lived, as they are done."""
    with extra("ray"):
        import ray.data
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # each worker that dies is an error with its traces to it
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.max_errored_blocks = -1  # whose workers have died; what they were is seen by what is missing
    if not videos:
        return
    pool = ray.data.ActorPoolStrategy(
        min_size=1,
        max_size=min(workers, len(videos)),
        max_tasks_in_flight_per_actor=1,  # a video that kills its worker takes no other with it
    )
    worker: Any = _Worker  # a class of callables, which Ray Data's types do not know
    rows = ray.data.from_items([{"video": video} for video in videos], override_num_blocks=len(videos)).map(
        worker,
        fn_constructor_args=(task, registered_detectors(task.options.segmenter)),
        compute=pool,
        num_cpus=cluster.cpus_per_worker,
        num_gpus=0 if cluster.embed_workers else cluster.gpus_per_worker,
        max_task_retries=TRIES - 1,
        max_restarts=-1,
    )
    try:
        for row in rows.iter_rows():
            yield row["video"], row["outcome"]
    except ray.exceptions.RayError as error:
        raise ValueError(f"--ray {cluster.ray}: its workers cannot start: {last_line(error)}") from error


class _Worker:
    """Remembers one video after the other, in a process of Ray's."""

    def __init__(self, task: Task, detectors: dict[str, str | type[ShotDetector]]) -> None:
        for name, detector in detectors.items():
            register_detector(name, detector)
        self._task = task

    def __call__(self, row: dict[str, str]) -> dict[str, Any]:
        outcome: Outcome | EmbedderUnavailableError
        try:
            outcome = self._task.outcome(row["video"])
        except EmbedderUnavailableError as error:
            outcome = error
        except Exception as error:
            outcome = failure(row["video"], error)
        return {"video": row["video"], "outcome": outcome}
