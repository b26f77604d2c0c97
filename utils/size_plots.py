"""The picture of val.py --task study: mAP against speed and against image size. Not how it is measured:
engine/size_study.py."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from utils.figures import INK, SERIES, add_legend, new_figure, save_figure, style_axes

Curve = Sequence[tuple[int, float, float]]  # (pixels, milliseconds an image, mAP50-95) by rising size


def plot_sizes(curves: Mapping[str, Curve], file: Path) -> None:
    """Writes a curve a model: left over milliseconds an image, the size written at each point, right over the size."""
    figure, axes = new_figure(1, 2, size_inches=(12, 4.6), sharey=True)
    for number, (name, points) in enumerate(curves.items()):
        colour = SERIES[number % len(SERIES)]
        sizes, times, quality = zip(*points, strict=True)
        for pair, x in zip(axes[0], (times, sizes), strict=True):
            pair.plot(x, quality, marker="o", markersize=4, linewidth=1.6, color=colour, label=name)
        for size, ms, value in points:
            axes[0, 0].annotate(
                str(size), (ms, value), xytext=(0, 5), textcoords="offset points", ha="center", fontsize=7, color=INK
            )
    style_axes(axes[0, 0], "Quality and speed", x_label="ms an image, all stages", y_label="mAP50-95")
    style_axes(axes[0, 1], "Quality and image size", x_label="longer side, pixels")
    axes[0, 0].margins(y=0.12)
    add_legend(axes[0, 1], loc="lower right")
    save_figure(figure, file)
