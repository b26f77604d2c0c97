"""A network as TensorFlow's SavedModel and frozen graph, and as a model of TensorFlow.js. Not for running them:
models/runtime_tensorflow.py."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from models.conversion import conversion, run_program
from models.export_options import ExportOptions
from models.exported import METADATA_NAME
from models.fixed_size import FixedSizeNetwork
from models.runtime_tensorflow import INPUT, METADATA_NODE, OUTPUT, SIGNATURE
from models.yolo import DetectionModel
from utils.errors import InputError
from utils.files import ROOT
from utils.tensorflow_beside_torch import import_tensorflow

TFJS_VENV = ROOT / ".venv-tfjs"


def export_saved_model(model: DetectionModel, file: Path, options: ExportOptions) -> Path:
    """Writes the folder `file`: float32 images (B, height, width, 3) in 0..1 -> decoded predictions (B, N, 5 + nc),
    boxes in 0..1 of width and height. Raises InputError where a layer has no counterpart in TensorFlow."""
    with conversion("TensorFlow", file, options):
        tf, function = import_tensorflow(), _function(model, options)
        module = tf.Module()
        module.predict = function
        tf.saved_model.save(module, str(file), signatures={SIGNATURE: function})
    (file / METADATA_NAME).write_text(options.metadata.as_json())
    return file


def export_pb(model: DetectionModel, file: Path, options: ExportOptions) -> Path:
    """Writes a frozen graph with the nodes `images` and `output`, which are as in export_saved_model, and the metadata
    as a constant, `metadata`.

    Differs from v6.1: the nodes are called images and output instead of x and Identity.
    """
    with conversion("TensorFlow", file, options):
        tf, function = import_tensorflow(), _function(model, options)
        with tf.Graph().as_default() as graph:
            images = tf.compat.v1.placeholder(tf.float32, function.input_signature[0].shape, INPUT)
            tf.identity(function.python_function(images)[OUTPUT], OUTPUT)
            tf.constant(options.metadata.as_json(), name=METADATA_NODE)
        file.write_bytes(graph.as_graph_def().SerializeToString())
    return file


def export_tfjs(model: DetectionModel, file: Path, options: ExportOptions) -> Path:
    """Writes the folder `file` with model.json, by the converter in .venv-tfjs. Inputs and outputs are those of
    export_saved_model. Raises InputError where the converter is missing or fails."""
    converter = TFJS_VENV / "bin" / "tensorflowjs_converter"
    if not converter.is_file():
        venv = TFJS_VENV.name
        raise InputError(
            "--include tfjs needs a virtual environment of its own, as tensorflowjs wants older packages than ours: "
            f"python -m venv {venv} && {venv}/bin/pip install -r requirements-tfjs.txt"
        )
    with TemporaryDirectory() as workplace:
        saved = export_saved_model(model, Path(workplace) / "saved_model", options)
        formats = ("--input_format=tf_saved_model", "--output_format=tfjs_graph_model")
        command: list[str | Path] = [converter, *formats, f"--signature_name={SIGNATURE}", saved, file]
        run_program(command, file / "model.json", options)
    (file / METADATA_NAME).write_text(options.metadata.as_json())
    return file


def _function(model: DetectionModel, options: ExportOptions) -> Any:
    """The network as a tf.function: images -> {"output": predictions}."""
    from models.tensorflow_ops import Value, replay, tf

    network = FixedSizeNetwork(model, options.imgsz_hw, channels_last=True, fractions=True)
    images = torch.zeros(options.batch_size, *options.imgsz_hw, 3)
    program = torch.export.export(network, (images,))
    return tf.function(
        lambda images: {OUTPUT: replay(program, Value(images))},
        input_signature=[tf.TensorSpec(images.shape, tf.float32, name=INPUT)],
    )
