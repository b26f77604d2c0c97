"""Find objects in pictures and videos with a trained model, and draw them.

    python detect.py                                              the newest run's best.pt on data/images
    python detect.py --weights yolov5n.pt --source bus.jpg        one picture
    python detect.py --source 'holiday/**/*.jpg' --save-txt       a pattern (quoted), boxes as label files too
    python detect.py --source street.mp4 --vid-stride 2           every second frame of a video
    python detect.py --source files.txt --save-crop               the files or streams listed, one a line
    python detect.py --source 0                                   a webcam, until Ctrl+C
    python detect.py --source rtsp://camera/stream                a network stream; rtmp and http(s) too
    python detect.py --source https://example.com/street.jpg      a picture or video on the web
    python detect.py --source screen                              the screen

From Python: `import detect; detect.run(weights="best.pt", source="bus.jpg")`.
"""

import argparse
from collections.abc import Callable
from typing import Any

Add = Callable[..., argparse.Action]  # add_argument of a group
SWITCH = {"action": "store_true"}


def build_parser() -> argparse.ArgumentParser:
    """The flags of YOLOv5's detect.py in groups, each with its unit and default."""
    from utils.flags import FlagParser

    return FlagParser(__doc__, GROUPS)


def _add_input(add: Add) -> None:
    source = (
        "file, directory, glob, .txt or .streams list, webcam number, rtsp/rtmp/http(s) stream, http(s) file, "
        "screen [N] [left top width height] (default: data/images)"
    )
    add("--source", default="data/images", help=source)
    add("--data", default="", help="data YAML whose class names are used (default: those in the weights)")
    size = "longer side, or height and width, in pixels (default: 640)"
    add("--imgsz", "--img", "--img-size", nargs="+", type=int, default=[640], help=size)
    add("--vid-stride", type=int, default=1, help="of videos and streams, every N-th frame (default: 1)")


def _add_detections(add: Add) -> None:
    add("--conf-thres", type=float, default=0.25, help="least confidence, 0 to 1 (default: 0.25)")
    iou = "NMS keeps one of two boxes whose IoU is more, 0 to 1 (default: 0.45)"
    add("--iou-thres", type=float, default=0.45, help=iou)
    add("--max-det", type=int, default=1000, help="detections a picture at most (default: 1000)")
    add("--classes", nargs="+", help="numbers or names of the classes to find, such as 0 2 bus (default: all)")
    add("--agnostic-nms", **SWITCH, help="boxes suppress each other across classes (default: within a class)")
    add("--augment", **SWITCH, help="test-time augmentation: three sizes, one mirrored (default: off)")


def _add_weights(add: Add) -> None:
    weights = "checkpoint or exported model; several are an ensemble (default: the newest run's best.pt)"
    add("--weights", nargs="+", default=[], help=weights)
    update = "make small checkpoints of this project of the .pt weights; others' are kept as .pt.bak (default: off)"
    add("--update", **SWITCH, help=update)


def _add_machine(add: Add) -> None:
    add("--device", default="", help="CUDA device number, cpu or mps (default: the best there is)")
    add("--half", **SWITCH, help="16-bit arithmetic where the device is fast at it (default: 32-bit)")
    add("--dnn", **SWITCH, help="run .onnx files with OpenCV (default: with ONNX Runtime)")


def _add_drawing(add: Add) -> None:
    add("--view-img", **SWITCH, help="show the results in a window (default: off)")
    line = "width of the boxes' lines in pixels (default: 3; less on thumbnails, more on huge pictures)"
    add("--line-thickness", type=int, help=line)
    add("--hide-labels", **SWITCH, help="boxes without class names (default: with)")
    add("--hide-conf", **SWITCH, help="class names without confidences (default: with)")


def _add_results(add: Add) -> None:
    add("--project", default="runs/detect", help="directory of runs (default: runs/detect)")
    add("--name", default="exp", help="directory of this run in it; exp2, exp3, ... where it exists (default: exp)")
    add("--exist-ok", **SWITCH, help="write into project/name even where it exists (default: into a new one)")
    add("--nosave", **SWITCH, help="do not save annotated pictures and videos (default: save them)")
    add("--save-txt", **SWITCH, help="detections as label files in labels/ (default: off)")
    add("--save-conf", **SWITCH, help="with their confidence, 0 to 1, as a sixth column (default: without)")
    add("--save-crop", **SWITCH, help="each detection cut out, in crops/<class>/ (default: off)")
    add("--save-csv", **SWITCH, help="a table of all detections, predictions.csv (default: off)")
    add("--save-json", **SWITCH, help="detections as COCO results, predictions.json (default: off)")
    add("--visualize", **SWITCH, help="feature maps of each layer and attention of dynamic ones (default: off)")


GROUPS: dict[str, Callable[[Add], None]] = {
    "what is looked at": _add_input,
    "with which weights": _add_weights,
    "detections": _add_detections,
    "machine": _add_machine,
    "drawing": _add_drawing,
    "what is saved, and where": _add_results,
}


def parse_opt(argv: list[str] | None = None) -> argparse.Namespace:
    """The options of a command line (sys.argv where none is given)."""
    return build_parser().parse_args(argv)


def run(
    weights: Any = "",
    source: Any = "data/images",
    data: Any = "",
    imgsz: Any = (640, 640),
    conf_thres: float = 0.25,
    iou_thres: float = 0.45,
    max_det: int = 1000,
    device: str = "",
    view_img: bool = False,
    save_txt: bool = False,
    save_conf: bool = False,
    save_crop: bool = False,
    save_csv: bool = False,
    save_json: bool = False,
    nosave: bool = False,
    classes: list[int | str] | None = None,
    agnostic_nms: bool = False,
    augment: bool = False,
    visualize: bool = False,
    update: bool = False,
    project: Any = "runs/detect",
    name: str = "exp",
    exist_ok: bool = False,
    line_thickness: int | None = None,
    hide_labels: bool = False,
    hide_conf: bool = False,
    half: bool = False,
    dnn: bool = False,
    vid_stride: int = 1,
):
    """Detects, with the flags as arguments. Returns engine.detector.Detected: directory, frames, boxes, skipped files,
    speed. Raises InputError where the input cannot be used."""
    return _detect(argparse.Namespace(**locals()))


def _detect(opt: argparse.Namespace):
    from engine import detector

    return detector.run(opt)


def main(opt: argparse.Namespace) -> None:
    """Detects, with one message and exit code 1 where the input cannot be used."""
    from utils.errors import readable_errors
    from utils.memory import keep_freed_memory

    keep_freed_memory()
    with readable_errors():
        _detect(opt)


if __name__ == "__main__":
    main(parse_opt())
