"""A model as the service holds it: what it tells of itself, how a picture is fitted for it, and what is found in a
batch. Not for collecting batches: engine/batching.py."""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from engine.inputs import network_size
from models.attention_probe import AttentionProbe
from models.backends import load_backend
from models.runtime_torch import TorchBackend
from utils.augmentations import letterbox
from utils.boxes import scale_boxes
from utils.comparison import model_names
from utils.nms import non_max_suppression
from utils.torch_utils import time_sync, to_unit_float


@dataclass(frozen=True)
class Thresholds:
    """What counts as a detection: see non_max_suppression. attention: whether to tell that of dynamic layers."""

    conf: float
    iou: float
    classes: tuple[int, ...] | None
    max_det: int
    attention: bool


@dataclass(frozen=True)
class PictureJob:
    """A picture fitted for the network, RGB uint8 (h, w, 3), the size of the original and what is asked of it."""

    fitted: np.ndarray
    original_hw: tuple[int, int]
    asked: Thresholds


@dataclass(frozen=True)
class PictureAnswer:
    """detections (n, 6) [x1, y1, x2, y2 in pixels of the original, confidence, class], most confident first; attention
    {layer: K weights}; milliseconds that the picture waited, its batch took, and its suppression took; the batch's
    number."""

    detections: list[list[float]]
    attention: dict[str, list[float]]
    queue_ms: float
    inference_ms: float
    nms_ms: float
    batch: int


class ServedModel:
    """The network of a file, loaded and run once. `answer` is for one thread, the rest for any."""

    def __init__(self, ident: str, file: Path, device: torch.device, *, imgsz: Sequence[int], half: bool) -> None:
        self.id, self.file = ident, file
        self.backend = load_backend(file, device, half=half)
        self.imgsz = network_size(imgsz, self.backend)
        self.network = self.backend.model if isinstance(self.backend, TorchBackend) else None
        self.probe = None if self.network is None else AttentionProbe(self.network)
        self._batches = 0
        self.answer([self.job(np.zeros((*self.imgsz, 3), np.uint8), Thresholds(0.25, 0.45, None, 1, False))], [0.0])

    @property
    def names(self) -> dict[int, str]:
        """Class names by number."""
        return self.backend.names

    def described(self) -> dict[str, Any]:
        """What GET /v1/models tells. parameters: None of files that do not tell them."""
        layers = self.probe.layers if self.probe else {}
        counted = None if self.network is None else sum(p.numel() for p in self.network.parameters())
        return {
            "id": self.id,
            "file": self.file.name,
            "imgsz": list(self.imgsz),
            "classes": [self.names[number] for number in sorted(self.names)],
            "task": "detect",
            "dynamic_layers": [{"name": name, "kernels": layer.K} for name, layer in layers.items()],
            "parameters": counted,
        }

    def job(self, image: np.ndarray, asked: Thresholds) -> PictureJob:
        """The picture, BGR uint8 (h, w, 3), fitted as detect.py fits one: no larger than needed."""
        auto = self.backend.fixed_hw is None
        fitted = letterbox(image, self.imgsz, auto=auto, stride=self.backend.stride)[0]
        return PictureJob(cv2.cvtColor(fitted, cv2.COLOR_BGR2RGB), image.shape[:2], asked)

    @torch.inference_mode()
    def answer(self, jobs: Sequence[PictureJob], waited_s: Sequence[float]) -> list[PictureAnswer]:
        """What is found in pictures that are fitted to one size."""
        begun = time.perf_counter()
        device = self.backend.device
        rgb = torch.from_numpy(np.stack([job.fitted for job in jobs])).permute(0, 3, 1, 2)  # channels_last
        predictions, attention = self._forward(
            to_unit_float(rgb, device), with_attention=any(job.asked.attention for job in jobs)
        )
        time_sync(device)
        inference_ms = 1000 * (time.perf_counter() - begun)
        self._batches += 1
        answers = []
        for row, (job, seconds) in enumerate(zip(jobs, waited_s, strict=True)):
            begun = time.perf_counter()
            found = _found(predictions[row : row + 1], job)
            told = {name: weights[row].tolist() for name, weights in attention.items() if job.asked.attention}
            nms_ms = 1000 * (time.perf_counter() - begun)
            answers.append(PictureAnswer(found, told, 1000 * seconds, inference_ms, nms_ms, self._batches))
        return answers

    def _forward(self, batch: Tensor, *, with_attention: bool) -> tuple[Tensor, dict[str, Tensor]]:
        """Decoded predictions, and where asked for the attention (B, K) of each dynamic layer."""
        if self.probe is None or not with_attention:
            return self.backend(batch), {}
        try:
            with self.probe:
                return self.backend(batch), self.probe.take()
        finally:
            self.probe.take()  # what a pass that failed has left


def _found(predictions: Tensor, job: PictureJob) -> list[list[float]]:
    """Detections of one picture's predictions (1, N, 5 + nc)."""
    asked = job.asked
    found = non_max_suppression(predictions, asked.conf, asked.iou, classes=asked.classes, max_det=asked.max_det)[0]
    found[:, :4] = scale_boxes(found[:, :4], from_hw=job.fitted.shape[:2], to_hw=job.original_hw)
    return found.tolist()


def model_ids(files: Sequence[Path]) -> list[str]:
    """What requests call the models: the names that `val.py --task compare` gives them, exp/best, without what a URL or
    a form has other uses for; numbered where that makes two alike."""
    given: list[str] = []
    for name in model_names(files):
        plain = re.sub(r"[^\w./-]+", "-", name).strip("-") or "model"
        number, ident = 1, plain
        while ident in given:
            number += 1
            ident = f"{plain}-{number}"
        given.append(ident)
    return given
