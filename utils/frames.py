"""What there is to look at, as frames: one picture with where it comes from, and what every source of them has in
common. Which source a name means is for utils/sources.py."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Frame:
    """One picture to detect on.

    Attributes:
        path: the file it comes from; of a stream a name that no other stream of the run has, safe for file systems.
        image: BGR uint8 (h, w, 3).
        index, total: the number of the file or stream from 1, and how many there are.
        number, frames: in a video or stream the picture's number from 1, those that were left out counted, and how many
            there are (0: nobody knows, as in a live stream); 0 and 0 for an image file.
        fps: frames a second of the video or stream, before --vid-stride; 0 for an image file.
        seconds: when it is shown, in a file from its start; when it came, in a stream, on a clock that all streams of
            the run share and that never goes back; None where fps and number tell it.
    """

    path: Path
    image: np.ndarray
    index: int
    total: int
    number: int = 0
    frames: int = 0
    fps: float = 0.0
    seconds: float | None = None

    @property
    def is_video(self) -> bool:
        """Whether it is one of a sequence: a video's, a stream's or the screen's."""
        return self.number > 0


class Source(ABC):
    """Iterates over batches of frames: one frame of files and of the screen, of several streams one of each that has a
    new one. Use it as a context manager, or call close(), so that threads and temporary files go.

    Attributes:
        paths: one an input, all different; what Frame.path takes.
        skipped: those of `paths` that could not be read, or were given up, in the latest iteration.
        live: whether time passes there while nobody looks: frames that come too fast are left out.
    """

    paths: list[Path]
    skipped: list[Path]
    live = False
    _asked_to_end: Callable[[], object] = staticmethod(lambda: False)

    def __len__(self) -> int:
        return len(self.paths)

    @abstractmethod
    def __iter__(self) -> Iterator[list[Frame]]:
        """The batches. What cannot be read is told in the log and does not stop the rest."""

    def end_when(self, asked: Callable[[], object]) -> None:
        """Has the iteration end soon after `asked()` is true, also while nothing comes, as from a stream that is lost.
        For those who catch signals: a caught one interrupts no waiting."""
        self._asked_to_end = asked

    def place(self, path: Path) -> str:
        """Where one of `paths` comes from, in words: of a file its absolute path."""
        return str(path.resolve())

    def close(self) -> None:  # noqa: B027  (most sources hold nothing)
        """Ends what the source has running. May be called again."""

    def __enter__(self) -> "Source":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
