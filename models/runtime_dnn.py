"""ONNX files in OpenCV, for val.py --dnn and detect.py --dnn. Not for ONNX Runtime: models/runtime_onnx.py."""

from pathlib import Path

import torch
from torch import Tensor

from models.export_metadata import from_texts
from models.exported import ExportedBackend, as_array, check_is_file, one_line
from models.onnx_metadata import check_external_data, image_shape_of, texts_of
from utils.errors import InputError


class DnnBackend(ExportedBackend):
    """A file in OpenCV, which needs no further package, on the CPU. Raises InputError where OpenCV cannot run it, and
    for a file that has no fixed image size or has weights outside of its own folder."""

    def __init__(self, file: Path, device: torch.device) -> None:
        import cv2

        check_is_file(file)
        check_external_data(file)
        metadata = from_texts(texts_of(file), file)
        batch, _, height, width = image_shape_of(file)
        if metadata.nms:
            raise InputError(f"--dnn: OpenCV cannot run the suppression inside {file} (--nms)")
        if height is None or width is None:
            raise InputError(f"--dnn takes files of one image size, and {file} is free in it (--dynamic)")
        try:
            self.network = cv2.dnn.readNetFromONNX(str(file))
        except cv2.error as error:
            raise InputError(f"{file}: OpenCV cannot read it: {one_line(error)}") from error
        super().__init__(file, metadata, device, fixed_hw=(height, width), fixed_batch=batch)

    def _run(self, images: Tensor) -> Tensor:
        import cv2

        try:
            self.network.setInput(as_array(images))
            return torch.from_numpy(self.network.forward())
        except cv2.error as error:
            shape = tuple(images.shape)
            raise InputError(f"{self.file}: OpenCV fails on images {shape}: {one_line(error)}") from error
