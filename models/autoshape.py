"""What torch.hub loads: a network that takes images of any kind (files, arrays, PIL) and gives detections in pixels of
these images. Not for directories and videos: engine/detector.py."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.backend import Backend
from models.ensemble import Ensemble
from models.runtime_torch import TorchBackend
from models.yolo import DetectionModel
from utils.augmentations import letterbox
from utils.boxes import scale_boxes
from utils.class_names import class_numbers
from utils.detections import Detections
from utils.errors import InputError
from utils.image_inputs import as_picture
from utils.log import LOGGER
from utils.nms import non_max_suppression
from utils.torch_utils import amp_dtype, time_sync, to_unit_float


class AutoShape(nn.Module):
    """Images of any kind and size -> Detections.

    Attributes, to be set at will:
        conf: least confidence, 0..1.
        iou: NMS keeps one of two boxes whose IoU is more, 0..1.
        agnostic: boxes suppress each other across classes.
        multi_label: a box may be of several classes.
        classes: numbers or names of the classes to find, None for all.
        max_det: detections an image at most.
        amp: 16-bit arithmetic where the device is fast at it.
        names: class names by class number.

    `model` is the Backend; of .pt weights `model.model` is the DetectionModel, which moves with to(), cuda() and cpu().

    Differs from v6.1: amp works on CPUs that compute bfloat16 too; an exported file that takes one image size gets
    that one, whatever `size` says; tensors that no network can take are refused with a sentence; profile logs the
    time of each layer.
    """

    conf = 0.25
    iou = 0.45
    agnostic = False
    multi_label = False
    classes: int | str | list[int | str] | None = None
    max_det = 1000
    amp = False

    def __init__(self, model: Backend | DetectionModel) -> None:
        super().__init__()
        self.model = model if isinstance(model, Backend) else TorchBackend(model)
        self.networks = nn.ModuleList(member.model for member in torch_members(self.model))  # torch sees these move
        self.names = self.model.names
        self.stride = self.model.stride

    @torch.no_grad()
    def forward(
        self, imgs: Any, size: int | Sequence[int] = 640, augment: bool = False, profile: bool = False
    ) -> Detections | Tensor:
        """Detects in one image or a list of them.

        Args:
            imgs: what utils/image_inputs.py takes (arrays are RGB), or a list of such; or a tensor (B, 3, h, w) RGB in
                0..1, sides multiples of the stride, which gives the network's decoded predictions (B, N, 5 + nc) alone.
            size: pixels that the longer side of an image is made; where it is two numbers, the larger counts.
            augment: test-time augmentation.
            profile: log the time of each layer.

        Raises InputError where an image cannot be used.
        """
        network = as_asked(self.model, amp=self.amp, augment=augment)
        found: Detections | Tensor
        if isinstance(imgs, Tensor):
            batch = self._for_network(checked_batch(imgs, self.stride), network.device)
            found = network(batch)
        else:
            batch, found = self._detections(network, imgs, size if isinstance(size, int) else max(size))
        if profile:
            log_layer_times(network, batch)
        return found

    def _detections(self, network: Backend, imgs: Any, size: int) -> tuple[Tensor, Detections]:
        """The network's input (B, 3, h, w), and what is found in the images."""
        times = [time_sync(network.device)]
        given = list(imgs) if isinstance(imgs, (list, tuple)) else [imgs]
        if not given:
            raise InputError("imgs: expected an image or a list of them, got an empty list")
        pictures, files = zip(*(as_picture(source, number) for number, source in enumerate(given)), strict=True)
        batch = self._fitted(pictures, size, network.device)
        times.append(time_sync(network.device))
        decoded = network(batch)
        times.append(time_sync(network.device))
        found = self._in_pictures(decoded, pictures, (batch.shape[2], batch.shape[3]))
        times.append(time_sync(network.device))
        shape = tuple(batch.shape)
        return batch, Detections(pictures, found, files, names=self.names, times=times, shape=shape)

    def _fitted(self, pictures: tuple[np.ndarray, ...], size: int, device: torch.device) -> Tensor:
        """RGB images -> the network's input (B, 3, h, w), of the one size that it takes, else the smallest that holds
        all images."""
        size_hw = self.model.fixed_hw or common_shape([image.shape[:2] for image in pictures], size, self.stride)
        fitted = np.stack([letterbox(image, size_hw)[0] for image in pictures])  # (B, h, w, 3)
        planes = np.ascontiguousarray(fitted.transpose(0, 3, 1, 2))
        return self._for_network(to_unit_float(torch.from_numpy(planes), device), device)

    def _for_network(self, images: Tensor, device: torch.device) -> Tensor:
        """On the device, in the type of the weights, which is another one where people have called half()."""
        weights = next(self.networks.parameters(), None)
        return images.to(device, torch.float32 if weights is None else weights.dtype)

    def _in_pictures(
        self, decoded: Tensor, pictures: tuple[np.ndarray, ...], fitted_hw: tuple[int, int]
    ) -> list[Tensor]:
        """Predictions for images of size fitted_hw -> for each picture its detections (n, 6), in its pixels."""
        found = non_max_suppression(
            decoded,
            self.conf,
            self.iou,
            classes=class_numbers(self.classes, self.names),
            agnostic=self.agnostic,
            multi_label=self.multi_label,
            max_det=self.max_det,
        )
        for rows, image in zip(found, pictures, strict=True):
            rows[:, :4] = scale_boxes(rows[:, :4], from_hw=fitted_hw, to_hw=image.shape[:2])
        return found


# ------------------------------------------------------------------------------------------------------------- images
def common_shape(sizes_hw: list[tuple[int, int]], size: int, stride: int) -> tuple[int, int]:
    """The smallest (height, width) in multiples of the stride that holds each of the images, resized so that its longer
    side is `size` pixels. Raises InputError where size is less than 1."""
    if size < 1:
        raise InputError(f"size: at least 1 pixel was expected, got {size}")
    scaled = [(side * size, max(hw) * stride) for hw in sizes_hw for side in hw]  # side * size / longest / stride
    strides = [-(-length // unit) for length, unit in scaled]  # whole numbers, as 640 / 1081 * 1081 may pass 640
    return max(strides[0::2]) * stride, max(strides[1::2]) * stride


def checked_batch(images: Tensor, stride: int) -> Tensor:
    """The tensor itself. Raises InputError where a network cannot be given it."""
    usable = (
        images.ndim == 4 and images.shape[1] == 3 and images.numel() and not any(s % stride for s in images.shape[2:])
    )
    if not usable or not images.is_floating_point():
        raise InputError(
            f"imgs: expected a tensor (B, 3, h, w) of values 0..1, h and w multiples of {stride}, "
            f"got {images.dtype} {tuple(images.shape)}; arrays of 0..255 and any size go in as numpy or PIL"
        )
    return images


# ------------------------------------------------------------------------------------------------------------ networks
def torch_members(backend: Backend) -> list[TorchBackend]:
    """The networks in PyTorch behind a backend: itself, the members of an ensemble, none for an exported file."""
    if isinstance(backend, Ensemble):
        return [found for member in backend.members for found in torch_members(member)]
    return [backend] if isinstance(backend, TorchBackend) else []


def as_asked(backend: Backend, *, amp: bool, augment: bool) -> Backend:
    """The same network, on the device where it is now, in 16 bits or with test-time augmentation where that is asked
    for. Raises InputError for a network that cannot be augmented."""
    if isinstance(backend, Ensemble):
        return Ensemble([as_asked(member, amp=amp, augment=augment) for member in backend.members])
    if isinstance(backend, TorchBackend):
        device = next(backend.model.parameters()).device
        wanted = amp_dtype(device) if amp else backend.amp
        return TorchBackend(backend.model, amp=wanted, augment=augment or backend.augment)
    if augment:
        raise InputError("augment=True looks at other image sizes, which only .pt weights are sure to take")
    return backend


def log_layer_times(backend: Backend, images: Tensor) -> None:
    """Logs the time that each layer of each network takes for a batch, measured in a forward of its own. Raises
    InputError for exported files."""
    members = torch_members(backend)
    if not members:
        raise InputError("profile=True looks into a network in PyTorch: .pt weights were expected")
    for member in members:
        LOGGER.info(f"{'ms':>8} {'parameters':>11}  layer")
        start = time_sync(member.device)
        with member.autocast():
            for index, kind, _ in member.model.layer_outputs(images):
                end = time_sync(member.device)
                LOGGER.info(f"{1000 * (end - start):8.2f} {member.model.model[index].np:11}  {index} {kind}")
                start = end
