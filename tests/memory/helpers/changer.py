"""``python changer.py LIBRARY TIMES`` forgets, replaces and compacts one video of a library again and again."""

import sys

from writer import memory

from marc.memory import MemoryLibrary

address, times = sys.argv[1:]
library = MemoryLibrary(address)
for _ in range(int(times)):
    library.add([memory(1, events=8)])
    library.remove("/videos/1.mp4")
    library.add([memory(1)], tags=["kept"])
    library.optimize()
