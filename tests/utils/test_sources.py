import threading

import cv2
import numpy as np
import pytest

from tests.utils.loopback import Camera, head, jpeg, serving
from utils import sources
from utils.errors import InputError
from utils.media_files import FileSource
from utils.sources import open_source
from utils.streams import StreamReader, StreamSource
from utils.video import VideoSink
from utils.web_files import WebFileSource


def video(file, frames=5):
    with VideoSink(file, fps=10, size_wh=(64, 48)) as sink:
        for _ in range(frames):
            sink.write(np.zeros((48, 64, 3), np.uint8))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working directory: pictures, a video, lists, and things that are called like other sources."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.jpg", "img[1].jpg", "数字 é.jpg", "7/b.jpg", "screen/c.jpg", "sub[1]/d.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(jpeg(100))
    video(tmp_path / "v.mp4")
    lists = {
        "files.txt": "a.jpg\n\n 数字 é.jpg \nmissing.jpg\n",
        "streams.txt": "rtsp://127.0.0.1/a\n0\nhttp://127.0.0.1/b\n",
        "web.txt": "http://127.0.0.1:1/a.jpg\nhttps://127.0.0.1:1/a.mp4\n",
        "all.streams": "rtsp://127.0.0.1/a\nhttp://127.0.0.1:1/a.mp4\n1\n",
        "mixed.txt": "a.jpg\nrtsp://user:secret@127.0.0.1/a\n",
        "mixed.streams": "0\na.jpg\n",
        "empty.txt": " \n",
        "empty.streams": "",
        "local.txt": "file:///etc/hostname\n",
    }
    for name, text in lists.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(
    ("source", "kind", "names"),
    [
        (".", FileSource, "a.jpg img[1].jpg 数字_é.jpg v.mp4"),
        ("a.jpg", FileSource, "a.jpg"),
        (" a.jpg ", FileSource, "a.jpg"),
        ("img[1].jpg", FileSource, "img[1].jpg"),
        ("sub[1]", FileSource, "d.jpg"),
        ("*.jpg", FileSource, "a.jpg img[1].jpg 数字_é.jpg"),
        ("数*", FileSource, "数字_é.jpg"),
        ("v.mp4", FileSource, "v.mp4"),
        ("7", FileSource, "b.jpg"),
        ("screen", FileSource, "c.jpg"),
        ("files.txt", FileSource, "a.jpg 数字_é.jpg missing.jpg"),
        ("0", StreamSource, "0"),
        ("rtsp://user:word@127.0.0.1:554/a?b", StreamSource, "rtsp_127_0_0_1_554_a"),
        ("RTMP://127.0.0.1/a", StreamSource, "RTMP_127_0_0_1_a"),
        ("http://127.0.0.1:1/a", StreamSource, "http_127_0_0_1_1_a"),
        ("https://127.0.0.1:1/a.m3u8", StreamSource, "https_127_0_0_1_1_a_m3u8"),
        ("streams.txt", StreamSource, "rtsp_127_0_0_1_a 0 http_127_0_0_1_b"),
        ("all.streams", StreamSource, "rtsp_127_0_0_1_a http_127_0_0_1_1_a_mp4 1"),
        ("web.txt", WebFileSource, "a.jpg a.mp4"),
    ],
)
def test_what_a_source_means(folder, source, kind, names):
    with open_source(source) as opened:
        assert type(opened) is kind
        assert sorted(path.name.replace(" ", "_") for path in opened.paths) == sorted(names.split())
        assert opened.live == (kind is StreamSource)
        assert opened.skipped == []
        assert len(opened) == len(opened.paths) == len(set(opened.paths))


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("", "got nothing"),
        ("  ", "got nothing"),
        ("missing", "there is no missing"),
        ("missing.txt", "there is no missing.txt"),
        ("*.png", "nothing matches"),
        ("-1", "there is no -1"),
        ("file:///etc/hostname", "expected an address rtsp://"),
        ("ftp://127.0.0.1/a.jpg", "expected an address rtsp://"),
        ("udp://127.0.0.1:1", "expected an address rtsp://"),
        ("http://", "expected an address rtsp://"),
        ("http://127.0.0.1:99999/a", "expected an address rtsp://"),
        ("screen 1 2", "'screen N'"),
        ("mixed.txt", "expected lines of one kind"),
        ("mixed.streams", "expected streams or webcams, got a.jpg in mixed.streams"),
        ("empty.txt", "got no line with text"),
        ("empty.streams", "got no line with text"),
        ("local.txt", "file:///etc/hostname"),
    ],
)
def test_what_means_nothing_is_told(folder, source, told):
    with pytest.raises(InputError) as error:
        open_source(source)
    assert told in str(error.value)
    assert "secret" not in str(error.value)
    assert "\n" not in str(error.value)


def test_long_and_odd_addresses_are_no_paths(folder):
    with open_source(f"http://127.0.0.1:1/{'a' * 5000}?b=*[") as opened:
        assert len(opened.paths[0].name) <= 60


@pytest.mark.parametrize("stride", [0, -1])
def test_the_stride_must_be_at_least_one(folder, stride):
    with pytest.raises(InputError, match="vid-stride"):
        open_source("a.jpg", vid_stride=stride)


def test_the_stride_reaches_videos(folder):
    with open_source("v.mp4", vid_stride=2) as opened:
        assert [frame.number for [frame] in opened] == [1, 3, 5]


def test_a_path_is_a_source(folder):
    with open_source(folder / "files.txt") as opened:
        assert [frame.path.name for [frame] in opened] == ["a.jpg", "数字 é.jpg"]
        assert [path.name for path in opened.skipped] == ["missing.jpg"]


@pytest.mark.parametrize("name", ["a.jpg?size=1", "数字.jpg"])
def test_a_picture_on_the_web(name):
    def answer(handler):
        head(handler)
        handler.wfile.write(jpeg(100))

    with serving(answer) as server, open_source(f"{server}/{name}") as opened:
        assert [frame.image.shape for [frame] in opened] == [(48, 64, 3)]


@pytest.mark.parametrize("name", ["cam", "cam.jpg"])  # the server's word counts, whatever the name
def test_a_camera_on_the_web(name):
    camera = Camera()
    try:
        with open_source(camera.url.replace("cam", name), vid_stride=3) as opened:
            assert opened.live
            [frame] = next(iter(opened))
            assert frame.number % 3 == 1
            assert frame.image.shape == (48, 64, 3)
    finally:
        camera.unplug()
    assert not [thread for thread in threading.enumerate() if isinstance(thread, StreamReader)]


def test_the_screen(monkeypatch, capsys):
    opened = []
    monkeypatch.setattr(sources, "ScreenSource", opened.append)
    open_source("screen 1 0 0 640 480")
    assert opened == ["screen 1 0 0 640 480"]
    assert capsys.readouterr().err == ""
    open_source("screen", vid_stride=2)
    assert "--vid-stride is left out" in capsys.readouterr().err


def test_broken_pictures_among_others(folder):
    (folder / "broken.jpg").write_bytes(cv2.imencode(".jpg", np.zeros((64, 64, 3), np.uint8))[1].tobytes()[:30])
    (folder / "none.mp4").write_bytes(b"")
    with open_source(folder) as opened:
        assert sum(len(batch) for batch in opened) == 3 + 5
        assert [path.name for path in opened.skipped] == ["broken.jpg", "none.mp4"]
