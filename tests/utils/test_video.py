"""Videos read and written; what is written is decoded again."""

import os
import signal
import struct
import subprocess
import sys

import av
import cv2
import numpy as np
import pytest

from tests.utils.noise_videos import noise_video
from utils.errors import InputError
from utils.video import CLOCK_HZ, LONGEST_PAUSE_S, FrameTimes, VideoSink, fitted, read_video, usable_fps


def grey(level, size_wh=(64, 48)):
    return np.full((size_wh[1], size_wh[0], 3), level, np.uint8)


def make_video(file, frames=12, fps=10.0, size_wh=(64, 48), times=None):
    """Frame i (from 1) has the grey level 10 * i."""
    with VideoSink(file, fps=fps, size_wh=size_wh) as sink:
        for number in range(1, frames + 1):
            sink.write(grey(10 * number, size_wh), times and times[number - 1])
    return sink.file


def decoded(file):
    """(the stream's facts, [(seconds, grey level)]) as FFmpeg reads them."""
    with av.open(str(file)) as container:
        stream = container.streams.video[0]
        facts = {
            "codec": stream.codec_context.name,
            "format": stream.codec_context.pix_fmt,
            "rate": stream.average_rate,
        }
        facts["size"] = stream.codec_context.width, stream.codec_context.height
        return facts, [(frame.time, frame.to_ndarray(format="gray").mean()) for frame in container.decode(video=0)]


def atoms(file):
    """Names of the file's parts, in order."""
    content, place, names = file.read_bytes(), 0, []
    while place < len(content):
        size, name = struct.unpack(">I4s", content[place : place + 8])
        names.append(name.decode())
        place += size
    return names


# -------------------------------------------------------------------------------------------------------------- reading
@pytest.mark.parametrize(("stride", "numbers"), [(1, [*range(1, 13)]), (5, [1, 6, 11]), (100, [1])])
def test_what_is_written_is_read(tmp_path, stride, numbers):
    file = make_video(tmp_path / "vidéo [1].avi")
    assert file.suffix == ".mp4"
    frames = list(read_video(file, stride=stride))
    assert [frame.number for frame in frames] == numbers
    assert {frame.total for frame in frames} == {12}
    assert frames[0].fps == pytest.approx(10)
    for frame in frames:
        assert frame.image.shape == (48, 64, 3)
        assert frame.image.mean() == pytest.approx(10 * frame.number, abs=4)


@pytest.mark.parametrize("content", [b"", b"not a video"])
def test_other_files_are_told_by_name(tmp_path, content):
    (tmp_path / "bad.mp4").write_bytes(content)
    with pytest.raises(InputError, match=r"bad\.mp4"):
        list(read_video(tmp_path / "bad.mp4"))


def test_a_truncated_video_gives_what_it_has_and_is_told(tmp_path, capsys):
    source = noise_video(tmp_path / "whole.avi", frames=40)
    cut = tmp_path / "cut.avi"
    cut.write_bytes(source.read_bytes()[: source.stat().st_size // 2])
    assert 10 < len(list(read_video(cut))) < 30
    told = capsys.readouterr().err
    assert "cut.avi" in told
    assert "of 40 frames" in told


@pytest.mark.parametrize(
    ("told", "fps"),
    [(0, 30), (-1, 30), (float("nan"), 30), (float("inf"), 30), (90_000, 30), (1000, 1000), (29.97, 29.97), (0.1, 0.1)],
)
def test_absurd_rates_are_replaced(told, fps):
    assert usable_fps(told) == fps


# -------------------------------------------------------------------------------------------------------------- writing
def test_a_video_without_frames_is_a_whole_file(tmp_path):
    assert atoms(make_video(tmp_path / "a.mp4", frames=0))[:2] == ["ftyp", "moov"]


def test_browsers_can_play_it(tmp_path):
    file = make_video(tmp_path / "a.mp4")
    facts, frames = decoded(file)
    assert facts == {"codec": "h264", "format": "yuv420p", "rate": 10, "size": (64, 48)}
    assert len(frames) == 12
    names = atoms(file)
    assert names[:4] == ["ftyp", "moov", "moof", "mdat"]  # what describes the pictures comes before them


def test_colours_are_those_of_the_pictures(tmp_path):
    colours = np.random.default_rng(0).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    picture = cv2.resize(colours, (128, 96), interpolation=cv2.INTER_NEAREST)
    with VideoSink(tmp_path / "a.mp4", fps=10, size_wh=(128, 96)) as sink:
        for _ in range(3):
            sink.write(picture)
    for frame in read_video(sink.file):
        middles = frame.image[8::16, 8::16].astype(int)
        assert np.abs(middles - colours).max() < 16
        assert np.abs(middles - colours).mean() < 4


@pytest.mark.parametrize(
    ("fps", "rate"), [(10, 10), (29.97002997, 30000 / 1001), (23.976, 23.976), (0.5, 0.5), (59.94, 59.94), (0, 30)]
)
def test_rates(tmp_path, fps, rate):
    facts, frames = decoded(make_video(tmp_path / "a.mp4", frames=24, fps=fps))
    assert float(facts["rate"]) == pytest.approx(rate, rel=1e-4)
    assert [seconds for seconds, _ in frames] == pytest.approx([number / rate for number in range(24)], abs=1e-4)


@pytest.mark.parametrize(
    ("size_wh", "written"), [((1, 1), (2, 2)), ((63, 47), (64, 48)), ((64, 47), (64, 48)), ((64, 48), (64, 48))]
)
def test_odd_sizes_get_their_last_line_twice(tmp_path, size_wh, written):
    facts, frames = decoded(make_video(tmp_path / "a.mp4", size_wh=size_wh))
    assert facts["size"] == written
    assert [level for _, level in frames] == pytest.approx([10 * number for number in range(1, 13)], abs=4)


def test_frames_are_shown_at_their_times(tmp_path):
    times = [100, 100.5, 100.6, 103, 103.01]
    _, frames = decoded(make_video(tmp_path / "a.mp4", frames=5, times=times))
    assert [seconds + 100 for seconds, _ in frames] == pytest.approx(times, abs=1e-4)
    assert [frame.seconds + 100 for frame in read_video(tmp_path / "a.mp4")] == pytest.approx(times, abs=1e-4)


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ([None], [0]),
        ([None, None, 5.0], [0, 0.1, 5.0]),
        ([7.0, 7.0, 6.0, 6.5], [0, 0.1, 0.2, 0.7]),
        ([0.0, 1e9, 1e9 + 1], [0, LONGEST_PAUSE_S, LONGEST_PAUSE_S + 1]),
        ([0.0, 1e-9, 2e-9], [0, 1 / CLOCK_HZ, 2 / CLOCK_HZ]),
    ],
)
def test_times_always_go_on(given, shown):
    times, ticks = FrameTimes(10), []
    for seconds in given:
        times.advance(seconds)
        ticks.append(times.ticks)
    assert [tick / CLOCK_HZ for tick in ticks] == pytest.approx(shown, abs=1e-9)
    assert times.duration == (ticks[-1] - ticks[-2] if len(ticks) > 1 else CLOCK_HZ / 10)


def test_frames_of_another_size_are_fitted(tmp_path):
    with VideoSink(tmp_path / "a.mp4", fps=5, size_wh=(64, 48)) as sink:
        sink.write(np.full((96, 128, 3), 200, np.uint8))
        sink.write(np.full((96, 16, 3), 200, np.uint8))
    wide, tall = (frame.image for frame in read_video(sink.file))
    assert wide.shape == tall.shape == (48, 64, 3)
    assert wide.mean() == pytest.approx(200, abs=4)
    assert tall[:, :16].mean() < 8
    assert tall[:, 30:34].mean() == pytest.approx(200, abs=8)


@pytest.mark.parametrize(("size_hw", "left_top"), [((1, 1), (8, 0)), ((48, 64), (0, 0)), ((10, 640), (0, 23))])
def test_fitted(size_hw, left_top):
    canvas = fitted(np.full((*size_hw, 3), 9, np.uint8), (64, 48))
    rows, columns = np.nonzero(canvas[..., 0])
    assert canvas.shape == (48, 64, 3)
    assert (columns.min(), rows.min()) == left_top


# ------------------------------------------------------------------------------------------------------------- failures
def test_a_place_that_cannot_be_written_is_told(tmp_path):
    with pytest.raises(InputError, match=r"a\.mp4: No such file"):
        VideoSink(tmp_path / "missing" / "a.mp4", fps=5, size_wh=(64, 48))


def test_a_size_that_cannot_be_encoded_is_told(tmp_path):
    with pytest.raises(InputError, match=r"70000 x 2 pixels to .*a\.mp4"):
        VideoSink(tmp_path / "a.mp4", fps=5, size_wh=(70_000, 2))


LIMITED = """
import resource, sys
import numpy as np
from utils.video import VideoSink
resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))
import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # as a full disk: an error, no signal
sink = VideoSink(sys.argv[1], fps=30, size_wh=(64, 48))
rng = np.random.default_rng(0)
try:
    for number in range(1000):
        sink.write(rng.integers(0, 255, (48, 64, 3), dtype=np.uint8), number)
except OSError as error:
    print("told", error)
try:
    sink.close()
except OSError:
    pass
sink.close()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit for the size of files, which Windows has not")
def test_a_full_disk_is_told_and_what_is_there_plays(tmp_path):
    answer = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path / "a.mp4")], capture_output=True, text=True, timeout=60
    )
    assert answer.returncode == 0, answer.stderr
    assert "told" in answer.stdout
    assert 0 < len(list(read_video(tmp_path / "a.mp4"))) < 1000


KILLED = """
import os, sys
import numpy as np
from utils.video import VideoSink
sink = VideoSink(sys.argv[1], fps=10, size_wh=(64, 48))
for number in range(1, 101):
    sink.write(np.full((48, 64, 3), 2 * number, np.uint8))
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("signum", [signal.SIGTERM, getattr(signal, "SIGKILL", signal.SIGTERM)])
def test_a_killed_run_leaves_all_but_the_last_two_seconds(tmp_path, signum):
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path / "a.mp4")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout.readline().strip() == b"ready"
    os.kill(process.pid, signum)
    process.communicate()
    assert 80 <= len(decoded(tmp_path / "a.mp4")[1]) <= 100


def test_the_encoder_is_loaded_when_a_video_is_written():
    code = "import sys, utils.video, utils.outputs; sys.exit('av' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
