"""Pictures in, boxes out: a network with the thresholds and classes of detect.py's options. Not for where pictures come
from or what becomes of the boxes: detector.py."""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from engine.inputs import chosen_weights, network_size
from models.attention_probe import AttentionProbe
from models.backend import Backend
from models.backends import load_backend
from models.runtime_torch import TorchBackend
from utils.attention_plots import plot_image_attention
from utils.augmentations import letterbox
from utils.boxes import clip_boxes_, scale_boxes
from utils.class_names import class_numbers
from utils.data_config import load_data_config
from utils.errors import InputError
from utils.nms import non_max_suppression
from utils.plots import plot_feature_maps
from utils.speed import Speed, StageTimers
from utils.torch_utils import select_device, to_unit_float


class Predictor:
    """A network and its thresholds as a function from pictures to their detections, timed."""

    def __init__(self, opt: Namespace) -> None:
        self.opt, self.weights = opt, chosen_weights(opt.weights)
        if opt.update and (others := [file for file in self.weights if file.suffix != ".pt"]):
            raise InputError(f"--update renews .pt weights: leave it out with {others[0]}")
        device = select_device(opt.device)
        self.backend = load_backend(self.weights, device, half=opt.half, augment=opt.augment, dnn=opt.dnn)
        self.names = chosen_names(opt, self.backend, self.weights[0])
        self.classes = class_numbers(opt.classes, self.names, told_as="--classes")
        if opt.visualize and not isinstance(self.backend, TorchBackend):
            raise InputError(
                f"--visualize looks into one network in PyTorch: one .pt was expected, got {self.weights[0]}"
            )
        self.imgsz = network_size(opt.imgsz, self.backend)
        self.frames = 0
        self.seen_hw = self.imgsz  # size of the network's latest input
        self._timers = StageTimers(device)
        if device.type == "cuda":  # the first pass loads kernels: not to be counted
            self.backend(to_unit_float(torch.zeros(1, 3, *self.imgsz, dtype=torch.uint8), device))

    def __call__(self, images: Sequence[np.ndarray], features: Path | None = None) -> list[np.ndarray]:
        """Pictures BGR uint8 (h, w, 3) -> detections of each, float32 (n, 6) [x1, y1, x2, y2, confidence, class] in
        whole pixels of the picture, most confident first. Feature maps and attention go to `features`."""
        opt = self.opt
        with self._timers.preprocess:
            batch = self._fitted(images)
        with self._timers.inference:
            pred = self._pictured_forward(batch, features) if features else self.backend(batch)
        with self._timers.nms:
            found = non_max_suppression(
                pred,
                opt.conf_thres,
                opt.iou_thres,
                classes=self.classes,
                agnostic=opt.agnostic_nms,
                max_det=opt.max_det,
            )
        self.frames += len(images)
        self.seen_hw = batch.shape[2], batch.shape[3]
        return [self._in_picture(rows, image.shape[:2]) for rows, image in zip(found, images, strict=True)]

    def _fitted(self, images: Sequence[np.ndarray]) -> Tensor:
        """The network's input (B, 3, h, w): no larger than needed where all pictures have one shape."""
        auto = self.backend.fixed_hw is None and len({image.shape for image in images}) == 1
        fitted = [letterbox(image, self.imgsz, auto=auto, stride=self.backend.stride)[0] for image in images]
        rgb = np.stack([cv2.cvtColor(image, cv2.COLOR_BGR2RGB) for image in fitted])  # (B, h, w, 3): channels_last
        return to_unit_float(torch.from_numpy(rgb).permute(0, 3, 1, 2), self.backend.device)

    def _in_picture(self, found: Tensor, size_hw: tuple[int, int]) -> np.ndarray:
        """Detections in pixels of the network's input -> in whole pixels of the picture."""
        found[:, :4] = scale_boxes(found[:, :4], from_hw=self.seen_hw, to_hw=size_hw).round()
        clip_boxes_(found, size_hw)
        return found.float().cpu().numpy()

    def _pictured_forward(self, batch: Tensor, folder: Path) -> Tensor:
        """Decoded predictions, with pictures of the feature maps and of the attention of dynamic layers in the folder;
        of the first picture of the batch."""
        folder.mkdir(parents=True, exist_ok=True)
        assert isinstance(self.backend, TorchBackend), "the constructor has checked --visualize"
        model = self.backend.model
        with AttentionProbe(model) as probe, self.backend.autocast():
            for index, kind, output in model.layer_outputs(batch):
                if isinstance(output, Tensor) and output.dim() == 4:
                    name = kind.rpartition(".")[2]
                    plot_feature_maps(
                        output.float(), f"layer {index}, {name}", folder / f"stage{index}_{name}_features.png"
                    )
        if probe.layers:
            attention = {name: rows[0].numpy() for name, rows in probe.take().items()}
            plot_image_attention(attention, folder / "attention.png")
        return output[0].float()

    @property
    def last_ms(self) -> float:
        """Milliseconds of the network on the latest picture."""
        return self._timers.inference.last * 1000

    @property
    def mean_ms(self) -> Speed:
        """Mean milliseconds a picture."""
        return self._timers.mean_ms(self.frames)


def chosen_names(opt: Namespace, backend: Backend, weights: Path) -> dict[int, str]:
    """Class names of --data, else those in the weights. Raises InputError where their number does not fit."""
    if not opt.data:
        return backend.names
    data = load_data_config(opt.data)
    if data.nc != backend.nc:
        raise InputError(f"--data: expected the {backend.nc} classes of {weights}, got {data.nc} in {data.file}")
    return data.names
