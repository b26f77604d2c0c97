"""serve.py as people start and end it."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading

import pytest

import serve
from tests.conftest import ROOT
from tests.serving import SIDE, picture, tiny_weights
from tests.utils.loopback import wait_until

httpx = pytest.importorskip("httpx", reason="needs requirements-dev.txt")
pytest.importorskip("fastapi", reason="needs requirements-serve.txt")

PATIENCE_S = 300
needs_signals = pytest.mark.skipif(sys.platform == "win32", reason="processes are sent no such signals on Windows")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return str(tiny_weights(tmp_path_factory.mktemp("weights") / "tiny.pt"))


class Served:
    """serve.py in a process of its own; `address` once it listens."""

    def __init__(self, *options: str, folder=ROOT) -> None:
        command = [sys.executable, str(ROOT / "serve.py"), "--device", "cpu", "--imgsz", str(SIDE), "--port", "0"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [*command, *options], cwd=folder, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
            env=environment,
        )  # fmt: skip
        self.lines, self.address, self._listens = [], "", threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        assert self._listens.wait(PATIENCE_S), self.lines

    def _read(self) -> None:
        for line in self.process.stderr:
            self.lines.append(line.rstrip())
            if found := re.search(r"http://[\d.:]+", line):
                self.address = found[0]
                self._listens.set()

    def health(self) -> int:
        return httpx.get(f"{self.address}/healthz", timeout=60).status_code

    def end(self, signum=signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signum)
        return self.status()

    def status(self) -> int:
        """The exit status, once it has ended and its lines are read."""
        status = self.process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        return status


@pytest.fixture
def served(weights):
    started = []

    def start(*options: str) -> Served:
        started.append(Served("--weights", weights, *options))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.wait()


@needs_signals
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_signal_ends_it_well_after_what_runs_is_answered(served, signum):
    one = served("--max-mb", "1")
    assert one.health() == 200
    assert not any("WARNING" in line for line in one.lines)
    answers, sent, go = [], threading.Event(), threading.Event()

    def body():
        """An upload that takes its time."""
        yield b'--X\r\nContent-Disposition: form-data; name="pictures"; filename="a.png"\r\n\r\n'
        sent.set()
        assert go.wait(60)
        yield picture() + b"\r\n--X--\r\n"

    def ask():
        kind = {"Content-Type": "multipart/form-data; boundary=X"}
        answers.append(httpx.post(f"{one.address}/v1/detect", content=body(), headers=kind, timeout=60).status_code)

    asking = threading.Thread(target=ask)
    asking.start()
    assert sent.wait(30)
    one.health()  # what was sent before it has arrived
    one.process.send_signal(signum)
    wait_until(lambda: one.health() == 503)
    go.set()
    asking.join(60)
    assert answers == [200]
    assert one.status() == 0
    assert one.lines[-1] == "Stopped: all that was asked is answered"


@needs_signals
def test_a_second_signal_ends_it_at_once(served):
    one = served("--timeout", "3600")
    head = b"POST /v1/detect HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n"
    head += b"Content-Type: multipart/form-data; boundary=X\r\n\r\n--X\r\n"
    host, port = one.address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as slow:
        slow.sendall(head)
        one.health()  # what was sent before it has arrived
        one.process.send_signal(signal.SIGTERM)
        wait_until(lambda: one.health() == 503)
        assert one.end() == 128 + signal.SIGTERM  # an hour before the upload must have come
    assert one.lines[-1] == "Interrupted."


def test_another_address_than_loopback_is_warned_of_and_takes_any_name(served):
    one = served("--host", "0.0.0.0")
    port = one.address.rpartition(":")[2]
    told = [line for line in one.lines if "WARNING" in line]
    assert len(told) == 1
    assert "no password" in told[0]
    answer = httpx.get(f"http://127.0.0.1:{port}/healthz", headers={"Host": "my.example"})
    assert answer.status_code == 200
    assert one.end() in (0, 1 if sys.platform == "win32" else 0)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--weights", "missing.pt"], "missing.pt"),
        (["--weights", "README.md"], "--weights: expected a file or folder that ends in"),
        (["--port", "70000"], "--port: 0 to 65535 was expected, got 70000"),
        (["--host", "no.such.host.invalid"], "--host no.such.host.invalid --port 8000: an address to listen on"),
        (["--imgsz", "0"], "--imgsz: expected"),
        (["--max-batch", "0"], "--max-batch: 1 or more was expected, got 0"),
        (["--max-mb", "0"], "--max-mb: 1 to 2048 was expected, got 0"),
        (["--timeout", "0"], "--timeout: 1 or more was expected, got 0"),
    ],
)
def test_options_that_cannot_be_used_are_a_sentence(options, told, weights, monkeypatch, capsys):
    monkeypatch.setenv("OPENCV_IO_MAX_IMAGE_PIXELS", "1000000")
    given = options if "--weights" in options else ["--weights", weights, *options]
    with pytest.raises(SystemExit) as ended:
        serve.main(serve.parse_opt([*given, "--device", "cpu"]))
    assert ended.value.code == 1
    assert told in capsys.readouterr().err


def test_a_port_that_is_taken_is_told(weights, monkeypatch, capsys):
    monkeypatch.setenv("OPENCV_IO_MAX_IMAGE_PIXELS", "1000000")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        opt = serve.parse_opt(["--weights", weights, "--port", port, "--device", "cpu"])
        with pytest.raises(SystemExit):
            serve.main(opt)
    assert f"--port {port}: an address to listen on was expected" in capsys.readouterr().err


def test_without_weights_the_newest_best_is_asked_for(tmp_path, monkeypatch):
    from utils.errors import InputError

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENCV_IO_MAX_IMAGE_PIXELS", "1000000")
    with pytest.raises(InputError, match=r"no best.pt below .*: train a model first"):
        serve.run()


def test_run_takes_the_flags_alone():
    with pytest.raises(TypeError, match=r"run\(\) takes weights, imgsz, .*, got wieghts"):
        serve.run(wieghts="best.pt")


def test_without_its_packages_it_says_how_to_get_them(monkeypatch):
    from utils import extras
    from utils.errors import InputError

    monkeypatch.setattr(extras, "find_spec", lambda name: None if name == "fastapi" else object())
    monkeypatch.setenv("OPENCV_IO_MAX_IMAGE_PIXELS", "1000000")
    with pytest.raises(InputError, match="needs fastapi, not installed here: pip install -r requirements-serve.txt"):
        serve.run()
