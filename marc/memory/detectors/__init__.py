"""Detectors of shot boundaries, by name: where the events of the Visual Memory Retriever begin.

* ``transnetv2`` (default): the network of Soucek and Lokoc.
* ``scenedetect``: PySceneDetect's adaptive content detector and its fade detector, fed with our frames.
* ``uniform``: a boundary every few seconds, without decoding: the baseline.

Another one is a subclass of `ShotDetector`. Wherever a segmenter is named, in `marc.memory.MemoryOptions` and in the
commands, ``"package.module:Class"`` names it; `register_detector` gives it a name of its own.
"""

from __future__ import annotations

import importlib

from marc.memory.detectors.base import ShotDetector, Transition

__all__ = [
    "ShotDetector",
    "Transition",
    "check_detector",
    "detector_class",
    "detector_names",
    "make_detector",
    "register_detector",
    "registered_detectors",
]

_BUILT_IN = {
    "transnetv2": "marc.memory.detectors.transnetv2:TransNetV2Detector",
    "scenedetect": "marc.memory.detectors.scenedetect:SceneDetectDetector",
    "uniform": "marc.memory.detectors.uniform:UniformDetector",
}
_REGISTERED: dict[str, str | type[ShotDetector]] = {}


def detector_names() -> tuple[str, ...]:
    """Names that a segmenter can have, besides dotted ones."""
    return (*_BUILT_IN, *_REGISTERED)


def register_detector(name: str, detector: str | type[ShotDetector]) -> None:
    """Give a detector a name by which options and commands of this process, and of its workers, find it.

    Args:
        name: Without a colon.
        detector: A subclass of `ShotDetector`, or ``"package.module:Class"``, which is imported when it is needed.

    Raises:
        ValueError: The name belongs to another detector, or holds a colon.
    """
    if ":" in name or not name:
        raise ValueError(f"a detector cannot be called {name!r}: choose a name without a colon")
    if name in _BUILT_IN or _REGISTERED.setdefault(name, detector) != detector:
        raise ValueError(f"there is a detector called {name!r} already; choose another name")


def registered_detectors(*names: str) -> dict[str, str | type[ShotDetector]]:
    """Those of some detectors that `register_detector` gave a name, for another process to register."""
    return {name: _REGISTERED[name] for name in names if name in _REGISTERED}


def check_detector(name: str) -> None:
    """Refuse a name that no detector has; those of our own are not imported for that.

    Raises:
        ValueError: As for `detector_class`.
    """
    if name not in detector_names():
        detector_class(name)


def detector_class(name: str) -> type[ShotDetector]:
    """The class of a detector.

    Args:
        name: One of `detector_names`, or ``"package.module:Class"``.

    Raises:
        ValueError: There is no detector of this name, or no class in that place.
    """
    found = _REGISTERED.get(name) or _BUILT_IN.get(name, name)
    if not isinstance(found, str):
        return found
    if ":" not in found:
        raise ValueError(
            f"unknown segmenter {name!r}; choose one of {', '.join(detector_names())}, or a class of your own as "
            "package.module:Class"
        )
    module, _, attribute = found.partition(":")
    try:
        detector = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"cannot load the segmenter {name!r}: {error}") from error
    if not (isinstance(detector, type) and issubclass(detector, ShotDetector)):
        raise ValueError(f"{name!r} is no segmenter: it must be a subclass of marc.memory.ShotDetector")
    return detector


def make_detector(name: str, device: str | None = None) -> ShotDetector:
    """A detector with its default settings.

    Args:
        name: As for `detector_class`.
        device: Where a network runs; None takes a CUDA GPU where there is one.

    Raises:
        ValueError: As for `detector_class`.
    """
    return detector_class(name)(device=device)
