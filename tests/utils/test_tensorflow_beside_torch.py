"""TensorFlow in one process with torch, where both TensorFlow and triton are installed."""

import subprocess
import sys
from importlib.util import find_spec

import pytest

from utils.files import ROOT

CODE = """
from utils.tensorflow_beside_torch import import_before_tensorflow, import_tensorflow
import_before_tensorflow()
for package in {packages}:
    __import__(package)
import triton
print(import_tensorflow().reduce_sum([1, 2]).numpy())
"""


@pytest.mark.slow
@pytest.mark.skipif(not (find_spec("tensorflow") and find_spec("triton")), reason="needs tensorflow and triton")
def test_what_imports_tensorflow_may_come_before_triton():
    """It ends with a segmentation fault otherwise."""
    packages = [name for name in ("tensorboard.summary.writer", "coremltools", "tensorflow") if installed(name)]
    command = [sys.executable, "-c", CODE.format(packages=packages)]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (answer.returncode, answer.stdout.split()) == (0, ["3"]), answer.stderr[-2000:]


def installed(name: str) -> bool:
    return find_spec(name.partition(".")[0]) is not None
