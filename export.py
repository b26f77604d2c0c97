"""Export a trained model to the files of other runtimes, each compared with PyTorch before it gets its name.

    python export.py                                              the newest run's best.pt to TorchScript and ONNX
    python export.py --weights yolov5n.pt --include onnx openvino
    python export.py --weights best.pt --include onnx --dynamic   free batch, height and width
    python export.py --weights best.pt --include onnx --nms       detections, not predictions, come out
    python export.py --weights best.pt --include openvino --int8  8 bits, scaled on images of the training's data

From Python: `import export; export.run(weights="best.pt", include=["onnx"])`.
"""

import argparse
from collections.abc import Callable
from typing import Any

Add = Callable[..., argparse.Action]  # add_argument of a group
SWITCH = {"action": "store_true"}


def build_parser() -> argparse.ArgumentParser:
    """The flags of YOLOv5's export.py in groups, each with its unit and default."""
    from utils.flags import FlagParser

    return FlagParser(__doc__, GROUPS)


def _add_exported(add: Add) -> None:
    add("--weights", default="", help="checkpoint, one .pt file (default: the newest run's best.pt)")
    formats = (
        "torchscript, onnx, openvino, engine (TensorRT), coreml, ncnn, saved_model, pb, tflite, edgetpu, tfjs "
        "(default: torchscript onnx)"
    )
    add("--include", nargs="+", default=["torchscript", "onnx"], help=formats)
    size = "one side, or height and width, in pixels (default: what the weights were trained at, else 640)"
    add("--imgsz", "--img", "--img-size", nargs="+", type=int, help=size)
    add("--batch-size", type=int, default=1, help="pictures at a time (default: 1)")
    add("--dynamic", **SWITCH, help="batch, height and width stay free (default: as given)")
    frozen = "a static twin: each dynamic layer as one plain convolution, with what that costs (default: as it is)"
    add("--freeze-attention", **SWITCH, help=frozen)
    data = "data YAML of the pictures to compare on, and of --int8's scales (default: the training's, else data/images)"
    add("--data", default="", help=data)


def _add_arithmetic(add: Add) -> None:
    add("--half", **SWITCH, help="16-bit weights (default: 32-bit)")
    add("--int8", **SWITCH, help="8-bit weights and activations (default: 32-bit)")
    add("--optimize", **SWITCH, help="TorchScript: weights as constants of the program (default: off)")
    add("--inplace", **SWITCH, help="TorchScript: activations overwrite their input (default: off)")
    add("--train", **SWITCH, help="TorchScript: a file to be trained on, which gives no boxes (default: off)")


def _add_onnx(add: Add) -> None:
    add("--opset", type=int, default=17, help="ONNX: version of its operators, 12 to 23 (default: 17)")
    add("--simplify", **SWITCH, help="ONNX: a shorter graph, by onnxslim (default: off)")
    add("--workspace", type=float, default=4.0, help="TensorRT: memory to build in, GiB (default: 4)")


def _add_suppression(add: Add) -> None:
    add("--nms", **SWITCH, help="non-maximum suppression inside the file (default: off)")
    add("--agnostic-nms", **SWITCH, help="boxes suppress each other across classes (default: within a class)")
    add("--topk-per-class", type=int, default=100, help="detections of a class at most (default: 100)")
    add("--topk-all", type=int, default=100, help="detections a picture at most (default: 100)")
    iou = "of two boxes whose IoU is more one goes, 0 to 1 (default: 0.45)"
    add("--iou-thres", type=float, default=0.45, help=iou)
    add("--conf-thres", type=float, default=0.25, help="least confidence, 0 to 1 (default: 0.25)")


def _add_machine(add: Add) -> None:
    add("--device", default="cpu", help="CUDA device number or cpu (default: cpu)")
    add("--verbose", **SWITCH, help="show the converters' own messages (default: off)")


GROUPS: dict[str, Callable[[Add], None]] = {
    "what is exported": _add_exported,
    "arithmetic": _add_arithmetic,
    "ONNX and TensorRT": _add_onnx,
    "suppression inside the file": _add_suppression,
    "machine": _add_machine,
}


def parse_opt(argv: list[str] | None = None) -> argparse.Namespace:
    """The options of a command line (sys.argv where none is given)."""
    return build_parser().parse_args(argv)


def run(
    weights: Any = "", include: Any = ("torchscript", "onnx"), imgsz: Any = None, batch_size: int = 1,
    dynamic: bool = False, data: Any = "", half: bool = False, int8: bool = False, optimize: bool = False,
    inplace: bool = False, train: bool = False, opset: int = 17, simplify: bool = False, workspace: float = 4.0,
    nms: bool = False, agnostic_nms: bool = False, topk_per_class: int = 100, topk_all: int = 100,
    iou_thres: float = 0.45, conf_thres: float = 0.25, device: str = "cpu", verbose: bool = False,
    freeze_attention: bool = False,
):  # fmt: skip
    """Exports, with the flags as arguments. Returns a list of engine.exporter.Exported: format, file, size, proof.
    Raises InputError on unusable input, and where a file does not find what PyTorch finds."""
    return _export(argparse.Namespace(**locals()))


def _export(opt: argparse.Namespace):
    from engine import exporter

    return exporter.run(opt)


def main(opt: argparse.Namespace) -> None:
    """Exports, with one message and exit code 1 where that cannot be done."""
    from utils.errors import readable_errors

    with readable_errors():
        _export(opt)


if __name__ == "__main__":
    main(parse_opt())
