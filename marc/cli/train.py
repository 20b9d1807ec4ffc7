"""``marc train``: the runs of recipes, in this process; ``training_script/run_*_video.sh`` start several."""

from __future__ import annotations

import typer

from marc.cli.checkout import PASSED_ON
from marc.cli.errors import user_errors
from marc.cli.verbosity import Quiet, Verbose, is_quiet, set_verbosity

_ENOUGH = ("output_dir", "dry_run")
"""Options that say without a recipe that a run is meant."""

app = typer.Typer(help="Train the compressed student from a recipe: options as in its YAML.", no_args_is_help=True)


@app.command(context_settings=PASSED_ON)
def grpo(context: typer.Context, verbose: Verbose = 0, quiet: Quiet = False) -> None:
    """C-GRPO, on-policy distillation, or both: --config RECIPE [--option value ...]; --help lists the options."""
    _train("grpo", context, verbose, quiet)


@app.command(context_settings=PASSED_ON)
def sft(context: typer.Context, verbose: Verbose = 0, quiet: Quiet = False) -> None:
    """Supervised training: --config RECIPE [--option value ...]; --help lists the options."""
    _train("sft", context, verbose, quiet)


@app.command(context_settings=PASSED_ON)
def tower(context: typer.Context, verbose: Verbose = 0, quiet: Quiet = False) -> None:
    """The vision tower, to merge early: --config RECIPE [--option value ...]; --help lists the options."""
    _train("tower", context, verbose, quiet)


def _train(method: str, context: typer.Context, verbose: int, quiet: bool) -> None:
    """Runs a method's recipe, or prints its options."""
    with user_errors(f"marc train {method}"):
        from marc.cli import recipes

        if recipes.is_asked_for(context.args):
            recipes.print_help(method, context.command.help or "")
            return
        arguments = _arguments(method, context, verbose, quiet)
        from marc.training import run

        {"grpo": run.run_grpo, "sft": run.run_sft, "tower": run.run_tower}[method](arguments)


def _arguments(method: str, context: typer.Context, verbose: int, quiet: bool) -> list[str]:
    """What is passed on, its recipe looked at; ``--quiet`` is Trainer's option for its progress bar, too."""
    from marc.cli.recipes import known_options
    from marc.training.recipe_files import check_recipe, check_typed, recipe_in

    if verbose or quiet:
        set_verbosity(verbose, quiet)
    known = known_options(method)
    if known:
        check_typed(context.args, known)
    if recipe := recipe_in(context.args):
        check_recipe(recipe, known)
    elif not any(word.startswith("--") and word[2:].partition("=")[0] in _ENOUGH for word in context.args):
        raise ValueError("name a recipe: --config RECIPE (configs/)")
    return [*context.args, "--disable_tqdm", "true"] if is_quiet() else context.args
