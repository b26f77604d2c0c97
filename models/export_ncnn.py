"""A network as a folder of NCNN, for phones and small boards, by pnnx. Not for running it: models/runtime_ncnn.py."""

from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from models.conversion import check_one_image, conversion, run_program
from models.export_options import ExportOptions
from models.exported import METADATA_NAME
from models.fixed_size import FixedSizeNetwork
from models.runtime_ncnn import NETWORK_NAME, WEIGHTS_NAME
from models.yolo import DetectionModel


def export_ncnn(model: DetectionModel, file: Path, options: ExportOptions) -> Path:
    """Writes the folder `file`: float32 images (1, 3, height, width) in 0..1 -> decoded predictions (1, N, 5 + nc),
    boxes in pixels. half: 16-bit weights. Raises InputError where pnnx fails."""
    check_one_image(options, "ncnn")
    network = FixedSizeNetwork(model, options.imgsz_hw)
    images = torch.zeros(1, 3, *options.imgsz_hw)
    with conversion("pnnx", file, options), TemporaryDirectory() as workplace:
        trace = Path(workplace) / "model.torchscript"
        torch.jit.trace(network, images, check_trace=False).save(str(trace))
        file.mkdir()
        _convert(trace, file.resolve(), images.shape, options)  # pnnx runs in another directory
    (file / METADATA_NAME).write_text(options.metadata.as_json())
    return file


def _convert(trace: Path, file: Path, shape: torch.Size, options: ExportOptions) -> None:
    """trace: a TorchScript file, beside which pnnx leaves what we have no use for."""
    import pnnx

    command = [
        pnnx.EXEC_PATH,
        str(trace),
        f"inputshape=[{','.join(map(str, shape))}]",
        f"fp16={int(options.half)}",
        f"ncnnparam={file / NETWORK_NAME}",
        f"ncnnbin={file / WEIGHTS_NAME}",
    ]
    run_program(command, file / WEIGHTS_NAME, options, cwd=trace.parent)
