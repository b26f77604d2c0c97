"""What --source means: files here or on the web, streams and webcams, or the screen. How each is read, its own file
knows. Not for labelled sets: utils/labels.py."""

from pathlib import Path

from utils.downloads import LiveContent, checked_url, shown
from utils.errors import InputError
from utils.frames import Frame, Source
from utils.log import LOGGER
from utils.media_files import LIST_SUFFIXES, FileSource, list_lines
from utils.screen import ScreenSource, is_screen
from utils.streams import SCHEMES, StreamSource
from utils.web_files import WebFileSource, is_web_file

KINDS = (
    "an image, a video, a directory, a glob pattern, a .txt or .streams list, an http(s), rtsp or rtmp address, "
    "the number of a webcam or 'screen'"
)
__all__ = ["Frame", "Source", "open_source"]


def open_source(source: str | Path, *, vid_stride: int = 1) -> Source:
    """The Source that `source` means; use it as a context manager.

    Something here of that name comes first; else http(s) addresses that end like an image or video are files unless
    the server answers with a stream, other addresses are streams, a number is a webcam, `screen` is the screen, and
    what has *, ? or [ is a pattern. A .txt list has files here, files on the web, or streams, each kind by itself; in a
    .streams list every line is a stream.

    Args:
        vid_stride: of videos and streams, the 1st frame and every vid_stride-th after it.

    Raises InputError where it means nothing, there is nothing, or a single file on the web cannot be had.
    """
    text = str(source).strip()
    if vid_stride < 1:
        raise InputError(f"--vid-stride must be at least 1, got {vid_stride}")
    if not text:
        raise InputError(f"--source: expected {KINDS}, got nothing")
    if "://" in text:
        return _open_address(text, vid_stride)
    path = Path(text).expanduser()
    if path.is_file() and path.suffix.lower() in LIST_SUFFIXES:
        return _open_list(path, vid_stride)
    if path.exists():
        return FileSource(text, vid_stride=vid_stride)
    if is_screen(text):
        if vid_stride > 1:
            LOGGER.warning("--vid-stride is left out: of the screen each picture is taken when it is needed")
        return ScreenSource(text)
    if text.isdecimal():
        return StreamSource([text], vid_stride=vid_stride)
    return FileSource(text, vid_stride=vid_stride)


def _open_address(address: str, vid_stride: int) -> Source:
    """The source of one address."""
    checked_url(address, SCHEMES)
    if not is_web_file(address):
        return StreamSource([address], vid_stride=vid_stride)
    try:
        return WebFileSource([address], vid_stride=vid_stride)
    except LiveContent:
        return StreamSource([address], vid_stride=vid_stride)


def _open_list(list_file: Path, vid_stride: int) -> Source:
    """The source of a list. Raises InputError where its lines are of several kinds, or files in a .streams list."""
    lines = list_lines(list_file)
    only_streams = list_file.suffix.lower() == ".streams"
    first_of = {_kind(line, only_streams): line for line in reversed(lines)}
    if only_streams and "file" in first_of:
        raise InputError(f"--source: expected streams or webcams, got {first_of['file']} in {list_file}")
    if len(first_of) > 1:
        found = " and ".join(f"the {kind} {shown(line)}" for kind, line in first_of.items())
        raise InputError(f"--source: expected lines of one kind, got {found} in {list_file}")
    if "file" in first_of:
        return FileSource(list_file, vid_stride=vid_stride)
    return (StreamSource if "stream" in first_of else WebFileSource)(lines, vid_stride=vid_stride)


def _kind(line: str, only_streams: bool) -> str:
    if line.isdecimal():
        return "stream"
    if "://" not in line:
        return "file"
    return "web file" if is_web_file(line) and not only_streams else "stream"
