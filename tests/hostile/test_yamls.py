"""Hostile and broken YAMLs of models, data and hyperparameters: each refused in one sentence, or read and harmless."""

import os
from pathlib import Path

import pytest
import yaml

from models.yolo import BLOCKS, DetectionModel
from tests.hostile.child import attempt, bounded
from utils.data_config import load_data_config
from utils.errors import InputError
from utils.files import ROOT
from utils.hyp import FIELDS, load_hyp

READERS = {"model": DetectionModel, "data": load_data_config, "hyp": load_hyp}

# ------------------------------------------------------------------------------------------- what is bad in any YAML
LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}, *a{i - 1}]\n" for i in range(1, 40))
MERGES = "b0: &b0 {k: v}\n" + "".join(f"b{i}: &b{i} {{<<: [{', '.join([f'*b{i - 1}'] * 9)}]}}\n" for i in range(1, 15))
TEXTS = {
    "empty": "",
    "blanks": " \n\n ",
    "a number": "1",
    "a text": "yolov5",
    "a list": "- 1\n- 2",
    "null": "null",
    "two documents": "nc: 1\n---\nnc: 2\n",
    "python system": "nc: !!python/object/apply:os.system ['touch ../canary']\n",
    "python eval": "nc: !!python/object/apply:eval [\"open('../canary', 'w')\"]\n",
    "python new": "nc: !!python/object/new:os.system [touch ../canary]\n",
    "python name": "nc: !!python/name:os.system\n",
    "python module": "nc: !!python/module:antigravity\n",
    "python object": "nc: !!python/object:models.yolo.Model {a: 1}\n",
    "python tuple": "nc: !!python/tuple [1, 2]\n",
    "own tag": "nc: !sh 'touch ../canary'\n",
    "tag directive": "%TAG !e! tag:yaml.org,2002:python/object/apply:\n---\nnc: !e!os.system ['touch ../canary']\n",
    "billion laughs": LAUGHS,
    "merged laughs": MERGES,
    "a list in itself": "nc: &a [*a]\n",
    "a mapping in itself": "nc: &a {b: *a}\n",
    "a document in itself": "&a\nnc: *a\n",
    "an unknown alias": "nc: *nobody\n",
    "1,000 brackets": "nc: " + "[" * 1_000 + "]" * 1_000,
    "100,000 brackets": "nc: " + "[" * 100_000,
    "100,000 braces": "nc: " + "{a: " * 100_000,
    "1,000 dashes": "- " * 1_000,
    "100,000 dashes": "- " * 100_000,
    "a NUL": "nc: 1\0\n",
    "an escape": "nc: \x1b[2J\n",
    "tabs": "nc:\n\t- 1\n",
    "no end of a quote": 'nc: "abc\n',
    "a text that is no date": "nc: 2026-99-99\n",
    "no truth": "nc: !!bool maybe\n",
    "no number": "nc: !!int ''\n",
    "no float": "nc: !!float x\n",
    "no binary": "nc: !!binary '%%%'\n",
    "no base 60": "nc: 1:99:99999\n",
    "a million digits": "nc: " + "9" * 500_000 + "\n",
    "a million hexadecimal digits": "nc: 0x" + "f" * 500_000 + "\n",
    "digits with underscores": "nc: 1" + "_0" * 200_000 + "\n",
    "a huge exponent": "nc: 1.0e+999999999\n",
    "an unhashable key": "[1, 2]: 3\n",
    "an odd key": "? {a: b}\n: c\n",
    "nan": "nc: .nan\n",
    "inf": "nc: .inf\n",
    "a text of 500 kB": "nc: " + "x" * 500_000 + "\n",
    "a key of 500 kB": "x" * 500_000 + ": 1\n",
    "500 kB of keys": "".join(f"k{i}: 1\n" for i in range(50_000)),
    "500 kB of numbers": "nc: [" + "1," * 250_000 + "]\n",
    "500 kB of braces": "nc: [" + "{a: b}," * 70_000 + "]\n",
    "70,000 brackets that close": "nc: " + "[] " * 70_000,
    "a merge of a number": "<<: 1\n",
    "an ordered mapping": "nc: !!omap [a: 1]\n",
    "a set": "!!set {nc, names}\n",
}
BYTES = {
    "UTF-16": "nc: 1\n".encode("utf-16"),
    "Latin-1": "nc: caf\xe9\n".encode("latin-1"),
    "cut UTF-8": b"nc: \xe2\x82",
    "a picture": b"\x89PNG\r\n\x1a\n" + bytes(range(256)),
    "a pickle": b"\x80\x04\x95\x1d\0\0\0\0\0\0\0\x8c\x05posix\x94\x8c\x06system\x94\x93\x94\x8c\x02id\x94\x85R.",
    "a zip": b"PK\x03\x04" + b"\0" * 100,
}


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("name", [*TEXTS, *BYTES])
def test_a_yaml_that_no_reader_takes(name, kind, ground):
    file = ground / "bad.yaml"
    file.write_bytes(BYTES[name] if name in BYTES else TEXTS[name].encode())
    outcome = attempt(lambda: READERS[kind](file), ground)
    assert "bad.yaml" in bounded(outcome)
    assert outcome.grown < 400


@pytest.mark.parametrize("kind", READERS)
def test_a_yaml_of_100_megabytes(kind, ground):
    with open(ground / "large.yaml", "wb") as stream:
        stream.truncate(100 * 2**20)
    outcome = attempt(lambda: READERS[kind](ground / "large.yaml"), ground)
    assert "more than" in bounded(outcome)
    assert outcome.grown < 30


@pytest.mark.parametrize("kind", READERS)
def test_a_yaml_that_is_no_file(kind, ground):
    os.mkfifo(ground / "pipe.yaml")
    (ground / "zero.yaml").symlink_to("/dev/zero")
    (ground / "loop.yaml").symlink_to("loop.yaml")
    (ground / "folder.yaml").mkdir()
    for name in ("pipe.yaml", "zero.yaml", "loop.yaml", "folder.yaml", "none.yaml", "x" * 300, "a\0b.yaml", ""):
        bounded(attempt(lambda name=name: READERS[kind](f"{ground}/{name}"), ground))


# --------------------------------------------------------------------------------------------------------- of models
SMALL = {
    "nc": 3, "depth_multiple": 0.33, "width_multiple": 0.25, "anchors": [[10, 13, 16, 30]], "backbone": [
        [-1, 1, "Conv", [64, 6, 2, 2]], [-1, 1, "Conv", [128, 3, 2]], [-1, 3, "C3", [128]],
    ], "head": [[-1, 1, "Conv", [128, 3, 2]], [[-1], 1, "Detect", ["nc", "anchors"]]],
}  # fmt: skip
VALUES = [
    None,
    "",
    "x",
    -1,
    0,
    1.5,
    float("nan"),
    float("inf"),
    10**30,
    [],
    {},
    True,
    [[1]],
    {"a": 1},
    "nc",
    "__class__",
]
ODD_ROWS = {
    "a function of a module": [-1, 1, "nn.os", []],
    "a module": [-1, 1, "nn.functional", []],
    "a dunder": [-1, 1, "nn.__class__", []],
    "the base class": [-1, 1, "nn.Module", []],
    "its method": [-1, 1, "nn.Module.apply", []],
    "init": [-1, 1, "nn.init.constant_", []],
    "a parameter": [-1, 1, "nn.Parameter", []],
    "an empty name": [-1, 1, "", []],
    "os.system": [-1, 1, "os.system", ["touch ../canary"]],
    "an expression": [-1, 1, "__import__('os').system('touch ../canary')", []],
    "an import": [-1, 1, "models.common.Conv", [8]],
    "an expression as argument": [-1, 1, "Conv", ["__import__('os').system('touch ../canary')"]],
    "a row of another length": [-1, 1, "Conv"],
    "a number as a name": [-1, 1, 7, []],
    "a mapping as arguments": [-1, 1, "Conv", {"c2": 8}],
    "from itself": [0, 1, "Conv", [8]],
    "from behind": [5, 1, "Conv", [8]],
    "from far before": [-9, 1, "Conv", [8]],
    "from nothing": [[], 1, "Concat", [1]],
    "from texts": [["a"], 1, "Concat", [1]],
    "from lists": [[[-1]], 1, "Concat", [1]],
    "from a float": [1.5, 1, "Conv", [8]],
    "zero of it": [-1, 0, "Conv", [8]],
    "a negative number": [-1, -5, "Conv", [8]],
    "a billion of it": [-1, 10**9, "Conv", [8]],
    "a thousand thousands": [-1, 1000, "nn.Transformer", [8, 1, 1000, 1000, 8]],
    "wide": [-1, 1, "Conv", [10**9]],
    "wide within bounds": [-1, 9, "C3", [65_536]],
    "no channels": [-1, 1, "Conv", [0]],
    "negative channels": [-1, 1, "Conv", [-8]],
    "nan channels": [-1, 1, "Conv", [float("nan")]],
    "infinite channels": [-1, 1, "Conv", [float("inf")]],
    "a large kernel": [-1, 1, "Conv", [8, 65_535]],
    "a negative kernel": [-1, 1, "Conv", [8, -3]],
    "no stride": [-1, 1, "Conv", [8, 3, 0]],
    "a large stride": [-1, 1, "Conv", [8, 3, 60_000]],
    "a large border": [-1, 1, "nn.ZeroPad2d", [60_000]],
    "a border of its own": [-1, 1, "Conv", [8, 3, 1, 60_000]],
    "enlarged": [-1, 1, "nn.Upsample", [None, 60_000, "nearest"]],
    "enlarged to": [-1, 1, "nn.Upsample", [60_000, None, "nearest"]],
    "enlarged thrice": [-1, 3, "nn.Upsample", [None, 40, "nearest"]],
    "enlarged in an unknown way": [-1, 1, "nn.Upsample", [None, 2, "sideways"]],
    "pooled up": [-1, 1, "nn.AdaptiveAvgPool2d", [60_000]],
    "transposed": [-1, 1, "nn.ConvTranspose2d", [3, 8, 3, 60_000]],
    "an embedding": [-1, 1, "nn.Embedding", [60_000, 60_000]],
    "linear": [-1, 1, "nn.Linear", [128, 65_536]],
    "flattened": [-1, 1, "nn.Flatten", []],
    "lazy": [-1, 1, "nn.LazyConv2d", [8, 3]],
    "unfolded": [-1, 1, "nn.Unfold", [50]],
    "shuffled": [-1, 1, "nn.PixelShuffle", [50]],
    "recurrent": [-1, 1, "nn.LSTM", [60_000, 60_000]],
    "parallel": [-1, 1, "nn.DataParallel", ["x"]],
    "a container": [-1, 1, "nn.Sequential", ["x"]],
    "a list of modules": [-1, 1, "nn.ModuleList", []],
    "concatenated along nothing": [-1, 1, "Concat", [9]],
    "concatenated a thousand times": [[-1] * 6_000, 1, "Concat", [1]],
    "expanded": [-1, 1, "Expand", [1000]],
    "contracted by zero": [-1, 1, "Contract", [0]],
    "attention to each pixel": [-1, 1, "C3TR", [512]],
    "a detector too early": [-1, 1, "Detect", [1, 3]],
    "nested arguments": [-1, 1, "Conv", [[[[[8]]]]]],
    "a dynamic layer of many kernels": [-1, 1, "DyConv", [8, 3, 1, 60_000]],
}


ODD_ARGUMENTS = [
    [], [None], ["a"], [-1], [0], [1e308], [[]], [8] * 9, pytest.param([65_536], marks=pytest.mark.slow),
]  # fmt: skip


def written(ground: Path, content) -> Path:
    (ground / "odd.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    return ground / "odd.yaml"


@pytest.mark.parametrize("name", ODD_ROWS)
def test_odd_rows_of_a_model(name, ground):
    """As the first row, and as the last before the head: refused, or built within bounds."""
    for content in (
        {**SMALL, "backbone": [ODD_ROWS[name], *SMALL["backbone"][1:]]},
        {**SMALL, "head": [ODD_ROWS[name], [[-1], 1, "Detect", ["nc", 3]]]},
    ):
        outcome = attempt(lambda content=content: "built" * bool(DetectionModel(written(ground, content))), ground)
        bounded(outcome, ends=("refused", "returned"))


@pytest.mark.parametrize(
    "name", ["a module", "a dunder", "the base class", "os.system", "an expression", "from itself"]
)
def test_rows_that_are_refused(name, ground):
    content = {**SMALL, "backbone": [ODD_ROWS[name], *SMALL["backbone"][1:]]}
    told = bounded(attempt(lambda: DetectionModel(written(ground, content)), ground))
    assert "layer 0" in told or "odd.yaml" in told or "unknown block" in told


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("arguments", ODD_ARGUMENTS, ids=str)
def test_blocks_with_odd_arguments(block, arguments, ground):
    content = {**SMALL, "head": [[-1, 1, block, arguments], [[-1], 1, "Detect", ["nc", 3]]]}
    outcome = attempt(lambda: "built" * bool(DetectionModel(content)), ground, megabytes=6000)
    bounded(outcome, ends=("refused", "returned"))


@pytest.mark.parametrize("key", SMALL)
def test_values_of_wrong_types_in_models(key, ground):
    def trying() -> str:
        return "; ".join(result(DetectionModel, {**SMALL, key: value}) for value in VALUES)

    bounded(attempt(trying, ground), ends=("returned",))


def result(function, argument) -> str:
    try:
        function(argument)
    except InputError as error:  # anything else passes through as the fault that it is
        told = str(error)
    else:
        told = "taken"
    assert len(told) < 1000
    return told


def test_forty_layers_that_double_their_channels(ground):
    content = {**SMALL, "backbone": [[-1, 1, "Conv", [8]], *[[[-1, -1], 1, "Concat", [1]]] * 40], "head": []}
    content["head"] = [[[-1], 1, "Detect", ["nc", 3]]]
    assert "layer" in bounded(attempt(lambda: DetectionModel(content), ground))


def test_forty_layers_that_double_their_sides(ground):
    content = {**SMALL, "backbone": [[-1, 1, "Conv", [8]], *[[-1, 1, "nn.Upsample", [None, 2, "nearest"]]] * 40]}
    content["head"] = [[[-1], 1, "Detect", ["nc", 3]]]
    assert "too large" in bounded(attempt(lambda: DetectionModel(content), ground))


def test_five_thousand_layers(ground):
    content = {**SMALL, "backbone": [[-1, 1, "Conv", [8, 1]]] * 5_000, "head": [[[-1], 1, "Detect", ["nc", 3]]]}
    assert "network" in bounded(attempt(lambda: DetectionModel(content), ground))


# --------------------------------------------------------------------------------------------- of hyperparameters
HYP = yaml.safe_load((ROOT / "data/hyps/hyp.scratch-low.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("key", [*FIELDS, "__class__", "", "lr0; import os", 1, None])
def test_values_of_wrong_types_in_hyperparameters(key, ground):
    values = [*VALUES, 1e308, -1e308, 10**400, 5e-324]

    def trying() -> str:
        return "; ".join(result(load_hyp, {**HYP, key: value}) for value in values)

    bounded(attempt(trying, ground), ends=("returned",))
