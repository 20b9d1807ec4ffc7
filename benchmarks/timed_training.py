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
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

PARTS = {
    "reading videos": "_tokenize_prompts",
    "vision tower": "_encoded",
    "answers (rollout)": "_generate_single_turn",
    "rewards, teacher": "_calculate_rewards",
}
"""Parts of a step of C-GRPO, and the methods in which a trainer does them."""
LOG_PROBABILITIES = "_get_per_token_logps_and_entropies"
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


class Parts:
    """Processor seconds of the parts of a step, each without those that run inside it.

    Attributes:
        seconds: By part.

    Args:
        trainer: TRL's GRPO; of another one no part is known.
    """

    def __init__(self, trainer: Any) -> None:
        self.seconds: dict[str, float] = {}
        self._inside: list[float] = []
        for part, name in PARTS.items():
            if hasattr(trainer, name):
                self._time(trainer, name, partial(str, part))
        if hasattr(trainer, LOG_PROBABILITIES):
            self._time(trainer, LOG_PROBABILITIES, _with_gradients_or_without)
            self._time(trainer.accelerator, "backward", partial(str, "backward"))

    def _time(self, owner: Any, name: str, part: Callable[[], str]) -> None:
        function = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            own, start = part(), time.process_time()
            self._inside.append(0.0)
            try:
                return function(*args, **kwargs)
            finally:
                took, inside = time.process_time() - start, self._inside.pop()
                self.seconds[own] = self.seconds.get(own, 0.0) + took - inside
                if self._inside:
                    self._inside[-1] += took

        setattr(owner, name, timed)


def _with_gradients_or_without() -> str:
    import torch

    return "forward with gradients" if torch.is_grad_enabled() else "log-probabilities without gradients"


def _time_training(measured: dict[str, Any]) -> None:
    """Has every `transformers.Trainer` note the processor seconds of its training, step by step and part by part.

    A step lasts from the end of the one before it, so that its batch counts, too. Parts are of all but the first.
    """
    from transformers import Trainer, TrainerCallback

    class StepClock(TrainerCallback):
        """Notes when steps end."""

        ends: list[float]
        parts: Parts

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self.ends = [time.process_time()]

        def on_step_end(self, *_: Any, **__: Any) -> None:
            if len(self.ends) == 1:
                self.parts.seconds.clear()
            self.ends.append(time.process_time())

    train = Trainer.train

    def timed_train(trainer: Trainer, *args: Any, **kwargs: Any) -> Any:
        clock = StepClock()
        clock.parts = Parts(trainer)
        trainer.add_callback(clock)
        start = time.process_time()
        output = train(trainer, *args, **kwargs)
        measured["training"] = time.process_time() - start
        measured["steps"] = [end - begin for begin, end in zip(clock.ends, clock.ends[1:], strict=False)]
        measured["parts"] = clock.parts.seconds
        for name in LOGGED:
            measured[name] = [entry[name] for entry in trainer.state.log_history if name in entry]
        return output

    Trainer.train = timed_train


if __name__ == "__main__":
    main()
