"""The picture of val.py --task study: mAP against speed and against image size. Not how it is measured:
engine/size_study.py."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from utils.figures import INK, SERIES, add_legend, new_figure, save_figure, style_axes

Curve = Sequence[tuple[int, float, float]]  # (pixels, milliseconds an image, mAP50-95) by rising size


def plot_sizes(curves: Mapping[str, Curve], file: Path) -> None:
    """Writes a curve for each model (name -> curve): left over milliseconds an image, with the size at each point,
    right over the size."""
    figure, ((by_time, by_size),) = new_figure(1, 2, size_inches=(12, 4.6), sharey=True)
    for number, (name, points) in enumerate(curves.items()):
        colour = SERIES[number % len(SERIES)]
        sizes, times, quality = zip(*points, strict=True)
        for axes, x in ((by_time, times), (by_size, sizes)):
            axes.plot(x, quality, marker="o", markersize=4, linewidth=1.6, color=colour, label=name)
        for size, ms, value in points:
            by_time.annotate(
                str(size), (ms, value), xytext=(0, 5), textcoords="offset points", ha="center", fontsize=7, color=INK
            )
    style_axes(by_time, "Quality and speed", x_label="ms an image, all stages", y_label="mAP50-95")
    style_axes(by_size, "Quality and image size", x_label="longer side, pixels")
    by_time.margins(y=0.12)
    add_legend(by_size, loc="lower right")
    save_figure(figure, file)
