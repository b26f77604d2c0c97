"""How long does one wait for the scripts: for their help, and for the first detection in a new process?

python -m benchmarks.startup                            # an untrained yolov5n: half a minute
python -m benchmarks.startup --weights yolov5n.pt

Processor seconds stand beside those of the clock, as other programs disturb them less; memory is the process's peak.
Linux and macOS.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

import cv2
import numpy as np

from benchmarks.timing import machine, three_digits
from benchmarks.untrained import given_or_untrained
from utils.files import ROOT
from utils.log import LOGGER

SCRIPTS = ("train.py", "val.py", "detect.py", "export.py")
A_KILOBYTE = 1 if sys.platform == "darwin" else 1024  # bytes in the unit of ru_maxrss

# A small process starts what is measured: at its start a process takes the memory of the one that starts it.
WATCH = """
import os, subprocess, sys, time
begun = time.perf_counter()
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
print(time.perf_counter() - begun, usage.ru_utime + usage.ru_stime, usage.ru_maxrss)
sys.exit(os.waitstatus_to_exitcode(status) != 0)
"""


class Start(NamedTuple):
    """One process from its start to its end."""

    seconds: float
    processor_seconds: float
    peak_bytes: int


def started(command: Sequence[str]) -> Start:
    """Runs the command in the repository. Raises CalledProcessError where it fails."""
    watched = [sys.executable, "-S", "-c", WATCH, *command]
    told = subprocess.run(watched, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    seconds, processor_seconds, peak = map(float, told.split())
    return Start(seconds, processor_seconds, int(peak * A_KILOBYTE))


def row(name: str, starts: Sequence[Start]) -> str:
    """Medians as a line of the table."""
    seconds, processor_seconds, peak = (median(values) for values in zip(*starts, strict=True))
    return f"| {name} | {three_digits(seconds)} | {three_digits(processor_seconds)} | {peak / 2**20:.0f} |"


def commands(weights: str, folder: Path) -> dict[str, list[str]]:
    """What is started, by the name of its row."""
    picture = folder / "picture.jpg"
    cv2.imwrite(str(picture), np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8))
    files = ["--weights", given_or_untrained(weights, folder), "--source", str(picture), "--project", str(folder)]
    found = {"import torch": [sys.executable, "-c", "import torch"]}
    found |= {f"{script} --help": [sys.executable, script, "--help"] for script in SCRIPTS}
    return found | {"detect.py, one picture of 640x480": [sys.executable, "detect.py", *files]}


def parse_opt(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="", help="checkpoint for the detection; default: an untrained yolov5n")
    parser.add_argument("--rounds", type=int, default=5, help="starts of each")
    return parser.parse_args(argv)


def main(opt: argparse.Namespace) -> None:
    if opt.weights:
        opt.weights = str(Path(opt.weights).resolve())
    with tempfile.TemporaryDirectory() as name:
        wanted = commands(opt.weights, Path(name))
        rounds = [{name: started(command) for name, command in wanted.items()} for _ in range(opt.rounds)]
    LOGGER.info("| process | s | processor s | peak MiB |\n|---|--:|--:|--:|")
    for name in wanted:
        LOGGER.info(row(name, [times[name] for times in rounds]))
    LOGGER.info(f"\n{machine()}")


if __name__ == "__main__":
    main(parse_opt())
