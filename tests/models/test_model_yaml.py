"""Anchors by name; the rest of models/model_yaml.py is tested through DetectionModel in test_yolo.py."""

from pathlib import Path

import pytest
import yaml

from models.model_yaml import ANCHOR_SETS, check_anchors, naming
from utils.errors import InputError

SETS = yaml.safe_load(ANCHOR_SETS.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", SETS)
def test_a_set_is_named_by_levels_and_read_by_name(name):
    levels = {"p5": 3, "p6": 4, "p7": 5}[name.split("_")[1]]
    assert check_anchors(name, "a test") == SETS[name]
    assert [len(level) for level in SETS[name]] == [6] * levels


def test_the_sets_are_those_of_the_reference(golden_json):
    assert golden_json("dataset_facts")["anchors"] == SETS


@pytest.mark.parametrize("name", ["", "anchors_p5"])
def test_an_unknown_name_lists_the_known_ones(name):
    with pytest.raises(InputError, match="known are anchors_p5_640, anchors_p6_640"):
        check_anchors(name, "a test")


@pytest.mark.parametrize(
    ("cfg", "told"), [("my.yaml", "my.yaml: layer 3"), (Path("a/my.yaml"), "a/my.yaml: layer 3"), ({}, "layer 3")]
)
def test_errors_of_a_layer_get_the_name_of_their_file(cfg, told):
    with pytest.raises(InputError) as error, naming(cfg):
        raise InputError("layer 3")
    assert str(error.value).replace("\\", "/") == told
