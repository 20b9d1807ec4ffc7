"""A process that makes one memory and ends, see `marc.memory.making.Errand`.

What goes wrong here is noted: the next question about the video waits for its memory, and is told.
"""

from __future__ import annotations

import os

PRIORITY = 10


def main(key: str, errand: str) -> None:
    """Makes the memory of an errand.

    Args:
        key: Of the memory.
        errand: What `marc.memory.making.Errand.send` sent.
    """
    os.nice(PRIORITY)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # the decoder works on the same cores

    from marc.memory.embedder import EventEmbedder
    from marc.memory.index import remember
    from marc.memory.making import Errand, note_failure

    try:
        made = Errand.received(errand)
        embedder = EventEmbedder.from_pretrained(made.embedder, device=made.device, precision=made.precision)
        remember(made.video, embedder, made.options, folder=made.folder)
    except BaseException:
        note_failure(key)
        raise
