"""A network in PyTorch as a backend: .pt files, and the network of a training when it is validated. Not for exported
files: models/exported.py."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.backend import Backend
from models.tta import augmented_forward
from models.weights import inference_model, read_checkpoint
from models.yolo import DetectionModel
from utils.torch_utils import to_channels_last_


class TorchBackend(Backend):
    """A network in PyTorch, put into eval mode.

    Args:
        amp: the 16-bit type to run the network in (boxes are decoded in float32), None for float32.
        augment: test-time augmentation.
        trained_with: see Backend.
    """

    def __init__(
        self,
        model: DetectionModel,
        *,
        amp: torch.dtype | None = None,
        augment: bool = False,
        trained_with: Mapping[str, Any] | None = None,
    ) -> None:
        device = next(model.parameters()).device
        super().__init__(model.names, int(model.stride.max()), device, trained_with=trained_with)
        self.model = model.eval()
        self.amp = amp
        self.augment = augment

    def with_raw(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The decoded predictions, and the heads' raw maps (B, na, ny, nx, 5 + nc), from which a loss is computed; both
        float32, both without test-time augmentation."""
        with self.autocast():
            decoded, raw = self.model(images)
        return decoded.float(), [level.float() for level in raw]

    def autocast(self) -> torch.autocast:
        """The context that the network runs in."""
        return torch.autocast(self.device.type, dtype=self.amp, enabled=self.amp is not None)

    def _infer(self, images: Tensor) -> Tensor:
        with self.autocast():
            decoded = augmented_forward(self.model, images) if self.augment else self.model(images)[0]
        return decoded.float()


def load_torch(
    file: Path, device: torch.device, *, amp: torch.dtype | None = None, augment: bool = False
) -> TorchBackend:
    """The network in a .pt file, fused, in the memory order that is fastest. Raises InputError as load_model does."""
    checkpoint = read_checkpoint(file)
    model = to_channels_last_(inference_model(checkpoint, device))
    return TorchBackend(model, amp=amp, augment=augment, trained_with=checkpoint.info.get("opt"))
