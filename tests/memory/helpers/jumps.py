"""A detector for live memories that needs no network."""

import numpy as np

from marc.memory import ShotDetector, Transition


class Jumps(ShotDetector):
    """A cut wherever the mean colour jumps, known five frames later."""

    frame_size = (4, 4)

    def start(self, info):
        self.before, self.found = None, []

    def process(self, frames):
        for second, colour in zip(frames.seconds.tolist(), frames.rgb.mean(axis=(1, 2)), strict=True):
            self.found = [(cut, left - 1) for cut, left in self.found]
            if self.before is not None and np.abs(colour - self.before).max() > 60:
                self.found.append((second, 5))
            self.before = colour
            while self.found and self.found[0][1] <= 0:
                cut, _ = self.found.pop(0)
                yield Transition(cut, cut, cut)

    def finish(self, duration):
        return [Transition(cut, cut, cut) for cut, _ in self.found]
