"""Entry points of torch.hub: YOLOv5's Python API.

    import torch

    model = torch.hub.load("path/to/this/clone", "custom", path="best.pt", source="local")   # your own, also exported
    model = torch.hub.load("path/to/this/clone", "yolov5n", source="local")                  # published weights
    results = model("bus.jpg")

docs/python.md tells what model and results can do.
"""

from __future__ import annotations

import contextlib
import importlib.machinery
import pathlib
import sys
import types
import typing

if typing.TYPE_CHECKING:
    import torch

    from models.autoshape import AutoShape
    from models.backend import Backend
    from models.yolo import DetectionModel

# torch.hub.list takes every callable without an underscore for an entry point: so this file imports modules alone, and
# its own functions have underscores.

dependencies = ["torch", "torchvision", "numpy", "cv2", "PIL", "yaml", "tqdm"]

_ROOT = pathlib.Path(__file__).resolve().parent
_PACKAGES = ("models", "utils", "engine")
_NAMES = (
    *(f"yolov5{size}{kind}" for kind in ("", "6") for size in "nsmlx"),
    *(f"yolov5{size}_{kind}" for kind in ("dynamic", "dyconv") for size in "nsmlx"),
)


def custom(
    path: str | pathlib.Path | list[str | pathlib.Path] = "path/to/model.pt",
    autoshape: bool = True,
    _verbose: bool = True,
    device: str | int | torch.device | None = None,
    *,
    verbose: bool = True,
) -> AutoShape | DetectionModel | Backend:
    """Your own model: a .pt of train.py or of YOLOv5, or an exported file.

    path: of the file; a list of several makes an ensemble.
    autoshape: wrapped so that it takes images of any kind; False gives the network itself.
    _verbose, verbose: False leaves only warnings in the log. There are two because torch.hub.load does not pass
        `verbose` on; _verbose is v6.1's.
    device: "cpu", 0, "cuda:0", ...; None for the best there is.
    """
    with _our_packages():
        from models.loading import load_path

        return load_path(path, autoshape=autoshape, verbose=_verbose and verbose, device=device)


def _entry_point(name: str) -> typing.Callable[..., AutoShape | DetectionModel | Backend]:
    """The function that loads the model of that name."""

    # Arguments and their texts stand as in custom(): torch.hub.help shows people those of the function itself.
    def load(
        pretrained: bool = True,
        channels: int = 3,
        classes: int = 80,
        autoshape: bool = True,
        _verbose: bool = True,
        device: str | int | torch.device | None = None,
        *,
        verbose: bool = True,
    ) -> AutoShape | DetectionModel | Backend:
        with _our_packages():
            from models.loading import load_name

            return load_name(
                name,
                pretrained=pretrained,
                channels=channels,
                classes=classes,
                autoshape=autoshape,
                verbose=_verbose and verbose,
                device=device,
            )

    load.__name__ = load.__qualname__ = name
    static, _, kind = name.partition("_")
    weights = f"those of {static}, spread over its kernels, to be trained" if kind else "the published ones"
    load.__doc__ = f"""The model {name}.yaml.

    pretrained: with weights: {weights}. They are downloaded where they are not here.
    channels: of the images; other than 3 needs autoshape=False.
    classes: number of classes. With other channels than 3 or classes than 80, those of the weights that fit are taken.
    autoshape: wrapped so that it takes images of any kind; False gives the network itself.
    _verbose, verbose: False leaves only warnings in the log. There are two because torch.hub.load does not pass
        `verbose` on; _verbose is v6.1's.
    device: "cpu", 0, "cuda:0", ...; None for the best there is.
    """
    return load


@contextlib.contextmanager
def _our_packages() -> typing.Iterator[None]:
    """Inside, to import `models`, `utils` and `engine` gives this project's packages.

    A program that uses torch.hub may have packages of these names too. Those that it has imported are back in
    sys.modules afterwards. If it has imported some, or could, ours are taken out of there, which does a loaded model no
    harm. Otherwise ours stay, so that models can be pickled and compiled.

    Differs from v6.1: there the import of one of the two fails.
    """
    loaded = [sys.modules[name] for name in _PACKAGES if name in sys.modules]
    theirs = {} if all(map(_is_ours, loaded)) else _taken_out()
    sys.path.insert(0, str(_ROOT))
    try:
        yield
    finally:
        sys.path.remove(str(_ROOT))
        if theirs or (not loaded and any(map(_is_theirs_on_path, _PACKAGES))):
            _taken_out()
            sys.modules.update(theirs)


def _is_ours(package: types.ModuleType) -> bool:
    file = getattr(package, "__file__", None)
    return file is not None and pathlib.Path(file).resolve().parent.parent == _ROOT


def _taken_out() -> dict[str, types.ModuleType]:
    """Removes the modules of our packages' names from sys.modules, whosever they are. Returns them by name."""
    found = [name for name in sys.modules if name.partition(".")[0] in _PACKAGES]
    return {name: sys.modules.pop(name) for name in found}


def _is_theirs_on_path(package: str) -> bool:
    """Whether an import of that name could find code outside of this clone: a module, or a folder with Python files."""
    elsewhere = [folder for folder in sys.path if pathlib.Path(folder).resolve() != _ROOT]
    spec = importlib.machinery.PathFinder.find_spec(package, elsewhere)
    if spec is None or spec.origin is not None:
        return spec is not None
    return any(next(pathlib.Path(folder).glob("*.py"), None) for folder in spec.submodule_search_locations or ())


globals().update({name: _entry_point(name) for name in _NAMES})
