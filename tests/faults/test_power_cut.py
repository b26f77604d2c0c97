"""What a power cut leaves of the files that we write: whenever it comes, the old one or the new one, whole."""

import json
import os
import re
import shutil
import signal
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from models.weights import read_checkpoint, save_checkpoint, strip_optimizer
from models.yolo import DetectionModel
from tests.tiny import CFG
from utils import files, images, logger_csv
from utils.coco import CocoResults
from utils.files import replace_synced
from utils.hyp import load_hyp, save_hyp
from utils.images import DiskImageStore
from utils.label_files import verify
from utils.labels import _read_cache, pack, write_cache
from utils.logger_csv import COLUMNS, CsvLogger

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the power is cut in forked processes")
WRITERS = (files, images, logger_csv)  # modules whose open() is watched


class Disk:
    """In a child: counts the system calls that matter below a folder, and ends the process before the `last`-th. What
    was not synced by then is lost, as a power cut may do it to the worst effect: names are kept, contents are not.

    Calls: open to write, each write of Python's, fsync of file and directory, rename, unlink.
    """

    def __init__(self, folder: Path, last: int) -> None:
        self.folder, self.last, self.calls = folder, last, []
        self.before = {file.stat().st_ino for file in folder.rglob("*") if file.is_file()}
        self.synced: dict[int, int] = {}  # bytes that are on the disk, by inode

    def call(self, kind: str) -> None:
        """One more system call; the power may go before it."""
        self.calls.append(kind)
        if len(self.calls) == self.last:
            self.lose_what_is_not_synced()
            os.kill(os.getpid(), signal.SIGKILL)

    def lose_what_is_not_synced(self) -> None:
        """Cuts new files to what was synced."""
        for file in (file for file in self.folder.rglob("*") if file.is_file()):
            inode, size = file.stat().st_ino, file.stat().st_size
            if inode not in self.before:
                os.truncate(file, min(self.synced.get(inode, 0), size))

    def watch(self) -> None:
        """Puts itself between Python and the system."""
        fsync, rename, unlink, plain_open = os.fsync, os.replace, os.unlink, open

        def watched_fsync(handle: int) -> None:
            self.call("fsync")
            fsync(handle)
            self.synced[os.fstat(handle).st_ino] = os.fstat(handle).st_size

        def watched(function: Callable) -> Callable:
            def call(*arguments, **options):
                self.call(function.__name__)
                return function(*arguments, **options)

            return call

        def watched_open(file, mode="r", *arguments, **options):
            if set(mode) & set("wxa"):
                self.call("open")
                stream = plain_open(file, mode, *arguments, **options)
                return Watched(stream, self) if "b" in mode else stream
            return plain_open(file, mode, *arguments, **options)

        os.fsync, os.replace, os.unlink = watched_fsync, watched(rename), watched(unlink)
        os.rename = watched(os.rename)
        for module in WRITERS:
            module.open = watched_open


class Watched:
    """A binary file whose writes are calls to the Disk."""

    def __init__(self, stream, disk: Disk) -> None:
        self._stream, self._disk = stream, disk

    def write(self, content) -> int:
        self._disk.call("write")
        return self._stream.write(content)

    def __getattr__(self, name: str):
        return getattr(self._stream, name)

    def __enter__(self) -> "Watched":
        return self

    def __exit__(self, *_) -> None:
        self._stream.close()


def cut_at(write: Callable[[], object], folder: Path, last: int) -> list[str]:
    """Writes in a child whose power goes before its `last`-th call. Returns the calls, where that didn't come."""
    reading, telling = os.pipe()
    child = os.fork()
    if child == 0:
        disk, code = Disk(folder, last), 1
        try:
            disk.watch()
            write()
            os.write(telling, " ".join(disk.calls).encode())
            code = 0
        finally:
            os._exit(code)
    os.close(telling)
    with open(reading, "rb") as pipe:
        calls = pipe.read().decode().split()
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == (0 if calls else -signal.SIGKILL)
    return calls


def moments(calls: list[str]) -> list[int]:
    """The numbers, from 1, of the calls to cut the power before: all but writes, of which the first, the second, one in
    the middle and the last; and one behind them all."""
    writes = [number for number, call in enumerate(calls, 1) if call == "write"]
    some = {*writes[:2], *writes[len(writes) // 2 : len(writes) // 2 + 1], *writes[-1:]}
    return [n for n, call in enumerate(calls, 1) if call != "write" or n in some] + [len(calls) + 1]


# ------------------------------------------------------------------ what is written: (write version n, read it back)
class Checkpoints:
    LEAST = 5  # calls: open, write, fsync, rename, fsync of the directory

    def __init__(self, folder: Path) -> None:
        self.file, self.model = folder / "last.pt", DetectionModel(CFG)

    def write(self, version: int) -> None:
        save_checkpoint(self.file, model=self.model, epoch=version)

    def read(self) -> int:
        return read_checkpoint(self.file).info["epoch"]


class Stripped(Checkpoints):
    """Version 1 is version 0 without what a training needs."""

    def write(self, version: int) -> None:
        if version:
            strip_optimizer(self.file)
        else:
            optimizer = torch.optim.SGD(self.model.parameters())
            save_checkpoint(self.file, model=self.model, optimizer=optimizer, epoch=0)

    def read(self) -> int:
        return int(read_checkpoint(self.file).training is None)


class Hyperparameters:
    LEAST = 5

    def __init__(self, folder: Path) -> None:
        self.file = folder / "hyp.yaml"
        self.hyp = load_hyp("data/hyps/hyp.scratch-low.yaml")

    def write(self, version: int) -> None:
        save_hyp(replace(self.hyp, lr0=0.5 + version), self.file)

    def read(self) -> int:
        assert asdict(load_hyp(self.file)) | {"lr0": 0} == asdict(self.hyp) | {"lr0": 0}
        return round(load_hyp(self.file).lr0 - 0.5)


class Predictions:
    LEAST = 5

    def __init__(self, folder: Path) -> None:
        self.file = folder / "predictions.json"

    def write(self, version: int) -> None:
        results = CocoResults.__new__(CocoResults)
        results.rows = [{"image_id": version}] * 1000
        results.save(self.file)

    def read(self) -> int:
        rows = json.loads(self.file.read_text())
        assert len(rows) == 1000
        return rows[0]["image_id"]


class Exports:
    LEAST = 3  # the network is written by others; then fsync, rename, fsync of the directory

    def __init__(self, folder: Path) -> None:
        self.file, self.beside = folder / "best.onnx", folder / ".beside"
        self.beside.mkdir()

    def write(self, version: int) -> None:
        made = self.beside / "best.onnx"
        made.write_bytes(bytes([version]) * 100_000)
        replace_synced(made, self.file)

    def read(self) -> int:
        content = self.file.read_bytes()
        assert content == content[:1] * 100_000
        return content[0]


class Results:
    """results.csv grows by a row an epoch; version 1 is one more row than version 0."""

    LEAST = 2  # open, write

    def __init__(self, folder: Path) -> None:
        self.file = folder / "results.csv"

    def write(self, version: int) -> None:
        if version == 0:
            self.logger = CsvLogger(self.file)
        self.logger.on_fit_epoch_end(version, dict.fromkeys(COLUMNS, 0.0))

    def read(self) -> int:
        whole = re.findall(r"^(\d+)(?:,0){14}\r?$", self.file.read_text(), re.MULTILINE)
        return int(whole[-1])


KINDS = (Checkpoints, Stripped, Hyperparameters, Predictions, Exports, Results)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_the_old_file_or_the_new_one_is_whole(kind, tmp_path):
    folder = tmp_path / "tried"
    folder.mkdir()
    tried, seen = kind(folder), []

    def begin() -> None:
        tried.file.unlink(missing_ok=True)
        tried.write(0)

    begin()
    calls = cut_at(lambda: tried.write(1), folder, 0)
    assert tried.read() == 1
    assert len(calls) >= kind.LEAST
    for moment in moments(calls):
        begin()
        cut_at(lambda: tried.write(1), folder, moment)
        seen.append(tried.read())  # raises where neither is whole
    assert seen == sorted(seen)
    assert {*seen} == {0, 1}


# ---------------------------------------------------------- caches: whole, or noticed and made anew, which costs time
def test_a_label_cache_is_whole_or_made_anew(tmp_path):
    index = pack([verify(str(tmp_path / "none.png"), "none.txt")])
    file, seen = tmp_path / "train.cache", []
    write_cache(file, "old", index)
    for moment in moments(cut_at(lambda: write_cache(file, "new", index), tmp_path, 0)):
        write_cache(file, "old", index)
        cut_at(lambda: write_cache(file, "new", index), tmp_path, moment)
        seen += [key for key in ("old", "new") if _read_cache(file, key) is not None]
    assert len(seen) >= 5
    assert seen == sorted(seen, reverse=True)
    assert {*seen} == {"old", "new"}


def test_a_cached_picture_is_whole_or_read_anew(tmp_path):
    picture = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images" / "a.png"), picture)
    store = DiskImageStore(lambda _: str(tmp_path / "images" / "a.png"), np.array([[32, 32]]), 32)
    calls = cut_at(store.fill, tmp_path, 0)
    assert {"open", "write", "replace"} <= {*calls}
    for moment in moments(calls):
        shutil.rmtree(store.file(0).parent)
        cut_at(store.fill, tmp_path, moment)
        np.testing.assert_array_equal(store.get(0)[0], picture)
