"""Image and video files on the web: downloaded when their turn comes, looked at, deleted. Not for streams
(utils/streams.py), nor for the download itself (utils/downloads.py)."""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from utils.downloads import MAX_BYTES, SILENCE_S, checked_url, fetch, file_name, is_web_address, shown
from utils.errors import InputError
from utils.frames import Frame, Source
from utils.log import LOGGER
from utils.media_files import is_media, is_video, read_frames

# How files of the kinds that we read begin: (offset, bytes). What begins otherwise is never given to a video reader: in
# a play list, say, it would follow the entries to files of this computer or to other hosts.
BEGINNINGS = {
    "image": (
        (0, b"\xff\xd8\xff"),  # jpg, mpo
        (0, b"\x89PNG"),
        (0, b"BM"),
        (0, b"II*\0"),  # tif, dng
        (0, b"MM\0*"),
        (8, b"WEBP"),
    ),
    "video": (
        (4, b"ftyp"),  # mp4, m4v, mov
        (4, b"moov"),
        (4, b"mdat"),
        (4, b"wide"),
        (4, b"free"),
        (4, b"skip"),
        (8, b"AVI "),
        (0, b"\x1a\x45\xdf\xa3"),  # mkv
        (0, b"\x30\x26\xb2\x75"),  # asf, wmv
        (0, b"\0\0\1\xba"),  # mpg
        (0, b"\0\0\1\xb3"),
        (0, b"\x47\x40"),  # mpg as MPEG-TS
        (0, b"GIF8"),
    ),
}


def is_web_file(address: str) -> bool:
    """Whether it is a web address whose file, by its name, is an image or a video."""
    return is_web_address(address) and is_media(Path(file_name(address)))


class WebFileSource(Source):
    """The frames of files at http and https addresses, in their order. A single file is downloaded at once, several
    when their turn comes; each is deleted after its frames, at the latest by close(). One that cannot be had
    is told in the log, kept in `skipped` and does not stop the rest.

    Args:
        addresses: is_web_file() holds for each.
        vid_stride: of a video the 1st frame and every vid_stride-th after it.
        max_bytes, timeout: see downloads.fetch.

    Raises InputError where an address is malformed, or where a single file cannot be had (LiveContent where it is a
    stream).

    Differs from v6.1: downloaded to a temporary directory, not to the working directory, within limits; the content
    must be an image or a video.
    """

    def __init__(
        self, addresses: Sequence[str], *, vid_stride: int = 1, max_bytes: int = MAX_BYTES, timeout: float = SILENCE_S
    ) -> None:
        for address in addresses:
            checked_url(address)
        self.vid_stride, self.max_bytes, self.timeout = vid_stride, max_bytes, timeout
        self.skipped = []
        self._folder = tempfile.TemporaryDirectory(prefix="yolov5_", ignore_cleanup_errors=True)
        folders = [Path(self._folder.name) / str(number) for number in range(1, len(addresses) + 1)]
        self._addresses = {
            folder / file_name(address): address for folder, address in zip(folders, addresses, strict=True)
        }
        self.paths = list(self._addresses)
        if len(self.paths) == 1:
            self._fetch_or_close(self.paths[0])

    def __iter__(self) -> Iterator[list[Frame]]:
        # FileSource's loop, in a copy: here a fetch, a log without paths and a deletion stand in the middle of it
        self.skipped.clear()
        for index, path in enumerate(self.paths, start=1):
            if self._asked_to_end():
                return
            try:
                self._fetch(path)
                yield from read_frames(path, index, len(self), vid_stride=self.vid_stride)
            except InputError as error:
                LOGGER.warning(f"file {index}/{len(self)} skipped: {error}")
                self.skipped.append(path)
            finally:
                path.unlink(missing_ok=True)

    def place(self, path: Path) -> str:
        """The address, without user, password and query."""
        return shown(self._addresses[path])

    def close(self) -> None:
        """Deletes what has been downloaded."""
        self._folder.cleanup()

    def _fetch_or_close(self, path: Path) -> None:
        try:
            self._fetch(path)
        except BaseException:
            self.close()
            raise

    def _fetch(self, path: Path) -> None:
        """Makes sure that the file is here and of its kind."""
        if path.exists():
            return
        path.parent.mkdir(exist_ok=True)
        address = self._addresses[path]
        fetch(address, path, max_bytes=self.max_bytes, timeout=self.timeout)
        kind = "video" if is_video(path) else "image"
        if not begins_like(path, kind):
            raise InputError(f"expected the content of {kind} files at {shown(address)}, got something else")


def begins_like(file: Path, kind: str) -> bool:
    """Whether a file begins as an "image" or "video" does."""
    with open(file, "rb") as stream:
        head = stream.read(16)
    return any(head[offset:].startswith(signature) for offset, signature in BEGINNINGS[kind])
