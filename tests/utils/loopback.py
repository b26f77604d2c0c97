"""Servers on the loopback interface that tests download and stream from."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np

GENEROUS_S = 60  # until a test says that something does not come


def wait_until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + GENEROUS_S
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True


def start_server(answer: Callable[[BaseHTTPRequestHandler], None], port: int = 0) -> _Server:
    """A server whose GET requests `answer` answers; clients that hang up are no error."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with suppress(ConnectionError):
                answer(self)

        def log_message(self, *_: object) -> None:
            pass

    server = _Server(("127.0.0.1", port), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    return server


@contextmanager
def serving(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[str]:
    """The address of such a server, without a slash at its end."""
    server = start_server(answer)
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def head(handler: BaseHTTPRequestHandler, status: int = 200, **headers: object) -> None:
    """Sends the head of an answer; Content_Type="text/html" -> Content-Type: text/html."""
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), str(value))
    handler.end_headers()


def jpeg(level: int, size_hw: tuple[int, int] = (48, 64)) -> bytes:
    """A grey picture."""
    return cv2.imencode(".jpg", np.full((*size_hw, 3), level, np.uint8))[1].tobytes()


class Camera:
    """Sends grey pictures without an end, as MJPEG over HTTP. It can be unplugged, plugged in again at the same
    address, and muted: those connected get no more pictures, and nobody else is let in."""

    def __init__(self, level: int = 100, port: int = 0) -> None:
        self.pictures = [jpeg(level)]  # one after the other, again and again
        self.sent = 0
        self.muted = False
        self._port = port
        self.plug()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/cam"

    def plug(self) -> None:
        self._unplugged = threading.Event()
        self._server = start_server(self._stream, self._port)
        self._port = self._server.server_port

    def unplug(self) -> None:
        self._unplugged.set()
        self._server.shutdown()
        self._server.server_close()

    def _stream(self, handler: BaseHTTPRequestHandler) -> None:
        unplugged = self._unplugged
        if self.muted:
            return
        head(handler, Content_Type="multipart/x-mixed-replace; boundary=frame")
        while not unplugged.wait(0.01):
            if not self.muted:
                picture = self.pictures[self.sent % len(self.pictures)]
                part = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n".encode()
                handler.wfile.write(part + picture + b"\r\n")
                self.sent += 1
