import cv2
import numpy as np
import pytest

from utils.errors import InputError
from utils.video import VideoSink, read_video


def make_video(file, frames=12, fps=10.0, size_wh=(64, 48)):
    """Frame i (from 1) has the grey level 10 * i."""
    with VideoSink(file, fps=fps, size_wh=size_wh) as sink:
        for number in range(1, frames + 1):
            sink.write(np.full((size_wh[1], size_wh[0], 3), 10 * number, np.uint8))
    return sink.file


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


def test_frames_of_another_size_are_fitted(tmp_path):
    with VideoSink(tmp_path / "a.mp4", fps=5, size_wh=(64, 48)) as sink:
        sink.write(np.full((96, 128, 3), 200, np.uint8))
        sink.write(np.full((48, 64, 3), 200, np.uint8))
    assert [frame.image.shape for frame in read_video(sink.file)] == [(48, 64, 3)] * 2


@pytest.mark.parametrize("content", [b"", b"not a video"])
def test_other_files_are_told_by_name(tmp_path, content):
    (tmp_path / "bad.mp4").write_bytes(content)
    with pytest.raises(InputError, match=r"bad\.mp4"):
        list(read_video(tmp_path / "bad.mp4"))


def test_a_truncated_video_gives_what_it_has_and_is_told(tmp_path, capsys):
    source = tmp_path / "whole.avi"
    writer = cv2.VideoWriter(str(source), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    rng = np.random.default_rng(0)
    for _ in range(40):
        writer.write(rng.integers(0, 255, (48, 64, 3), dtype=np.uint8))
    writer.release()
    cut = tmp_path / "cut.avi"
    cut.write_bytes(source.read_bytes()[: source.stat().st_size // 2])
    assert 10 < len(list(read_video(cut))) < 30
    told = capsys.readouterr().err
    assert "cut.avi" in told
    assert "of 40 frames" in told


def test_a_place_that_cannot_be_written_is_told(tmp_path):
    with pytest.raises(InputError, match=r"a\.mp4"):
        VideoSink(tmp_path / "missing" / "a.mp4", fps=5, size_wh=(64, 48))
