"""What every request passes on its way in and out: who may ask, which headers an answer has, one line of log. Not for
what is answered: engine/service.py.

A service on the loopback interface has no password, and any page that its user's browser shows can send requests to
it. Requests under another name (DNS rebinding) and those that another page sends are refused; no answer may be read by
another page, as no CORS header is ever sent.
"""

import json
import time
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any
from urllib.parse import urlsplit

import anyio

from engine.service_limits import quoted
from utils.log import LOGGER

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Scope]]
Send = Callable[[Scope], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

LOOPBACK = ("127.0.0.1", "localhost", "::1")
READS = ("GET", "HEAD")
REFUSED, TOO_SLOW = 400, 408  # statuses
DRAIN_BYTES, DRAIN_SECONDS = 2**28, 2.0
MOST_HEADERS, HEADER_BYTES = 100, 32_000
LONGEST_LOGGED = 100  # characters of a path
POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}


class Guard:
    """An ASGI application around another one.

    allowed_hosts: names that requests may be sent to, without ports; None for any.
    """

    def __init__(self, application: Application, *, allowed_hosts: Collection[str] | None) -> None:
        self.application = application
        self.allowed_hosts = None if allowed_hosts is None else {host.lower().strip("[]") for host in allowed_hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuses or passes on one request."""
        if scope["type"] != "http":
            await self.application(scope, receive, send)
            return
        begun, status = time.perf_counter(), 0
        body = _Body(scope, receive)

        async def send_on(message: Scope) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if status >= REFUSED and status != TOO_SLOW:
                    await body.drain()
                message["headers"] = _with_headers(message.get("headers", []))
            await send(message)

        try:
            if refusal := self._refusal(scope):
                await _answer(send_on, *refusal)
            else:
                await self.application(scope, body.receive, send_on)
        finally:
            _log(scope, status, 1000 * (time.perf_counter() - begun))

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        if len(scope["headers"]) > MOST_HEADERS or sum(len(value) for _, value in scope["headers"]) > HEADER_BYTES:
            return 431, f"at most {MOST_HEADERS} headers and {HEADER_BYTES} bytes in them were expected, got more"
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get(b"host", "")
        if self.allowed_hosts is not None and _name(host) not in self.allowed_hosts:
            return 400, f"a Host of {', '.join(sorted(self.allowed_hosts))} was expected, got {quoted(host)}"
        origin = headers.get(b"origin", f"http://{host}").lower()
        if scope["method"] not in READS and origin not in (f"http://{host}".lower(), f"https://{host}".lower()):
            return 403, "a request of this service's own page was expected, got one that another page sent"
        return None


class _Body:
    """The body of a request. Whoever is refused before all of it has come is still sending, and a connection that is
    closed meanwhile would lose them the answer: so what is left is read and dropped, within limits."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self._receive = receive
        self._ended = any(name == b"expect" for name, _ in scope["headers"])  # then they wait to be asked for it

    async def receive(self) -> Scope:
        """The next message, as the application asks for it."""
        message = await self._receive()
        self._ended = message["type"] == "http.disconnect" or not message.get("more_body", False)
        return message

    async def drain(self) -> None:
        """Drops what is left."""
        dropped = 0
        with anyio.move_on_after(DRAIN_SECONDS):
            while not self._ended and dropped < DRAIN_BYTES:
                dropped += len((await self.receive()).get("body", b""))


def _name(host: str) -> str:
    """A Host header without its port: [::1]:8000 -> ::1."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:  # brackets without an address
        return ""


def _with_headers(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    present = {name.lower() for name, _ in headers}
    ours = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
    return [*headers, *(item for item in ours if item[0] not in present)]


async def _answer(send: Send, status: int, told: str) -> None:
    body = json.dumps({"error": told}).encode()
    length = (b"content-length", str(len(body)).encode())
    headers = [(b"content-type", b"application/json"), length, (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _log(scope: Scope, status: int, milliseconds: float) -> None:
    """One line, but none for what monitors ask each second."""
    if scope["path"] == "/healthz" and status == 200:
        return
    path = scope["path"].encode("ascii", "backslashreplace").decode()
    printable = "".join(c if c.isprintable() else "?" for c in path)[:LONGEST_LOGGED]
    LOGGER.info(f"{scope['method'][:10]} {printable} {status}, {milliseconds:.0f} ms")
