"""The pictures: what they show is what the tables say, and everything can be told apart without colours."""

from itertools import combinations, pairwise
from pathlib import Path

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from experiments.ablation.intervals import Interval
from experiments.ablation.plots import (
    LOOKS,
    TITLES,
    accuracy_figure,
    accuracy_panels,
    curve,
    curve_figure,
    read_tables,
    write_picture,
)
from experiments.ablation.settings import ARMS, LAYOUTS

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "results.md").read_text(encoding="utf-8")
CURVE = [0.0, 2.0]
"""Seconds at which arms are measured."""


def seed_of(arm, accuracy):
    measured = [[second, dict.fromkeys([*LAYOUTS, "full"], accuracy)] for second in CURVE]
    return {"stages": [{"seconds": 2.0, "curve": measured} for _ in arm.stages]}


ROWS = {
    arm.key: [seed_of(arm, accuracy) for accuracy in (number / 20, number / 20 + 0.1)]
    for number, arm in enumerate(ARMS)
}
"""What results.json would say of two seeds of every arm, each as good throughout as its number says."""


def test_tables_are_read_and_what_is_no_score_is_left_out():
    lines = ["arm | 128 tokens | change", "---|---|---", "SFT | 99.5 [99.1, 99.9] | +0.1 [-0.5, +1.0]", "x | | 3"]
    markdown = "\n".join(f"| {line} |" for line in lines)
    scores = {"128 tokens": Interval(99.5, 99.1, 99.9), "change": Interval(0.1, -0.5, 1.0)}
    assert read_tables(f"{markdown}\n\n| other | n |\n|---|---|\n| y | 4 |\n") == {"arm": {"SFT": scores}}


def test_every_score_of_the_page_is_drawn_once_where_it_belongs():
    tables, figure = read_tables(PAGE), accuracy_figure(PAGE)
    layouts = [[score for row in tables[title].values() for score in row.values()] for title in TITLES.values()]
    expected = [*layouts, [row["128 tokens"] for row in tables["arm"].values()]]
    assert [len(scores) for scores in expected] == [27, 27, 15]
    for axes, scores in zip(figure.axes, expected, strict=True):
        drawn = sorted(x for bars in axes.containers for x in bars.lines[0].get_xdata())
        assert drawn == pytest.approx(sorted(score.mean for score in scores))


def test_a_method_has_the_row_that_its_label_names():
    figure = accuracy_figure(PAGE)
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert len(set(names)) == len(names) == len({arm.name for arm in ARMS}) + 1
    for axes, panel in zip(figure.axes, accuracy_panels(PAGE).values(), strict=True):
        for bars, scores in zip(axes.containers, panel.values(), strict=True):
            assert [names[round(height)] for height in bars.lines[0].get_ydata()] == list(scores)


def brightness(colour: str) -> float:
    red, green, blue = to_rgb(colour)
    return 0.299 * red + 0.587 * green + 0.114 * blue


def test_series_differ_in_shape_in_line_and_in_grey():
    for first, second in combinations(LOOKS, 2):
        assert first.marker != second.marker and first.line != second.line
        assert abs(brightness(first.colour) - brightness(second.colour)) > 0.2


def test_series_of_a_panel_do_not_cover_each_other():
    for axes in accuracy_figure(PAGE).axes:
        heights = sorted(y for bars in axes.containers for y in bars.lines[0].get_ydata())
        assert min(b - a for a, b in pairwise(heights)) > 0.2


@pytest.mark.parametrize("figure", [accuracy_figure(PAGE), curve_figure(ROWS)], ids=["accuracies", "curves"])
def test_nothing_is_cut_off_or_runs_into_its_neighbour(figure: Figure):
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    drawn, page = figure.get_tightbbox(canvas.get_renderer()), figure.bbox_inches
    assert page.x0 <= drawn.x0 and page.y0 <= drawn.y0 and drawn.x1 <= page.x1 and drawn.y1 <= page.y1
    for axes in figure.axes:
        low, high = axes.get_xlim()
        ticks = [tick for tick in axes.xaxis.get_major_ticks() if low <= tick.get_loc() <= high]
        boxes = [tick.label1.get_window_extent() for tick in ticks if tick.label1.get_visible()]
        assert not any(first.overlaps(second) for first, second in pairwise(boxes))


def test_every_method_has_a_panel_with_its_own_curves():
    figure = curve_figure(ROWS)
    names = [axes.get_xlabel() for axes in figure.axes[-len({arm.name for arm in ARMS}) :]]
    assert names == list(dict.fromkeys(names)) and set(names) == {arm.name.replace("->", " → ") for arm in ARMS}
    shown = {}
    for number, axes in enumerate(figure.axes):
        own = [line for line in axes.lines if not line.get_label().startswith("_")]
        assert bool(own) == axes.get_visible() and len({line.get_marker() for line in own}) == len(own)
        shown[number // len(names), names[number % len(names)]] = [line.get_ydata()[0] for line in own]
    for arm in ARMS:
        _, accuracies = curve(ROWS[arm.key], "full")
        assert 100 * accuracies[0] in shown[2, arm.name.replace("->", " → ")]
    assert (
        sum(map(len, shown.values())) == len(ARMS) + 2 * 7
    )  # each with every token; at a layout its own and the mixed


def test_a_picture_is_wide_enough_to_be_read(tmp_path):
    for name, figure in (("a.png", accuracy_figure(PAGE)), ("b.png", curve_figure(ROWS))):
        write_picture(figure, tmp_path / name)
        assert Image.open(tmp_path / name).size[0] >= 2 * 880
