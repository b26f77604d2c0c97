"""Hostile uploads to the service: broken, huge, bombs, of wrong types, with tricks in names, heads and bodies. Each is
answered with a clear 4xx or cut off, and the service goes on."""

import contextlib
import io
import json
import struct
import threading
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.serving import made_service, picture, raw, running, tiny_weights
from utils.memory import forget_peak, peak_memory

httpx = pytest.importorskip("httpx", reason="needs requirements-dev.txt")
pytest.importorskip("fastapi", reason="needs requirements-serve.txt")

PIXELS, BYTES, SECONDS = 1_000_000, 1_000_000, 2.0
ENDLESS_S = 100  # a client that is not cut off by then is not cut off
GROWN = 300 * 2**20  # bytes of memory that no upload may take; a bomb here is of gigabytes


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return [tiny_weights(tmp_path_factory.mktemp("weights") / "best.pt")]


@pytest.fixture(scope="module")
def address(weights):
    with running(made_service(weights, pictures=3, bytes=BYTES, pixels=PIXELS, seconds=120)) as address:
        yield address


@pytest.fixture(scope="module")
def impatient(weights):
    """The address of a service that waits for little."""
    from engine import service_connection

    patience = service_connection.HEAD_SECONDS
    service_connection.HEAD_SECONDS = SECONDS
    with running(made_service(weights, bytes=BYTES, seconds=SECONDS)) as address:
        yield address
    service_connection.HEAD_SECONDS = patience


def goes_on(address: str, tries: int = 1) -> None:
    """tries: where the service waits for little, and this machine may be busy."""
    files = {"pictures": picture()}
    answers = (httpx.post(f"{address}/v1/detect", files=files, timeout=120).status_code for _ in range(tries))
    assert any(status == 200 for status in answers)


def clear(answer: bytes) -> str:
    """The sentence of an answer to a refused request."""
    told = json.loads(answer.rpartition(b"\r\n\r\n")[2])
    assert list(told) == ["error"]
    assert 10 < len(told["error"]) < 400
    assert told["error"].isprintable()
    assert "Traceback" not in told["error"]
    return told["error"]


# --------------------------------------------------------------------------------------------------------- files alone
def chunk(kind: bytes, content: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum


def png(width: int, height: int, *, body: bytes | None = None, extra: bytes = b"") -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    rows = zlib.compress(bytes(min(height * (3 * width + 1), 50_000_000)), 9) if body is None else body
    return b"\x89PNG\r\n\x1a\n" + head + extra + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def saved(image: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def bmp(width: int, height: int) -> bytes:
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + head


def jpeg_of(width: int, height: int) -> bytes:
    """A small JPEG whose head claims another size."""
    content = bytearray(picture(".jpg"))
    at = content.index(b"\xff\xc0")
    content[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(content)


def tiff_of(width: int, height: int) -> bytes:
    """A TIFF of one strip with nothing in it."""
    entries = [(256, width), (257, height), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, height), (279, 8)]
    fields = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(entries)) + fields + struct.pack("<I", 0)


def webp_of(width: int, height: int) -> bytes:
    canvas = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    extended = b"VP8X" + struct.pack("<I", 10) + bytes(4) + canvas
    return b"RIFF" + struct.pack("<I", 4 + len(extended)) + b"WEBP" + extended


FLAT = Image.new("RGB", (40, 30), "teal")
CONTENTS = {
    "nothing": (b"", 415),
    "a zero byte": (b"\0", 415),
    "zeros": (bytes(100_000), 415),
    "noise": (np.random.default_rng(0).bytes(100_000), 415),
    "text": (b"hello", 415),
    "HTML": (b"<html><script>alert(1)</script></html>", 415),
    "SVG": (b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>', 415),
    "XML with entities": (b'<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>', 415),
    "PostScript": (saved(FLAT, "EPS"), 415),
    "PostScript in a DOS head": (b"\xc5\xd0\xd3\xc6" + saved(FLAT, "EPS"), 415),
    "PDF": (saved(FLAT, "PDF"), 415),
    "ZIP": (b"PK\x03\x04" + bytes(100), 415),
    "a pickle": (b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94.", 415),
    "a program": (b"\x7fELF" + bytes(1000), 415),
    "a GIF": (saved(FLAT, "GIF"), 415),
    "an icon": (saved(FLAT, "ICO"), 415),
    "a video's head": (b"\0\0\0\x20ftypisom" + bytes(500), 415),
    "MVG": (b"push graphic-context\nimage over 0,0 0,0 'https://example.com/a.png'\npop graphic-context", 415),
    "a list of addresses": (b"http://127.0.0.1/a.png\nfile:///etc/passwd\n", 415),
    "a path": (b"/etc/passwd", 415),
    "PNG: its signature alone": (b"\x89PNG\r\n\x1a\n", 415),
    "PNG: no pixels": (png(0, 10), 415),
    "PNG: no rows": (png(40, 30, body=b""), None),
    "PNG: rows of noise": (png(40, 30, body=b"\xff" * 100), None),
    "PNG: a wrong checksum in the head": (png(40, 30).replace(b"IHDR\0\0\0\x28", b"IHDR\0\0\0\x29"), 415),
    "PNG: a bomb": (png(60_000, 60_000), 413),
    "PNG: a bomb in one column": (png(1, 2_000_000), 413),
    "PNG: the largest there is": (png(2**31 - 1, 2**31 - 1, body=b""), 413),
    "PNG: a little beyond the limit": (png(1001, 1000), 413),
    "PNG: a bomb as text": (
        png(40, 30, extra=chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(200_000_000), 9))),
        None,
    ),
    "PNG: a bomb as colour profile": (
        png(40, 30, extra=chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(200_000_000), 9))),
        None,
    ),
    "JPEG: its first bytes": (picture(".jpg")[:20], 415),
    "JPEG: markers alone": (b"\xff\xd8" + b"\xff\xe0\0\x02" * 10_000 + b"\xff\xd9", 415),
    "JPEG: a size of zero": (jpeg_of(0, 0), 415),
    "JPEG: a size of 65535": (jpeg_of(65_535, 65_535), 413),
    "BMP: no pixels": (bmp(0, 0), 415),
    "BMP: a negative width": (bmp(-40, 30), None),
    "BMP: billions of pixels": (bmp(2**31 - 1, 2**31 - 1), 413),
    "BMP: a bomb": (bmp(30_000, 30_000), 413),
    "TIFF: its head alone": (b"II*\0", 415),
    "TIFF: a directory that is its own next": (b"II*\0\x08\0\0\0" + struct.pack("<HI", 0, 8), 415),
    "TIFF: a bomb": (tiff_of(100_000, 100_000), 413),
    "TIFF: an offset beyond its end": (b"II*\0\xff\xff\xff\xff" + bytes(50), 415),
    "TIFF: thousands of fields": (b"II*\0\x08\0\0\0\xff\xff" + bytes(12 * 65_535), 415),
    "WebP: its head alone": (b"RIFF\x04\0\0\0WEBP", 415),
    "WebP: a bomb": (webp_of(16_000, 16_000), None),
    "WebP: a canvas of 2^48 pixels": (webp_of(2**24, 2**24), None),
    "a picture that is another's tail": (b"GIF89a" + picture(), 415),
    "a picture behind zeros": (bytes(512) + picture(), 415),
}


@pytest.mark.parametrize(("content", "status"), CONTENTS.values(), ids=CONTENTS)
def test_files(address, content, status):
    """status None: 413 or 415, as the decoders' versions have it; or 200, where what is odd is beside the picture,
    or it ends too early."""
    forget_peak()
    before = peak_memory()
    answer = httpx.post(f"{address}/v1/detect", files={"pictures": ("a.png", content)}, timeout=120)
    assert answer.status_code in ((status,) if status else (200, 413, 415)), answer.text
    if answer.status_code != 200:
        assert "a.png" in clear(b"\r\n\r\n" + answer.content)
    if before is not None:
        assert peak_memory() - before < GROWN
    goes_on(address)


# --------------------------------------------------------------------------------------------------------------- names
NAMES = [
    "../../../../etc/passwd",
    "..\\..\\windows\\win.ini",
    "/etc/passwd",
    "C:\\con",
    "file:///etc/passwd",
    "http://169.254.169.254/latest",
    "a.png; rm -rf /",
    "$(touch canary)",
    "`touch canary`",
    "| touch canary",
    "%00.png",
    "%s%n%x",
    "\u202egnp.exe",
    "<img src=x onerror=alert(1)>.png",
    "x" * 3000,
    " . ",
]


@pytest.mark.parametrize("name", NAMES)
def test_names_are_echoed_alone(address, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    answer = httpx.post(f"{address}/v1/detect", files={"pictures": (name, picture())}, timeout=120)
    assert answer.status_code == 200
    told = answer.json()["pictures"][0]["filename"]
    assert told
    assert told.isprintable()
    assert "/" not in told.replace("%2F", "")
    assert len(told) <= 100
    assert not list(tmp_path.iterdir())


def test_no_file_or_address_of_a_client_is_opened(address, monkeypatch):
    """Fields that other services take as a path are unknown here; the content of a picture is never one."""
    for field in ("source", "url", "path", "image_url", "file", "weights"):
        answer = httpx.post(
            f"{address}/v1/detect", files={"pictures": picture()}, data={field: "/etc/passwd"}, timeout=60
        )
        assert answer.status_code == 422
    answer = httpx.post(f"{address}/v1/detect", files={"pictures": picture()}, data={"model": "../../etc/passwd"})
    assert answer.status_code == 404


# ----------------------------------------------------------------------------------------------------- heads and bodies
def body_of(content: bytes, boundary: str = "XX") -> bytes:
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="pictures"; filename="a"\r\n\r\n'
    return head.encode() + content + f"\r\n--{boundary}--\r\n".encode()


def post(body: bytes, *lines: str, length: int | None = None, kind: str = "multipart/form-data; boundary=XX") -> bytes:
    lengths = [] if length == -1 else [f"Content-Length: {len(body) if length is None else length}"]
    head = ["POST /v1/detect HTTP/1.1", "Host: localhost", f"Content-Type: {kind}", *lengths, *lines]
    return "\r\n".join([*head, "Connection: close", "", ""]).encode("latin-1") + body


GOOD = body_of(picture())
CHUNKED = "Transfer-Encoding: chunked"


def chunks(*parts: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


REQUESTS = {
    "a length below the body's": (post(GOOD, length=len(GOOD) - 5), 400),
    "a length of zero": (post(GOOD, length=0), 400),
    "a length beyond the limit": (post(GOOD, length=10**15), 413),
    "a negative length": (post(GOOD, length=-2), 400),
    "a length that is none": (post(GOOD, "Content-Length: x", length=-1), 400),
    "two lengths": (post(GOOD, "Content-Length: 5"), 400),
    "neither length nor chunks": (post(GOOD, length=-1), 400),
    "chunks beyond the limit": (post(chunks(*[bytes(100_000)] * 15), CHUNKED, length=-1), (400, 413)),
    "a picture in chunks beyond the limit": (
        post(chunks(body_of(b"")[:80], *[bytes(100_000)] * 15), CHUNKED, length=-1),
        413,
    ),
    "chunks of no size": (post(b"x\r\n", CHUNKED, length=-1), 400),
    "another transfer encoding": (post(GOOD, "Transfer-Encoding: gzip", length=-1), (400, 501)),
    "a length and chunks": (post(chunks(b"1"), CHUNKED, length=5), 400),
    "compressed": (post(zlib.compress(GOOD), "Content-Encoding: deflate"), 400),
    "JSON": (post(b'{"pictures": ["/etc/passwd"]}', kind="application/json"), 415),
    "a picture alone": (post(picture(), kind="image/png"), 415),
    "urlencoded": (post(b"pictures=/etc/passwd", kind="application/x-www-form-urlencoded"), 415),
    "nested forms": (post(GOOD, kind="multipart/mixed; boundary=XX"), 415),
    "no boundary": (post(GOOD, kind="multipart/form-data"), 400),
    "a wrong boundary": (post(GOOD, kind="multipart/form-data; boundary=YY"), 400),
    "a long boundary": (post(GOOD, kind=f"multipart/form-data; boundary={'X' * 5000}"), 400),
    "a boundary of quotes": (post(GOOD, kind='multipart/form-data; boundary=""'), 400),
    "a thousand parts": (post(b"".join(body_of(b"")[:-8] for _ in range(1000)) + b"--XX--\r\n"), (400, 413)),
    "a part that never ends its head": (post(b"--XX\r\nContent-Disposition: form-data; x" + b"y" * 500_000), 400),
    "another host": (post(GOOD).replace(b"localhost", b"evil.example"), 400),
    "two hosts": (post(GOOD, "Host: localhost"), 400),
    "no host": (post(GOOD).replace(b"Host: localhost\r\n", b""), 400),
    "another page": (post(GOOD, "Origin: https://evil.example"), 403),
    "a head of 60 kB": (post(GOOD, f"X-Long: {'x' * 60_000}"), 431),
    "a head of a megabyte": (post(GOOD, f"X-Long: {'x' * 10**6}"), 400),
    "ten thousand headers": (post(GOOD, *["X-Many: 1"] * 10_000), (400, 431)),
    "a header with a line break": (post(GOOD, "X-Break: 1\n2 3"), 400),
    "a header with a zero": (post(GOOD, "X-Zero: \0"), 400),
    "no HTTP": (b"hello\r\n\r\n", 400),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500), 400),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "an unknown method": (post(GOOD).replace(b"POST", b"HACK", 1), 405),
    "a method of 5000 letters": (post(GOOD).replace(b"POST", b"A" * 5000, 1), 405),
    "a path of 50,000 letters": (post(GOOD).replace(b"/v1/detect", b"/" + b"a" * 50_000, 1), 404),
    "an absolute address": (post(GOOD).replace(b"/v1/detect", b"http://evil.example/v1/detect", 1), (400, 404)),
    "a path of zeros": (post(GOOD).replace(b"/v1/detect", b"/v1/detect%00", 1), 404),
    "to be upgraded": (post(b"", "Upgrade: websocket", "Connection: Upgrade"), 400),
}


@pytest.mark.parametrize(("request_", "status"), REQUESTS.values(), ids=REQUESTS)
def test_requests(address, request_, status):
    got, answer = raw(address, request_)
    assert got in (status if isinstance(status, tuple) else (status,)), answer[:500]
    clear(answer)
    goes_on(address)


# --------------------------------------------------------------------------------------------------------- slow clients
def seconds_until_cut(address: str, first: bytes, drop: bytes) -> tuple[int, float]:
    """Sends the first bytes, then one of `drop` each tenth of a second until the other side has had enough."""
    import socket

    host, port = address.removeprefix("http://").split(":")
    begun, came = time.monotonic(), b""
    with socket.create_connection((host, int(port)), timeout=0.1) as connection:
        connection.sendall(first)
        while time.monotonic() - begun < ENDLESS_S:
            try:
                connection.sendall(drop)
                if not (chunk := connection.recv(65536)):
                    break
                came += chunk
            except TimeoutError:
                continue
            except ConnectionError:
                break
    return int(came[9:12] or 0), time.monotonic() - begun


@pytest.mark.parametrize(
    ("first", "drop", "status"),
    [
        (b"", b"", 0),
        (b"POST /v1/detect HTTP/1.1\r\nHost: localhost\r\n", b"X", 0),
        (b"", b"P", 0),
        (post(GOOD[:50], length=1000), b"", 408),
        (post(GOOD[:50], length=100_000), b"x", 408),
        (post(GOOD[:50], CHUNKED, length=-1)[:-50], b"", 408),
        (post(b"", length=10**9), b"x", 413),
    ],
    ids=["silence", "a head", "a method", "a body", "bytes of a body", "chunks", "a body that was answered"],
)
def test_slow_clients_are_cut_off(impatient, first, drop, status):
    got, seconds = seconds_until_cut(impatient, first, drop)
    assert got == status
    assert seconds < ENDLESS_S
    goes_on(impatient, tries=5)


def test_slow_clients_do_not_keep_others_waiting(impatient):
    slow = [
        threading.Thread(target=seconds_until_cut, args=(impatient, post(GOOD[:50], length=100_000), b"x"))
        for _ in range(20)
    ]
    for thread in slow:
        thread.start()
    goes_on(impatient, tries=5)
    for thread in slow:
        thread.join()
    goes_on(impatient, tries=5)


def test_clients_that_hang_up_leave_nothing(address):
    import socket

    host, port = address.removeprefix("http://").split(":")
    for cut in (10, 150, 250, len(post(GOOD))):
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(post(GOOD)[:cut])
    goes_on(address)


def open_files() -> list[str]:
    """What this process holds open, connections excepted."""
    held = []
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the directory's own, which is closed by now
            held.append(str(link.readlink()))
    return sorted(name for name in held if not name.startswith("socket:"))


def test_no_upload_leaves_a_file_open(address):
    if not Path("/proc/self/fd").exists():
        pytest.skip("needs /proc")
    goes_on(address)
    before = open_files()
    for content in (picture(".bmp", (500, 500)), bytes(2 * BYTES), CONTENTS["PNG: no rows"][0], b"hello"):
        httpx.post(f"{address}/v1/detect", files={"pictures": content}, timeout=120)
    raw(address, post(GOOD[:50]))
    assert open_files() == before
