import contextlib
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from utils.errors import InputError
from utils.screen import Region, ScreenSource, is_screen, parse_region


@pytest.mark.parametrize(
    ("source", "expected"),
    [("", False), ("screen", True), ("SCREEN 1", True), ("screen.jpg", False), ("screens", False), ("screen x", True)],
)
def test_what_is_the_screen(source, expected):
    assert is_screen(source) == expected


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("screen", Region()),
        ("screen 2", Region(2)),
        ("screen 10 20 300 200", Region(0, (10, 20, 300, 200))),
        ("screen  1 10 20 300 200", Region(1, (10, 20, 300, 200))),
    ],
)
def test_forms(source, expected):
    assert parse_region(source) == expected


@pytest.mark.parametrize(
    "source",
    ["screen x", "screen -1", "screen 1 2", "screen 1 2 3", "screen 1 2 3 4 5 6", "screen 0 0 0 5", "screen 1.5"],
)
def test_other_forms(source):
    with pytest.raises(InputError, match="--source: expected"):
        parse_region(source)


class Screens:
    """What mss.MSS() gives: two monitors side by side, the pixels' blue their x, green their y (modulo 256)."""

    monitors = (
        {"left": 0, "top": 0, "width": 500, "height": 300},
        {"left": 0, "top": 0, "width": 300, "height": 200},
        {"left": 300, "top": 0, "width": 200, "height": 300},
    )

    def __init__(self):
        self.grabs, self.closed = 0, False

    def grab(self, area):
        from mss.exception import ScreenShotError

        self.grabs += 1
        if self.grabs > 4:
            raise ScreenShotError("the server is gone")
        y, x = np.mgrid[: area["height"], : area["width"]]
        pixels = np.stack([x + area["left"], y + area["top"], x * 0 + 7, x * 0 + 255], -1) % 256
        return type("Shot", (), {"raw": bytearray(pixels.astype(np.uint8)), **area})

    def close(self):
        self.closed = True


@pytest.fixture
def screens(monkeypatch):
    mss = pytest.importorskip("mss", reason="needs the package mss (requirements-screen.txt)")
    made = Screens()
    monkeypatch.setattr(mss, "MSS", lambda: made)
    return made


@pytest.mark.parametrize(
    ("source", "size_hw", "corner"),
    [
        ("screen", (300, 500), (0, 0)),
        ("screen 2", (300, 200), (300 % 256, 0)),
        ("screen 2 10 20 1 1", (1, 1), (310 % 256, 20)),
        ("screen 10 20 30 40", (40, 30), (10, 20)),
        ("screen 1 299 199 1 1", (1, 1), (299 % 256, 199)),
    ],
)
def test_the_part_that_is_taken(screens, source, size_hw, corner, capsys):
    with ScreenSource(source) as opened:
        frames = [frame for [frame] in opened]
    assert [frame.number for frame in frames] == [1, 2, 3]  # the fake ends then
    assert {(frame.path, frame.index, frame.total, frame.is_video) for frame in frames} == {
        (opened.paths[0], 1, 1, True)
    }
    assert opened.paths[0].name == f"screen_{parse_region(source).monitor}"
    assert frames[0].image.shape == (*size_hw, 3)
    assert frames[0].image[0, 0].tolist() == [*corner, 7]
    assert frames[0].image.flags.c_contiguous
    assert frames[0].seconds <= frames[1].seconds
    assert opened.live
    assert screens.closed
    assert opened.skipped == opened.paths
    assert "the screen ends after 3 pictures" in capsys.readouterr().err


def test_a_screen_that_is_asked_to_end_does(screens):
    with ScreenSource("screen") as source:
        source.end_when(lambda: True)
        assert list(source) == []
        assert source.skipped == []


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("screen 3", "a screen from 0 (all) to 2, got 3"),
        ("screen 1 0 0 301 200", "the 300 x 200 pixels of screen 1"),
        ("screen 1 0 1 300 200", "the 300 x 200 pixels of screen 1"),
    ],
)
def test_what_is_not_on_the_screen(screens, source, told):
    with pytest.raises(InputError) as error:
        ScreenSource(source)
    assert told in str(error.value)
    assert screens.closed


def test_the_package_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "mss", None)
    with pytest.raises(InputError, match=r"pip install -r requirements-screen\.txt"):
        ScreenSource("screen")


def test_no_screen_at_all(monkeypatch):
    pytest.importorskip("mss", reason="needs the package mss (requirements-screen.txt)")
    if not sys.platform.startswith("linux"):
        pytest.skip("a display can be taken away on Linux alone")
    monkeypatch.delenv("DISPLAY", raising=False)
    with pytest.raises(InputError, match="--source screen: expected a screen") as error:
        ScreenSource("screen")
    assert "\n" not in str(error.value)


@pytest.fixture
def x_server(monkeypatch):
    """Starts a virtual X server of 320 x 240 pixels, and names it in DISPLAY; returns its process."""
    pytest.importorskip("mss", reason="needs the package mss (requirements-screen.txt)")
    if not shutil.which("Xvfb"):
        pytest.skip("needs a virtual X server (Debian's package xvfb)")
    read, write = os.pipe()
    command = ["Xvfb", "-displayfd", str(write), "-screen", "0", "320x240x24", "-nolisten", "tcp", "-wr"]
    with subprocess.Popen(command, pass_fds=[write], stderr=subprocess.DEVNULL) as process, contextlib.ExitStack() as s:
        s.callback(process.terminate)
        os.close(write)
        with open(read) as stream:
            number = stream.readline().strip()
        assert number, "Xvfb did not start"
        monkeypatch.setenv("DISPLAY", f":{number}")
        yield process


def test_a_real_screen(x_server, capsys):
    with ScreenSource("screen 1 10 20 300 200") as source:
        for [frame] in source:
            assert frame.image.shape == (200, 300, 3)
            assert (frame.image == 255).all()  # -wr: a white root window
            if frame.number == 3:
                x_server.terminate()
    source.close()
    assert frame.number >= 3
    assert source.skipped == source.paths
    assert "the screen ends after" in capsys.readouterr().err
