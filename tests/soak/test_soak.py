"""Hours of work in minutes: the scripts over more pictures, frames and streams than any other test, and memory that
does not grow with them. `make soak` runs these, `make test` does not. Pictures, network (yolov5n with dynamic
convolution, untrained) and image size are the smallest that go the whole way: what grows does so with their number."""

import os
import re
import signal
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from subprocess import Popen

import cv2
import numpy as np
import pytest

from benchmarks.serve import Clients
from tests.soak.memory_watch import ALLOWED, ROOT, Watched, lines_done, needs_proc, time_done, watch
from tests.utils.loopback import Camera

pytestmark = [pytest.mark.soak, needs_proc]

PICTURES = 10_000
VIDEO_FPS, VIDEO_S = 2, 3600
LABELLED, DETECTIONS, BATCH = 5_000, 300, 10
STREAMS, STREAMING_S = 8, 180
REQUESTS, CLIENTS = 20_000, 16
SIZE_HW = (64, 96)
# A mean average precision takes every detection's confidence and class (2 float32) and at which of 10 IoUs it matches,
# until the end: that much is allowed to val.py.
BYTES_A_DETECTION = 2 * 4 + 10


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    from models.weights import save_checkpoint
    from models.yolo import DetectionModel

    file = tmp_path_factory.mktemp("weights") / "tiny.pt"
    save_checkpoint(file, model=DetectionModel("yolov5n_dynamic.yaml", nc=2, names=["circle", "square"]), epoch=0)
    return file


def make_pictures(folder: Path, count: int) -> None:
    """So many pictures of noise under names of their own; few different ones, as links."""
    folder.mkdir(parents=True)
    rng, different = np.random.default_rng(0), 16
    for number in range(count):
        file = folder / f"{number:05}.jpg"
        if number < different:
            cv2.imwrite(str(file), rng.integers(0, 255, (*SIZE_HW, 3), dtype=np.uint8))
        else:
            os.link(folder / f"{number % different:05}.jpg", file)


def assert_flat(watched: Watched, what: str, *, allowed: int = ALLOWED) -> None:
    print(f"\nSOAK {what}: {watched.summary()}")
    assert watched.growth < allowed, f"{what}: {watched.summary()}"


def detecting(weights: Path, source: object, *more: object) -> list[object]:
    return [
        *(ROOT / "detect.py", "--weights", weights, "--source", source, "--imgsz", 64, "--device", "cpu"),
        *("--conf-thres", 0.2, "--project", "out", "--save-txt", *more),
    ]


def requests_done(log: Path, clients: list[Clients], picture: bytes) -> Callable[[], float]:
    """A function that tells the share of the requests that are answered. Its first call that finds the address in the
    log sends them off, from threads, and appends the clients."""

    def share() -> float:
        if not clients and (found := re.search(r"http://([\d.:]+)", log.read_text(errors="replace"))):
            clients.append(Clients(found[1], picture, CLIENTS))
            threading.Thread(target=clients[0].ask, args=(REQUESTS,), daemon=True).start()
        return len(clients[0].latencies) / REQUESTS if clients else 0.0

    return share


def test_detecting_in_many_pictures(tmp_path, weights):
    make_pictures(tmp_path / "in", PICTURES)
    log = tmp_path / "log"
    arguments = detecting(weights, "in", "--conf-thres", 0, "--max-det", 10)
    watched = watch(arguments, log=log, share_done=lines_done(log, r"image (\d+)/(\d+) "))
    assert watched.code == 0, watched.told[-2000:]
    assert len(list((tmp_path / "out" / "exp").glob("*.jpg"))) == PICTURES
    assert len(list((tmp_path / "out" / "exp" / "labels").iterdir())) == PICTURES
    assert_flat(watched, f"detect.py, {PICTURES} pictures")


def test_detecting_in_an_hour_of_video(tmp_path, weights):
    """3600 s as few and small frames: what grows with a video's length grows with its frames."""
    from utils.video import VideoSink, read_video

    rng, frames = np.random.default_rng(0), VIDEO_FPS * VIDEO_S
    with VideoSink(tmp_path / "hour.mp4", fps=VIDEO_FPS, size_wh=SIZE_HW[::-1]) as sink:
        for _ in range(frames):
            sink.write(rng.integers(0, 255, (*SIZE_HW, 3), dtype=np.uint8))
    log = tmp_path / "log"
    arguments = detecting(weights, "hour.mp4", "--conf-thres", 0, "--max-det", 10)
    watched = watch(arguments, log=log, share_done=lines_done(log, r"video 1/1 \((\d+)/(\d+)\)"))
    assert watched.code == 0, watched.told[-2000:]
    (made,) = (tmp_path / "out" / "exp").glob("*.mp4")
    last = max(frame.seconds for frame in read_video(made, stride=VIDEO_FPS))
    assert last == pytest.approx(VIDEO_S, abs=2)
    assert_flat(watched, f"detect.py, a video of {VIDEO_S} s in {frames} frames")


def test_validating_with_many_detections(tmp_path, weights):
    make_pictures(tmp_path / "images", LABELLED)
    (tmp_path / "labels").mkdir()
    for number in range(LABELLED):
        (tmp_path / "labels" / f"{number:05}.txt").write_text("0 .5 .5 .2 .2\n1 .2 .3 .1 .1\n")
    (tmp_path / "data.yaml").write_text("path: .\ntrain: images\nval: images\nnames: [circle, square]\n")
    log = tmp_path / "log"
    arguments = [
        *(ROOT / "val.py", "--weights", weights, "--data", tmp_path / "data.yaml", "--imgsz", 64, "--device", "cpu"),
        *("--conf-thres", 0, "--iou-thres", 1, "--max-det", DETECTIONS, "--batch-size", BATCH, "--workers", 1),
        *("--project", "out", "--save-txt"),
    ]
    watched = watch(arguments, log=log, share_done=lines_done(log, rf" (\d+)/({LABELLED // BATCH}) \["))
    assert watched.code == 0, watched.told[-2000:]
    found = list((tmp_path / "out" / "exp" / "labels").iterdir())
    assert len(found) == LABELLED
    assert len(found[-1].read_text().splitlines()) == DETECTIONS
    kept = BYTES_A_DETECTION * DETECTIONS * LABELLED // 2  # from the middle of the 2nd quarter to that of the 4th
    assert_flat(watched, f"val.py, {LABELLED} images of {DETECTIONS} detections", allowed=ALLOWED + kept)


def test_detecting_in_streams(tmp_path, weights):
    with ExitStack() as cameras:
        urls = []
        for number in range(STREAMS):
            camera = Camera(level=20 * number)
            cameras.callback(camera.unplug)
            urls.append(camera.url)
        (tmp_path / "cameras.txt").write_text("\n".join(urls))
        log = tmp_path / "log"
        arguments = detecting(weights, "cameras.txt")
        stop = lambda process: process.send_signal(signal.SIGINT)  # noqa: E731
        watched = watch(arguments, log=log, share_done=time_done(log, STREAMING_S, "no detections"), stop=stop)
    assert watched.code == 0, watched.told[-2000:]
    for number in range(1, STREAMS + 1):  # all of them to the end, none connected twice
        assert watched.told[-20_000:].count(f"stream {number}/{STREAMS}") > 1
        assert watched.told.count(f"stream {number}/{STREAMS} {urls[number - 1]}: connected") == 1
    assert len(list((tmp_path / "out" / "exp").glob("*.mp4"))) == STREAMS
    assert_flat(watched, f"detect.py, {STREAMS} streams for {STREAMING_S} s")


def test_serving(tmp_path, weights):
    make_pictures(tmp_path / "in", 1)
    log, clients = tmp_path / "log", []
    arguments = [ROOT / "serve.py", "--weights", weights, "--imgsz", 64, "--device", "cpu", "--port", 0]
    share_done = requests_done(log, clients, (tmp_path / "in" / "00000.jpg").read_bytes())
    watched = watch(arguments, log=log, share_done=share_done, stop=Popen.terminate)
    assert watched.code == 0, watched.told[-2000:]
    assert clients[0].lost == 0
    assert_flat(watched, f"serve.py, {REQUESTS} requests, {CLIENTS} at a time")
