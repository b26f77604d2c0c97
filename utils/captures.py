"""Reads OpenCV's captures past broken pictures. Not for opening them: utils/video.py (files), utils/streams.py."""

import os
import time
from math import inf

import cv2

BROKEN_IN_A_ROW = (
    300  # more count as the end. After a fault H.264 is broken up to its next keyframe, mostly 250 at most
)


def quiet_ffmpeg() -> None:
    """Keeps the FFmpeg inside OpenCV from writing about codecs: our lines tell what matters. A level that the user has
    set stays."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")


def grab_past_broken(capture: cv2.VideoCapture, *, silence_s: float = inf) -> int | None:
    """Grabs the next whole picture, for capture.retrieve(). Returns how many broken ones came before it; None at the
    end, or where none came for `silence_s` seconds. OpenCV reports a broken picture as if it were the end; only trying
    again shows whether another one follows."""
    end = time.monotonic() + silence_s
    for broken in range(BROKEN_IN_A_ROW + 1):
        if capture.grab():
            return broken
        if time.monotonic() >= end:
            break
    return None
