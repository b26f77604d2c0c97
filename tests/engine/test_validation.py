"""What val.py makes of its options beside the loop: data, names, labels that join."""

from pathlib import Path

import pytest
import torch

from engine.validation import LabelFiles, trained_on
from models.backend import Backend
from utils.errors import InputError
from utils.tally import ImageResult

ROOT = Path(__file__).resolve().parents[2]


class Blank(Backend):
    """Knows how it was trained, and detects nothing."""

    def __init__(self, **trained_with) -> None:
        super().__init__({0: "disc"}, 32, torch.device("cpu"), trained_with=trained_with)

    def _infer(self, images):
        return images.new_zeros(len(images), 0, 6)


@pytest.mark.parametrize(
    ("options", "found"),
    [({}, None), ({"data": __file__}, __file__), ({"data": "/elsewhere/digits.yaml"}, str(ROOT / "data/digits.yaml"))],
)
def test_data_are_those_that_the_weights_were_trained_on(options, found):
    assert trained_on(Blank(**options), Path("best.pt")) == found


def test_without_the_data_that_the_weights_were_trained_on_a_flag_is_advised():
    with pytest.raises(InputError, match="best.pt was trained on /elsewhere/my.yaml.*: name the data YAML with --data"):
        trained_on(Blank(data="/elsewhere/my.yaml"), Path("best.pt"))


@pytest.mark.parametrize(("detected", "rows"), [(0, None), (1, "1 0.5 0.5 0.5 0.25 0.75\n")])
def test_a_label_file_holds_what_this_run_detects_alone(detected, rows, tmp_path):
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "bus.txt").write_text("0 0.1 0.1 0.1 0.1\n")  # of an earlier run
    found = torch.tensor([[10.0, 15.0, 30.0, 25.0, 0.75, 1.0]])[:detected]  # xyxy in an image of 40 x 40 pixels
    result = ImageResult("images/bus.jpg", (40, 40), found, torch.zeros(0, 5))
    files = LabelFiles(tmp_path / "labels", with_conf=True)
    files.write(result)
    files.write(ImageResult("other/bus.jpg", (40, 40), torch.zeros(0, 6), torch.zeros(0, 5)))  # leaves it as it is
    file = tmp_path / "labels" / "bus.txt"
    assert (file.read_text() if file.exists() else None) == rows
