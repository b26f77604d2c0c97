"""Golden data, the shared folder beside the repository, and tiny inputs that several tests use."""

import json
import shutil
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = ROOT / "tests" / "golden"
SHARED = ROOT.parent / "shared"  # weights, photographs and data sets that are not ours to commit

torch.set_num_threads(1)  # the golden numbers were made with one thread, and tests run side by side


def _golden_file(name: str) -> Path:
    for folder in (GOLDEN, SHARED / "golden"):
        if (folder / name).exists():
            return folder / name
    pytest.skip(f"needs ../shared/golden/{name}, which is not beside this clone")


@pytest.fixture(scope="session")
def golden_json():
    """golden_json("loss") -> the parsed loss.json; skips where the file is not at hand."""
    return lambda stem: json.loads(_golden_file(f"{stem}.json").read_text())


@pytest.fixture(scope="session")
def golden_npz():
    """golden_npz("loss") -> {key: array} of loss.npz; skips where the file is not at hand."""
    return lambda stem: dict(np.load(_golden_file(f"{stem}.npz")))


@pytest.fixture(scope="session")
def shared():
    """shared("weights/yolov5n.pt") -> its Path; skips where ../shared is not at hand."""

    def find(relative: str) -> Path:
        path = SHARED / relative
        if not path.exists():
            pytest.skip(f"needs ../shared/{relative}, which is not beside this clone")
        return path

    return find


@pytest.fixture
def usual_interrupt():
    """Python's own effect of SIGINT, which a shell's background job or a runner may have switched off."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    """The tracked files in a directory of their own."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("needs git, to tell the project's files from others")
    folder = tmp_path_factory.mktemp("home") / "clone"
    for name in filter(None, listed.stdout.split("\0")):
        if not name.startswith("tests/") and (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    return folder
