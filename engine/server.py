"""The process of serve.py: loads the models, listens, ends when it is asked to. Not for what is answered:
engine/service.py; nor for what a connection waits for: engine/service_connection.py."""

import logging
import socket
import sys
import time
from argparse import Namespace
from math import inf
from typing import Any

import uvicorn

from engine.inputs import check_ranges, chosen_weights, image_sides
from engine.interruption import StoppedBySignal
from engine.served_model import ServedModel, model_ids
from engine.service import Service
from engine.service_connection import Connection
from engine.service_guard import LOOPBACK, Guard
from engine.service_limits import Limits
from engine.service_routes import create_app
from utils.errors import InputError
from utils.log import LOGGER
from utils.torch_utils import select_device

RANGES = {
    "port": (0, 65535),
    "max_batch": (1, inf),
    "max_pictures": (1, inf),
    "max_mb": (1, 2048),
    "max_megapixels": (1, 1000),
    "max_queue": (1, inf),
    "timeout": (1, inf),
}
CONNECTIONS = 256  # at a time
SWITCH_SECONDS = 0.0005  # Python's 0.005 lets the network's thread wait for the others at each of its layers


class Server(uvicorn.Server):
    """uvicorn's server, which answers what is under way when a signal comes, refuses the rest with 503 meanwhile, and
    ends well. A second signal ends it at once."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self.service, self._deadline = service, inf
        self.forced_by: int | None = None  # the second signal

    def handle_exit(self, sig: int, frame: Any) -> None:
        """A signal has come; no log line here, as it may have come in the middle of another."""
        if self.service.stopping:
            self.should_exit = self.force_exit = True
            self.forced_by = sig
            logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # for each request that is cut off
        self.service.stopping = True
        self._deadline = time.monotonic() + 2 * self.service.limits.seconds

    async def on_tick(self, counter: int) -> bool:
        """Whether to end; asked ten times a second."""
        idle = self.service.stopping and (not self.service.running or time.monotonic() > self._deadline)
        return await super().on_tick(counter) or idle


def run(opt: Namespace) -> None:
    """Serves with the options of serve.py until SIGINT or SIGTERM. Raises InputError where they, the weights or the
    address cannot be used."""
    check_ranges(opt, RANGES)
    image_sides(opt.imgsz)  # told before the models are loaded
    sys.setswitchinterval(SWITCH_SECONDS)
    files = chosen_weights(opt.weights)
    with listening(opt.host, opt.port) as listener:
        device = select_device(opt.device)
        models = [
            ServedModel(ident, file, device, imgsz=opt.imgsz, half=opt.half)
            for ident, file in zip(model_ids(files), files, strict=True)
        ]
        service = Service(models, limits_of(opt), max_batch=opt.max_batch)
        serve(service, listener, allowed_hosts=allowed_hosts(opt))


def serve(service: Service, listener: socket.socket, *, allowed_hosts: list[str] | None) -> None:
    """Answers on the socket until a signal comes. Raises StoppedBySignal where a second one has cut answers off."""
    for name in ("uvicorn.error", "uvicorn.access"):  # the guard logs requests
        logging.getLogger(name).setLevel(logging.ERROR)
    guard = Guard(create_app(service), allowed_hosts=allowed_hosts)
    config = uvicorn.Config(
        guard,
        http=Connection,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=int(service.limits.seconds) + 1,
    )
    host, port = listener.getsockname()[:2]
    for model in service.models.values():
        LOGGER.info(f"{model.id}: {model.file}, {len(model.names)} classes, {'x'.join(map(str, model.imgsz))} pixels")
    LOGGER.info(f"Serving on http://{f'[{host}]' if ':' in host else host}:{port} until Ctrl+C")
    server = Server(config, service)
    server.run(sockets=[listener])
    if server.forced_by:
        raise StoppedBySignal(server.forced_by)
    LOGGER.info("Stopped: all that was asked is answered")


def limits_of(opt: Namespace) -> Limits:
    """The limits that the options name."""
    return Limits(
        pictures=opt.max_pictures,
        bytes=int(opt.max_mb * 2**20),
        pixels=int(opt.max_megapixels * 1e6),
        queue=opt.max_queue,
        seconds=opt.timeout,
    )


def allowed_hosts(opt: Namespace) -> list[str] | None:
    """The names that requests may be sent to; None for any. Warns of an address that others can reach."""
    if opt.host in LOOPBACK:
        return [*LOOPBACK, *opt.allowed_hosts]
    LOGGER.warning(f"--host {opt.host}: whoever reaches this machine can use the service, which asks for no password")
    return list(opt.allowed_hosts) or None


def listening(host: str, port: int) -> socket.socket:
    """A socket on the address; port 0 for a free one. Raises InputError where there is none."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=CONNECTIONS)
    except OSError as error:
        told = error.strerror or str(error)
        raise InputError(f"--host {host} --port {port}: an address to listen on was expected, got: {told}") from error
