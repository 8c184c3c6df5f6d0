"""The processes of a run: device, rank and process group."""

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Self

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
    # What is no tensor of the device (a signal to stop, metrics) goes by the CPU and does not wait for the device.
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=PROCESS_GROUP_TIMEOUT)
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


def smallest(number: int, device: torch.device) -> int:
    """Return the smallest of all processes' numbers; every process must call this."""
    if not dist.is_initialized():
        return number
    found = torch.tensor(number, device=device)
    dist.all_reduce(found, dist.ReduceOp.MIN)
    return int(found)


class StopSignals:
    """Takes note of SIGTERM and Ctrl-C while a run trains, so that it ends after its step and not within.

    A second Ctrl-C ends it at once, but not under torchrun, which passes on what the terminal has sent already.
    """

    def __init__(self) -> None:
        self.asked: int = 0
        """The signal that asked this process to stop; 0 for none."""
        self.signum: int = 0
        """The one that all processes have agreed to stop for."""
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # no other may set handlers
            self._before = {signum: signal.signal(signum, self._note) for signum in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_: object) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    def _note(self, signum: int, _frame: object) -> None:
        if self.asked and signum == signal.SIGINT and "TORCHELASTIC_RUN_ID" not in os.environ:
            raise KeyboardInterrupt
        self.asked = signum

    def agreed(self) -> bool:
        """Return whether any process was asked to stop; every process must call this."""
        self.signum = self.asked
        if dist.is_initialized():
            largest = torch.tensor(self.asked)
            dist.all_reduce(largest, dist.ReduceOp.MAX)
            self.signum = int(largest)
        return bool(self.signum)
