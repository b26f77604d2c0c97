"""TensorFlow in one process with torch. Not for what is done with it: models/export_tensorflow.py,
models/runtime_tensorflow.py."""

import os
from importlib.util import find_spec
from types import ModuleType

from utils.silence import silence


def import_tensorflow() -> ModuleType:
    """The package, imported so that torch still works, nothing is said about processors and drivers, and GPUs are left
    to torch: by itself, TensorFlow takes all of their memory."""
    import_before_tensorflow()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with silence():
        import tensorflow

        if tensorflow.config.get_visible_devices("GPU"):
            tensorflow.config.set_visible_devices([], "GPU")
    return tensorflow


def import_before_tensorflow() -> None:
    """To be called before a package is imported that imports TensorFlow where it is installed, as coremltools and
    tensorboard do. It imports triton, which torch else does in the middle of its work: behind TensorFlow, with which
    it shares names of C++, that ends the process with a segmentation fault."""
    if find_spec("tensorflow") and find_spec("triton"):
        import triton  # noqa: F401
