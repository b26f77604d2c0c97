"""Pictures of the attention of dynamic layers: over a set of images, and in one image. What is drawn is computed in
utils/attention.py."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from utils.annotator import PALETTE_HEX, readable_on
from utils.attention import LayerAttention, figures
from utils.figures import INK, SERIES, SOFT_INK, add_legend, chart_names, new_figure, save_figure, style_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_CLASSES = 12  # rows of bars beside "all images"
MAX_DOTS = 600  # images drawn as dots
NUMBERED_SHARE = 0.08  # of a bar's length: narrower parts have no room for their number
GOOD, MIXED, BAD = "#0b8457", "#b26a00", "#c81e4a"  # verdicts
VERDICT_COLOURS = {
    "specialised": GOOD,
    "little effect": MIXED,
    "fixed mixture": MIXED,
    "uniform": MIXED,
    "too few images": SOFT_INK,
}
GOLDEN_RATIO = 0.6180339887


def plot_attention(
    layers: Sequence[LayerAttention], counts: np.ndarray, names: Mapping[int, str], file: str | Path
) -> None:
    """Writes a picture with a row a layer (a grid, where they are many): stacked bars of the mean attention, over all
    images and over those with labels of each class; and a dot an image for each kernel. The title has the figures and
    the verdict.

    counts: labels of each class in each of the N images, (N, nc). Of many classes those with the most labels are shown,
    and the picture says so.
    """
    classes = classes_with_most_labels(counts)
    across = 1 if len(layers) <= 4 else 2 if len(layers) <= 12 else 3
    down = math.ceil(len(layers) / across)
    height = max(0.23 * (len(classes) + 1) + 1.5, 2.9)
    figure, axes = new_figure(
        down, 2 * across, size_inches=(10.5 * across, height * down + 0.8), width_ratios=[1.15, 1] * across
    )
    blocks = axes.reshape(down * across, 2)
    for (bars, dots), layer in zip(blocks, layers, strict=False):
        _draw_layer(bars, dots, layer, counts, chart_names({cls: names[cls] for cls in classes}))
    for cell in blocks[len(layers) :].flat:
        cell.set_axis_off()
    occurring = int(counts.any(0).sum())
    shown = f"all {occurring}" if len(classes) == occurring else f"the {len(classes)} of {occurring} with most labels"
    shown = f"classes: {shown}" if classes else "none has a label"
    figure.suptitle(f"Attention of the dynamic layers in {len(counts):,} images; {shown}", size=13, color=INK)
    save_figure(figure, file, dpi=130 if across == 1 else 100)


def classes_with_most_labels(counts: np.ndarray) -> list[int]:
    """Ids, ascending, of at most MAX_CLASSES classes that have labels. counts (N, nc)."""
    totals = counts.sum(0)
    most = np.argsort(-totals, kind="stable")[:MAX_CLASSES]
    return sorted(int(cls) for cls in most if totals[cls])


def plot_image_attention(attention: Mapping[str, np.ndarray], file: str | Path) -> None:
    """Writes a stacked bar a layer: the attention (K,) of each kernel in one image, by the layer's name."""
    figure, axes = new_figure(1, 1, size_inches=(8, 0.32 * len(attention) + 1.3))
    values = list(attention.values())
    _stacked_bars(axes[0, 0], values, list(attention))
    style_axes(axes[0, 0], "Attention of the dynamic layers in this image", x_label="attention", grid="")
    kernels = max(map(len, values))
    colours = kernel_colours(kernels)
    for kernel in range(kernels):
        axes[0, 0].bar(0, 0, color=colours[kernel], label=f"kernel {kernel}")
    columns = math.ceil(kernels / (len(attention) + 3))
    add_legend(axes[0, 0], loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0, ncols=columns)
    save_figure(figure, file, dpi=110)


def kernel_colours(kernels: int) -> list[str]:
    """A colour a kernel, told apart up to 20."""
    palette = SERIES if kernels <= len(SERIES) else PALETTE_HEX.split()
    return [palette[kernel % len(palette)] for kernel in range(kernels)]


def _draw_layer(
    bars: "Axes", dots: "Axes", layer: LayerAttention, counts: np.ndarray, names: Mapping[int, str]
) -> None:
    """Both panels of one layer, with bars for the named classes."""
    chosen = [counts[:, cls] > 0 for cls in names]
    means = [layer.mean, *(layer.attention[rows].mean(0) for rows in chosen)]
    texts = [f"all images ({len(counts):,})"]
    texts += [f"{name} ({rows.sum():,})" for name, rows in zip(names.values(), chosen, strict=True)]
    _stacked_bars(bars, means, texts, gap=0.4)
    heat = "" if layer.temperature == 1 else f", temperature {layer.temperature:g}"
    style_axes(bars, layer.name + heat, x_label="mean attention in the images with labels of a class", grid="")
    style_axes(dots, y_label="attention, a dot an image", grid="y")
    _dots_by_kernel(dots, layer)
    entropy, used, distance, change = figures(layer, counts)
    dots.set_title(f"{entropy} · {used} · {distance}\n{change}", loc="left", fontsize=8.5, color=SOFT_INK)
    bars.set_title(layer.verdict, loc="right", fontsize=12, fontweight="bold", color=_verdict_colour(layer.verdict))


def _verdict_colour(verdict: str) -> str:
    return VERDICT_COLOURS.get(verdict, BAD)


def _stacked_bars(axes: "Axes", rows: Sequence[np.ndarray], texts: Sequence[str], *, gap: float = 0.0) -> None:
    """A horizontal bar a row of attention (K,), top to bottom; the gap, in rows, sets the first one apart."""
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
    """White or our ink, whichever can be read on the colour, "#rrggbb"."""
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return "white" if readable_on((red, green, blue)) == (255, 255, 255) else INK


def _dots_by_kernel(axes: "Axes", layer: LayerAttention) -> None:
    """Attention over kernels, an even selection of the images as dots that are spread where many have one value; the
    mean as a line, 1 / K dashed."""
    kernels = len(layer.gram)
    colours = kernel_colours(kernels)
    shown = layer.attention[:: math.ceil(max(len(layer.attention), 1) / MAX_DOTS)]
    axes.axhline(1 / kernels, color=SOFT_INK, linewidth=0.9, linestyle="--", zorder=1)
    for kernel in range(kernels):
        values = shown[:, kernel]
        axes.scatter(kernel + _spread(values), values, s=7, color=colours[kernel], alpha=0.5, linewidths=0, zorder=2)
        mean = layer.mean[kernel]
        axes.plot([kernel - 0.42, kernel + 0.42], [mean, mean], color=INK, linewidth=1.6, zorder=3)
    form = "kernel {}\nlargest\nin {:.0%}" if kernels <= len(SERIES) else "{}\n{:.0%}"
    texts = [form.format(kernel, share) for kernel, share in enumerate(layer.largest)]
    axes.set_xticks(range(kernels), [text.replace("%", " %") for text in texts])
    if kernels > len(SERIES):
        axes.set_xlabel("kernel, and the images in which it is the largest", fontsize=9, color=SOFT_INK)
    for label, colour in zip(axes.get_xticklabels(), colours, strict=True):
        label.set(color=colour, fontweight="bold")
    axes.set(xlim=(-0.6, kernels - 0.4), ylim=(-0.03, 1.03))


def _spread(values: np.ndarray, *, bins: int = 50) -> np.ndarray:
    """Sideways offsets (n,), -0.4..0.4, wide where many values (n,) in 0..1 are alike: the outline shows the
    distribution. The same each time."""
    places = np.clip((values * bins).astype(int), 0, bins - 1)
    crowd = np.bincount(places, minlength=bins)
    width = np.sqrt(crowd / max(crowd.max(initial=0), 1))[places]
    return (np.arange(len(values)) * GOLDEN_RATIO % 1 - 0.5) * 0.8 * width
