"""The screen as a source: pictures of all of it, of one monitor or of a part, taken as fast as they are asked for. Not
for the window that shows results: utils/outputs.py."""

import re
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from utils.errors import InputError
from utils.extras import need
from utils.frames import Frame, Source
from utils.log import LOGGER
from utils.video import DEFAULT_FPS

if TYPE_CHECKING:
    from mss import MSS

FORMS = "'screen', 'screen N', 'screen left top width height' or 'screen N left top width height'"


def is_screen(source: str) -> bool:
    """Whether it is "screen", alone or with numbers."""
    return source.casefold().partition(" ")[0] == "screen"


@dataclass(frozen=True)
class Region:
    """Which part of the screen.

    Attributes:
        monitor: its number from 1; 0 for all of them together.
        ltwh: (left, top, width, height) in pixels from the upper left corner of the monitor; None for all of it.
    """

    monitor: int = 0
    ltwh: tuple[int, int, int, int] | None = None


def parse_region(source: str) -> Region:
    """ "screen 1 0 0 640 480" -> Region(1, (0, 0, 640, 480)). Raises InputError for other forms than FORMS."""
    numbers = source.split()[1:]
    if len(numbers) not in (0, 1, 4, 5) or not all(re.fullmatch("[0-9]{1,6}", number) for number in numbers):
        raise InputError(f"--source: expected {FORMS} in whole numbers from 0, got '{source}'")
    values = [int(number) for number in numbers]
    monitor = values.pop(0) if len(values) in (1, 5) else 0
    if not values:
        return Region(monitor)
    left, top, width, height = values
    if min(width, height) < 1:
        raise InputError(f"--source: expected a width and height of at least 1 pixel, got '{source}'")
    return Region(monitor, (left, top, width, height))


class ScreenSource(Source):
    """Pictures of the screen, without an end. Each is taken when it is asked for, so vid_stride has no meaning here.

    Raises InputError where the source has another form than FORMS, `mss` is missing, or there is no such screen.
    """

    live = True

    def __init__(self, source: str) -> None:
        region = parse_region(source)
        self.paths = [Path(f"screen_{region.monitor}")]
        self.skipped = []
        self._grabber = _open_grabber()
        self._is_open = True
        try:
            self._area = _area(region, self._grabber.monitors)
            self._grab()
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Iterator[list[Frame]]:
        self.skipped.clear()
        number = 0
        while not self._asked_to_end():
            try:
                image = self._grab()
            except InputError as error:
                LOGGER.warning(f"the screen ends after {number} pictures: {error}")
                self.skipped.append(self.paths[0])
                return
            number += 1
            yield [Frame(self.paths[0], image, 1, 1, number=number, fps=DEFAULT_FPS, seconds=time.monotonic())]

    def place(self, path: Path) -> str:
        """The screen's name."""
        return str(path)

    def close(self) -> None:
        """Lets go of the screen. May be called again; mss's own close() may not, where the connection was lost."""
        from mss.exception import ScreenShotError

        if self._is_open:
            self._is_open = False
            with suppress(ScreenShotError):  # a connection that was lost
                self._grabber.close()

    def _grab(self) -> np.ndarray:
        """A picture of the area, BGR uint8 (h, w, 3)."""
        from mss.exception import ScreenShotError

        try:
            shot = self._grabber.grab(self._area)
        except (ScreenShotError, AssertionError) as error:  # mss asserts that the display's server has answered
            raise InputError(f"--source screen: expected a picture of it, got: {error or 'no answer'}") from error
        bgra = np.frombuffer(shot.raw, np.uint8).reshape(shot.height, shot.width, 4)
        return np.ascontiguousarray(bgra[..., :3])


def _open_grabber() -> "MSS":
    need(["mss"], "requirements-screen.txt", purpose="--source screen")
    import mss
    from mss.exception import ScreenShotError

    try:
        return mss.MSS()
    except ScreenShotError as error:
        raise InputError(f"--source screen: expected a screen that pictures can be taken of, got: {error}") from error


def _area(region: Region, monitors: list[dict[str, int]]) -> dict[str, int]:
    """The region as mss takes it: in the coordinates of all monitors together. Raises InputError where it is not on the
    monitor."""
    if region.monitor >= len(monitors):
        raise InputError(f"--source: expected a screen from 0 (all) to {len(monitors) - 1}, got {region.monitor}")
    monitor = monitors[region.monitor]
    if region.ltwh is None:
        return monitor
    left, top, width, height = region.ltwh
    if left + width > monitor["width"] or top + height > monitor["height"]:
        size = f"{monitor['width']} x {monitor['height']}"
        raise InputError(
            f"--source: expected a part of the {size} pixels of screen {region.monitor}, got {region.ltwh}"
        )
    return {"left": monitor["left"] + left, "top": monitor["top"] + top, "width": width, "height": height}
