"""The table of export.py's formats: a row and a function for each. The function imports models/export_*.py, which
converts, only when it is called, as the packages for that are heavy. Not for running the files: models/backends.py."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from models.export_options import ExportOptions
from models.yolo import DetectionModel
from utils.errors import InputError
from utils.extras import need

Export = Callable[[DetectionModel, Path, ExportOptions], Path]


@dataclass(frozen=True)
class Format:
    """A row of the table.

    Attributes:
        name: what --include calls it.
        suffix: of its file or folder, after the stem of the weights: .onnx, _openvino_model.
        export: (network in eval mode, fused and without gradients, file, options) -> what it wrote, the file. The file
            or folder does not exist yet, its directory does; the exporter moves it to its place when it is whole.
        requirements: the requirements file whose packages it needs, "" for none.
        packages: names by which these are imported.
        flags: which of CHOICES the format reads.
        why_not_run: gives the reason why no runtime here can run the file, so that it cannot be compared; "" where one
            can, which is what str() gives.
    """

    name: str
    suffix: str
    export: Export
    requirements: str = ""
    packages: tuple[str, ...] = ()
    flags: frozenset[str] = frozenset()
    why_not_run: Callable[[], str] = str

    def check_packages(self) -> None:
        """Raises InputError, with the command that installs them, where a package is missing."""
        need(self.packages, self.requirements, purpose=f"--include {self.name}")


# fields of ExportOptions that not every format reads
CHOICES = ("half", "int8", "dynamic", "simplify", "opset", "nms", "train", "optimize", "inplace", "workspace")


def _torchscript(model: DetectionModel, file: Path, options: ExportOptions) -> Path:
    from models.export_torchscript import export_torchscript

    return export_torchscript(model, file, options)


def _onnx(model: DetectionModel, file: Path, options: ExportOptions) -> Path:
    from models.export_onnx import export_onnx

    return export_onnx(model, file, options)


def _openvino(model: DetectionModel, file: Path, options: ExportOptions) -> Path:
    from models.export_openvino import export_openvino

    return export_openvino(model, file, options)


def _engine(model: DetectionModel, file: Path, options: ExportOptions) -> Path:
    from models.export_tensorrt import export_engine

    return export_engine(model, file, options)


def _coreml(model: DetectionModel, file: Path, options: ExportOptions) -> Path:
    from models.export_coreml import export_coreml

    return export_coreml(model, file, options)


def _ncnn(model: DetectionModel, file: Path, options: ExportOptions) -> Path:
    from models.export_ncnn import export_ncnn

    return export_ncnn(model, file, options)


def _saved_model(model: DetectionModel, file: Path, options: ExportOptions) -> Path:
    from models.export_tensorflow import export_saved_model

    return export_saved_model(model, file, options)


def _pb(model: DetectionModel, file: Path, options: ExportOptions) -> Path:
    from models.export_tensorflow import export_pb

    return export_pb(model, file, options)


def _tflite(model: DetectionModel, file: Path, options: ExportOptions) -> Path:
    from models.export_tflite import export_tflite

    return export_tflite(model, file, options)


def _edgetpu(model: DetectionModel, file: Path, options: ExportOptions) -> Path:
    raise InputError(
        "--include edgetpu: Google's edgetpu_compiler is no package of Python, so there is nothing that could be "
        "installed for it: export with --include tflite --int8, and run the compiler on that file"
    )


def _tfjs(model: DetectionModel, file: Path, options: ExportOptions) -> Path:
    from models.export_tensorflow import export_tfjs

    return export_tfjs(model, file, options)


def _where_coreml_does_not_run() -> str:
    from models.runtime_coreml import why_not_run

    return why_not_run()


def _where_tfjs_runs() -> str:
    return "TensorFlow.js runs in browsers and Node alone, but --include saved_model gives the same network"


EXPORT_REQUIREMENTS = "requirements-export.txt"
TENSORFLOW_REQUIREMENTS = "requirements-tensorflow.txt"
ROWS = (
    Format(
        "torchscript",
        ".torchscript",
        _torchscript,
        flags=frozenset({"half", "dynamic", "train", "optimize", "inplace"}),
    ),
    Format(
        "onnx",
        ".onnx",
        _onnx,
        EXPORT_REQUIREMENTS,
        ("onnx", "onnxruntime"),
        flags=frozenset({"half", "dynamic", "simplify", "opset", "nms"}),
    ),
    Format(
        "openvino",
        "_openvino_model",
        _openvino,
        EXPORT_REQUIREMENTS,
        ("openvino",),
        flags=frozenset({"half", "int8", "dynamic"}),
    ),
    Format(
        "engine",
        ".engine",
        _engine,
        "requirements-tensorrt.txt",
        ("tensorrt", "onnx"),
        flags=frozenset({"half", "dynamic", "opset", "workspace"}),
    ),
    Format(
        "coreml",
        ".mlpackage",
        _coreml,
        "requirements-coreml.txt",
        ("coremltools",),
        flags=frozenset({"half", "int8"}),
        why_not_run=_where_coreml_does_not_run,
    ),
    Format("ncnn", "_ncnn_model", _ncnn, "requirements-ncnn.txt", ("ncnn", "pnnx"), flags=frozenset({"half"})),
    Format("saved_model", "_saved_model", _saved_model, TENSORFLOW_REQUIREMENTS, ("tensorflow",)),
    Format("pb", ".pb", _pb, TENSORFLOW_REQUIREMENTS, ("tensorflow",)),
    Format(
        "tflite",
        ".tflite",
        _tflite,
        "requirements-tflite.txt",
        ("litert_torch", "ai_edge_litert", "ai_edge_quantizer"),
        flags=frozenset({"half", "int8"}),
    ),
    Format("edgetpu", "_edgetpu.tflite", _edgetpu),
    Format("tfjs", "_web_model", _tfjs, TENSORFLOW_REQUIREMENTS, ("tensorflow",), why_not_run=_where_tfjs_runs),
)
EXPORTERS: dict[str, Format] = {row.name: row for row in ROWS}


def export_formats() -> tuple[Format, ...]:
    """All formats, in the order in which they are told."""
    return ROWS
