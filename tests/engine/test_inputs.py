import os

import pytest

from engine.inputs import chosen_weights, whole_strides
from utils.errors import InputError


@pytest.mark.parametrize(
    ("sides", "rounded"), [((), ()), ((640, 640), (640, 640)), ((1, 33), (32, 64)), ((65, 96), (96, 96)), ((7,), (32,))]
)
def test_sides_are_rounded_up_to_strides_and_it_is_said(sides, rounded, capfd):
    assert whole_strides(sides, 32) == rounded
    assert ("--imgsz" in capfd.readouterr().err) == (sides != rounded)


def test_weights_default_to_the_newest_best(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert str(chosen_weights("given.pt")) == "given.pt"
    with pytest.raises(InputError, match="train a model first"):
        chosen_weights(None)
    for age, run in enumerate(("exp2", "exp")):
        best = tmp_path / "runs" / "train" / run / "weights" / "best.pt"
        best.parent.mkdir(parents=True)
        best.touch()
        os.utime(best, (1000 + age, 1000 + age))
    assert chosen_weights("").parts[-3] == "exp"
