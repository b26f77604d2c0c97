"""Test-time augmentation: a network sees an image in three sizes, one of them mirrored, and suppression is given all
predictions. Not for augmentation in training: utils/augmentations.py."""

import math

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from models.yolo import DetectionModel

VIEWS = ((1.0, False), (0.83, True), (0.67, False))  # (scale, mirrored left to right)
PADDING_LEVEL = 0.447  # of a channel in 0..1: ImageNet's mean


def augmented_forward(model: DetectionModel, images: Tensor) -> Tensor:
    """Images (B, 3, H, W) -> decoded predictions (B, N, 5 + nc) of all views, in pixels of the images.

    Large objects are found better in the smallest view, and small ones in the largest. So the coarsest level of the
    largest view and the finest level of the smallest are left out.
    """
    stride = int(model.stride.max())
    decoded = []
    for number, (scale, mirrored) in enumerate(VIEWS):
        view = scaled(images.flip(3) if mirrored else images, scale, stride)
        predictions, raw = model(view)
        sizes = [level[0, ..., 0].numel() for level in raw]  # predictions of each level, finest first
        first = sizes[0] if number == len(VIEWS) - 1 else 0
        end = sum(sizes) - (sizes[-1] if number == 0 else 0)
        decoded.append(_in_image(predictions[:, first:end], scale, images.shape[3] if mirrored else None))
    return torch.cat(decoded, dim=1)


def scaled(images: Tensor, scale: float, stride: int) -> Tensor:
    """Images (B, 3, H, W), their height and width times the scale, on a border at the right and bottom up to multiples
    of the stride."""
    if scale == 1:
        return images
    size_hw = images.shape[2:]
    inner = [int(side * scale) for side in size_hw]
    outer = [math.ceil(side * scale / stride) * stride for side in size_hw]
    resized = interpolate(images, size=inner, mode="bilinear", align_corners=False)
    return pad(resized, (0, outer[1] - inner[1], 0, outer[0] - inner[0]), value=PADDING_LEVEL)


def _in_image(predictions: Tensor, scale: float, mirror_width: int | None) -> Tensor:
    """Predictions (B, n, 5 + nc) for a view -> the same in pixels of the images. mirror_width: width of the images in
    pixels for a mirrored view, else None."""
    x, y, w, h = (predictions[..., :4] / scale).split(1, dim=2)
    x = x if mirror_width is None else mirror_width - x
    return torch.cat((x, y, w, h, predictions[..., 4:]), dim=2)
