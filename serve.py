"""Serve models over HTTP: a page to try them on, and an API for programs.

    python serve.py                                       the newest run's best.pt on http://127.0.0.1:8000
    python serve.py --weights static.pt dynamic.pt        two models, which the page compares
    python serve.py --weights best.onnx --port 9000       an exported model
    python serve.py --host 0.0.0.0                        for other machines too: there is no password

    curl -F pictures=@bus.jpg -F conf=0.4 http://127.0.0.1:8000/v1/detect

Needs `pip install -r requirements-serve.txt`. What it answers is described at /docs, and in docs/service.md.
From Python: `import serve; serve.run(weights="best.pt")`.
"""

import argparse
import os
from collections.abc import Callable
from typing import Any

Add = Callable[..., argparse.Action]  # add_argument of a group


def build_parser() -> argparse.ArgumentParser:
    """The flags in groups, each with its unit and default."""
    from utils.flags import FlagParser

    return FlagParser(__doc__, GROUPS)


def _add_models(add: Add) -> None:
    weights = "checkpoints or exported models, each served by itself (default: the newest run's best.pt)"
    add("--weights", nargs="+", default=[], help=weights)
    size = "longer side, or height and width, in pixels (default: 640)"
    add("--imgsz", "--img", "--img-size", nargs="+", type=int, default=[640], help=size)
    add("--device", default="", help="CUDA device number, cpu or mps (default: the best there is)")
    add("--half", action="store_true", help="16-bit arithmetic where the device is fast at it (default: 32-bit)")
    add("--max-batch", type=int, default=16, help="pictures that go through a model together (default: 16)")


def _add_address(add: Add) -> None:
    add("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 for all (default: this machine alone)")
    add("--port", type=int, default=8000, help="port to listen on, 0 for a free one (default: 8000)")
    names = "names that requests may be sent to, as behind a proxy (default: those of this machine; any with --host)"
    add("--allowed-hosts", nargs="+", default=[], help=names)


def _add_limits(add: Add) -> None:
    add("--max-pictures", type=int, default=16, help="pictures of a request (default: 16)")
    add("--max-mb", type=float, default=32, help="megabytes of a request (default: 32)")
    add("--max-megapixels", type=float, default=50, help="millions of pixels of a picture (default: 50)")
    add("--max-queue", type=int, default=128, help="pictures that wait for a model (default: 128)")
    add("--timeout", type=float, default=30, help="seconds each for upload, decoding and model (default: 30)")


GROUPS: dict[str, Callable[[Add], None]] = {
    "which models": _add_models,
    "where": _add_address,
    "limits": _add_limits,
}


def parse_opt(argv: list[str] | None = None) -> argparse.Namespace:
    """The options of a command line (sys.argv where none is given)."""
    return build_parser().parse_args(argv)


def run(**options: Any) -> None:
    """Serves until SIGINT or SIGTERM, with the flags as arguments. Raises InputError where they cannot be used."""
    opt = parse_opt([])
    if unknown := options.keys() - vars(opt).keys():
        raise TypeError(f"run() takes {', '.join(vars(opt))}, got {', '.join(sorted(unknown))}")
    _serve(argparse.Namespace(**{**vars(opt), **options}))


def _serve(opt: argparse.Namespace) -> None:
    # OpenCV reads its own limit when it is loaded. Ours is checked before it decodes; this is for files that lie.
    os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(int(opt.max_megapixels * 1e6)))
    from utils.extras import need

    need(["fastapi", "uvicorn"], "requirements-serve.txt", purpose="serve.py")
    from engine import server

    server.run(opt)


def main(opt: argparse.Namespace) -> None:
    """Serves, with one message and exit code 1 where the input cannot be used."""
    from utils.errors import readable_errors
    from utils.memory import keep_freed_memory

    keep_freed_memory()
    with readable_errors():
        _serve(opt)


if __name__ == "__main__":
    main(parse_opt())
