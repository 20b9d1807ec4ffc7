"""The video loader ``marc``: hands a file on as it is, to the processor, which knows how its model reads videos.

So a file that vLLM's cache knows is not decoded again, and one that it does not know is read as `marc ask` reads it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from vllm.multimodal.video import VIDEO_LOADER_REGISTRY, VideoLoader

FILE = "marc_file"
"""Key of a file's options among what vLLM takes for the metadata of frames."""


@VIDEO_LOADER_REGISTRY.register("marc")
class FileLoader(VideoLoader):
    """Loads nothing yet."""

    @classmethod
    def load_bytes(cls, data: bytes, num_frames: int = -1, **options: Any) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """The file's bytes as an array, and what `marc.serving.vllm.reading.VideoRequest` is made from.

        Args:
            data: A video file.
            num_frames: vLLM's own default; ``max_frames`` is ours.
            **options: From ``--media-io-kwargs`` and the request's ``media_io_kwargs``.
        """
        return np.frombuffer(data, np.uint8), {FILE: options}
