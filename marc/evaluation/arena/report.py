"""What the arena's rounds say: accuracy at each cost with intervals over videos, and how far a contestant is ahead."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from marc.evaluation.arena.options import EVERY_TOKEN, OURS, ArenaOptions, allowed
from marc.evaluation.arena.rounds import Round
from marc.evaluation.statistics import Estimate, compare_paired, estimate
from marc.evaluation.tables import interval
from marc.extras import extra
from marc.io import write_atomically, write_text


@dataclass(frozen=True)
class Standing:
    """How a contestant did at a part.

    Attributes:
        name: The contestant.
        part: Of what every token costs.
        accuracy: Over all questions, with an interval over videos.
        ahead: Of the `reference`, in accuracy; ``None`` where there is none, or it is that.
        prompt_tokens: What a video cost, on average.
        share: The same as a part of every token's.
        kinds: Accuracy by kind of question.
    """

    name: str
    part: str
    accuracy: Estimate
    ahead: Estimate | None
    prompt_tokens: float
    share: float
    kinds: dict[str, float]


def reference(contestants: Sequence[str]) -> str:
    """The contestant against which others are compared: the best of this package's own, or else the first."""
    return next((name for name in OURS if name in contestants), contestants[0])


def standings(rounds: Sequence[Round], options: ArenaOptions) -> list[Standing]:
    """How everybody did, every token first, then part by part in the order of the options."""
    return [_standing(rounds, name, part, options) for name, part in options.entries]


def _standing(rounds: Sequence[Round], name: str, part: str, options: ArenaOptions) -> Standing:
    outcomes = [each.outcomes[name, part] for each in rounds]
    scores = [float(right) for each in outcomes for right in each.right]
    videos = [(each.seed, each.index) for each in rounds for _ in each.kinds]
    ours = [each.outcomes.get((reference(options.contestants), part)) for each in rounds]
    ahead = None
    if all(ours) and name != reference(options.contestants):
        theirs = [float(right) for each in ours if each for right in each.right]
        ahead = compare_paired(theirs, scores, videos).difference
    by_kind: dict[str, list[float]] = {}
    for kind, score in zip((kind for each in rounds for kind in each.kinds), scores, strict=True):
        by_kind.setdefault(kind, []).append(score)
    tokens = sum(each.prompt_tokens for each in outcomes)
    whole = sum(each.outcomes[EVERY_TOKEN, "1"].prompt_tokens for each in rounds)
    kinds = {kind: sum(own) / len(own) for kind, own in sorted(by_kind.items())}
    return Standing(name, part, estimate(scores, videos), ahead, tokens / len(rounds), tokens / whole, kinds)


def report(found: Sequence[Standing], options: ArenaOptions) -> str:
    """Accuracy, what a video cost, and how far each contestant is ahead, in Markdown."""
    cells = {(each.name, each.part): each for each in found}
    whole = cells[EVERY_TOKEN, "1"]
    names = sorted(options.contestants, key=lambda name: -sum(cells[name, p].accuracy.mean for p in options.parts))

    def table(title: str, rows: Sequence[str], show: Callable[[Standing], str]) -> list[str]:
        lines = [f"| {name} | {' | '.join(show(cells[name, part]) for part in options.parts)} |" for name in rows]
        return ["", f"| {title} | {' | '.join(options.parts)} |", f"|---|{'---|' * len(options.parts)}", *lines]

    lines = [
        f"Every token, {whole.prompt_tokens:.0f} in the prompt: {_percent(whole.accuracy)} % of "
        f"{whole.accuracy.n} questions about {options.seeds * options.world.videos} videos.",
        *table("accuracy, %", names, lambda each: _percent(each.accuracy) + _excess(each, whole)),
    ]
    ours = reference(options.contestants)
    if rivals := [name for name in names if name != ours]:
        lines += table(f"ahead of {ours}, points", rivals, lambda each: _percent(each.ahead, signed=True))
    lines += table("tokens in the prompt, on average", names, lambda each: f"{each.prompt_tokens:.1f}")
    lines += ["", *_by_kind(cells, names, options)]
    return "\n".join(lines) + "\n"


def _by_kind(cells: dict[tuple[str, str], Standing], names: Sequence[str], options: ArenaOptions) -> list[str]:
    """Accuracy by kind of question at the part in the middle."""
    part = options.parts[(len(options.parts) - 1) // 2]
    kinds = list(cells[EVERY_TOKEN, "1"].kinds)
    shown = [cells[EVERY_TOKEN, "1"], *(cells[name, part] for name in names)]
    return [
        f"| at {part}, % | {' | '.join(kinds)} |",
        f"|---|{'---|' * len(kinds)}",
        *(f"| {each.name} | {' | '.join(f'{100 * each.kinds[kind]:.0f}' for kind in kinds)} |" for each in shown),
    ]


def _excess(standing: Standing, whole: Standing) -> str:
    """What was taken, where it is more than was paid for."""
    is_more = standing.prompt_tokens > 1.02 * allowed(standing.part, whole.prompt_tokens)
    return f" with {standing.prompt_tokens:.0f}" if is_more else ""


def _percent(value: Estimate | None, *, signed: bool = False) -> str:
    """A mean with its interval."""
    assert value is not None
    return interval(value, signed=signed, digits=1)


def write_report(found: Sequence[Standing], options: ArenaOptions, folder: Path) -> str:
    """Writes ``report.md`` and ``arena.png`` beside the rows, and returns the former."""
    text = report(found, options)
    write_text(folder / "report.md", text)
    picture(found, options, folder / "arena.png")
    return text


def picture(found: Sequence[Standing], options: ArenaOptions, path: Path) -> None:
    """Accuracy against what was spent, a line for each contestant, as a PNG."""
    with extra("eval"):
        from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes, ours = figure.subplots(), reference(options.contestants)
    for number, name in enumerate(options.contestants):
        own = [each for each in found if each.name == name]
        look: dict[str, Any] = (
            {"linewidth": 2.5, "color": "black"} if name == ours else {"linewidth": 1, "color": f"C{number % 10}"}
        )
        marker = "o" if name == ours else "xs^v+*"[number // 10]
        shares, scores = [each.share for each in own], [100 * each.accuracy.mean for each in own]
        axes.plot(shares, scores, label=name, marker=marker, **look)
    whole = next(each for each in found if each.name == EVERY_TOKEN)
    axes.axhline(100 * whole.accuracy.mean, color="grey", linestyle=":", label="every token")
    axes.set_xscale("log")
    axes.set_xlabel("part of what every token costs in the prompt")
    axes.set_ylabel("accuracy, %")
    axes.legend(fontsize=7, ncols=2)
    write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=120))
