"""What exported files tell of their network: written, read again, and read from strangers."""

from pathlib import Path

import pytest

from models.export_metadata import Metadata, from_json, from_texts, from_values
from utils.errors import InputError

FILE = Path("some.onnx")
ALL_FACTS = Metadata(
    names={0: "it's", 1: 'a "b"', 2: "数字"},
    stride=64,
    imgsz=(256, 416),
    batch=4,
    dynamic=True,
    nms={"conf_thres": 0.25, "agnostic": False},
    train=True,
    frozen={"map_frozen": 0.7},
    trained_with={"data": "/data/my.yaml", "single_cls": True},
)


@pytest.mark.parametrize("metadata", [Metadata({}), Metadata({0: "a"}, imgsz=(32, 64)), ALL_FACTS])
def test_what_is_written_is_read(metadata):
    assert from_json(metadata.as_json(), FILE) == metadata
    assert from_texts(metadata.as_texts(), FILE) == metadata


@pytest.mark.parametrize(
    ("texts", "names", "stride"),
    [
        ({}, {}, 32),
        ({"stride": "32", "names": "['person', 'bus']"}, {0: "person", 1: "bus"}, 32),  # v6.1
        ({"stride": "64", "names": "{0: 'person', 1: 'bus'}", "author": "somebody"}, {0: "person", 1: "bus"}, 64),
        (
            {"names": '{"0": "person", "1": "bus"}', "task": "detect", "imgsz": "[640, 640]"},
            {0: "person", 1: "bus"},
            32,
        ),
    ],
)
def test_files_of_other_versions(texts, names, stride):
    metadata = from_texts(texts, FILE)
    assert (metadata.names, metadata.stride) == (names, stride)


def test_the_text_of_v61_torchscript():
    metadata = from_json('{"shape": [1, 3, 320, 416], "stride": 32, "names": ["a", "b"]}', FILE)
    assert metadata == Metadata({0: "a", 1: "b"}, 32, (320, 416), 1)


HOSTILE = {
    # case: (values, what the message tells)
    "names that are a number": ({"names": 3}, "wrong names: a list or mapping"),
    "names of numbers": ({"names": [1, 2]}, "wrong names: texts"),
    "names with a gap": ({"names": {0: "a", 2: "b"}}, "wrong names: texts for the classes 0, 1"),
    "names of no class": ({"names": {"x": "a"}}, "wrong names"),
    "endless names": ({"names": ["a"] * 100_001}, "wrong names"),
    "stride 0": ({"stride": 0}, "wrong stride: 1 to"),
    "stride of a text": ({"stride": "32px"}, "wrong stride: a whole number"),
    "stride that is infinite": ({"stride": float("inf")}, "wrong stride"),
    "three sides": ({"imgsz": [1, 2, 3]}, "wrong imgsz: height and width"),
    "huge sides": ({"imgsz": [10**9, 32]}, "wrong imgsz"),
    "batch that is true": ({"batch": True}, "wrong batch"),
    "dynamic that is a text": ({"dynamic": "yes"}, "wrong dynamic: true or false"),
    "another task": ({"task": "segment"}, "wrong task: detect was expected, got 'segment'"),
    "suppression that is a list": ({"nms": [0.25]}, "wrong nms: a mapping"),
    "data that is a list": ({"trained_with": {"data": ["a"]}}, "wrong trained_with: its data is list"),
    "frozen that is a text": ({"frozen": "no"}, "wrong frozen"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_wrong_facts_are_told(case):
    values, message = HOSTILE[case]
    with pytest.raises(InputError, match=f"some.onnx: its metadata has a {message}"):
        from_values(values, FILE)


@pytest.mark.parametrize(
    "text", ["", "{", "[1]", "3", "null", "[" * 100_000, '{"names": ' + '"a' * 600_000, b"\xff\xfe\x00"]
)
def test_text_that_is_no_metadata_is_told(text):
    with pytest.raises(InputError, match="some.onnx"):
        from_json(text, FILE)


@pytest.mark.parametrize("text", ["__import__('os').system('true')", "open('x')", "(" * 1000, "a" * 2_000_000, ""])
def test_no_text_is_run(text):
    with pytest.raises(InputError, match="some.onnx: its metadata has a wrong names"):
        from_texts({"names": text}, FILE)


def test_names_for_a_network():
    assert Metadata({}).named(2, FILE) == {0: "class0", 1: "class1"}
    assert Metadata({0: "a"}).named(1, FILE) == {0: "a"}
    with pytest.raises(InputError, match=r"some\.onnx: it predicts 2 classes, but names 1"):
        Metadata({0: "a"}).named(2, FILE)
