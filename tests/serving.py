"""A service in this process on the loopback interface, with tiny models, for tests that talk HTTP to it."""

import json
import socket
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import cv2
import numpy as np
import torch

from tests.tiny import CFG

STATIC_CFG = {**CFG, "backbone": [*CFG["backbone"][:4], [-1, 1, "Conv", [256, 1, 1]]]}
SIDE = 64  # pixels that the models are served at
SURE = {"conf": "0.001"}  # untrained models are sure of nothing


def tiny_weights(file: Path, cfg: dict = CFG) -> Path:
    """An untrained checkpoint with the classes square and bar."""
    from models.blocks_dynamic import set_temperature
    from models.weights import save_checkpoint
    from models.yolo import DetectionModel

    torch.manual_seed(0)
    model = DetectionModel(cfg, names=["square", "bar"])
    set_temperature(model, 1.0)
    save_checkpoint(file, model=model)
    return file


def unsure_weights(file: Path, cfg: dict) -> Path:
    """An untrained checkpoint with the classes square and bar. What its head gives for noise is scaled, so that the
    confidences spread over 0 to 1 and the boxes are near their anchors."""
    from models.weights import save_checkpoint
    from models.yolo import DetectionModel

    torch.manual_seed(0)
    model = DetectionModel(cfg, names=["square", "bar"]).eval()
    spread = torch.tensor([0.4] * 4 + [2.0] * 3).repeat(3)  # of the logits: x, y, w, h, objectness, both classes

    def scale(head: torch.nn.Conv2d, _inputs: object, output: torch.Tensor) -> None:
        raw = output - head.bias[:, None, None]
        factor = spread / raw.std((0, 2, 3))
        head.weight.mul_(factor[:, None, None, None])
        head.bias.copy_(-factor * raw.mean((0, 2, 3)))

    hooks = [head.register_forward_hook(scale) for head in model.model[-1].m]
    with torch.no_grad():
        model(torch.rand(1, 3, 64, 64))
    for hook in hooks:
        hook.remove()
    save_checkpoint(file, model=model)
    return file


def picture(suffix: str = ".png", size_wh: tuple[int, int] = (48, 32), seed: int = 0) -> bytes:
    """A file of noise."""
    width, height = size_wh
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return cv2.imencode(suffix, noise)[1].tobytes()


def made_service(files: list[Path], *, max_batch: int = 16, **limits: float):
    """The service of some weights."""
    from engine.served_model import ServedModel, model_ids
    from engine.service import Service
    from engine.service_limits import Limits

    device = torch.device("cpu")
    models = [
        ServedModel(ident, file, device, imgsz=[SIDE], half=False)
        for ident, file in zip(model_ids(files), files, strict=True)
    ]
    return Service(models, Limits(**limits), max_batch=max_batch)


@contextmanager
def running(service, allowed_hosts: tuple[str, ...] | None = ("127.0.0.1", "localhost", "::1")) -> Iterator[str]:
    """The address of the service, which runs in a thread until the end of the block."""
    from engine import server

    listener = server.listening("127.0.0.1", 0)
    port = listener.getsockname()[1]
    thread = threading.Thread(target=server.serve, args=(service, listener), kwargs={"allowed_hosts": allowed_hosts})
    thread.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        service.stopping = True
        thread.join(30)
        assert not thread.is_alive()


def answered(address: str, content: bytes, **fields) -> dict:
    """What POST /v1/detect gives for a picture, with the standard library alone."""
    edge = "edge-of-the-parts"
    parts = [(f'name="{name}"', str(value).encode()) for name, value in fields.items()]
    parts.append(('name="pictures"; filename="a.png"', content))
    body = b"".join(f"--{edge}\r\nContent-Disposition: form-data; {h}\r\n\r\n".encode() + v + b"\r\n" for h, v in parts)
    headers = {"Content-Type": f"multipart/form-data; boundary={edge}"}
    request = urllib.request.Request(f"{address}/v1/detect", body + f"--{edge}--\r\n".encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def raw(address: str, request: bytes) -> tuple[int, bytes]:
    """Sends bytes and reads until the other side ends: status (0 where it said nothing) and all that came."""
    host, port = address.removeprefix("http://").split(":")
    came = b""
    with closing(socket.create_connection((host, int(port)), timeout=20)) as connection:
        with suppress(ConnectionError):
            connection.sendall(request)
        with suppress(ConnectionError):
            while chunk := connection.recv(65536):
                came += chunk
    status = came[9:12] if came.startswith(b"HTTP/1.1 ") else b"0"
    return int(status), came
