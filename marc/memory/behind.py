"""A process that makes one memory and ends: ``python -m marc.memory.behind ERRAND``, see `marc.memory.making.Errand`.

What goes wrong here goes wrong again, and is told, when the memory is asked for.
"""

from __future__ import annotations

import os
import sys

PRIORITY = 10


def main(errand: str) -> None:
    """Makes the memory of an errand."""
    os.nice(PRIORITY)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # the decoder works on the same cores

    from marc.memory.embedder import EventEmbedder
    from marc.memory.index import remember
    from marc.memory.making import Errand

    made = Errand.received(errand)
    embedder = EventEmbedder.from_pretrained(made.embedder, device=made.device, precision=made.precision)
    remember(made.video, embedder, made.options, folder=made.folder)


if __name__ == "__main__":
    main(sys.argv[1])
