"""How long the three stages of a detection take: preprocessing, the network, non-maximum suppression. Not for comparing
the speed of models, which are measured in turns: engine/comparer.py."""

from typing import NamedTuple

import torch

from utils.torch_utils import Timer


class Speed(NamedTuple):
    """Milliseconds an image."""

    preprocess: float
    inference: float
    nms: float


class StageTimers:
    """A timer for each stage, to be used as a `with` block. Each adds up the time of all its blocks."""

    def __init__(self, device: torch.device) -> None:
        self.preprocess, self.inference, self.nms = Timer(device), Timer(device), Timer(device)

    def mean_ms(self, images: int) -> Speed:
        """The time of all blocks so far, divided by the number of images (or by 1 where there is none)."""
        stages = (self.preprocess, self.inference, self.nms)
        return Speed(*(1000 * timer.seconds / max(images, 1) for timer in stages))
