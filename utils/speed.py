"""How long the stages of a detection take: from picture to network input, the network, non-maximum suppression. Not for
comparing models, whose times are measured in turns: engine/comparer.py."""

from typing import NamedTuple

import torch

from utils.torch_utils import Timer


class Speed(NamedTuple):
    """Milliseconds an image."""

    preprocess: float
    inference: float
    nms: float


class StageTimers:
    """A timer for each stage, as a `with` block; they add up over the images."""

    def __init__(self, device: torch.device) -> None:
        self.preprocess, self.inference, self.nms = Timer(device), Timer(device), Timer(device)

    def mean_ms(self, images: int) -> Speed:
        """The time of all blocks so far, an image; zeros before the first."""
        stages = (self.preprocess, self.inference, self.nms)
        return Speed(*(1000 * timer.seconds / max(images, 1) for timer in stages))
