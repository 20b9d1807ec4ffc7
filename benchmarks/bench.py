"""The bench: stock transformers, the published setting and ours in one run, in turn, on the same video and question.

    marc bench                                # two minutes on a CPU, with a scaled-down model
    marc bench --model 3b --device cuda       # the real sizes on one GPU
    marc bench --model qwen3-vl-2b --device cuda
    marc bench --merge weighted               # one more setting: ours, with options of your own

Weights are random: what is measured does not depend on their values, but for the events that a random dual encoder
retrieves. Every round asks each setting a first question about the video and then a second one; the order of the
settings changes from round to round. `main` is all that the command does; importing this file costs nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from marc.options import Limits, OptionError, check

FEWEST_ROUNDS = 3
FEWEST_FRAMES = 6
"""A temporal grid for each of the three events that are retrieved."""
LOOKS = 10
"""How often memory is looked at while questions are asked in a row."""
WIDTH = 150
"""Characters that the tables need."""


@dataclass(frozen=True)
class BenchOptions:
    """How the bench is run.

    Attributes:
        model: 3b, 7b, qwen3-vl-2b, qwen3-vl-4b, qwen3-vl-8b, scaled (the 3B made small for a CPU), scaled-qwen3-vl, or
            where a config.json is.
        device: cpu or cuda.
        output: Folder for bench.json, bench.md and bench.png.
        repeats: Measured rounds, after one that is not.
        seconds: No new round after this time, once there are three.
        new_tokens: Tokens of every answer.
        frames: Frames that stock transformers reads.
        attn_implementation: As in transformers; ``None``: what transformers chooses.
        dtype: Of the weights; ``None``: bfloat16 on a GPU, float32 on a CPU.
        video: A file of your own instead of the generated one.
        processor_time: Time by the processor, not the wall: for a CPU that is busy otherwise.
        accuracy: Generated videos for the accuracy of each setting; 0: none.
        accuracy_model: Whose accuracy that is: the embedded model, or the folder of another one of the micro-world.
        endurance: Questions asked in a row in the setting "inside", to see whether memory grows; 0: none.

    Raises:
        OptionError: If a value is out of range, or does not go with another one.
    """

    model: str = "scaled"
    device: str = "cpu"
    output: Path = Path("outputs/bench")
    repeats: Annotated[int, Limits(least=FEWEST_ROUNDS)] = 7
    seconds: Annotated[float, Limits(least=0)] = 30.0
    new_tokens: Annotated[int, Limits(least=2)] = 16
    frames: Annotated[int, Limits(least=FEWEST_FRAMES)] = 64
    attn_implementation: str | None = None
    dtype: Literal["float32", "bfloat16"] | None = None
    video: str | None = None
    processor_time: bool = False
    accuracy: Annotated[int, Limits(least=0)] = 4
    accuracy_model: str = "tiny"
    endurance: Annotated[int, Limits(least=0)] = 0

    def __post_init__(self) -> None:
        check(self)
        if self.processor_time and self.device != "cpu":
            raise OptionError("processor_time", "is for --device cpu: a GPU's work takes no processor time")
        if self.accuracy_model != "tiny" and not Path(self.accuracy_model).is_dir():
            raise OptionError("accuracy_model", f"must be tiny or a folder, got {self.accuracy_model!r}")
        if 0 < self.endurance < LOOKS:
            raise OptionError("endurance", f"must be 0 or at least {LOOKS}, got {self.endurance}")


def main(options: BenchOptions, own: Mapping[str, Any] | None = None) -> None:
    """Measures everything, writes the report into a folder and prints it; progress goes to stderr.

    Args:
        options: How.
        own: Options of the compression, ``budget`` among them, for one more of `benchmarks.systems.settings`.

    Raises:
        ValueError: If an option is wrong on this machine.
    """
    from rich.console import Console

    from benchmarks.accuracy import measure_accuracy
    from benchmarks.measurements import measure
    from benchmarks.report import summary, tables, write_report

    options.output.mkdir(parents=True, exist_ok=True)
    result = measure(options, own, report=_say)
    write_report(result, options.output)
    if options.accuracy:
        _say(f"accuracy on {options.accuracy} generated videos")
        result = replace(result, accuracies=measure_accuracy(options.accuracy, model=options.accuracy_model, own=own))
        write_report(result, options.output)
    console = Console(width=max(WIDTH, Console().width))
    console.print(summary(result), markup=False)
    for table in tables(result):
        console.print(table.rich())
    console.print(f"{options.output}/bench.json, bench.md, bench.png")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
