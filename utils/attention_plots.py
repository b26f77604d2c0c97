"""Pictures of the attention of dynamic layers: over a set of images, and in one image. Not the figures in them:
utils/attention.py."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from utils.annotator import class_hex, readable_on
from utils.attention import LayerAttention, figures
from utils.figures import (
    INK,
    SERIES,
    SOFT_INK,
    add_legend,
    chart_names,
    even_selection,
    new_figure,
    save_figure,
    style_axes,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_CLASSES = 12  # rows of bars beside "all images"
MAX_DOTS = 600  # images drawn as dots
NUMBERED_SHARE = 0.08  # of a bar's length: narrower parts have no room for their number
GOOD, MIXED, BAD = "#0b8457", "#b26a00", "#c81e4a"
VERDICT_COLOURS = {  # of utils/attention.py's verdicts; BAD for the others
    "specialised": GOOD,
    "little effect": MIXED,
    "fixed mixture": MIXED,
    "uniform": MIXED,
    "too few images": SOFT_INK,
}
SPREAD_BINS = 50  # of 0..1: values in one bin count as alike
GOLDEN_RATIO = 0.6180339887


def plot_attention(
    layers: Sequence[LayerAttention], counts: np.ndarray, names: Mapping[int, str], file: str | Path
) -> None:
    """Writes a picture with two panels for each layer (layers below each other; in two or three columns where there are
    many). Left: stacked bars of the mean attention, over all images and over those with labels of each class. Right:
    for each kernel a dot an image. Titles have the figures and the verdict.

    counts: labels of each class in each of the N images, (N, nc). Of many classes those with the most labels are shown,
    and the picture says so.
    """
    classes = classes_with_most_labels(counts)
    across = 1 if len(layers) <= 4 else 2 if len(layers) <= 12 else 3
    down = math.ceil(len(layers) / across)
    height = max(0.23 * (len(classes) + 1) + 1.5, 2.9)  # inches, of a layer
    figure, axes = new_figure(
        down, 2 * across, size_inches=(10.5 * across, height * down + 0.8), width_ratios=[1.15, 1] * across
    )
    panels = axes.reshape(down * across, 2)
    shown_names = chart_names({cls: names[cls] for cls in classes})
    for (bars, dots), layer in zip(panels, layers, strict=False):
        _draw_layer(bars, dots, layer, counts, shown_names)
    for unused in panels[len(layers) :].flat:
        unused.set_axis_off()
    title = f"Attention of the dynamic layers in {len(counts):,} images; {_told_classes(classes, counts)}"
    figure.suptitle(title, size=13, color=INK)
    save_figure(figure, file, dpi=130 if across == 1 else 100)


def _told_classes(classes: Sequence[int], counts: np.ndarray) -> str:
    """Which classes are shown, of those that occur."""
    occurring = int(counts.any(0).sum())
    if not occurring:
        return "none has a label"
    some = f"all {occurring}" if len(classes) == occurring else f"the {len(classes)} of {occurring} with most labels"
    return f"classes: {some}"


def classes_with_most_labels(counts: np.ndarray) -> list[int]:
    """Numbers, ascending, of at most MAX_CLASSES classes that have labels. counts (N, nc)."""
    totals = counts.sum(0)
    most = np.argsort(-totals, kind="stable")[:MAX_CLASSES]
    return sorted(int(cls) for cls in most if totals[cls])


def plot_image_attention(attention: Mapping[str, np.ndarray], file: str | Path) -> None:
    """Writes a stacked bar for each layer: its attention over kernels in one image. attention: name of the layer -> its
    attention (K,)."""
    figure, axes = new_figure(1, 1, size_inches=(8, 0.32 * len(attention) + 1.3))
    values = list(attention.values())
    _stacked_bars(axes[0, 0], values, list(attention))
    style_axes(axes[0, 0], "Attention of the dynamic layers in this image", x_label="attention", grid="")
    kernels = max(map(len, values))
    colours = kernel_colours(kernels)
    for kernel in range(kernels):
        axes[0, 0].bar(0, 0, color=colours[kernel], label=f"kernel {kernel}")  # of no height: for the legend alone
    columns = math.ceil(kernels / (len(attention) + 3))
    add_legend(axes[0, 0], loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0, ncols=columns)
    save_figure(figure, file, dpi=110)


def kernel_colours(kernels: int) -> list[str]:
    """A colour for each kernel; of more than 20 kernels some share one."""
    return list(SERIES[:kernels]) if kernels <= len(SERIES) else [class_hex(kernel) for kernel in range(kernels)]


def _draw_layer(
    bars: "Axes", dots: "Axes", layer: LayerAttention, counts: np.ndarray, names: Mapping[int, str]
) -> None:
    """Both panels of one layer, with bars for the named classes."""
    with_class = [counts[:, cls] > 0 for cls in names]  # (N,) each
    means = [layer.mean, *(layer.attention[images].mean(0) for images in with_class)]
    texts = [f"all images ({len(counts):,})"]
    texts += [f"{name} ({images.sum():,})" for name, images in zip(names.values(), with_class, strict=True)]
    _stacked_bars(bars, means, texts, gap=0.4)
    heat = "" if layer.temperature == 1 else f", temperature {layer.temperature:g}"
    style_axes(bars, layer.name + heat, x_label="mean attention in the images with labels of a class", grid="")
    style_axes(dots, y_label="attention, a dot an image", grid="y")
    _dots_by_kernel(dots, layer)
    entropy, used, distance, change = figures(layer, counts)
    dots.set_title(f"{entropy} · {used} · {distance}\n{change}", loc="left", fontsize=8.5, color=SOFT_INK)
    verdict_colour = VERDICT_COLOURS.get(layer.verdict, BAD)
    bars.set_title(layer.verdict, loc="right", fontsize=12, fontweight="bold", color=verdict_colour)


def _stacked_bars(axes: "Axes", rows: Sequence[np.ndarray], texts: Sequence[str], *, gap: float = 0.0) -> None:
    """A horizontal bar for each row of attention (K,), from top to bottom. The gap, in heights of a row, sets the first
    one apart from the others."""
    colours = kernel_colours(max(map(len, rows)))
    places = np.arange(len(rows)) + gap * (np.arange(len(rows)) > 0)
    for place, row in zip(places, rows, strict=True):
        starts = np.cumsum(row) - row
        axes.barh(place, row, left=starts, height=0.8, color=colours[: len(row)], edgecolor="white", linewidth=0.6)
        for start, share, colour in zip(starts, row, colours, strict=False):
            if share >= NUMBERED_SHARE:
                middle, ink = start + share / 2, _ink_on(colour)
                axes.text(middle, place, f"{share:.2f}", color=ink, fontsize=7, ha="center", va="center_baseline")
    axes.set_yticks(places, texts)
    axes.set(xlim=(0, 1), ylim=(places[-1] + 0.55, -0.55))


def _ink_on(colour: str) -> str:
    """White or INK, whichever can be read on the colour, "#rrggbb"."""
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return "white" if readable_on((red, green, blue)) == (255, 255, 255) else INK


def _dots_by_kernel(axes: "Axes", layer: LayerAttention) -> None:
    """For each kernel a cloud of dots: its attention in an even selection of the images. A short line is the mean, the
    dashed one 1 / K."""
    kernels = len(layer.gram)
    colours = kernel_colours(kernels)
    shown = even_selection(layer.attention, MAX_DOTS)  # (n, K)
    axes.axhline(1 / kernels, color=SOFT_INK, linewidth=0.9, linestyle="--", zorder=1)
    for kernel in range(kernels):
        values = shown[:, kernel]
        axes.scatter(kernel + _spread(values), values, s=7, color=colours[kernel], alpha=0.5, linewidths=0, zorder=2)
        mean = layer.mean[kernel]
        axes.plot([kernel - 0.42, kernel + 0.42], [mean, mean], color=INK, linewidth=1.6, zorder=3)
    percents = [f"{100 * share:.0f} %" for share in layer.largest]
    if kernels <= len(SERIES):
        axes.set_xticks(
            range(kernels), [f"kernel {kernel}\nlargest\nin {text}" for kernel, text in enumerate(percents)]
        )
    else:  # no room for words
        axes.set_xticks(range(kernels), [f"{kernel}\n{text}" for kernel, text in enumerate(percents)])
        axes.set_xlabel("kernel, and the images in which it is the largest", fontsize=9, color=SOFT_INK)
    for label, colour in zip(axes.get_xticklabels(), colours, strict=True):
        label.set(color=colour, fontweight="bold")
    axes.set(xlim=(-0.6, kernels - 0.4), ylim=(-0.03, 1.03))


def _spread(values: np.ndarray) -> np.ndarray:
    """Sideways offsets (n,) for dots at the values (n,) in 0..1: up to 0.4 to each side where most values are alike,
    less where few are, so that the cloud's outline shows the distribution. Evenly spread, and the same each time."""
    bin_of = np.clip((values * SPREAD_BINS).astype(int), 0, SPREAD_BINS - 1)
    counts = np.bincount(bin_of)
    width = np.sqrt(counts / max(counts.max(initial=0), 1))[bin_of]
    return (np.arange(len(values)) * GOLDEN_RATIO % 1 - 0.5) * 0.8 * width
