"""The labels of a whole set: verified in parallel, indexed in flat arrays, cached on disk. Not for single files, which
utils/label_files.py parses, nor for pixels, which utils/datasets.py reads."""

import hashlib
import itertools
import json
import os
import time
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from tqdm import tqdm

from utils import findings
from utils.errors import InputError
from utils.files import atomic_write
from utils.findings import Findings
from utils.label_files import Counts, Verified, image_files, label_path, line_of_class, verify
from utils.log import LOGGER

__all__ = [
    "IndexReport", "LabelIndex", "cache_file", "fingerprint", "image_files", "index_labels", "label_path", "verify",
    "write_cache",
]  # fmt: skip

T = TypeVar("T")
CACHE_FORMAT = 4  # in the cache's key: raise it when what is stored, or how files are verified, changes
UNREADABLE = (  # what numpy and json raise on a file that is none of ours
    OSError, ValueError, LookupError, TypeError, AttributeError, EOFError, ArithmeticError, MemoryError, RuntimeError,
    zipfile.BadZipFile, zlib.error,
)  # fmt: skip
LONGEST_REASON = 250  # characters of each reason why no image is usable
CHUNK = 128  # images a task: large enough to pack well, small enough for a lively progress bar
STAT_THREADS = 16  # that look up files' sizes and times where the answers come late, as over a network
LATE = 4.0  # answers come late where they take more than so many times the processor time spent on them


@dataclass(frozen=True)
class IndexReport:
    """Counts over all listed images, and the findings in single ones."""

    counts: Counts = Counts()
    findings: Findings = findings.NONE


@dataclass(frozen=True, eq=False)
class LabelIndex:
    """The N usable images of a set and their M labels, in flat arrays, so that a million images stay cheap.

    Attributes:
        path_bytes, path_offsets: uint8, all paths one after the other; that of image i goes from byte path_offsets[i]
            to path_offsets[i + 1]. (N + 1,) offsets.
        sizes_wh: (N, 2) int32, pixels as displayed.
        rows, offsets: (M, 5) float32 [class, x, y, w, h], the box in 0..1; image i has rows offsets[i] to
            offsets[i + 1]. (N + 1,) offsets.
        points, point_offsets: (P, 2) float32, the polygons in 0..1; row k has points point_offsets[k] to
            point_offsets[k + 1]. (M + 1,) offsets; both arrays are empty where no image has polygons.
        report: what verifying found, over all images that were listed.
    """

    path_bytes: np.ndarray
    path_offsets: np.ndarray
    sizes_wh: np.ndarray
    offsets: np.ndarray
    rows: np.ndarray
    points: np.ndarray
    point_offsets: np.ndarray
    report: IndexReport

    def __len__(self) -> int:
        return len(self.sizes_wh)

    def path(self, i: int) -> str:
        """The image's path as it was listed."""
        return os.fsdecode(self.path_bytes[self.path_offsets[i] : self.path_offsets[i + 1]].tobytes())

    def labels(self, i: int) -> np.ndarray:
        """Rows (n, 5) [class, x, y, w, h] of image i: a view, copy before writing."""
        return self.rows[self.offsets[i] : self.offsets[i + 1]]

    def segments(self, i: int) -> list[np.ndarray]:
        """Polygons (k, 2) of image i, one a row; an empty list where its label file has boxes alone."""
        bounds = self.point_offsets[self.offsets[i] : self.offsets[i + 1] + 1]
        if not len(bounds) or bounds[0] == bounds[-1]:
            return []
        return [self.points[start:end] for start, end in zip(bounds[:-1], bounds[1:], strict=True)]

    def label_file(self, i: int) -> str:
        """Where the labels of image i are looked for."""
        return label_path(self.path(i))

    def summary(self) -> dict[str, str]:
        """Kind of finding -> a line with its count and the first files, most frequent kind first."""
        return findings.summary(self.report.findings, self.label_file)

    def write_findings(self, directory: Path, split: str) -> None:
        """Writes all findings into `<split>_findings.csv` in the directory; without any, there is no file. The log says
        where it is, or that it cannot be written, which is no error."""
        file = directory / f"{split}_findings.csv"
        try:
            if findings.write_findings(self.report.findings, self.label_file, file):
                LOGGER.info(f"{split}: all {len(self.report.findings)} findings in images and labels are in {file}")
        except OSError as error:
            LOGGER.warning(f"{file} cannot be written ({error}); the training or validation goes on without it")

    def __getstate__(self) -> dict[str, Any]:
        """For loader processes that are spawned, not forked: torch moves tensors into memory that all of them share,
        while each would get its own copy of numpy arrays. The findings are not passed on: no loader reads them."""
        tensors = {name: torch.from_numpy(getattr(self, name)) for name in ARRAYS}
        return {"report": IndexReport(self.report.counts), "tensors": self.__dict__.setdefault("_tensors", tensors)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        arrays = {name: tensor.numpy() for name, tensor in state["tensors"].items()}
        self.__dict__.update(arrays, report=state["report"])


ARRAYS = ("path_bytes", "path_offsets", "sizes_wh", "offsets", "rows", "points", "point_offsets")  # of LabelIndex


# --------------------------------------------------------------------------------------------------- build the arrays
def _offsets(lengths: Sequence[int] | np.ndarray) -> np.ndarray:
    """Lengths (n,) of parts that lie one after the other -> where each begins, and the end, (n + 1,) int64."""
    return np.concatenate((np.zeros(1, np.int64), np.cumsum(np.asarray(lengths, np.int64))))


def _sum(counts: Iterable[Counts]) -> Counts:
    return Counts(*map(sum, zip(Counts(), *counts, strict=True)))


def _points_by_row(item: Verified) -> list[np.ndarray]:
    """A polygon (k, 2) for each row, empty ones where the label file has boxes alone."""
    return item.segments or [np.zeros((0, 2), np.float32)] * len(item.rows)


def pack(items: Sequence[Verified]) -> LabelIndex:
    """Index of those verified images that are usable; the report is about all of them."""
    usable = [item for item in items if not item.counts.corrupt]
    numbers = list(itertools.accumulate((not item.counts.corrupt for item in items), initial=-1))[1:]  # among `usable`
    found = [(number, finding) for item, number in zip(items, numbers, strict=True) for finding in item.findings]
    names = [os.fsencode(item.image) for item in usable]
    points = [polygon for item in usable for polygon in _points_by_row(item)]
    return LabelIndex(
        path_bytes=np.frombuffer(bytearray().join(names), np.uint8),
        path_offsets=_offsets([len(name) for name in names]),
        sizes_wh=np.array([item.size_wh for item in usable], np.int32).reshape(-1, 2),
        offsets=_offsets([len(item.rows) for item in usable]),
        rows=np.concatenate([np.zeros((0, 5), np.float32), *(item.rows for item in usable)]),
        points=np.concatenate([np.zeros((0, 2), np.float32), *points]),
        point_offsets=_offsets([len(polygon) for polygon in points]),
        report=IndexReport(_sum(item.counts for item in items), findings.pack(found)),
    )


def _join(parts: Sequence[LabelIndex]) -> LabelIndex:
    """One index from the parts, in their order."""

    def joined(name: str) -> np.ndarray:
        return np.concatenate([getattr(part, name) for part in parts])

    def joined_offsets(name: str) -> np.ndarray:
        return _offsets(np.concatenate([np.diff(getattr(part, name)) for part in parts]))

    joined_index = LabelIndex(
        report=IndexReport(
            _sum(part.report.counts for part in parts),
            findings.join([part.report.findings for part in parts], [len(part) for part in parts]),
        ),
        **{name: joined(name) for name in ("path_bytes", "sizes_wh", "rows", "points")},
        **{name: joined_offsets(name) for name in ("path_offsets", "offsets", "point_offsets")},
    )
    if len(joined_index.points):
        return joined_index
    return replace(joined_index, point_offsets=np.zeros(0, np.int64))  # saves 8 bytes a box where there are no polygons


def _by_chunk(
    task: Callable[[Sequence[str]], T], images: Sequence[str], workers: int, bar: "tqdm[Any]"
) -> Iterator[tuple[Sequence[str], T]]:
    """Runs the task on chunks of the images, on `workers` threads, and moves the bar on. Yields each chunk and its
    result, in the order of the images."""
    chunks = [images[start : start + CHUNK] for start in range(0, len(images), CHUNK)]
    with ThreadPoolExecutor(workers) as pool, bar:
        for chunk, result in zip(chunks, pool.map(task, chunks), strict=True):
            yield chunk, result
            bar.update(len(chunk))


def _verify_chunk(images: Sequence[str]) -> LabelIndex:
    return pack([verify(image, label_path(image)) for image in images])


def _verify_all(images: Sequence[str], workers: int, prefix: str) -> LabelIndex:
    """Index of all images, verified on `workers` threads behind a progress bar."""
    parts, total = [], Counts()
    bar = tqdm(total=len(images), unit="image", dynamic_ncols=True)
    for chunk, part in _by_chunk(_verify_chunk, images, workers, bar):
        parts.append(part)
        total = _sum((total, part.report.counts))
        bar.set_description(f"{prefix}Scanning {Path(label_path(chunk[0])).parent}: {_spoken(total)}", refresh=False)
    return _join(parts)


# ---------------------------------------------------------------------------------------------------------- the cache
def cache_file(sources: Sequence[str | Path], images: Sequence[str]) -> Path:
    """Where a set's label cache is, as in v6.1: beside the last source where that is a list file, else beside the
    folder with the first label file (labels/train.cache for labels/train/)."""
    last = Path(sources[-1])
    return (last if last.is_file() else Path(label_path(images[0])).parent).with_suffix(".cache")


def _size_and_time(file: str) -> str:
    try:
        status = os.stat(file)  # noqa: PTH116 (a million Path objects cost seconds)
    except OSError:
        return "missing"
    return f"{status.st_size} {status.st_mtime_ns}"


def _digest_chunk(images: Sequence[str]) -> bytes:
    told = "\0".join(f"{image}\0{_size_and_time(image)}\0{_size_and_time(label_path(image))}" for image in images)
    return hashlib.blake2b(os.fsencode(told), digest_size=16).digest()


def stat_threads(wall: float, processor: float) -> int:
    """How many threads should look up files' sizes and times: several where answers come late, as over a network; one
    on a local disk, where several would only wait for each other (Python runs one at a time).

    wall, processor: seconds that a sample of look-ups took by the clock, and of processor time.
    """
    return STAT_THREADS if wall > LATE * processor else 1


def fingerprint(images: Sequence[str], prefix: str = "") -> str:
    """Hash of the paths, sizes and times of the images and their label files: a cache with another one is out of date.
    Looks up two files an image, behind a progress bar where that takes long."""
    digest = hashlib.blake2b(f"format {CACHE_FORMAT}".encode(), digest_size=16)
    bar = tqdm(total=len(images), unit="image", dynamic_ncols=True, delay=3, leave=False)
    bar.set_description(f"{prefix}Checking whether the label cache is up to date", refresh=False)
    wall, processor = time.perf_counter(), time.thread_time()
    _digest_chunk(images[:CHUNK])
    threads = stat_threads(time.perf_counter() - wall, time.thread_time() - processor)
    for _, part in _by_chunk(_digest_chunk, images, threads, bar):
        digest.update(part)
    return digest.hexdigest()


def write_cache(file: Path, key: str, index: LabelIndex) -> None:
    """Stores the index with its key, a fingerprint. A file that cannot be written is logged and is no error."""
    told = json.dumps({"key": key, "counts": index.report.counts})
    arrays = {name: getattr(index, name) for name in ARRAYS}
    arrays |= {f"findings_{name}": getattr(index.report.findings, name) for name in findings.ARRAYS}
    try:
        with atomic_write(file) as handle:
            np.savez(handle, told=np.frombuffer(told.encode(), np.uint8), **arrays)
    except OSError as error:
        LOGGER.info(f"The label cache {file} cannot be written ({error}); labels are verified again next time")


def _check_packed(file: Path) -> None:
    """Raises ValueError where unpacking would give more than the file has: ours are not compressed, so it is
    foreign."""
    with zipfile.ZipFile(file) as archive:
        claimed = sum(member.file_size for member in archive.infolist())
    if claimed > file.stat().st_size:
        raise ValueError(f"its {file.stat().st_size} bytes unpack to {claimed}")


def _checked(index: LabelIndex) -> LabelIndex:
    """The index itself. Raises ValueError where its arrays cannot be a LabelIndex's, as in a damaged cache."""
    points = len(index.points) > 0
    for name, ends, count in (
        ("path_offsets", len(index.path_bytes), len(index)),
        ("offsets", len(index.rows), len(index)),
        *([("point_offsets", len(index.points), len(index.rows))] if points else []),
    ):
        bounds = getattr(index, name)
        if bounds.shape != (count + 1,) or bounds[0] or bounds[-1] != ends or (np.diff(bounds) < 0).any():
            raise ValueError(f"its {name} don't fit")
    expected = {"path_bytes": (np.uint8, ()), "sizes_wh": (np.int32, (2,)), "rows": (np.float32, (5,))}
    for name, (kind, shape) in {**expected, "points": (np.float32, (2,))}.items():
        if getattr(index, name).dtype != kind or getattr(index, name).shape[1:] != shape:
            raise ValueError(f"its {name} are no {np.dtype(kind)} of {shape}")
    if not ((index.rows >= 0) & np.isfinite(index.rows)).all():
        raise ValueError("its rows are no labels")
    findings.check(index.report.findings, len(index))
    return index


def _read_cache(file: Path, key: str) -> LabelIndex | None:
    """The stored index; None where the file is missing, has another key, is damaged or is a pickle of v6.1."""
    if not file.is_file():
        return None
    try:
        _check_packed(file)
        with np.load(file, allow_pickle=False) as stored:
            told = json.loads(stored["told"].tobytes())
            if told["key"] != key:
                return None
            found = Findings(**{name: stored[f"findings_{name}"] for name in findings.ARRAYS})
            report = IndexReport(Counts(*told["counts"]), found)
            return _checked(LabelIndex(report=report, **{name: stored[name] for name in ARRAYS}))
    except UNREADABLE as error:
        reason = " ".join(str(error).split())[:200]
        LOGGER.info(f"The label cache {file} is not one of ours or damaged ({reason}); it is made anew")
        return None


# ---------------------------------------------------------------------------------------------------------- the whole
def _spoken(counts: Counts) -> str:
    return f"{counts.found} found, {counts.missing} missing, {counts.empty} empty, {counts.corrupt} corrupt"


def _tell(index: LabelIndex, images: Sequence[str], prefix: str) -> None:
    """Logs how many images matched a label file, and by kind what did not."""
    LOGGER.info(f"{prefix}{len(index)} of {len(images)} images are usable; labels: {_spoken(index.report.counts)}")
    for kind, line in index.summary().items():
        (LOGGER.info if kind in findings.STANDARD else LOGGER.warning)(f"{prefix}{line}")


def _check_classes(index: LabelIndex, nc: int) -> None:
    """Raises InputError for the first label with a class of nc or more, with its file and line."""
    wrong = np.flatnonzero(index.rows[:, 0] >= nc)
    if len(wrong):
        file = index.label_file(int(np.searchsorted(index.offsets, wrong[0], side="right")) - 1)
        class_id = int(index.rows[wrong[0], 0])
        line = line_of_class(file, class_id)  # the index has no line numbers: blank lines and duplicates are gone
        raise InputError(
            f"{file}: {f'line {line}: ' if line else ''}class {class_id} is in it, but the data has nc={nc} classes, "
            f"0 to {nc - 1}: correct the label, or nc and names in the data YAML"
        )


def _check_content(index: LabelIndex, images: Sequence[str], need_labels: bool) -> None:
    """Raises InputError where no image is usable, or where labels are needed and there is none."""
    if not len(index):
        reasons = "; ".join(line[:LONGEST_REASON] for line in list(index.summary().values())[:3])
        raise InputError(f"expected usable images, got none among the {len(images)} from {images[0]} on: {reasons}")
    if need_labels and not len(index.rows):
        raise InputError(
            f"expected labels to train on, got none for {len(images)} images; the first, {images[0]}, should have its "
            f"labels in {label_path(images[0])}"
        )


def index_labels(
    images: Sequence[str],
    *,
    nc: int | None = None,
    cache: Path | None = None,
    single_cls: bool = False,
    need_labels: bool = False,
    workers: int = min(8, os.cpu_count() or 1),
    prefix: str = "",
) -> LabelIndex:
    """Index of all usable images among those listed, in their order.

    Args:
        nc: number of classes; None: any class id will do.
        cache: file to take the index from where it is up to date, else to write it to.
        single_cls: every class becomes 0.
        need_labels: whether a set without a single label is an error.
        workers: threads that verify.
        prefix: put before what is logged, such as "train: ".

    Images with a fault in them or in their labels are left out, counted and logged. Raises InputError where no image is
    usable, where a label has a class id of nc or more, and where need_labels and there is none.

    Differs from v6.1: the cache holds plain arrays, no pickle, and is also stale when a file's time has changed.
    """
    if not images:
        raise InputError("images: expected a list of their paths, got an empty one")
    key = fingerprint(images, prefix) if cache else ""
    index = _read_cache(cache, key) if cache else None
    if index is None:
        index = _verify_all(images, workers, prefix)
        if cache:
            write_cache(cache, key, index)
    _tell(index, images, prefix)
    _check_content(index, images, need_labels)
    if single_cls:
        index.rows[:, 0] = 0  # in place: nobody else has the index yet
        return index
    if nc is not None:
        _check_classes(index, nc)
    return index
