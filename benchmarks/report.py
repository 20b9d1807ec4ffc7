"""What the bench found, as tables, as JSON and as a picture."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.counters import Work
from benchmarks.measurements import BenchResult, Counts, Measurement
from benchmarks.paired import Spread, ratios, spread
from benchmarks.peak_memory import Growth
from benchmarks.systems import INSIDE, STOCK
from marc.evaluation.tables import Table, interval
from marc.extras import extra
from marc.io import write_bytes, write_json, write_text
from marc.types import Answer

STAGES = {
    "video decode": ("probe", "video_decode"),
    "preprocess": ("preprocess", "tokenize"),
    "retrieval": ("remember", "retrieve"),
    "vision tower": ("vision_tower",),
    "compression": ("compression",),
    "prefill": ("prefill",),
    "decoding": ("decode",),
}
"""The stages of a first question, each the sum of clocks; what no clock saw is ``"other"``."""

TOTALS = {
    "tower + prefill": ("vision_tower", "compression", "prefill"),
    "prefill + tokens": ("prefill", "decode"),
    "tower + prefill + tokens": ("vision_tower", "compression", "prefill", "decode"),
}

COLOURS = ("#4878a8", "#a8a848", "#58a0a0", "#c07f4f", "#8a6fa8", "#6aa06a", "#b05070", "#999999")
HATCHES = ("", "//", "..", "\\\\", "xx", "--", "||", "oo")
"""With the colours, so that stages can be told apart in grey."""


def rows(measured: Measurement, new_tokens: int) -> dict[str, list[float]]:
    """Seconds of every row of the report, one value per repeat."""

    def each(names: Sequence[str], answers: Sequence[Answer] = measured.first) -> list[float]:
        return [sum(answer.seconds.get(name, 0.0) for name in names) for answer in answers]

    stages = {title: each(names) for title, names in STAGES.items()}
    whole = each(("total",))
    seen = [sum(repeat) for repeat in zip(*stages.values(), strict=True)]
    return {
        **stages,
        "other": [total - inside for total, inside in zip(whole, seen, strict=True)],
        "per token": [seconds / (new_tokens - 1) for seconds in stages["decoding"]],
        **{title: each(names) for title, names in TOTALS.items()},
        "end to end": whole,
        "second question": each(("total",), measured.second),
    }


def limits(counts: Counts, new_tokens: int) -> dict[str, Work]:
    """The counted work of the rows that have any."""
    decoding = Work(counts.token.products * (new_tokens - 1))
    return {
        "vision tower": counts.vision,
        "prefill": counts.prefill,
        "per token": counts.token,
        "tower + prefill": counts.vision + counts.prefill,
        "prefill + tokens": counts.prefill + decoding,
        "tower + prefill + tokens": counts.vision + counts.prefill + decoding,
    }


def tables(result: BenchResult) -> list[Table]:
    """All tables, in reading order."""
    return [
        size_table(result),
        time_table(result),
        ratio_table(result),
        count_table(result),
        limit_table(result),
        memory_table(result),
        *([accuracy_table(result)] if result.accuracies else []),
        *([growth_table(result.growth)] if result.growth else []),
    ]


def size_table(result: BenchResult) -> Table:
    """Visual tokens, tokens in the prompt, frames and peak memory."""
    table = _table("What is read, and the memory that it takes", result)
    stock = _stock(result)

    def add(title: str, show: Callable[[Measurement], str]) -> None:
        table.add(title, *(show(measured) for measured in result.measurements))

    def saved(value: float, of: float) -> str:
        return "" if value == of else f" ({100 * (value / of - 1):+.1f} %)"

    tokens = stock.first[0].visual_tokens_after
    add("frames read", lambda measured: str(measured.first[0].frames))
    add(
        "visual tokens",
        lambda measured: f"{(n := measured.first[0].visual_tokens_after)}{saved(n, tokens)}",
    )
    prompt = stock.first[0].prompt_tokens_after
    add(
        "the video's tokens in the prompt",
        lambda measured: f"{(n := measured.first[0].prompt_tokens_after)}{saved(n, prompt)}",
    )
    peaks = [measured.peak_bytes_above for measured in result.measurements]
    if None not in peaks and stock.peak_bytes_above is not None:
        above, whole = stock.peak_bytes_above, peak_bytes(stock, result)
        add(
            "peak MB above weights",
            lambda measured: f"{(b := measured.peak_bytes_above or 0) / 1e6:.0f}{saved(b, above)}",
        )
        add(
            "peak MB with weights, dual encoder's too",
            lambda measured: f"{(b := peak_bytes(measured, result)) / 1e6:.0f}{saved(b, whole)}",
        )
        add(
            "as a multiple of the model's weights",
            lambda measured: f"{peak_bytes(measured, result) / result.weights_bytes:.2f}",
        )
    return table


def peak_bytes(measured: Measurement, result: BenchResult) -> int:
    """Peak memory with all weights that a setting needs: the model's and, for the memory, the dual encoder's."""
    embedder = result.embedder_bytes if measured.setting.remembers else 0
    return result.weights_bytes + embedder + (measured.peak_bytes_above or 0)


def time_table(result: BenchResult) -> Table:
    """Medians of all rows with the intervals of the medians."""
    table = _table(f"Milliseconds {_clock(result)}: median ± half the interval of the median", result)
    seconds = _rows(result)
    for title in seconds[0]:
        table.add(title, *(_milliseconds(spread(values[title])) for values in seconds))
    return table


def ratio_table(result: BenchResult) -> Table:
    """How many times faster than stock, repeat by repeat."""
    table = _table("Times faster than stock: median of the repeats' ratios [its interval]", result)
    stock = rows(_stock(result), result.options.new_tokens)
    seconds = _rows(result)
    for title in (
        "vision tower",
        "prefill",
        "per token",
        *TOTALS,
        "end to end",
        "second question",
    ):
        table.add(title, *(_ratio(ratios(stock[title], values[title])) for values in seconds))
    return table


def count_table(result: BenchResult) -> Table:
    """Counted operations and bytes."""
    table = _table("Counted: operations and bytes moved", result)
    works = _limits(result)
    for title in works[0]:
        table.add(title, *(f"{_scaled(work[title].flops)}FLOP, {_scaled(work[title].bytes)}B" for work in works))
    return table


def limit_table(result: BenchResult) -> Table:
    """The least time for the counted work on this device, and how many times that was taken."""
    table = _table("Least milliseconds for what is counted, and how many times that it took", result)
    seconds = _rows(result)
    works = _limits(result)
    for title in works[0]:
        cells = []
        for work, values in zip(works, seconds, strict=True):
            least = work[title].seconds(result.ceilings)
            cells.append(f"{_number(1000 * least)}, x{spread(values[title]).median / least:.1f}")
        table.add(title, *cells)
    return table


def memory_table(result: BenchResult) -> Table:
    """What happens once per video, before the stages' clocks are set."""
    table = Table("Once per video: milliseconds on the clock", ("", "ms"))
    table.add("segmentation", _milliseconds(spread(result.remembering.segmentation)))
    table.add(f"embedding of {result.remembering.events} events", _milliseconds(spread(result.remembering.embedding)))
    return table


def accuracy_table(result: BenchResult) -> Table:
    """What a model of the micro-world answers right on it in each setting."""
    table = _table("Micro-world, a model of it: exact answers in percent [95 % interval over videos]", result)
    asked = result.accuracies[0].right.n
    table.add(f"{asked} questions", *(interval(accuracy.right) for accuracy in result.accuracies))
    table.add("visual tokens, mean", *(f"{accuracy.visual_tokens:.0f}" for accuracy in result.accuracies))
    table.add("frames read, mean", *(f"{accuracy.frames:.0f}" for accuracy in result.accuracies))
    return table


def growth_table(growth: Growth) -> Table:
    """Memory over many questions."""
    table = Table(f"Memory in use over questions about one video, setting {INSIDE!r}", ("questions", "MB"))
    for count, used in zip(growth.questions, growth.bytes, strict=True):
        table.add(str(count), f"{used / 1e6:,.0f}")
    table.add("growth after the first tenth", f"{growth.after_warm_up / 1e6:+,.1f}")
    return table


def summary(result: BenchResult) -> str:
    """Machine, ceilings and command in a few lines."""
    where, ceilings = result.circumstances, result.ceilings
    rounds = len(result.measurements[0].first)
    lines = [
        f"{result.options.model} in {str(result.placement.dtype).removeprefix('torch.')} on "
        f"{where.environment['device']}, {where.threads} threads, load {where.load}",
        f"weights {_scaled(result.weights_bytes)}B, dual encoder {_scaled(result.embedder_bytes)}B; ceilings "
        f"{_scaled(ceilings.flops)}FLOP/s, {_scaled(ceilings.bandwidth)}B/s",
        *(f"{measured.setting.name}: {measured.setting.title}" for measured in result.measurements),
        f"{rounds} repeats in {where.wall_seconds:.0f} s; {where.started}; {where.command}",
    ]
    return "\n".join(lines)


def as_json(result: BenchResult) -> dict[str, Any]:
    """Options, environment and every single measurement, in seconds and bytes."""
    return {
        "options": {**asdict(result.options), "output": str(result.options.output)},
        **asdict(result.circumstances),
        "ceilings": asdict(result.ceilings),
        "weights_bytes": result.weights_bytes,
        "embedder_bytes": result.embedder_bytes,
        "accuracies": [asdict(accuracy) for accuracy in result.accuracies],
        "growth": None if result.growth is None else asdict(result.growth),
        "remembering": asdict(result.remembering),
        "settings": {measured.setting.name: _as_json(measured, result) for measured in result.measurements},
    }


def _as_json(measured: Measurement, result: BenchResult) -> dict[str, Any]:
    new_tokens = result.options.new_tokens
    return {
        **asdict(measured.setting),
        "frames_read": measured.first[0].frames,
        "visual_tokens": measured.first[0].visual_tokens_after,
        "prompt_tokens": measured.first[0].prompt_tokens_after,
        "peak_bytes_above": measured.peak_bytes_above,
        "seconds": rows(measured, new_tokens),
        "second_question_stages": [answer.seconds for answer in measured.second],
        "retrieved_events": {
            "first question": [asdict(event) for event in measured.first[0].events],
            "second question": [asdict(event) for event in measured.second[0].events],
        },
        "counted": {
            title: {"flops": work.flops, "bytes": work.bytes, "least_seconds": work.seconds(result.ceilings)}
            for title, work in limits(measured.counts, new_tokens).items()
        },
    }


def write_report(result: BenchResult, folder: Path) -> None:
    """Writes ``bench.json``, ``bench.md`` and ``bench.png``."""
    write_json(folder / "bench.json", as_json(result))
    texts = ["```\n" + summary(result) + "\n```", *(table.markdown() for table in tables(result))]
    write_text(folder / "bench.md", "\n\n".join(texts) + "\n")
    write_bytes(folder / "bench.png", picture(result))


def picture(result: BenchResult) -> bytes:
    """Where the time of a first question goes, and the second question, as bars: a PNG."""
    with extra("eval"):
        from matplotlib.figure import Figure

    seconds = _rows(result)
    names = [measured.setting.name for measured in result.measurements]
    figure = Figure(figsize=(9, 1.2 + 0.5 * len(names)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 1))
    starts = [0.0] * len(names)
    for colour, hatch, stage in zip(COLOURS, HATCHES, (*STAGES, "other"), strict=True):
        lengths = [1000 * spread(values[stage]).median for values in seconds]
        left.barh(names, lengths, left=starts, color=colour, hatch=hatch, edgecolor="white", label=stage)
        starts = [start + length for start, length in zip(starts, lengths, strict=True)]
    left.invert_yaxis()
    left.set_xlabel(f"first question, ms {_clock(result)}")
    figure.legend(loc="outside lower center", ncols=4, fontsize=8)
    right.barh(names, [1000 * spread(values["second question"]).median for values in seconds], color="#555555")
    right.set_xlabel(f"second question,\nms {_clock(result)}")
    figure.suptitle(f"{result.options.model}, {result.circumstances.environment['device']}", fontsize=9)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()


def _rows(result: BenchResult) -> list[dict[str, list[float]]]:
    """`rows` of every setting."""
    return [rows(measured, result.options.new_tokens) for measured in result.measurements]


def _limits(result: BenchResult) -> list[dict[str, Work]]:
    """`limits` of every setting."""
    return [limits(measured.counts, result.options.new_tokens) for measured in result.measurements]


def _clock(result: BenchResult) -> str:
    return "of the processor" if result.options.processor_time else "on the clock"


def _table(title: str, result: BenchResult) -> Table:
    return Table(title, ("", *(measured.setting.name for measured in result.measurements)))


def _stock(result: BenchResult) -> Measurement:
    return next(measured for measured in result.measurements if measured.setting.name == STOCK)


def _milliseconds(value: Spread) -> str:
    return f"{_number(1000 * value.median)} ± {100 * value.relative:.0f} %" if value.high else "-"


def _ratio(value: Spread) -> str:
    return "1" if value.low == value.high == 1 else f"{value.median:.2f} [{value.low:.2f}, {value.high:.2f}]"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _scaled(value: float) -> str:
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:.3g} {prefix}"
    return f"{value:.3g} "
