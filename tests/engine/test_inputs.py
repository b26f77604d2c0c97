import math
import os
from argparse import Namespace
from contextlib import nullcontext
from pathlib import Path

import pytest

from engine.inputs import check_ranges, chosen_weights, data_of_run, tell_other_size, whole_strides
from tests.conftest import ROOT
from utils.errors import InputError


@pytest.mark.parametrize(
    ("sides", "rounded"), [((), ()), ((640, 640), (640, 640)), ((1, 33), (32, 64)), ((65, 96), (96, 96)), ((7,), (32,))]
)
def test_sides_are_rounded_up_to_strides_and_it_is_said(sides, rounded, capfd):
    assert whole_strides(sides, 32) == rounded
    assert ("--imgsz" in capfd.readouterr().err) == (sides != rounded)


@pytest.mark.parametrize(
    ("trained_at", "sides", "told"),
    [
        (None, (640, 640), False),
        ("640", (64, 64), False),
        (0, (64, 64), False),
        (640, (640, 640), False),
        (640, (832, 480), False),
        (96, (640, 640), True),
        (640, (320, 320), True),
        (320, (96, 480), True),
    ],
)
def test_a_size_far_from_the_trainings_is_told(trained_at, sides, told, capfd):
    tell_other_size(sides, trained_at)
    assert (f"try --imgsz {trained_at}" in capfd.readouterr().err) == told


def test_weights_default_to_the_newest_best(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert chosen_weights("given.pt") == [Path("given.pt")]
    assert chosen_weights(["a.pt", Path("b.pt")]) == [Path("a.pt"), Path("b.pt")]
    with pytest.raises(InputError, match="train a model first"):
        chosen_weights(None)
    for age, run in enumerate(("exp2", "exp")):
        best = tmp_path / "runs" / "train" / run / "weights" / "best.pt"
        best.parent.mkdir(parents=True)
        best.touch()
        os.utime(best, (1000 + age, 1000 + age))
    assert [file.parts[-3] for file in chosen_weights("")] == ["exp"]


@pytest.mark.parametrize(
    ("ranges", "told"),
    [
        ({}, None),
        ({"batch_size": (4, math.inf)}, None),
        ({"not_given": (1, 2)}, None),
        ({"batch_size": (5, math.inf)}, "--batch-size: 5 or more was expected, got 4"),
        ({"batch_size": (0, 3)}, "--batch-size: 0 to 3 was expected, got 4"),
        ({"conf_thres": (0, 1)}, "--conf-thres: 0 to 1 was expected, got nan"),
    ],
)
def test_numbers_out_of_range_are_refused_in_the_words_of_the_flag(ranges, told):
    opt = Namespace(batch_size=4, not_given=None, conf_thres=math.nan)
    with pytest.raises(InputError) if told else nullcontext() as caught:
        check_ranges(opt, ranges)
    assert told is None or str(caught.value) == told


@pytest.mark.parametrize("stored", ["/elsewhere/digits.yaml", r"C:\elsewhere\digits.yaml", "elsewhere/digits.yaml"])
def test_data_of_another_machine_are_looked_for_by_name(stored, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert data_of_run(stored, Path("last.pt"), remedy="") == str(ROOT / "data" / "digits.yaml")
    told = capfd.readouterr().err
    assert f"last.pt was trained on {stored}, which is not here: {ROOT / 'data' / 'digits.yaml'} is taken" in told
    Path("digits.yaml").touch()
    assert data_of_run(stored, Path("last.pt"), remedy="") == str(tmp_path / "digits.yaml")


def test_data_that_are_where_they_were_are_taken_without_a_word(tmp_path, capfd):
    (tmp_path / "my.yaml").touch()
    assert data_of_run(str(tmp_path / "my.yaml"), Path("last.pt"), remedy="") == str(tmp_path / "my.yaml")
    assert capfd.readouterr().err == ""


def test_data_that_are_nowhere_are_told_with_what_to_do():
    with pytest.raises(InputError) as caught:
        data_of_run("/elsewhere/my.yaml", Path("last.pt"), remedy="look under the bed")
    told = str(caught.value)
    assert told.startswith(
        "last.pt was trained on /elsewhere/my.yaml, which is not here; looked for by its name alone: "
    )
    assert "tried my.yaml, " in told
    assert told.endswith("What to do: look under the bed")
