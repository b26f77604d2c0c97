"""How runs of detect.py end: with streams, with Ctrl+C, with a disk that takes nothing."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn

import detect
from engine import predictor
from engine.interruption import StoppedBySignal
from models.runtime_torch import TorchBackend
from tests.utils.loopback import Camera, jpeg, serving
from utils.errors import InputError
from utils.outputs import LabelSink, WindowSink
from utils.video import read_video


class Seer(nn.Module):
    """Finds one box in every picture, and calls `at` with the number of each batch and its size."""

    names = {0: "cat"}
    stride = torch.tensor([8.0, 16, 32])

    def __init__(self, at) -> None:
        super().__init__()
        self.pred = nn.Parameter(torch.tensor([[[20.0, 20, 16, 16, 0.9, 1]]]), requires_grad=False)
        self.at, self.batches = at, 0

    def forward(self, images):
        self.batches += 1
        self.at(self.batches, len(images))
        return self.pred.repeat(len(images), 1, 1), []


@pytest.fixture
def seeing(monkeypatch):
    """seeing(at): the network of the next run."""
    return lambda at=lambda *_: None: monkeypatch.setattr(
        predictor, "load_backend", lambda *_, **__: TorchBackend(Seer(at))
    )


@pytest.fixture
def pictures(tmp_path):
    """Five pictures."""
    (tmp_path / "in").mkdir()
    for number in range(5):
        (tmp_path / "in" / f"{number}.jpg").write_bytes(jpeg(90))
    return tmp_path / "in"


def run(source, project, **options):
    options = {"imgsz": [64], "device": "cpu", "project": project, "save_txt": True, **options}
    return detect.run(weights="w.pt", source=source, **options)


def interrupt_at(wanted: int):
    return lambda number, _: signal.raise_signal(signal.SIGINT) if number == wanted else None


@contextmanager
def plugged(level: int) -> Iterator[Camera]:
    """A camera that shows one grey level."""
    camera = Camera(level)
    try:
        yield camera
    finally:
        camera.unplug()


def test_ctrl_c_in_files_keeps_what_is_done(pictures, seeing, tmp_path, capsys):
    seeing(interrupt_at(3))
    with pytest.raises(StoppedBySignal) as end:
        run(pictures, tmp_path / "runs")
    assert end.value.signum == signal.SIGINT
    assert sorted(file.stem for file in (tmp_path / "runs/exp/labels").iterdir()) == ["0", "1", "2"]
    assert "3 label files in labels" in capsys.readouterr().err


def test_ctrl_c_is_how_streams_end(seeing, tmp_path, capsys):
    sizes = []

    def at(number, batch):
        sizes.append(batch)
        if sizes.count(2) == 3:
            signal.raise_signal(signal.SIGINT)

    seeing(at)
    with plugged(60) as one, plugged(200) as two:
        (tmp_path / "cameras.streams").write_text(f"{one.url}\n{two.url}\n")
        result = run(tmp_path / "cameras.streams", tmp_path / "runs")
    assert result.frames == sum(sizes)
    videos = sorted(result.save_dir.glob("*.mp4"))
    assert len(videos) == 2
    levels = sorted(next(iter(read_video(file))).image.mean() for file in videos)
    assert levels == pytest.approx([60, 200], abs=40)
    assert sum(len(list(read_video(file))) for file in videos) == result.frames
    assert len(list((result.save_dir / "labels").iterdir())) == result.frames
    assert "stream 2/2 (" in capsys.readouterr().err


def test_a_picture_on_the_web(seeing, tmp_path):
    def answer(handler):
        handler.send_response(200)
        handler.send_header("Content-Type", "image/jpeg")
        handler.end_headers()
        handler.wfile.write(jpeg(90))

    seeing()
    with serving(answer) as site:
        result = run(f"{site}/street.jpg", tmp_path / "runs")
    assert {file.name for file in result.save_dir.iterdir()} == {"street.jpg", "labels"}


def test_an_output_that_fails_does_not_cost_the_others(pictures, seeing, tmp_path, monkeypatch, capsys):
    written = LabelSink.write

    def full(sink, found):
        if found.stem == "2":
            raise OSError(28, "No space left on device")
        written(sink, found)

    monkeypatch.setattr(LabelSink, "write", full)
    seeing()
    with pytest.raises(InputError, match="not complete: writing labels of 2; the lines above say why"):
        run(pictures, tmp_path / "runs", save_json=True)
    assert "No space left on device" in capsys.readouterr().err
    run_dir = tmp_path / "runs" / "exp"
    assert sorted(file.stem for file in (run_dir / "labels").iterdir()) == ["0", "1", "3", "4"]
    assert len(list(run_dir.glob("*.jpg"))) == 5
    assert (run_dir / "predictions.json").read_text().count('"bbox"') == 5


def test_closing_the_window_ends_the_run(pictures, seeing, tmp_path, monkeypatch):
    shown = []

    def write(_, found):
        shown.append(found.stem)
        if len(shown) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(WindowSink, "write", write)
    monkeypatch.setattr(WindowSink, "close", lambda _: None)
    monkeypatch.setattr("engine.detector.can_show", lambda: True)
    seeing()
    result = run(pictures, tmp_path / "runs", view_img=True)
    assert shown == ["0", "1"]
    assert result.frames == 2


@pytest.mark.parametrize("number", [1, 5])
def test_a_video_that_is_interrupted_is_whole_up_to_there(seeing, tmp_path, number):
    from utils.video import VideoSink

    with VideoSink(tmp_path / "clip.mp4", fps=10, size_wh=(64, 48)) as sink:
        for _ in range(8):
            sink.write(np.full((48, 64, 3), 90, np.uint8))
    seeing(interrupt_at(number))
    with pytest.raises(StoppedBySignal):
        run(Path(tmp_path / "clip.mp4"), tmp_path / "runs")
    frames = list(read_video(tmp_path / "runs" / "exp" / "clip.mp4"))
    assert len(frames) == number
    assert cv2.cvtColor(frames[0].image, cv2.COLOR_BGR2GRAY).shape == (48, 64)


def test_ctrl_c_before_the_first_frame_of_a_stream_is_not_told_as_a_stream_that_cannot_be_read(tmp_path, monkeypatch):
    def load_backend(*_, **__) -> TorchBackend:
        signal.raise_signal(signal.SIGINT)
        return TorchBackend(Seer(lambda *_: None))

    monkeypatch.setattr(predictor, "load_backend", load_backend)
    with plugged(60) as camera, pytest.raises(StoppedBySignal):
        run(camera.url, tmp_path / "runs")
    assert not (tmp_path / "runs" / "exp").exists()
