"""Downloads files from the web: over http and https alone, whole or not at all, within limits. Not for checking what is
in them (utils/web_files.py does, for images and videos), nor for streams, which have no end (utils/streams.py)."""

import base64
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException, HTTPMessage, HTTPResponse
from pathlib import Path
from typing import IO
from urllib import request
from urllib.error import HTTPError, URLError
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit

from utils.errors import InputError
from utils.files import atomic_write
from utils.log import LOGGER

SCHEMES = ("http", "https")
MAX_BYTES = 2**30
SILENCE_S = 10.0  # without a byte
WHOLE_S = 3600.0  # for all of the content: MAX_BYTES at 300 kB/s
CHUNK = 2**16  # bytes
LONGEST_NAME = 60  # characters of a file's name, of up to four bytes each; file systems take 255 bytes
LIVE_CONTENT = "multipart/x-mixed-replace"  # one picture after the other without an end, as web cameras send


class LiveContent(InputError):
    """The address does not give a file, but pictures without an end."""


def is_web_address(text: str) -> bool:
    """Whether it begins as an address that fetch() takes; checked_url() tells what is wrong with the rest."""
    return text.lower().startswith(tuple(f"{scheme}://" for scheme in SCHEMES))


def fetch(url: str, file: str | Path, *, max_bytes: int = MAX_BYTES, timeout: float = SILENCE_S) -> Path:
    """Downloads `url` to `file`, which is replaced once everything is there, and returns its path. The log tells the
    address and the size once. User and password of the address are sent to its host alone.

    Args:
        url: http or https; redirects may lead to these alone, and not from https to http.
        max_bytes: more is refused, where possible before it is sent.
        timeout: seconds in which the server may be silent. The content must be there within WHOLE_S.

    Raises InputError, in one sentence with the address, where that fails: LiveContent where it would never end.
    """
    file = Path(file)
    with _answer(url, timeout) as answer:
        size = _size(answer)
        if _is_live(answer):
            raise LiveContent(f"expected a file at {shown(url)}, got a live stream ({LIVE_CONTENT})")
        if size is not None and size > max_bytes:
            raise InputError(f"expected at most {_bytes(max_bytes)} at {shown(url)}, got {_bytes(size)}")
        LOGGER.info(f"Downloading {shown(url)} ({'size not told' if size is None else _bytes(size)}) to {file}")
        with atomic_write(file) as output:
            _save(answer, output, url, size=size, max_bytes=max_bytes)
    return file


def shown(url: str) -> str:
    """An address as others may read it: without user and password, and with `...` for what is behind a question mark.
    What is no address stays as it is."""
    scheme, colon, rest = url.partition("://")
    if not colon:
        return url
    place, question_mark, _ = rest.partition("#")[0].partition("?")
    host, slash, path = place.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}{'?...' if question_mark else ''}"


def file_name(url: str) -> str:
    """The name of the file at an address, made safe: letters, digits, `_`, `-` and `.`, no dot at its start, and at
    most LONGEST_NAME characters with the suffix, which is kept."""
    name = re.sub(r"[^\w.-]", "_", unquote(urlsplit(url).path.rpartition("/")[2])).lstrip(".") or "file"
    suffix = Path(name).suffix[-LONGEST_NAME // 2 :]
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - len(suffix)] + suffix


def checked_url(url: str, schemes: tuple[str, ...] = SCHEMES) -> SplitResult:
    """The parts of an address that names a host and has one of the schemes. Raises InputError for others."""
    expected = " or ".join(f"{scheme}://" for scheme in schemes)
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises where it is no number from 0 to 65535
    except ValueError as error:
        raise InputError(f"expected an address {expected}..., got {shown(url)!r}: {error}") from error
    if parts.scheme not in schemes or not parts.hostname or re.search(r"[\x00-\x1f\x7f]", url):
        raise InputError(f"expected an address {expected}host/..., got {shown(url)!r}")
    return parts


# ------------------------------------------------------------------------------------------------------------- request
class _Redirects(request.HTTPRedirectHandler):
    """Follows to http and https alone, never from https to http, and takes no password to another host."""

    def redirect_request(
        self, req: request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> request.Request | None:
        target = urljoin(req.full_url, newurl)
        old, new = urlsplit(req.full_url), checked_url(target)
        if (old.scheme, new.scheme) == ("https", "http"):
            raise InputError(f"redirected from https to {shown(target)}, which is not encrypted")
        followed = super().redirect_request(req, fp, code, msg, headers, target)
        if followed is not None and (old.scheme, old.netloc) != (new.scheme, new.netloc):
            followed.remove_header("Authorization")
        return followed


def _opener() -> request.OpenerDirector:
    """urllib's, but without its handlers for addresses of files, ftp and data."""
    proxies = {scheme: proxy for scheme, proxy in request.getproxies().items() if scheme in SCHEMES}
    opener = request.OpenerDirector()
    for handler in (
        request.ProxyHandler(proxies),
        request.HTTPHandler(),
        request.HTTPSHandler(),
        request.HTTPDefaultErrorHandler(),
        request.HTTPErrorProcessor(),
        _Redirects(),
    ):
        opener.add_handler(handler)
    return opener


def _request(url: str) -> request.Request:
    """A GET of the address, which may have spaces, letters of any script, user and password."""
    parts = checked_url(url)
    credentials, _, host = parts.netloc.rpartition("@")
    try:
        host = host.encode("idna").decode() if not host.isascii() else host
    except UnicodeError as error:
        raise InputError(f"expected the name of a host in {shown(url)!r}: {error}") from error
    path, query = (quote(part, safe="/%:@!$&'()*+,;=?~") for part in (parts.path, parts.query))
    asked = request.Request(parts._replace(netloc=host, path=path or "/", query=query, fragment="").geturl())
    asked.add_header("User-Agent", "yolov5-dynamic")
    if credentials:
        secret = base64.b64encode(unquote(credentials).encode()).decode()
        asked.add_header("Authorization", f"Basic {secret}")
    return asked


@contextmanager
def _answer(url: str, timeout: float) -> Iterator[HTTPResponse]:
    """The server's answer, of which the head has been read."""
    asked = _request(url)
    with _readable_failures(url):
        answer = _opener().open(asked, timeout=timeout)
    with answer:
        yield answer


@contextmanager
def _readable_failures(url: str) -> Iterator[None]:
    """Turns what can go wrong on the way into an InputError."""
    try:
        yield
    except InputError as error:
        raise InputError(f"cannot download {shown(url)}: {error}") from error
    except HTTPError as error:
        error.close()
        raise InputError(f"cannot download {shown(url)}: the server says {error.code} {_line(error.reason)}") from error
    except TimeoutError as error:
        raise InputError(f"cannot download {shown(url)}: the server is silent") from error
    except URLError as error:
        reason = "the server is silent" if isinstance(error.reason, TimeoutError) else _line(error.reason)
        raise InputError(f"cannot download {shown(url)}: {reason}") from error
    except (OSError, HTTPException, ValueError) as error:
        raise InputError(f"cannot download {shown(url)}: {type(error).__name__}: {_line(error)}") from error


def _line(reason: object) -> str:
    """As text on one line."""
    return " ".join(str(reason).split())


# ------------------------------------------------------------------------------------------------------------- content
def _size(answer: HTTPResponse) -> int | None:
    """Bytes of the content; None where the server does not say."""
    told = answer.headers.get("Content-Length", "")
    return int(told) if re.fullmatch("[0-9]{1,18}", told) else None


def _is_live(answer: HTTPResponse) -> bool:
    return answer.headers.get_content_type() == LIVE_CONTENT


def _chunks(answer: HTTPResponse, url: str) -> Iterator[bytes]:
    """The content as it comes. read1 returns after each packet, so that a server that sends a byte now and then cannot
    hold us longer than WHOLE_S."""
    end = time.monotonic() + WHOLE_S
    while True:
        with _readable_failures(url):
            chunk = answer.read1(CHUNK)
        if not chunk:
            return
        yield chunk
        if time.monotonic() > end:
            raise InputError(f"cannot download {shown(url)}: it takes longer than {WHOLE_S:.0f} s")


def _save(answer: HTTPResponse, output: IO[bytes], url: str, *, size: int | None, max_bytes: int) -> None:
    """Writes the content. Raises InputError where it is too large or ends early."""
    received = 0
    for chunk in _chunks(answer, url):
        received += len(chunk)
        if received > max_bytes:
            raise InputError(f"expected at most {_bytes(max_bytes)} at {shown(url)}, got more")
        output.write(chunk)
    if size is not None and received != size:
        raise InputError(f"cannot download {shown(url)}: it broke off after {_bytes(received)} of {_bytes(size)}")


def _bytes(count: int) -> str:
    """1234567 -> "1.2 MB"."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"
