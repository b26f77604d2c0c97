"""Hostile and broken files of weights: refused in one sentence, nothing run, nothing written, memory bounded. The
payloads that tests/models/test_unpickling.py tries in this process are tried there; here it is whole files."""

import builtins
import collections
import io
import os
import pickle
import struct
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch

from models.weights import build_model, read_checkpoint, save_checkpoint
from models.yolo import DetectionModel
from tests.hostile.child import attempt, bounded
from utils.files import ROOT

MODEL = b"cmodels.yolo\nModel\n"
TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n"


class Call:
    """Pickled as a call."""

    def __init__(self, function, *args) -> None:
        self.call = function, args

    def __reduce__(self):
        return self.call


class Built:
    """Pickled as a call whose result then gets a state: BUILD, and so __setstate__."""

    def __init__(self, function, *args, state) -> None:
        self.call = function, args, state

    def __reduce__(self):
        return self.call


CALLS = {
    "os.system": lambda canary: Call(os.system, f"touch {canary}"),
    "os.popen": lambda canary: Call(os.popen, f"touch {canary}"),
    "eval": lambda canary: Call(eval, f"open({str(canary)!r}, 'w')"),
    "exec": lambda canary: Call(exec, f"open({str(canary)!r}, 'w')"),
    "compile": lambda canary: Call(compile, "1", "a", "eval"),
    "import": lambda canary: Call(__import__, "antigravity"),
    "subprocess": lambda canary: Call(subprocess.Popen, ["touch", str(canary)]),
    "check_output": lambda canary: Call(subprocess.check_output, ["touch", str(canary)]),
    "mkdir": lambda canary: Call(os.mkdir, str(canary)),
    "unlink": lambda canary: Call(os.unlink, __file__),
    "touch": lambda canary: Call(Path.touch, Path(canary)),
    "getattr chain": lambda canary: Call(getattr, Call(__import__, "os"), "system"),
    "setstate": lambda canary: Built(collections.OrderedDict, state=Call(os.system, f"touch {canary}")),
    "class state": lambda canary: {
        "model": Built(torch.Size, state={"__reduce__": Call(os.system, f"touch {canary}")})
    },
    "torch.load": lambda canary: Call(torch.load, str(canary)),
    "torch.hub": lambda canary: Call(torch.hub.download_url_to_file, "http://localhost:9/x", str(canary)),
    "builtins": lambda canary: Call(builtins.open, str(canary), "w"),
    "zip": lambda canary: Call(zipfile.ZipFile, str(canary), "w"),
}


def tried(file: Path, ground: Path, **limits) -> str:
    return bounded(attempt(lambda: build_model(read_checkpoint(file)), ground, **limits))


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("place", ["in a state dict", "in the optimizer of ours", "legacy"])
def test_calls_are_refused(name, place, ground, canary):
    payload = CALLS[name](canary)
    content = {"model": collections.OrderedDict(weight=torch.ones(2), bias=payload)}
    if place == "in the optimizer of ours":
        content = {"format": "yolov5-dynamic", "version": 1, "training": {"optimizer": {"state": {0: payload}}}}
    torch.save(content, ground / "evil.pt", _use_new_zipfile_serialization=place != "legacy")
    assert "evil.pt" in tried(ground / "evil.pt", ground)
    assert not canary.exists()


# ------------------------------------------------------------------------------------------------- archives by hand
def archive(file: Path, pickled: bytes, members: dict[str, bytes] | None = None, *, packing=zipfile.ZIP_STORED) -> None:
    """A file as torch.save makes it, with this pickle inside."""
    with zipfile.ZipFile(file, "w", packing) as stream:
        stream.writestr("archive/data.pkl", pickled)
        stream.writestr("archive/version", "3\n")
        stream.writestr("archive/byteorder", "little")
        for name, content in (members or {}).items():
            stream.writestr(name, content)


def storage(elements: int, *, kind: bytes = b"FloatStorage", key: bytes = b"0") -> bytes:
    """A pickled reference to so many elements in the archive's member data/<key>."""
    return (
        b"("
        + b"X\x07\0\0\0storagectorch\n"
        + kind
        + b"\nX\x01\0\0\0"
        + key
        + b"X\x03\0\0\0cpu"
        + number(elements)
        + b"tQ"
    )


def number(value: int) -> bytes:
    content = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(content)]) + content


def tensor(elements: int, size: tuple[int, ...], stride: tuple[int, ...], offset: int = 0) -> bytes:
    sizes = b"".join([b"(", *map(number, size), b"t", b"(", *map(number, stride), b"t"])
    return TENSOR + b"(" + storage(elements) + number(offset) + sizes + b"\x89ccollections\nOrderedDict\n)Rt" + b"R"


def state_dict(value: bytes, names: int = 1) -> bytes:
    """{"a": value, "b": the same object, ...}"""
    entries = b"".join(text(f"n{i}") + (value + b"q\x01" if i == 0 else b"h\x01") for i in range(names))
    return b"\x80\x02}(" + entries + b"u."


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def network_of(classes: bytes) -> bytes:
    """A network whose YAML has this value as nc."""
    described = text("yaml") + b"}" + text("nc") + classes + b"s" + text("names") + b"]"
    return b"\x80\x02}" + text("model") + MODEL + b")\x81}(" + described + b"ubs."


def doubled_lists(levels: int) -> bytes:
    """[[...], [...]] so many levels deep, each of whose two halves is the same list."""
    made = b"]q\x00"
    for level in range(1, levels):
        made += b"]q" + bytes([level]) + (b"h" + bytes([level - 1]) + b"a") * 2
    return made


FOUR_BYTES = {"archive/data/0": b"\0\0\x80?"}
HANDMADE = {
    "a tensor beyond its storage": (state_dict(tensor(1, (10**9,), (1,))), FOUR_BYTES),
    "a tensor of one repeated value": (state_dict(tensor(1, (10**11,), (0,))), FOUR_BYTES),
    "a tensor in many dimensions": (state_dict(tensor(1, (10**4,) * 4, (0,) * 4)), FOUR_BYTES),
    "a negative size": (state_dict(tensor(1, (-1,), (1,))), FOUR_BYTES),
    "a negative offset": (state_dict(tensor(1, (1,), (1,), -5)), FOUR_BYTES),
    "a far offset": (state_dict(tensor(1, (1,), (1,), 2**60)), FOUR_BYTES),
    "a storage that claims terabytes": (state_dict(tensor(2**42, (1,), (1,))), FOUR_BYTES),
    "a storage that is missing": (state_dict(tensor(1, (1,), (1,))), {}),
    "a storage with a path for a key": (
        state_dict(tensor(1, (1,), (1,)).replace(b"X\x01\0\0\x000", text("../../canary"))),
        FOUR_BYTES,
    ),
    "lists of lists of lists": (b"\x80\x02}" + text("model") + doubled_lists(40) + b"s.", {}),
    "a dict in itself": (b"\x80\x02}q\x00" + text("model") + b"h\x00s.", {}),
    "a network in itself": (
        b"\x80\x02}"
        + text("model")
        + MODEL
        + b")\x81q\x00}("
        + text("yaml")
        + b"}"
        + text("names")
        + b"]"
        + text("_modules")
        + b"}"
        + text("a")
        + b"h\x00su"
        + b"bs.",
        {},
    ),
    "a network of a billion classes": (network_of(number(10**12)), {}),
    "classes that are no number": (network_of(text("80")), {}),
    "names with texts as numbers": (
        b"\x80\x02}"
        + text("model")
        + MODEL
        + b")\x81}("
        + text("yaml")
        + b"}"
        + text("names")
        + b"}"
        + text("x")
        + text("y")
        + b"subs.",
        {},
    ),
    "lists 100,000 deep": (b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".", {}),
    "tuples 100,000 deep": (b"\x80\x02)" + b"\x85" * 100_000 + b".", {}),
    "a text that claims 4 GB": (b"\x80\x02X\xff\xff\xff\xffabc", {}),
    "a text that claims exabytes": (b"\x80\x04\x8d" + b"\xff" * 7 + b"\x7fabc", {}),
    "a number of a million digits": (b"\x80\x02\x8b" + struct.pack("<i", 2**20) + b"\x7f" * 2**20 + b".", {}),
    "slow codecs": (
        b"\x80\x02c_codecs\nencode\n(" + text("\u00e9x" * 5) + text("idna") + b"tR.",
        {},
    ),
    "marks without an end": (b"\x80\x02" + b"(" * 100_000, {}),
    "pops of an empty stack": (b"\x80\x020000.", {}),
    "a set of lists": (b"\x80\x02c__builtin__\nset\n(]]atR.", {}),
    "a memo of 4 billion": (b"\x80\x02]r\xff\xff\xff\xffj\xff\xff\xff\xff.", {}),
    "append to the network": (b"\x80\x02" + MODEL + b")\x81K\x01a.", {}),
    "items of the network": (b"\x80\x02" + MODEL + b")\x81K\x01K\x02s.", {}),
    "a class instead of an object": (b"\x80\x02}" + text("model") + MODEL + b"s.", {}),
    "dunder names": (b"\x80\x02cmodels.common\n__builtins__\n.", {}),
    "a name with dots": (b"\x80\x02cmodels.common\ntorch.os.system\n(" + text("id") + b"tR.", {}),
    "a persistent name": (b"\x80\x02P../../canary\n.", {}),
    "an extension": (b"\x80\x02\x84\xff\xff\xff\x7f.", {}),
    "two million marks": (b"\x80\x02" + b"N0" * 1_500_000 + b".", {}),
}


@pytest.mark.parametrize("name", HANDMADE)
def test_handmade_archives_are_refused(name, ground, canary):
    pickled, members = HANDMADE[name]
    archive(ground / "evil.pt", pickled, members)
    outcome = attempt(lambda: build_model(read_checkpoint(ground / "evil.pt")), ground)
    assert "evil.pt" in bounded(outcome)
    assert outcome.grown < 300


@pytest.mark.parametrize(
    "name",
    ["../canary", "../../canary", "/canary", "..\\canary", "archive/../../canary", "archive/data/../../../canary"],
)
def test_names_that_lead_out_of_an_archive_write_nothing(name, ground, canary):
    archive(ground / "evil.pt", state_dict(tensor(1, (1,), (1,))), {**FOUR_BYTES, name: b"I was here"})
    bounded(attempt(lambda: build_model(read_checkpoint(ground / "evil.pt")), ground))
    assert [path.name for path in ground.iterdir()] == ["evil.pt"]


@pytest.mark.parametrize("member", ["archive/data/0", "archive/data.pkl", "archive/extra"])
@pytest.mark.parametrize("packing", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_zip_bombs(member, packing, ground):
    """64 MB of zeros in a file of some kilobytes."""
    with zipfile.ZipFile(ground / "bomb.pt", "w", packing) as stream:
        for name in {"archive/data.pkl", "archive/version", member}:
            stream.writestr(name, b"\0" * 2**26 if name == member else state_dict(tensor(2**24, (2**24,), (1,))))
    outcome = attempt(lambda: read_checkpoint(ground / "bomb.pt"), ground)
    assert "would unpack to" in bounded(outcome)
    assert outcome.grown < 30


def test_a_zip_whose_directory_lies_about_sizes(ground):
    archive(ground / "liar.pt", b"\x80\x02}.", {"archive/data/0": b"\0" * 100})
    content = bytearray((ground / "liar.pt").read_bytes())
    at = content.rfind(b"PK\x01\x02")
    content[at + 20 : at + 28] = struct.pack("<II", 2**31, 2**31)
    (ground / "liar.pt").write_bytes(content)
    assert "would unpack to" in tried(ground / "liar.pt", ground)


def test_a_nested_zip_and_an_encrypted_one(ground):
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as stream:
        stream.writestr("archive/data.pkl", b"\x80\x02}.")
    archive(ground / "nested.pt", inner.getvalue())
    tried(ground / "nested.pt", ground)
    archive(ground / "locked.pt", b"\x80\x02}.")
    marked = bytearray((ground / "locked.pt").read_bytes())
    marked[6] |= 1  # the flag of encryption in each header
    marked[marked.find(b"PK\x01\x02") + 8] |= 1
    (ground / "locked.pt").write_bytes(marked)
    tried(ground / "locked.pt", ground)


@pytest.mark.parametrize("member", ["pickle", "storages", "tensors", "sys_info", "../canary", "/canary"])
def test_the_tar_format_of_torch_0_1(member, ground, canary):
    with tarfile.open(ground / "old.pt", "w") as stream:
        for name in {"sys_info", "storages", "tensors", "pickle", member}:
            content = pickle.dumps(Call(os.system, f"touch {canary}") if name == member else {}, protocol=2)
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            stream.addfile(entry, io.BytesIO(content))
    assert "old.pt" in tried(ground / "old.pt", ground)


def test_a_tar_with_links(ground, canary):
    with tarfile.open(ground / "links.pt", "w") as stream:
        for name, kind, target in (("pickle", tarfile.SYMTYPE, "/etc/passwd"), ("storages", tarfile.LNKTYPE, "pickle")):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, target
            stream.addfile(entry)
    tried(ground / "links.pt", ground)


# --------------------------------------------------------------------------------------------- broken, and of ours
@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> bytes:
    """A small checkpoint of ours."""
    file = tmp_path_factory.mktemp("whole") / "whole.pt"
    save_checkpoint(file, model=DetectionModel(ROOT / "models/yolov5n.yaml", nc=2))
    return file.read_bytes()


@pytest.mark.parametrize("keep", [0, 1, 4, 30, 1000, 0.25, 0.5, 0.9, 0.999])
def test_a_checkpoint_that_was_cut_off(keep, whole, ground):
    kept = int(len(whole) * keep) if isinstance(keep, float) else keep
    (ground / "cut.pt").write_bytes(whole[:kept])
    assert "cut.pt" in tried(ground / "cut.pt", ground)


@pytest.mark.parametrize("at", [0.0, 0.001, 0.01, 0.3, 0.97, 0.995])
def test_a_checkpoint_with_bytes_overwritten(at, whole, ground):
    """It is refused, or, where the bytes are weights alone, read."""
    damaged = bytearray(whole)
    start = int(len(whole) * at)
    damaged[start : start + 64] = b"\xff" * 64
    (ground / "damaged.pt").write_bytes(damaged)
    bounded(attempt(lambda: read_checkpoint(ground / "damaged.pt").source, ground), ends=("refused", "returned"))


WHOLE = {"format": "yolov5-dynamic", "version": 1, "yaml": {}, "names": {}, "state": {}, "info": {}, "training": None}
ROWS = {"nc": 1, "depth_multiple": 1, "width_multiple": 1, "anchors": 3, "backbone": [], "head": []}


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"version": 2},
        {"version": "1"},
        {"version": None},
        {"yaml": None},
        {"yaml": []},
        {"yaml": {"nc": 10**12}},
        {"yaml": {**ROWS, "backbone": [[-1, 10**9, "Conv", [8]]]}},
        {"yaml": {**ROWS, "backbone": [[-1, 1, "os.system", ["id"]]]}},
        {"yaml": {**ROWS, "ch": -1}},
        {"yaml": {**ROWS, "ch": "__import__('os')"}},
        {"yaml": "models/yolov5n.yaml"},
        {"names": None},
        {"names": ["a"]},
        {"names": {"a": 1}},
        {"state": None},
        {"state": {"a": 1}},
        {"info": None},
        {"info": [1]},
    ],
    ids=str,
)
def test_checkpoints_of_ours_with_wrong_parts(change, ground):
    content = {**WHOLE, "state": {"a": torch.ones(1)}, "yaml": {**ROWS}, **change}
    torch.save(content, ground / "wrong.pt")
    tried(ground / "wrong.pt", ground)


def test_devices_and_pipes(ground):
    os.mkfifo(ground / "pipe.pt")
    (ground / "zero.pt").symlink_to("/dev/zero")
    (ground / "loop.pt").symlink_to("loop.pt")
    (ground / "folder.pt").mkdir()
    for name in ("pipe.pt", "zero.pt", "loop.pt", "folder.pt", "x" * 300 + ".pt"):
        tried(ground / name, ground)
