"""How several processes that train one model work together; `python -m torch.distributed.run` starts them. With a
single process every function does nothing, or returns what it was given. Not for the wrapped model: that is the
trainer's."""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from utils.errors import InputError
from utils.log import LOGGER

T = TypeVar("T")
PATIENCE = timedelta(days=1)  # the others wait while rank 0 validates; a process that dies ends them at once


def rank() -> int:
    """This process's number among all, 0 where it is the only one."""
    return int(os.environ.get("RANK", 0))


def local_rank() -> int:
    """This process's number on its machine."""
    return int(os.environ.get("LOCAL_RANK", 0))


def world_size() -> int:
    """How many processes train together, on all machines."""
    return int(os.environ.get("WORLD_SIZE", 1))


@contextmanager
def process_group() -> Iterator[None]:
    """In this block the processes of the launcher are connected: by gloo for tensors on the CPU, by nccl for those on
    GPUs. Ranks other than 0 log only errors. Raises InputError where the launcher has not set all its variables."""
    if world_size() == 1:
        yield
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    missing = [name for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise InputError(
            f"WORLD_SIZE={world_size()} says that several processes train, but {', '.join(missing)} is not set: start "
            "them with python -m torch.distributed.run, or unset WORLD_SIZE"
        )
    dist.init_process_group(backend, timeout=PATIENCE)
    level = LOGGER.level
    LOGGER.setLevel(level if rank() == 0 else logging.ERROR)
    try:
        yield
    finally:
        LOGGER.setLevel(level)
        dist.destroy_process_group()


def main_decides(work: Callable[[], T]) -> T:
    """Runs `work` on rank 0 alone and returns its result, which must allow pickling, on all ranks. Where it fails, its
    exception is raised on rank 0, and an InputError with the same message on the others."""
    if world_size() == 1:
        return work()
    if rank() > 0:
        return _received()
    try:
        result = work()
    except BaseException as error:
        _share((None, f"{type(error).__name__}: {error}"))
        raise
    _share((result, None))
    return result


@contextmanager
def main_first() -> Iterator[None]:
    """The block runs on rank 0 first, and then on the others, for which rank 0 has prepared files. Where it fails on
    rank 0, the others raise an InputError with its message instead of running it."""
    if world_size() == 1:
        yield
        return
    if rank() > 0:
        _received()
        yield
        return
    try:
        yield
    except BaseException as error:
        _share((None, f"{type(error).__name__}: {error}"))
        raise
    _share((None, None))


def _share(outcome: tuple[object, str | None]) -> None:
    """From rank 0 to all: (result, None), or (None, what went wrong)."""
    dist.broadcast_object_list([outcome], src=0, device=torch.device("cpu"))


def _received() -> Any:
    """The result that rank 0 shares; InputError where it shares that something went wrong."""
    box: list[Any] = [None]
    dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
    result, problem = box[0]
    if problem is not None:
        raise InputError(f"rank {rank()} ends because rank 0 did: {problem}")
    return result


def any_rank(*flags: bool) -> tuple[bool, ...]:
    """Which of the flags are set on at least one rank."""
    if world_size() == 1:
        return flags
    joined = torch.tensor(flags, dtype=torch.uint8)
    dist.all_reduce(joined, dist.ReduceOp.MAX)
    return tuple(map(bool, joined.tolist()))


def gathered(value: T) -> list[T]:
    """The values of all ranks, in the order of ranks, on each of them. They must allow pickling."""
    values: list[T] = [value] * world_size()
    if world_size() > 1:
        dist.all_gather_object(values, value)
    return values


def mean_over_ranks(tensor: Tensor) -> Tensor:
    """The tensor's mean over all ranks. Its shape and its type, a float, must be the same on all."""
    if world_size() == 1:
        return tensor
    total = tensor.clone()
    dist.all_reduce(total)
    return total / world_size()


@torch.no_grad()
def average_(tensors: list[Tensor]) -> None:
    """Replaces each of the float tensors by its mean over all ranks, in place, in a single exchange."""
    if world_size() == 1 or not tensors:
        return
    mean = mean_over_ranks(torch.cat([tensor.flatten() for tensor in tensors]))
    for tensor, own in zip(tensors, mean.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(own.view_as(tensor))
