"""From a path, or the name of a published model, to a model that can be used at once. Not for torch.hub's entry points,
which call this: hubconf.py."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from models.autoshape import AutoShape
from models.backend import Backend
from models.backends import load_backend
from models.common import dynamic_layers
from models.runtime_torch import TorchBackend
from models.spread import spread_kernels
from models.weights import build_model, read_checkpoint, transfer_weights
from models.yolo import DetectionModel
from utils.errors import InputError
from utils.files import ROOT
from utils.hyp import Hyp
from utils.log import LOGGER
from utils.official_weights import official_weights
from utils.torch_utils import select_device

COCO_CLASSES = 80  # of the published weights
Device = str | int | torch.device | None


def load_path(
    path: str | Path | Sequence[str | Path], *, autoshape: bool = True, verbose: bool = True, device: Device = None
) -> AutoShape | DetectionModel | Backend:
    """The model in a file, .pt or exported; for several files, their ensemble.

    Args:
        autoshape: wrapped in AutoShape, which takes images of any kind. Otherwise as it is: of one .pt file the
            DetectionModel in eval mode, not fused, so that it can be trained; of exported or several files the Backend.
        verbose: False keeps the log quiet but for warnings.
        device: as in select_device, or a torch.device; None for the best there is.

    Raises InputError where the file or the device cannot be used.

    Differs from v6.1: nothing is downloaded; without autoshape the kind of model does not depend on other arguments;
    the log is quiet while loading, not for good.
    """
    with _quiet(not verbose):
        chosen = _device(device)
        if autoshape or not isinstance(path, (str, Path)) or Path(path).suffix.lower() != ".pt":
            backend = load_backend(path, chosen)
            return AutoShape(backend) if autoshape else backend
        return build_model(read_checkpoint(path)).eval().to(chosen)


def load_name(
    name: str,
    *,
    pretrained: bool = True,
    channels: int = 3,
    classes: int = COCO_CLASSES,
    autoshape: bool = True,
    verbose: bool = True,
    device: Device = None,
) -> AutoShape | DetectionModel | Backend:
    """The model <name>.yaml of models/ or models/hub/.

    Args:
        pretrained: with the published weights, which are downloaded where they are not here (the log says so, whatever
            `verbose`). With other channels or classes, those of them that fit. A dynamic model has no published
            weights: it starts from those of the static model, whose kernels are spread as in a training.
        channels: of the images; other than 3 needs autoshape=False, as AutoShape takes pictures, which have three.
        classes: number of classes.
        autoshape, verbose, device: as in load_path.

    Raises InputError where the weights cannot be had, or the device cannot be used.
    """
    if autoshape and channels != 3:
        raise InputError(f"AutoShape takes images of 3 channels: channels={channels} needs autoshape=False")
    static = name.partition("_")[0]
    weights = official_weights(static) if pretrained else None
    if weights and (name, channels, classes) == (static, 3, COCO_CLASSES):
        return load_path(weights, autoshape=autoshape, verbose=verbose, device=device)
    with _quiet(not verbose):
        chosen = _device(device)
        network = _built(name, channels, classes, weights).eval().to(chosen)
        if not autoshape:
            return network
        return AutoShape(TorchBackend(network.fuse().requires_grad_(False)))


def _built(name: str, channels: int, classes: int, weights: Path | None) -> DetectionModel:
    """The network of <name>.yaml, with those of the weights that fit."""
    folder = ROOT / "models" / ("hub" if name.endswith("6") else "")
    network = DetectionModel(folder / f"{name}.yaml", ch=channels, nc=classes)
    if weights is None:
        return network
    start = read_checkpoint(weights)
    noise, rng = Hyp.kernel_noise, np.random.default_rng(0)
    state = spread_kernels(network, start.state, noise=noise, rng=rng)
    transfer_weights(network, replace(start, state=state), exclude=("anchor",))
    if len(start.names) == classes:
        network.names = dict(start.names)
    if dynamic_layers(network):
        LOGGER.warning(f"{name} starts from {weights}: it has no published weights and is to be trained")
    return network


def _device(device: Device) -> torch.device:
    return select_device("" if device is None else str(device))


@contextmanager
def _quiet(wanted: bool) -> Iterator[None]:
    """Where wanted, the log tells warnings and errors alone inside."""
    level = LOGGER.level
    LOGGER.setLevel(logging.WARNING if wanted else level)
    try:
        yield
    finally:
        LOGGER.setLevel(level)
