"""Engines on the machines of a Ray cluster, which answer whatever is next as they are free.

Rows are written by whoever called, so a run that is killed goes on where it stopped, here or without a cluster, with
the same batches: see `marc.evaluation.runner.Shard`. An engine whose process dies is started anew and asked again,
once; then the samples in question have failed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from marc.cluster import ClusterOptions, connected, last_line
from marc.evaluation.engine import Batches, Engine, Failure, Reply
from marc.evaluation.runner import answers
from marc.evaluation.samples import Sample
from marc.extras import extra
from marc.types import GenerationOptions

DIED = "the process of the engine died, twice (out of memory, or a crash in a library)"
TRIES = 2
_NONE_LOADED = "no engine on the cluster could be loaded; the log says why"

logger = logging.getLogger(__name__)


@contextmanager
def engines_on_ray(load: Callable[[], Engine], cluster: ClusterOptions, workers: int) -> Iterator[RayEngines]:
    """Engines on a cluster, for as long as they are needed.

    Args:
        load: Makes an engine in a process of the cluster; must be picklable.
        cluster: Where, and what an engine takes of a machine.
        workers: How many engines; of those for which there is no room, samples wait.

    Raises:
        ValueError: If there is no such cluster, or no machine of it has room for an engine.
    """
    with extra("ray"):
        import ray
    with connected(cluster):
        actor: Any = ray.remote(_LoadedEngine).options(
            num_cpus=cluster.cpus_per_worker,
            num_gpus=cluster.gpus_per_worker,
            max_restarts=-1,
            max_task_retries=TRIES - 1,
        )
        engines = [actor.remote(load) for _ in range(workers)]
        try:
            yield RayEngines(engines)
        finally:
            for engine in engines:
                ray.kill(engine)


class RayEngines:
    """A `marc.evaluation.engine.EnginePool` of Ray's actors."""

    def __init__(self, engines: Sequence[Any]) -> None:
        self._engines = list(engines)

    def card(self) -> dict[str, Any]:
        """That of one of them.

        Raises:
            ValueError: If the engine cannot be loaded.
        """
        import ray

        try:
            card: dict[str, Any] = ray.get(self._engines[0].card.remote())
        except ray.exceptions.RayError as error:
            raise ValueError(f"the engine cannot be loaded on the cluster: {last_line(error)}") from error
        return card

    def answer_all(
        self, groups: Sequence[Batches], answered: Container[str], generation: GenerationOptions
    ) -> Iterator[Reply]:
        """See `marc.evaluation.engine.EnginePool`."""
        import ray

        left = [group for group in groups if not all(sample.id in answered for batch in group for sample in batch)]
        coming = {engine.card.remote(): engine for engine in self._engines}  # some may wait for room for ever
        running: dict[Any, tuple[Any, list[Sample]]] = {}
        free: list[Any] = []
        while left or running:
            while left and free:
                engine, group = free.pop(), left.pop(0)
                known = {sample.id for batch in group for sample in batch if sample.id in answered}
                new = [sample for batch in group for sample in batch if sample.id not in known]
                running[engine.answers.remote(group, known, generation)] = engine, new
            if not running and not coming:
                raise ValueError(_NONE_LOADED)
            (done,), _ = ray.wait([*running, *coming], num_returns=1)
            if done in coming:
                engine = coming.pop(done)
                free += [engine] if _is_loaded(done) else []
                continue
            engine, new = running.pop(done)
            free.append(engine)
            try:
                yield from ray.get(done)
            except (ray.exceptions.RayActorError, ray.exceptions.RaySystemError, ray.exceptions.OutOfMemoryError):
                yield from ((sample, Failure(DIED, is_the_videos=False)) for sample in new)


def _is_loaded(card: Any) -> bool:
    """Whether an engine has come so far as to tell its card; if not, others do its work."""
    import ray

    try:
        ray.get(card)
    except ray.exceptions.RayError as error:
        logger.warning("an engine on the cluster cannot be loaded: %s", last_line(error))
        return False
    return True


class _LoadedEngine:
    """An engine in a process of Ray's."""

    def __init__(self, load: Callable[[], Engine]) -> None:
        self._engine = load()

    def card(self) -> dict[str, Any]:
        return self._engine.card()

    def answers(self, group: Batches, answered: Container[str], generation: GenerationOptions) -> list[Reply]:
        return list(answers(self._engine, group, answered, generation))
