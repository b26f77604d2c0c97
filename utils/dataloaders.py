"""Batches of a set's samples, made by worker processes. Not for what is in a sample (utils/datasets.py)."""

import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from utils.datasets import DetectionDataset, Sample, Shapes
from utils.errors import InputError
from utils.hyp import Hyp
from utils.labels import cache_file, image_files, index_labels
from utils.log import LOGGER


@dataclass(frozen=True)
class Batch:
    """The samples of B images.

    images: uint8 (B, 3, H, W), RGB.
    targets: float32 (n, 6), rows [number of the image in the batch, class, x, y, w, h], boxes normalised.
    paths, shapes: one for each image, see Sample.
    """

    images: Tensor
    targets: Tensor
    paths: tuple[str, ...]
    shapes: tuple[Shapes | None, ...]

    def __len__(self) -> int:
        return len(self.images)

    def pin_memory(self) -> "Batch":
        """A copy in page-locked memory, from where a GPU fetches faster; torch's loader calls it."""
        return replace(self, images=self.images.pin_memory(), targets=self.targets.pin_memory())


def collate(samples: Sequence[Sample]) -> Batch:
    """Samples with images of the same size -> a batch. Its images are in channels_last order in memory, as those of the
    samples are, so that nothing is transposed, neither here nor for a channels_last network."""
    return Batch(
        torch.stack([sample.image.permute(1, 2, 0) for sample in samples]).permute(0, 3, 1, 2),
        _numbered([sample.targets for sample in samples]),
        tuple(sample.path for sample in samples),
        tuple(sample.shapes for sample in samples),
    )


def _numbered(targets: Sequence[Tensor]) -> Tensor:
    """Targets of single images, (n_i, 6) -> (n, 6) with the image's number in the first column."""
    joined = torch.cat([*targets])  # a copy: the samples keep theirs
    joined[:, 0] = torch.arange(len(targets)).repeat_interleave(torch.tensor([len(rows) for rows in targets]))
    return joined


@dataclass(frozen=True)
class QuadCollate:
    """Makes one image of twice the size from every four samples (--quad): with equal chances the four side by side, or
    the first of them enlarged. Which one depends only on the seed and the first sample's key.

    Differs from v6.1: where the number of samples is no multiple of four, the last ones are enlarged, there they are
    lost; each image has the path of the first of its four samples.
    """

    seed: int = 0

    def __call__(self, samples: Sequence[Sample]) -> Batch:
        quads = [samples[start : start + 4] for start in range(0, len(samples), 4)]
        merged: list[Sample] = []
        for quad in quads:
            if len(quad) < 4:
                merged.extend(map(enlarged, quad))
            else:
                rng = np.random.default_rng((self.seed, quad[0].key, 0, 4))
                merged.append(enlarged(quad[0]) if rng.random() < 0.5 else tiled(quad))
        return collate(merged)


def enlarged(sample: Sample) -> Sample:
    """The sample with its image enlarged to twice the size, bilinearly; the boxes, which are normalised, stay."""
    image = F.interpolate(sample.image[None].float(), scale_factor=2.0, mode="bilinear", align_corners=False)
    return replace(sample, image=image[0].to(sample.image.dtype))


def tiled(quad: Sequence[Sample]) -> Sample:
    """One sample of four with images of the same size, in the places top left, bottom left, top right, bottom right."""
    top_left, bottom_left, top_right, bottom_right = (sample.image for sample in quad)
    columns = torch.cat((top_left, bottom_left), 1), torch.cat((top_right, bottom_right), 1)
    targets = []
    for sample, corner_xy in zip(quad, ((0, 0), (0, 1), (1, 0), (1, 1)), strict=True):
        rows = sample.targets.clone()
        rows[:, 2:4] += torch.tensor(corner_xy)
        rows[:, 2:] /= 2
        targets.append(rows)
    return replace(quad[0], image=torch.cat(columns, 2), targets=torch.cat(targets))


class EpochSampler(Sampler[int]):
    """The keys of one epoch's samples (see DetectionDataset): every picture once, shuffled by seed and epoch, or with
    weights as many pictures, drawn by weight. The epoch is in the keys because the loader processes, which have copies
    of the dataset, go on from epoch to epoch.

    batch_size: images a batch, of all training processes together. share: (this process's number, how many there are);
    each process takes its part of every batch. Where the last batch cannot be divided evenly, some of its pictures are
    in it twice.
    """

    def __init__(
        self,
        dataset: DetectionDataset,
        *,
        batch_size: int = 1,
        shuffle: bool = False,
        seed: int = 0,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        self.dataset, self.batch_size, self.shuffle, self.seed = dataset, batch_size, shuffle, seed
        self.rank, self.ranks = share
        self.epoch = self.skip_batches = 0

    def __len__(self) -> int:
        """How many samples this process gets in a whole epoch."""
        batches, rest = divmod(len(self.dataset), self.batch_size)
        return (batches * self.batch_size + _ceil_to(rest, self.ranks)) // self.ranks

    def set_epoch(self, epoch: int, *, skip_batches: int = 0) -> None:
        """Chooses the epoch; to be called before the loader is iterated over. skip_batches: how many batches at its
        beginning are left out, because the training that is resumed has seen them."""
        self.epoch, self.skip_batches = epoch, skip_batches

    def set_weights(self, weights: Sequence[float] | np.ndarray | Tensor) -> None:
        """--image-weights: (N,), how likely each picture is drawn from the next epoch on, as itself or into a mosaic.

        Raises InputError where the batches have shapes of their own (rect), which forbids another order.
        """
        if self.dataset.rect:
            raise InputError(
                "--image-weights and --rect: expected one of them, got both: each orders the pictures its way"
            )
        self.dataset.chances.set(weights)

    def __iter__(self) -> Iterator[int]:
        n = len(self.dataset)
        rng = np.random.default_rng((self.seed, self.epoch))
        if self.dataset.chances.weighted:
            numbers = self.dataset.chances.draw(rng, n)
        else:
            numbers = rng.permutation(n) if self.shuffle else np.arange(n)
        keys = self.epoch * n + numbers
        for start in range(self.skip_batches * self.batch_size, n, self.batch_size):
            batch = keys[start : start + self.batch_size]
            size = _ceil_to(len(batch), self.ranks) // self.ranks
            yield from np.resize(batch, size * self.ranks)[self.rank * size :][:size].tolist()


def _ceil_to(number: int, multiple: int) -> int:
    """The smallest multiple that is not below the number."""
    return -(-number // multiple) * multiple


def _start_worker(_: int) -> None:
    """Prepares a loader process. It computes on one thread, as there are as many of these processes as CPUs. It leaves
    the main process's group, so that signals to the group (Ctrl+C, torch's launcher) reach only the main process, which
    decides; without the main process it ends by itself."""
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)
    else:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    cv2.setNumThreads(0)


def worker_count(workers: int, batch_size: int) -> int:
    """How many loader processes to start: `workers`, but no more than there are images in a batch, nor CPUs for this
    training process (those on one machine share them). 0: the main process loads."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    own = max(cpus // int(os.environ.get("LOCAL_WORLD_SIZE", 1)), 1)  # set by torch's launcher
    return min(workers, own, batch_size if batch_size > 1 else 0)


class Loader(DataLoader[Sample]):
    """torch's loader, with the types of its dataset and its sampler. It yields Batches."""

    dataset: DetectionDataset
    sampler: EpochSampler


def create_dataloader(
    paths: tuple[Path, ...], *, imgsz: int, batch_size: int, stride: int = 32, nc: int | None = None,
    hyp: Hyp | None = None, augment: bool = False, rect: bool = False, pad: float = 0.0, cache: str | None = None,
    single_cls: bool = False, workers: int = 8, quad: bool = False, shuffle: bool = False, seed: int = 0,
    mosaic_until: int | None = None, share: tuple[int, int] = (0, 1), prefix: str = "",
) -> Loader:  # fmt: skip
    """A loader of Batches over the pictures of directories, list files or patterns. No picture is dropped: the last
    batch may be smaller.

    Args:
        paths: see image_files.
        batch_size: images a batch, of all training processes together; no more than there are images.
        nc, single_cls: see index_labels.
        imgsz, stride, hyp, augment, rect, pad, cache, mosaic_until: see DetectionDataset.
        workers: loader processes, at most; see worker_count.
        quad: see QuadCollate.
        shuffle, seed, share: see EpochSampler.
        prefix: put before what is logged, such as "train: ".

    Raises InputError for unusable data.
    """
    images = image_files(paths)
    index = index_labels(
        images, nc=nc, cache=cache_file(paths, images), single_cls=single_cls, need_labels=augment, prefix=prefix
    )
    batch_size = min(batch_size, _ceil_to(len(index), share[1]))
    dataset = DetectionDataset(
        index, imgsz=imgsz, hyp=hyp, augment=augment, rect=rect, batch_size=batch_size, stride=stride, pad=pad,
        cache=cache, seed=seed, mosaic_until=mosaic_until, prefix=prefix,
    )  # fmt: skip
    if rect and shuffle:
        LOGGER.warning(f"{prefix}Rectangular batches have their own order: the pictures are not shuffled")
    return make_dataloader(
        dataset, batch_size=batch_size, workers=workers, quad=quad, shuffle=shuffle and not rect, seed=seed, share=share
    )


def make_dataloader(
    dataset: DetectionDataset, *, batch_size: int, workers: int = 8, quad: bool = False, shuffle: bool = False,
    seed: int = 0, share: tuple[int, int] = (0, 1),
) -> Loader:  # fmt: skip
    """A loader over a dataset; its arguments are those of create_dataloader. Batches do not depend on `workers`."""
    own_batch = batch_size // share[1]
    workers = worker_count(workers, own_batch)
    return Loader(
        dataset,
        batch_size=own_batch,
        sampler=EpochSampler(dataset, batch_size=batch_size, shuffle=shuffle, seed=seed, share=share),
        num_workers=workers,
        collate_fn=QuadCollate(seed) if quad else collate,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_start_worker,
        persistent_workers=workers > 0,
        generator=torch.Generator().manual_seed(seed),  # or torch would draw from the global one
    )
