"""What the attention of dynamic layers does: do different images get different mixtures of the K kernels, or all the
same? Statistics, a verdict in words, and their table. Not for recording the attention: that is
models/attention_probe.py; nor for the charts: utils/attention_plots.py."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils.files import atomic_write

# Thresholds between the verdicts. They come from no theory: they help a reader, who also sees the figures themselves.
FEWEST_IMAGES = 10  # fewer say nothing about how images differ
ALIKE = 0.05  # kernel_distance: below it, the mixture is much the same whatever the attention is
MOVING = 0.1  # variation: from here on, a tenth of the attention or more goes to other kernels than in the mean image
EFFECT = 0.05  # mixture_change: below it, the attention varies, but the kernels are too alike for it to matter
COLLAPSED = 0.9  # mean attention of one kernel: from here on, the others hardly count
UNIFORM = 0.97  # entropy: from here on, all kernels count alike; (.35, .25, .2, .2) has .98, (.4, .3, .2, .1) has .92

COLUMNS = (
    "layer", "kernel", "class", "name", "images", "mean", "std", "largest", "entropy",
    "kernel_distance", "kernel_cosine", "variation", "mixture_change", "class_share", "temperature", "verdict",
)  # fmt: skip


@dataclass(frozen=True)
class LayerAttention:
    """The attention of one dynamic layer in N images, and how similar its K kernels are.

    Attributes:
        name: of the layer in the model.
        attention: float64 (N, K), each row summing to 1.
        gram: float64 (K, K), the inner products of the kernels (not of their biases).
        temperature: of the attention's softmax; a high one makes any attention nearly uniform.
    """

    name: str
    attention: np.ndarray
    gram: np.ndarray
    temperature: float = 1.0

    @property
    def mean(self) -> np.ndarray:
        """(K,) over the images; zeros without images."""
        return mean_rows(self.attention)

    @property
    def std(self) -> np.ndarray:
        """(K,) over the images; zeros without images."""
        return np.sqrt(mean_rows((self.attention - self.mean) ** 2))

    @property
    def largest(self) -> np.ndarray:
        """(K,) share of the images in which each kernel has the most attention, 0..1; the first one wins a tie."""
        return largest_share(self.attention)

    @property
    def entropy(self) -> float:
        """The normalised entropy of the attention in an image, mean over the images: 0 = one kernel alone, 1 = all K
        alike."""
        return float(mean_rows(normalised_entropy(self.attention)[:, None])[0])

    @property
    def kernels_used(self) -> float:
        """How many kernels are in use over all images, 1..K: the exponential of the mean attention's entropy."""
        return float(len(self.gram) ** normalised_entropy(self.mean))

    @property
    def variation(self) -> float:
        """How much of an image's attention goes to other kernels than the mean attention does (the total variation
        distance of the two), mean over the images: 0 = every image gets the same mixture; at most 1 - 1 / K."""
        return float(mean_rows(np.abs(self.attention - self.mean).sum(1, keepdims=True) / 2)[0])

    @property
    def kernel_distance(self) -> float:
        """Mean over pairs of kernels of kernel_distances(): 0 = equal, 1.41 = unrelated, 2 = opposite."""
        return mean_of_pairs(kernel_distances(self.gram))

    @property
    def kernel_cosine(self) -> float:
        """Mean over pairs of kernels, -1..1."""
        return mean_of_pairs(kernel_cosines(self.gram))

    @property
    def mixture_change(self) -> float:
        """How far the mixed kernel of an image is from the kernel that the mean attention mixes, root mean square over
        the images, relative to the length of the latter: 0 = a static convolution. It is only large where the kernels
        differ and the attention varies."""
        moved = mean_square(self.attention - self.mean, self.gram)
        length = self.mean @ self.gram @ self.mean
        return float(np.sqrt(moved / length)) if length > 0 else 0.0

    @property
    def verdict(self) -> str:
        """The verdict in words; the thresholds are at the top of this file.

        "too few images"; "equal kernels": they are so alike that the attention hardly matters; "specialised": images
        get different mixtures; "little effect": they do, but of kernels too alike for it to matter; "collapsed to
        kernel k": it gets nearly all attention in all images; "uniform": all kernels count alike in all images; "fixed
        mixture": they do not, but the mixture is the same in all images.
        """
        if len(self.attention) < FEWEST_IMAGES:
            return "too few images"
        if len(self.gram) > 1 and self.kernel_distance < ALIKE:
            return "equal kernels"
        if self.variation >= MOVING:
            return "specialised" if self.mixture_change >= EFFECT else "little effect"
        if self.mean.max() >= COLLAPSED:
            return f"collapsed to kernel {self.mean.argmax()}"
        return "uniform" if self.entropy >= UNIFORM else "fixed mixture"


def figures(layer: LayerAttention, counts: np.ndarray) -> tuple[str, ...]:
    """The figures of one layer as short texts: ("entropy 0.98 of 1", ..., "kernels differ by 12 %", ...).

    counts: label_counts() of its images.
    """
    share = class_share(layer, counts)
    with_classes = "" if share is None else f" ({share:.0%} of it with the classes)"
    texts = (
        f"entropy {layer.entropy:.2f} of 1",
        f"{layer.kernels_used:.1f} of {len(layer.gram)} kernels used",
        f"kernels differ by {layer.kernel_distance:.0%}",
        f"mixed kernel varies by {layer.mixture_change:.0%}{with_classes}",
    )
    return tuple(text.replace("%", " %") for text in texts)


def describe(layer: LayerAttention, counts: np.ndarray) -> str:
    """The log line of one layer: "layer model.10: entropy 0.98 of 1, ..., kernels differ by 12 %, ...: uniform"."""
    return f"layer {layer.name}: {', '.join(figures(layer, counts))}: {layer.verdict}"


# ------------------------------------------------------------------------------------------------------------- figures
def mean_rows(values: np.ndarray) -> np.ndarray:
    """(N, K) -> (K,); zeros where N is 0."""
    return values.mean(0) if len(values) else np.zeros(values.shape[1:])


def mean_square(mixtures: np.ndarray, gram: np.ndarray) -> float:
    """Mean over N mixtures of the squared length of the mixed kernel. mixtures: (N, K), the weights of the K kernels,
    of any sign. gram: (K, K), the kernels' inner products."""
    return float(max(mean_rows(((mixtures @ gram) * mixtures).sum(1, keepdims=True))[0], 0))


def normalised_entropy(attention: np.ndarray) -> np.ndarray:
    """(..., K) -> (...): the entropy divided by the largest possible one, log K; 0..1. 0 for a single kernel."""
    kernels = attention.shape[-1]
    if kernels == 1:
        return np.zeros(attention.shape[:-1])
    logs = np.log(np.where(attention > 0, attention, 1))  # 0 log 0 is 0
    return np.clip(-(attention * logs).sum(-1) / np.log(kernels), 0, 1)


def largest_share(attention: np.ndarray) -> np.ndarray:
    """(N, K) -> (K,): share of the rows in which each entry is the largest; the first one wins a tie."""
    kernels = attention.shape[1]
    return np.bincount(attention.argmax(1), minlength=kernels) / max(len(attention), 1)


def gram_matrix(kernels: np.ndarray) -> np.ndarray:
    """Kernels as rows (K, P) -> their inner products, float64 (K, K)."""
    rows = np.asarray(kernels, dtype=np.float64)
    return rows @ rows.T


def kernel_distances(gram: np.ndarray) -> np.ndarray:
    """Inner products (K, K) -> distances (K, K): the length of the difference of two kernels, divided by the root mean
    square of their lengths. 0 = equal, 1.41 = unrelated, 2 = opposite."""
    squares = np.diag(gram)[:, None] + np.diag(gram)  # |a|^2 + |b|^2
    relative = np.divide(squares - 2 * gram, squares / 2, out=np.zeros_like(gram), where=squares > 0)
    return np.sqrt(np.maximum(relative, 0))


def kernel_cosines(gram: np.ndarray) -> np.ndarray:
    """Inner products (K, K) -> cosines (K, K) of the angles between kernels; 0 where one of the two is zero."""
    lengths = np.sqrt(np.diag(gram))
    products = lengths[:, None] * lengths
    return np.divide(gram, products, out=np.zeros_like(gram), where=products > 0)


def mean_of_pairs(matrix: np.ndarray) -> float:
    """Mean of a symmetric (K, K) over its pairs of different indices; 0 where K is 1."""
    rows, columns = np.triu_indices(len(matrix), k=1)
    return float(matrix[rows, columns].mean()) if len(rows) else 0.0


# ------------------------------------------------------------------------------------------------------------- classes
def label_counts(classes: Sequence[Sequence[int]], nc: int) -> np.ndarray:
    """How many labels of each class each of N images has, int (N, nc). classes: the class ids of each image's
    labels."""
    counts = [np.bincount(np.asarray(ids, dtype=int), minlength=nc) for ids in classes]
    return np.stack(counts) if counts else np.zeros((0, nc), int)


def class_share(layer: LayerAttention, counts: np.ndarray) -> float | None:
    """How much of the mixed kernel's variance over the images is explained by the classes in them, 0..1: the adjusted
    R^2 of a linear fit of the attention by which classes have labels. None where there are too few images, or where the
    mixed kernel does not vary.

    counts: label_counts() of the same N images. What is not explained depends on something else: light, size, ...
    """
    present = np.column_stack([np.ones(len(counts)), counts > 0])  # (N, 1 + nc)
    centred = layer.attention - layer.mean
    total = mean_square(centred, layer.gram)
    rank = np.linalg.matrix_rank(present) if len(present) else 0
    if len(present) - rank < FEWEST_IMAGES or total == 0:
        return None
    fit, *_ = np.linalg.lstsq(present, centred, rcond=None)
    unexplained = mean_square(centred - present @ fit, layer.gram) / total
    return float(np.clip(1 - unexplained * (len(present) - 1) / (len(present) - rank), 0, 1))


def write_table(
    file: str | Path, layers: Sequence[LayerAttention], counts: np.ndarray, names: Mapping[int, str]
) -> None:
    """Writes the COLUMNS as CSV: for each layer and kernel a row over all images, and one for each class that occurs,
    over the images with labels of it (an image with several classes counts in the rows of each).

    mean, std, largest and entropy are those of the row's images; kernel_distance and kernel_cosine are means over the
    other kernels; the columns from variation on are those of the whole layer. counts: label_counts() of the same
    images.
    """
    stream = io.StringIO()
    writer = csv.writer(stream)
    writer.writerow(COLUMNS)
    chosen: dict[tuple[int | str, str], np.ndarray] = {("all", "all"): np.ones(len(counts), bool)}
    chosen |= {(cls, names[cls]): counts[:, cls] > 0 for cls in np.flatnonzero(counts.any(0)).tolist()}
    for layer in layers:
        whole = (layer.variation, layer.mixture_change, class_share(layer, counts), layer.temperature)
        for (cls, name), rows in chosen.items():
            for kernel, figures_of_kernel in enumerate(_kernel_figures(layer, rows)):
                line = [layer.name, kernel, cls, name, int(rows.sum()), *map(_short, figures_of_kernel)]
                writer.writerow([*line, *map(_short, whole), layer.verdict])
    with atomic_write(file) as out:
        out.write(stream.getvalue().encode("utf-8"))


def _kernel_figures(layer: LayerAttention, chosen: np.ndarray) -> Iterator[tuple[float, ...]]:
    """The columns from mean to kernel_cosine for each kernel, over the chosen images, bool (N,)."""
    part = LayerAttention(layer.name, layer.attention[chosen], layer.gram, layer.temperature)
    kernels = len(layer.gram)
    others = max(kernels - 1, 1)
    distance = kernel_distances(layer.gram).sum(1) / others  # 0 to itself
    cosines = kernel_cosines(layer.gram)
    cosine = (cosines.sum(1) - np.diag(cosines)) / others
    yield from zip(part.mean, part.std, part.largest, [part.entropy] * kernels, distance, cosine, strict=True)


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"
