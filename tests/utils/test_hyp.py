import dataclasses
import logging
import math

import pytest
import yaml

from tests.conftest import ROOT
from utils.errors import InputError
from utils.hyp import REQUIRED, Hyp, load_hyp, save_hyp

FILES = sorted((ROOT / "data/hyps").glob("hyp.*.yaml"))


@pytest.fixture
def low() -> dict:
    return yaml.safe_load((ROOT / "data/hyps/hyp.scratch-low.yaml").read_text())


@pytest.fixture
def told(monkeypatch):
    """The log's lines."""
    lines: list[str] = []
    monkeypatch.setattr(logging.getLogger("yolov5"), "info", lines.append)
    return lines


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_shipped_file_loads_and_is_complete(file, told):
    hyp = load_hyp(file)
    assert not told, "a shipped file names all keys"
    assert isinstance(hyp, Hyp)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("scratch-low", {"lr0": 0.01, "lrf": 0.01, "cls": 0.5, "obj": 1, "scale": 0.5, "mixup": 0, "anchors": None}),
        ("scratch-med", {"lrf": 0.1, "cls": 0.3, "obj": 0.7, "scale": 0.9, "mixup": 0.1, "copy_paste": 0}),
        ("scratch-high", {"lrf": 0.1, "box": 0.05, "mixup": 0.1, "copy_paste": 0.1}),
        ("VOC", {"lr0": 0.0033, "momentum": 0.74747, "anchors": 3.3556, "mosaic": 0.87158, "obj_pw": 0.6729}),
        ("Objects365", {"lr0": 0.00258, "lrf": 0.17, "cls_pw": 0.825, "anchor_t": 3.44, "translate": 0.0902}),
    ],
)
def test_shipped_values(name, expected):
    hyp = dataclasses.asdict(load_hyp(ROOT / f"data/hyps/hyp.{name}.yaml"))
    assert {key: hyp[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learning": 1}, "unknown hyperparameter 'learning'; known are lr0"),
        ({"flipl": 0.5}, "unknown hyperparameter 'flipl'; did you mean fliplr"),
        ({"lro": 0.5}, "unknown hyperparameter 'lro'; did you mean lr0 or lrf\\?$"),
        ({7: 0.5}, "unknown hyperparameter 7"),
        ({"lr0": "1e-3"}, r"lr0 must be a number from 0 to 10, got '1e-3' \(YAML takes this for text: write 0.001"),
        ({"lr0": "fast"}, "lr0 must be a number from 0 to 10, got 'fast'$"),
        ({"lr0": None}, "lr0 must be a number from 0 to 10, got None"),
        ({"box": float("nan")}, "box must be a number of 0 or more, got nan"),
        ({"box": float("inf")}, "box must be a number of 0 or more, got inf"),
        ({"box": True}, "box must be a number of 0 or more, got True"),
        ({"fliplr": 1.5}, "fliplr must be a number from 0 to 1, got 1.5"),
        ({"degrees": [1]}, "degrees must be"),
        ({"nominal_batch": 64.5}, "nominal_batch must be a whole number of 1 or more"),
        ({"temperature": 0.5}, "temperature must be a number of 1 or more"),
        ({"temperature_epochs": -2}, "temperature_epochs must be a number of 0 or more, or -1, got -2"),
        ({"kernel_noise": -0.1}, "kernel_noise must be a number of 0 or more, or -1, got -0.1"),
        ({"lr0": -1}, "lr0 must be a number from 0 to 10, got -1"),
        ({"anchor_t": 0}, "anchor_t must be"),
    ],
)
def test_bad_values_are_refused_with_file_key_and_expectation(change, message, low, tmp_path):
    file = tmp_path / "my hyp.yaml"
    file.write_text(yaml.safe_dump({**low, **change}))
    with pytest.raises(InputError, match=message) as caught:
        load_hyp(file)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize("key", REQUIRED)
def test_a_missing_key_of_v61_is_refused(key, low):
    del low[key]
    with pytest.raises(InputError, match=f"missing hyperparameter {key}"):
        load_hyp(low)


def test_our_own_keys_default_and_it_is_said(low, told):
    for key in ("temperature", "temperature_epochs", "kernel_noise", "nominal_batch"):
        del low[key]
    hyp = load_hyp(low)
    assert (hyp.temperature, hyp.temperature_epochs, hyp.kernel_noise, hyp.nominal_batch) == (34, 11, 0.1, 64)
    assert told == ["hyperparameters: not given, so these defaults are taken: temperature: 34, temperature_epochs: 11, "
                    "kernel_noise: 0.1, nominal_batch: 64"]  # fmt: skip


def test_iou_t_is_accepted_and_not_written(low, told, tmp_path):
    save_hyp(load_hyp({**low, "iou_t": 0.2}), tmp_path / "hyp.yaml")
    assert "iou_t has no effect" in told[0]
    assert "iou_t" not in (tmp_path / "hyp.yaml").read_text()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "got NoneType"),
        ("- 1", "got list"),
        ("a: [", "not readable as YAML"),
        ("lr0: !!python/name:os.system", "not readable as YAML: line 1, column 6"),
    ],
)
def test_files_that_are_no_mapping(text, message, tmp_path):
    file = tmp_path / "hyp.yaml"
    file.write_text(text)
    with pytest.raises(InputError, match=message):
        load_hyp(file)
    with pytest.raises(InputError, match="there is no file"):
        load_hyp(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"anchors": 3.4},
        {"label_smoothing": 0.1},
        {"nominal_batch": 16},
        {"temperature_epochs": -1, "kernel_noise": -1},
    ],
)
def test_written_and_read_again_is_equal(change, low, tmp_path):
    hyp = load_hyp({**low, **change})
    save_hyp(hyp, tmp_path / "hyp.yaml")
    assert load_hyp(tmp_path / "hyp.yaml") == hyp


def test_direct_construction_and_replace_are_checked_too(low):
    with pytest.raises(InputError, match="momentum"):
        dataclasses.replace(load_hyp(low), momentum=math.nan)


def test_scaling_agrees_with_the_reference(low, golden_json):
    hyp = load_hyp(low)
    for row in golden_json("schedule")["hyp_scaling"]:
        scaled = hyp.scaled(nl=row["nl"], nc=row["nc"], imgsz=row["imgsz"])
        assert (scaled.box, scaled.cls, scaled.obj) == pytest.approx((row["box"], row["cls"], row["obj"]), abs=1e-9)
        assert hyp == load_hyp(low), "scaling returns a copy"
