"""What val.py --attention writes: the attention of every dynamic layer over the images of a validation. Not for single
images: detect.py --visualize shows those."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.attention_probe import AttentionProbe
from utils.attention import LayerAttention, describe, gram_matrix, label_counts, write_table
from utils.attention_plots import plot_attention
from utils.errors import InputError
from utils.log import LOGGER
from utils.tally import ImageResult


class AttentionReport:
    """A listener of engine.validator.validate: register it, validate, then write. Raises InputError for a model without
    a dynamic layer. names: of the classes, as many as the labels have."""

    def __init__(self, model: nn.Module, names: Mapping[int, str]) -> None:
        self.probe = AttentionProbe(model)
        if not self.probe.layers:
            raise InputError("--attention: the model has no dynamic layer (Dynamic_conv2d, DyConv, C3Dy, C3DyLast)")
        self.names = names
        self._classes: list[list[int]] = []  # of the labels, an image
        self._batches: list[dict[str, Tensor]] = []
        self._taken = 0  # images in these batches

    def on_val_start(self) -> None:
        """Begins to record."""
        self.probe.attach()

    def on_val_image_end(self, result: ImageResult) -> None:
        """Notes the classes of the image's labels."""
        self._classes.append(result.labels[:, 0].int().tolist())

    def on_val_batch_end(self) -> None:
        """Takes the attention of the batch's images. Where the network ran more than once, as for --augment, that of
        the first time."""
        images = len(self._classes) - self._taken
        self._batches.append({name: rows[:images] for name, rows in self.probe.take().items()})
        self._taken += images

    def on_val_end(self, **_: Any) -> None:
        """Ends the recording."""
        self.probe.detach()

    def layers(self) -> list[LayerAttention]:
        """The attention of each dynamic layer in all images so far, and its kernels."""
        kernels, temperatures = self.probe.kernels(), self.probe.temperatures()
        return [
            LayerAttention(
                name,
                torch.cat([torch.zeros(0, layer.K), *(batch[name] for batch in self._batches)]).double().numpy(),
                gram_matrix(kernels[name].double().numpy()),
                temperatures[name],
            )
            for name, layer in self.probe.layers.items()
        ]

    def write(self, run_dir: Path) -> None:
        """Writes attention.png and attention.csv, and tells each layer's figures in the log."""
        layers, counts = self.layers(), label_counts(self._classes, len(self.names))
        write_table(run_dir / "attention.csv", layers, counts, self.names)
        plot_attention(layers, counts, self.names, run_dir / "attention.png")
        for layer in layers:
            LOGGER.info(describe(layer, counts))
        hottest = max(layer.temperature for layer in layers)
        if hottest > 1:
            LOGGER.warning(f"The attention's temperature is {hottest:g}: far above 1 it is near uniform by design")
