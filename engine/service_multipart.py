"""Cuts multipart/form-data into its parts as it arrives (RFC 7578, RFC 2046). Not for what the parts mean:
engine/service_form.py.

The packages for it write to temporary files, or call back for each line end in a picture; a boundary is found by
bytes.find in a tenth of the time that the picture takes to decode.
"""

import re
from collections.abc import Callable

LONGEST_HEAD, LONGEST_BOUNDARY = 8000, 200  # bytes
PARAMETER = re.compile(r';\s*([\w*-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;"\s]*))', re.ASCII)

Take = Callable[[bytes], None]


class MultipartError(ValueError):
    """The body is not what it says it is; the message tells how."""


class Multipart:
    """A body as parts. begin_part: from a part's Content-Disposition to what takes its content, piece by piece.

    Attributes:
        ended: whether the last boundary has come; what follows it is dropped.
    """

    def __init__(self, boundary: bytes, begin_part: Callable[[str], Take]) -> None:
        if not 0 < len(boundary) <= LONGEST_BOUNDARY:
            raise MultipartError(f"its boundary has {len(boundary)} bytes, not 1 to {LONGEST_BOUNDARY}")
        self.ended = False
        self._delimiter = b"\r\n--" + boundary
        self._buffer = bytearray(b"\r\n")  # so that the first boundary begins as the others do
        self._begin_part = begin_part
        self._take: Take = _refuse_preamble
        self._step: Callable[[], bool] = self._content

    def feed(self, chunk: bytes) -> None:
        """The next piece of the body. Raises MultipartError."""
        if self.ended:
            return
        self._buffer += chunk
        while self._step() and not self.ended:
            pass

    def _content(self) -> bool:
        """Takes content up to the next boundary, or all that cannot be part of one. Returns whether to go on."""
        at = self._buffer.find(self._delimiter)
        certain = at if at >= 0 else max(len(self._buffer) - len(self._delimiter) + 1, 0)
        if certain:
            self._take(bytes(self._buffer[:certain]))
            del self._buffer[:certain]
        if at >= 0:
            self._step = self._boundary
        return at >= 0

    def _boundary(self) -> bool:
        """Passes a boundary, behind which the next part's head begins with the end of the line."""
        length = len(self._delimiter)
        behind = bytes(self._buffer[length : length + 2])
        if len(behind) < 2:
            return False
        if behind not in (b"--", b"\r\n"):
            raise MultipartError("a boundary is followed by something else")
        del self._buffer[:length]
        self.ended = behind == b"--"
        self._step = self._head
        return True

    def _head(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n", 0, LONGEST_HEAD)
        if end < 0:
            if len(self._buffer) >= LONGEST_HEAD:
                raise MultipartError(f"the head of a part has more than {LONGEST_HEAD} bytes")
            return False
        head = bytes(self._buffer[:end]).decode("utf-8", "replace")
        del self._buffer[: end + 4]
        lines = [line.partition(":") for line in head.split("\r\n")]
        found = [value for name, _, value in lines if name.strip().lower() == "content-disposition"]
        if len(found) != 1:
            raise MultipartError("a part of it does not say once what it is")
        self._take = self._begin_part(found[0])
        self._step = self._content
        return True


def header_parameters(value: str) -> tuple[str, dict[str, str]]:
    """A header such as `form-data; name="a"` -> ("form-data", {"name": "a"}). Of parameters that are given twice the
    first counts; RFC 7578 has none of the extended kind (name*=), which are left out."""
    kind = value.partition(";")[0].strip().lower()
    parameters: dict[str, str] = {}
    for name, quoted, plain in PARAMETER.findall(value):
        parameters.setdefault(name.lower(), re.sub(r'\\(["\\])', r"\1", quoted) if quoted else plain)
    return kind, parameters


def _refuse_preamble(_: bytes) -> None:
    raise MultipartError("it does not begin with its boundary")
