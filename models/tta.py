"""Test-time augmentation: a network sees an image in three sizes, once mirrored, and all it predicts counts. Not for
augmentation in training: utils/augmentations.py."""

import math

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from models.yolo import DetectionModel

VIEWS = ((1.0, False), (0.83, True), (0.67, False))  # (scale, mirrored left to right)
PADDING_LEVEL = 0.447  # of a channel in 0..1: ImageNet's mean


def augmented_forward(model: DetectionModel, images: Tensor) -> Tensor:
    """Images (B, 3, H, W) -> decoded predictions (B, N, 5 + nc) of all views, in pixels of the images.

    The largest view gives up its coarsest level and the smallest one its finest: large objects are found better in the
    small view, small ones in the large.
    """
    stride = int(model.stride.max())
    decoded = []
    for view, (scale, mirrored) in enumerate(VIEWS):
        looked_at = images.flip(3) if mirrored else images
        predictions, raw = model(scaled(looked_at, scale, stride))
        sizes = [level[0, ..., 0].numel() for level in raw]  # predictions of each level, finest first
        first = sizes[0] if view == len(VIEWS) - 1 else 0
        last = sum(sizes) - (sizes[-1] if view == 0 else 0)
        decoded.append(_in_image(predictions[:, first:last], scale, images.shape[3] if mirrored else None))
    return torch.cat(decoded, dim=1)


def scaled(images: Tensor, scale: float, stride: int) -> Tensor:
    """Images (B, 3, H, W) resized by the scale, then padded right and below to multiples of the stride of the original
    size times the scale."""
    if scale == 1:
        return images
    size_hw = images.shape[2:]
    inner = [int(side * scale) for side in size_hw]
    outer = [math.ceil(side * scale / stride) * stride for side in size_hw]
    resized = interpolate(images, size=inner, mode="bilinear", align_corners=False)
    return pad(resized, (0, outer[1] - inner[1], 0, outer[0] - inner[0]), value=PADDING_LEVEL)


def _in_image(predictions: Tensor, scale: float, mirror_width: int | None) -> Tensor:
    """Predictions (B, n, 5 + nc) of a view in pixels of the original images of that width."""
    x, y, w, h = (predictions[..., :4] / scale).split(1, dim=2)
    x = x if mirror_width is None else mirror_width - x
    return torch.cat((x, y, w, h, predictions[..., 4:]), dim=2)
