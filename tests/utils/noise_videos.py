"""Videos of noise, each frame a JPEG of its own, and how single frames of them are broken."""

import re
from pathlib import Path

import cv2
import numpy as np


def noise_video(file: Path, frames: int) -> Path:
    """Writes so many frames of 64 x 48 pixels into an .avi file. Returns the file."""
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    rng = np.random.default_rng(0)
    for _ in range(frames):
        writer.write(rng.integers(0, 255, (48, 64, 3), dtype=np.uint8))
    writer.release()
    return file


def break_frames(file: Path, *numbers: int) -> None:
    """Overwrites the heads of these frames, counted from 0."""
    content = bytearray(file.read_bytes())
    starts = [match.start() for match in re.finditer(b"\xff\xd8\xff", bytes(content))]
    for number in numbers:
        content[starts[number] : starts[number] + 400] = bytes(400)
    file.write_bytes(content)
