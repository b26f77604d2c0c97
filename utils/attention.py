"""What the attention of dynamic layers tells: do the K kernels share the images among them, or do all images get the
same mixture? Statistics, their words and their table. Not for recording: that is models/attention_probe.py. The
pictures are in utils/attention_plots.py."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils.files import atomic_write

# Where the verdicts change. They are for the eye of a reader, not results of a theory; the figures stand beside them.
FEWEST_IMAGES = 10  # fewer say nothing about how images differ
ALIKE = 0.05  # kernel distance: below it, the mixture is much the same whatever the attention is
MOVING = 0.1  # variation: on average a tenth of the attention goes to other kernels than in the mean image
EFFECT = 0.05  # mixture change: below it, the attention varies, but the kernels are too alike for it to matter
COLLAPSED = 0.9  # mean attention of one kernel
UNIFORM = 0.97  # entropy; (.35, .25, .2, .2) has .98 and (.4, .3, .2, .1) has .92

COLUMNS = (
    "layer", "kernel", "class", "name", "images", "mean", "std", "largest", "entropy",
    "kernel_distance", "kernel_cosine", "variation", "mixture_change", "class_share", "temperature", "verdict",
)  # fmt: skip


@dataclass(frozen=True)
class LayerAttention:
    """The attention of one dynamic layer in N images, and how its K kernels lie to each other.

    Attributes:
        name: of the layer in the model.
        attention: float64 (N, K), each row summing to 1.
        gram: float64 (K, K), the inner products of the kernels (not of their biases).
        temperature: of the attention's softmax; at a high one, uniform is what is to be expected.
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
        """Of the attention in an image, mean over the images: 0 = one kernel alone, 1 = all K alike."""
        return float(mean_rows(normalised_entropy(self.attention)[:, None])[0])

    @property
    def kernels_used(self) -> float:
        """How many kernels the images use together, 1..K: the exponential of the mean attention's entropy."""
        return float(len(self.gram) ** normalised_entropy(self.mean))

    @property
    def variation(self) -> float:
        """Part of the attention that goes to other kernels than in the mean image, mean over the images: 0 = every
        image gets the same mixture, at most 1 - 1 / K. (The total variation distance.)"""
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
        """How far the mixed kernel of an image is from that of the mean attention, root mean square over the images, in
        lengths of the latter: 0 = a static convolution. It takes both kernels that differ and attention that varies."""
        moved = mean_square(self.attention - self.mean, self.gram)
        length = self.mean @ self.gram @ self.mean
        return float(np.sqrt(moved / length)) if length > 0 else 0.0

    @property
    def verdict(self) -> str:
        """In words: "specialised" (the images get different mixtures), "little effect" (they do, but of kernels too
        alike for it to matter), "collapsed to kernel k", "uniform" (all kernels alike in every image), "fixed mixture"
        (uneven, but the same in every image), "equal kernels" (the attention changes next to nothing), or "too few
        images". The thresholds stand at the top of this file."""
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
    """The figures of one layer as short texts: ("entropy 0.98 of 1", ..., "kernels differ by 12 %", ...). counts:
    label_counts() of its images."""
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
    """Mean over the rows of the squared length of the kernels that they mix. mixtures (N, K), any sign; gram (K, K)."""
    return float(max(mean_rows(((mixtures @ gram) * mixtures).sum(1, keepdims=True))[0], 0))


def normalised_entropy(attention: np.ndarray) -> np.ndarray:
    """(..., K) -> (...): entropy as a part of the largest possible one, log K. 0 for a single kernel."""
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
    """(K, K) -> (K, K): length of the difference of two kernels, in units of the root mean square of their lengths.
    0 = equal, 1.41 = unrelated, 2 = opposite."""
    squares = np.diag(gram)[:, None] + np.diag(gram)  # |a|^2 + |b|^2
    relative = np.divide(squares - 2 * gram, squares / 2, out=np.zeros_like(gram), where=squares > 0)
    return np.sqrt(np.maximum(relative, 0))


def kernel_cosines(gram: np.ndarray) -> np.ndarray:
    """(K, K) -> (K, K): cosines of the angles between kernels, 0 beside a kernel of zeros."""
    lengths = np.sqrt(np.diag(gram))
    products = lengths[:, None] * lengths
    return np.divide(gram, products, out=np.zeros_like(gram), where=products > 0)


def mean_of_pairs(matrix: np.ndarray) -> float:
    """Mean of a symmetric (K, K) over its pairs of different indices; 0 where K is 1."""
    rows, columns = np.triu_indices(len(matrix), k=1)
    return float(matrix[rows, columns].mean()) if len(rows) else 0.0


# ------------------------------------------------------------------------------------------------------------- classes
def label_counts(classes: Sequence[Sequence[int]], nc: int) -> np.ndarray:
    """Class ids of the labels in each of N images -> how many of each class, int (N, nc)."""
    counts = [np.bincount(np.asarray(ids, dtype=int), minlength=nc) for ids in classes]
    return np.stack(counts) if counts else np.zeros((0, nc), int)


def class_share(layer: LayerAttention, counts: np.ndarray) -> float | None:
    """How much of the mixed kernel's variance over the images goes with the classes in them, 0..1: the adjusted R^2 of
    a linear fit of the attention to which classes have labels. None where images are too few or don't differ.

    counts: label_counts() of the same N images. What is left goes with something else: light, size, crowding, ...
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
    """Writes the COLUMNS as CSV: of each layer and kernel a row over all images, and one over the images with labels of
    each class that occurs. An image with several classes is in the rows of each.

    counts: label_counts() of the same N images. mean, std, largest and entropy are those of the row's images;
    kernel_distance and kernel_cosine are means over the other kernels; from variation on, figures are the layer's.
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
    """Of each kernel the columns from mean to kernel_cosine, over the chosen images, bool (N,)."""
    part = LayerAttention(layer.name, layer.attention[chosen], layer.gram, layer.temperature)
    kernels = len(layer.gram)
    others = max(kernels - 1, 1)
    distance = kernel_distances(layer.gram).sum(1) / others  # 0 to itself
    cosines = kernel_cosines(layer.gram)
    cosine = (cosines.sum(1) - np.diag(cosines)) / others
    yield from zip(part.mean, part.std, part.largest, [part.entropy] * kernels, distance, cosine, strict=True)


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"
