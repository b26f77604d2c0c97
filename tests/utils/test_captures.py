import cv2
import pytest

from tests.utils.noise_videos import break_frames, noise_video
from utils.captures import BROKEN_IN_A_ROW, grab_past_broken


class Grabs:
    """A capture whose grabs succeed where the text has a 1; after it none does."""

    def __init__(self, text):
        self.left = list(text)

    def grab(self):
        return bool(self.left) and self.left.pop(0) == "1"


@pytest.mark.parametrize(
    ("grabs", "expected"),
    [
        ("", []),
        ("0", []),
        ("1", [0]),
        ("1011001", [0, 1, 0, 2]),
        ("01", [1]),
        ("0" * BROKEN_IN_A_ROW + "1", [BROKEN_IN_A_ROW]),
        ("0" * (BROKEN_IN_A_ROW + 1) + "1", []),
    ],
)
def test_broken_pictures_are_counted(grabs, expected):
    capture = Grabs(grabs)
    assert list(iter(lambda: grab_past_broken(capture), None)) == expected


def test_silence_is_the_end():
    assert grab_past_broken(Grabs("01"), silence_s=0) is None


def test_a_broken_picture_in_a_real_video(tmp_path):
    file = noise_video(tmp_path / "a.avi", frames=20)
    break_frames(file, 7, 8, 12)
    capture = cv2.VideoCapture(str(file))
    assert list(iter(lambda: grab_past_broken(capture), None)) == [0] * 7 + [2, 0, 0, 1] + [0] * 6
    capture.release()
