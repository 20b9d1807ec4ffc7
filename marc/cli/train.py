"""``marc train``: the runs of recipes, in this process; ``training_script/run_*_video.sh`` start several."""

from __future__ import annotations

import typer

from marc.cli.checkout import PASSED_ON
from marc.cli.errors import user_errors

app = typer.Typer(help="Train the compressed student from a recipe: options as in its YAML.", no_args_is_help=True)


@app.command(context_settings=PASSED_ON)
def grpo(context: typer.Context) -> None:
    """C-GRPO, on-policy distillation, or both: --config RECIPE [--option value ...]; --help lists the options."""
    with user_errors("marc train grpo"):
        from marc.training.run import run_grpo

        run_grpo(context.args)


@app.command(context_settings=PASSED_ON)
def sft(context: typer.Context) -> None:
    """Supervised training: --config RECIPE [--option value ...]; --help lists the options."""
    with user_errors("marc train sft"):
        from marc.training.run import run_sft

        run_sft(context.args)
