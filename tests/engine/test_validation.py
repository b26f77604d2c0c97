"""What val.py makes of its options beside the loop: data, names, labels that join."""

from pathlib import Path

import pytest
import torch

from engine.validation import trained_on
from models.backend import Backend
from utils.errors import InputError

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
