"""An embedder in other processes of a Ray cluster, for workers that decode where there is no GPU.

Who decodes keeps pictures as JPEG anyway, some 50 kB each (`marc.memory.pictures`). They travel as they are and are
decoded again where they are embedded, in the same batches, so that vectors are those of one process. The frames of
models that see clips are read when they are needed and travel as they are, a byte a number.

With `ClusterOptions.embed_batch` a worker embeds what several ask for in passes that they share
(`marc.memory.joining`). If it dies, nobody knows of whose pictures; so all that were there ask again through one
process that has one request after the other embedded in a pass of its own, and only what kills a worker by itself has
failed.

Shape legend: T frames, H height, W width, S pictures, E events, D embedding dimensions.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from marc.cluster import ClusterOptions, last_line
from marc.extras import extra
from marc.memory.clips import clip_embedder_of
from marc.memory.joining import JoinedPasses
from marc.memory.pictures import decoded
from marc.memory.workers import EmbedderUnavailableError

if TYPE_CHECKING:
    from marc.memory.embedder import EventEmbedder

DIED = "the process that embedded its pictures died, again and again (out of memory, or a crash in a library)"
TRIES = 2
"""How many workers are asked to embed something, each of which is started anew once if it dies of it."""
LIVES = {"max_restarts": -1, "max_task_retries": 1}
"""What Ray does for those that die, and for what they were asked."""


@dataclass(frozen=True)
class EmbedderDescription:
    """What is known of an embedder without having it; see `marc.memory.EventEmbedder`."""

    name: str
    identity: dict[str, str]
    dimension: int
    image_size: int
    clip_frames: int

    @classmethod
    def of(cls, embedder: EventEmbedder) -> EmbedderDescription:
        """That of an embedder."""
        clips = clip_embedder_of(embedder)
        frames = clips.clip_frames if clips else 1
        return cls(embedder.name, embedder.identity, embedder.dimension, embedder.image_size, frames)


class RemoteEmbedder:
    """Has workers embed, in turn.

    Args:
        workers: Ray's handles of them.
        description: Of the embedder that all of them have.

    Attributes:
        device: Where this process runs a shot detector; the workers know where they embed.
    """

    device = "cpu"

    def __init__(self, workers: Sequence[Any], description: EmbedderDescription) -> None:
        self._workers, self._next = list(workers), os.getpid()
        self.name, self.identity = description.name, description.identity
        self.dimension, self.image_size = description.dimension, description.image_size
        self.clip_frames = description.clip_frames

    def embed_pictures(self, jpegs: Sequence[bytes]) -> NDArray[np.float32]:
        """Unit vectors ``float32 [S, D]`` of pictures of one size, as JPEG.

        Raises:
            ValueError: The workers that were asked have died of it.
        """
        return self._asked("embed_pictures", list(jpegs))

    def embed_events(
        self, frames_per_event: Sequence[NDArray[np.uint8]], seconds_per_event: Sequence[NDArray[np.float64]]
    ) -> NDArray[np.float32]:
        """One unit vector per event ``float32 [E, D]``, as `marc.memory.EventEmbedder.embed_events`.

        Raises:
            ValueError: The workers that were asked have died of it.
        """
        return self._asked("embed_events", list(frames_per_event), list(seconds_per_event))

    def _asked(self, method: str, *values: object) -> NDArray[np.float32]:
        for _ in range(TRIES):
            if (vectors := self._asked_once(method, *values)) is not None:
                return vectors
        raise ValueError(DIED)

    def _asked_once(self, method: str, *values: object) -> NDArray[np.float32] | None:
        """What the next worker answers."""
        self._next += 1
        return _answer(getattr(self._workers[self._next % len(self._workers)], method).remote(*values))


class SharingEmbedder(RemoteEmbedder):
    """Has workers embed in passes that it shares with others.

    Args:
        workers: Ray's handles of `SharedWorker` processes.
        description: Of the embedder that all of them have.
        by_itself: Ray's handle of a process with a `RemoteEmbedder` of these workers, whose passes nobody shares.
    """

    def __init__(self, workers: Sequence[Any], description: EmbedderDescription, by_itself: Any) -> None:
        super().__init__(workers, description)
        self._by_itself = by_itself

    def _asked(self, method: str, *values: object) -> NDArray[np.float32]:
        vectors = self._asked_once(f"{method}_with_others", *values)
        if vectors is None:
            vectors = _answer(getattr(self._by_itself, method).remote(*values))
        if vectors is None:
            raise ValueError(DIED)
        return vectors


def _answer(reference: Any) -> NDArray[np.float32] | None:
    """The vectors that a process gives, whose errors are raised; None if it has died."""
    import ray

    try:
        vectors: NDArray[np.float32] = ray.get(reference)
        return vectors
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
    except (ray.exceptions.RayActorError, ray.exceptions.RaySystemError, ray.exceptions.OutOfMemoryError):
        return None


class EmbedWorker:
    """An embedder in a process of Ray's."""

    def __init__(self, load: Callable[[], EventEmbedder]) -> None:
        self._embedder = load()

    def describe(self) -> EmbedderDescription:
        """What others must know of it."""
        return EmbedderDescription.of(self._embedder)

    def embed_pictures(self, jpegs: Sequence[bytes]) -> NDArray[np.float32]:
        """See `RemoteEmbedder.embed_pictures`."""
        return self._embedder.embed_frames(np.stack([decoded(each) for each in jpegs]))

    def embed_events(
        self, frames: Sequence[NDArray[np.uint8]], seconds: Sequence[NDArray[np.float64]]
    ) -> NDArray[np.float32]:
        """See `RemoteEmbedder.embed_events`."""
        return self._embedder.embed_events(frames, seconds)


class SharedWorker(EmbedWorker):
    """One that many ask at the same time, each in a thread, while another thread runs the model.

    Args:
        load: Loads the embedder.
        most: Pictures, or frames of clips, of a pass.
    """

    def __init__(self, load: Callable[[], EventEmbedder], most: int) -> None:
        super().__init__(load)
        self._embedder.batch_size = most
        runner = ThreadPoolExecutor(1)
        clips = max(1, most // self.describe().clip_frames)
        self._pictures = JoinedPasses(self._embed_pictures, most, runner)
        self._clips = JoinedPasses(self._embed_clips, clips, runner)

    def embed_pictures(self, jpegs: Sequence[bytes]) -> NDArray[np.float32]:
        """See `RemoteEmbedder.embed_pictures`; in a pass of their own."""
        return self._pictures.vectors([decoded(each) for each in jpegs], None)

    def embed_pictures_with_others(self, jpegs: Sequence[bytes]) -> NDArray[np.float32]:
        """The same in a pass that they share."""
        pictures = [decoded(each) for each in jpegs]
        return self._pictures.vectors(pictures, pictures[0].shape)

    def embed_events(
        self, frames: Sequence[NDArray[np.uint8]], seconds: Sequence[NDArray[np.float64]]
    ) -> NDArray[np.float32]:
        """See `RemoteEmbedder.embed_events`; in a pass of their own."""
        return self._clips.vectors(list(zip(frames, seconds, strict=True)), None)

    def embed_events_with_others(
        self, frames: Sequence[NDArray[np.uint8]], seconds: Sequence[NDArray[np.float64]]
    ) -> NDArray[np.float32]:
        """The same in a pass that they share."""
        return self._clips.vectors(list(zip(frames, seconds, strict=True)), frames[0].shape)

    def _embed_pictures(self, pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        return self._embedder.embed_frames(np.stack(pictures))

    def _embed_clips(self, clips: Sequence[tuple[NDArray[np.uint8], NDArray[np.float64]]]) -> NDArray[np.float32]:
        frames, seconds = zip(*clips, strict=True)
        return self._embedder.embed_events(frames, seconds)


@contextmanager
def embed_workers(
    load: Callable[[], EventEmbedder], cluster: ClusterOptions, askers: int
) -> Iterator[Callable[[], Any]]:
    """Workers that embed, for as long as they are needed; the connection to the cluster is there.

    Args:
        load: Loads the embedder in a worker; must be picklable.
        cluster: How many, what each takes of a machine, and whether their passes are shared.
        askers: How many processes will have something embedded at the same time.

    Yields:
        Gives an embedder that has them do it, in any process of the cluster.

    Raises:
        EmbedderUnavailableError: The embedder cannot be loaded.
    """
    with extra("ray"):
        import ray
    start = _start_of_worker(load, cluster, askers)
    workers = [start() for _ in range(cluster.embed_workers)]
    processes = workers[:]
    try:
        try:
            description, *_ = ray.get([worker.describe.remote() for worker in workers])
        except ray.exceptions.RayError as error:
            raise EmbedderUnavailableError(last_line(error)) from error
        if cluster.embed_batch is None:
            yield partial(RemoteEmbedder, workers, description)
        else:
            remote: Any = ray.remote(RemoteEmbedder).options(num_cpus=0, **LIVES)
            by_itself = remote.remote(workers, description)
            processes.append(by_itself)
            yield partial(SharingEmbedder, workers, description, by_itself)
    finally:
        for process in processes:
            ray.kill(process)


def _start_of_worker(load: Callable[[], EventEmbedder], cluster: ClusterOptions, askers: int) -> Callable[[], Any]:
    """Starts a worker of the kind that is asked for."""
    import ray

    takes = {"num_cpus": cluster.cpus_per_worker, "num_gpus": cluster.gpus_per_worker, **LIVES}
    if cluster.embed_batch is None:
        alone: Any = ray.remote(EmbedWorker).options(**takes)
        return partial(alone.remote, load)
    threads = min(askers, 2 * cluster.embed_batch)  # what a pass and the one after it can hold
    shared: Any = ray.remote(SharedWorker).options(**takes, max_concurrency=threads)
    return partial(shared.remote, load, cluster.embed_batch)
