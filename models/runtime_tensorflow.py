"""TensorFlow's SavedModels and frozen graphs on the CPU. Not for writing them: models/export_tensorflow.py.

Both are programs that may do whatever TensorFlow can, such as writing files: run what you trust.
"""

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.export_metadata import Metadata, from_file, from_json
from models.exported import METADATA_NAME, ExportedBackend, as_array, fixed_size, in_pixels, one_line
from utils.errors import InputError
from utils.extras import need
from utils.silence import silence
from utils.tensorflow_beside_torch import import_tensorflow

REQUIREMENTS = "requirements-tensorflow.txt"
INPUT, OUTPUT, METADATA_NODE = "images", "output", "metadata"
V6_OUTPUT = "Identity"
SIGNATURE = "serving_default"


class TensorFlowBackend(ExportedBackend):
    """A network that takes images (B, height, width, 3) and gives boxes as fractions of width and height. Raises
    InputError where it is no such network."""

    def __init__(self, file: Path, device: torch.device) -> None:
        need(["tensorflow"], REQUIREMENTS, purpose=str(file))
        self.tf = import_tensorflow()
        try:
            with silence():
                shape, metadata = self._load(file)
        except InputError:
            raise
        except Exception as error:  # its classes have no common base of their own
            raise InputError(f"{file}: TensorFlow cannot read it: {one_line(error)}") from error
        if len(shape) != 4 or shape[3] != 3:
            raise InputError(f"{file}: one input (B, height, width, 3) was expected, got {shape}")
        batch, height, width, _ = shape
        super().__init__(file, metadata, device, fixed_hw=fixed_size(height, width), fixed_batch=batch)

    @abstractmethod
    def _load(self, file: Path) -> tuple[Sequence[int | None], Metadata]:
        """Prepares _call. Returns the shape of its one input, and what the file tells."""

    @abstractmethod
    def _call(self, images: Any) -> Any:
        """A tensor of TensorFlow -> the first output."""

    def _run(self, images: Tensor) -> Tensor:
        try:
            predictions = self._call(self.tf.constant(as_array(images.permute(0, 2, 3, 1)))).numpy()
        except self.tf.errors.OpError as error:
            shape = tuple(images.shape)
            raise InputError(f"{self.file}: TensorFlow fails on images {shape}: {one_line(error)}") from error
        return in_pixels(torch.from_numpy(predictions), (images.shape[2], images.shape[3]))


class SavedModelBackend(TensorFlowBackend):
    """A folder that TensorFlow calls a SavedModel."""

    def _load(self, file: Path) -> tuple[Sequence[int | None], Metadata]:
        self.loaded = self.tf.saved_model.load(str(file))  # not to be dropped: the function does not keep its weights
        self.function = self.loaded.signatures[SIGNATURE]
        inputs = self.function.structured_input_signature[1]
        (self.input,) = inputs
        return inputs[self.input].shape.as_list(), from_file(file / METADATA_NAME)

    def _call(self, images: Any) -> Any:
        return next(iter(self.function(**{self.input: images}).values()))


class FrozenGraphBackend(TensorFlowBackend):
    """A .pb file with one placeholder and a node that is called output or, as in v6.1, Identity."""

    def _load(self, file: Path) -> tuple[Sequence[int | None], Metadata]:
        graph = self.tf.compat.v1.GraphDef()
        graph.ParseFromString(file.read_bytes())
        nodes = {node.name: node for node in graph.node}
        sources = [name for name, node in nodes.items() if node.op == "Placeholder"]
        sinks = [name for name in (OUTPUT, V6_OUTPUT) if name in nodes]
        if len(sources) != 1 or not sinks:
            raise InputError(f"{file}: a graph from one placeholder to {OUTPUT} or {V6_OUTPUT} was expected")
        wrapped = self.tf.compat.v1.wrap_function(lambda: self.tf.compat.v1.import_graph_def(graph, name=""), [])
        images, predictions = (wrapped.graph.as_graph_element(f"{name}:0") for name in (sources[0], sinks[0]))
        self.function = wrapped.prune(images, predictions)
        told = nodes.get(METADATA_NODE)
        metadata = from_json(told.attr["value"].tensor.string_val[0], file) if told is not None else Metadata({})
        return images.shape.as_list(), metadata

    def _call(self, images: Any) -> Any:
        return self.function(images)
