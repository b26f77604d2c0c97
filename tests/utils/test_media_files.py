from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.utils.noise_videos import break_frames, noise_video
from utils.errors import InputError
from utils.media_files import FileSource, find_media
from utils.video import VideoSink


def picture(file, size_hw=(12, 16), level=100):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(cv2.imencode(file.suffix, np.full((*size_hw, 3), level, np.uint8))[1].tobytes())
    return file


def video(file, frames=3):
    with VideoSink(file, fps=10, size_wh=(64, 48)) as sink:
        for _ in range(frames):
            sink.write(np.zeros((48, 64, 3), np.uint8))
    return file


def frames_of(source, **options):
    """All frames; a batch of files has one."""
    batches = list(FileSource(source, **options))
    assert {len(batch) for batch in batches} <= {1}
    return [batch[0] for batch in batches]


@pytest.fixture
def folder(tmp_path):
    """Pictures with plain, bracketed and non-ASCII names, and files that are none."""
    for name in ("b.jpg", "a.PNG", "img[1].jpg", "img1.jpg", "数字 é.jpg", "deep/c.jpg", "dir[1]/d.jpg", "dir1/e.jpg"):
        picture(tmp_path / name)
    (tmp_path / "notes.md").write_text("none")
    (tmp_path / "empty").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("b.jpg", "b.jpg"),
        ("", "a.PNG b.jpg img1.jpg img[1].jpg 数字_é.jpg"),
        ("img[1].jpg", "img[1].jpg"),
        ("img[12].jpg", "img1.jpg"),
        ("dir[1]", "d.jpg"),
        ("dir[1]/*.jpg", "d.jpg"),
        ("dir[1-2]/*.jpg", "e.jpg"),
        ("数*.jpg", "数字_é.jpg"),
        ("[ab].*", "a.PNG b.jpg"),
        ("**/*.jpg", "b.jpg c.jpg d.jpg e.jpg img1.jpg img[1].jpg 数字_é.jpg"),
    ],
)
def test_what_a_source_names(folder, source, names, monkeypatch):
    expected = [name.replace("_", " ") for name in names.split()]
    assert sorted(path.name for path in find_media(f"{folder}/{source}" if source else folder)) == sorted(expected)
    monkeypatch.chdir(folder)
    assert sorted(path.name for path in find_media(source or ".")) == sorted(expected)


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("", "expected images"),
        ("missing.jpg", "missing.jpg"),
        ("bb.jpg", "(did you mean b.jpg?)"),
        ("missing/*.jpg", "nothing matches"),
        ("*.md", "1 other paths match"),
        ("notes.md", "notes.md"),
        ("empty", "found none"),
    ],
)
def test_sources_without_pictures_say_what_was_looked_for(folder, source, told, monkeypatch):
    monkeypatch.chdir(folder)
    with pytest.raises(InputError) as error:
        FileSource(source)
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_list_files(folder, monkeypatch):
    monkeypatch.chdir(folder / "empty")
    (folder / "list.txt").write_text("b.jpg\n\n  ./数字 é.jpg \nmissing.jpg\n", encoding="utf-8")
    source = FileSource(folder / "list.txt")
    assert [frame.path.name for [frame] in source] == ["b.jpg", "数字 é.jpg"]
    assert source.skipped == [Path("missing.jpg")]
    (folder / "list.txt").write_text(str(folder / "b.jpg"))
    assert find_media(folder / "list.txt") == [folder / "b.jpg"]


@pytest.mark.parametrize("content", [b"", b"\n\n", b"notes.md\n", b"0\n", b"\xff\xfe\x00"])
def test_list_files_without_paths_are_told_by_name(tmp_path, content):
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(InputError, match=r"list\.txt"):
        FileSource(tmp_path / "list.txt")


def test_broken_files_are_told_by_name_and_the_rest_goes_on(tmp_path, capsys):
    whole = picture(tmp_path / "a.jpg")
    (tmp_path / "b.jpg").write_bytes(b"")
    (tmp_path / "c.png").write_bytes(whole.read_bytes()[:40])
    (tmp_path / "d.mp4").write_bytes(b"no video")
    video(tmp_path / "e.mp4")
    source = FileSource(tmp_path)
    frames = [(frame.path.name, frame.index, frame.number) for [frame] in source]
    assert frames == [("a.jpg", 1, 0), ("e.mp4", 5, 1), ("e.mp4", 5, 2), ("e.mp4", 5, 3)]
    assert [path.name for path in source.skipped] == ["b.jpg", "c.png", "d.mp4"]
    told = capsys.readouterr().err
    assert all(name in told for name in ("b.jpg", "c.png", "d.mp4"))
    assert len(list(source)) == 4  # may be iterated again
    assert len(source.skipped) == 3


def test_files_that_are_asked_to_end_do(folder):
    source, seen = FileSource(folder), []
    source.end_when(lambda: len(seen) == 2)
    for [frame] in source:
        seen.append(frame.path.name)
    assert len(seen) == 2


def test_a_video_goes_on_after_a_broken_frame(tmp_path, capsys):
    file = noise_video(tmp_path / "a.avi", frames=8)
    break_frames(file, 3)
    assert [frame.number for frame in frames_of(file)] == [1, 2, 3, 5, 6, 7, 8]
    told = capsys.readouterr().err
    assert f"frame 4 of {file} is broken and is skipped" in told
    assert "truncated" not in told


def test_frames_say_what_they_are(tmp_path):
    picture(tmp_path / "z.jpg", (12, 16), level=50)
    video(tmp_path / "a.mp4", frames=5)
    image, *frames = frames_of(tmp_path, vid_stride=2)
    assert (image.index, image.total, image.is_video, image.fps) == (1, 2, False, 0)
    assert image.image.shape == (12, 16, 3)
    assert image.image.mean() == pytest.approx(50, abs=1)
    assert [(frame.index, frame.number, frame.frames, frame.is_video) for frame in frames] == [
        (2, 1, 5, True),
        (2, 3, 5, True),
        (2, 5, 5, True),
    ]
    assert frames[0].fps == pytest.approx(10)
    assert image.seconds is None
    assert [frame.seconds for frame in frames] == pytest.approx([0, 0.2, 0.4])
