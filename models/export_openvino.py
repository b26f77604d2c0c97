"""A network as a folder of OpenVINO: <stem>.xml and .bin. Not for running it: models/runtime_openvino.py."""

from pathlib import Path
from typing import TYPE_CHECKING

from models.export_options import Exportable, ExportOptions, example
from models.yolo import DetectionModel
from utils.extras import need
from utils.quiet import quiet

if TYPE_CHECKING:
    from openvino import Model

INPUT, OUTPUT = "images", "output"
METADATA_PATH = ["yolov5", "metadata"]  # of the text in the .xml
INT8_REQUIREMENTS = "requirements-export-int8.txt"


def export_openvino(model: DetectionModel, file: Path, options: ExportOptions) -> Path:
    """Writes the folder `file`, straight from PyTorch. half: float16 weights. int8: weights and activations in 8 bits,
    scaled by NNCF on the calibration images. Raises InputError where int8's package is missing.

    Differs from v6.1, which goes through ONNX and a converter that OpenVINO has dropped since.
    """
    import openvino

    if options.int8:
        need(["nncf"], INT8_REQUIREMENTS, purpose="--int8 for openvino")
    model = model.cpu()
    images = example(model, options)
    shape = [-1, 3, -1, -1] if options.dynamic else list(images.shape)
    with quiet(not options.verbose):
        network = openvino.convert_model(Exportable(model), example_input=images, input=[openvino.PartialShape(shape)])
        network.inputs[0].get_tensor().set_names({INPUT})
        network.outputs[0].get_tensor().set_names({OUTPUT})
        if options.int8:
            network = _quantized(network, options, head=len(model.model) - 1)
    network.set_rt_info(options.metadata.as_json(), METADATA_PATH)
    file.mkdir()
    xml = file / f"{file.name.removesuffix('_openvino_model')}.xml"
    openvino.save_model(network, xml, compress_to_fp16=options.half)
    return file


def _quantized(network: "Model", options: ExportOptions, *, head: int) -> "Model":
    """The network in 8 bits, but for its head, the layer of that index: 256 steps are too few for scores and
    coordinates. The slower correction of biases is worth its time: with it, mAP50-95 on coco8 is .351, with the quick
    one .317, and .350 in float32."""
    import nncf

    return nncf.quantize(
        network,
        nncf.Dataset(options.calibration_images(), lambda images: images.numpy()),
        fast_bias_correction=False,
        ignored_scope=nncf.IgnoredScope(patterns=[rf".*\.network\.model\.{head}[./].*"]),
    )
