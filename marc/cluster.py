"""A Ray cluster, on which memories are made and benchmarks answered: where it is, and the connection to it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

from marc.extras import extra
from marc.options import Limits, OptionError, check

LOCAL = "local"


@dataclass(frozen=True)
class ClusterOptions:
    """Where much work is done at the same time.

    Attributes:
        ray: Address of a Ray cluster whose machines do it, such as HOST:6379 or auto, or local for one of this
            machine; they see videos and memories at the same paths. ``None``: processes of this command do it.
        cpus_per_worker: Cores of a machine of the cluster that a worker takes.
        gpus_per_worker: GPUs that it takes, or a part of one.
        embed_workers: So many more workers embed what the others decode, which then take no GPU; 0: each embeds for
            itself.
        embed_batch: So many pictures of one size, or frames of clips, at most that several workers ask for at the same
            moment are embedded in one pass; vectors may differ in their last places then. ``None``: each request by
            itself.

    Raises:
        ValueError: If a value is out of range, or passes are to be shared where there are no ``embed_workers``.
    """

    ray: str | None = None
    cpus_per_worker: Annotated[float, Limits(above=0)] = 1.0
    gpus_per_worker: Annotated[float, Limits(least=0)] = 0.0
    embed_workers: Annotated[int, Limits(least=0)] = 0
    embed_batch: Annotated[int | None, Limits(least=1)] = None

    def __post_init__(self) -> None:
        check(self)
        if self.embed_batch is not None and not self.embed_workers:
            raise OptionError("embed_batch", "is for workers that embed for others; say how many by --embed-workers")


@contextmanager
def connected(cluster: ClusterOptions) -> Iterator[None]:
    """A connection to a Ray cluster; one of this machine is started and ended, unless the caller has one already.

    Raises:
        ValueError: If there is none at the address, or it is too small for a worker.
    """
    with extra("ray"):
        import ray
    is_ours = not ray.is_initialized()
    if is_ours:
        address = None if cluster.ray == LOCAL else cluster.ray
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if address is None:
            quiet["include_dashboard"] = False
        try:
            ray.init(address=address, **quiet)
        except Exception as error:  # that is what Ray raises where a machine is too busy to start one
            raise ValueError(f"--ray {cluster.ray}: no cluster answers there ({error})"[:300]) from error
    try:
        _check_room(cluster, ray.nodes())
        yield
    finally:
        if is_ours:
            ray.shutdown()


def last_line(error: BaseException) -> str:
    """What Ray says of an error behind the traces of its processes."""
    cause = getattr(error, "cause", None) or error
    return str(cause).strip().splitlines()[-1]


def _check_room(cluster: ClusterOptions, machines: Sequence[dict[str, Any]]) -> None:
    """Refuses a cluster with no room for one worker, and for all that embed."""
    left = [dict(machine["Resources"]) for machine in machines if machine["Alive"]]
    wanted = {"CPU": cluster.cpus_per_worker, "GPU": cluster.gpus_per_worker}
    decoder = {"CPU": cluster.cpus_per_worker} if cluster.embed_workers else wanted
    if not all(_takes_room(each, left) for each in [wanted] * cluster.embed_workers + [decoder]):
        beside = f" beside {cluster.embed_workers} that embed" if cluster.embed_workers else ""
        raise ValueError(
            f"--ray {cluster.ray}: none of its {len(left)} machines has the {wanted['CPU']:g} cores and "
            f"{wanted['GPU']:g} GPUs of a worker{beside}; lower --cpus-per-worker or --gpus-per-worker"
        )


def _takes_room(wanted: dict[str, float], machines: Sequence[dict[str, Any]]) -> bool:
    """Whether one of some machines has room for a worker, which is then taken from it."""
    for machine in machines:
        if all(machine.get(kind, 0) >= count for kind, count in wanted.items()):
            for kind, count in wanted.items():
                machine[kind] = machine.get(kind, 0) - count
            return True
    return False
