"""The built-in data set: handwritten digits (the 8x8 UCI scans that scikit-learn ships) drawn on uneven, noisy
backgrounds. Not for other data: a set of files needs no code, only a data YAML."""

import secrets
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

SPLITS = {"train": 800, "val": 200}  # pictures
PICTURE_HW = (128, 128)
DIGITS_A_PICTURE = (2, 6)
HEIGHT_PX = (24, 64)  # of a digit's visible ink
VAL_SHARE = 0.2  # of the scans of each class; no scan is in both splits
MOST_OVERLAP = 0.05  # of the smaller of two boxes
CANVAS = 128  # side in pixels of the canvas where a scan is drawn large before it is cropped and shrunk
JPEG_QUALITY = 95

Corners = tuple[int, int, int, int]  # left, top, right, bottom; pixels


@dataclass(frozen=True)
class Scans:
    """Scans (N, 8, 8) float32, ink 0..1, and the digit on each (N,) int."""

    ink: np.ndarray
    digit: np.ndarray


def load_scans() -> dict[str, Scans]:
    """The 1,797 scans, shared out between `train` and `val`, each class in the same ratio; every time the same
    split."""
    from sklearn.datasets import load_digits

    data = load_digits()
    rng = np.random.default_rng(0)
    chosen: dict[str, list[np.ndarray]] = {"train": [], "val": []}
    for digit in range(10):
        mixed = rng.permutation(np.flatnonzero(data.target == digit))
        cut = round(len(mixed) * VAL_SHARE)
        chosen["val"].append(mixed[:cut])
        chosen["train"].append(mixed[cut:])
    ink = (data.images / 16).astype(np.float32)
    return {split: Scans(ink[np.concatenate(at)], data.target[np.concatenate(at)]) for split, at in chosen.items()}


# ---------------------------------------------------------------------------------------------------------- one digit
def _smoothstep(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 below low, 1 above high, and a smooth S between."""
    share = np.clip((values - low) / (high - low), 0, 1)
    return share * share * (3 - 2 * share)


def _cut_to_ink(ink: np.ndarray) -> np.ndarray:
    rows, columns = (np.flatnonzero((ink > 0.5).any(axis)) for axis in (1, 0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def draw_digit(rng: np.random.Generator, scan: np.ndarray, height: int) -> np.ndarray:
    """Draws a scan (8, 8) with smooth edges, a little turned, sheared and stretched. Returns its opacity (height, w)
    float32 in 0..1, cut tightly around the ink."""
    angle, shear, stretch = np.deg2rad(rng.uniform(-10, 10)), rng.uniform(-0.15, 0.15), rng.uniform(0.85, 1.15)
    scale = CANVAS / 13  # room around the 8 pixels for the turn
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = scale * turn @ np.array([[stretch, shear], [0, 1]])
    shift = CANVAS / 2 - linear @ (3.5, 3.5)
    large = cv2.warpAffine(scan, np.column_stack((linear, shift)), (CANVAS, CANVAS), flags=cv2.INTER_CUBIC)
    large = _cut_to_ink(_smoothstep(cv2.GaussianBlur(large, (0, 0), scale / 5), 0.25, 0.55))
    width = max(6, round(large.shape[1] * height / large.shape[0]))
    return cv2.resize(large, (width, height), interpolation=cv2.INTER_AREA)


# -------------------------------------------------------------------------------------------------------- one picture
def _clouds(rng: np.random.Generator, size_hw: tuple[int, int], cells: int) -> np.ndarray:
    """Smooth random colours (H, W, 3), about 0..1, with `cells` bumps along the shorter side."""
    height, width = size_hw
    unit = min(size_hw) / cells
    coarse = rng.random((max(2, round(height / unit)), max(2, round(width / unit)), 3), dtype=np.float32)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def _background(rng: np.random.Generator, size_hw: tuple[int, int]) -> np.ndarray:
    """A dark background (H, W, 3) float32, levels about 10 to 110: clouds of colour and soft blots."""
    height, width = size_hw
    base = rng.uniform(15, 55, 3).astype(np.float32)
    scene = base + 35 * _clouds(rng, size_hw, 3) + 15 * _clouds(rng, size_hw, 9)
    blots = np.zeros((height, width, 3), np.float32)
    for _ in range(round(height * width / 1800)):
        centre = (int(rng.integers(width)), int(rng.integers(height)))
        axes = (int(rng.integers(4, 26)), int(rng.integers(4, 14)))
        cv2.ellipse(blots, centre, axes, float(rng.uniform(0, 180)), 0, 360, rng.uniform(-26, 26, 3).tolist(), -1)
    scene += cv2.GaussianBlur(blots, (0, 0), rng.uniform(1.5, 3.5))
    return scene.clip(0)


def _light(rng: np.random.Generator, size_hw: tuple[int, int]) -> np.ndarray:
    """Factors (H, W, 1) of a light that fades towards one side, about 1.15 to 0.75."""
    direction = rng.uniform(0, 2 * np.pi)
    y, x = np.meshgrid(*(np.linspace(-0.5, 0.5, side, dtype=np.float32) for side in size_hw), indexing="ij")
    return (0.95 + rng.uniform(0.05, 0.2) * (np.cos(direction) * x + np.sin(direction) * y) * 1.4)[..., None]


def _ink_colour(rng: np.random.Generator) -> np.ndarray:
    """A bright colour (3,), from white to a clear tint."""
    tint = rng.random(3)
    return (rng.uniform(200, 255) * (1 - rng.uniform(0, 0.45) * (1 - tint / tint.max()))).astype(np.float32)


def _overlap(box_xyxy: Sequence[int], others_xyxy: Sequence[Sequence[int]]) -> float:
    """How much the box and one of the others overlap at most, as a share of the smaller of the two; 0 without
    others."""
    worst = 0.0
    for other in others_xyxy:
        width = min(box_xyxy[2], other[2]) - max(box_xyxy[0], other[0])
        height = min(box_xyxy[3], other[3]) - max(box_xyxy[1], other[1])
        smaller = min((box[2] - box[0]) * (box[3] - box[1]) for box in (box_xyxy, other))
        worst = max(worst, max(width, 0) * max(height, 0) / smaller)
    return worst


def _free_place(
    rng: np.random.Generator, size_wh: tuple[int, int], picture_hw: tuple[int, int], taken_xyxy: list[Corners]
) -> Corners | None:
    """Corners of a box of this size that hardly overlaps those taken; None where 40 tries found no place."""
    for _ in range(40):
        left = int(rng.integers(1, picture_hw[1] - size_wh[0]))
        top = int(rng.integers(1, picture_hw[0] - size_wh[1]))
        box = (left, top, left + size_wh[0], top + size_wh[1])
        if _overlap(box, taken_xyxy) <= MOST_OVERLAP:
            return box
    return None


def draw_picture(
    rng: np.random.Generator,
    scans: Scans,
    size_hw: tuple[int, int] = PICTURE_HW,
    *,
    digits: tuple[int, int] = DIGITS_A_PICTURE,
) -> tuple[np.ndarray, np.ndarray]:
    """One picture (H, W, 3) uint8 with `digits` (from, to) digits, fewer where they find no room, and its labels
    (n, 5) float32 [class, x, y, w, h] in 0..1, tight around the ink."""
    height, width = size_hw
    scene = _background(rng, size_hw)
    classes: list[int] = []
    taken: list[Corners] = []
    for _ in range(int(rng.integers(digits[0], digits[1] + 1))):
        chosen = int(rng.integers(len(scans.digit)))
        tall = round(float(np.exp(rng.uniform(*np.log(HEIGHT_PX)))))
        opacity = draw_digit(rng, scans.ink[chosen], tall)
        place = _free_place(rng, opacity.shape[::-1], size_hw, taken)
        if place is None:
            continue
        left, top, right, bottom = place
        under = scene[top:bottom, left:right]
        under += opacity[..., None] * (_ink_colour(rng) - under)
        classes.append(scans.digit[chosen])
        taken.append(place)
    scene = scene * _light(rng, size_hw) + rng.uniform(2, 7) * rng.standard_normal(scene.shape, np.float32)
    corners = np.array(taken, np.float32).reshape(-1, 4) / (width, height, width, height)
    centre, size = (corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]
    labels = np.column_stack((np.array(classes, np.float32).reshape(-1, 1), centre, size)).astype(np.float32)
    return scene.clip(0, 255).astype(np.uint8), labels


# -------------------------------------------------------------------------------------------------------- the whole set
def _write_split(folder: Path, split: str, scans: Scans, count: int) -> None:
    images, labels = folder / "images" / split, folder / "labels" / split
    images.mkdir(parents=True)
    labels.mkdir(parents=True)
    for i in range(count):
        picture, rows = draw_picture(np.random.default_rng((list(SPLITS).index(split), i)), scans)
        encoded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
        (images / f"{i:04}.jpg").write_bytes(encoded.tobytes())
        lines = [f"{int(row[0])} " + " ".join(f"{value:.6f}" for value in row[1:]) for row in rows]
        (labels / f"{i:04}.txt").write_text("\n".join(lines) + "\n")


def make_digits(root: Path, counts: dict[str, int] | None = None) -> Path:
    """Makes the set in the folder `root` (images/train, images/val, labels/...) unless that is there, and returns it.
    The files are the same every time. counts: pictures of each split; None: SPLITS.

    An interruption leaves nothing at `root`. Of two processes that make the set at the same time, the second one drops
    its copy."""
    if root.exists():
        return root
    scans = load_scans()
    root.parent.mkdir(parents=True, exist_ok=True)
    building = root.with_name(f".{root.name}.{secrets.token_hex(4)}.tmp")
    try:
        for split, count in (counts or SPLITS).items():
            _write_split(building, split, scans[split], count)
        if not root.exists():
            building.rename(root)
    except OSError:
        if not root.exists():  # else another process made it between the look and the renaming
            raise
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return root
