"""The processes of a run: device, rank and process group."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from lps.manifests.errors import LpsError, RefusedError
from lps.manifests.names import DeviceName
from lps.model.data.epoch_plan import Rank

PROCESS_GROUP_TIMEOUT = timedelta(hours=6)
"""How long processes wait for each other: while the first one fills the cache of feature maps, that may be long."""


@contextmanager
def process_group(name: DeviceName) -> Iterator[tuple[Rank, torch.device]]:
    """Join the processes that torchrun started, if it did."""
    device = choose_device(name)
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        with clear_errors():
            yield Rank(), device
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PROCESS_GROUP_TIMEOUT)
    try:
        with clear_errors():
            yield Rank(dist.get_rank(), world), device
    finally:
        dist.destroy_process_group()


def choose_device(name: DeviceName) -> torch.device:
    """Return the device of that name; `auto` takes a GPU where there is one. Raises RefusedError for a missing one."""
    there = torch.cuda.is_available()
    if name == "cuda" and not there:
        raise RefusedError('no CUDA device found; set the device to "auto" or "cpu"')
    return torch.device("cuda" if there and name != "cpu" else "cpu")


@contextmanager
def clear_errors() -> Iterator[None]:
    """Turn errors of torch that the user can fix into one line."""
    try:
        yield
    except torch.cuda.OutOfMemoryError as e:
        raise LpsError(
            "the GPU's memory is full: set a smaller train.batch_size or image_px, net.recompute = true, or "
            'run.precision = "bf16"'
        ) from e
    except RuntimeError as e:
        if not dist.is_initialized() or not any(word in str(e).lower() for word in ("gloo", "nccl", "connection")):
            raise
        raise LpsError("another process of this run ended; what it says tells why") from e


def all_gather_list(values: Sequence[Any]) -> list[Any]:
    """Gather the values of all processes, in the order of their ranks; every process must call this."""
    if not dist.is_initialized():
        return list(values)
    parts: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(parts, list(values))
    return [value for part in parts for value in part]
