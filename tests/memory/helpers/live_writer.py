"""Pushes frames into a live memory as a camera does, and says how far it is; for tests that kill it.

``python live_writer.py FOLDER``
"""

import sys
import time

import numpy as np
from colours import ColourEmbedder

from marc.memory import MemoryOptions
from marc.memory.live import LiveMemory

SHADES = ((220, 20, 20), (20, 220, 20), (20, 20, 220))

if __name__ == "__main__":
    cutting = MemoryOptions("jumps:Jumps", 1.0, 20.0, 1.0)
    memory = LiveMemory("camera", ColourEmbedder(), memory=cutting, folder=sys.argv[1])
    begin, first = time.monotonic(), memory.until
    while True:
        second = time.monotonic() - begin
        shade = SHADES[int((first + second) / 1.5) % len(SHADES)]
        memory.push(np.full((48, 64, 3), shade, np.uint8), second)
        print(memory.until, flush=True)
        time.sleep(0.02)
