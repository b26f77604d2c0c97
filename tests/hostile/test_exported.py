"""Exported files of strangers: what they tell of their network, and files that are cut, lie or lead elsewhere. The
network itself is its runtime's to read: SECURITY.md says what that means."""

import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from models.backends import load_backend
from models.export_metadata import Metadata, from_file, from_json, from_texts, from_values
from models.export_openvino import METADATA_PATH
from models.onnx_metadata import image_shape_of, texts_of
from models.runtime_tensorrt import split
from models.runtime_tflite import _metadata as tflite_metadata
from tests.hostile.child import attempt, bounded

CPU = torch.device("cpu")
NAMES = {0: "a", 1: "b"}
DEEP = 100_000


def nested(levels: int) -> dict:
    value: dict = {}
    for _ in range(levels):
        value = {"a": value}
    return value


# -------------------------------------------------------------------------------------------- values of wrong kinds
VALUES = {
    "a million names": {"names": ["a"] * 10**6},
    "a million numbered names": {"names": {str(cls): "a" for cls in range(10**6)}},
    "names of lists": {"names": [["a"]]},
    "names with a number": {"names": ["a", 1]},
    "names of nothing": {"names": [None]},
    "a name of NaN": {"names": [float("nan")]},
    "names numbered from 1": {"names": {"1": "a"}},
    "names numbered below 0": {"names": {"-1": "a"}},
    "names numbered with NaN": {"names": {"nan": "a"}},
    "names numbered with a huge number": {"names": {"9" * 4000: "a"}},
    "names numbered twice": {"names": {"0": "a", " 0": "b", "00": "c", "1": "d"}},
    "stride 0": {"stride": 0},
    "stride below 0": {"stride": -32},
    "stride of 1e9": {"stride": 1e9},
    "stride of NaN": {"stride": float("nan")},
    "stride of infinity": {"stride": float("inf")},
    "stride of a half": {"stride": 0.5},
    "stride of a list": {"stride": [32]},
    "stride of text": {"stride": "32"},
    "stride that is true": {"stride": True},
    "sides of 1e6": {"imgsz": [10**6, 10**6]},
    "a side of 0": {"imgsz": [0, 64]},
    "a side below 0": {"imgsz": [-64, 64]},
    "a side of NaN": {"imgsz": [float("nan"), 64]},
    "no sides": {"imgsz": []},
    "a million sides": {"imgsz": [64] * 10**6},
    "sides that are a mapping": {"imgsz": {"h": 64}},
    "a shape of texts": {"shape": ["1", "3", "64", "64"]},
    "a shape of 1e12": {"shape": [1, 3, 10**12, 10**12]},
    "batch 0": {"batch": 0},
    "batch of 1e9": {"batch": 10**9},
    "dynamic of 1": {"dynamic": 1},
    "task of a list": {"task": ["detect"]},
    "train of text": {"train": "no"},
    "suppression of lists": {"nms": {"conf_thres": [[0.1]]}},
    "deep suppression": {"nms": nested(900)},
    "suppression of a million": {"nms": {str(i): i for i in range(10**6)}},
    "suppression with a text of 100 kB": {"nms": {"conf_thres": "x" * 10**5}},
    "suppression with a key of 100 kB": {"nms": {"x" * 10**5: 1}},
    "frozen facts of mappings": {"frozen": {"map": {"a": 1}}},
    "training that is a list": {"trained_with": [1]},
    "data that is a number": {"trained_with": {"data": 1}},
    "data of 100 kB": {"trained_with": {"data": "x" * 10**5}},
    "single_cls of text": {"trained_with": {"single_cls": "yes"}},
}


@pytest.mark.parametrize("name", VALUES)
def test_values_of_wrong_kinds(name, ground):
    outcome = attempt(lambda: from_values(VALUES[name], Path("some.onnx")), ground)
    assert "some.onnx: its metadata has a wrong" in bounded(outcome)
    assert outcome.grown < 300


# ----------------------------------------------------------------------------------------- texts that are no metadata
TEXTS = {
    "nothing": "",
    "a text": '"names"',
    "a list": "[]",
    "NaN alone": "NaN",
    "cut off": '{"names": ["a", "b"',
    "two of them": "{} {}",
    "YAML": "names:\n  0: a\n",
    "a python tag": "names: !!python/object/apply:os.system ['touch ../canary']\n",
    "a call": "__import__('os').system('touch ../canary')",
    "100,000 brackets": "[" * DEEP,
    "100,000 brackets that close": "[" * DEEP + "]" * DEEP,
    "100,000 braces": '{"a":' * DEEP,
    "names of 100,000 brackets": '{"names": ' + "[" * DEEP + "]" * DEEP + "}",
    "a million digits": '{"stride": ' + "9" * 900_000 + "}",
    "a name of 2 MB": '{"names": ["' + "x" * 2_000_000 + '"]}',
    "a name of 100 MB": '{"names": ["' + "x" * 100_000_000 + '"]}',
    "100 MB of blanks": " " * 100_000_000,
    "Latin-1": '{"names": ["é"]}'.encode("latin-1"),
    "NULs": b"\0" * 1000,
    "a pickle": b"\x80\x04cposix\nsystem\n(X\x02\0\0\0idtR.",
}


@pytest.mark.parametrize("name", TEXTS)
def test_texts_that_are_no_metadata(name, ground):
    outcome = attempt(lambda: from_json(TEXTS[name], Path("some.engine")), ground)
    assert "some.engine: its metadata" in bounded(outcome)
    assert outcome.grown < 300


@pytest.mark.parametrize("name", TEXTS)
def test_a_file_beside_the_network(name, ground):
    """As folders of NCNN and TensorFlow have it."""
    text = TEXTS[name]
    (ground / "metadata.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    outcome = attempt(lambda: from_file(ground / "metadata.json"), ground)
    assert "metadata.json: its metadata" in bounded(outcome)
    assert outcome.grown < 30


LITERALS = {
    "a call": "__import__('os').system('touch ../canary')",
    "a call in a list": "[open('../canary', 'w')]",
    "a class's subclasses": "().__class__.__base__.__subclasses__()",
    "an f-string of 300,000 fields": "f'" + "{1}" * 300_000 + "'",
    "500,000 numbers": "[" + "1," * 499_000 + "]",
    "a sum of 400,000": "1+" * 400_000 + "1",
    "a comparison of 400,000": "1<" * 400_000 + "1",
    "a power": "9**9**9",
    "a repeated text": "'a'*1000000000",
    "100,000 signs": "-" * DEEP + "1",
    "100,000 nots": "not " * DEEP + "1",
    "100,000 lambdas": "lambda:" * DEEP + "1",
    "100,000 parentheses": "(" * DEEP,
    "150 parentheses": "(" * 150 + ")" * 150,
    "100,000 attributes": "a" + ".b" * DEEP,
    "100,000 indices": "a" + "[0" * DEEP,
    "a million digits": "9" * 900_000,
    "a million hexadecimal digits": "0x" + "f" * 900_000,
    "bytes": "b'" + "\\x00" * 200_000 + "'",
    "an open quote": "['" + "\\'" * 400_000,
    "many open quotes": "'\"" * 400_000,
    "a NUL": "['a\0b'",
    "a wrong escape": "['\\N{nothing}']",
    "a lone surrogate": "['\\ud800']x",
    "a set": "{'a', 'b'}",
    "100 MB": "x" * 100_000_000,
}


@pytest.mark.parametrize("name", LITERALS)
def test_texts_of_python_that_are_no_names(name, ground):
    outcome = attempt(lambda: from_texts({"names": LITERALS[name]}, Path("some.onnx")), ground)
    assert "some.onnx: its metadata has a wrong names" in bounded(outcome)
    assert outcome.grown < 400


@pytest.mark.parametrize("key", [*Metadata.__dataclass_fields__, "shape", "__class__", ""])
def test_any_value_of_any_key(key, ground):
    values = [None, "", -1, 0, 1.5, float("nan"), float("inf"), 10**30, [], {}, True, [[1]], {"a": {"b": [1]}}, "\0"]

    def trying() -> str:
        told = []
        for value in values:
            texts = {key: json.dumps(value)}
            for read in (
                lambda value=value: from_values({key: value}, Path("f")),
                lambda texts=texts: from_texts(texts, Path("f")),
            ):
                try:
                    told.append(type(read()).__name__)
                except ValueError as error:
                    told.append(str(error))
        return "; ".join(told)

    bounded(attempt(trying, ground), ends=("returned",))


# ------------------------------------------------------------------------------------- where the formats keep the text
def test_headers_of_engines(ground):
    contents = {
        "empty": b"",
        "cut": b"\x10\0",
        "no engine": struct.pack("<I", 2) + b"{}",
        "a length of 4 GB": b"\xff" * 4 + b"{}" * 100,
        "a length below 0": struct.pack("<i", -1) + b"{}",
        "no length": b"\0" * 100,
        "an engine alone": b"ftrt" + bytes(range(256)) * 100,
        "random": bytes((i * 7919) % 251 for i in range(10_000)),
        "deep": struct.pack("<I", DEEP) + b"[" * DEEP + b"engine",
        "100 MB": struct.pack("<I", 10**8) + b" " * 10**8 + b"engine",
    }
    for content in contents.values():
        (ground / "some.engine").write_bytes(content)
        assert "some.engine" in bounded(attempt(lambda: split(ground / "some.engine"), ground))


def behind_a_network(content: bytes, *, packing: int = zipfile.ZIP_DEFLATED) -> Callable[[Path], bytes]:
    def write(file: Path) -> bytes:
        with zipfile.ZipFile(file, "w", packing) as archive:
            archive.writestr("metadata.json", content)
        return b"TFL3" * 100 + file.read_bytes()

    return write


def damaged(at: int) -> Callable[[Path], bytes]:
    """A packed member with a byte changed."""

    def write(file: Path) -> bytes:
        content = bytearray(behind_a_network(b'{"stride": 32}' * 500)(file))
        content[at] ^= 255
        return bytes(content)

    return write


def marked(flag: int, method: int) -> Callable[[Path], bytes]:
    """A member that claims to be locked, or of another packing."""

    def write(file: Path) -> bytes:
        content = bytearray(behind_a_network(b"{}")(file))
        local, central = content.find(b"PK\x03\x04"), content.find(b"PK\x01\x02")
        content[local + 6], content[central + 8] = flag, flag
        if method:
            content[local + 8], content[central + 10] = method, method
        return bytes(content)

    return write


TAILS = {
    "a bomb": behind_a_network(b" " * 2**28),
    "a bomb in bzip2": behind_a_network(b" " * 2**28, packing=zipfile.ZIP_BZIP2),
    "deep": behind_a_network(b"[" * DEEP),
    "no JSON": behind_a_network(b"names"),
    "damaged data": damaged(345),
    "damaged more": damaged(360),
    "locked": marked(1, 0),
    "an unknown packing": marked(0, 99),
}


@pytest.mark.parametrize("name", TAILS)
def test_archives_behind_tflite_networks(name, ground):
    (ground / "some.tflite").write_bytes(TAILS[name](ground / "tail.zip"))
    outcome = attempt(lambda: tflite_metadata(ground / "some.tflite"), ground)
    assert "some.tflite" in bounded(outcome)
    assert outcome.grown < 100


def test_a_tflite_network_without_an_archive_tells_nothing(ground):
    (ground / "some.tflite").write_bytes(b"TFL3" * 1000)
    assert tflite_metadata(ground / "some.tflite") == Metadata({})


# ----------------------------------------------------------------------------------------------------- ONNX: the bytes
def varint(number: int) -> bytes:
    low, high = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + varint(high) if high else bytes([low])


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def pair(key: bytes, value: bytes) -> bytes:
    return field(14, field(1, key) + field(2, value))


BYTES = {
    "empty": b"",
    "a picture": b"\x89PNG\r\n\x1a\n" + bytes(range(256)),
    "text": b"names: [a]\n" * 100,
    "random": bytes((i * i * 31 + 7) % 253 for i in range(5000)),
    "0xff": b"\xff" * 1000,
    "a length of 2**63": varint(14 << 3 | 2) + varint(2**63),
    "an end in a length": varint(14 << 3 | 2) + b"\x80",
    "a value that is a number": field(14, varint(1 << 3) + b"\1"),
    "metadata that is a number": varint(14 << 3) + b"\1",
    "a key in Latin-1": pair(b"\xe9", b""),
    "a value in Latin-1": pair(b"names", b"\xe9"),
    "a group": b"\x0b" * 1000,
    "a graph of 100,000 in each other": b"\x3a\x00" * DEEP,
}


@pytest.mark.parametrize("name", BYTES)
def test_bytes_that_are_no_onnx(name, ground):
    (ground / "some.onnx").write_bytes(BYTES[name])
    outcome = attempt(lambda: from_texts(texts_of(ground / "some.onnx"), ground / "some.onnx"), ground)
    if (told := bounded(outcome, ends=("refused", "returned"))) and outcome.ended == "refused":
        assert "some.onnx" in told
    assert "some.onnx" in bounded(attempt(lambda: image_shape_of(ground / "some.onnx"), ground))
    assert "some.onnx" in bounded(attempt(lambda: load_backend(ground / "some.onnx", CPU, dnn=True), ground))


@pytest.mark.parametrize("name", BYTES)
def test_bytes_that_are_no_onnx_in_its_runtime(name, ground):
    pytest.importorskip("onnxruntime")
    (ground / "some.onnx").write_bytes(BYTES[name])
    assert "some.onnx" in bounded(attempt(lambda: load_backend(ground / "some.onnx", CPU), ground))


# ------------------------------------------------------------------------------------------------- ONNX: whole networks
def onnx_network(
    size_hw: tuple[int, int] = (64, 64), *, columns: int = 7, known: bool = True, weights: dict[str, Any] | None = None
) -> Any:
    """A network from images to (1, 4, columns): the mean of the image, and weights beside it where a place is given."""
    onnx = pytest.importorskip("onnx")
    table = onnx.helper.make_tensor("table", 1, [1, 4, columns], [0.5] * 4 * columns)
    if weights is not None:
        table = onnx.TensorProto(name="table", data_type=1, dims=[1, 4, columns], data_location=1)
        for key, value in {"offset": "0", "length": str(16 * columns), **weights}.items():
            entry = table.external_data.add()
            entry.key, entry.value = key, value
    nodes = [
        onnx.helper.make_node("ReduceMean", ["images"], ["mean"], keepdims=0),
        onnx.helper.make_node("Add", ["table", "mean"], ["output"]),
    ]
    images = onnx.helper.make_tensor_value_info("images", 1, [1, 3, *size_hw])
    output = onnx.helper.make_tensor_value_info("output", 1, [1, 4, columns if known else "columns"])
    graph = onnx.helper.make_graph(nodes, "network", [images], [output], [table])
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8)


def told_in_onnx(ground: Path, texts: dict[str, str], **options: Any) -> Path:
    network = onnx_network(**options)
    for key, value in texts.items():
        entry = network.metadata_props.add()
        entry.key, entry.value = key, value
    (ground / "some.onnx").write_bytes(network.SerializeToString())
    return ground / "some.onnx"


def runtimes() -> list[Any]:
    return [pytest.param(False, id="ONNX Runtime"), pytest.param(True, id="OpenCV")]


def opened(file: Path, dnn: bool = False) -> str:
    """Loads a file and runs it once. Returns its names."""
    backend = load_backend(file, CPU, dnn=dnn)
    backend(torch.zeros(1, 3, *(backend.fixed_hw or (64, 64))))
    return repr(backend.names)


@pytest.mark.parametrize("dnn", runtimes())
def test_a_harmless_onnx_is_run(dnn, ground):
    if not dnn:
        pytest.importorskip("onnxruntime")
    file = told_in_onnx(ground, {"names": repr(NAMES), "stride": "32"})
    assert bounded(attempt(lambda: opened(file, dnn), ground, megabytes=2000), ends=("returned",)) == repr(NAMES)


ONNX_TEXTS = {
    "names that do not match": {"names": "['a', 'b', 'c']"},
    "a million names": {"names": json.dumps(["a"] * 10**5 * 2)},
    "names of 100 MB": {"names": "x" * 100_000_000},
    "an f-string": {"names": "f'" + "{1}" * 300_000 + "'"},
    "stride 0": {"stride": "0"},
    "stride of 1e9": {"stride": "1e9"},
    "stride of NaN": {"stride": "NaN"},
    "sides of 1e6": {"imgsz": "[1000000, 1000000]"},
    "train": {"train": "true"},
    "suppression that is deep": {"nms": "[" * DEEP},
}


@pytest.mark.parametrize("dnn", runtimes())
@pytest.mark.parametrize("name", ONNX_TEXTS)
def test_onnx_networks_that_tell_nonsense(name, dnn, ground):
    if not dnn:
        pytest.importorskip("onnxruntime")
    file = told_in_onnx(ground, ONNX_TEXTS[name])
    assert "some.onnx" in bounded(attempt(lambda: opened(file, dnn), ground, megabytes=2000))


@pytest.mark.parametrize("dnn", runtimes())
def test_a_million_pairs_of_texts(dnn, ground):
    if not dnn:
        pytest.importorskip("onnxruntime")
    network = onnx_network().SerializeToString()
    (ground / "some.onnx").write_bytes(network + b"".join(pair(b"%d" % i, b"x") for i in range(10**6)))
    bounded(attempt(lambda: opened(ground / "some.onnx", dnn), ground), ends=("returned", "refused"))


@pytest.mark.parametrize("dnn", runtimes())
@pytest.mark.parametrize("size_hw", [(10**6, 10**6), (10**5, 64 * 10**5), (2**31 - 1, 2**31 - 1)])
def test_onnx_networks_for_huge_images(size_hw, dnn, ground):
    if not dnn:
        pytest.importorskip("onnxruntime")
    file = told_in_onnx(ground, {}, size_hw=size_hw, known=False)
    assert "some.onnx" in bounded(attempt(lambda: opened(file, dnn), ground, megabytes=2000))


@pytest.mark.parametrize("dnn", runtimes())
@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7, 0.9, 0.99])
def test_onnx_networks_that_were_cut_off(share, dnn, ground):
    if not dnn:
        pytest.importorskip("onnxruntime")
    file = told_in_onnx(ground, {"names": repr(NAMES)})
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    outcome = attempt(lambda: opened(file, dnn), ground, megabytes=2000)
    if bounded(outcome, ends=("refused", "returned")) and outcome.ended == "refused":
        assert "some.onnx" in outcome.told


PLACES = {
    "two folders up": "../../secret",
    "a way around": "in/../../secret",
    "absolute": "{outside}",
    "a link": "link",
    "a folder that is a link": "folder/secret",
    "a device": "/dev/zero",
    "passwords": "/etc/passwd",
    "a NUL": "a\0b",
    "nowhere": "nowhere",
    "itself": ".",
}


@pytest.mark.parametrize("dnn", runtimes())
@pytest.mark.parametrize("place", PLACES)
def test_weights_outside_of_the_folder_are_not_read(place, dnn, ground):
    if not dnn:
        pytest.importorskip("onnxruntime")
    inner = ground / "a" / "b"
    inner.mkdir(parents=True)
    for secret in (ground / "secret", ground / "a" / "secret"):
        secret.write_bytes(b"\0\0\x80?" * 64)
    (inner / "link").symlink_to(ground / "secret")
    (inner / "folder").symlink_to(ground)
    location = PLACES[place].format(outside=ground / "secret")
    file = told_in_onnx(inner, {}, weights={"location": location})
    assert "some.onnx" in bounded(attempt(lambda: opened(file, dnn), ground, megabytes=2000))


def test_weights_of_constants_and_subgraphs_are_looked_at(ground):
    """A place that leads out stands in a node's attribute, two subgraphs deep."""
    onnx = pytest.importorskip("onnx")
    tensor = onnx_network(weights={"location": "../secret"}).graph.initializer[0]
    for _ in range(2):
        constant = onnx.helper.make_node("Constant", [], ["c"], value=tensor)
        graph = onnx.helper.make_graph([constant], "inner", [], [onnx.helper.make_tensor_value_info("c", 1, None)])
        holder = onnx.helper.make_node("If", ["x"], ["y"], then_branch=graph, else_branch=graph)
        tensor = onnx.helper.make_tensor("plain", 1, [1], [0.0])
        network = onnx_network()
        network.graph.node.append(holder)
        (ground / "some.onnx").write_bytes(network.SerializeToString())
        told = attempt(lambda: load_backend(ground / "some.onnx", CPU, dnn=True), ground, megabytes=2000)
        assert ("outside of its folder" in bounded(told, ends=("refused", "returned"))) == (
            constant.attribute[0].t.name == "table"
        )


# ------------------------------------------------------------------------------------------------------- TorchScript
class Flat(torch.nn.Module):
    """A network from images to (B, 4, 7)."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.zeros(images.shape[0], 4, 7) + images.mean()


class Endless(torch.nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        while images.numel() > 0:
            images = images + 1
        return images


class Greedy(torch.nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.zeros(1, 1_000_000_000_000, 7)


def scripted(module: torch.nn.Module, file: Path, told: str | bytes | None = None) -> Path:
    extra = {} if told is None else {"config.txt": told}
    with pytest.warns(FutureWarning):
        torch.jit.script(module).save(str(file), _extra_files=extra)
    return file


def test_a_harmless_torchscript_is_run(ground):
    file = scripted(Flat(), ground / "some.torchscript", json.dumps({"names": ["a", "b"], "stride": 32}))
    assert bounded(attempt(lambda: opened(file), ground), ends=("returned",)) == repr(NAMES)


SCRIPT_TEXTS = {
    "no JSON": "names",
    "a call": "__import__('os').system('touch ../canary')",
    "deep": "[" * DEEP,
    "100 MB": " " * 10**8,
    "other names": json.dumps({"names": ["a"] * 3}),
    "sides of 1e6": json.dumps({"imgsz": [10**6, 10**6]}),
    "sides of 60,000": json.dumps({"imgsz": [60_000, 60_000]}),
    "16,000 pixels squared": json.dumps({"imgsz": [16_000, 16_000]}),
    "stride of 1e6": json.dumps({"stride": 10**6}),
    "v6.1's shape of 1e9": json.dumps({"shape": [1, 3, 10**9, 10**9]}),
    "a batch of 1e6": json.dumps({"batch": 10**6, "imgsz": [640, 640]}),
}


@pytest.mark.parametrize("name", SCRIPT_TEXTS)
def test_torchscript_that_tells_nonsense(name, ground):
    file = scripted(Flat(), ground / "some.torchscript", SCRIPT_TEXTS[name])
    outcome = attempt(lambda: opened(file), ground)
    assert "some.torchscript" in bounded(outcome)
    assert outcome.grown < 400


def packed_again(file: Path, change: dict[str, bytes]) -> None:
    """Writes an archive anew, members added or replaced; those are packed."""
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in {**members, **change}.items():
            archive.writestr(name, content, zipfile.ZIP_DEFLATED if name in change else zipfile.ZIP_STORED)


@pytest.mark.parametrize("member", ["some/extra/config.txt", "some/data/0", "some/code/more.py", "some/data.pkl"])
def test_torchscript_bombs(member, ground):
    file = scripted(Flat(), ground / "some.torchscript")
    packed_again(file, {member: b" " * 2**28})
    outcome = attempt(lambda: opened(file), ground)
    assert "some.torchscript" in bounded(outcome)
    assert outcome.grown < 100


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99])
def test_torchscript_that_was_cut_off(share, ground):
    file = scripted(Flat(), ground / "some.torchscript")
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    assert "some.torchscript" in bounded(attempt(lambda: opened(file), ground))


CODE = {
    "no code": b"",
    "no program": b"\x00\xff" * 100,
    "a call of Python": b"import os\nos.system('touch ../canary')\n",
}


@pytest.mark.parametrize("name", CODE)
def test_torchscript_with_other_code(name, ground):
    file = scripted(Flat(), ground / "some.torchscript")
    with zipfile.ZipFile(file) as archive:
        code = next(member for member in archive.namelist() if member.endswith(".py"))
    packed_again(file, {code: CODE[name]})
    assert "some.torchscript" in bounded(attempt(lambda: opened(file), ground))


def test_a_pickle_of_torchscript_that_calls(ground):
    file = scripted(Flat(), ground / "some.torchscript")
    packed_again(file, {"some/data.pkl": b"\x80\x02cposix\nsystem\nX\x0f\0\0\0touch ../canary\x85R."})
    assert "some.torchscript" in bounded(attempt(lambda: opened(file), ground))


def test_torchscript_that_asks_for_all_memory(ground):
    file = scripted(Greedy(), ground / "some.torchscript")
    assert "some.torchscript" in bounded(attempt(lambda: opened(file), ground))


def test_torchscript_is_a_program_that_may_never_end(ground):
    """What SECURITY.md says of it: nothing bounds the time of a stranger's program, which can only be ended."""
    file = scripted(Endless(), ground / "some.torchscript")
    outcome = attempt(lambda: opened(file), ground, seconds=1)
    assert outcome.ended == "hung"
    assert not outcome.acts


# ------------------------------------------------------------------------------------------------------ OpenVINO, NCNN
NOT_USED = ("sides of 60,000", "16,000 pixels squared", "a batch of 1e6")  # the network itself says these in OpenVINO


@pytest.mark.parametrize(
    "name", ["a list", "a call", "cut off", *(text for text in SCRIPT_TEXTS if text not in NOT_USED)]
)
def test_openvino_networks_that_tell_nonsense(name, ground):
    openvino = pytest.importorskip("openvino")
    network = openvino.Core().read_model(told_in_onnx(ground, {}))
    network.set_rt_info({**TEXTS, **SCRIPT_TEXTS}[name], list(METADATA_PATH))
    openvino.save_model(network, ground / "some.xml")
    assert "some.xml" in bounded(attempt(lambda: opened(ground / "some.xml"), ground, megabytes=4000))


LAUGHS = (
    b'<?xml version="1.0"?><!DOCTYPE net [<!ENTITY a0 "ha">'
    + b"".join(b'<!ENTITY a%d "%s">' % (i, b"&a%d;" % (i - 1) * 10) for i in range(1, 12))
    + b']><net name="&a11;" version="11"><layers></layers><edges></edges></net>'
)
XMLS = {
    "empty": b"",
    "no XML": b"\0" * 100,
    "no network": b"<a/>",
    "no layers": b'<net name="x" version="11"><layers/><edges/></net>',
    "laughs": LAUGHS,
    "another file": b'<!DOCTYPE net [<!ENTITY a SYSTEM "file:///etc/passwd">]><net name="&a;" version="11"/>',
    "deep": b"<net>" * DEEP,
}


@pytest.mark.parametrize("name", XMLS)
def test_xml_that_is_no_network(name, ground):
    pytest.importorskip("openvino")
    (ground / "some.xml").write_bytes(XMLS[name])
    outcome = attempt(lambda: opened(ground / "some.xml"), ground, megabytes=4000)
    assert "some.xml" in bounded(outcome)
    assert outcome.grown < 400


PARAMS = {
    "empty": b"",
    "no magic": b"1\n1 1\n",
    "a picture": b"\x89PNG\r\n\x1a\n" + bytes(range(256)),
    "no layers": b"7767517\n0 0\n",
    "layers below 0": b"7767517\n-1 -1\n",
    "a billion layers": b"7767517\n1000000000 1000000000\n",
    "an unknown layer": b"7767517\n1 1\nEvil x 0 1 out0\n",
    "a billion inputs": b"7767517\n1 1\nInput in0 1000000000 1000000000 in0\n",
    "cut off": b"7767517\n2 2\nInput in0 0 1 in0\n",
}


@pytest.mark.parametrize("name", PARAMS)
def test_params_that_are_no_network(name, ground, monkeypatch):
    pytest.importorskip("ncnn")
    monkeypatch.setattr("tempfile.tempdir", str(ground))  # where NCNN's own messages go
    folder = ground / "some_ncnn_model"
    folder.mkdir()
    (folder / "model.ncnn.param").write_bytes(PARAMS[name])
    (folder / "model.ncnn.bin").write_bytes(b"")
    assert "some_ncnn_model" in bounded(attempt(lambda: opened(folder), ground))
