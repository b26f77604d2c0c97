"""Anchors that fit a data set: how well given ones fit, and the search for better ones by k-means and evolution. Not
for decoding boxes with them, nor for their order over the levels: utils/anchors.py."""

import numpy as np

from utils.log import LOGGER

GOOD_RECALL = 0.98  # best possible recall above which anchors stay as they are
SAMPLE = 50_000  # at most so many labels are looked at together
MIN_SIDE = 2  # pixels; labels with both sides below it are not fitted to, and no side of an anchor gets below it
MUTATION_RATE = 0.9  # probability that a side of an anchor is changed in a generation
MUTATION_SPREAD = 0.1  # largest standard deviation of the factors
MUTATION_LIMITS = (0.3, 3.0)  # of the factors


def label_sizes(sizes_wh: np.ndarray, rows: np.ndarray, offsets: np.ndarray, *, imgsz: int) -> np.ndarray:
    """Widths and heights (m, 2) of labels in pixels of images whose longer side is imgsz, float32.

    Args:
        sizes_wh: (n, 2) of the images, in any unit: only the ratio of their sides matters.
        rows: (m, 5) [class, x, y, w, h normalised], image by image.
        offsets: (n + 1,): image i has the rows from offsets[i] up to, but without, offsets[i + 1].
    """
    scaled = imgsz * sizes_wh / sizes_wh.max(1, keepdims=True)  # (n, 2)
    return (rows[:, 3:5] * np.repeat(scaled, np.diff(offsets), axis=0)).astype(np.float32)


def similarity(wh: np.ndarray, anchors_wh: np.ndarray) -> np.ndarray:
    """How alike in size each box (m, 2) and each anchor (n, 2) are: (m, n) in 0..1.

    That is 1 / factor, for the larger of the two factors by which their widths and their heights differ.
    """
    ratio = wh[:, None] / anchors_wh[None]  # (m, n, 2)
    return np.minimum(ratio, 1 / ratio).min(2)


def best_possible_recall(wh: np.ndarray, anchors_wh: np.ndarray, thr: float) -> tuple[float, float]:
    """The share of boxes (m, 2) that at least one anchor (n, 2) matches, and how many anchors match a box on average.

    A box and an anchor match where both sides differ by less than the factor thr (hyperparameter anchor_t).
    """
    if not len(wh):
        return 0.0, 0.0
    parts = np.array_split(wh, -(-len(wh) // SAMPLE))  # millions of labels at once would take gigabytes
    anchors_of_box = np.concatenate([(similarity(part, anchors_wh) > 1 / thr).sum(1) for part in parts])  # (m,)
    return float((anchors_of_box > 0).mean()), float(anchors_of_box.mean())


def anchor_fitness(wh: np.ndarray, anchors_wh: np.ndarray, thr: float) -> float:
    """Mean over the boxes (m, 2) of the similarity to the best of the anchors (n, 2); it counts as 0 where even that
    one does not match. In 0..1."""
    best = similarity(wh, anchors_wh).max(1)
    return float((best * (best > 1 / thr)).mean())


def kmean_anchors(
    wh: np.ndarray, n: int, *, imgsz: int, thr: float = 4.0, generations: int = 1000, rng: np.random.Generator
) -> np.ndarray:
    """n anchors (n, 2) for boxes (m, 2), all in pixels at imgsz, float32, smallest area first.

    First k-means of the sizes, then `generations` steps of evolution. Raises ValueError where no box is large enough.

    Differs from v6.1: everything random comes from rng; of many labels a random sample is used; with fewer different
    sizes than anchors the evolution starts from evenly spread squares.
    """
    sizes = wh[(wh >= MIN_SIDE).any(1)]
    if not len(sizes):
        raise ValueError(f"anchors need labels of {MIN_SIDE} px or more, got {len(wh)} labels and none that large")
    if len(sizes) > SAMPLE:
        sizes = sizes[rng.choice(len(sizes), SAMPLE, replace=False)]
    anchors = evolve(cluster_sizes(sizes, n, imgsz=imgsz, rng=rng), sizes, thr=thr, generations=generations, rng=rng)
    return anchors[anchors.prod(1).argsort()].astype(np.float32)


def cluster_sizes(wh: np.ndarray, n: int, *, imgsz: int, rng: np.random.Generator) -> np.ndarray:
    """Centres (n, 2), in pixels, of n clusters of the sizes (m, 2), found after widths and heights were scaled to the
    same standard deviation. Evenly spread squares where there are fewer than n different sizes."""
    from sklearn.cluster import KMeans

    if len(np.unique(wh, axis=0)) < n:
        side = imgsz * np.arange(1, n + 1) / (n + 1)
        return np.stack((side, side), 1)
    spread = wh.std(0).clip(1e-3)
    seed = int(rng.integers(2**31))
    return KMeans(n, n_init=3, max_iter=30, random_state=seed).fit(wh / spread).cluster_centers_ * spread


def evolve(
    anchors_wh: np.ndarray, wh: np.ndarray, *, thr: float, generations: int, rng: np.random.Generator
) -> np.ndarray:
    """The fittest anchors (n, 2) found: each generation multiplies the best ones so far by random factors near 1, and
    what fits the boxes wh (m, 2) better becomes the best. No side gets below MIN_SIDE."""
    best = anchors_wh.clip(MIN_SIDE)
    fitness = anchor_fitness(wh, best, thr)
    for _ in range(generations):
        mutates = rng.random(best.shape) < MUTATION_RATE
        strength = rng.random() * MUTATION_SPREAD  # one for all, so that fine steps are tried as well as coarse ones
        factors = (1 + mutates * rng.standard_normal(best.shape) * strength).clip(*MUTATION_LIMITS)
        child = (best * factors).clip(MIN_SIDE)
        child_fitness = anchor_fitness(wh, child, thr)
        if child_fitness > fitness:
            best, fitness = child, child_fitness
    return best


def check_anchors(
    wh: np.ndarray, anchors_wh: np.ndarray, *, imgsz: int, thr: float = 4.0, rng: np.random.Generator
) -> np.ndarray:
    """The anchors to train with: the given ones where they fit, else new ones if those are better. Says in the log
    which.

    Args:
        wh: (m, 2) sizes of all labels, pixels at imgsz (label_sizes).
        anchors_wh: (nl, na, 2) of the model, pixels.
        thr: hyperparameter anchor_t.

    Returns (nl, na, 2), pixels: `anchors_wh` itself, or a new array with the areas rising from level to level.

    Differs from v6.1: sizes are taken as they are, not varied by up to ten percent at random, so that the answer is the
    same each time; a failure of the search is not swallowed.
    """
    flat = anchors_wh.reshape(-1, 2)  # (nl * na, 2)
    recall, per_label = best_possible_recall(wh, flat, thr)
    fit = f"AutoAnchor: {per_label:.2f} anchors/target, {recall:.3f} best possible recall (BPR)"
    if recall > GOOD_RECALL:
        LOGGER.info(f"{fit}. The anchors fit these labels.")
        return anchors_wh
    if not (wh >= MIN_SIDE).any():
        LOGGER.warning(f"{fit}. There is no label of {MIN_SIDE} px or more to fit anchors to: they stay as they are.")
        return anchors_wh
    LOGGER.info(f"{fit}. The anchors fit these labels badly: looking for better ones...")
    found = kmean_anchors(wh, len(flat), imgsz=imgsz, thr=thr, rng=rng)
    new_recall, new_per_label = best_possible_recall(wh, found, thr)
    if new_recall <= recall:
        LOGGER.info(f"AutoAnchor: found none better ({new_recall:.3f} BPR). The given anchors stay.")
        return anchors_wh
    sides = ", ".join(f"{width:.0f},{height:.0f}" for width, height in found)
    LOGGER.info(f"AutoAnchor: new anchors, {new_per_label:.2f} anchors/target, {new_recall:.3f} BPR: {sides}")
    return found.reshape(anchors_wh.shape).astype(anchors_wh.dtype)
