"""The pictures that a training leaves in its run directory, drawn at its callbacks; one that fails is left out.
Not for how they are drawn: that is utils/plots.py."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from utils.dataloaders import Batch
from utils.plots import plot_images, plot_labels, plot_results
from utils.surviving import survives

BATCHES = 3  # train_batch0.jpg to train_batch2.jpg


class TrainingPictures:
    """labels.jpg and labels_correlogram.jpg before the training, train_batch0-2.jpg in it, results.png after it."""

    def __init__(self, run_dir: Path, names: dict[int, str]) -> None:
        self.run_dir = run_dir
        self.names = names

    def on_pretrain_routine_end(self, labels: np.ndarray, **_: Any) -> None:
        """labels: (M, 5) rows [class, x, y, w, h], normalised."""
        survives("labels.jpg", partial(plot_labels, labels, self.names, self.run_dir))

    def on_train_batch_end(self, step: int, batch: Batch, **_: Any) -> None:
        """The first batches, as the network gets them."""
        if step < BATCHES:
            file = self.run_dir / f"train_batch{step}.jpg"
            draw = partial(plot_images, batch.images, batch.targets, batch.paths, file=file, names=self.names)
            survives(file.name, draw)

    def on_train_end(self, **_: Any) -> None:
        """The course of the training, from results.csv."""
        survives("results.png", partial(plot_results, self.run_dir / "results.csv"))
