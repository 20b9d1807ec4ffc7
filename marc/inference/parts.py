"""The parts that a `marc.inference.assistant.VideoAssistant` is made of, from names."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

import torch

from marc.compression.config import NEAR_DUPLICATES, CompressionConfig, override_compression
from marc.inference.backend import Backend
from marc.inference.hf import HFBackend
from marc.inference.selectors import RetrievingSelector
from marc.inference.vllm_backend import VllmBackend
from marc.memory.options import MemoryOptions, RetrievalOptions
from marc.memory.select import default_embedder
from marc.model.loading import EMBEDDED, layout_for_asking, load_model
from marc.types import EngineName

if TYPE_CHECKING:
    from marc.memory.embedder import EventEmbedder

_Arguments = ParamSpec("_Arguments")


def load_backend(
    name: str | Path, compression: Mapping[str, Any] | None, engine: EngineName = "hf", **load: Any
) -> Backend:
    """An engine with a model.

    Args:
        name: See `marc.model.loading.load_model`.
        compression: Fields of `marc.compression.CompressionConfig` that replace the model's; ``duplicates`` is
            `NEAR_DUPLICATES` if it is not among them.
        engine: Which one.
        **load: ``device``, ``dtype``, ``attn_implementation``.
    """
    override_compression(CompressionConfig(), compression or {})
    given = {"duplicates": NEAR_DUPLICATES, **(compression or {})}
    if engine == "vllm":
        return VllmBackend.from_pretrained(name, **load, **given)
    return HFBackend(*load_model(name, **load, **layout_for_asking(name, given), **given))


def retrieving_selector(
    name: str | Path, backend: Backend, memory: MemoryOptions, retrieval: RetrievalOptions
) -> RetrievingSelector:
    """What chooses frames by the Visual Memory Retriever; the dual encoder is loaded once it is needed.

    Args:
        name: Of the model that answers, on which depends which dual encoder is the default.
        backend: Its engine, on whose device the dual encoder runs.
        memory: How videos are remembered.
        retrieval: How many events are retrieved, and by which dual encoder.
    """
    load = partial(_load_embedder, retrieval.embedder or default_embedder(str(name)), backend.device)
    return RetrievingSelector(load, memory, retrieval)


def _load_embedder(name: str, device: torch.device) -> EventEmbedder:
    from marc.memory.embedder import EventEmbedder

    return EventEmbedder.from_pretrained(name, device=device)


def also_by_name(construct: Callable[_Arguments, None]) -> Callable[_Arguments, None]:
    """For one more release the constructor takes what it took before it was given parts, a model's name first."""

    @wraps(construct)
    def constructor(*args: Any, **options: Any) -> None:
        if "backend" not in options and (len(args) == 1 or isinstance(args[1], str | Path)):
            advice = "use VideoAssistant.from_pretrained(name, ...): the constructor takes a backend and a selector"
            warnings.warn(advice, DeprecationWarning, stacklevel=2)
            args, options = args[:1], _parts_by_name(*args[1:], **options)
        construct(*args, **options)

    return constructor


def _parts_by_name(model_name: str | Path = EMBEDDED, memory: bool = True, **options: Any) -> dict[str, Any]:
    """What the constructor takes, from what it took before."""
    load = {key: options.pop(key, None) for key in ("device", "dtype", "attn_implementation", "compression")}
    encoder, folder = options.pop("embedder_name", None), options.pop("memory_folder", None)
    remember, progress = options.pop("memory_options", None) or MemoryOptions(), options.pop("progress", None)
    loaded, embedder = options.pop("loaded", None), options.pop("loaded_embedder", None)
    if loaded and any(load.values()):
        raise ValueError(f"{next(filter(load.get, load))} says how to load a model, but `loaded` is there already")
    if loaded and memory and not (encoder or embedder):
        raise ValueError("with `loaded`, the memory needs embedder_name or loaded_embedder (or memory=False)")
    backend = HFBackend(*loaded) if loaded else load_backend(model_name, **load)
    retrieval = RetrievalOptions(options.pop("k", 3), encoder, str(folder) if folder else None)
    selector = retrieving_selector(model_name, backend, remember, retrieval) if memory else None
    if selector:
        selector.progress = progress
    if selector and embedder:
        selector.load_embedder = lambda: embedder
    return {**options, "backend": backend, "selector": selector}
