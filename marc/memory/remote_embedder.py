"""An embedder in other processes of a Ray cluster, for workers that decode where there is no GPU.

Who decodes keeps pictures as JPEG anyway, some 50 kB each (`marc.memory.pictures`). They travel as they are and are
decoded again where they are embedded, in the same batches, so that vectors are those of one process. The frames of
models that see clips are read when they are needed and travel as they are, a byte a number.

Shape legend: T frames, H height, W width, S pictures, E events, D embedding dimensions.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from marc.cluster import ClusterOptions, last_line
from marc.extras import extra
from marc.memory.clips import clip_embedder_of
from marc.memory.pictures import decoded
from marc.memory.workers import EmbedderUnavailableError

if TYPE_CHECKING:
    from marc.memory.embedder import EventEmbedder

DIED = "the process that embedded its pictures died, again and again (out of memory, or a crash in a library)"
TRIES = 2
"""How many workers are asked to embed something, each of which is started anew once if it dies of it."""


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
        import ray

        for _ in range(TRIES):
            self._next += 1
            worker = self._workers[self._next % len(self._workers)]
            try:
                vectors: NDArray[np.float32] = ray.get(getattr(worker, method).remote(*values))
                return vectors
            except ray.exceptions.RayTaskError as error:
                raise error.cause from error
            except (ray.exceptions.RayActorError, ray.exceptions.RaySystemError, ray.exceptions.OutOfMemoryError):
                continue
        raise ValueError(DIED)


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


@contextmanager
def embed_workers(load: Callable[[], EventEmbedder], cluster: ClusterOptions) -> Iterator[Callable[[], Any]]:
    """Workers that embed, for as long as they are needed; the connection to the cluster is there.

    Args:
        load: Loads the embedder in a worker; must be picklable.
        cluster: How many, and what each takes of a machine.

    Yields:
        Gives an embedder that has them do it, in any process of the cluster.

    Raises:
        EmbedderUnavailableError: The embedder cannot be loaded.
    """
    with extra("ray"):
        import ray
    actor: Any = ray.remote(EmbedWorker).options(
        num_cpus=cluster.cpus_per_worker, num_gpus=cluster.gpus_per_worker, max_restarts=-1, max_task_retries=1
    )
    workers = [actor.remote(load) for _ in range(cluster.embed_workers)]
    try:
        try:
            description, *_ = ray.get([worker.describe.remote() for worker in workers])
        except ray.exceptions.RayError as error:
            raise EmbedderUnavailableError(last_line(error)) from error
        yield partial(RemoteEmbedder, workers, description)
    finally:
        for worker in workers:
            ray.kill(worker)
