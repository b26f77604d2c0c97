"""What tests of exports and of the runtimes share: a tiny network, and how it is exported."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.export_formats import EXPORTERS
from models.export_metadata import Metadata
from models.export_options import ExportOptions
from models.model_yaml import read_model_yaml
from models.yolo import DetectionModel

NAMES = {0: "circle", 1: "square"}
CPU = torch.device("cpu")


def tiny_model(cfg: str = "yolov5n_dyconv.yaml") -> DetectionModel:
    """A network of eight channels and more, two classes. Its weights are random, but what it says differs from cell to
    cell, as batch normalisation has seen images: predictions that are all alike would be suppressed in any order."""
    torch.manual_seed(0)
    model = DetectionModel({**read_model_yaml(cfg), "width_multiple": 0.125}, nc=2, names=NAMES).requires_grad_(False)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    model.train()(torch.rand(8, 3, 256, 256))
    for conv in model.detect.m:
        conv.weight.mul_(2)
        conv.bias.normal_(std=0.5)
    return model.eval().fuse().requires_grad_(False)


def exported(model: DetectionModel, format_name: str, folder: Path, **options: Any) -> Path:
    """The network, which may be changed, as a file in the folder. options: those of ExportOptions, sizes 64 x 96."""
    options = {"imgsz_hw": (64, 96), **options}
    metadata = Metadata(
        dict(model.names),
        int(model.stride.max()),
        options["imgsz_hw"],
        options.get("batch_size", 1),
        options.get("dynamic", False),
        nms=vars(options["nms"]) if options.get("nms") else None,
        train=options.get("train", False),
    )
    row = EXPORTERS[format_name]
    return row.export(model, folder / f"tiny{row.suffix}", ExportOptions(metadata, **options))
