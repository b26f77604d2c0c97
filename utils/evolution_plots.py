"""The picture of a search for hyperparameters: what each value led to. Not the search: utils/study.py."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.evolution import Range, TrialResult, best_of
from utils.figures import GREY, INK, SERIES, add_common_legend, new_figure, save_figure, style_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = 5
PANEL_INCHES = (2.6, 2.2)  # width, height
LEGEND_INCHES = 0.5
LEAST_INCHES = 5.5  # of the picture's width, for the legend
WIDE = 200  # times the lower end; below it a logarithmic axis also has ticks between the powers of ten
BEST, TRIED = SERIES[1], SERIES[0]


def plot_evolution(trials: Sequence[TrialResult], space: Mapping[str, Range], file: Path) -> None:
    """Writes a panel for each hyperparameter that is varied: fitness over its value in every trial. The best trial is
    marked and its value named; the trial from which the search began is a diamond."""
    best, columns = best_of(trials), min(COLUMNS, len(space))
    rows = math.ceil(len(space) / columns)
    width, height = PANEL_INCHES
    size = (max(width * columns, LEAST_INCHES), height * rows + LEGEND_INCHES)
    figure, axes = new_figure(rows, columns, size_inches=size, sharey=True)
    for number, (panel, (name, range_)) in enumerate(zip(axes.flat, space.items(), strict=False)):
        _draw_panel(panel, trials, name, range_)
        best_value = f"best: {getattr(best.hyp, name):.4g}" if best else ""
        style_axes(panel, name, x_label=best_value, y_label="" if number % columns else "fitness")
        panel.xaxis.label.set_color(BEST)
    for unused in axes.flat[len(space) :]:
        unused.set_visible(False)
    add_common_legend(figure, axes[0, 0], columns=4)
    save_figure(figure, file)


def _draw_panel(axes: "Axes", trials: Sequence[TrialResult], name: str, range_: Range) -> None:
    """Fitness over one hyperparameter's value, a point for each trial."""
    complete = [trial for trial in trials if trial.state == "complete"]
    cut_short = [trial for trial in trials if trial.state != "complete"]
    start = [trial for trial in trials if trial.number == 0]
    best = best_of(trials)
    hollow = {"facecolors": "none", "edgecolors": GREY, "linewidths": 0.9, "s": 16}
    _scatter(axes, cut_short, name, label="pruned or diverged", **hollow)
    _scatter(axes, complete, name, label="complete", color=TRIED, alpha=0.55, linewidths=0, s=22)
    diamond = {"facecolors": "white", "edgecolors": INK, "linewidths": 1.4, "s": 60, "marker": "D"}
    _scatter(axes, start, name, label="start", zorder=3, **diamond)
    _scatter(axes, [best] if best else [], name, label="best", color=BEST, linewidths=0, s=44, zorder=4)
    axes.set_xlim(range_.low, range_.high)
    axes.margins(y=0.08)
    _set_ticks(axes, range_)


def _set_ticks(axes: "Axes", range_: Range) -> None:
    """Sets so few ticks that they fit a small panel, with plain numbers: 0.01, not 10^-2."""
    from matplotlib.ticker import FormatStrFormatter, LogLocator, MaxNLocator, NullLocator

    axes.xaxis.set_major_locator(MaxNLocator(4))
    if range_.log:
        axes.set_xscale("log")
        subs = (1, 2, 5) if range_.high < WIDE * range_.low else (1,)
        axes.xaxis.set_major_locator(LogLocator(subs=subs))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FormatStrFormatter("%g"))


def _scatter(axes: "Axes", trials: Sequence[TrialResult], name: str, **look: Any) -> None:
    """Points, also on the axes' edges, where values at the ends of a range are."""
    if trials:
        values = [getattr(trial.hyp, name) for trial in trials]
        axes.scatter(values, [trial.fitness for trial in trials], clip_on=False, **look)
