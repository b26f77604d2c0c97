"""A network as an engine of TensorRT, for the NVIDIA GPU that builds it. Not for running it:
models/runtime_tensorrt.py."""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from models.conversion import conversion
from models.export_onnx import export_onnx
from models.export_options import ExportOptions
from models.runtime_tensorrt import LENGTH_BYTES, check_gpu
from models.yolo import DetectionModel
from utils.errors import InputError


def export_engine(model: DetectionModel, file: Path, options: ExportOptions) -> Path:
    """Writes the metadata and the engine, by way of ONNX: float32 images (B, 3, H, W) in 0..1 -> decoded predictions
    (B, N, 5 + nc), boxes in pixels. half: 16-bit arithmetic. dynamic: any batch and size up to those of the options.
    Raises InputError where there is no GPU.

    Not tested on a GPU yet.
    """
    check_gpu("--include engine")
    with conversion("TensorRT", file, options), TemporaryDirectory() as workplace:
        onnx = export_onnx(model, Path(workplace) / "model.onnx", replace(options, simplify=False))
        engine = _built(onnx, options)
        text = options.metadata.as_json().encode()
        file.write_bytes(len(text).to_bytes(LENGTH_BYTES, "little") + text + engine)
    return file


def _built(onnx: Path, options: ExportOptions) -> Any:
    """The engine's bytes, in the types of the ONNX file. Raises InputError where TensorRT cannot build it."""
    import tensorrt as trt

    logger = trt.Logger(trt.Logger.INFO if options.verbose else trt.Logger.ERROR)
    builder = trt.Builder(logger)
    typed = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)  # a release without it has no other way
    network = builder.create_network(0 if typed is None else 1 << int(typed))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(onnx)):
        raise InputError(f"--include engine: TensorRT cannot read the network: {parser.get_error(0).desc()}")
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, int(options.workspace * 2**30))
    if options.dynamic:
        config.add_optimization_profile(_free_shape(builder, network, options))
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise InputError(
            "--include engine: TensorRT cannot build the network: --verbose shows why, --workspace gives it more memory"
        )
    return bytes(engine)


def _free_shape(builder: Any, network: Any, options: ExportOptions) -> Any:
    """The batches and sizes that the engine takes: from one image of one stride to the batch and size of the options,
    for which it is the fastest."""
    stride, largest = options.metadata.stride, (options.batch_size, 3, *options.imgsz_hw)
    profile = builder.create_optimization_profile()
    profile.set_shape(network.get_input(0).name, (1, 3, stride, stride), largest, largest)
    return profile
