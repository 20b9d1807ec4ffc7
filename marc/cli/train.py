"""``marc train``: the runs of recipes, in this process; ``training_script/run_*_video.sh`` start several."""

from __future__ import annotations

import typer

app = typer.Typer(help="Train the compressed student from a recipe: options as in its YAML.", no_args_is_help=True)

PASSED_ON = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}


@app.command(context_settings=PASSED_ON)
def grpo(context: typer.Context) -> None:
    """C-GRPO, on-policy distillation, or both: --config RECIPE [--option value ...]; --help lists the options."""
    from marc.cli.errors import user_errors
    from marc.training.run_grpo import main

    with user_errors("marc train grpo"):
        main(context.args)


@app.command(context_settings=PASSED_ON)
def sft(context: typer.Context) -> None:
    """Supervised training: --config RECIPE [--option value ...]; --help lists the options."""
    from marc.cli.errors import user_errors
    from marc.training.run_sft import main

    with user_errors("marc train sft"):
        main(context.args)
