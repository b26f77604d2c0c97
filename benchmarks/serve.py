"""What does serving over HTTP cost? Many clients on one machine: is any request lost, does memory stay flat, how long
does one wait, and how much of detect.py's throughput is left?

python -m benchmarks.serve                                              # an untrained yolov5n: 2 minutes
python -m benchmarks.serve --weights yolov5n.pt --source bus.jpg
python -m benchmarks.serve --device 0 --clients 64

serve.py and detect.py's Predictor at the same batch take turns, each in a process of its own: both read the picture's
file from memory, decode it and detect. The clients' work is on the service's account.
"""

import argparse
import http.client
import json
import logging
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import quantiles

import cv2
import numpy as np
import torch

import detect
from benchmarks.timing import Elsewhere, interleave, machine, ratios, speed_table, spread
from benchmarks.untrained import given_or_untrained
from engine.predictor import Predictor
from utils.files import ROOT
from utils.log import LOGGER
from utils.memory import keep_freed_memory

SERVICE, REFERENCE = "serve.py", "detect.py's Predictor"
BOUNDARY = "benchmark"


def made_predictor(weights: str, source: str, imgsz: int, batch: int, device: str) -> Callable[[], object]:
    """Decoding and detection of so many pictures, as a function without arguments."""
    LOGGER.setLevel(logging.WARNING)
    keep_freed_memory()
    predictor = Predictor(detect.parse_opt(["--weights", weights, "--imgsz", str(imgsz), "--device", device]))
    content = np.fromfile(source, np.uint8)

    def detections() -> None:
        with torch.inference_mode():
            predictor([cv2.imdecode(content, cv2.IMREAD_COLOR) for _ in range(batch)])

    return detections


class Clients:
    """Threads that send the picture, each over a connection of its own, one request after the other."""

    def __init__(self, address: str, content: bytes, count: int) -> None:
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="pictures"; filename="a.jpg"\r\n\r\n'
        self._body = head.encode() + content + f"\r\n--{BOUNDARY}--\r\n".encode()
        self._pool = ThreadPoolExecutor(count)
        self._address = address
        self.count, self.latencies, self.answers, self.lost = count, [], set(), 0

    def ask(self, requests: int) -> None:
        """Sends so many requests, and waits for their answers."""
        shares = [requests // self.count + (number < requests % self.count) for number in range(self.count)]
        list(self._pool.map(self._client, shares))

    def _client(self, requests: int) -> None:
        connection = http.client.HTTPConnection(self._address, timeout=120)
        kind = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
        for _ in range(requests):
            begun = time.perf_counter()
            connection.request("POST", "/v1/detect", self._body, kind)
            answer = connection.getresponse()
            content = json.loads(answer.read())
            self.latencies.append(time.perf_counter() - begun)
            if answer.status == 200:
                self.answers.add(len(content["pictures"][0]["detections"]))
            else:
                self.lost += 1
                LOGGER.warning(f"{answer.status}: {content}")
        connection.close()


@contextmanager
def served(weights: str, opt: argparse.Namespace):
    """The process of serve.py and its address."""
    command = [sys.executable, "serve.py", "--weights", weights, "--port", "0", "--device", opt.device]
    command += ["--imgsz", str(opt.imgsz), "--max-batch", str(opt.batch)]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, cwd=ROOT, stderr=log)
        try:
            yield process, _address(process, log)
        finally:
            process.send_signal(signal.SIGTERM)
            status = process.wait(120)
    LOGGER.info(f"The service ended with status {status}.")


def _address(process: subprocess.Popen, log) -> str:
    while process.poll() is None:
        log.seek(0)
        if found := re.search(r"http://([\d.:]+)", log.read()):
            return found[1]
        time.sleep(0.1)
    raise SystemExit("serve.py did not start")


def resident_mb(process: subprocess.Popen) -> float | None:
    """Megabytes that the process takes; None where the system does not tell (all but Linux)."""
    status = Path(f"/proc/{process.pid}/status")
    found = re.search(r"VmRSS:\s+(\d+)", status.read_text()) if status.exists() else None
    return int(found[1]) / 1024 if found else None


def report(weights: str, source: str, opt: argparse.Namespace) -> None:
    """Measures and logs."""
    reference = Elsewhere(made_predictor, weights, source, opt.imgsz, opt.batch, opt.device)
    memory = []
    with served(weights, opt) as (process, address):
        clients = Clients(address, Path(source).read_bytes(), opt.clients)

        def requests() -> None:
            clients.ask(opt.batch * opt.batches)
            memory.append(resident_mb(process))

        def batches() -> None:
            for _ in range(opt.batches):
                reference()

        times = interleave({REFERENCE: batches, SERVICE: requests}, rounds=opt.rounds)
    reference.end()
    pictures = opt.batch * opt.batches
    LOGGER.info(
        f"\n### {pictures * (opt.rounds + 1)} requests, {opt.clients} at a time, batches of {opt.batch} at most\n"
    )
    LOGGER.info(speed_table(times, REFERENCE, what=f"{pictures} pictures", images=pictures))
    rate = ratios({name: [1 / s for s in seconds] for name, seconds in times.items()}, REFERENCE)[SERVICE]
    LOGGER.info(f"\nThroughput of the service: {spread(rate)} times that of {REFERENCE}.")
    LOGGER.info(f"Lost: {clients.lost} of {len(clients.latencies)}; detections an answer: {sorted(clients.answers)}.")
    latencies = clients.latencies[pictures:]  # without those of the round that does not count
    cuts = quantiles(latencies, n=100)
    told = ", ".join(f"p{percent} {1e3 * cuts[percent - 1]:.0f} ms" for percent in (50, 95, 99))
    LOGGER.info(f"Latency: {told}, longest {1e3 * max(latencies):.0f} ms.")
    if None not in memory:
        LOGGER.info(f"Memory of the service after each round: {', '.join(f'{mb:.0f}' for mb in memory)} MB.")


def parse_opt(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="", help="checkpoint or exported model; default: untrained yolov5n")
    parser.add_argument("--source", default="", help="picture; default: one of digits")
    parser.add_argument("--imgsz", type=int, default=640, help="pixels")
    parser.add_argument("--device", default="cpu", help="cpu or a CUDA device number")
    parser.add_argument("--batch", type=int, default=16, help="pictures a batch")
    parser.add_argument("--clients", type=int, default=16, help="requests at a time")
    parser.add_argument("--batches", type=int, default=12, help="batches a round")
    parser.add_argument("--rounds", type=int, default=9, help="rounds, and one that does not count")
    return parser.parse_args(argv)


def main(opt: argparse.Namespace) -> None:
    source = opt.source or str(ROOT / "data/images/digits1.jpg")
    with tempfile.TemporaryDirectory() as name:
        report(given_or_untrained(opt.weights, Path(name)), source, opt)
    LOGGER.info(f"\n{machine()}")


if __name__ == "__main__":
    main(parse_opt())
