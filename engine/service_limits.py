"""What a client of the service may ask for, and the exception that refuses more. Not for checking pictures:
engine/service_pictures.py."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

UPLOADS = 8  # bodies of the largest size that may be in memory at a time
LONGEST_QUOTED = 60  # characters


class ServiceError(Exception):
    """A request that is answered with an error: the HTTP status, and one sentence for {"error": ...} that tells what
    was expected and what was got."""

    def __init__(self, status: int, told: str) -> None:
        super().__init__(told)
        self.status, self.told = status, told


def quoted(text: str) -> str:
    """What a client has sent as part of a sentence: in quotes, clipped to LONGEST_QUOTED characters, and those that
    would not be seen escaped."""
    return repr(text if len(text) <= LONGEST_QUOTED else f"{text[:LONGEST_QUOTED]}...")


@dataclass(frozen=True)
class Limits:
    """pictures: of one request. bytes: of its body. pixels: of one picture. queue: pictures that wait for one model.
    seconds: for an upload to arrive, as many again to decode its pictures, and again for the model."""

    pictures: int = 16
    bytes: int = 32 * 2**20
    pixels: int = 50_000_000
    queue: int = 128
    seconds: float = 30.0


class UploadMemory:
    """Counts the bytes of all uploads that are in memory, so that many clients together cannot fill it."""

    def __init__(self, limit: int) -> None:
        self.limit, self._held, self._lock = limit, 0, threading.Lock()

    @property
    def held(self) -> int:
        """Bytes in memory now."""
        return self._held

    @contextmanager
    def share(self) -> Iterator["Share"]:
        """The bytes of one request, which are given back at the end of the block."""
        share = Share(self)
        try:
            yield share
        finally:
            self._change(-share.bytes)

    def _change(self, count: int) -> None:
        with self._lock:
            if count > 0 and self._held + count > self.limit:
                raise ServiceError(503, "the service has as many uploads in memory as it takes: try again later")
            self._held += count


class Share:
    """What one request holds of an UploadMemory."""

    def __init__(self, memory: UploadMemory) -> None:
        self._memory, self.bytes = memory, 0

    def add(self, count: int) -> None:
        """Takes so many bytes more. Raises ServiceError 503 where there are none."""
        self._memory._change(count)
        self.bytes += count
