"""Patterns of --source that mean a whole disk, go in circles or are no patterns: bounded memory, and told."""

import os
from pathlib import Path

import pytest

from tests.hostile.child import attempt, bounded
from utils import media_files
from utils.media_files import find_media


def test_a_pattern_for_everything_below(ground):
    (ground / "a" / "b").mkdir(parents=True)
    (ground / "a" / "circle").symlink_to(ground)
    for name in ("x.jpg", "a/y.jpg", "a/b/z.jpg", "a/b/notes.md", "a/.hidden.jpg"):
        (ground / name).write_bytes(b"")
    found = sorted(path.relative_to(ground).as_posix() for path in find_media(f"{ground}/**"))
    assert found == ["a/.hidden.jpg", "a/b/z.jpg", "a/y.jpg", "x.jpg"]
    assert len(find_media(f"{ground}/**/a/**/*.jpg")) == 3
    assert len(find_media(f"{ground}/*/b/../*.jpg")) == 2


PATTERNS = ["**x", "***", "*/" * 500, "**/" * 100 + "*.jpg", "[", "[!]", "*\0*", "*/\0", "x" * 5000 + "*", "*a" * 2000]


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: repr(pattern)[:20])
def test_odd_patterns(pattern, ground):
    (ground / "some.png").write_bytes(b"")
    bounded(attempt(lambda: find_media(f"{ground}/{pattern}"), ground), ends=("refused", "returned"))


def test_folders_two_thousand_deep(ground):
    def task() -> int:
        for _ in range(2000):
            Path("d").mkdir()
            os.chdir("d")
        return len(find_media(f"{ground}/**/*.jpg"))

    (ground / "some.jpg").write_bytes(b"")
    try:
        bounded(attempt(task, ground), ends=("returned",))
    finally:
        remove_nested(ground / "d")


def remove_nested(folder: Path) -> None:
    """Removes folders of one name within each other, deeper than shutil.rmtree, and so pytest's own cleaning, goes."""
    inner, spare = folder / folder.name, folder.with_name("spare")
    while inner.exists():
        inner.rename(spare)
        folder.rmdir()
        spare.rename(folder)
    folder.rmdir()


def test_a_folder_of_two_million_names_takes_no_memory(ground, monkeypatch):
    class Many:
        name = "some.md"

        def is_dir(self, **_: bool) -> bool:
            return False

        def __enter__(self):
            return (self for _ in range(2_000_000))

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(media_files.os, "scandir", lambda _: Many())
    outcome = attempt(lambda: find_media(f"{ground}/*.jpg"), ground)
    assert "nothing matches" in bounded(outcome)
    assert outcome.grown < 30


def test_a_long_search_is_told(ground, monkeypatch):
    (ground / "some.jpg").write_bytes(b"")
    monkeypatch.setattr(media_files, "TOLD_EVERY_S", -1)
    told = []
    monkeypatch.setattr(media_files.LOGGER, "info", told.append)
    find_media(f"{ground}/**")
    assert "names seen so far" in told[0]
    assert "Ctrl+C" in told[0]
