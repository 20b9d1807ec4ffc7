"""The child process of `benchmarks.training_step`: a training script with a clock on every step.

    python benchmarks/timed_training.py RESULT CHECKOUT SCRIPT [options of the script]

runs a script of a checkout as ``python SCRIPT`` would and writes what it took to the file RESULT, as JSON. It is
started by its path and imports nothing of this project, so that the checkout that is measured may be of any age.
"""

from __future__ import annotations

import json
import resource
import runpy
import sys
import time
from pathlib import Path
from typing import Any

LOGGED = ("completions/mean_length", "grad_norm")
"""What the trainer logs of a step that says whether two runs did the same."""


def main() -> None:
    """Runs the script and writes its measurements."""
    result, checkout, script = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    sys.path[0] = str(checkout)
    sys.argv = sys.argv[3:]

    import marc

    if checkout not in Path(marc.__file__).parents:
        raise ImportError(f"{checkout} is to be measured, but Python finds {marc.__file__}")
    measured: dict[str, Any] = {}
    _time_training(measured)
    runpy.run_path(script, run_name="__main__")
    used = resource.getrusage(resource.RUSAGE_SELF)
    kilobyte = 1 if sys.platform == "darwin" else 1024
    measured |= {"process": time.process_time(), "peak_bytes": used.ru_maxrss * kilobyte}
    result.write_text(json.dumps(measured), encoding="utf-8")


def _time_training(measured: dict[str, Any]) -> None:
    """Has every `transformers.Trainer` note the processor seconds of its training, step by step.

    A step lasts from the end of the one before it, so that its batch counts, too.
    """
    from transformers import Trainer, TrainerCallback

    class StepClock(TrainerCallback):
        """Notes when steps end."""

        ends: list[float]

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self.ends = [time.process_time()]

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.ends.append(time.process_time())

    train = Trainer.train

    def timed_train(trainer: Trainer, *args: Any, **kwargs: Any) -> Any:
        clock = StepClock()
        trainer.add_callback(clock)
        start = time.process_time()
        output = train(trainer, *args, **kwargs)
        measured["training"] = time.process_time() - start
        measured["steps"] = [end - begin for begin, end in zip(clock.ends, clock.ends[1:], strict=False)]
        for name in LOGGED:
            measured[name] = [entry[name] for entry in trainer.state.log_history if name in entry]
        return output

    Trainer.train = timed_train


if __name__ == "__main__":
    main()
