"""``marc train``: the runs of recipes, in this process; ``training_script/run_*_video.sh`` start several."""

from __future__ import annotations

import typer

from marc.cli import recipes
from marc.cli.checkout import PASSED_ON
from marc.cli.errors import user_errors

app = typer.Typer(help="Train the compressed student from a recipe: options as in its YAML.", no_args_is_help=True)


@app.command(context_settings=PASSED_ON)
def grpo(context: typer.Context) -> None:
    """C-GRPO, on-policy distillation, or both: --config RECIPE [--option value ...]; --help lists the options."""
    with user_errors("marc train grpo"):
        if recipes.is_asked_for(context.args):
            recipes.print_help("grpo", context.command.help or "")
            return
        from marc.training.run import run_grpo

        run_grpo(context.args)


@app.command(context_settings=PASSED_ON)
def sft(context: typer.Context) -> None:
    """Supervised training: --config RECIPE [--option value ...]; --help lists the options."""
    with user_errors("marc train sft"):
        if recipes.is_asked_for(context.args):
            recipes.print_help("sft", context.command.help or "")
            return
        from marc.training.run import run_sft

        run_sft(context.args)
