"""Pictures of a validation: precision, recall and F1 curves, the confusion matrix. Not the numbers in them: those are
in utils/metrics.py."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from utils.annotator import PALETTE_HEX, class_hex
from utils.figures import INK, SOFT_INK, add_legend, chart_names, new_figure, save_figure, style_axes
from utils.metrics import AveragePrecision

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAMED_CLASSES = 20  # more curves than that are drawn in one pale colour and without a legend entry
NUMBERED_CELLS = 30  # classes up to which the confusion matrix shows its numbers
NAMED_CELLS = 99  # and up to which it names its rows and columns
LEAST_SHARE = 0.005  # of a confusion matrix: what is less would be written as 0.00
PALE = "#c5ccd6"


def plot_curves(scores: AveragePrecision, save_dir: str | Path, names: Mapping[int, str]) -> None:
    """Writes PR_curve.png, F1_curve.png, P_curve.png, R_curve.png: a line for each class that has labels, and their
    mean."""
    save_dir, curves, shown_names = Path(save_dir), scores.curves, chart_names(names)
    labels = {int(cls): shown_names.get(int(cls), str(cls)) for cls in scores.classes}
    _plot_precision_recall(scores, labels, save_dir / "PR_curve.png")
    for stem, quantity, values in (
        ("F1", "F1", curves.f1),
        ("P", "Precision", curves.precision),
        ("R", "Recall", curves.recall),
    ):
        _plot_over_confidence(curves.axis, values, labels, quantity=quantity, file=save_dir / f"{stem}_curve.png")


def _plot_precision_recall(scores: AveragePrecision, labels: Mapping[int, str], file: Path) -> None:
    figure, axes = new_figure(1, 1, size_inches=(9, 6))
    ap50 = scores.ap[:, 0]
    texts = {cls: f"{label}  {value:.3f}" for (cls, label), value in zip(labels.items(), ap50, strict=True)}
    mean = _draw_classes(axes[0, 0], scores.curves.axis, scores.curves.precision_at_recall, texts)
    axes[0, 0].plot(
        scores.curves.axis, mean, color=INK, linewidth=2.8, label=f"all classes  {scores.map50:.3f} mAP@0.5"
    )
    _finish(axes[0, 0], "Precision over recall at IoU 0.5", x_label="Recall", y_label="Precision")
    save_figure(figure, file)


def _plot_over_confidence(
    axis: np.ndarray, values: np.ndarray, labels: Mapping[int, str], *, quantity: str, file: Path
) -> None:
    """One quantity per class (c, 1000) over the confidence threshold, with the best point of the mean marked."""
    figure, axes = new_figure(1, 1, size_inches=(9, 6))
    mean = _draw_classes(axes[0, 0], axis, values, labels)
    best = int(mean.argmax())
    text = f"all classes  {mean[best]:.2f} at {axis[best]:.3f}"
    axes[0, 0].plot(axis, mean, color=INK, linewidth=2.8, label=text)
    axes[0, 0].plot(axis[best], mean[best], "o", markersize=8, markerfacecolor="white", color=INK, clip_on=False)
    _finish(axes[0, 0], f"{quantity} over confidence", x_label="Confidence", y_label=quantity)
    save_figure(figure, file)


def _draw_classes(axes: "Axes", axis: np.ndarray, values: np.ndarray, texts: Mapping[int, str]) -> np.ndarray:
    """A line for each row of values (c, 1000); texts: class number -> its text in the legend. Returns the rows' mean
    (1000,), or zeros. A class has the colour of its boxes, unless that makes two of the lines alike."""
    if len(texts) > NAMED_CLASSES:
        axes.plot(axis, values.T, color=PALE, linewidth=0.8)
    else:
        own_colours = max(texts, default=0) < len(PALETTE_HEX)
        for row, (line, (cls, text)) in enumerate(zip(values, texts.items(), strict=True)):
            axes.plot(axis, line, color=class_hex(cls if own_colours else row), linewidth=1.3, label=text)
    return values.mean(0) if len(values) else np.zeros_like(axis)


def _finish(axes: "Axes", title: str, *, x_label: str, y_label: str) -> None:
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    style_axes(axes, title, x_label=x_label, y_label=y_label)
    add_legend(axes, loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0)


def plot_confusion_matrix(matrix: np.ndarray, file: str | Path, names: Mapping[int, str]) -> None:
    """Writes the counts (nc + 1, nc + 1), rows predicted and columns true, last = background, as shares of each column.

    Columns and rows are named up to NAMED_CELLS classes. Cells carry their share up to NUMBERED_CELLS classes, and from
    LEAST_SHARE on.
    """
    nc = len(matrix) - 1
    shares = matrix / np.maximum(matrix.sum(0, keepdims=True), 1)
    side = float(np.clip(2.8 + 0.38 * nc, 4.5, 14.5))  # inches, of the cells alone: names may be short or long
    figure, ((axes,),) = new_figure(1, 1, size_inches=(side, side))
    figure.set_layout_engine("none")
    axes.set_position((0, 0, 1, 1))
    cells = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="equal")
    if nc <= NUMBERED_CELLS:
        _write_shares(axes, shares)
    style_axes(axes, "Confusion matrix, shares of each true class", x_label="True", y_label="Predicted", grid="")
    if nc <= NAMED_CELLS:
        _name_cells(axes, chart_names(names), nc)
    bar = figure.colorbar(cells, cax=axes.inset_axes((1.02, 0.1, 0.25 / side, 0.8)))
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8, colors=SOFT_INK, length=3)
    save_figure(figure, file, grow=True)


def _name_cells(axes: "Axes", names: Mapping[int, str], nc: int) -> None:
    """Names of the classes beside the rows and below the columns."""
    texts = [*(names.get(cls, str(cls)) for cls in range(nc)), "background"]
    font_size = 8 if nc <= NUMBERED_CELLS else 7
    axes.set_xticks(range(nc + 1), texts, rotation=90, fontsize=font_size)
    axes.set_yticks(range(nc + 1), texts, fontsize=font_size)


def _write_shares(axes: "Axes", shares: np.ndarray) -> None:
    """The numbers of all cells from LEAST_SHARE up, readable on their colour."""
    size = float(np.clip(90 / len(shares), 6, 10))
    for row, column in zip(*np.nonzero(shares >= LEAST_SHARE), strict=True):
        share = shares[row, column]
        colour = "white" if share > 0.5 else INK
        axes.text(column, row, f"{share:.2f}", ha="center", va="center", fontsize=size, color=colour)
