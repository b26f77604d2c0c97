"""Several networks as one: their predictions side by side, for non-maximum suppression to choose from. Not for
comparing them: engine/comparer.py."""

from collections.abc import Sequence

import torch
from torch import Tensor

from models.backend import Backend
from utils.errors import InputError


class Ensemble(Backend):
    """Predictions of all members one after the other along the boxes, in the members' order. The members must predict
    the same number of classes; the names are the first one's. Raises InputError where they take different image sizes
    alone."""

    def __init__(self, members: Sequence[Backend]) -> None:
        first = members[0]
        sizes = {member.fixed_hw for member in members if member.fixed_hw}
        if len(sizes) > 1:
            raise InputError(f"--weights: an ensemble needs one image size, got exports for {sorted(sizes)}")
        super().__init__(
            first.names,
            max(member.stride for member in members),
            first.device,
            fixed_hw=next(iter(sizes), None),
        )
        self.members = tuple(members)

    def _infer(self, images: Tensor) -> Tensor:
        return torch.cat([member(images) for member in self.members], dim=1)
