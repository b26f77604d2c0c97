"""How a network is to be exported: the options that each function of models/export_*.py is given. Not for reading the
flags of export.py (engine/exporter.py), nor for the table of formats (models/export_formats.py)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from models.export_metadata import Metadata


@dataclass(frozen=True)
class Suppression:
    """Non-maximum suppression that goes into the file.

    Attributes:
        conf_thres, iou_thres: 0..1, as in utils.nms.
        topk_per_class, topk_all: the most detections of a class, and in all, that an image may have.
        agnostic: boxes suppress each other across classes.
    """

    conf_thres: float = 0.25
    iou_thres: float = 0.45
    topk_per_class: int = 100
    topk_all: int = 100
    agnostic: bool = False


@dataclass(frozen=True)
class ExportOptions:
    """What a format's function is told beside the network and the file. Of the choices in models/export_formats.py it
    reads those that the format's row names under `flags`; the exporter tells the user where others are given.

    Attributes:
        metadata: what goes into the file: stride, names, imgsz, ...
        imgsz_hw: height and width in pixels, multiples of the network's stride.
        batch_size: images at a time.
        dynamic: batch, height and width stay free; imgsz_hw and batch_size are then those of the example alone.
        half: 16-bit weights; images and predictions stay float32.
        int8: 8-bit weights and activations, scaled on calibration_images().
        calibration: makes a fresh iterator over images for int8: float32 (1, 3, height, width), RGB in 0..1, real ones.
        nms: suppression inside the file, None for decoded predictions (B, N, 5 + nc).
        train: a file to be trained on: the heads' raw maps, batch normalisation as a layer.
        simplify: shorter ONNX graphs.
        opset: of ONNX.
        optimize: TorchScript for mobile processors.
        inplace: activations overwrite their input.
        workspace: GiB that TensorRT may use while it builds.
        verbose: the converters' own messages are shown.
    """

    metadata: Metadata
    imgsz_hw: tuple[int, int] = (640, 640)
    batch_size: int = 1
    dynamic: bool = False
    half: bool = False
    int8: bool = False
    calibration: Callable[[], Iterator[Tensor]] | None = None
    nms: Suppression | None = None
    train: bool = False
    simplify: bool = False
    opset: int = 17
    optimize: bool = False
    inplace: bool = False
    workspace: float = 4.0
    verbose: bool = False

    def calibration_images(self) -> Iterator[Tensor]:
        """A fresh iterator over the images for int8."""
        assert self.calibration, "int8 without images for its calibration"
        return self.calibration()


class Exportable(nn.Module):
    """A network as it is exported, in eval mode: float32 images (B, 3, H, W) -> decoded predictions (B, N, 5 + nc) in
    float32 alone, whatever the type of the weights; or in train mode -> the heads' raw maps as a tuple."""

    def __init__(self, network: nn.Module, *, train: bool = False) -> None:
        super().__init__()
        self.network = network
        self.dtype = next(network.parameters()).dtype
        self.train(train)

    def forward(self, images: Tensor) -> Any:
        output = self.network(images.to(self.dtype))
        return tuple(output) if self.training else output[0].float()


def example(network: nn.Module, options: ExportOptions) -> Tensor:
    """Grey images (B, 3, H, W) in the exported size to trace the network with, on its device. Where the batch is free
    there are at least two, because tracers make a constant of a batch of one."""
    batch = max(options.batch_size, 2) if options.dynamic else options.batch_size
    device = next(network.parameters()).device
    return torch.full((batch, 3, *options.imgsz_hw), 114 / 255, device=device)
