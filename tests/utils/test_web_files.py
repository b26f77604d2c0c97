import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.utils.loopback import head, jpeg, serving
from utils.downloads import LiveContent
from utils.errors import InputError
from utils.label_files import IMAGE_SUFFIXES
from utils.video import VideoSink
from utils.web_files import WebFileSource, begins_like, is_web_file


def video_bytes(folder, frames=5):
    with VideoSink(folder / "made.mp4", fps=10, size_wh=(64, 48)) as sink:
        for number in range(frames):
            sink.write(np.full((48, 64, 3), 10 * number, np.uint8))
    content = sink.file.read_bytes()
    sink.file.unlink()
    return content


def sites(pages):
    """Answers with the content of each path, 404 for others."""

    def answer(handler):
        path = handler.path.partition("?")[0]
        if path not in pages:
            return head(handler, 404)
        head(handler, Content_Length=len(pages[path]))
        return handler.wfile.write(pages[path])

    return answer


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("", False),
        ("http://host", False),
        ("bus.jpg", False),
        ("http://host/bus.jpg", True),
        ("HTTPS://host/a/bus.JPG?size=1", True),
        ("http://host/a%2Emp4", True),
        ("http://host/stream?file=bus.jpg", False),
        ("http://host/video.mjpg", False),
        ("http://host/list.m3u8", False),
        ("rtsp://host/bus.mp4", False),
        ("ftp://host/bus.jpg", False),
    ],
)
def test_what_is_a_file_by_its_name(address, expected):
    assert is_web_file(address) == expected


@pytest.mark.parametrize("suffix", [suffix for suffix in IMAGE_SUFFIXES if suffix not in ("dng", "mpo")])
def test_what_opencv_writes_begins_as_an_image(tmp_path, suffix):
    file = tmp_path / f"a.{suffix}"
    file.write_bytes(cv2.imencode(f".{suffix}", np.zeros((8, 8, 3), np.uint8))[1].tobytes())
    assert begins_like(file, "image")
    assert not begins_like(file, "video")


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [
        ("mp4", "mp4v"),
        ("mov", "mp4v"),
        ("mkv", "MJPG"),
        ("avi", "MJPG"),
        ("wmv", "WMV2"),
        ("asf", "WMV2"),
        ("m4v", "mp4v"),
        ("mpg", "MPG1"),
    ],
)
def test_what_opencv_writes_begins_as_a_video(tmp_path, suffix, codec):
    file = tmp_path / f"a.{suffix}"
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*codec), 25, (64, 48))
    for _ in range(3):
        writer.write(np.zeros((48, 64, 3), np.uint8))
    writer.release()
    assert begins_like(file, "video")
    assert not begins_like(file, "image")


@pytest.mark.parametrize(
    "content", [b"", b"x", b"<html>", b"#EXTM3U\n#EXTINF:1,\nfile:///a.mp4\n", b"ffconcat version 1.0"]
)
@pytest.mark.parametrize("kind", ["image", "video"])
def test_what_begins_otherwise(tmp_path, content, kind):
    (tmp_path / "a").write_bytes(content)
    assert not begins_like(tmp_path / "a", kind)


def test_an_image_is_downloaded_and_deleted():
    with serving(sites({"/bus.jpg": jpeg(50)})) as server, WebFileSource([f"{server}/bus.jpg?size=[1]"]) as source:
        [[frame]] = source
        assert (frame.path.name, frame.index, frame.total, frame.is_video) == ("bus.jpg", 1, 1, False)
        assert frame.image.mean() == pytest.approx(50, abs=2)
        assert source.paths == [frame.path]
        assert not source.live
        assert len(list(source)) == 1  # may be iterated again
        folder = frame.path.parents[1]
        assert folder.is_dir()
    assert not folder.exists()


def test_a_video_is_downloaded_and_strided(tmp_path):
    pages = {"/a.mp4": video_bytes(tmp_path)}
    with serving(sites(pages)) as server, WebFileSource([f"{server}/a.mp4"], vid_stride=2) as source:
        assert [(frame.number, frame.frames) for [frame] in source] == [(1, 5), (3, 5), (5, 5)]


def test_several_files_one_after_the_other(tmp_path, capsys):
    pages = {"/a.jpg": jpeg(10), "/b.jpg": b"<html>", "/d.mp4": video_bytes(tmp_path, 2), "/e/a.jpg": jpeg(20)}
    pages["/f.png"] = jpeg(30)[:40]
    with serving(sites(pages)) as server:
        names = ["a.jpg", "b.jpg", "c.jpg", "d.mp4", "e/a.jpg", "f.png"]
        with WebFileSource([f"{server}/{name}" for name in names]) as source:
            folder = source.paths[0].parents[1]
            seen = []
            for [frame] in source:
                assert [path for path in folder.rglob("*") if path.is_file()] == [frame.path]  # one at a time
                seen.append((frame.path.name, frame.index, frame.number))
            assert seen == [("a.jpg", 1, 0), ("d.mp4", 4, 1), ("d.mp4", 4, 2), ("a.jpg", 5, 0)]
            assert [path.name for path in source.skipped] == ["b.jpg", "c.jpg", "f.png"]
            assert len(set(source.paths)) == 6
    told = capsys.readouterr().err
    assert f"expected the content of image files at {server}/b.jpg, got something else" in told
    assert f"cannot download {server}/c.jpg: the server says 404 Not Found" in told
    assert "f.png" in told


@pytest.mark.parametrize(
    ("content", "options", "told"),
    [
        (b"", {}, "got something else"),
        (b"<html>not found</html>", {}, "got something else"),
        (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/hostname\n", {}, "got something else"),
        (jpeg(1), {"max_bytes": 10}, "expected at most 10 bytes"),
    ],
)
def test_a_single_file_that_cannot_be_had_is_an_error_at_once(content, options, told):
    with serving(sites({"/a.mp4": content})) as server, pytest.raises(InputError, match=re.escape(told)) as error:
        WebFileSource([f"{server}/a.mp4"], **options)
    assert "\n" not in str(error.value)


def test_no_temporary_folder_stays_behind(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with serving(sites({})) as server, pytest.raises(InputError, match="404"):
        WebFileSource([f"{server}/a.jpg"])
    assert not list(tmp_path.iterdir())


def test_a_list_that_is_asked_to_end_does():
    with serving(sites({"/a.jpg": jpeg(1), "/b.jpg": jpeg(1)})) as server:
        seen = []
        with WebFileSource([f"{server}/a.jpg", f"{server}/b.jpg"]) as source:
            source.end_when(lambda: seen)
            for [frame] in source:
                seen.append(frame.path.name)
        assert seen == ["a.jpg"]
        assert source.skipped == []


def test_a_stream_under_the_name_of_a_file():
    def live(handler):
        head(handler, Content_Type="multipart/x-mixed-replace; boundary=frame")

    with serving(live) as server, pytest.raises(LiveContent):
        WebFileSource([f"{server}/a.jpg"])


def test_names_cannot_lead_out_of_the_folder():
    with WebFileSource(["http://127.0.0.1/..%2F..%2Fa.jpg", "http://127.0.0.1/a.jpg"]) as source:
        folder = source.paths[1].parents[1]
        assert [path.resolve().relative_to(folder.resolve()) for path in source.paths] == [
            Path("1/_.._a.jpg"),
            Path("2/a.jpg"),
        ]
