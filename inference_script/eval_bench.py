"""Evaluate on benchmarks: the same as ``marc eval``, as a file that torchrun can start.

Run: python inference_script/eval_bench.py --benchmark vsi --data DIR --model Qwen/Qwen2.5-VL-3B-Instruct --method full
or, with the videos shared out: torchrun --nproc-per-node 8 inference_script/eval_bench.py ...
"""

import typer

from marc.cli.evaluate import evaluate

app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
app.command()(evaluate)

if __name__ == "__main__":
    app()
