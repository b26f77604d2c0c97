"""OpenCV's captures, read past what is broken. Opening them is for utils/video.py (files) and utils/streams.py."""

import os
import time
from math import inf

import cv2

BROKEN_IN_A_ROW = 300  # then it is the end: H.264 can need up to the next keyframe, usually 250 pictures at most


def quiet_ffmpeg() -> None:
    """Keeps FFmpeg in OpenCV from telling of codecs; what matters is told by us. The user's own setting stands."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")


def grab_past_broken(capture: cv2.VideoCapture, *, silence_s: float = inf) -> int | None:
    """Grabs the next picture that is whole, for capture.retrieve(). Returns how many broken ones come before it; None
    where there is none any more, or none for `silence_s`. To OpenCV a broken picture looks like the end, but after it
    the next one can be had."""
    end = time.monotonic() + silence_s
    for broken in range(BROKEN_IN_A_ROW + 1):
        if capture.grab():
            return broken
        if time.monotonic() >= end:
            break
    return None
