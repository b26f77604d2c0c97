import _thread
import contextlib
import socket
import subprocess
import threading
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.utils.loopback import Camera, head, serving, wait_until
from utils import streams
from utils.errors import InputError
from utils.streams import Patience, Stream, StreamReader, StreamSource, stream_name, unique_paths
from utils.video import DEFAULT_FPS, VideoSink

# What fails in these tests fails at once; how long it may take on a busy machine is generous.
IMPATIENT = Patience(connect_s=20, silence_s=20, first_tries=2, tries=2, wait_s=0.01)
PATIENT = Patience(connect_s=20, silence_s=20, first_tries=1000, tries=1000, wait_s=0.01, longest_wait_s=0.05)


@pytest.fixture
def camera():
    """camera(level) -> a camera that is unplugged at the end."""
    with contextlib.ExitStack() as stack:

        def make(level=100):
            made = Camera(level)
            stack.callback(made.unplug)
            return made

        yield make


@pytest.fixture
def closed_port():
    """The address of a stream that nobody serves."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but not listening: refuses
        yield f"http://127.0.0.1:{taken.getsockname()[1]}/cam"


@pytest.fixture(autouse=True)
def _no_thread_stays():
    yield
    assert not [thread for thread in threading.enumerate() if isinstance(thread, StreamReader)]


class Recording:
    """A capture that has so many pictures, of the grey level of their number, apart from those that are broken (as
    FFmpeg tells it) or cannot be decoded (as others do). It tells its length where `length`."""

    def __init__(self, frames=10, *, broken=(), undecodable=(), length=0, fps=25.0):
        self.frames, self.broken, self.undecodable, self.number = frames, broken, undecodable, 0
        self.told = {cv2.CAP_PROP_FRAME_COUNT: length or -(10**18), cv2.CAP_PROP_FPS: fps}
        self.released = False

    def isOpened(self):  # noqa: N802  (OpenCV's name)
        return True

    def get(self, prop):
        return self.told.get(prop, 0)

    def grab(self):
        self.number += 1
        return self.number <= self.frames and self.number not in self.broken

    def retrieve(self):
        return self.number not in self.undecodable, np.full((4, 4, 3), self.number, np.uint8)

    def release(self):
        self.released = True


class Nothing(Recording):
    def isOpened(self):  # noqa: N802
        return False


@pytest.fixture
def captures(monkeypatch):
    """captures(a, b) makes these the connections of a stream, one after the other; then there are none any more."""

    def use(*queue):
        left = list(queue)
        monkeypatch.setattr(streams, "open_capture", lambda *_: left.pop(0) if left else Nothing())
        return queue

    return use


def reader(*, vid_stride=1, patience=IMPATIENT):
    return StreamReader(Stream("0", Path("0"), 1, 1), patience, threading.Condition(), vid_stride=vid_stride)


# --------------------------------------------------------------------------------------------------------------- names
@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("0", "0"),
        ("007", "7"),
        ("rtsp://host", "rtsp_host"),
        ("rtsp://user:word@10.0.0.1:554/live/main.sdp?token=x", "rtsp_10_0_0_1_554_live_main_sdp"),
        ("http://host/../../etc/数字", "http_host_etc_数字"),
        (f"http://host/{'a' * 300}", ("http_host_" + "a" * 300)[:60]),
    ],
)
def test_names_of_streams(address, expected):
    assert stream_name(address) == expected


@pytest.mark.parametrize(
    ("names", "expected"),
    [([], []), (["a"], ["a"]), (["a", "A", "b", "a_2", "a"], ["a", "A_2", "b", "a_2_2", "a_3"])],
)
def test_names_are_unique(names, expected):
    assert unique_paths(names) == [Path(name) for name in expected]


@pytest.mark.parametrize(
    "address", ["", "cam", "file:///dev/video0", "rtsp://", "udp://127.0.0.1:1", "http://h/\n", "concat:a|b"]
)
def test_other_addresses_are_refused(address):
    with pytest.raises(InputError, match="expected an address rtsp://"):
        StreamSource([address])


# ----------------------------------------------------------------------------------------------------------- one reader
def test_the_newest_frame_wins(captures):
    [recording] = captures(Recording(10))
    one = reader()
    one.run()
    frame = one.take()
    assert (frame.number, int(frame.image[0, 0, 0]), frame.frames, frame.fps) == (10, 10, 0, 25)
    assert (frame.index, frame.total, frame.path, frame.is_video) == (1, 1, Path("0"), True)
    assert one.take() is None
    assert (one.over, one.given_up) == (True, True)  # it has come to an end, which a live stream has not
    assert recording.released


def test_the_stride_counts_from_the_first_frame(captures):
    captures(Recording(9))
    one = reader(vid_stride=4)
    one.run()
    assert one.take().number == 9
    captures(Recording(8))
    one = reader(vid_stride=4)
    one.run()
    assert one.take().number == 5


@pytest.mark.parametrize(("frames", "length"), [(1, 1), (10, 10), (7, 10)])
def test_a_stream_with_a_length_is_read_whole_and_once(captures, frames, length, capsys):
    captures(Recording(frames, length=length), Recording(100))
    source = StreamSource(["0"], patience=IMPATIENT)
    taken = [frame for batch in source for frame in batch]
    assert [frame.number for frame in taken] == list(range(1, frames + 1))
    assert {(frame.frames, frame.seconds) for frame in taken} == {(length, None)}
    assert source.skipped == []
    assert f"stream 1/1 webcam 0: ended after {frames} of {length} frames" in capsys.readouterr().err


def test_close_ends_a_reader_whose_frame_nobody_takes(captures):
    captures(Recording(10, length=10))
    source = StreamSource(["0"], patience=IMPATIENT)
    batches = iter(source)
    next(batches)
    source.close()
    assert not [thread for thread in threading.enumerate() if isinstance(thread, StreamReader)]
    assert len(list(batches)) <= 1  # what was there
    source.close()


def test_broken_frames_are_told_and_left_out(captures, capsys):
    captures(Recording(7, broken=(1, 4, 5), undecodable=(3,), length=7))
    assert [frame.number for batch in StreamSource(["0"]) for frame in batch] == [2, 6, 7]
    told = capsys.readouterr().err
    assert [
        number for number in range(1, 9) if f"stream 1/1 webcam 0: frame {number} is broken and is skipped" in told
    ] == [*(1, 3, 4, 5)]


def test_numbers_go_on_after_a_loss(captures, capsys):
    captures(Nothing(), Recording(3), Nothing(), Recording(4))
    one = reader()
    one.run()
    assert one.take().number == 7
    told = capsys.readouterr().err.splitlines()
    assert [line.partition("stream 1/1 webcam 0")[2] for line in told] == [
        ": no connection; connecting again in 0.01 s",
        ": connected, 0 x 0 at 25 fps",
        ": lost after 3 frames; connecting again in 0.01 s",
        ": no connection; connecting again in 0.01 s",
        ": connected, 0 x 0 at 25 fps",
        ": lost after 4 frames; connecting again in 0.01 s",
        ": no connection; connecting again in 0.01 s",
        " is given up: no connection, 2 times in a row",
    ]


@pytest.mark.parametrize("fps", [0, -1, float("nan"), 90_000])
def test_a_rate_that_is_none(captures, fps):
    captures(Recording(1, fps=fps, length=1))
    assert [frame.fps for [frame] in StreamSource(["0"])] == [DEFAULT_FPS]


def test_a_bug_in_a_thread_is_not_swallowed(captures):
    captures(Recording(1), None)
    with pytest.raises(AttributeError, match="NoneType"):
        list(StreamSource(["0"], patience=IMPATIENT))


def test_a_picture_that_opencv_cannot_handle_is_a_loss(captures, capsys):
    class Odd(Recording):
        def retrieve(self):
            return True, cv2.cvtColor(np.zeros((2, 2), np.uint8), cv2.COLOR_BGR2GRAY)

    captures(Odd(), Recording(3))
    one = reader()
    one.run()
    assert one.take().number == 4
    assert "OpenCV gives up: " in capsys.readouterr().err


@pytest.mark.parametrize(("failed", "seconds"), [(0, 1), (1, 1), (2, 2), (4, 8), (6, 30), (1000, 30)])
def test_the_wait_doubles(failed, seconds):
    assert Patience().before_try(failed) == seconds


def test_webcams_are_opened_by_number(monkeypatch):
    opened = []
    monkeypatch.setattr(cv2, "VideoCapture", lambda *arguments: (opened.append(arguments), Recording(1, length=1))[1])
    assert len(list(StreamSource(["0", "02"]))) >= 1
    assert sorted(opened) == [(0,), (2,)]


def test_a_webcam_that_is_not_there(capsys):
    source = StreamSource(["99"], patience=IMPATIENT)
    assert list(source) == []
    assert source.skipped == [Path("99")]
    assert "stream 1/1 webcam 99 is given up" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------------- real servers
def test_a_camera_over_http(camera):
    one = camera(level=60)
    with StreamSource([one.url], patience=PATIENT) as source:
        assert source.live
        frames = []
        for [frame] in source:
            frames.append(frame)
            if len(frames) == 5:
                break
    assert {(frame.path, frame.index, frame.total, frame.frames) for frame in frames} == {(source.paths[0], 1, 1, 0)}
    assert all(frame.image.shape == (48, 64, 3) and abs(frame.image.mean() - 60) < 2 for frame in frames)
    assert all(a.number < b.number and a.seconds <= b.seconds for a, b in zip(frames, frames[1:], strict=False))
    assert 0 < frames[0].fps <= 1000


def test_several_cameras_make_one_batch(camera):
    cameras = [camera(level) for level in (30, 90, 150)]
    with StreamSource([one.url for one in cameras], patience=PATIENT) as source:
        for attempt, batch in enumerate(source):
            assert attempt < 1000
            assert 1 <= len(batch) <= 3
            assert all(abs(frame.image.mean() - (30, 90, 150)[frame.index - 1]) < 2 for frame in batch)
            assert len({frame.path for frame in batch}) == len(batch)
            if len(batch) == 3:
                break
            already = [one.sent for one in cameras]
            wait_until(
                lambda before=already: all(one.sent > sent + 5 for one, sent in zip(cameras, before, strict=True))
            )
    assert [path.name for path in source.paths] == [
        f"http_127_0_0_1_{one.url.split(':')[2][:-4]}_cam" for one in cameras
    ]


def test_a_camera_that_is_unplugged_comes_back_and_the_other_goes_on(camera, capsys):
    steady, unsteady = camera(), camera()
    numbers = {1: [], 2: []}
    steps = iter(
        [
            (lambda: len(numbers[1]) > 3 and len(numbers[2]) > 3, unsteady.unplug),
            (lambda: len(numbers[1]) > 50, unsteady.plug),
            (lambda: numbers[2][-1] > numbers[2][at_plugging] + 3, lambda: None),
        ]
    )
    reached, act = next(steps)
    at_plugging = -1
    with StreamSource([steady.url, unsteady.url], patience=PATIENT) as source:
        for batch in source:
            for frame in batch:
                numbers[frame.index].append(frame.number)
            if reached():
                act()
                at_plugging = len(numbers[2]) - 1
                if (step := next(steps, None)) is None:
                    break
                reached, act = step
    assert numbers[2] == sorted(set(numbers[2]))
    assert source.skipped == []
    told = capsys.readouterr().err
    assert f"stream 2/2 {unsteady.url}: lost after" in told
    assert told.count(f"stream 2/2 {unsteady.url}: connected, 64 x 48 at") >= 2
    assert told.count(f"stream 1/2 {steady.url}: ") == 1


def test_a_camera_that_never_comes_is_given_up_and_the_other_goes_on(camera, closed_port, capsys):
    one = camera()
    count = 0
    with StreamSource([closed_port, one.url], patience=IMPATIENT) as source:
        for [frame] in source:
            assert frame.index == 2
            count += 1
            if source.skipped and count > 20:
                break
        assert source.skipped == source.paths[:1]
    assert f"stream 1/2 {closed_port} is given up: no connection, 2 times in a row" in capsys.readouterr().err


def test_the_run_ends_when_all_are_given_up(closed_port):
    source = StreamSource([closed_port, closed_port + "2"], patience=IMPATIENT)
    assert list(source) == []
    assert source.skipped == source.paths
    assert list(source) == []  # may be iterated again
    assert source.skipped == source.paths


def test_a_camera_that_falls_silent_is_lost(camera, capsys):
    one = camera()
    source = StreamSource([one.url], patience=replace(IMPATIENT, silence_s=0.3))
    for _ in source:
        one.muted = True
    assert source.skipped == source.paths
    told = capsys.readouterr().err
    assert "lost after" in told
    assert "is given up" in told


def test_a_host_that_never_answers_is_not_waited_for():
    with socket.create_server(("127.0.0.1", 0)) as mute:
        source = StreamSource(
            [f"{scheme}://127.0.0.1:{mute.getsockname()[1]}/a" for scheme in ("http", "rtsp", "rtmp")],
            patience=Patience(connect_s=0.3, silence_s=0.3, first_tries=1),
        )
        assert list(source) == []
    assert source.skipped == source.paths


@pytest.mark.parametrize("content", [b"", b"<html>no camera</html>", b"\0" * 1000])
def test_what_is_no_stream_is_given_up(content):
    def answer(handler):
        head(handler, Content_Length=len(content))
        handler.wfile.write(content)

    with serving(answer) as server:
        source = StreamSource([f"{server}/a"], patience=IMPATIENT)
        assert list(source) == []
        assert source.skipped == source.paths


@pytest.mark.parametrize("way", ["playlist", "redirect"])
def test_an_address_on_the_web_does_not_lead_to_files_here(tmp_path, way):
    with VideoSink(tmp_path / "secret.mp4", fps=10, size_wh=(64, 48)) as sink:
        for _ in range(20):
            sink.write(np.zeros((48, 64, 3), np.uint8))
    lines = ["#EXTM3U", "#EXT-X-TARGETDURATION:2", "#EXTINF:2,", f"file://{sink.file}", "#EXT-X-ENDLIST"]
    content = "\n".join(lines).encode()

    def answer(handler):
        if way == "redirect":
            return head(handler, 302, Location=f"file://{sink.file}", Content_Length=0)
        head(handler, Content_Length=len(content), Content_Type="application/vnd.apple.mpegurl")
        return handler.wfile.write(content)

    with serving(answer) as server:
        source = StreamSource([f"{server}/list.m3u8"], patience=IMPATIENT)
        assert list(source) == []


@pytest.mark.usefixtures("usual_interrupt")
def test_ctrl_c_ends_all_threads(camera, closed_port):
    source = StreamSource([camera().url, closed_port], patience=PATIENT)
    with pytest.raises(KeyboardInterrupt), source:  # noqa: PT012  (what follows is one act)
        for count, _ in enumerate(source):
            if count == 3:
                _thread.interrupt_main()
    assert not [thread for thread in threading.enumerate() if isinstance(thread, StreamReader)]


def test_a_source_that_is_asked_to_end_does(camera, closed_port):
    asked = threading.Event()
    with StreamSource([closed_port], patience=PATIENT) as source:
        source.end_when(asked.is_set)
        threading.Timer(0.1, asked.set).start()
        assert list(source) == []  # though nothing ever comes
    assert source.skipped == []
    with StreamSource([camera().url], patience=PATIENT) as source:
        source.end_when(lambda: True)
        assert list(source) == []


def test_broken_pictures_do_not_end_a_stream(camera, capsys):
    one = camera(level=60)
    [whole] = one.pictures
    one.pictures += [whole, b"", b"garbage", whole[:200], whole[:-100] + b"\xff\xd8", whole]
    greys = []
    with StreamSource([one.url], patience=PATIENT) as source:
        for [frame] in source:
            assert frame.image.shape == (48, 64, 3)
            greys.append(frame.image.mean())
            if len(greys) == 20:
                break
    assert sum(abs(grey - 60) < 2 for grey in greys) >= 5
    told = capsys.readouterr().err
    assert told.count("connected") == 1
    assert " is broken and is skipped" in told


# ---------------------------------------------------------------------------------------------------------------- rtsp
@pytest.fixture
def rtsp_server():
    """The process of rtsp_server.py and its port."""
    python = Path("/usr/bin/python3")
    script = Path(__file__).with_name("rtsp_server.py")
    command = [python, "-c", "import gi; gi.require_version('GstRtspServer', '1.0')"]
    if not python.exists() or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("needs Debian's gir1.2-gst-rtsp-server-1.0, python3-gi, gstreamer1.0-plugins-base and -good")
    with subprocess.Popen([python, script], stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process, int(process.stdout.readline())
        finally:
            process.kill()


def test_a_camera_over_rtsp(rtsp_server, capsys):
    process, port = rtsp_server
    address = f"rtsp://user:word@127.0.0.1:{port}/live?token=secret"
    frames = []
    with StreamSource([address], vid_stride=2, patience=IMPATIENT) as source:
        for [frame] in source:
            frames.append(frame)
            if len(frames) == 5:
                process.kill()  # the source notices, and gives up
    assert len(frames) >= 5
    assert all(frame.number % 2 == 1 and frame.fps == 25 for frame in frames)
    assert frames[0].image.shape == (120, 160, 3)
    np.testing.assert_allclose(frames[0].image.mean((0, 1)), [0, 255, 0], atol=40)
    assert source.skipped == source.paths == [Path(f"rtsp_127_0_0_1_{port}_live")]
    told = capsys.readouterr().err
    assert "secret" not in told
    assert "word" not in told
