"""A network as a TFLite (LiteRT) file, for phones and small boards, by litert-torch. Not for running it:
models/runtime_tflite.py."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import torch

from models.conversion import conversion
from models.export_options import ExportOptions
from models.exported import METADATA_NAME
from models.fixed_size import FixedSizeNetwork
from models.yolo import DetectionModel

SIGNATURE = "serving_default"
# operations with this in their name decode boxes, for which 8 bits are too few
IN_FLOAT = r"FixedSizeDetect_\d+;|serving_default_output"


def export_tflite(model: DetectionModel, file: Path, options: ExportOptions) -> Path:
    """Writes the file: float32 images (B, height, width, 3) in 0..1 -> decoded predictions (B, N, 5 + nc), boxes in
    0..1 of width and height. half: 16-bit weights. int8: weights and activations in 8 bits, scaled on the calibration
    images; the predictions stay float32.

    Differs from v6.1: --int8 leaves images and predictions in float32.
    """
    network = FixedSizeNetwork(model, options.imgsz_hw, channels_last=True, fractions=True)
    images = torch.zeros(options.batch_size, *options.imgsz_hw, 3)
    with conversion("litert-torch", file, options):
        import litert_torch

        litert_torch.convert(network, (images,)).export(str(file))
        if options.int8:
            _to_8_bits(file, options)
        elif options.half:
            _to_16_bits(file)
    with ZipFile(file, "a") as archive:  # behind the network, as TFLite files keep their metadata
        archive.writestr(METADATA_NAME, options.metadata.as_json())
    return file


def _to_16_bits(file: Path) -> None:
    """Rewrites the file with 16-bit weights."""
    from ai_edge_quantizer import algorithm_manager, qtyping, quantizer

    plan = quantizer.Quantizer(str(file))
    plan.update_quantization_recipe(
        ".*",
        qtyping.TFLOperationName.ALL_SUPPORTED,
        op_config=qtyping.OpQuantizationConfig(
            weight_tensor_config=qtyping.TensorQuantizationConfig(16, dtype=qtyping.TensorDataType.FLOAT),
            compute_precision=qtyping.ComputePrecision.FLOAT,
            explicit_dequantize=True,
        ),
        algorithm_key=algorithm_manager.AlgorithmName.FLOAT_CASTING,
    )
    _keep_in_float(plan)
    plan.quantize().export_model(str(file), overwrite=True)


def _to_8_bits(file: Path, options: ExportOptions) -> None:
    """Rewrites the file with 8-bit weights and activations."""
    from ai_edge_quantizer import qtyping, quantizer

    plan = quantizer.Quantizer(str(file))
    plan.add_static_config(".*", qtyping.TFLOperationName.ALL_SUPPORTED, activation_num_bits=8, weight_num_bits=8)
    _keep_in_float(plan)
    ranges = plan.calibrate({SIGNATURE: _Calibration(file, options)})
    plan.quantize(ranges).export_model(str(file), overwrite=True)


def _keep_in_float(plan: Any) -> None:
    """Leaves the decoding of boxes in float. plan: ai_edge_quantizer's Quantizer, which already knows what to do with
    everything else, as the last rule counts."""
    from ai_edge_quantizer import algorithm_manager, qtyping

    everything, not_at_all = qtyping.TFLOperationName.ALL_SUPPORTED, algorithm_manager.AlgorithmName.NO_QUANTIZE
    plan.update_quantization_recipe(IN_FLOAT, everything, algorithm_key=not_at_all)


class _Calibration:
    """The calibration images, in the shape that the network takes. They can be gone through several times, as the
    quantizer does."""

    def __init__(self, file: Path, options: ExportOptions) -> None:
        from ai_edge_litert.interpreter import Interpreter

        (self.input,) = Interpreter(str(file)).get_signature_list()[SIGNATURE]["inputs"]
        self.options = options

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for images in self.options.calibration_images():
            yield {self.input: images.permute(0, 2, 3, 1).repeat(self.options.batch_size, 1, 1, 1).numpy()}
