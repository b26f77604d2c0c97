"""docs/troubleshooting.md quotes what is really said: each sentence of ours in it is provoked here."""

import asyncio
import json
import pickle
import re
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

import detect
import train
from engine.faults import sentence_about
from engine.training_epoch import MAX_LOST_IN_ROW
from models.weights import read_checkpoint
from tests.conftest import ROOT
from utils.errors import InputError
from utils.outputs import can_show

PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
SECTIONS = {int(number): text for number, text in re.findall(r"^### (\d+)\. (.*?)(?=^###? |\Z)", PAGE, re.M | re.S)}


def quoted(number: int) -> re.Pattern[str]:
    """The sentence of ours in a section, … standing for anything."""
    sentence = re.search(r"```text\n(.*?)\n```", SECTIONS[number], re.S)[1]
    return re.compile(
        "^" + ".*".join(map(re.escape, sentence.split("…"))) + (".*" if sentence[-1] == "…" else ""), re.S
    )


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A working directory with a data set of a picture each, and my.yaml."""
    for split in ("train", "val"):
        for folder in ("images", "labels"):
            (tmp_path / folder / split).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "images" / split / "a.jpg"), np.full((64, 64, 3), 90, np.uint8))
        (tmp_path / "labels" / split / "a.txt").write_text("0 .5 .5 .3 .3\n")
    (tmp_path / "my.yaml").write_text("train: images/train\nval: images/val\nnames: [a, b]\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def trained(**options):
    small = {"data": "my.yaml", "cfg": "yolov5n.yaml", "imgsz": 64, "epochs": 1, "workers": 0, "device": "cpu"}
    train.run(**small | {"noplots": True, "loggers": [], "project": "runs"} | options)


def labelled(line: str) -> Callable[[Path], None]:
    def act(place: Path) -> None:
        (place / "labels" / "train" / "a.txt").write_text(line)
        trained()

    return act


def dataset_not_found(place: Path) -> None:
    (place / "my.yaml").write_text("path: nowhere\ntrain: images/train\nval: images/val\nnames: [a, b]\n")
    trained()


def other_encoding(place: Path) -> None:
    (place / "my.yaml").write_bytes("train: images/train\nval: images/val\nnames: [猫, 狗]\n".encode("gbk"))
    trained()


def foreign_class(place: Path) -> None:
    class Stranger:
        pass

    Stranger.__module__, Stranger.__qualname__ = __name__, "Stranger"
    sys.modules.setdefault(__name__, SimpleNamespace()).Stranger = Stranger
    torch.save({"model": Stranger()}, place / "foreign.pt", pickle_module=pickle)
    read_checkpoint(place / "foreign.pt")


def model_yaml(old: str, new: str) -> Callable[[Path], None]:
    def act(place: Path) -> None:
        text = (ROOT / "models" / "yolov5n.yaml").read_text(encoding="utf-8")
        assert old in text
        (place / "model.yaml").write_text(text.replace(old, new, 1))
        trained(cfg="model.yaml")

    return act


def taken_port(place: Path) -> None:
    pytest.importorskip("uvicorn", reason="needs requirements-serve.txt")
    from engine.server import listening

    with socket.create_server(("127.0.0.1", 0)) as other:
        listening("127.0.0.1", other.getsockname()[1])


PROVOKED = {
    1: dataset_not_found,
    2: labelled(""),
    3: labelled("5 .5 .5 .3 .3\n"),
    4: labelled("0 250 120 40 60\n"),
    5: other_encoding,
    6: lambda place: detect.run(weights=str(ROOT / "README.md"), source="nowhere.jpg"),
    7: lambda place: trained(weights="yolov5s.pt"),
    8: foreign_class,
    15: model_yaml("Conv, [512, 1, 1]", "DynamicConv, [512, 1, 1]"),
    16: model_yaml("[[-1, 6], 1, Concat", "[[-1, 4], 1, Concat"),
    18: lambda place: trained(device="63"),
    25: taken_port,
}


@pytest.mark.parametrize("number", PROVOKED)
def test_bad_input_ends_with_the_sentence(number, place):
    with pytest.raises(InputError) as caught:
        PROVOKED[number](place)
    assert quoted(number).match(str(caught.value)), str(caught.value)


@pytest.mark.slow
def test_a_finished_run_says_how_to_extend_it(place):
    trained(name="done")
    with pytest.raises(InputError) as caught:
        train.run(resume="runs/done")
    assert quoted(23).match(str(caught.value)), str(caught.value)


@pytest.mark.parametrize(
    ("number", "error"),
    [
        (19, torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")),
        (20, RuntimeError("DataLoader worker (pid(s) 1234) exited unexpectedly")),
    ],
)
def test_what_befalls_a_training_is_told(number, error):
    """Of a training that is invented: its memory cannot be used up here."""
    state = SimpleNamespace(
        device=torch.device("cpu"),
        opt=SimpleNamespace(batch_size=16, imgsz=640, quad=False, cache=None),
        progress=SimpleNamespace(epoch=1, batches=5),
        resumable=None,
        train_loader=SimpleNamespace(num_workers=8),
    )
    told = sentence_about(error, state)
    assert quoted(number).match(told), told


def test_the_number_of_lost_batches_is_right():
    assert f"{MAX_LOST_IN_ROW} batches in a row had no finite loss or gradient" in SECTIONS[21]
    assert "batches in a row had no finite loss or gradient" in (ROOT / "engine" / "training_epoch.py").read_text()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="whether there is a display, Linux tells by DISPLAY")
def test_a_window_that_cannot_be_shown_is_left_out(monkeypatch, caplog):
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    with caplog.at_level("WARNING"):
        assert not can_show()
    assert quoted(24).match(caplog.records[-1].getMessage())


def test_a_request_that_is_too_large_is_told():
    from engine.service_form import read_form
    from engine.service_limits import Limits, ServiceError, UploadMemory

    async def chunks():
        yield b"--X\r\n" + bytes(100)

    with UploadMemory(1000).share() as share, pytest.raises(ServiceError) as refused:
        asyncio.run(read_form("multipart/form-data; boundary=X", chunks(), Limits(bytes=10), share))
    assert refused.value.status == 413
    assert quoted(26).match(refused.value.told), refused.value.told


@pytest.mark.parametrize(
    ("number", "status", "headers"),
    [
        (27, 403, [(b"host", b"localhost:8000"), (b"origin", b"https://other.example")]),
        (28, 400, [(b"host", b"detect.example.org")]),
    ],
)
def test_a_request_from_elsewhere_is_told(number, status, headers):
    pytest.importorskip("anyio", reason="needs requirements-serve.txt")
    from engine.service_guard import LOOPBACK, Guard

    sent = []

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/v1/detect", "headers": headers}
    asyncio.run(Guard(None, allowed_hosts=LOOPBACK)(scope, receive, send))
    told = json.loads(sent[1]["body"])["error"]
    assert sent[0]["status"] == status
    assert str(status) in SECTIONS[number].splitlines()[0]
    assert quoted(number).match(told), told


def test_every_sentence_is_provoked():
    with_sentence = {number for number, text in SECTIONS.items() if "```text" in text}
    assert len(SECTIONS) >= 20
    assert with_sentence == {*PROVOKED, 19, 20, 21, 23, 24, 26, 27, 28}
