"""A frame, one picture to detect on with where it comes from, and what all sources of frames have in common. Not which
source a name means: utils/sources.py."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Frame:
    """One picture to detect on.

    Attributes:
        path: the file it comes from; for a stream a name that can be a file's, and that no other stream of the run has.
        image: BGR uint8 (h, w, 3).
        index, total: the number of the file or stream from 1, and how many there are.
        number: in a video or stream the number of the picture from 1, counting also those that were left out; 0 for an
            image file.
        frames: how many pictures the video has; 0 where nobody knows, as in a live stream, and for an image file.
        fps: frames a second of the video or stream, before --vid-stride; 0 for an image file.
        seconds: of a file, when the picture is shown, from the start; of a stream, when it came, on a clock that all
            streams of the run share and that never goes back. None where fps and number tell it.
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
    """Iterates over batches of frames. A batch is one frame, but with several streams one of each that has a new one.
    Use a source as a context manager, or call close(), so that threads end and temporary files go.

    Attributes:
        paths: one for each file or stream, all different; Frame.path is one of them.
        skipped: those of `paths` that could not be read, or were given up, in the latest iteration.
        live: whether it goes on while nobody looks, as a camera does: frames that come too fast are left out.
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
        """From now on the iteration ends soon after `asked()` becomes true, also while it waits for a frame that does
        not come. For callers that catch signals: a signal that is caught does not interrupt waiting."""
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
