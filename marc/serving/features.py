"""Encoded videos and pictures on disk, so that a restarted server answers about a known video without its tower.

What is kept belongs to one content, one choice of frames, one budget and one vision tower: its file is named by a hash
of all of them, so that whatever changes is simply not found. A file appears whole or not at all. It goes when its
video is forgotten, or makes room for others (`marc.serving.media`).
"""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import safetensors.torch

from marc.inference.hf import HFBackend
from marc.inference.video_input import VideoInput, VisualPatches
from marc.inference.viewing import StoredVideo
from marc.io import message_of, parse_json, sealed, sha256_json, sha256_tensors, unsealed, write_bytes
from marc.memory.store import content_key
from marc.serving.media import ID_LENGTH, MediaStore
from marc.version import __version__

logger = logging.getLogger(__name__)

SUFFIX = ".features"
_MARK = b"marc features 1"
_KEY_LENGTH = 32


class StoredFeatures:
    """A `marc.inference.viewing.FeatureStore` in the folder of the clients' files.

    Args:
        backend: Its vision tower encodes.
        media: Knows the folder, and how much may be kept.
    """

    def __init__(self, backend: HFBackend, media: MediaStore) -> None:
        self._media, self._tower = media, identity_of(backend)

    def find(self, source: str, look: str) -> StoredVideo | None:
        """See `marc.inference.viewing.FeatureStore`; a damaged file counts as none, and the log says so."""
        path = self._path(source, look)
        if not path.exists():
            return None
        try:
            found = _unpacked(path.read_bytes())
        except (ValueError, KeyError, TypeError, OSError, safetensors.SafetensorError) as error:
            logger.warning("%s cannot be used: %s; the video is encoded again", path, message_of(error))
            return None
        return found._replace(patches=replace(found.patches, source=source))

    def keep(self, source: str, look: str, video: VideoInput) -> None:
        """See `marc.inference.viewing.FeatureStore`; what cannot be written is not kept, and the log says so."""
        path = self._path(source, look)
        try:
            write_bytes(path, _packed(video))
        except OSError as error:
            logger.warning("features are not kept: %s", message_of(error))
            return
        self._media.make_room(besides=path.name.partition(".")[0])

    def _path(self, source: str, look: str) -> Path:
        content = content_key(source)
        key = sha256_json([content, look, self._tower])[:_KEY_LENGTH]
        return self._media.features / f"file-{content[:ID_LENGTH]}.{key}{SUFFIX}"


def identity_of(backend: HFBackend) -> str:
    """SHA-256 of all that features depend on besides the video, the frames and the budget."""
    processor, vision = backend.processor, backend.model.model.visual
    described = [
        __version__,
        backend.device.type,
        backend.config.to_dict(),
        processor.video_processor.to_dict(),
        processor.image_processor.to_dict(),
        sha256_tensors(vision.state_dict()),
    ]
    return sha256_json(json.loads(json.dumps(described, default=str)))


def _packed(video: VideoInput) -> bytes:
    assert video.features is not None
    patches = video.patches
    header = {
        "kind": patches.kind,
        "grid_thw": patches.grid_thw,
        "merge": patches.merge,
        "frame_seconds": patches.frame_seconds,
        "events": patches.events,
    }
    tensors = {"features": video.features.cpu().contiguous()}
    for name, value in (("members", video.members), ("places", video.places)):
        if value is not None:
            tensors[name] = value.cpu().contiguous()
    return sealed(_MARK, b"%s\n%s" % (json.dumps(header).encode(), safetensors.torch.save(tensors)))


def _unpacked(content: bytes) -> StoredVideo:
    """What is in a file.

    Raises:
        ValueError: It is not what was written.
    """
    line, _, body = unsealed(_MARK, content).partition(b"\n")
    header, tensors = parse_json(line, "header"), safetensors.torch.load(body)
    events = header["events"]
    patches = VisualPatches(
        header["kind"],
        tuple(header["grid_thw"]),
        header["merge"],
        frame_seconds=tuple(header["frame_seconds"]),
        events=None if events is None else tuple(events),
    )
    return StoredVideo(patches, tensors["features"], tensors.get("members"), tensors.get("places"))
