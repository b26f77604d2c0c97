"""A wrong path of one split is told with the YAML, its key and the places, before anything that takes long."""

import re
from pathlib import Path

import pytest
import torch
import yaml

import train
import val
from engine import comparer, export_images, training_setup, validation
from models.backend import Backend
from utils.callbacks import Callbacks
from utils.data_config import load_data_config
from utils.errors import InputError


class Blank(Backend):
    """Detects nothing."""

    def _infer(self, images):
        return images.new_zeros(len(images), 0, 7)


def train_it(file: Path) -> None:
    training_setup.prepare(train.parse_opt(["--data", str(file), "--device", "cpu"]), Callbacks())


def validate_it(file: Path, *, task: str = "val") -> None:
    validation.prepared(val.parse_opt(["--data", str(file), "--weights", "a.pt", "--task", task, "--device", "cpu"]))


def validate_test(file: Path) -> None:
    validate_it(file, task="test")


def compare(file: Path) -> None:
    comparer.run(val.parse_opt(["--data", str(file), "--weights", "a.pt", "b.pt", "--task", "compare"]))


def export(file: Path) -> None:
    export_images.images_to_compare(load_data_config(file))


def calibrate(file: Path) -> None:
    next(export_images.calibration(load_data_config(file), (64, 64)))


@pytest.mark.parametrize(
    ("command", "split"),
    [
        (train_it, "train"),
        (train_it, "val"),
        (validate_it, "val"),
        (validate_test, "test"),
        (compare, "val"),
        (export, "val"),
        (calibrate, "train"),
    ],
)
def test_a_wrong_split_is_told_at_the_start(command, split, tmp_path, monkeypatch):
    def load(*args, **options):
        return Blank({0: "a"}, 32, torch.device("cpu"))

    def too_late(*args, **options):
        raise AssertionError("the split is to be looked for before")

    monkeypatch.chdir(tmp_path)
    for module in (validation, comparer):
        monkeypatch.setattr(module, "load_backend", load)
    monkeypatch.setattr(training_setup, "build_network", too_late)
    monkeypatch.setattr(validation, "chosen_weights", lambda given: [Path(file) for file in given])
    (tmp_path / "images").mkdir()
    described = {"path": ".", **dict.fromkeys(("train", "val", "test"), "images"), split: "imgs", "names": ["a"]}
    file = tmp_path / "set.yaml"
    file.write_text(yaml.safe_dump(described))
    told = f"{file}: {split}: nothing is there; tried {tmp_path}/imgs"
    with pytest.raises(InputError, match=f"^{re.escape(told)}.*What to do: correct `{split}`"):
        command(file)
