"""Grids of pictures (batches with their boxes, feature maps) and charts of a training (its labels, the course of
results.csv). Not the curves of a validation: utils/curves.py."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch

from utils.annotator import Annotator, class_colour, class_hex, fit_label, label_tile
from utils.errors import InputError
from utils.figures import (
    GRID,
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
from utils.files import atomic_write
from utils.fonts import drawable_names
from utils.logger_csv import read_results
from utils.metrics import fitness

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BACKDROP = (24, 26, 32)  # RGB behind the tiles of a grid
GAP = 6  # px between tiles
MOST_IMAGES = 16  # of a batch in one picture
MOST_PIXELS = 1920  # of its longer side, about
BOX_SIDES = ("x", "y", "width", "height")
MOST_OUTLINED = 1000  # boxes drawn on top of each other
MOST_COUNTED = 1_000_000  # boxes; more change no picture
LETTERS_BELOW_BARS = 70  # about so many fit side by side
NAMED_BARS, NUMBERED_BARS = 30, 20  # classes up to which bars have their class's name, and their number on top
MOST_CHANNELS, CHANNEL_PIXELS = 32, 96  # of a layer's feature maps: how many are shown, and how wide


# ------------------------------------------------------------------------------------------------------------- batches
def detections_as_targets(
    detections: Sequence[torch.Tensor], size_hw: tuple[int, int], *, max_det: int = 300
) -> np.ndarray:
    """Detections of a batch as rows for plot_images: float32 (m, 7) [image, cls, x, y, w, h, conf], normalised.

    detections: for each image (n, 6) [x1, y1, x2, y2, conf, cls], in pixels of the network's input of size_hw; of each,
    the first max_det are taken.
    """
    height, width = size_hw
    rows = [np.zeros((0, 7), np.float32)]
    for image, found in enumerate(detections):
        x1, y1, x2, y2, conf, cls = found[:max_det].detach().float().cpu().numpy().T
        sides = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
        rows.append(np.stack([np.full_like(conf, image), cls, *sides, conf], axis=1))
    return np.concatenate(rows).astype(np.float32)


def plot_images(
    images: torch.Tensor | np.ndarray,
    targets: torch.Tensor | np.ndarray,
    paths: Sequence[str | Path],
    *,
    file: str | Path,
    names: Mapping[int, str],
    conf_thres: float = 0.25,
) -> None:
    """Writes a grid of a batch with boxes, class names and file names.

    images (B, 3, H, W) RGB, uint8 or float in 0..1; targets (n, 6) [image, cls, x, y, w, h] normalised, or (n, 7) with
    the confidence: those up to conf_thres are left out. The first MOST_IMAGES are shown, on about MOST_PIXELS at most;
    small images are enlarged so that their labels can be read.
    """
    tiles = _bgr_tiles(images[:MOST_IMAGES])
    rows = np.asarray(targets.detach().cpu() if isinstance(targets, torch.Tensor) else targets, dtype=np.float32)
    if rows.shape[1] > 6:
        rows = rows[rows[:, 6] > conf_thres]
    names = drawable_names(names)
    columns = math.ceil(math.sqrt(len(tiles)))
    lines = math.ceil(len(tiles) / columns)
    height, width = tiles[0].shape[:2]
    scale = min(MOST_PIXELS / max(columns * width, lines * height), max(1.0, 640 / max(height, width)))
    drawn = [
        _batch_tile(tile, rows[rows[:, 0] == index], Path(path).name, scale=scale, names=names)
        for index, (tile, path) in enumerate(zip(tiles, paths, strict=False))
    ]
    _write_picture(file, _grid(drawn, columns))


def _bgr_tiles(images: torch.Tensor | np.ndarray) -> list[np.ndarray]:
    """(B, 3, H, W) RGB, uint8 or float in 0..1 -> a list of contiguous BGR uint8 (H, W, 3)."""
    batch = torch.as_tensor(images).detach().cpu()
    batch = (batch.float() * 255).byte() if batch.is_floating_point() else batch
    return [np.ascontiguousarray(image[::-1].transpose(1, 2, 0)) for image in batch.numpy()]


def _batch_tile(
    tile: np.ndarray, rows: np.ndarray, caption: str, *, scale: float, names: Mapping[int, str]
) -> np.ndarray:
    """One image of the grid: scaled, with its boxes (rows of plot_images' targets), and the caption below."""
    height, width = (max(round(side * scale), 1) for side in tile.shape[:2])
    tile = cv2.resize(tile, (width, height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    font_size = min(max(round(max(height, width) * 0.03), 11), 18)
    annotator = Annotator(tile, font_size=font_size, line_width=max(round(max(height, width) / 240), 1))
    confidence = rows[:, 6] if rows.shape[1] > 6 else np.ones(len(rows))
    for row in rows[np.argsort(confidence)]:  # the most confident last, on top
        cls, (x, y, w, h) = int(row[1]), row[2:6] * (width, height, width, height)
        label = names.get(cls, str(cls)) + (f" {row[6]:.2f}" if len(row) > 6 else "")
        annotator.box((x - w / 2, y - h / 2, x + w / 2, y + h / 2), label, class_colour(cls))
    strip = np.full((font_size * 2, width, 3), BACKDROP[::-1], np.uint8)
    text = label_tile(*fit_label(caption, font_size, width), BACKDROP)[: len(strip), :width]
    top = (len(strip) - len(text)) // 2
    strip[top : top + len(text), : text.shape[1]] = text
    return np.concatenate([annotator.result(), strip])


def _grid(tiles: Sequence[np.ndarray], columns: int) -> np.ndarray:
    """Tiles of one size, (h, w, 3), side by side on the backdrop, row by row."""
    height, width = tiles[0].shape[:2]
    lines = math.ceil(len(tiles) / columns)
    canvas = np.full((lines * (height + GAP) + GAP, columns * (width + GAP) + GAP, 3), BACKDROP[::-1], np.uint8)
    for index, tile in enumerate(tiles):
        line, column = divmod(index, columns)
        top, left = GAP + line * (height + GAP), GAP + column * (width + GAP)
        canvas[top : top + height, left : left + width] = tile
    return canvas


def _write_picture(file: str | Path, picture: np.ndarray) -> None:
    """BGR (h, w, 3) -> a file in the format of its suffix."""
    suffix = Path(file).suffix.lower()
    options = [] if suffix == ".png" else [cv2.IMWRITE_JPEG_QUALITY, 92]
    encoded, data = cv2.imencode(suffix, picture, options)
    if not encoded:
        raise ValueError(f"expected a picture with both sides above 0 for {file}, got {picture.shape}")
    with atomic_write(file) as stream:
        stream.write(data.tobytes())


# -------------------------------------------------------------------------------------------------------------- labels
def plot_labels(rows: np.ndarray, names: Mapping[int, str], save_dir: str | Path) -> None:
    """Writes labels.jpg (instances per class, the boxes on top of each other, where centres and sizes lie) and
    labels_correlogram.jpg of labels (n, 5) [cls, x, y, w, h], normalised. Instances are counted in all of them; boxes
    are drawn, and places and sizes counted, in an even selection of MOST_OUTLINED and MOST_COUNTED."""
    rows = np.asarray(rows).reshape(-1, 5)
    figure, axes = new_figure(2, 2, size_inches=(11, 10))
    _class_bars(axes[0, 0], rows[:, 0].astype(int), names)
    _boxes_overlay(axes[0, 1], even_selection(rows, MOST_OUTLINED), total=len(rows))
    counted = even_selection(rows, MOST_COUNTED).astype(np.float64)
    _density(axes[1, 0], counted[:, 1], counted[:, 2])
    style_axes(axes[1, 0], "Where the centres lie", x_label="x", y_label="y", grid="")
    axes[1, 0].invert_yaxis()  # as in the picture
    _density(axes[1, 1], counted[:, 3], counted[:, 4])
    style_axes(axes[1, 1], "How large the boxes are", x_label="width", y_label="height", grid="")
    save_figure(figure, Path(save_dir) / "labels.jpg")
    _correlogram(counted[:, 1:], Path(save_dir) / "labels_correlogram.jpg", total=len(rows))


def _class_bars(axes: "Axes", classes: np.ndarray, names: Mapping[int, str]) -> None:
    """A bar for each class, with as much text as there is room for. classes (n,): those of the labels."""
    nc = max([*names, int(classes.max(initial=0))]) + 1
    counts = np.bincount(classes, minlength=nc)
    axes.bar(range(nc), counts, color=[class_hex(cls) for cls in range(nc)], width=0.8)
    middle, places = (nc - 1) / 2, max(nc, 3)  # one or two bars are no wider than the third part of the chart
    axes.set(xlim=(middle - places / 2 - 0.2, middle + places / 2 + 0.2), ylim=(0, max(counts.max() * 1.05, 1)))
    style_axes(axes, "Instances per class", y_label=f"instances (total {len(classes):,})", grid="y")
    if nc > NAMED_BARS:
        axes.set_xlabel("class", fontsize=9, color=SOFT_INK)
        return
    shown_names = chart_names(names)
    texts = [shown_names.get(cls, str(cls)) for cls in range(nc)]
    letters = LETTERS_BELOW_BARS / (places if nc > 1 else 1)  # below each bar
    rotation = 0 if max(map(len, texts)) + 2 <= letters else 90
    axes.set_xticks(range(nc), texts, rotation=rotation, fontsize=8 if nc <= NUMBERED_BARS else 7)
    if nc <= NUMBERED_BARS:
        for cls, count in enumerate(counts):
            axes.annotate(f"{count:,}", (cls, count), ha="center", va="bottom", fontsize=7, color=SOFT_INK)


def _boxes_overlay(axes: "Axes", rows: np.ndarray, *, total: int) -> None:
    """Boxes (n, 5) around one common centre, each in its class's colour."""
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    patches = [Rectangle((0.5 - w / 2, 0.5 - h / 2), w, h) for w, h in rows[:, 3:]]
    edges = [class_hex(cls) for cls in rows[:, 0]]
    opacity = min(max(60 / max(len(rows), 1), 0.15), 0.9)
    axes.add_collection(PatchCollection(patches, facecolor="none", edgecolor=edges, linewidth=0.8, alpha=opacity))
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", anchor="NW", xticks=[], yticks=[])
    style_axes(axes, f"Boxes around one centre ({_share(rows, total)})", grid="")
    for spine in axes.spines.values():
        spine.set_visible(True)


def _density(axes: "Axes", horizontal: np.ndarray, vertical: np.ndarray, *, bins: int = 50) -> None:
    """Two-dimensional histogram of values in 0..1, white where there is nothing."""
    from matplotlib.colors import LinearSegmentedColormap

    counts, _, _ = np.histogram2d(vertical, horizontal, bins=bins, range=((0, 1), (0, 1)))
    blues = LinearSegmentedColormap.from_list("density", ["#ffffff", "#9bd0ff", "#0a84ff", "#10316b"])
    axes.imshow(
        np.sqrt(counts), origin="lower", extent=(0, 1, 0, 1), cmap=blues, interpolation="nearest", aspect="auto"
    )  # the root keeps single boxes visible beside crowded cells


def _share(selection: np.ndarray, total: int) -> str:
    """ "1,000 of 20,000" or "all 300" """
    return f"{len(selection):,} of {total:,}" if len(selection) < total else f"all {total:,}"


def _correlogram(boxes: np.ndarray, file: Path, *, total: int) -> None:
    """A chart for each pair of the columns of boxes (n, 4), BOX_SIDES; on the diagonal a histogram of the column."""
    figure, axes = new_figure(4, 4, size_inches=(10, 10))
    for line in range(4):
        for column in range(4):
            cell = axes[line, column]
            if column > line:
                cell.set_axis_off()
                continue
            if column == line:
                cell.hist(boxes[:, line], bins=50, range=(0, 1), color=SERIES[0])
            else:
                _density(cell, boxes[:, column], boxes[:, line], bins=40)
            style_axes(
                cell,
                x_label=BOX_SIDES[column] if line == 3 else "",
                y_label=BOX_SIDES[line] if column == 0 and line else "count" if column == line else "",
                grid="",
            )
            cell.set_xlim(0, 1)
            cell.tick_params(labelbottom=line == 3, labelleft=column in (0, line))
    figure.suptitle(f"Labels: {_share(boxes, total)} boxes, sides as parts of the image", fontsize=12, color=INK)
    save_figure(figure, file, dpi=130)


# ------------------------------------------------------------------------------------------------------------- results
def read_columns(csv_file: str | Path) -> dict[str, np.ndarray]:
    """Columns of a results.csv: name -> values, NaN where a cell is empty. Raises InputError where it has no row of an
    epoch, or a cell that is no number."""
    rows = read_results(Path(csv_file))
    if not rows:
        raise InputError(f"expected at least one row of an epoch, got none in {csv_file}")
    try:
        return {name: np.array([float(row[name] or "nan") for row in rows]) for name in rows[0]}
    except ValueError as error:
        raise InputError(f"expected numbers in the rows of {csv_file}: {error}") from error


def without_skipped(results: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A copy in which epochs that were not validated (--noval) have NaN, which lines leave out, for the losses and
    metrics of the validation. In results.csv all of these are 0 then."""
    validated = [key for key in results if key.startswith(("val/", "metrics/"))]
    if not validated:
        return dict(results)
    skipped = ~np.any([results[key] != 0 for key in validated], axis=0)
    return {key: np.where(skipped, np.nan, values) if key in validated else values for key, values in results.items()}


def plot_results(csv_file: str | Path, file: str | Path | None = None) -> Path:
    """Charts results.csv: losses of training and validation, precision, recall, mAP, learning rates and temperature.
    Returns the path of the picture, by default results.png beside csv_file."""
    results = without_skipped(read_columns(csv_file))
    file = Path(file or Path(csv_file).with_suffix(".png"))
    figure, axes = new_figure(2, 3, size_inches=(13, 7.5))
    for column, (key, title) in enumerate((("box", "Box loss"), ("obj", "Objectness loss"), ("cls", "Class loss"))):
        _lines(axes[0, column], results, {f"train/{key}_loss": "train", f"val/{key}_loss": "val"}, title)
    precision_recall = {"metrics/precision": "precision", "metrics/recall": "recall"}
    _lines(axes[1, 0], results, precision_recall, "Precision and recall")
    _lines(axes[1, 1], results, {"metrics/mAP_0.5": "mAP 0.5", "metrics/mAP_0.5:0.95": "mAP 0.5:0.95"}, "mAP")
    _mark_best(axes[1, 1], results)
    for cell in axes[1, :2]:
        cell.set_ylim(-0.02, 1.02)
    _schedule(axes[1, 2], results)
    save_figure(figure, file, dpi=120)
    return file


def _lines(axes: "Axes", results: Mapping[str, np.ndarray], series: Mapping[str, str], title: str) -> None:
    """Columns of the results over the epochs; series: column -> its text in the legend. Columns that the file lacks are
    left out."""
    present = {key: label for key, label in series.items() if key in results}
    for colour, (key, label) in zip(SERIES, present.items(), strict=False):
        marker = "o" if np.isfinite(results[key]).sum() < 15 else None
        axes.plot(results["epoch"], results[key], color=colour, label=label, marker=marker, markersize=4, linewidth=1.8)
    first, last = results["epoch"][0], results["epoch"][-1]
    axes.set_xlim(first - 0.02 * (last - first) - 0.2, max(last, first + 1) + 0.02 * (last - first) + 0.2)
    axes.locator_params(axis="x", integer=True)
    style_axes(axes, title, x_label="epoch")
    if present:
        add_legend(axes)


def _mark_best(axes: "Axes", results: Mapping[str, np.ndarray]) -> None:
    """Rings at the epoch of the best fitness, and its values in the title."""
    columns = ("metrics/precision", "metrics/recall", "metrics/mAP_0.5", "metrics/mAP_0.5:0.95")
    if not all(column in results for column in columns):
        return
    fitnesses = [fitness(*values) for values in zip(*(results[column] for column in columns), strict=True)]
    if np.isnan(fitnesses).all():
        return
    map50, map50_95 = (results[column] for column in columns[2:])
    best = int(np.nanargmax(fitnesses))
    epoch = results["epoch"][best]
    axes.plot([epoch] * 2, [map50[best], map50_95[best]], "o", ms=9, mfc="none", mec=INK, mew=1.4)
    axes.set_title(
        f"best, epoch {epoch:.0f}: {map50[best]:.3f} and {map50_95[best]:.3f}", loc="right", fontsize=9, color=SOFT_INK
    )


def _schedule(axes: "Axes", results: Mapping[str, np.ndarray]) -> None:
    """Learning rates, and the temperature of dynamic layers on an axis of its own."""
    groups = {"x/lr0": "BN weights", "x/lr1": "weights", "x/lr2": "biases"}
    has_temperature = "x/temperature" in results
    _lines(axes, results, groups, "Learning rate and temperature" if has_temperature else "Learning rate")
    if not has_temperature:
        return
    right = axes.twinx()
    right.plot(results["epoch"], results["x/temperature"], color=SERIES[3], linewidth=1.8, linestyle="--")
    style_axes(right, grid="")
    right.spines["right"].set(visible=True, color=GRID)
    right.set_ylabel("temperature (dashed)", fontsize=9, color=SOFT_INK)
    right.set_ylim(bottom=0)


# -------------------------------------------------------------------------------------------------------- feature maps
def plot_feature_maps(features: torch.Tensor, title: str, file: str | Path) -> None:
    """Writes the first channels of one layer's output (1, C, H, W) as a grid, each scaled to its own range, and the
    whole tensor (C, H, W) as .npy beside it."""
    maps = features[0].detach().float().cpu().numpy()
    shown = maps[:MOST_CHANNELS]
    height = max(round(CHANNEL_PIXELS * maps.shape[1] / maps.shape[2]), 1)
    tiles = [_coloured(channel, (CHANNEL_PIXELS, height)) for channel in shown]
    grid = _grid(tiles, min(8, len(tiles)))
    text = f"{title}: {len(shown)} of {len(maps)} channels, {maps.shape[1]} x {maps.shape[2]}"
    plate = label_tile(*fit_label(text, 14, grid.shape[1] - GAP), BACKDROP)[:, : grid.shape[1]]
    strip = np.full((len(plate) + GAP, grid.shape[1], 3), BACKDROP[::-1], np.uint8)
    strip[GAP:, : plate.shape[1]] = plate
    _write_picture(file, np.concatenate([strip, grid]))
    with atomic_write(Path(file).with_suffix(".npy")) as stream:
        np.save(stream, maps)


def _coloured(channel: np.ndarray, size_wh: tuple[int, int]) -> np.ndarray:
    """(H, W) floats -> BGR uint8 tile; the darkest colour is the channel's minimum, the brightest its maximum."""
    low, high = float(channel.min()), float(channel.max())
    grey = ((channel - low) * (255 / max(high - low, 1e-12))).astype(np.uint8)
    return cv2.applyColorMap(cv2.resize(grey, size_wh, interpolation=cv2.INTER_NEAREST), cv2.COLORMAP_VIRIDIS)
