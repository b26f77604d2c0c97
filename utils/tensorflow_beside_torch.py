"""TensorFlow in one process with torch. Not for what is done with it: models/export_tensorflow.py,
models/runtime_tensorflow.py."""

import os
from importlib.util import find_spec
from types import ModuleType

from utils.silence import silence


def import_tensorflow() -> ModuleType:
    """Imports TensorFlow and returns it, so that torch still works, nothing is said about processors and drivers, and
    GPUs are left to torch: by default TensorFlow takes all of their memory."""
    import_before_tensorflow()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with silence():
        import tensorflow

        if tensorflow.config.get_visible_devices("GPU"):
            tensorflow.config.set_visible_devices([], "GPU")
    return tensorflow


def import_before_tensorflow() -> None:
    """To be called before TensorFlow is imported, also by other packages: coremltools and tensorboard do, where it is
    installed. Imports triton. torch would import it later, and after TensorFlow, whose C++ symbols clash with triton's,
    that ends the process with a segmentation fault."""
    if find_spec("tensorflow") and find_spec("triton"):
        import triton  # noqa: F401
