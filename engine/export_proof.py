"""Proof that an exported file finds what the network in PyTorch finds: both on the same real images, at several batch
and image sizes where the file takes them. Not for the export itself (engine/exporter.py), nor for mAP: that is
val.py."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import inf
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from engine.comparer import interleaved_ms
from engine.export_images import fitted
from models.backend import Backend
from models.export_options import Suppression
from utils.boxes import box_iou
from utils.files import atomic_write
from utils.metrics import pair_up
from utils.nms import non_max_suppression

EVERYDAY = Suppression(conf_thres=0.25, iou_thres=0.45, topk_per_class=300, topk_all=300)  # of files without their own
SAME_OBJECT = 0.5  # IoU from which two detections of a class are of one object
BATCHES = (1, 4)


@dataclass(frozen=True)
class Tolerance:
    """How far a file may be from PyTorch.

    Attributes:
        box_px: of a corner of a detection.
        score: of its confidence; also how near to the threshold a detection may be lost or gained.
        changed: how many detections may be lost or gained, as a share of PyTorch's.
    """

    box_px: float
    score: float
    changed: float


# float32 allows ten times the rounding that was seen, half twice what 16-bit weights were seen to cost. int8 catches
# a file that is plainly broken; what 8 bits cost otherwise is measured as mAP.
TOLERANCES = {
    "float32": Tolerance(0.1, 0.002, 0.0),
    "half": Tolerance(8.0, 0.05, 0.05),
    "int8": Tolerance(64.0, 0.35, 0.35),
}


@dataclass(frozen=True)
class Case:
    """One batch and image size.

    Attributes:
        detections: of PyTorch, above the confidence threshold.
        lost, gained: of those, detections that the file does not have, and its detections that PyTorch does not have.
        box_px, score: the largest differences of corners (pixels of the network's input) and of confidences.
    """

    batch: int
    height: int
    width: int
    detections: int
    lost: int
    gained: int
    box_px: float
    score: float


@dataclass(frozen=True)
class Proof:
    """What comparing gave.

    Attributes:
        precision: of the file: float32, half or int8; which tolerance holds.
        faults: why the file is rejected, none where it is not.
        latency_ms, torch_ms: milliseconds for one batch at the exported size, of the file and of PyTorch, which take
            turns; medians over all rounds.
        speedup: torch_ms / latency_ms within a round, the median over all rounds.
        note: what limits the proof.
        is_empty: nothing is detected, and nothing else comes out of the file that could be compared.
    """

    precision: str
    tolerance: Tolerance
    images: int
    cases: tuple[Case, ...]
    faults: tuple[str, ...]
    latency_ms: float
    torch_ms: float
    speedup: float
    note: str = ""
    is_empty: bool = False

    def write(self, file: Path, more: Mapping[str, float]) -> None:
        """Writes it as JSON, whole or not at all, together with more figures of the file."""
        with atomic_write(file) as stream:
            stream.write(json.dumps({**asdict(self), **more}, indent=2).encode())

    def table(self) -> str:
        """For the log."""
        head = f"{'batch':>8}{'image':>11}{'detections':>12}{'lost':>6}{'gained':>8}{'box px':>10}{'score':>10}"
        rows = [
            f"{case.batch:>8}{f'{case.height}x{case.width}':>11}{case.detections:>12}{case.lost:>6}{case.gained:>8}"
            f"{case.box_px:>10.2g}{case.score:>10.2g}"
            for case in self.cases
        ]
        speed = f"{self.latency_ms:.1f} ms, PyTorch {self.torch_ms:.1f} ms: x {self.speedup:.2f}"
        return "\n".join([head, *rows, f"{speed}{f' ({self.note})' if self.note else ''}"])


@torch.inference_mode()
def prove(
    reference: Backend,
    exported: Backend,
    images: Sequence[np.ndarray],
    *,
    size_hw: tuple[int, int],
    precision: str,
    nms: Suppression | None = None,
) -> Proof:
    """Compares a file with PyTorch.

    Args:
        reference: the network in PyTorch, float32.
        exported: the file in its runtime.
        images: uint8 (H, W, 3), BGR.
        size_hw: that was exported.
        precision: of the file, one of TOLERANCES.
        nms: the suppression inside the file.
    """
    tolerance, settings = TOLERANCES[precision], nms or EVERYDAY
    cases, seen = [], 0
    for batch, case_hw in sizes(exported, size_hw):
        pairs = list(predicted(reference, exported, images, batch, case_hw))
        case = compared(pairs, batch, case_hw, settings=settings, margin=tolerance.score)
        seen += case.detections
        cases.append(case)
    note = "" if seen else "nothing is detected on the images"
    if not seen and not nms:
        cases = [rows_compared(reference, exported, images, *size) for size in sizes(exported, size_hw)]
        note += ", so all predictions are compared"
    timed = fitted([images[0]] * (exported.fixed_batch or 1), size_hw).to(exported.device)
    rounds_ms = interleaved_ms([reference, exported], timed)
    torch_ms, latency_ms = np.median(rounds_ms, 0).tolist()
    speedup = float(np.median(rounds_ms[:, 0] / rounds_ms[:, 1]))
    faults = tuple(fault for case in cases for fault in faults_of(case, tolerance))
    return Proof(
        precision=precision,
        tolerance=tolerance,
        images=len(images),
        cases=tuple(cases),
        faults=faults,
        latency_ms=latency_ms,
        torch_ms=torch_ms,
        speedup=speedup,
        note=note,
        is_empty=not seen and bool(nms),
    )


def sizes(exported: Backend, size_hw: tuple[int, int]) -> Iterator[tuple[int, tuple[int, int]]]:
    """Batch and image sizes to compare at: two of each where the file takes any, else its own."""
    others = [size_hw]
    if exported.fixed_hw is None:
        strides = [side // exported.stride for side in size_hw]
        smaller = (max(strides[0] // 2, 1), max(strides[1] * 3 // 4, 1))
        others.append((exported.stride * smaller[0], exported.stride * smaller[1]))
    batches = [exported.fixed_batch] if exported.fixed_batch else BATCHES
    yield from ((batch, other) for other in others for batch in batches)


def predicted(
    reference: Backend, exported: Backend, images: Sequence[np.ndarray], batch: int, size_hw: tuple[int, int]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Predictions of both for each batch of the images, on the CPU."""
    for start in range(0, len(images), batch):
        inputs = fitted(images[start : start + batch], size_hw).to(reference.device)
        yield reference(inputs).cpu(), exported(inputs).cpu()


def compared(
    pairs: Sequence[tuple[Tensor, Tensor]],
    batch: int,
    size_hw: tuple[int, int],
    *,
    settings: Suppression,
    margin: float,
) -> Case:
    """The detections of PyTorch and of the file, held against each other. One that is above the threshold on one side
    counts as found by the other where that one has it no more than `margin` below the threshold."""
    conf_thres = max(settings.conf_thres, EVERYDAY.conf_thres)  # below it, near-equal boxes take each other's place
    lowest = max(settings.conf_thres - margin, 0.001)
    counts, box_px, score = np.zeros(3, int), 0.0, 0.0
    for expected, found in pairs:
        both = (detections_of(predictions, settings, lowest) for predictions in (expected, found))
        for ours, theirs in zip(*both, strict=True):
            mine, other = matched(ours, theirs)
            strong, their_strong = ours[:, 4] > conf_thres, theirs[:, 4] > conf_thres
            counts += (int(strong.sum()), unmatched(strong, mine), unmatched(their_strong, other))
            relevant = strong[mine] | their_strong[other]
            differences = (ours[mine] - theirs[other]).abs()[relevant]
            box_px = max(box_px, _largest(differences[:, :4]))
            score = max(score, _largest(differences[:, 4]))
    detections, lost, gained = counts.tolist()
    return Case(batch, *size_hw, detections, lost, gained, box_px, score)


def detections_of(predictions: Tensor, settings: Suppression, conf_thres: float) -> list[Tensor]:
    """Detections (n, 6) of each image, with the limits a class and in all that ONNX's suppression has."""
    found = non_max_suppression(
        predictions, conf_thres, settings.iou_thres, agnostic=settings.agnostic, max_det=predictions.shape[1]
    )
    return [limited(rows, settings) for rows in found]


def limited(rows: Tensor, settings: Suppression) -> Tensor:
    """The first of each class, and the first in all, of detections (n, 6) with the most confident first."""
    if not settings.agnostic and len(rows):
        same = rows[:, 5:6] == rows[:, 5]
        rank = same.tril(-1).sum(1)  # more confident ones of the same class
        rows = rows[rank < settings.topk_per_class]
    return rows[: settings.topk_all]


def matched(ours: Tensor, theirs: Tensor) -> tuple[Tensor, Tensor]:
    """Places of the detections (n, 6) and (m, 6) that are of one object, pair by pair."""
    overlaps = box_iou(ours[:, :4], theirs[:, :4])
    allowed = (ours[:, 5:6] == theirs[:, 5]) & (overlaps >= SAME_OBJECT)
    return pair_up(overlaps.where(allowed, -1.0), by_overlap=True)


def unmatched(strong: Tensor, places: Tensor) -> int:
    """How many of the strong ones (n,) are at none of the places."""
    alone = strong.clone()
    alone[places] = False
    return int(alone.sum())


def rows_compared(
    reference: Backend, exported: Backend, images: Sequence[np.ndarray], batch: int, size_hw: tuple[int, int]
) -> Case:
    """As `compared` where nothing is detected: all predictions, row by row; NaN where one is, infinite where there are
    more or fewer of them."""
    expected, found = (
        torch.cat(rows) for rows in zip(*predicted(reference, exported, images, batch, size_hw), strict=True)
    )
    if expected.shape != found.shape:
        return Case(batch, *size_hw, 0, 0, 0, inf, inf)
    differences = (expected - found).abs()
    return Case(batch, *size_hw, 0, 0, 0, float(differences[..., :4].max()), float(differences[..., 4:].max()))


def faults_of(case: Case, tolerance: Tolerance) -> Iterator[str]:
    """In words, where a case is beyond the tolerance."""
    where = f"at batch {case.batch}, {case.height}x{case.width}"
    if not case.box_px <= tolerance.box_px:  # NaN is a fault too
        yield f"boxes differ by {case.box_px:.3g} px {where} ({tolerance.box_px:g} allowed)"
    if not case.score <= tolerance.score:
        yield f"scores differ by {case.score:.3g} {where} ({tolerance.score:g} allowed)"
    if case.lost + case.gained > tolerance.changed * case.detections:
        yield f"of {case.detections} detections {case.lost} are lost, {case.gained} gained {where}"


def _largest(differences: Tensor) -> float:
    return float(differences.max()) if differences.numel() else 0.0
