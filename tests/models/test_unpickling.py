"""Files that name anything but a checkpoint's classes are refused, and their payload does not run. Each payload here
writes a file: `sentinel` must not be there afterwards."""

import collections
import io
import os
import pickle
import struct
import tarfile
import zipfile

import pytest
import torch
from torch import nn

from models.unpickling import Inert, load_inert
from models.weights import read_checkpoint
from utils.errors import InputError


class Reduced:
    """Pickled as a call of `function`."""

    def __init__(self, function, *args) -> None:
        self.call = (function, args)

    def __reduce__(self):
        return self.call


@pytest.fixture
def sentinel(tmp_path):
    return tmp_path / "ran"


PAYLOADS = {
    "os.system": ("posix.system", lambda file: Reduced(os.system, f"touch {file}")),
    "eval": ("builtins.eval", lambda file: Reduced(eval, f"open({str(file)!r}, 'w')")),
    "exec": ("builtins.exec", lambda file: Reduced(exec, f"open({str(file)!r}, 'w')")),
    "open": ("io.open", lambda file: Reduced(open, str(file), "w")),
    "getattr": ("builtins.getattr", lambda file: Reduced(getattr, "text", "upper")),
    "torch.load": ("torch.serialization.load", lambda file: Reduced(torch.load, str(file))),
    "class": ("pathlib.PosixPath", lambda file: __import__("pathlib").PosixPath(file)),
}
PLACES = {
    "top": lambda payload: payload,
    "model": lambda payload: {"epoch": -1, "model": payload, "ema": None},
    "state dict": lambda payload: {"model": collections.OrderedDict(weight=torch.ones(1), bias=payload)},
    "list in dict": lambda payload: {"state": {"a": [{"b": (1, payload)}]}},
    "key": lambda payload: {"opt": {"name": 1, (payload,): 2}},
}


def refused(file, name: str, sentinel) -> None:
    with pytest.raises(InputError) as caught:
        read_checkpoint(file)
    message = str(caught.value)
    assert "\n" not in message
    assert str(file) in message
    assert name in message
    assert "nothing in the file has been run" in message
    assert not sentinel.exists()


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("payload", PAYLOADS)
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_payloads_are_refused_and_do_not_run(payload, place, zipped, tmp_path, sentinel):
    name, make = PAYLOADS[payload]
    file = tmp_path / "evil.pt"
    torch.save(PLACES[place](make(sentinel)), file, _use_new_zipfile_serialization=zipped)
    refused(file, name, sentinel)


def test_the_payloads_would_run_under_pickle(tmp_path, sentinel):
    pickle.loads(pickle.dumps(Reduced(os.system, f"touch {sentinel}")))
    assert sentinel.exists()


def _zip_of(pickled: bytes, file) -> None:
    """A file as torch.save makes it, with this pickle inside."""
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/version", "3\n")


def test_a_payload_in_the_state_of_an_allowed_class(tmp_path, sentinel, monkeypatch):
    class Conv(nn.Module):
        pass

    Conv.__module__, Conv.__qualname__ = "models.common", "Conv"
    monkeypatch.setattr("models.common.Conv", Conv)
    module = Conv()
    module.extra = Reduced(os.system, f"touch {sentinel}")
    torch.save({"model": module}, tmp_path / "evil.pt")
    monkeypatch.undo()
    refused(tmp_path / "evil.pt", "posix.system", sentinel)


def test_a_reduce_on_an_allowed_class_calls_nothing_of_ours(tmp_path):
    """models.common.autopad(3) as a pickled call: the name is on the list, and still only a stand-in is called."""
    call = b"\x80\x02cmodels.common\nautopad\nK\x03\x85R."
    _zip_of(call, tmp_path / "call.pt")
    content = load_inert(tmp_path / "call.pt")
    assert isinstance(content, Inert)
    assert (type(content).__name__, content.args) == ("autopad", (3,))
    with pytest.raises(InputError, match="no yaml and names"):
        read_checkpoint(tmp_path / "call.pt")


@pytest.mark.parametrize(
    ("build", "word"),
    [
        (b"\x80\x02cmodels.yolo\nModel\n)\x81cposix\nsystem\nb.", "posix.system"),  # BUILD with a function as state
        (b"\x80\x02(iposix\nsystem\n.", "posix.system"),  # INST
        (b"\x80\x02(S'x'\nS'y'\nibuiltins\neval\n.", "builtins.eval"),
        (b"\x80\x02c__builtin__\neval\nX\x01\x00\x00\x001\x85R.", "builtins.eval"),  # Python 2's name
        (b"\x80\x02ctorch.hub\nload\n.", "torch.hub.load"),
        (b"\x80\x02cmodels.common\nos.system\n.", "models.common.os.system"),
        (b"\x80\x02cmodels.experimental\nattempt_load\n.", "models.experimental.attempt_load"),
        (b"\x80\x02cmodels.yolo\nparse_model\n.", "models.yolo.parse_model"),
    ],
)
def test_handmade_pickles_are_refused_by_name(build, word, tmp_path, sentinel):
    _zip_of(build, tmp_path / "evil.pt")
    refused(tmp_path / "evil.pt", word, sentinel)


@pytest.mark.parametrize(
    "pickled",
    [
        b"\x80\x04\x8c\x05posix\x8c\x06system\x93.",  # STACK_GLOBAL: no name that a scan can read
        b"\x80\x02\x82\x01.",  # an extension code
        b"\x80\x02}X\x01\x00\x00\x00aK\x01s",  # no end
        b"\x80\x02cmodels.yolo\nModel\n)\x81}(K\x01K\x02ub}b0.",
        b"",
        b"not a pickle",
    ],
)
def test_other_handmade_pickles_are_refused(pickled, tmp_path):
    _zip_of(pickled, tmp_path / "evil.pt")
    with pytest.raises(InputError, match="evil.pt"):
        read_checkpoint(tmp_path / "evil.pt")


def test_a_plain_pickle_under_the_name_of_a_checkpoint(tmp_path, sentinel):
    (tmp_path / "evil.pt").write_bytes(pickle.dumps(Reduced(os.system, f"touch {sentinel}"), protocol=2))
    refused(tmp_path / "evil.pt", "posix.system", sentinel)


def test_the_tar_format_of_old_torch(tmp_path, sentinel):
    """torch < 0.2 wrote a tar of pickles; torch.load does not open it safely, so it is refused as a whole."""
    with tarfile.open(tmp_path / "evil.pt", "w") as archive:
        for name in ("sys_info", "storages", "tensors", "pickle"):
            content = pickle.dumps(Reduced(os.system, f"touch {sentinel}"), protocol=2)
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    with pytest.raises(InputError, match="cannot be read as a file of weights"):
        read_checkpoint(tmp_path / "evil.pt")
    assert not sentinel.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello, I am a text file\n",
        b"epochs: 3\n",
        b"<html>404</html>",
        struct.pack("<9d", *range(9)),
        b"PK\x03\x04",
    ],
)
def test_files_that_are_something_else(content, tmp_path):
    (tmp_path / "file.pt").write_bytes(content)
    with pytest.raises(
        InputError, match=r"file.pt cannot be read as a file of weights: it is no whole, plain file"
    ) as told:
        read_checkpoint(tmp_path / "file.pt")
    assert not {"101", "weights_only"} & set(str(told.value).replace("`", " ").split())


def test_a_missing_file_and_a_directory(tmp_path):
    for path in (tmp_path / "none.pt", tmp_path):
        with pytest.raises(InputError, match="there is no file"):
            read_checkpoint(path)


def test_a_mistyped_file_is_told_with_the_one_that_is_there(tmp_path):
    (tmp_path / "best.pt").touch()
    with pytest.raises(InputError, match=r"there is no file .*bset\.pt \(did you mean .*best\.pt\?\)"):
        read_checkpoint(tmp_path / "bset.pt")


@pytest.mark.parametrize("keep", [0.99, 0.5, 0.1, 0.001])
def test_a_truncated_download(keep, tmp_path, shared):
    whole = shared("weights/yolov5n.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(whole[: int(len(whole) * keep)])
    with pytest.raises(InputError, match="cut.pt"):
        read_checkpoint(tmp_path / "cut.pt")


def test_a_torchscript_export_is_told_apart(tmp_path):
    torch.jit.trace(nn.ReLU(), torch.ones(1)).save(tmp_path / "model.pt")
    with pytest.raises(InputError, match="TorchScript export"):
        read_checkpoint(tmp_path / "model.pt")


def test_public_checkpoints_name_exactly_what_is_allowed(shared, golden_json):
    """All their globals pass, and what is no tensor, text or number is inert."""
    for name, facts in golden_json("checkpoint_facts").items():
        content = load_inert(shared(f"weights/{name}"))
        assert list(content) == list(facts["top_level_keys"])
        assert isinstance(content["model"], Inert)
        assert not isinstance(content["model"], nn.Module)
        assert content["model"].state["nc"] == facts["nc"]
