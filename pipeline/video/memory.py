"""How much memory this process has and may have, and whether it is at that limit."""

import resource
from pathlib import Path

MARGIN_BYTES = 256 << 20
"""A process with less than this left is at its limit: no frame or packet within the limits of a video needs more."""


def limit_memory(n_bytes: int) -> None:
    """Let this process allocate at most `n_bytes` more than it has now; beyond that allocation fails cleanly.

    RLIMIT_DATA counts private writable memory, so Ray's shared object store stays outside of it.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = _allocated() + n_bytes
    resource.setrlimit(resource.RLIMIT_DATA, (wanted if hard < 0 else min(wanted, hard), hard))


def at_memory_limit() -> bool:
    """Tell whether an allocation that failed may have failed for this process's limit, not for a nonsense size."""
    soft, _ = resource.getrlimit(resource.RLIMIT_DATA)
    return soft >= 0 and soft - _allocated() < MARGIN_BYTES


def resident_bytes() -> int:
    """Return how much of the machine's memory this process holds, shared pages aside."""
    _, resident, shared, *_ = Path("/proc/self/statm").read_text().split()
    return (int(resident) - int(shared)) * resource.getpagesize()


def _allocated() -> int:
    with Path("/proc/self/status").open() as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmData:"))
