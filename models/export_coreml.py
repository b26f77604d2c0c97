"""A network as a package of Core ML, for Apple's devices: input `image`, output `output`. It can be written anywhere,
and run on macOS alone: models/runtime_coreml.py."""

from pathlib import Path
from typing import Any

import torch

from models.conversion import check_one_image, conversion
from models.export_options import ExportOptions
from models.fixed_size import FixedSizeNetwork
from models.runtime_coreml import INPUT, OUTPUT
from models.yolo import DetectionModel
from utils.tensorflow_beside_torch import import_before_tensorflow

MAP_DIMENSIONS = 4  # of a feature map


def export_coreml(model: DetectionModel, file: Path, options: ExportOptions) -> Path:
    """Writes the folder `file` (.mlpackage): an RGB image of imgsz_hw -> decoded predictions (1, N, 5 + nc), boxes in
    pixels. half: 16-bit arithmetic and weights, boxes decoded in float32. int8: weights in 8 bits, without calibration.

    Differs from v6.1: an ML program (.mlpackage, from iOS 15 and macOS 12 on) instead of a neural network (.mlmodel),
    and decoded predictions instead of the heads' raw maps.
    """
    check_one_image(options, "coreml")
    network = FixedSizeNetwork(model, options.imgsz_hw)
    images = torch.zeros(1, 3, *options.imgsz_hw)
    with conversion("coremltools", file, options):
        import_before_tensorflow()
        import coremltools as ct

        program = torch.export.export(network, (images,)).run_decompositions({})
        package = ct.convert(
            program,
            inputs=[ct.ImageType(INPUT, images.shape, scale=1 / 255, color_layout=ct.colorlayout.RGB)],
            outputs=[ct.TensorType(OUTPUT)],
            convert_to="mlprogram",
            minimum_deployment_target=ct.target.iOS15,
            compute_precision=_mixed_precision() if options.half else ct.precision.FLOAT32,
        )
        if options.int8:
            package = _in_8_bits(package)
        package.user_defined_metadata.update(options.metadata.as_texts())
        package.save(str(file))
    return file


def _mixed_precision() -> Any:
    """16 bits for feature maps, 32 for all that comes after them: large coordinates in 16 bits would be up to half a
    pixel off."""
    import coremltools as ct

    return ct.transform.FP16ComputePrecision(lambda op: all(out.rank == MAP_DIMENSIONS for out in op.outputs))


def _in_8_bits(package: Any) -> Any:
    from coremltools.optimize import coreml

    scaled = coreml.OpLinearQuantizerConfig(mode="linear_symmetric")
    return coreml.linear_quantize_weights(package, coreml.OptimizationConfig(global_config=scaled))
