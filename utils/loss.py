"""The detection loss: which places of the network's maps have to predict a label, and how wrong they are. Not for its
gains (utils/hyp.py)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from utils.anchors import decode
from utils.boxes import bbox_iou
from utils.hyp import Hyp

# Weights of the levels' objectness losses: the finer a level, the more cells its mean is taken over.
BALANCE_THREE_LEVELS = (4.0, 1.0, 0.4)
BALANCE_OTHERS = (4.0, 1.0, 0.25, 0.06, 0.02)  # P3 to P7
FOCAL_ALPHA = 0.25
# How far to move a label's centre (x, y, subtracted, in cells) to come into its own cell and into the neighbours at the
# left, above, at the right and below.
NEIGHBOURS = ((0.0, 0.0), (0.5, 0.0), (0.0, 0.5), (-0.5, 0.0), (0.0, -0.5))


@dataclass(frozen=True)
class Matches:
    """The m pairs of a label and a place (cell and anchor) of one level that has to predict it. A label may have
    several places, and a place several labels."""

    image: Tensor  # (m,) int64; this and the next three are the place's index in the level's map
    anchor: Tensor
    row: Tensor
    column: Tensor
    label: Tensor  # (m,) int64 class ids
    xywh: Tensor  # (m, 4) the label's box in cells, its centre relative to the corner of the matched cell
    anchor_wh: Tensor  # (m, 2) in cells

    def __len__(self) -> int:
        return len(self.label)

    @property
    def place(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The places as an index into a map (B, ny, nx, na, ...)."""
        return self.image, self.row, self.column, self.anchor


def match_anchors(wh: Tensor, anchors_wh: Tensor, anchor_t: float) -> tuple[Tensor, Tensor]:
    """Pairs of anchors (na, 2) and boxes (n, 2) whose widths and heights differ by less than the factor anchor_t.

    Returns the indices (m,) of the anchors and of the boxes, ordered by anchor, then by box.
    """
    ratio = wh[None] / anchors_wh[:, None]  # (na, n, 2)
    worst = torch.maximum(ratio, 1 / ratio).amax(2)
    anchor, box = (worst < anchor_t).nonzero(as_tuple=True)
    return anchor, box


def neighbour_cells(xy: Tensor, grid_hw: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The cell that each centre lies in, and the nearest neighbour cells in x and in y. xy (n, 2): centres, in cells.

    A neighbour is taken where the centre lies in the half of its cell next to it, and is more than one cell away from
    the map's border on that side. Returns, for each of m cells, the number of its centre, (m,), and the cell's [column,
    row], (m, 2) int64, limited to the map: first all own cells, then the neighbours at the left, above, at the right
    and below.
    """
    height, width = grid_hw
    size = xy.new_tensor((width, height))
    low = (xy % 1 < 0.5) & (xy > 1)  # (n, 2): left, above
    high = ((size - xy) % 1 < 0.5) & (size - xy > 1)  # right, below
    own = torch.ones_like(low[:, :1])
    side, centre = torch.cat((own, low, high), 1).T.nonzero(as_tuple=True)
    cells = (xy[centre] - xy.new_tensor(NEIGHBOURS)[side]).long()
    return centre, torch.minimum(cells.clamp(min=0), size.long() - 1)


def to_matches(targets: Tensor, anchors_wh: Tensor, grid_hw: tuple[int, int], *, anchor_t: float) -> Matches:
    """Matches of one level.

    Args:
        targets: (n, 6) [image, class, x, y, w, h normalised].
        anchors_wh: (na, 2) in cells.
        grid_hw: rows and columns of the level's map.
    """
    height, width = grid_hw
    boxes = targets[:, 2:] * targets.new_tensor((width, height, width, height))
    anchor, chosen = match_anchors(boxes[:, 2:], anchors_wh, anchor_t)
    centre, cells = neighbour_cells(boxes[chosen, :2], grid_hw)
    anchor, chosen = anchor[centre], chosen[centre]  # (m,)
    image, label = targets[chosen, :2].long().T
    xywh = torch.cat((boxes[chosen, :2] - cells, boxes[chosen, 2:]), 1)
    return Matches(image, anchor, cells[:, 1], cells[:, 0], label, xywh, anchors_wh[anchor])


def objectness_target(overlaps: Tensor, matches: Matches, shape: tuple[int, int, int, int]) -> Tensor:
    """Map (B, ny, nx, na) with the overlaps (m,) at their places and 0 elsewhere. shape: of the map.

    Where several labels match one place, the last one's overlap counts. In which order a device writes to one place is
    not defined, so all of them write the value of the last.
    """
    _, rows, columns, anchors = shape
    place = ((matches.image * rows + matches.row) * columns + matches.column) * anchors + matches.anchor
    target = overlaps.new_zeros(shape)
    number = torch.arange(len(place), device=place.device)
    last = place.new_zeros(target.numel()).scatter_reduce_(0, place, number, "amax")
    target.view(-1)[place] = overlaps[last[place]]
    return target


def binary_loss(logits: Tensor, target: Tensor, *, positive_weight: float, focal_gamma: float) -> Tensor:
    """Mean binary cross entropy of logits; the positives are weighted by positive_weight. With focal_gamma > 0 it is
    multiplied by the focal factor, which is small where the prediction is right (arXiv:1708.02002, alpha 0.25)."""
    weight = logits.new_tensor(positive_weight)
    if focal_gamma <= 0:
        return F.binary_cross_entropy_with_logits(logits, target, pos_weight=weight)
    entropy = F.binary_cross_entropy_with_logits(logits, target, pos_weight=weight, reduction="none")
    probability = logits.sigmoid()
    agreement = torch.lerp(1 - probability, probability, target)
    alpha = torch.lerp(torch.full_like(target, 1 - FOCAL_ALPHA), torch.full_like(target, FOCAL_ALPHA), target)
    return (entropy * alpha * (1 - agreement) ** focal_gamma).mean()


class DetectionLoss:
    """Box, objectness and class loss of YOLOv5's raw maps.

    Args:
        anchors: (nl, na, 2) in cells of their level.
        nc: number of classes; with one class there is no class loss.
        hyp: as Hyp.scaled returns it; read are `box`, `obj`, `cls`, `cls_pw`, `obj_pw`, `anchor_t`, `fl_gamma` and
            `label_smoothing`.
        strides: (nl,) pixels per cell.
        autobalance: adjust the levels' objectness weights, `balance`, a little at each call, so that the levels' losses
            become alike; needs a level of stride 16, whose weight stays 1.

    Differs from v6.1: where several labels match one place, the same one counts on every device; under autocast, too,
    the loss is computed in float32.
    """

    def __init__(self, anchors: Tensor, *, nc: int, hyp: Hyp, strides: Tensor, autobalance: bool = False) -> None:
        self.anchors, self.nc, self.hyp = anchors.detach().float(), nc, hyp
        levels = len(anchors)
        self.balance = list(BALANCE_THREE_LEVELS if levels == 3 else BALANCE_OTHERS)
        self.reference_level = [float(stride) for stride in strides].index(16.0) if autobalance else None

    def __call__(self, raw: list[Tensor], targets: Tensor) -> tuple[Tensor, Tensor]:
        """Loss of a batch.

        Args:
            raw: per level (B, na, ny, nx, 5 + nc), before the sigmoid, any floating type.
            targets: (n, 6) [image, class, x, y, w, h normalised], on the device of the maps.

        Returns the total (1,) and the parts box, obj and cls (3,), detached. A part is a mean over matches or places,
        summed over the levels, times its gain; the total is the sum of the parts times the batch size.
        """
        device = raw[0].device
        self.anchors = self.anchors.to(device)
        parts = torch.zeros(3, device=device)
        with torch.autocast(device.type, enabled=False):
            for level, maps in enumerate(raw):
                parts = parts + self._level_loss(level, maps, targets.float())
        if self.reference_level is not None:
            self.balance = [weight / self.balance[self.reference_level] for weight in self.balance]
        parts = parts * parts.new_tensor((self.hyp.box, self.hyp.obj, self.hyp.cls))
        return parts.sum().view(1) * len(raw[0]), parts.detach()

    def _level_loss(self, level: int, maps: Tensor, targets: Tensor) -> Tensor:
        """Box, objectness and class loss (3,) of one level, before the gains."""
        batch, anchors, ny, nx, _ = maps.shape
        matches = to_matches(targets, self.anchors[level], (ny, nx), anchor_t=self.hyp.anchor_t)
        cells = maps.permute(0, 2, 3, 1, 4)  # (B, ny, nx, na, 5 + nc): the order in which channels_last computes
        box_loss = class_loss = maps.new_zeros((), dtype=torch.float32)
        overlaps = maps.new_zeros(0, dtype=torch.float32)
        if len(matches):
            answers = cells[matches.place].float()  # (m, 5 + nc)
            boxes = decode(answers[:, :4].sigmoid(), 0.0, matches.anchor_wh)  # in cells, from the cell's corner
            ciou = bbox_iou(boxes, matches.xywh, kind="ciou")
            box_loss, overlaps = (1 - ciou).mean(), ciou.detach().clamp(min=0)
            class_loss = self._class_loss(answers[:, 5:], matches.label)
        objectness = binary_loss(
            cells[..., 4].float(),
            objectness_target(overlaps, matches, (batch, ny, nx, anchors)),
            positive_weight=self.hyp.obj_pw,
            focal_gamma=self.hyp.fl_gamma,
        )
        weight = self.balance[level]
        if self.reference_level is not None:
            self.balance[level] = weight * 0.9999 + 0.0001 / objectness.item()
        return torch.stack((box_loss, objectness * weight, class_loss))

    def _class_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Scalar, of logits (m, nc) and class ids (m,); smoothed targets lie in [s / 2, 1 - s / 2]."""
        if self.nc == 1:
            return logits.new_zeros(())
        half = 0.5 * self.hyp.label_smoothing
        target = torch.full_like(logits, half).scatter_(1, labels[:, None], 1 - half)
        return binary_loss(logits, target, positive_weight=self.hyp.cls_pw, focal_gamma=self.hyp.fl_gamma)
