"""The picture of a search for hyperparameters: what each value led to. Not the search: utils/study.py."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.evolution import Range, TrialResult, best_of
from utils.figures import INK, SERIES, new_figure, save_figure, style_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = 5
PANEL_INCHES = (2.6, 2.2)
HEAD_INCHES = 0.5
WIDE = 200  # times the lower end; below it a logarithmic axis also has ticks between the powers of ten
GREY = "#9aa3af"  # of trials that did not get to their end
BEST, TRIED = SERIES[1], SERIES[0]


def plot_evolution(trials: Sequence[TrialResult], space: Mapping[str, Range], file: Path) -> None:
    """Writes a panel for each hyperparameter that is varied: fitness over its value in every trial; the best trial is
    marked and its value named, the first one, from which the search began, is a diamond."""
    best, columns = best_of(trials), min(COLUMNS, len(space))
    rows = math.ceil(len(space) / columns)
    width, height = PANEL_INCHES
    size = (max(width * columns, 5.5), height * rows + HEAD_INCHES)
    figure, axes = new_figure(rows, columns, size_inches=size, sharey=True)
    for number, (panel, (name, range_)) in enumerate(zip(axes.flat, space.items(), strict=False)):
        _draw_panel(panel, trials, name, range_)
        found = f"best: {getattr(best.hyp, name):.4g}" if best else ""
        style_axes(panel, name, x_label=found, y_label="" if number % columns else "fitness")
        panel.xaxis.label.set_color(BEST)
    for panel in axes.flat[len(space) :]:
        panel.set_visible(False)
    figure.legend(
        *axes[0, 0].get_legend_handles_labels(), loc="outside upper left", ncols=4, frameon=False, fontsize=9,
        labelcolor=INK,
    )  # fmt: skip
    save_figure(figure, file)


def _draw_panel(axes: "Axes", trials: Sequence[TrialResult], name: str, range_: Range) -> None:
    best, first = best_of(trials), next((trial for trial in trials if trial.number == 0), None)
    ended = [trial for trial in trials if trial.state != "complete"]
    whole = [trial for trial in trials if trial.state == "complete"]
    early = {"facecolors": "none", "edgecolors": GREY, "linewidths": 0.9, "s": 16, "clip_on": False}
    _scatter(axes, ended, name, label="pruned or diverged", **early)
    _scatter(axes, whole, name, label="complete", color=TRIED, alpha=0.55, linewidths=0, s=22, clip_on=False)
    start = {"facecolors": "white", "edgecolors": INK, "linewidths": 1.4, "s": 60, "zorder": 3, "clip_on": False}
    _scatter(axes, filter(None, [first]), name, label="start", marker="D", **start)
    _scatter(axes, filter(None, [best]), name, label="best", color=BEST, linewidths=0, s=44, zorder=4, clip_on=False)
    axes.set_xlim(range_.low, range_.high)
    axes.margins(y=0.08)
    _set_ticks(axes, range_)


def _set_ticks(axes: "Axes", range_: Range) -> None:
    """Few enough that they fit a small panel, and written plainly."""
    from matplotlib.ticker import FormatStrFormatter, LogLocator, MaxNLocator, NullLocator

    axes.xaxis.set_major_locator(MaxNLocator(4))
    if range_.log:
        axes.set_xscale("log")
        subs = (1, 2, 5) if range_.high < WIDE * range_.low else (1,)
        axes.xaxis.set_major_locator(LogLocator(subs=subs))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FormatStrFormatter("%g"))


def _scatter(axes: "Axes", trials: Iterable[TrialResult], name: str, **look: Any) -> None:
    points = [(getattr(trial.hyp, name), trial.fitness) for trial in trials]
    if points:
        axes.scatter(*zip(*points, strict=True), **look)
