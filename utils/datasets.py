"""A set of labelled pictures as samples for the network: what happens to each, in which order. Not for how a single
change works (utils/augmentations.py, utils/mosaic.py), for reading files (utils/images.py) or for batches
(utils/dataloaders.py)."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from utils.augmentations import (
    apply_mixup,
    draw_mixup,
    letterbox,
    random_copy_paste,
    random_fliplr,
    random_flipud,
    random_hsv,
    random_warp,
)
from utils.boxes import xyn2xy, xywhn2xyxy, xyxy2xywhn
from utils.errors import InputError
from utils.hyp import Hyp
from utils.images import IMAGE_STORES, fitted_hw
from utils.labels import LabelIndex
from utils.log import LOGGER
from utils.mosaic import compose_mosaic, draw_mosaic
from utils.scene import GREY, NO_POLYGON, Scene, scaled_labels

Step = Callable[[Scene, np.random.Generator, Hyp], Scene]

# The training pipeline. A new augmentation is a step in utils/augmentations.py, a field of Hyp, and a line here.
MOSAIC_STEPS: tuple[Step, ...] = (random_copy_paste, random_warp)  # on the large canvas, which the warp cuts to size
SINGLE_STEPS: tuple[Step, ...] = (random_warp,)  # on a picture in its letterbox, where there is no mosaic
FINAL_STEPS: tuple[Step, ...] = (random_hsv, random_flipud, random_fliplr)  # on either

Shapes = tuple[tuple[int, int], tuple[tuple[float, float], tuple[float, float]]]
FEW_BROKEN = 10  # unreadable pictures that a set of any size may have; a large one may have half of its pictures


@dataclass(frozen=True)
class Sample:
    """One picture for the network.

    image: uint8 (3, H, W), RGB.
    targets: float32 (n, 6), rows [0, class, x, y, w, h], the box normalised by the image's size.
    path: of the picture's file.
    shapes: (height, width) of the file, ((ratio_y, ratio_x), (pad_x, pad_y)) of the image in it: the way back to pixels
        of the file. None for augmented pictures, from which no way leads back.
    key: by which the dataset was asked for the sample.
    """

    image: Tensor
    targets: Tensor
    path: str
    shapes: Shapes | None
    key: int


class Chances:
    """How likely each of n pictures is drawn; at first all are alike. Loader processes see a change at once, as the
    numbers are in shared memory."""

    def __init__(self, n: int) -> None:
        self.weighted = False
        self._cumulative = torch.arange(1, n + 1, dtype=torch.float64).div_(n).share_memory_()

    def set(self, weights: Sequence[float] | np.ndarray | Tensor) -> None:
        """Sets the weights (n,), 0 or more; only their ratios count, and all zeros mean all alike. Raises ValueError
        for other ones."""
        given = torch.as_tensor(weights, dtype=torch.float64)
        if given.shape != self._cumulative.shape or not (given >= 0).all() or not given.isfinite().all():
            raise ValueError(f"weights must be {len(self._cumulative)} finite numbers >= 0, got {given}")
        cumulative = (given if given.any() else torch.ones_like(given)).cumsum(0)
        self._cumulative.copy_(cumulative / cumulative[-1])
        self.weighted = True

    def draw(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Numbers of pictures, (count,), each drawn from all of them."""
        return np.searchsorted(self._cumulative.numpy(), rng.random(count), side="right")


def rect_layout(
    sizes_wh: np.ndarray, *, batch_size: int, imgsz: int, stride: int, pad: float
) -> tuple[np.ndarray, np.ndarray]:
    """Puts pictures of similar shape into the same batch, so that they need little border.

    sizes_wh: (N, 2), pixels. pad: border in strides, added before rounding up to whole strides.
    Returns the pictures' order, (N,), by rising height / width, and the (height, width) of each of the B batches'
    images, int (B, 2), pixels.
    """
    aspect = sizes_wh[:, 1] / sizes_wh[:, 0]
    order = np.argsort(aspect, kind="stable")
    starts = np.arange(0, len(order), batch_size)
    flattest = np.minimum.reduceat(aspect[order], starts)
    tallest = np.maximum.reduceat(aspect[order], starts)
    height = np.where(tallest < 1, tallest, 1.0)  # in multiples of imgsz
    width = np.where(flattest > 1, 1 / flattest, 1.0)
    sides = np.stack((height, width), 1)
    return order, np.ceil(sides * imgsz / stride + pad).astype(int) * stride


class DetectionDataset(Dataset[Sample]):
    """The samples of an index. Each is asked for by key = epoch * len(dataset) + number, and depends only on the seed,
    the epoch and its number: not on how many loader processes there are, nor on which samples were made before.

    Args:
        imgsz: length of the longer side, pixels.
        hyp: needed to augment.
        augment: whether pictures pass the training pipeline; else they are only letterboxed.
        rect: pictures are numbered by aspect ratio, and each has the shape of its batch instead of a square; there is
        no
            mosaic then. batch_size, stride, pad: for that, see rect_layout.
        cache: None, "ram" or "disk".
        mosaic_until: the first epoch without mosaic and mixup; None: no epoch is without.
        prefix: put before what is logged.
    """

    def __init__(
        self, index: LabelIndex, *, imgsz: int, hyp: Hyp | None = None, augment: bool = False, rect: bool = False,
        batch_size: int = 16, stride: int = 32, pad: float = 0.0, cache: str | None = None, seed: int = 0,
        mosaic_until: int | None = None, prefix: str = "",
    ) -> None:  # fmt: skip
        if augment and hyp is None:
            raise ValueError("augmentation needs hyperparameters, got hyp=None")
        if cache not in IMAGE_STORES:
            raise InputError(f"--cache: expected one of {list(IMAGE_STORES)}, got {cache!r}")
        self.index, self.imgsz, self.seed = index, imgsz, seed
        self.hyp = hyp if augment else None  # None: pictures are only letterboxed
        self.batch_size, self.mosaic_until = batch_size, mosaic_until
        self.order = np.arange(len(index))
        self.batch_hw: np.ndarray | None = None  # of each batch; None where all pictures become square
        if rect:
            self.order, self.batch_hw = rect_layout(
                index.sizes_wh, batch_size=batch_size, imgsz=imgsz, stride=stride, pad=pad
            )
        self.chances = Chances(len(index))
        self.images = IMAGE_STORES[cache](index.path, index.sizes_wh, imgsz, smooth=not augment)
        self.images.fill(prefix)
        self._broken: set[int] = set()

    def __len__(self) -> int:
        return len(self.index)

    def __iter__(self) -> Iterator[Sample]:
        """The samples of epoch 0."""
        return (self[number] for number in range(len(self)))

    @property
    def rect(self) -> bool:
        """Whether each batch has a shape of its own, so that the order of pictures must stay as it is."""
        return self.batch_hw is not None

    def path(self, number: int) -> str:
        """The file of picture `number`."""
        return self.index.path(int(self.order[number]))

    def __getitem__(self, key: int) -> Sample:
        epoch, number = divmod(key, len(self))
        if self.hyp is None:
            scene, shapes = self._letterboxed(number)
        else:
            scene, shapes = self._augmented(number, epoch, self.hyp), None
        return Sample(_to_tensor(scene.image), _to_targets(scene), self.path(number), shapes, key)

    # ------------------------------------------------------------------------------------------------ the pipeline

    def _augmented(self, number: int, epoch: int, hyp: Hyp) -> Scene:
        """The picture after the training pipeline, in a mosaic or alone."""
        rng = np.random.default_rng((self.seed, epoch, number))
        if self._has_mosaic(epoch) and rng.random() < hyp.mosaic:
            scene = self._mosaic(number, rng, hyp)
            mixup = draw_mixup(rng, hyp)
            if mixup is not None:
                other = int(self.chances.draw(rng, 1)[0])
                scene = apply_mixup(scene, self._mosaic(other, rng, hyp), mixup)
        else:
            scene = _after(SINGLE_STEPS, self._letterboxed(number)[0], rng, hyp)
        return _after(FINAL_STEPS, scene, rng, hyp)

    def _has_mosaic(self, epoch: int) -> bool:
        return not self.rect and (self.mosaic_until is None or epoch < self.mosaic_until)

    def _mosaic(self, number: int, rng: np.random.Generator, hyp: Hyp) -> Scene:
        """A mosaic of the picture and three others, placed at random, after MOSAIC_STEPS."""
        tiles = rng.permutation([number, *self.chances.draw(rng, 3)]).tolist()
        scene = compose_mosaic([self._load(tile)[0] for tile in tiles], draw_mosaic(rng, self.imgsz), self.imgsz)
        return _after(MOSAIC_STEPS, scene, rng, hyp)

    def _letterboxed(self, number: int) -> tuple[Scene, Shapes]:
        """The picture in the size of its batch (or square), and the way back to the original."""
        scene, original_hw = self._load(number)
        to_hw = self.imgsz if self.batch_hw is None else tuple(self.batch_hw[number // self.batch_size].tolist())
        image, ratio_wh, pad_wh = letterbox(scene.image, to_hw, scale_up=self.hyp is not None)
        (height, width), (old_height, old_width) = scene.size_hw, original_hw
        ratio_yx = height / old_height * ratio_wh[1], width / old_width * ratio_wh[0]
        boxed = Scene(image, *scaled_labels(scene.labels, scene.segments, ratio_wh, pad_wh))
        return boxed, (original_hw, (ratio_yx, pad_wh))

    def _load(self, number: int) -> tuple[Scene, tuple[int, int]]:
        """A picture at the network's size with its labels, and the (height, width) of its original."""
        row = int(self.order[number])
        try:
            image, original_hw = self.images.get(row)
        except InputError as error:
            return self._stand_in(row, error), self.images.original_hw(row)
        rows, size_hw = self.index.labels(row), image.shape[:2]
        labels = np.concatenate((rows[:, :1], xywhn2xyxy(rows[:, 1:], size_hw)), 1)
        polygons = [xyn2xy(segment, size_hw) for segment in self.index.segments(row)]
        return Scene(image, labels, tuple(polygons or [NO_POLYGON] * len(rows))), original_hw

    def _stand_in(self, row: int, error: InputError) -> Scene:
        """A grey picture without labels in the place of one that has become unreadable since the start; the log says so
        once. Raises InputError where so many are that the disk must have failed.

        Differs from v6.1: there one such file ends the training.
        """
        if row not in self._broken:
            self._broken.add(row)
            LOGGER.warning(f"A grey picture without labels takes the place of one that cannot be read: {error}")
        if len(self._broken) > max(FEW_BROKEN, len(self) // 2):
            raise InputError(
                f"expected readable pictures, {len(self._broken)} of {len(self)} are not (any more); the last: {error}"
            ) from error
        return Scene(np.full((*fitted_hw(self.images.original_hw(row), self.imgsz), 3), GREY, np.uint8))


def _after(steps: Sequence[Step], scene: Scene, rng: np.random.Generator, hyp: Hyp) -> Scene:
    for step in steps:
        scene = step(scene, rng, hyp)
    return scene


def _to_tensor(image: np.ndarray) -> Tensor:
    """uint8 (H, W, 3) BGR -> uint8 (3, H, W) RGB; in memory a pixel's three channels stay next to each other."""
    return torch.from_numpy(cv2.cvtColor(image, cv2.COLOR_BGR2RGB)).permute(2, 0, 1)


def _to_targets(scene: Scene) -> Tensor:
    """float32 (n, 6), rows [0, class, xywhn]; boxes are limited to the image."""
    targets = np.zeros((len(scene.labels), 6), np.float32)
    targets[:, 1] = scene.labels[:, 0]
    targets[:, 2:] = xyxy2xywhn(scene.labels[:, 1:], scene.size_hw, clip=True, eps=1e-3)
    return torch.from_numpy(targets)
