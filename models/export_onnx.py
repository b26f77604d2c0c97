"""A network as ONNX: input `images`, output `output`. Not for running the files (models/runtime_onnx.py), nor for the
suppression that may be put behind the network (models/export_nms.py)."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from models.export_nms import with_suppression
from models.export_options import Exportable, ExportOptions, example
from models.yolo import DetectionModel
from utils.extras import need
from utils.quiet import quiet

if TYPE_CHECKING:
    from onnx import ModelProto

INPUT, OUTPUT = "images", "output"
GRAPH_OPSET = 18  # the oldest that torch's newer exporter writes


def export_onnx(model: DetectionModel, file: Path, options: ExportOptions) -> Path:
    """Writes the network, with the metadata as pairs of texts. float32 images (B, 3, H, W) in 0..1 -> decoded
    predictions (B, N, 5 + nc), or with options.nms the detections of models/export_nms.py. Raises InputError where a
    package is missing that options.simplify or options.opset needs."""
    import onnx

    network = Exportable(model.half() if options.half else model)
    images = example(model, options)
    if options.simplify:
        need(["onnxslim"], "requirements-export.txt", purpose="--simplify")
    if options.opset >= GRAPH_OPSET:
        need(["onnxscript"], "requirements-export.txt", purpose=f"--opset {options.opset}")
    write = _from_graph if options.opset >= GRAPH_OPSET else _from_trace
    with quiet(not options.verbose):
        write(network, images, file, options)
        content = onnx.load(file)
        if options.simplify:
            content = _simplified(content)
    content.graph.output[0].type.tensor_type.shape.dim[2].dim_value = model.nc + 5  # a trace may leave it open
    if options.nms:
        content = with_suppression(content, options.nms)
    onnx.helper.set_model_props(content, options.metadata.as_texts())
    onnx.checker.check_model(content)
    onnx.save(content, file)
    return file


def _from_trace(network: Exportable, images: Tensor, file: Path, options: ExportOptions) -> None:
    """By torch's older exporter: quick, and for every opset that toolchains for small devices ask for."""
    free = {INPUT: {0: "batch", 2: "height", 3: "width"}, OUTPUT: {0: "batch", 1: "boxes"}}
    torch.onnx.export(
        network,
        (images,),
        file,
        dynamo=False,
        opset_version=options.opset,
        input_names=[INPUT],
        output_names=[OUTPUT],
        dynamic_axes=free if options.dynamic else None,
        verbose=options.verbose,
    )


def _from_graph(network: Exportable, images: Tensor, file: Path, options: ExportOptions) -> None:
    """By torch's newer exporter."""
    stride = options.metadata.stride
    batch, rows, columns = (torch.export.Dim(name) for name in ("batch", "rows", "columns"))
    torch.onnx.export(
        network,
        (images,),
        file,
        dynamo=True,
        opset_version=options.opset,
        input_names=[INPUT],
        output_names=[OUTPUT],
        dynamic_shapes={"images": {0: batch, 2: stride * rows, 3: stride * columns}} if options.dynamic else None,
        external_data=False,
        verbose=options.verbose,
    )


def _simplified(content: "ModelProto") -> "ModelProto":
    import onnxslim

    return onnxslim.slim(content)
