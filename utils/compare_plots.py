"""The picture of a comparison: what each model reaches by class, and beside it how sure the differences are. Not the
numbers in it: utils/comparison.py."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from utils.comparison import Comparison, Measured, signed_interval
from utils.figures import (
    GREY,
    INK,
    SERIES,
    SOFT_INK,
    add_common_legend,
    chart_names,
    new_figure,
    save_figure,
    style_axes,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHOWN_CLASSES = 80  # of more, those with the most labels
BAR_INCHES, GAP_INCHES = 0.2, 0.14  # height of a bar or an interval, and between two classes


def plot_comparison(comparison: Comparison, file: Path) -> None:
    """Writes two panels with a row for all classes together and one for each class. Left: bars of the models' mAP50-95.
    Right: how the others differ from the first model, with 95 % intervals, hollow where the interval covers zero."""
    first = comparison.models[0]
    rows = shown_rows(first)
    shown = [first.metrics.per_class[row] for row in rows]
    names = ["all classes", *chart_names({each.cls: each.name for each in shown}).values()]
    height = 1.7 + (len(names) + 0.5) * (GAP_INCHES + BAR_INCHES * len(comparison.models))
    figure, ((bars, intervals),) = new_figure(1, 2, size_inches=(12, height), sharey=True)
    _draw_bars(bars, comparison.models, rows)
    _draw_intervals(intervals, comparison, rows)
    bars.set_yticks(range(len(names)), names)
    bars.set_ylim(len(names) - 0.5, -0.6)
    selection = f", the {len(rows)} classes with the most labels" if len(rows) < len(first.metrics.per_class) else ""
    style_axes(bars, f"mAP50-95{selection}", x_label="mAP50-95", grid="x")
    style_axes(intervals, f"Difference to {first.name}", x_label="Difference in mAP50-95 (right: better)", grid="x")
    bars.tick_params(axis="y", labelsize=9, labelcolor=INK, length=0)
    intervals.tick_params(axis="y", length=0)
    bars.get_yticklabels()[0].set_fontweight("bold")
    figure.supxlabel(
        f"Intervals: 95 % of {comparison.resamples} resamples of {first.metrics.images} images; hollow where they "
        "cover zero. Of many classes, one in twenty lies beside zero by chance.",
        fontsize=8,
        color=SOFT_INK,
    )
    add_common_legend(figure, bars, columns=len(comparison.models))
    save_figure(figure, file)


def shown_rows(model: Measured) -> list[int]:
    """Which rows of metrics.per_class are drawn: their numbers, ascending."""
    labels = np.array([row.labels for row in model.metrics.per_class])
    return sorted(np.argsort(-labels, kind="stable")[:SHOWN_CLASSES].tolist())


def _draw_bars(axes: "Axes", models: Sequence[Measured], rows: Sequence[int]) -> None:
    """mAP50-95 of each model; rows: of metrics.per_class. The first model is grey: others are held against it."""
    thickness = 0.8 / len(models)
    for number, model in enumerate(models):
        values = [model.metrics.map, *(model.metrics.per_class[row].map for row in rows)]
        y = np.arange(len(values)) + (number - (len(models) - 1) / 2) * thickness
        colour = SERIES[(number - 1) % len(SERIES)] if number else GREY
        bars = axes.barh(y, values, thickness * 0.9, color=colour, label=model.name)
        axes.bar_label(bars, fmt="%.3f", padding=2, fontsize=7, color=SOFT_INK)
    axes.set_xlim(0, 1.08 * max(0.01, *(row.map for model in models for row in model.metrics.per_class)))


def _draw_intervals(axes: "Axes", comparison: Comparison, rows: Sequence[int]) -> None:
    """Differences to the first model with their intervals; rows: of metrics.per_class."""
    axes.axvline(0, color=INK, linewidth=1)
    others = comparison.others
    apart = 0.8 / (len(others) + 1)
    beside = axes.get_yaxis_transform()  # x in widths of the axes
    for number, (model, change) in enumerate(zip(others, comparison.changes, strict=True)):
        classes = (model.metrics.per_class[row].cls for row in rows)
        intervals = [change.map, *(change.per_class[cls] for cls in classes)]
        colour = SERIES[number % len(SERIES)]
        for row, interval in enumerate(intervals):
            y = row + (number - (len(others) - 1) / 2) * apart
            axes.plot((interval.low, interval.high), (y, y), color=colour, linewidth=2.4 if row == 0 else 1.6)
            axes.text(1.02, y, signed_interval(interval), color=colour, fontsize=7.5, va="center", transform=beside)
            face = "white" if interval.covers_zero else colour
            marker, size = ("D", 7) if row == 0 else ("o", 6)
            axes.plot(interval.value, y, marker, color=colour, markerfacecolor=face, markersize=size)
